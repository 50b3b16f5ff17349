package caddymodule

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// F54: canary scan of log at debug level, metrics, configuration, autosave,
// errors, profiles, database and spill. Expected: 0 hits. Best: the same (G15).
func TestF54CanaryScan(t *testing.T) {
	places, secrets := 0, 0
	for name, scan := range map[string]func(*testing.T) (int, int){"password": scanPassword, "people": scanPeople} {
		t.Run(name, func(t *testing.T) {
			p, s := scan(t)
			places, secrets = places+p, secrets+s
		})
	}
	measured(t, 54, 0, "%d secrets of sign-ins by password, code and device, refreshes, refusals and a logout, looked for in %d places at debug level: 0 hits", secrets, places)
}

// files reads all files below directories, except those that hold a secret on
// purpose.
func files(t *testing.T, places map[string]string, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			switch filepath.Base(path) {
			case "client_secret", "password", filepath.Base(keyFile()):
				return nil
			}
			places[path] = read(t, path)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// scanPassword is a full life of an account that signs in by itself.
func scanPassword(t *testing.T) (scanned, searched int) {
	r := newRig(t, sandbox.Config{ClientSecret: "canary-client-secret", Password: "canary-password"})
	r.secret("client_secret", "canary-client-secret")
	r.secret("password", "canary-password")
	log := r.logFile()
	r.global = strings.Replace(r.global, "\tlog", "\tdebug\n\tservers {\n\t\ttrace\n\t\tlog_credentials\n\t}\n\tlog", 1)
	r.site = "log"
	config := strings.Replace(strings.Replace(r.caddyfile(), "admin off", "admin 127.0.0.1:"+strings.Split(freeAddress(t), ":")[1], 1), "persist_config off", "", 1)
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	r.Cleanup(r.stop)
	var seen []string
	note := func() {
		r.ready()
		rs := r.session().Current().Authorization()[0]
		seen = append(seen, strings.TrimPrefix(rs, "Bearer "))
	}
	r.get("/echo")
	note()
	if err := r.session().Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	note()
	r.sandbox.RevokeAccessTokens()
	r.get("/echo") // refused and replayed
	note()
	r.sandbox.Play(sandbox.LostReply, 1)
	_ = r.session().Refresh(context.Background())
	r.get("/echo")
	note()
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	r.settled()
	r.get("/echo")
	address := strings.Fields(config[strings.Index(config, "admin ")+6:])[0]
	places := map[string]string{}
	for _, path := range []string{"/config/", "/bearer/status", "/metrics", "/debug/pprof/goroutine?debug=2", "/debug/vars"} {
		res, err := client.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		places[path] = string(text)
	}
	r.secret("password", "canary-password-2")
	r.sandbox.RevokeRefreshTokens()
	_ = r.session().Refresh(context.Background()) // ends in a refused sign-in
	if err := r.session().Forget(context.Background()); err != nil {
		t.Fatal(err)
	}
	res, text := r.do("GET", "/echo", nil)
	places["problem"] = text + fmt.Sprint(res.Header)
	r.stop()
	files(t, places, r.dir, filepath.Dir(caddy.ConfigAutosavePath))
	for _, must := range []string{log, r.dir + "/store/tokens.db", caddy.ConfigAutosavePath} {
		if places[must] == "" {
			t.Errorf("%s is not there", must)
		}
	}
	key := strings.TrimSpace(read(t, keyFile()))
	if !contains(places[log], "got a token", "upstream roundtrip", "handled request") {
		t.Error("the log is not at debug level")
	}
	secrets := append(seen, "canary-client-secret", "canary-password", "_1XBPWQQ_", "_0XBPWQQ_", key, "Y2FuYXJ5")
	for place, text := range places {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s: a secret is there: %.12s…", place, secret)
			}
		}
	}
	if len(seen) != 4 || seen[0] == seen[3] {
		t.Errorf("%d tokens were seen", len(seen))
	}
	if info, err := os.Stat(r.dir + "/store/tokens.db"); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	return len(places), len(secrets)
}

// scanPeople is a full life of accounts that people sign in for.
func scanPeople(t *testing.T) (scanned, searched int) {
	r := newPortalRig(t, sandbox.Config{ClientSecret: "canary-client-secret"})
	r.secret("client_secret", "canary-client-secret")
	log := r.logFile()
	r.global = strings.Replace(r.global, "\tlog", "\tdebug\n\tservers {\n\t\ttrace\n\t}\n\tlog", 1)
	r.site, r.admin = "log", freeAddress(t)
	r.accounts = "account tv {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant device_code\n\t\t}\n\t\taccount machine {\n\t\t\t" +
		r.endpoints() + "\n\t\t\tgrant client_credentials\n\t\t}"
	r.extra = "http://:0 {\n\tbind 127.0.0.1\n\tbearer_proxy tv/x " + r.api + "\n}\n"
	if err := r.load(strings.Replace(r.caddyfile(), "persist_config off", "", 1)); err != nil {
		t.Fatal(err)
	}
	r.Cleanup(r.stop)
	secrets := map[string]string{}
	ada, alan := r.browser("ada"), r.browser("alan")
	alan.page("")
	sign := func() {
		callback := ada.approve(ada.begin("erp/ada"))
		for _, name := range []string{"code", "state"} {
			secrets[parameter(t, callback, name)] = name
		}
		alan.finish(callback) // foreign
		ada.finish(callback)
		ada.finish(callback) // used
	}
	sign()
	secrets[r.tokenOf("erp/ada")] = "access token"
	r.sandbox.RevokeAccessTokens()
	if ada.whose() == "" { // refused, refreshed, replayed
		t.Error("no token")
	}
	secrets[r.tokenOf("erp/ada")] = "access token"
	r.sandbox.Play(sandbox.LostReply, 1)
	sign()
	sign()
	secrets[r.tokenOf("erp/ada")] = "access token"
	secrets[r.tokenOf("machine")] = "access token"
	_ = ada.redirected(ada.press("login", "tv/ada"))
	secrets[ada.cookie()], secrets[alan.cookie()], secrets[csrf(ada.cookie())] = "cookie", "cookie", "csrf"
	places := map[string]string{}
	for _, path := range []string{"/config/", "/bearer/status", "/metrics", "/debug/pprof/goroutine?debug=2"} {
		res, err := client.Get("http://" + r.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		places[path] = string(text)
	}
	ada.press("logout", "erp/ada")
	r.stop()
	files(t, places, r.dir, filepath.Dir(caddy.ConfigAutosavePath))
	r.reload() // for the end of the rig
	for _, part := range []string{"upstream roundtrip", "a person logged in", "refused a callback", "logged out", "client_credentials"} {
		if !strings.Contains(places[log], part) {
			t.Errorf("%q isn't in the log", part)
		}
	}
	delete(secrets, "")
	for place, text := range places {
		for secret, what := range secrets {
			for _, form := range []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret)), secret[:len(secret)/2]} {
				if len(secret) < 16 || strings.Contains(text, form) {
					t.Errorf("%s: the %s is there, or too short to look for", place, what)
				}
			}
		}
		for _, form := range []string{"canary-client-secret", "Y2FuYXJ5", "_1XBPWQQ_", "_0XBPWQQ_"} {
			if strings.Contains(text, form) {
				t.Errorf("%s: %s is there", place, form)
			}
		}
	}
	return len(places), len(secrets) + 3
}

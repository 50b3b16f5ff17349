package caddymodule

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// Nothing secret is written anywhere in a full life at debug level.
func TestSecretsAreNowhere(t *testing.T) {
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
	places["log"] = read(t, log)
	places["database"] = read(t, r.dir+"/store/tokens.db")
	places["autosave"] = read(t, caddy.ConfigAutosavePath)
	key := strings.TrimSpace(read(t, keyFile()))
	if !contains(places["log"], "got a token", "upstream roundtrip", "handled request") {
		t.Error("the log is not at debug level")
	}
	for place, text := range places {
		for _, secret := range append(seen, "canary-client-secret", "canary-password", "_1XBPWQQ_", key, "Y2FuYXJ5") {
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
}

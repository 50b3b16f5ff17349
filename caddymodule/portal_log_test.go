package caddymodule

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// With the access log on, nothing of what a sign-in passes along is in the
// log: neither code nor state nor cookie nor token.
func TestPortalLog(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	log := r.logFile()
	r.site = "log"
	r.start()
	ada, alan := r.browser("ada"), r.browser("alan")
	secrets := map[string]string{}
	note := func(callback string) string {
		for _, name := range []string{"code", "state"} {
			secrets[parameter(t, callback, name)] = name
		}
		return callback
	}
	alan.page("")
	ada.signIn("erp/ada")
	first := note(ada.approve(ada.begin("erp/ada")))
	alan.finish(first)                                              // foreign
	ada.finish(first)                                               // good
	ada.finish(first)                                               // used
	ada.finish(note(ada.approve(ada.begin("erp/ada"))) + "&code=x") // malformed
	ada.finish(note(changed(t, ada.approve(ada.begin("erp/ada")), "iss", "https://evil.example")))
	r.sandbox.Play(sandbox.LostReply, 1)
	ada.finish(note(ada.approve(ada.begin("erp/ada"))))
	ada.open(changed(t, note(ada.approve(ada.begin("erp/ada"))), "state", ""))
	ada.send("POST", note(ada.approve(ada.begin("erp/ada"))), "")
	secrets[ada.cookie()], secrets[alan.cookie()] = "cookie", "cookie"
	secrets[csrf(ada.cookie())] = "csrf"
	secrets[r.tokenOf("erp/ada")] = "access token"
	ada.whose()
	r.sandbox.RevokeAccessTokens()
	ada.whose() // refused, refreshed, replayed
	secrets[r.tokenOf("erp/ada")] = "access token"
	r.reload()
	ada.press("logout", "erp/ada")
	r.stop()
	text := read(t, log)
	r.reload() // for the end of the rig
	if !contains(text, "handled request", "/bearer/login", "/bearer/result", "upstream roundtrip", "a person logged in", "refused a callback", "logged out") {
		t.Error("the log is not at debug level, or without requests")
	}
	if strings.Contains(text, "/bearer/callback") {
		t.Error("a callback is in the access log")
	}
	checkSecrets(t, text, secrets)
}

// tokenOf is the access token that a session gives out now.
func (r *portalRig) tokenOf(name string) string {
	r.Helper()
	app, err := running()
	if err != nil {
		r.Fatal(err)
	}
	account, user, _ := strings.Cut(name, "/")
	s, err := app.shared.sessions.Session(r.Context(), oauth.Key{Account: account, User: user})
	if err != nil {
		r.Fatal(err)
	}
	token, err := s.Token(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return strings.TrimPrefix(token.Authorization()[0], "Bearer ")
}

// checkSecrets looks for secrets as they are, and as a URL or base64 has them.
func checkSecrets(t testing.TB, text string, secrets map[string]string) {
	t.Helper()
	delete(secrets, "")
	for secret, what := range secrets {
		if len(secret) < 16 {
			t.Errorf("%s is too short to look for", what)
		}
		for _, form := range []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret)), secret[:len(secret)/2], fmt.Sprintf("%x", secret)} {
			if i := strings.Index(text, form); i >= 0 {
				line := text[strings.LastIndexByte(text[:i], '\n')+1 : i]
				t.Errorf("%s is in the log: %.300s…", what, line)
				break
			}
		}
	}
	for _, form := range []string{"_1XBPWQQ_", "-password", "sandbox-secret"} {
		if strings.Contains(text, form) {
			t.Errorf("%s is in the log", form)
		}
	}
}

// Where somebody else answers at the callback, such as basic_auth, log_skip
// keeps it out of the access log. At debug level Caddy logs such a request once
// more, as an error, which only a filter makes harmless.
func TestPortalLogUnauthorized(t *testing.T) {
	const filter = "format filter {\n\t\t\trequest>uri query {\n\t\t\t\treplace code hidden\n\t\t\t\treplace state hidden\n\t\t\t}\n\t\t}"
	for name, lines := range map[string]string{"info": "level INFO", "debug": "level DEBUG\n\t\t" + filter} {
		t.Run(name, func(t *testing.T) {
			r := newPortalRig(t, sandbox.Config{})
			log := r.logFile()
			r.global = strings.Replace(r.global, "level DEBUG", lines, 1)
			r.site = "log\n\tlog_skip /bearer/callback"
			r.start()
			ada, nobody := r.browser("ada"), r.browser("")
			callback := ada.approve(ada.begin("erp/ada"))
			secrets := map[string]string{parameter(t, callback, "code"): "code", parameter(t, callback, "state"): "state", ada.cookie(): "cookie"}
			r.harmless("nobody", func() {
				for _, header := range [][]string{nil, {"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("ada:wrong"))}, {"Cookie", "caddy-bearer=" + ada.cookie()}} {
					if a := nobody.open(callback, header...); a.StatusCode != 401 {
						t.Errorf("%d %s", a.StatusCode, a.text)
					}
				}
			})
			if came := ada.finish(callback); came != "signed_in" {
				t.Error(came)
			}
			r.stop()
			text := read(t, log)
			r.reload() // for the end of the rig
			if strings.Contains(text, "not authenticated") != (name == "debug") {
				t.Error("the refusals are in the log at info level, or not at debug level")
			}
			checkSecrets(t, text, secrets)
		})
	}
}

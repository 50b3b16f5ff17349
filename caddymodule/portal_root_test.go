package caddymodule

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// Callbacks at the root of a site (Pagero's documents call back at
// `/?code=…`): only what is one is taken, the rest is the site's.
func TestPortalRootCallback(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "the site's own")
	}))
	defer page.Close()
	for name, c := range map[string]struct{ path, behind, text string }{
		"beside a site":      {"/", "reverse_proxy " + page.URL, "the site's own"},
		"beside respond":     {"/", "respond \"the site's own\" 200", "the site's own"},
		"beside the proxy":   {"/", "", "token_user"},
		"with an empty path": {"", "", "token_user"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newPortalRig(t, sandbox.Config{})
			r.grant = "redirect_uri " + r.origin() + c.path
			if c.behind != "" {
				r.route, r.proxy = true, "bearer_proxy /api/* erp/{http.auth.user.id} "+r.api+"\n\t"+c.behind
			}
			r.start()
			ada := r.browser("ada")
			ada.signIn("erp/ada")
			link := ada.begin("erp/ada")
			callback := ada.approve(link)
			checkRootPasses(r, ada, callback, c.text)
			if came := ada.finish(callback); came != "signed_in" {
				t.Errorf("the callback: %s", came)
			}
			denied := changed(t, ada.approve(ada.begin("erp/ada")), "code", "", "error", "access_denied")
			if came := ada.finish(denied); came != "login_denied" {
				t.Errorf("a refusal: %s", came)
			}
		})
	}
}

// checkRootPasses sends what looks like a callback and is none: the site gets
// it as it is. text is in what the site answers.
func checkRootPasses(r *portalRig, ada *browser, callback, text string) {
	r.Helper()
	code, state := parameter(r, callback, "code"), parameter(r, callback, "state")
	r.harmless("no callbacks", func() {
		for _, c := range []struct{ method, target string }{
			{"GET", "/"}, {"GET", "/?code=" + code}, {"GET", "/?state=" + state}, {"GET", "/?error=x"}, {"GET", "/?CODE=" + code + "&STATE=" + state},
			{"GET", "/?q=code%3Dx%26state%3Dy"}, {"GET", "/index?code=" + code + "&state=" + state}, {"GET", "//?code=" + code + "&state=" + state},
			{"POST", "/?code=" + code + "&state=" + state}, {"PUT", "/?code=" + code + "&state=" + state}, {"HEAD", "/?code=" + code + "&state=" + state},
			{"DELETE", "/?code=" + code + "&state=" + state}, {"OPTIONS", "/?code=" + code + "&state=" + state},
		} {
			a := ada.send(c.method, c.target, "")
			passed := strings.Contains(a.text, text) || strings.Contains(a.text, "not_found") || c.method == "HEAD"
			if !passed || a.StatusCode/100 == 3 || a.Header.Get(errorHeader) != "" || strings.Contains(a.Header.Get("Content-Type"), "html") {
				r.Errorf("%s %s: %d %v %s", c.method, c.target, a.StatusCode, a.Header, a.text)
			}
		}
	})
}

// What has the parameters of a callback is one, however its values are written:
// the login sees a code that the API must not get.
func TestPortalRootCallbackOddlyWritten(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.grant = "redirect_uri " + r.origin() + "/"
	r.start()
	ada := r.browser("ada")
	ada.signIn("erp/ada")
	r.harmless("callbacks", func() {
		for target, want := range map[string]string{
			"/?code=odd-code;b&state=x": "login_unknown", "/?state=x;y&code=odd-code": "login_unknown", "/?c%6fde=odd-code%3Bb&state=x": "login_unknown",
			"/?code=odd-code%zz&state=x": "callback_malformed", "/?code=odd-code&state=%": "callback_malformed", "/?error=%&state=x": "callback_malformed",
		} {
			if came := ada.finish(r.origin() + target); came != want {
				t.Errorf("%s: %s, want %s", target, came, want)
			}
		}
	})
}

// At the root of a site, only what the portal answers is kept out of the access
// log: no caller can keep another request out of it.
func TestPortalRootLog(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	log := r.logFile()
	r.grant = "redirect_uri " + r.origin() + "/"
	r.site = "log"
	r.start()
	ada := r.browser("ada")
	ada.signIn("erp/ada")
	ada.send("DELETE", "/?state=logged-1", "")
	ada.open("/?code=logged-2")
	ada.send("POST", "/?code=logged-3&state=x", "")
	ada.open("/?error=logged-4")
	ada.open("/?code=kept-out&state=kept-out")
	r.stop()
	logged := 0
	for line := range strings.Lines(read(t, log)) {
		if !strings.Contains(line, "http.log.access") {
			continue
		}
		logged += strings.Count(line, "logged-")
		if strings.Contains(line, "kept-out") {
			t.Errorf("a callback is in the access log: %s", line)
		}
	}
	r.reload() // for the end of the rig
	if logged != 4 {
		t.Errorf("%d of 4 requests are in the access log", logged)
	}
}

// A portal at the root of its site has its own few paths; the others are the
// site's.
func TestPortalAtRoot(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.base, r.route = "", true
	r.proxy = "respond /x* \"the site's own\" 200\n\tbearer_proxy erp/{http.auth.user.id} " + r.api
	r.start()
	ada := r.browser("ada")
	callback := ada.approve(ada.begin("erp/ada"))
	if got := parameter(t, callback, "state"); got == "" || !strings.HasPrefix(callback, r.origin()+"/callback?") {
		t.Errorf("the callback is %s", callback)
	}
	if came := ada.finish(callback); came != "signed_in" {
		t.Error(came)
	}
	if got := ada.whose(); got != "ada@sandbox" {
		t.Errorf("the token of %q", got)
	}
	for _, evil := range evilTargets {
		for _, name := range []string{"/?message=", "/?next=", "/result?problem=", "/result?login="} {
			if a := ada.open(name + url.QueryEscape(evil)); a.Header.Get("Location") != "" {
				t.Errorf("%s%q: %v", name, evil, a.Header)
			}
		}
	}
	for target, want := range map[string]string{"/x": "the site's own", "/style.css": "color-scheme", "/echo/login": "token_user", "/login/x": "not_found"} {
		if a := ada.open(target); !strings.Contains(a.text, want) {
			t.Errorf("%s: %d %s", target, a.StatusCode, a.text)
		}
	}
	location := ada.redirected(ada.press("logout", "erp/ada"))
	if location != "/?message=signed_out" {
		t.Error(location)
	}
}

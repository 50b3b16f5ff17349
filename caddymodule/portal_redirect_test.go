package caddymodule

import (
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// evilTargets is what open redirectors have been talked into (RFC 9700 §4.11).
var evilTargets = []string{
	"//evil.example", `/\evil.example`, `\\evil.example`, "https:evil.example", "https://evil.example", "///evil.example", "/%2F/evil.example",
	"/%5Cevil.example", "/\t/evil.example", "%0d%0aX-Evil:%201", "\r\nX-Evil: 1", "javascript:alert(1)", "http://evil.example@127.0.0.1/", "/bearer/..//evil.example", "/.evil.example",
}

// Nothing that a link says takes the visitor away from the portal.
func TestPortalOpenRedirect(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	s.alan.signIn("erp/alan")
	fields, _ := s.ada.form(s.ada.page(""), "login", "erp/ada")
	names := []string{"next", "return", "return_to", "redirect", "redirect_uri", "url", "rd", "continue", "login", "problem", "message", "account", "user"}
	s.harmless("links", func() {
		for _, evil := range evilTargets {
			query := url.Values{}
			for _, name := range names {
				query.Set(name, evil)
			}
			for _, target := range []string{
				"/bearer?" + query.Encode(), "/bearer/?" + query.Encode(), "/bearer/result?" + query.Encode(), "/bearer/device?" + query.Encode(),
				"/bearer/callback?code=x&state=y&" + query.Encode(), "/bearer/callback?error=" + url.QueryEscape(evil) + "&state=" + url.QueryEscape(evil) + "&" + query.Encode(),
				"/bearer/" + url.PathEscape(evil), "/bearer/" + url.PathEscape(evil) + "?" + query.Encode(),
			} {
				s.stays(target, s.ada.open(target))
			}
			form := url.Values{}
			for name, values := range fields {
				form[name] = values
			}
			form.Set("next", evil)
			form.Set("redirect_uri", evil)
			a := s.ada.post("/login?"+url.Values{"next": {evil}, "redirect_uri": {evil}}.Encode(), form)
			if s.stays("login, "+evil, a); a.StatusCode != 200 || strings.Contains(a.text, "evil") {
				t.Errorf("%q: %d %s", evil, a.StatusCode, a.text)
			}
		}
	})
	s.unharmedBoth()
}

func (s *scene) unharmedBoth() {
	s.Helper()
	if a, b := s.ada.whose(), s.alan.whose(); a != "ada@sandbox" || b != "alan@sandbox" {
		s.Errorf("the tokens of %q and %q", a, b)
	}
}

// stays checks an answer of the portal: whatever it is, it leads nowhere else,
// and no header of it came from the link.
func (s *scene) stays(what string, a answer) {
	s.Helper()
	if location := a.Header.Get("Location"); location != "" && !ownPath(s.base, location) {
		s.Errorf("%q: a redirect to %q", what, location)
	}
	if a.Header.Get("X-Evil") != "" || a.Header.Get("Refresh") != "" || a.StatusCode >= 500 {
		s.Errorf("%q: %d %v", what, a.StatusCode, a.Header)
	}
	if strings.Contains(a.text, `href="//`) || strings.Contains(a.text, `evil.example"`) && !strings.Contains(a.text, `value="`) {
		s.Errorf("%q: %s", what, a.text)
	}
}

// What the portal answers with depends on no Host and no forwarding header.
func TestPortalHostHeader(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	s.harmless("hosts", func() {
		for _, header := range [][]string{
			{"X-Forwarded-Host", "evil.example"}, {"X-Forwarded-Proto", "https"}, {"Forwarded", "host=evil.example;proto=https"},
			{"X-Original-URL", "https://evil.example/"}, {"X-Forwarded-Prefix", "//evil.example"}, {"X-Rewrite-URL", "//evil.example"},
		} {
			callback := s.ada.approve(s.ada.begin("erp/ada"))
			if a := s.ada.open(changed(t, callback, "state", "x"), header...); a.Header.Get("Location") != "/bearer/result?problem=login_unknown" {
				t.Errorf("%q: %d %v", header, a.StatusCode, a.Header)
			}
			fields, _ := s.ada.form(s.ada.page(""), "login", "erp/ada")
			a := s.ada.post("/login", fields, header...)
			if strings.Contains(a.text, "evil") || !strings.Contains(a.text, url.QueryEscape(s.origin()+"/bearer/callback")) {
				t.Errorf("%q: %s", header, a.text)
			}
		}
	})
	s.unharmed()
}

// A web page whose own name points at this machine (DNS rebinding) gets
// nothing from the portal, which would take it for one of its own: no session
// can be begun, finished, ended or seen under another name.
func TestPortalRebinding(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.auth, r.portal, r.proxy, r.sessions = "", "", "bearer_proxy erp "+r.api, []string{"erp"} // the only user of a machine
	r.start()
	own := r.browser("")
	own.person = "ada@sandbox"
	own.signIn("erp")
	_, port, _ := strings.Cut(r.address, ":")
	for _, name := range []string{"evil.example:" + port, "evil.example", "127.0.0.1.nip.io:" + port, "localhost:1"} {
		evil := r.browser("") // in which a script reads and sends what it likes
		evil.name, evil.person = name, "alan@sandbox"
		a := evil.open("/bearer")
		if a.StatusCode == 421 && a.Header.Get("Set-Cookie") == "" && !strings.Contains(a.text, "csrf") {
			continue
		}
		t.Errorf("%s: the portal answers: %d", name, a.StatusCode)
		fields, _ := evil.form(readPage(t, a.text), "login", "erp")
		if link := continueLink(t, evil.post("/login", fields, "Sec-Fetch-Site", "")); link != "" {
			t.Errorf("%s: signed in as somebody else: %s", name, evil.finish(evil.approve(link)))
		}
		if a := evil.post("/logout", fields, "Sec-Fetch-Site", ""); a.StatusCode != 421 {
			t.Errorf("%s: signed out: %d %s", name, a.StatusCode, a.Header.Get("Location"))
		}
	}
	if got := own.whose(); got != "ada@sandbox" {
		t.Errorf("requests carry the token of %q", got)
	}
}

// A portal without users serves this machine alone, unless the operator says
// otherwise: who comes through a proxy comes from elsewhere.
func TestPortalForwarded(t *testing.T) {
	for _, unprotected := range []bool{false, true} {
		r := newPortalRig(t, sandbox.Config{})
		r.auth, r.portal, r.proxy = "", "", "bearer_proxy erp "+r.api
		r.global = "servers {\n\t\tclient_ip_headers CF-Connecting-IP\n\t}"
		if unprotected {
			r.portal = "unprotected"
		}
		r.start()
		for _, header := range [][]string{nil, {"X-Forwarded-For", "203.0.113.9"}, {"Forwarded", "for=203.0.113.9"}, {"Via", "1.1 front"}, {"CF-Connecting-IP", "203.0.113.9"}} {
			want := 200
			if header != nil && !unprotected {
				want = 403
			}
			if res, text := r.do("GET", "/bearer", nil, header...); res.StatusCode != want {
				t.Errorf("unprotected %v, %v: %d %s", unprotected, header, res.StatusCode, text)
			}
		}
		r.stop()
	}
}

// What a server or a person broke on the way back is the portal's all the same:
// the API and the log see no code.
func TestPortalBrokenCallback(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.grant = "redirect_uri " + r.origin() + "/oauth/cb"
	log := r.logFile()
	r.start()
	ada := r.browser("ada")
	ada.signIn("erp/ada")
	before := len(r.sandbox.Events())
	for _, tt := range []struct{ method, query string }{
		{"GET", "code=planted"}, {"HEAD", "code=planted&state=planted"}, {"POST", "code=planted&state=planted"}, {"GET", "state=planted"},
	} {
		if a := ada.send(tt.method, "/oauth/cb?"+tt.query, ""); a.StatusCode != 400 {
			t.Errorf("%s %s: %d", tt.method, tt.query, a.StatusCode)
		}
	}
	if n := len(r.sandbox.Events()); n != before {
		t.Errorf("%d requests went on", n-before)
	}
	if strings.Contains(read(t, log), "planted") {
		t.Error("the log has it")
	}
	if a := ada.send("GET", "/oauth/cb", ""); a.StatusCode != 404 || len(r.sandbox.Events()) != before+1 {
		t.Errorf("the API wasn't asked for its own path: %d", a.StatusCode)
	}
}

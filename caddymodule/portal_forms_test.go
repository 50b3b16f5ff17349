package caddymodule

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// Forms that don't come from a page of the portal in this browser do nothing
// (RFC 6749 §10.12).
func TestPortalForms(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	s.alan.signIn("erp/alan")
	origin := s.origin()
	good, _ := s.ada.form(s.ada.page(""), "logout", "erp/ada")
	alans, _ := s.alan.form(s.alan.page(""), "logout", "erp/alan")
	with := func(name, value string) url.Values {
		f := maps.Clone(good)
		if f[name] = []string{value}; value == "" {
			delete(f, name)
		}
		return f
	}
	for _, c := range []struct {
		name   string
		fields url.Values
		header []string
		status int
		code   string
	}{
		{"no csrf", with("csrf", ""), nil, 403, "form_refused"},
		{"empty csrf", url.Values{"account": {"erp"}, "user": {"ada"}, "csrf": {""}}, nil, 403, "form_refused"},
		{"wrong csrf", with("csrf", strings.Repeat("0", 64)), nil, 403, "form_refused"},
		{"half of the csrf", with("csrf", good.Get("csrf")[:32]), nil, 403, "form_refused"},
		{"csrf of another browser", with("csrf", alans.Get("csrf")), nil, 403, "form_refused"},
		{"the cookie as csrf", with("csrf", s.ada.cookie()), nil, 403, "form_refused"},
		{"cookie of another browser", good, []string{"Cookie", "caddy-bearer=" + s.alan.cookie()}, 403, "form_refused"},
		{"short cookie", with("csrf", csrf("x")), []string{"Cookie", "caddy-bearer=x"}, 403, "form_refused"},
		{"empty cookie", with("csrf", csrf("")), []string{"Cookie", "caddy-bearer="}, 403, "form_refused"},
		{"another site's Origin", good, []string{"Origin", "https://evil.example"}, 403, "form_refused"},
		{"an Origin that begins as ours", good, []string{"Origin", origin + ".evil.example"}, 403, "form_refused"},
		{"another port's Origin", good, []string{"Origin", "http://127.0.0.1:1"}, 403, "form_refused"},
		{"another scheme's Origin", good, []string{"Origin", strings.Replace(origin, "http:", "https:", 1)}, 403, "form_refused"},
		{"Origin of no page", good, []string{"Origin", "file://"}, 403, "form_refused"},
		{"cross-site", good, []string{"Sec-Fetch-Site", "cross-site"}, 403, "form_refused"},
		{"same-site", good, []string{"Sec-Fetch-Site", "same-site"}, 403, "form_refused"},
		{"no site", good, []string{"Sec-Fetch-Site", "none"}, 403, "form_refused"},
		{"a site nobody knows", good, []string{"Sec-Fetch-Site", "same-origin, cross-site"}, 403, "form_refused"},
		{"as text", good, []string{"Content-Type", "text/plain"}, 403, "form_refused"},
		{"as JSON", good, []string{"Content-Type", "application/json"}, 403, "form_refused"},
		{"as multipart", good, []string{"Content-Type", "multipart/form-data; boundary=x"}, 403, "form_refused"},
		{"too long", with("padding", strings.Repeat("x", 16<<10)), nil, 403, "form_refused"},
		{"bad escapes", url.Values{"csrf%zz": {""}}, nil, 403, "form_refused"},

		{"another's session", with("user", "alan"), nil, 403, "not_allowed"},
		{"an account's own session", with("user", ""), nil, 403, "not_allowed"},
		{"nobody's session", with("user", "Ada"), nil, 403, "not_allowed"},
		{"another's, twice", url.Values{"account": {"erp"}, "user": {"alan", "ada"}, "csrf": good["csrf"]}, nil, 403, "not_allowed"},
		{"another's, in a header", with("user", "alan"), []string{"X-User", "alan", "Remote-User", "alan", "X-Forwarded-User", "alan"}, 403, "not_allowed"},
		{"an account that isn't there", with("account", "erp2"), nil, 404, "unknown_account"},
		{"no account", with("account", ""), nil, 404, "unknown_account"},
		{"a name that is none", with("account", "erp/ada"), nil, 404, "unknown_account"},
		{"the server's record", url.Values{"account": {""}, "user": {"ada"}, "csrf": good["csrf"]}, nil, 404, "unknown_account"},
	} {
		s.harmless(c.name, func() {
			for _, action := range []string{"/login", "/logout"} {
				a := s.ada.post(action, c.fields, c.header...)
				if a.StatusCode != c.status || a.Header.Get(errorHeader) != c.code {
					t.Errorf("%s, %s: %d %s", c.name, action, a.StatusCode, a.Header.Get(errorHeader))
				}
				checkHeaders(t, c.name, a)
			}
		})
	}
	// Without a cookie at all: another browser of the same person.
	s.harmless("no cookie", func() {
		if a := s.browser("ada").post("/logout", good); a.Header.Get(errorHeader) != "form_refused" {
			t.Errorf("without the cookie: %d", a.StatusCode)
		}
	})
	// A user of the query is not that of the form.
	s.harmless("user in the query", func() {
		a := s.ada.post("/login?user=alan&account=erp", good)
		if link := continueLink(t, a); link == "" {
			t.Errorf("%d %s", a.StatusCode, a.text)
		} else if came := s.ada.finish(changed(t, s.ada.approve(link), "iss", "x")); came != "issuer_mismatch" {
			t.Error(came)
		}
	})
	// The same origin, and what browsers without these headers send.
	for _, header := range [][]string{{"Origin", origin}, {"Origin", "", "Sec-Fetch-Site", "", "Sec-Fetch-Mode", ""}} {
		if a := s.ada.post("/login", good, header...); a.StatusCode != 200 {
			t.Errorf("%q: %d %s", header, a.StatusCode, a.text)
		}
	}
	s.unharmedBoth()
}

// continueLink is where the page after "Sign in" leads; empty if it is another.
func continueLink(t testing.TB, a answer) string {
	t.Helper()
	for _, link := range readPage(t, a.text).all("a") {
		if link.attr["class"] == "button first" && strings.HasPrefix(link.attr["href"], "http") {
			return link.attr["href"]
		}
	}
	return ""
}

// What only forms may do isn't done by links, and there is nothing else.
func TestPortalMethods(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	fields, _ := s.ada.form(s.ada.page(""), "logout", "erp/ada")
	query := "?" + fields.Encode()
	s.harmless("methods", func() {
		for path, methods := range map[string]string{
			"/login": "GET HEAD PUT DELETE PATCH OPTIONS", "/logout": "GET HEAD PUT DELETE PATCH OPTIONS",
			"": "POST PUT DELETE OPTIONS", "/": "POST", "/result": "POST", "/device": "POST DELETE",
		} {
			for method := range strings.FieldsSeq(methods) {
				a := s.ada.send(method, "/bearer"+path+query, fields.Encode(), "Content-Type", "application/x-www-form-urlencoded")
				if a.StatusCode != 405 || a.Header.Get(errorHeader) != "method_refused" {
					t.Errorf("%s %s: %d %v", method, path, a.StatusCode, a.Header)
				}
			}
		}
		for _, path := range []string{"/x", "/login/", "/Login", "/callback/x", "/../bearer/x", "//login", "/login%2f", "/style.css/x", "/.git/config"} {
			if a := s.ada.open("/bearer" + path + query); a.StatusCode != 404 {
				t.Errorf("%s: %d", path, a.StatusCode)
			}
		}
	})
	s.unharmed()
}

// Nobody looks into what others have begun: not by a handle, nor by the query.
func TestPortalHandles(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	root := s.browser("root")
	callback := changed(t, s.ada.approve(s.ada.begin("erp/ada")), "code", "", "error", "access_denied")
	result := s.ada.redirected(s.ada.open(callback))
	for _, c := range []struct {
		browser *browser
		target  string
		status  int
		code    string
	}{
		{s.ada, result, 403, "login_denied"},
		{root, result, 403, "login_denied"}, // an admin may
		{s.alan, result, 400, "login_unknown"},
		{s.browser(""), result, 401, ""},
		{s.alan, "/bearer/result?login=", 400, "login_unknown"},
		{s.alan, "/bearer/result", 400, "login_unknown"},
		{s.alan, "/bearer/result?problem=not_found", 400, "login_unknown"}, // no page of a callback's
		{s.alan, "/bearer/result?problem=terminal", 400, "login_unknown"},
		{s.alan, strings.Replace(result, "/result", "/device", 1), 400, "login_unknown"},
		{s.ada, strings.Replace(result, "/result", "/device", 1), 400, "login_unknown"}, // it has no code to enter
	} {
		a := c.browser.open(c.target)
		if a.StatusCode != c.status || a.Header.Get(errorHeader) != c.code {
			t.Errorf("%s at %s: %d %s", c.browser.user, c.target, a.StatusCode, a.Header.Get(errorHeader))
		}
		if c.browser == s.alan && (strings.Contains(a.text, "ada") || strings.Contains(a.text, "access_denied")) {
			t.Errorf("alan sees %s", a.text)
		}
	}
	s.unharmed()
}

// A device's code is for who asked for it. Until it was entered, nobody is
// told of being signed in.
func TestPortalDeviceHandles(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{DeviceInterval: time.Second})
	r.accounts = "account tv {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant device_code\n\t\t}"
	r.proxy = "bearer_proxy /erp/* erp/{http.auth.user.id} " + r.api + "\n\tbearer_proxy tv/{http.auth.user.id} " + r.api
	r.sessions = append(r.sessions, "tv/ada", "tv/alan")
	r.start()
	ada, alan := r.browser("ada"), r.browser("alan")
	device := ada.redirected(ada.press("login", "tv/ada"))
	code := readPage(t, ada.open(device).text)
	shown := ""
	for _, p := range code.all("p") {
		if p.attr["class"] == "code" {
			shown = strings.TrimSpace(p.text)
		}
	}
	if shown == "" {
		t.Fatalf("no code on %s", code.text)
	}
	alan.page("")
	for _, path := range []string{device, strings.Replace(device, "/device", "/result", 1)} {
		a := alan.open(path)
		if a.StatusCode != 400 || a.Header.Get(errorHeader) != "login_unknown" || strings.Contains(a.text, shown) {
			t.Errorf("alan at %s: %d %s", path, a.StatusCode, a.text)
		}
	}
	// Its result is open.
	if a := ada.open(strings.Replace(device, "/device", "/result", 1)); a.StatusCode == http.StatusSeeOther && strings.Contains(a.Header.Get("Location"), "signed_in") {
		t.Error("ada is told that she is signed in, and isn't")
	}
	if err := r.sandbox.ApproveDevice(shown, "ada@sandbox"); err != nil {
		t.Fatal(err)
	}
	r.eventually("signed in", func() bool {
		return strings.HasSuffix(ada.open(device).Header.Get("Location"), "message=signed_in")
	})
	if a, b := ada.whose(), alan.whose(); a != "ada@sandbox" || b != "" {
		t.Errorf("the tokens of %q and %q", a, b)
	}
}

package caddymodule

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// Nothing that a caller sends makes the request another user's.
func TestUsersMixUp(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	s.alan.signIn("erp/alan")
	alan := basic("alan", "alan-password")
	for _, header := range [][]string{
		{"X-User", "alan"}, {"Remote-User", "alan"}, {"X-Forwarded-User", "alan"}, {"X-Remote-User", "alan"}, {"Remote_User", "alan"}, {"Http.auth.user.id", "alan"},
		{"Cookie", "caddy-bearer=" + s.alan.cookie()}, {"Cookie", "user=alan; http.auth.user.id=alan"},
		{"X-Authorization", alan}, {"Proxy-Authorization", alan}, {"Authorization_", alan},
		{"Authorization", basic("ada", "ada-password"), "Authorization", alan},
		{"Authorization", basic("ada", "ada-password") + ", " + alan},
		{"Authorization", strings.Replace(basic("ada", "ada-password"), "Basic", "bAsIc", 1)},
		{"Authorization", basic("ada", "ada-password") + "\t"},
		{"Connection", "close, Authorization"}, {"Connection", "X-User", "X-User", "alan"},
		{"X-Original-URL", "/?user=alan"}, {"Forwarded", "for=alan"},
	} {
		a := s.ada.open("/echo?user=alan&http.auth.user.id=alan", append([]string{"Sec-Fetch-Mode", ""}, header...)...)
		switch {
		case a.StatusCode == 200:
			if got := tokenUser(t, a.text); got != "ada@sandbox" {
				t.Errorf("%q: the token of %q", header, got)
			}
		case a.StatusCode != 401 && a.Header.Get(errorHeader) != "caller_refused":
			t.Errorf("%q: %d %s", header, a.StatusCode, a.text)
		}
	}
	// And without a user, nobody's. (For users that it doesn't know, Caddy
	// makes a hash that takes seconds.)
	for _, header := range [][]string{
		{"Authorization", ""}, {"Authorization", basic("alan", "ada-password")}, {"Authorization", "Basic"}, {"Authorization", "Bearer " + s.tokenOf("erp/alan")},
		{"Authorization", "", "Cookie", "caddy-bearer=" + s.alan.cookie(), "Remote-User", "alan"},
	} {
		if a := s.ada.open("/echo", header...); a.StatusCode != 401 || strings.Contains(a.text, "token_user") {
			t.Errorf("%q: %d %s", header, a.StatusCode, a.text)
		}
	}
	s.unharmedBoth()
}

// A user without a session is told where to log in: a program by a problem
// document, a browser by a redirect. No request goes out.
func TestUsersLoginRequired(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	portal := s.origin() + "/bearer/"
	s.harmless("without a session", func() {
		for _, header := range [][]string{
			{"Sec-Fetch-Mode", ""}, {"Sec-Fetch-Mode", "cors"}, {"Sec-Fetch-Mode", "no-cors"}, {"Sec-Fetch-Mode", "", "Accept", "text/html"}, {"Sec-Fetch-Mode", "navigate, cors"},
		} {
			a := s.alan.open("/echo", header...)
			var p struct {
				Status             int
				Code, Portal, Type string
			}
			if err := json.Unmarshal([]byte(a.text), &p); err != nil {
				t.Fatalf("%q: %v: %s", header, err, a.text)
			}
			if a.StatusCode != 503 || p.Code != "login_required" || p.Portal != portal || a.Header.Get(errorHeader) != "login_required" ||
				a.Header.Get("Retry-After") != "" || a.Header.Get("Location") != "" || a.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%q: %d %v %s", header, a.StatusCode, a.Header, a.text)
			}
		}
		a := s.alan.open("/echo?next=//evil.example", "Host", "localhost")
		if a.StatusCode != 303 || a.Header.Get("Location") != portal || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get(errorHeader) != "login_required" {
			t.Errorf("a browser: %d %v", a.StatusCode, a.Header)
		}
		for _, method := range []string{"POST", "PUT", "DELETE"} { // a redirect would lose what they bring
			if a := s.alan.send(method, "/echo", "x"); a.StatusCode != 503 || a.Header.Get(errorHeader) != "login_required" {
				t.Errorf("%s: %d %v", method, a.StatusCode, a.Header)
			}
		}
	})
	for _, e := range s.sandbox.Events() {
		if e.Kind == sandbox.KindAPI {
			t.Error("a request reached the API without a token")
		}
	}
	s.unharmed()
}

// A field that something in front sets names the user; what the caller writes
// into it, or writes twice, names nobody.
func TestUsersForwardAuth(t *testing.T) {
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case password != user+"-password":
			w.WriteHeader(http.StatusUnauthorized)
		case user != "root": // whom it knows, and doesn't name
			w.Header().Set("Remote-User", user)
		}
	}))
	defer front.Close()
	r := newPortalRig(t, sandbox.Config{})
	r.auth = "forward_auth " + front.URL + " {\n\t\turi /\n\t\tcopy_headers Remote-User\n\t}"
	r.portal = "user {http.request.header.Remote-User}\n\t\tuser_from_header Remote-User"
	r.proxy = "bearer_proxy erp/{http.request.header.Remote-User} " + r.api + " {\n\t\tuser_from_header Remote-User\n\t}"
	r.start()
	ada, alan, root := r.browser("ada"), r.browser("alan"), r.browser("root")
	ada.signIn("erp/ada")
	alan.signIn("erp/alan")
	for _, header := range [][]string{
		{"Remote-User", "alan"}, {"remote-user", "alan", "Remote-User", "alan"}, {"REMOTE-USER", "alan"}, {"Remote_User", "alan"}, {"X-Remote-User", "alan"}, {"Connection", "Remote-User"},
	} {
		a := ada.open("/echo", append([]string{"Sec-Fetch-Mode", ""}, header...)...)
		if a.StatusCode == 200 && tokenUser(t, a.text) != "ada@sandbox" || a.StatusCode != 200 && a.Header.Get(errorHeader) != "unknown_account" {
			t.Errorf("%q: %d %s", header, a.StatusCode, a.text)
		}
		if a := ada.open("/bearer", header...); a.StatusCode != 200 || strings.Contains(a.text, "alan") {
			t.Errorf("%q: the portal is that of %s", header, a.text)
		}
	}
	for _, header := range [][]string{nil, {"Remote-User", "alan"}, {"Remote-User", "alan", "Remote-User", "ada"}} {
		a := root.open("/echo", header...)
		if a.StatusCode != 403 || a.Header.Get(errorHeader) != "unknown_account" {
			t.Errorf("%q, somebody without a name: %d %s", header, a.StatusCode, a.text)
		}
		if a := root.open("/bearer", header...); a.StatusCode != 403 || a.Header.Get(errorHeader) != "no_user" {
			t.Errorf("%q, somebody without a name, at the portal: %d %s", header, a.StatusCode, a.text)
		}
	}
	if a := r.browser("").open("/echo", "Remote-User", "alan"); a.StatusCode != 401 {
		t.Errorf("a stranger: %d %s", a.StatusCode, a.text)
	}
}

// Where the field comes as it is (a proxy in front sets it), it counts once
// only, and an empty one names nobody.
func TestUsersHeaderTwice(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.auth = ""
	r.portal = "user {http.request.header.Remote-User}\n\t\tuser_from_header Remote-User"
	r.proxy = "bearer_proxy erp/{http.request.header.Remote-User} " + r.api + " {\n\t\tuser_from_header Remote-User\n\t}"
	r.start()
	front := r.browser("")
	front.person = "ada@sandbox"
	front.header = []string{"Remote-User", "ada"}
	front.signIn("erp/ada")
	if got := front.whose(); got != "ada@sandbox" {
		t.Errorf("the token of %q", got)
	}
	front.header = nil
	r.harmless("nobody", func() {
		for _, header := range [][]string{
			nil, {"Remote-User", "ada", "Remote-User", "ada"}, {"Remote-User", "alan", "Remote-User", "ada"}, {"remote-user", "ada", "REMOTE-USER", "x"}, {"Remote_User", "ada"},
		} {
			a := front.open("/echo", header...)
			if a.StatusCode != 403 || a.Header.Get(errorHeader) != "unknown_account" {
				t.Errorf("%q: %d %s", header, a.StatusCode, a.text)
			}
			if a := front.open("/bearer", header...); a.StatusCode != 403 || a.Header.Get(errorHeader) != "no_user" {
				t.Errorf("%q: the portal: %d", header, a.StatusCode)
			}
		}
		// Empty, as Go's client doesn't send it.
		res := raw(t, r.address, "GET /echo HTTP/1.1\r\nHost: localhost\r\nRemote-User:\r\nConnection: close\r\n\r\n")
		if res.StatusCode != 403 || res.Header.Get(errorHeader) != "unknown_account" {
			t.Errorf("empty: %d %v", res.StatusCode, res.Header)
		}
		res = raw(t, r.address, "GET /echo HTTP/1.1\r\nHost: localhost\r\nRemote-User:\r\nRemote-User: ada\r\nConnection: close\r\n\r\n")
		if res.StatusCode != 403 || res.Header.Get(errorHeader) != "unknown_account" {
			t.Errorf("empty and ada: %d %v", res.StatusCode, res.Header)
		}
	})
	// Names are opaque: no part of one is another's.
	for _, name := range []string{"ada/", "/ada", "ada,alan", "Ada", "ada{env.HOME}", "{http.request.header.X-User}", "erp/ada", "../ada", "%61da", "ada\tx"} {
		a := front.open("/echo", "Remote-User", name, "X-User", "ada", "Sec-Fetch-Mode", "")
		if a.StatusCode != 503 || a.Header.Get(errorHeader) != "login_required" {
			t.Errorf("user %q: %d %s", name, a.StatusCode, a.text)
		}
	}
}

// An account of one name, in one place with users, keeps them apart from the
// session of another account that is used beside it.
func TestUsersBesideShared(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.accounts = "account shared {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant authorization_code\n\t\t}"
	r.proxy = "bearer_proxy /echo/shared shared " + r.api + "\n\t" + r.proxy
	r.start()
	ada, root := r.browser("ada"), r.browser("root")
	root.signIn("shared")
	ada.signIn("erp/ada")
	for path, want := range map[string]string{"/echo/shared": "root@sandbox", "/echo": "ada@sandbox"} {
		a := ada.open(path)
		if a.StatusCode != 200 || tokenUser(t, a.text) != want {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.text)
		}
	}
	if st := r.status("erp/root"); st.State != oauth.StateLoginRequired {
		t.Errorf("root's own session is %s", st.State)
	}
	if got := root.whose(); got != "" {
		t.Errorf("root's requests carry the token of %q", got)
	}
}

// What binds a login to its browser is the portal's: the API, to which other
// cookies go, doesn't get it.
func TestUsersPortalCookie(t *testing.T) {
	s := newScene(t, sandbox.Config{}, func(r *portalRig) { r.proxy += " {\n\t\tpass_headers Cookie\n\t}" })
	for _, cookies := range []string{"", "; a=b", "; caddy-bearer=x"} {
		a := s.ada.open("/echo", "Cookie", "first=1; caddy-bearer="+s.ada.cookie()+cookies)
		if a.StatusCode != 200 || strings.Contains(a.text, s.ada.cookie()) {
			t.Errorf("the API got %s", a.text)
		}
		if !strings.Contains(a.text, "first=1") {
			t.Errorf("the API lacks another cookie: %s", a.text)
		}
	}
}

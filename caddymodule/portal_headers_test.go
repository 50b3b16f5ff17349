package caddymodule

import (
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// checkHeaders checks what holds for each answer of the portal.
func checkHeaders(t testing.TB, what string, a answer) {
	t.Helper()
	want := map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
	if a.StatusCode/100 != 3 {
		want["Content-Type"], want["X-Content-Type-Options"], want["X-Frame-Options"] = "text/html; charset=utf-8", "nosniff", "DENY"
		want["Content-Security-Policy"] = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
		want["Cross-Origin-Opener-Policy"] = "same-origin"
	} else if a.text != "" {
		t.Errorf("%s: a redirect with a body: %s", what, a.text)
	}
	for name, value := range want {
		if got := a.Header.Values(name); len(got) != 1 || got[0] != value {
			t.Errorf("%s (%d): %s is %q, want %q", what, a.StatusCode, name, got, value)
		}
	}
	for _, name := range []string{"Access-Control-Allow-Origin", "Refresh", "ETag", "Last-Modified"} {
		if got := a.Header.Get(name); got != "" {
			t.Errorf("%s: %s is %q", what, name, got)
		}
	}
}

// https makes the portal's site one with Caddy's own authority.
func https(r *portalRig) {
	r.scheme, r.host, r.tls = "https", "proxy.example.com", "tls internal"
	r.proxy += " {\n\t\thosts proxy.example.com\n\t}"
}

// All pages and redirects, of plain http and of https, say that they are for
// nobody else, and load nothing.
func TestPortalAnswers(t *testing.T) {
	for scheme, set := range map[string]func(*portalRig){"http": func(*portalRig) {}, "https": https} {
		t.Run(scheme, func(t *testing.T) {
			r := newPortalRig(t, sandbox.Config{})
			set(r)
			r.accounts = "account tv {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant device_code\n\t\t}"
			r.start()
			ada, root := r.browser("ada"), r.browser("root")
			answers := map[string]answer{"accounts": ada.open("/bearer"), "accounts/": ada.open("/bearer/"), "admin": root.open("/bearer?account=erp&user=nobody")}
			checkCookie(r, answers["accounts"])
			if again := ada.open("/bearer").Header.Get("Set-Cookie"); again != "" {
				t.Errorf("the cookie is set again: %s", again)
			}
			fields, _ := ada.form(ada.page(""), "login", "erp/ada")
			answers["continue"] = ada.post("/login", fields)
			callback := ada.approve(continueLink(t, answers["continue"]))
			answers["callback, foreign"] = root.open(callback)
			answers["callback, malformed"] = ada.open(callback + "&code=x")
			answers["callback, unread"] = ada.open("/bearer/callback")
			answers["callback"] = ada.open(callback)
			answers["callback, again"] = ada.open(callback)
			answers["result"] = ada.open(answers["callback, again"].Header.Get("Location"))
			answers["message"] = ada.open(answers["callback"].Header.Get("Location"))
			answers["sign-out"] = ada.press("logout", "erp/ada")
			answers["form refused"] = ada.post("/login", nil)
			answers["not allowed"] = ada.post("/login", foreignForm(fields))
			answers["not found"] = ada.open("/bearer/x")
			answers["method"] = ada.open("/bearer/login")
			answers["device, redirect"] = root.press("login", "tv")
			answers["device"] = root.open(answers["device, redirect"].Header.Get("Location"))
			for name, a := range answers {
				checkHeaders(t, name, a)
			}
			style := ada.open("/bearer/style.css")
			if style.StatusCode != 200 || style.Header.Get("X-Content-Type-Options") != "nosniff" || style.Header.Get("Content-Type") != "text/css; charset=utf-8" || style.Header.Get("Set-Cookie") != "" {
				t.Errorf("style sheet: %d %v", style.StatusCode, style.Header)
			}
		})
	}
}

// foreignForm is a form for another user's session.
func foreignForm(fields url.Values) url.Values {
	f := maps.Clone(fields)
	f["user"] = []string{"root"}
	return f
}

// checkCookie checks the flags of the browser's cookie (RFC 6265bis §4.1).
func checkCookie(r *portalRig, a answer) {
	r.Helper()
	lines := a.Header.Values("Set-Cookie")
	if len(lines) != 1 {
		r.Fatalf("cookies: %q", lines)
	}
	c, err := http.ParseSetCookie(lines[0])
	if err != nil {
		r.Fatal(err)
	}
	name := "caddy-bearer"
	if r.scheme == "https" {
		name = "__Host-caddy-bearer"
	}
	if c.Name != name || len(c.Value) != browserLength || c.Path != "/" || c.Domain != "" || !c.HttpOnly || c.Secure != (r.scheme == "https") ||
		c.SameSite != http.SameSiteLaxMode || c.MaxAge != 0 || !c.Expires.IsZero() {
		r.Errorf("the cookie is %s", strings.ReplaceAll(lines[0], c.Value, "…"))
	}
}

// Over https, a cookie of the name without the prefix, which any site on the
// same host could have set, is worth nothing.
func TestPortalCookiePrefix(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	https(r)
	r.start()
	ada := r.browser("ada")
	callback := ada.approve(ada.begin("erp/ada"))
	r.harmless("a cookie without the prefix", func() {
		if came := r.browser("ada").finish(callback, "Cookie", "caddy-bearer="+ada.cookie()); came != "login_foreign" {
			t.Error(came)
		}
		fields, _ := ada.form(ada.page(""), "login", "erp/ada")
		if a := r.browser("ada").post("/login", fields, "Cookie", "caddy-bearer="+ada.cookie()); a.Header.Get(errorHeader) != "form_refused" {
			t.Errorf("%d %s", a.StatusCode, a.text)
		}
	})
	if came := ada.finish(callback); came != "signed_in" {
		t.Error(came)
	}
	if got := ada.whose(); got != "ada@sandbox" {
		t.Errorf("the token of %q", got)
	}
}

// The portal answers to its own name, however browsers write it, and to no
// other.
func TestPortalNames(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	https(r)
	r.start()
	_, port, _ := net.SplitHostPort(r.address)
	for host, status := range map[string]int{
		"proxy.example.com:" + port: 200, "PROXY.Example.com:" + port: 200,
		"proxy.example.com:1": 421, "proxy.example.com": 421, "proxy.example.com:443": 421,
	} {
		ada := r.browser("ada")
		ada.name = host
		for _, path := range []string{"/bearer", "/bearer/"} {
			a := ada.open(path)
			if checkHeaders(t, host, a); a.StatusCode != status || (a.Header.Get("Set-Cookie") != "") != (status == 200 && path == "/bearer") {
				t.Errorf("Host %s: %d %v", host, a.StatusCode, a.Header)
			}
		}
	}
}

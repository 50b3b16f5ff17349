package caddymodule

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// tokenUser is whose token the API says that it got.
func tokenUser(t testing.TB, text string) string {
	t.Helper()
	var echo struct {
		TokenUser string `json:"token_user"`
	}
	if err := json.Unmarshal([]byte(text), &echo); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return echo.TokenUser
}

// The whole life of a user's session: signing in on the portal, a request,
// expiry, refresh, a reload, a restart, signing out.
func TestPortalLife(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{TokenLifetime: 2 * time.Second, RequirePKCE: true})
	r.start()
	ada := r.browser("ada")
	if st := r.status("erp/ada"); st.State != oauth.StateLoginRequired {
		t.Fatalf("before: %s", st.State)
	}
	ada.signIn("erp/ada")
	if n := r.sandbox.TokenRequests(""); n != 1 {
		t.Errorf("%d token requests for a login", n)
	}
	if st := r.status("erp/ada"); st.State != oauth.StateReady || !st.HasRefreshToken {
		t.Errorf("after: %s", st.State)
	}
	if got := ada.whose(); got != "ada@sandbox" {
		t.Errorf("the request carried the token of %q", got)
	}
	time.Sleep(2100 * time.Millisecond)
	r.sandbox.SetTokenLifetime(time.Hour)
	if got := ada.whose(); got != "ada@sandbox" {
		t.Errorf("after the expiry: the token of %q", got)
	}
	refreshes := r.sandbox.TokenRequests("refresh_token")
	if refreshes < 1 {
		t.Error("no refresh")
	}
	// A login that is under way at a reload can be finished after it.
	callback := ada.approve(ada.begin("erp/ada"))
	r.reload()
	if came := ada.finish(callback); came != "signed_in" {
		t.Errorf("a login across a reload: %s", came)
	}
	r.restart()
	if got := ada.whose(); got != "ada@sandbox" {
		t.Errorf("after a restart: the token of %q", got)
	}
	if a, b := r.sandbox.TokenRequests("authorization_code"), r.sandbox.TokenRequests("refresh_token"); a != 2 || b != refreshes {
		t.Errorf("%d codes were spent and %d refreshes made, want 2 and %d", a, b, refreshes)
	}
	checkSignOut(r, ada)
}

// checkSignOut checks that the tokens end here and at the server.
func checkSignOut(r *portalRig, ada *browser) {
	r.Helper()
	location := ada.redirected(ada.press("logout", "erp/ada"))
	if !strings.HasSuffix(location, "/?message=signed_out") {
		r.Errorf("signing out led to %s", location)
	}
	revoked := 0
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindRevoke && e.Committed {
			revoked++
		}
	}
	if st := r.status("erp/ada"); revoked != 1 || st.State != oauth.StateLoginRequired || st.HasRefreshToken {
		r.Errorf("%d revocations; the session is %s, refresh token %v", revoked, st.State, st.HasRefreshToken)
	}
	before := r.sandbox.TokenRequests("")
	if a := ada.open("/echo", "Sec-Fetch-Mode", ""); a.StatusCode != 503 || a.Header.Get(errorHeader) != "login_required" {
		r.Errorf("a request after signing out: %d %s", a.StatusCode, a.text)
	}
	if n := r.sandbox.TokenRequests("") - before; n != 0 {
		r.Errorf("%d token requests after signing out", n)
	}
}

// A sign-out at a server that can't be asked is told as what it is, and is one
// all the same.
func TestPortalSignOutUnheard(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.start()
	ada := r.browser("ada")
	ada.signIn("erp/ada")
	r.secret("client_secret", "another") // the server refuses the revocation
	location := ada.redirected(ada.press("logout", "erp/ada"))
	page := readPage(t, ada.open(location).text)
	if !strings.Contains(page.text, "the server was not told") {
		t.Errorf("%s: %s", location, page.text)
	}
	if st := r.status("erp/ada"); st.State != oauth.StateLoginRequired || st.HasRefreshToken {
		t.Errorf("the session is %s, refresh token %v", st.State, st.HasRefreshToken)
	}
}

var verifierForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// The authorization request asks for a code and nothing else, with a challenge
// and a state of its own each time (RFC 9700 §2.1.1, RFC 6749 §10.10).
func TestPortalAuthorizationRequest(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.grant, r.account = "prompt login", "scope all"
	r.start()
	ada := r.browser("ada")
	endpoint := r.sandbox.Endpoints(r.servers.AuthorizationServerURL).Authorize
	seen := map[string]bool{}
	for range 20 {
		link := ada.begin("erp/ada")
		u := mustParse(t, link)
		q := u.Query()
		for name, want := range map[string]string{
			"response_type": "code", "client_id": "sandbox-client", "scope": "all", "prompt": "login",
			"code_challenge_method": "S256", "redirect_uri": r.origin() + "/bearer/callback",
		} {
			if q.Get(name) != want {
				t.Errorf("%s is %q, want %q", name, q.Get(name), want)
			}
		}
		if len(q) != 8 || !strings.HasPrefix(link, endpoint+"?") {
			t.Errorf("the request is %s", link)
		}
		for _, name := range []string{"state", "code_challenge"} {
			v := q.Get(name)
			if !verifierForm.MatchString(v) || seen[v] {
				t.Errorf("%s is %q, seen before: %v", name, v, seen[v])
			}
			seen[v] = true
		}
	}
}

// The ways in which servers want their requests: each login works, and the
// sandbox compares the redirect URIs of both requests byte for byte.
func TestPortalGrantOptions(t *testing.T) {
	for name, set := range map[string]func(*portalRig){
		"no PKCE":                     func(r *portalRig) { r.grant = "pkce off" },
		"a redirect URI with a query": func(r *portalRig) { r.grant = "redirect_uri " + r.origin() + "/sso/back?tenant=1&x=%2F" },
		"the empty path":              func(r *portalRig) { r.grant = "redirect_uri " + r.origin() },
		"client in body":              func(r *portalRig) { r.account = "client_auth post" },
		"portal at the root":          func(r *portalRig) { r.base = "" },
		"portal far below":            func(r *portalRig) { r.base = "/a/b/c" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newPortalRig(t, sandbox.Config{})
			set(r)
			r.start()
			checkLogin(r)
		})
	}
	t.Run("without redirect URI", func(t *testing.T) {
		address := freeAddress(t)
		r := newPortalRig(t, sandbox.Config{Provider: "webmethods", RedirectURIs: []string{"http://" + address + "/bearer/callback"}})
		r.address, r.grant = address, "omit_redirect_uri\n\t\t\t\tpkce off"
		r.start()
		checkLogin(r)
	})
}

func checkLogin(r *portalRig) {
	r.Helper()
	ada := r.browser("ada")
	ada.signIn("erp/ada")
	if got := ada.whose(); got != "ada@sandbox" {
		r.Errorf("the token of %q", got)
	}
}

// An admin signs in accounts with one session, and other users.
func TestPortalAdmin(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.accounts = "account shared {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant authorization_code\n\t\t}"
	r.start()
	root, ada := r.browser("root"), r.browser("ada")
	root.signIn("shared")
	if st := r.status("shared"); st.State != oauth.StateReady {
		t.Errorf("shared is %s", st.State)
	}
	ada.signIn("erp/ada")
	page := root.page("/?account=erp&user=ada")
	if _, ok := root.form(page, "logout", "erp/ada"); !ok {
		t.Error("an admin can't sign ada out")
	}
	// Nobody else sees either.
	for _, path := range []string{"", "/?account=erp&user=ada", "/?account=shared", "/?account=shared&user="} {
		page := r.browser("alan").page(path)
		for _, form := range page.all("form") {
			if f := fieldsOf(form); f["account"] == "shared" || f["user"] != "alan" {
				t.Errorf("%s: alan sees the form %v", path, f)
			}
		}
		if strings.Contains(page.text, "shared") || strings.Contains(page.text, "ada") {
			t.Errorf("%s: alan sees %s", path, page.text)
		}
	}
	location := root.redirected(root.press("logout", "erp/ada"))
	if st := r.status("erp/ada"); !strings.HasSuffix(location, "=signed_out") || st.State != oauth.StateLoginRequired {
		t.Errorf("%s, ada is %s", location, st.State)
	}
}

// A login doesn't survive a change of whom it is for.
func TestPortalLoginChanged(t *testing.T) {
	r := newPortalRig(t, sandbox.Config{})
	r.start()
	ada := r.browser("ada")
	callback := ada.approve(ada.begin("erp/ada"))
	r.account = "scope all"
	r.reload()
	r.harmless("a login of another scope", func() {
		if came := ada.finish(callback); came != "login_changed" {
			t.Error(came)
		}
	})
}

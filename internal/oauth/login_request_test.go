package oauth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// random43 is a value of 256 random bits (B3, B6).
var random43 = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// asked is the authorization request of a login.
func (r *loginRig) asked(l *oauth.Login) url.Values {
	r.Helper()
	u, err := url.Parse(l.URL)
	if err != nil {
		r.Fatal(err)
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		r.Fatal(err)
	}
	return q
}

// B2, B3, B7, B18: what the browser carries, and what the token request that
// follows has, is what the account says and nothing else.
func TestAuthorizationRequest(t *testing.T) {
	t.Parallel()
	basics := map[string]string{"response_type": "code", "client_id": "sandbox-client", "redirect_uri": callbackURI, "scope": "all", "state": "*", "code_challenge": "*", "code_challenge_method": "S256"}
	spent := map[string]string{"grant_type": "authorization_code", "code": "*", "redirect_uri": callbackURI, "code_verifier": "*"}
	with := func(m map[string]string, more ...string) map[string]string {
		m = maps.Clone(m)
		for i := 0; i < len(more); i += 2 {
			if m[more[i]] = more[i+1]; more[i+1] == "" {
				delete(m, more[i])
			}
		}
		return m
	}
	const odd = "https://proxy.test/a%7Eb/?tenant=a+b%2B&x=%20y;z"
	tests := []struct {
		name     string
		provider string
		change   func(a *oauth.Account, g *oauth.AuthorizationCode)
		uri      string // where the sandbox has the client registered
		asked    map[string]string
		spent    map[string]string
	}{
		{"as a rule", "pagero", nil, callbackURI, basics, spent},
		{"no scope", "pagero", func(a *oauth.Account, _ *oauth.AuthorizationCode) { a.Scope = "" }, callbackURI, with(basics, "scope", ""), spent},
		{"prompt", "pagero", func(_ *oauth.Account, g *oauth.AuthorizationCode) { g.Prompt = "login" }, callbackURI, with(basics, "prompt", "login"), spent},
		{"no PKCE", "pagero", func(_ *oauth.Account, g *oauth.AuthorizationCode) { g.PKCE = false }, callbackURI, with(basics, "code_challenge", "", "code_challenge_method", ""), with(spent, "code_verifier", "")},
		{"openid", "pagero", func(a *oauth.Account, _ *oauth.AuthorizationCode) { a.Scope = "all openid" }, callbackURI, with(basics, "scope", "all openid", "nonce", "*"), spent},
		{"openid only as a word", "oidc", func(a *oauth.Account, _ *oauth.AuthorizationCode) { a.Scope = "xopenid openid2 OPENID" }, callbackURI, with(basics, "scope", "xopenid openid2 OPENID"), spent},
		{"an odd redirect_uri, byte for byte", "pagero", func(_ *oauth.Account, g *oauth.AuthorizationCode) { g.RedirectURI = odd }, odd, with(basics, "redirect_uri", odd), with(spent, "redirect_uri", odd)},
		{"a redirect_uri without path", "pagero", func(_ *oauth.Account, g *oauth.AuthorizationCode) { g.RedirectURI = "http://127.0.0.1:1234" }, "http://127.0.0.1:1234", with(basics, "redirect_uri", "http://127.0.0.1:1234"), with(spent, "redirect_uri", "http://127.0.0.1:1234")},
		{"redirect_uri left out of both", "webmethods", func(_ *oauth.Account, g *oauth.AuthorizationCode) { g.OmitRedirectURI = true }, callbackURI, with(basics, "redirect_uri", ""), with(spent, "redirect_uri", "")},
		{"token_param goes to the token endpoint only", "pagero", func(a *oauth.Account, _ *oauth.AuthorizationCode) {
			a.Client.TokenParams = url.Values{"audience": {"https://api.test"}}
		}, callbackURI, basics, with(spent, "audience", "https://api.test")},
		{"the client in the body", "pagero", func(a *oauth.Account, _ *oauth.AuthorizationCode) { a.Client.Auth = oauth.AuthPost }, callbackURI, basics, with(spent, "client_id", "sandbox-client", "client_secret", "sandbox-secret")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{Provider: tt.provider, RedirectURIs: []string{tt.uri}}, func(r *loginRig) {
				a := r.person()
				if tt.change != nil {
					tt.change(a, a.Grant.(*oauth.AuthorizationCode))
				}
				s := r.start(a)
				defer r.stop()
				l := r.begin(s, anns())
				if !strings.HasPrefix(l.URL, r.endpoints.Authorize+"?") {
					t.Errorf("the browser is sent to %s", l.URL)
				}
				asked := r.asked(l)
				sameParameters(t, asked, tt.asked)
				if _, err := r.finish(r.approve(l)); err != nil {
					t.Fatal(err)
				}
				r.token(s)
				requests := r.wire.to(r.endpoints.Token)
				if len(requests) != 1 || requests[0].Method != http.MethodPost {
					t.Fatalf("%d token requests", len(requests))
				}
				form := requests[0].Form
				sameParameters(t, form, tt.spent)
				verifier := form.Get("code_verifier")
				if asked.Has("code_challenge") {
					sum := sha256.Sum256([]byte(verifier))
					if want := base64.RawURLEncoding.EncodeToString(sum[:]); asked.Get("code_challenge") != want || !random43.MatchString(verifier) {
						t.Errorf("verifier %q, challenge %q", verifier, asked.Get("code_challenge"))
					}
				}
				for _, secret := range []string{"sandbox-secret", verifier} { // B23
					if secret != "" && strings.Contains(l.URL, secret) {
						t.Error("a secret is in the address of the authorization request")
					}
				}
			})
		})
	}
}

// sameParameters compares parameters; those that want has as "*" have a random
// value. None may be there twice.
func sameParameters(t *testing.T, got url.Values, want map[string]string) {
	t.Helper()
	for name, values := range got {
		w, ok := want[name]
		if len(values) != 1 || !ok || w != "*" && values[0] != w || w == "*" && values[0] == "" {
			t.Errorf("%s is %q, want %q", name, values, w)
		}
	}
	for name := range want {
		if !got.Has(name) {
			t.Errorf("%s is missing", name)
		}
	}
}

// B24: the endpoint's own query stays, and none of it comes twice.
func TestAuthorizeEndpointWithQuery(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		a := r.person()
		a.Client.AuthorizeEndpoint += "?tenant=a%2Fb+c&acr=1&acr=2&state=mine&client_id=other"
		s := r.start(a)
		defer r.stop()
		l := r.begin(s, anns())
		q := r.asked(l)
		if !slices.Equal(q["tenant"], []string{"a/b c"}) || !slices.Equal(q["acr"], []string{"1", "2"}) {
			t.Errorf("of the endpoint's own query there is %v", q)
		}
		if !slices.Equal(q["client_id"], []string{"sandbox-client"}) || len(q["state"]) != 1 || q.Get("state") == "mine" {
			t.Errorf("client_id %q, state %q", q["client_id"], q["state"])
		}
	})
}

// B3, B6: 10,000 logins, and none of their random values comes twice or is
// easier to guess than it looks.
func TestRandomValues(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		a := r.person()
		a.Scope = "openid"
		s := r.start(a)
		defer r.stop()
		const logins = 10_000
		seen := make(map[string]bool, 4*logins)
		var letters [3][43]map[byte]bool
		for range logins {
			l := r.begin(s, anns())
			q := r.asked(l)
			values := []string{q.Get("state"), q.Get("code_challenge"), q.Get("nonce"), l.ID}
			for i, v := range values {
				if seen[v] {
					t.Fatalf("%q comes twice", v)
				}
				seen[v] = true
				if i == 3 {
					continue
				}
				if !random43.MatchString(v) {
					t.Fatalf("%q is not 43 letters", v)
				}
				for j := range v {
					if letters[i][j] == nil {
						letters[i][j] = map[byte]bool{}
					}
					letters[i][j][v[j]] = true
				}
			}
			if len(l.ID) < 22 {
				t.Fatalf("the handle %q can be guessed", l.ID)
			}
		}
		for i := range letters {
			for j, all := range letters[i] {
				if want := map[bool]int{true: 16, false: 64}[j == 42]; len(all) != want { // the last has 4 bits
					t.Errorf("value %d has %d letters at %d, want %d", i, len(all), j, want)
				}
			}
		}
	})
}

package interop

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The credentials have what form encoding, HTTP Basic and JSON treat specially.
var credentials = Config{
	ClientID:     "interop:client",
	ClientSecret: `p+q%r s/é&="x`,
	Username:     "svc+proxy@example.com",
	Password:     `100% "safe" + secure & ö`,
	RedirectURI:  "http://127.0.0.1/callback",
}

// withLifetime is the credentials with another lifetime of access tokens.
func withLifetime(d time.Duration) Config {
	c := credentials
	c.TokenLifetime = d
	return c
}

// A rig is one of the servers, and the API, on loopback.
type rig struct {
	*testing.T
	*Log
	*API
	Config
	url   string // of the server: its issuer
	paths struct{ authorize, token, revoke string }
	// offline is the scope that brings a refresh token, prompt what has to be
	// asked with it.
	offline, prompt string
	discovery       bool // the server describes itself
	api             *httptest.Server
}

// newRig starts fosite; wrap, if not nil, stands before it.
func newRig(t *testing.T, c Config, wrap func(http.Handler) http.Handler) *rig {
	t.Helper()
	r := &rig{T: t, Config: c, offline: ScopeOffline}
	r.paths.authorize, r.paths.token, r.paths.revoke = "/authorize", "/token", "/revoke"
	r.serve(wrap, func(c Config) (http.Handler, func(context.Context, string) (string, bool)) {
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		return s.AuthorizationServer(), s.Live
	})
	return r
}

// newOIDCRig starts oidc-provider, which takes no other characters in a secret
// than ASCII's; wrap, if not nil, stands before it.
func newOIDCRig(t *testing.T, c Config, wrap func(http.Handler) http.Handler) *rig {
	t.Helper()
	c.ClientSecret = `p+q%r s/&="x`
	r := &rig{T: t, Config: c, offline: "offline_access", prompt: "consent", discovery: true}
	r.paths.authorize, r.paths.token, r.paths.revoke = "/auth", "/token", "/token/revocation"
	r.serve(wrap, func(c Config) (http.Handler, func(context.Context, string) (string, bool)) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		o, err := StartOIDCProvider(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(o.Close)
		return o.AuthorizationServer(), o.Live
	})
	return r
}

// servers is both, for tests that hold for any authorization server.
var servers = []struct {
	name string
	rig  func(*testing.T, Config, func(http.Handler) http.Handler) *rig
}{{"fosite", newRig}, {"oidc-provider", newOIDCRig}}

// serve makes the rig's server, which has to know its own URL before, and the
// API.
func (r *rig) serve(wrap func(http.Handler) http.Handler, start func(Config) (http.Handler, func(context.Context, string) (string, bool))) {
	r.Helper()
	server := httptest.NewUnstartedServer(nil)
	r.Cleanup(server.Close)
	r.url = "http://" + server.Listener.Addr().String()
	r.Issuer = r.url
	endpoint, live := start(r.Config)
	r.Log = new(Log)
	endpoint = r.Log.wrap(endpoint, r.paths.token, r.paths.revoke)
	if wrap != nil {
		endpoint = wrap(endpoint)
	}
	server.Config.Handler = endpoint
	server.Start()
	r.API = &API{Live: live, Delay: r.APIDelay}
	r.api = httptest.NewServer(r.API)
	r.Cleanup(r.api.Close)
}

type answer struct {
	status       int
	Error        string `json:"error"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	ExpiresIn    int    `json:"expires_in"`
}

// ask makes a token request, as the client unless other credentials are given;
// they may be empty.
func (r *rig) ask(params url.Values, basic ...string) (a answer) {
	r.Helper()
	status, body := r.post(r.paths.token, params, basic...)
	if err := json.Unmarshal(body, &a); err != nil {
		r.Errorf("reading the answer to a token request: %v", err)
	}
	a.status = status
	return a
}

// revoke revokes a token (RFC 7009) and returns the answer's status.
func (r *rig) revoke(token, hint string) int {
	r.Helper()
	params := url.Values{"token": {token}}
	if hint != "" {
		params.Set("token_type_hint", hint)
	}
	status, _ := r.post(r.paths.revoke, params)
	return status
}

func (r *rig) post(path string, params url.Values, basic ...string) (status int, body []byte) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), "POST", r.url+path, strings.NewReader(params.Encode()))
	if err != nil {
		r.Error(err)
		return 0, nil
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(basic) == 0 {
		basic = []string{url.QueryEscape(r.ClientID), url.QueryEscape(r.ClientSecret)}
	}
	if basic[0] != "" {
		req.SetBasicAuth(basic[0], basic[1])
	}
	return r.do(req)
}

func (r *rig) do(req *http.Request) (status int, body []byte) {
	r.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Error(err)
		return 0, nil
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		r.Error(err)
	}
	return res.StatusCode, body
}

// accepts reports whether the API takes a token.
func (r *rig) accepts(token string) bool { return r.user(token) != "" }

// user returns whose a token is, according to the API; empty if it isn't live.
func (r *rig) user(token string) string {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), "GET", r.api.URL, nil)
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	if res.StatusCode != http.StatusOK {
		return ""
	}
	return res.Header.Get(UserField)
}

func passwordGrant(scope ...string) url.Values {
	return url.Values{
		"grant_type": {"password"}, "username": {credentials.Username}, "password": {credentials.Password},
		"scope": {strings.Join(scope, " ")},
	}
}

func refresh(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
}

package interop

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// The credentials have what form encoding, HTTP Basic and JSON treat specially.
var credentials = Config{
	ClientID:     "interop:client",
	ClientSecret: `p+q%r s/é&="x`,
	Username:     "svc+proxy@example.com",
	Password:     `100% "safe" + secure & ö`,
}

// A rig is the server on loopback.
type rig struct {
	*testing.T
	*Server
	token, api *httptest.Server
}

// newRig starts both handlers; wrap, if not nil, stands before the token endpoint.
func newRig(t *testing.T, c Config, wrap func(http.Handler) http.Handler) *rig {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := s.AuthorizationServer()
	if wrap != nil {
		endpoint = wrap(endpoint)
	}
	r := &rig{T: t, Server: s, token: httptest.NewServer(endpoint), api: httptest.NewServer(s.API())}
	t.Cleanup(r.token.Close)
	t.Cleanup(r.api.Close)
	return r
}

// withLifetime is the credentials with another lifetime of access tokens.
func withLifetime(d time.Duration) Config {
	c := credentials
	c.TokenLifetime = d
	return c
}

type answer struct {
	status           int
	Error            string `json:"error"`
	AccessToken      string `json:"access_token"`
	RefreshToken     string `json:"refresh_token"`
	ExpiresIn        int    `json:"expires_in"`
	TokenType, Scope string
}

// ask makes a token request, as the client unless other credentials are given.
func (r *rig) ask(params url.Values, basic ...string) (a answer) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), "POST", r.token.URL, strings.NewReader(params.Encode()))
	if err != nil {
		r.Error(err)
		return a
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(basic) == 0 {
		basic = []string{url.QueryEscape(credentials.ClientID), url.QueryEscape(credentials.ClientSecret)}
	}
	if basic[0] != "" {
		req.SetBasicAuth(basic[0], basic[1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Error(err)
		return a
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		r.Error(err)
	}
	a.status = res.StatusCode
	return a
}

func signIn(scope ...string) url.Values {
	return url.Values{
		"grant_type": {"password"}, "username": {credentials.Username}, "password": {credentials.Password},
		"scope": {strings.Join(scope, " ")},
	}
}

func refresh(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
}

// accepts reports whether the API takes a token.
func (r *rig) accepts(token string) bool {
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
	return res.StatusCode == http.StatusOK
}

// The server does what the tests of the client rely on: refresh tokens rotate,
// and the second use of one kills its whole family.
func TestRotationAndReuse(t *testing.T) {
	t.Parallel()
	r := newRig(t, withLifetime(10*time.Minute), nil)
	first := r.ask(signIn(ScopeAPI, ScopeOffline))
	if first.status != 200 || first.RefreshToken == "" || !r.accepts(first.AccessToken) {
		t.Fatalf("the sign-in brought no live tokens: status %d %s", first.status, first.Error)
	}
	other := r.ask(signIn(ScopeAPI, ScopeOffline))
	second := r.ask(refresh(first.RefreshToken))
	if second.status != 200 || second.RefreshToken == "" || second.RefreshToken == first.RefreshToken {
		t.Fatalf("the refresh did not rotate: status %d %s", second.status, second.Error)
	}
	if r.accepts(first.AccessToken) || !r.accepts(second.AccessToken) {
		t.Error("after a refresh the new access token must be live, and only it")
	}
	if r.accepts(second.RefreshToken) {
		t.Error("the API takes a refresh token")
	}
	if again := r.ask(refresh(first.RefreshToken)); again.status != 400 || again.Error != "invalid_grant" {
		t.Errorf("a spent refresh token: %d %s", again.status, again.Error)
	}
	if r.accepts(second.AccessToken) {
		t.Error("the family's access token outlived the reuse")
	}
	if last := r.ask(refresh(second.RefreshToken)); last.status != 400 || last.Error != "invalid_grant" {
		t.Errorf("the family's newest refresh token after the reuse: %d %s", last.status, last.Error)
	}
	if !r.accepts(other.AccessToken) || r.ask(refresh(other.RefreshToken)).status != 200 {
		t.Error("another family died with it")
	}
	events := r.TokenEvents()
	if len(events) != 6 || events[2].Presented == "" || events[2].Presented != events[3].Presented || events[4].Code != "invalid_grant" {
		t.Errorf("the log is wrong: %+v", events)
	}
}

// Of any number of requests with one refresh token at a time, one is granted.
func TestRefreshTokenWorksOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, withLifetime(10*time.Minute), nil)
	token := r.ask(signIn(ScopeAPI, ScopeOffline)).RefreshToken
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { r.ask(refresh(token)) })
	}
	wg.Wait()
	granted := 0
	for _, e := range r.TokenEvents() {
		if e.Grant == "refresh_token" && e.Status == 200 {
			granted++
		}
	}
	if granted != 1 {
		t.Errorf("%d refreshes were granted, want 1", granted)
	}
}

func TestAccessTokenExpires(t *testing.T) {
	t.Parallel()
	r := newRig(t, withLifetime(2*time.Second), nil)
	a := r.ask(signIn(ScopeAPI, ScopeOffline))
	if a.ExpiresIn < 1 || a.ExpiresIn > 2 {
		t.Errorf("expires_in is %d, want 1 or 2", a.ExpiresIn)
	}
	for deadline := time.Now().Add(20 * time.Second); r.accepts(a.AccessToken); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the API takes the token for ever")
		}
	}
	if r.ask(refresh(a.RefreshToken)).status != 200 {
		t.Error("the refresh token expired with it")
	}
}

// What the server refuses, and how it says so.
func TestRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t, withLifetime(10*time.Minute), nil)
	id, secret := url.QueryEscape(credentials.ClientID), url.QueryEscape(credentials.ClientSecret)
	wrong := signIn(ScopeAPI)
	wrong.Set("password", "wrong")
	post := signIn(ScopeAPI)
	post.Set("client_id", credentials.ClientID)
	post.Set("client_secret", credentials.ClientSecret)
	for _, tt := range []struct {
		name       string
		params     url.Values
		id, secret string
		status     int
		code       string
	}{
		{"password", wrong, id, secret, 400, "invalid_grant"},
		{"scope", signIn("everything"), id, secret, 400, "invalid_scope"},
		{"grant", url.Values{"grant_type": {"client_credentials"}}, id, secret, 400, "invalid_request"},
		{"refresh token", refresh("ory_rt_x.y"), id, secret, 400, "invalid_grant"},
		{"client secret", signIn(ScopeAPI), id, "wrong", 401, "invalid_client"},
		{"client", signIn(ScopeAPI), "nobody", secret, 401, "invalid_client"},
		{"secret in the body", post, "", "", 401, "invalid_client"},
		{"Basic without form encoding", signIn(ScopeAPI), "interop", credentials.ClientSecret, 400, "invalid_request"},
	} {
		if a := r.ask(tt.params, tt.id, tt.secret); a.status != tt.status || a.Error != tt.code {
			t.Errorf("%s: %d %s, want %d %s", tt.name, a.status, a.Error, tt.status, tt.code)
		}
	}
	if a := r.ask(signIn(ScopeAPI)); a.status != 200 || a.RefreshToken != "" {
		t.Errorf("without scope offline: %d, and a refresh token: %v", a.status, a.RefreshToken != "")
	}
	if r.accepts(r.ask(signIn(ScopeOffline)).AccessToken) {
		t.Error("the API takes a token without its scope")
	}
}

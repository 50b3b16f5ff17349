package interop

import (
	"net/url"
	"sync"
	"testing"
	"time"
)

// The server does what the tests of the client rely on: refresh tokens rotate,
// and the second use of one kills its whole family.
func TestRotationAndReuse(t *testing.T) {
	t.Parallel()
	r := newRig(t, withLifetime(10*time.Minute), nil)
	first := r.ask(passwordGrant(ScopeAPI, ScopeOffline))
	if first.status != 200 || first.RefreshToken == "" || !r.accepts(first.AccessToken) {
		t.Fatalf("the sign-in brought no live tokens: status %d %s", first.status, first.Error)
	}
	other := r.ask(passwordGrant(ScopeAPI, ScopeOffline))
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
	token := r.ask(passwordGrant(ScopeAPI, ScopeOffline)).RefreshToken
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
	a := r.ask(passwordGrant(ScopeAPI, ScopeOffline))
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
	wrong := passwordGrant(ScopeAPI)
	wrong.Set("password", "wrong")
	post := passwordGrant(ScopeAPI)
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
		{"scope", passwordGrant("everything"), id, secret, 400, "invalid_scope"},
		{"grant", url.Values{"grant_type": {"client_credentials"}}, id, secret, 400, "invalid_request"},
		{"refresh token", refresh("ory_rt_x.y"), id, secret, 400, "invalid_grant"},
		{"client secret", passwordGrant(ScopeAPI), id, "wrong", 401, "invalid_client"},
		{"client", passwordGrant(ScopeAPI), "nobody", secret, 401, "invalid_client"},
		{"secret in the body", post, "", "", 401, "invalid_client"},
		{"Basic without form encoding", passwordGrant(ScopeAPI), "interop", credentials.ClientSecret, 400, "invalid_request"},
	} {
		if a := r.ask(tt.params, tt.id, tt.secret); a.status != tt.status || a.Error != tt.code {
			t.Errorf("%s: %d %s, want %d %s", tt.name, a.status, a.Error, tt.status, tt.code)
		}
	}
	if a := r.ask(passwordGrant(ScopeAPI)); a.status != 200 || a.RefreshToken != "" {
		t.Errorf("without scope offline: %d, and a refresh token: %v", a.status, a.RefreshToken != "")
	}
	if r.accepts(r.ask(passwordGrant(ScopeOffline)).AccessToken) {
		t.Error("the API takes a token without its scope")
	}
}

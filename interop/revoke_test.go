package interop

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// A revocation ends all tokens of a grant (RFC 7009 §2.1), whichever is named.
func TestRevocation(t *testing.T) {
	t.Parallel()
	onServers(t, func(r *rig) {
		for _, hint := range []string{"refresh_token", "access_token", ""} {
			a := r.login()
			token := a.RefreshToken
			if hint == "access_token" {
				token = a.AccessToken
			}
			for range 2 { // the second time nothing is left to revoke
				if status := r.revoke(token, hint); status != http.StatusOK {
					r.Errorf("revoking with hint %q: %d", hint, status)
				}
			}
			if r.accepts(a.AccessToken) {
				r.Errorf("with hint %q, the access token outlived the revocation", hint)
			}
			r.refused("a revoked refresh token", r.ask(refresh(a.RefreshToken)))
		}
		if status := r.revoke("nothing.like-a-token", ""); status != http.StatusOK {
			r.Errorf("revoking what is no token: %d", status)
		}
		if status, _ := r.post(r.paths.revoke, url.Values{"token": {"x"}}, "nobody", "wrong"); status != http.StatusUnauthorized {
			r.Errorf("revoking as nobody: %d", status)
		}
		if last := r.TokenEvents(); last[len(last)-1].Grant != Revocation {
			r.Errorf("the log has no revocation: %+v", last)
		}
	})
}

// A client without credentials needs none, and its tokens rotate too.
func TestPublicClient(t *testing.T) {
	t.Parallel()
	onServers(t, func(r *rig) {
		as := url.Values{"client_id": {PublicClient}}
		params := exchange(r.code(as))
		maps.Copy(params, as)
		first := r.ask(params, "", "")
		if r.user(first.AccessToken) != r.Username {
			r.Fatalf("the code brought no live token: %d %s", first.status, first.Error)
		}
		params = refresh(first.RefreshToken)
		maps.Copy(params, as)
		second := r.ask(params, "", "")
		if second.status != http.StatusOK || second.RefreshToken == first.RefreshToken {
			r.Errorf("the refresh did not rotate: %d %s", second.status, second.Error)
		}
		r.refused("a spent refresh token", r.ask(params, "", ""))
		if r.accepts(second.AccessToken) {
			r.Error("the family's access token outlived the reuse")
		}
	})
}

// oidc-provider's own description of itself is what the rig knows.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	r := newOIDCRig(t, withLifetime(10*time.Minute), nil)
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		status, body := r.do(req)
		var m map[string]any
		if err := json.Unmarshal(body, &m); err != nil || status != http.StatusOK {
			t.Errorf("%s: %d %v", path, status, err)
			continue
		}
		for member, want := range map[string]string{
			"issuer": r.url, "authorization_endpoint": r.url + r.paths.authorize,
			"token_endpoint": r.url + r.paths.token, "revocation_endpoint": r.url + r.paths.revoke,
		} {
			if m[member] != want {
				t.Errorf("%s: %s is %v, want %s", path, member, m[member], want)
			}
		}
	}
}

// An access token of oidc-provider ends when it says, and the refresh token
// doesn't.
func TestOIDCAccessTokenExpires(t *testing.T) {
	t.Parallel()
	r := newOIDCRig(t, withLifetime(2*time.Second), nil)
	a := r.login()
	if a.ExpiresIn != 2 {
		t.Errorf("expires_in is %d, want 2", a.ExpiresIn)
	}
	for deadline := time.Now().Add(20 * time.Second); r.accepts(a.AccessToken); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the API takes the token for ever")
		}
	}
	if r.ask(refresh(a.RefreshToken)).status != http.StatusOK {
		t.Error("the refresh token expired with it")
	}
}

package oauth_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// reclaimed is an id_token with one claim changed; nil takes it out.
func reclaimed(token, claim string, value any) string {
	parts := strings.Split(token, ".")
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var claims map[string]any
	_ = json.Unmarshal(payload, &claims)
	if claims[claim] = value; value == nil {
		delete(claims, claim)
	}
	payload, _ = json.Marshal(claims)
	parts[1] = base64.RawURLEncoding.EncodeToString(payload)
	return strings.Join(parts, ".")
}

// B17: with openid the answer has to bring an id_token that is for this login.
// If it doesn't, nothing is stored, and the tokens that came with it are given
// back. The id_token itself is never kept (B18).
func TestIDTokenOfALogin(t *testing.T) {
	t.Parallel()
	claim := func(name string, value any) func(string) any {
		return func(token string) any { return reclaimed(token, name, value) }
	}
	tests := []struct {
		name   string
		change func(token string) any // nil: it is missing
		ok     bool
	}{
		{"right", func(token string) any { return token }, true},
		{"several audiences with azp", func(token string) any {
			return reclaimed(reclaimed(token, "aud", []string{"other", "sandbox-client"}), "azp", "sandbox-client")
		}, true},
		{"missing", func(string) any { return nil }, false},
		{"not text", func(string) any { return 1 }, false},
		{"empty", func(string) any { return "" }, false},
		{"no JWS", func(string) any { return "garbage" }, false},
		{"another nonce", claim("nonce", strings.Repeat("A", 43)), false},
		{"no nonce", claim("nonce", nil), false},
		{"another audience", claim("aud", "other"), false},
		{"several audiences without azp", claim("aud", []string{"sandbox-client", "other"}), false},
		{"azp of another", claim("azp", "other"), false},
		{"no audience", claim("aud", nil), false},
		{"another issuer", claim("iss", evilIssuer), false},
		{"no issuer", claim("iss", nil), false},
		{"expired", claim("exp", 1), false},
		{"no exp", claim("exp", nil), false},
		{"not signed", func(token string) any {
			return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + token[strings.Index(token, "."):]
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				a := r.person()
				a.Scope, a.Client.Issuer = "openid all", pageroIssuer
				s := r.start(a)
				defer r.stop()
				var came string
				r.wire.changes(func(_ sent, m map[string]any) {
					came, _ = m["id_token"].(string)
					if m["id_token"] = tt.change(came); m["id_token"] == nil {
						delete(m, "id_token")
					}
				})
				l := r.begin(s, anns())
				_, err := r.finish(r.approve(l))
				r.codes(1)
				r.wire.changes(nil)
				if came == "" {
					t.Fatal("the server gave no id_token")
				}
				if tt.ok {
					if err != nil {
						t.Fatal(err)
					}
					r.token(s)
					r.revoked(0)
					for _, part := range strings.Split(came, ".") {
						if strings.Contains(r.stored(s.Key()), part) {
							t.Error("the id_token is in the store")
						}
					}
					return
				}
				e := r.refused(err, oauth.ErrLoginFailed)
				if strings.Contains(e.Detail, evilIssuer) || strings.Contains(e.Detail, r.asked(l).Get("nonce")) {
					t.Errorf("the error quotes the id_token: %v", e)
				}
				r.empty(s)
				r.revoked(1)
				after(time.Hour)
				r.fails(s, oauth.ErrLoginRequired)
				if n := r.sandbox.TokenRequests(""); n != 1 {
					t.Errorf("%d token requests", n)
				}
				r.logIn(s) // begun again, it works
				r.token(s)
			})
		})
	}
	// A login that came to nothing takes nothing away.
	t.Run("beside a live session", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			a := r.person()
			a.Scope, a.Client.Issuer = "openid", pageroIssuer
			s := r.start(a)
			defer r.stop()
			r.logIn(s)
			family := r.family(s)
			r.wire.changes(func(_ sent, m map[string]any) { delete(m, "id_token") })
			_, err := r.finish(r.approve(r.begin(s, anns())))
			r.refused(err, oauth.ErrLoginFailed)
			r.wire.changes(nil)
			if r.family(s) != family {
				t.Error("the session has other tokens")
			}
			if err := s.Refresh(r.Context()); err != nil {
				t.Error(err)
			}
			r.revoked(1)
		})
	})
}

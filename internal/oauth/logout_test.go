package oauth_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// machine is an account that signs in with nobody at hand, with all endpoints.
func (r *loginRig) machine() *oauth.Account {
	a := r.account()
	r.at(a)
	return a
}

// logsOut logs out and checks what came of it.
func (r *loginRig) logsOut(s *oauth.Session, revoked bool, detail string) {
	r.Helper()
	out, err := s.Logout(r.Context())
	if err != nil || out.Revoked != revoked || (out.Detail == "") != (detail == "") || !strings.Contains(out.Detail, detail) {
		r.Errorf("Logout: %+v, %v; want %v and %q", out, err, revoked, detail)
	}
}

// B55, RFC 7009: what is on the wire.
func TestLogoutOnTheWire(t *testing.T) {
	t.Parallel()
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("sandbox-client:sandbox-secret"))
	tests := []struct {
		name   string
		change func(*oauth.Account)
		fault  sandbox.Fault // of the sign-in
		hint   string
		auth   string
		more   map[string]string
	}{
		{"the refresh token", nil, "", "refresh_token", basic, nil},
		{"no refresh token: the access token", nil, sandbox.NoRefreshToken, "access_token", basic, nil},
		{"the client in the body", func(a *oauth.Account) { a.Client.Auth = oauth.AuthPost }, "", "refresh_token", "", map[string]string{"client_id": "sandbox-client", "client_secret": "sandbox-secret"}},
		{"no token_param, no grant_type, no scope", func(a *oauth.Account) { a.Client.TokenParams = map[string][]string{"audience": {"x"}} }, "", "refresh_token", basic, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				a := r.machine()
				if tt.change != nil {
					tt.change(a)
				}
				if tt.fault != "" {
					r.sandbox.Play(tt.fault, -1)
				}
				s := r.start(a)
				defer r.stop()
				tok := r.token(s)
				r.logsOut(s, true, "")
				requests := r.wire.to(r.endpoints.Revoke)
				if len(requests) != 1 {
					t.Fatalf("%d revocations", len(requests))
				}
				want := map[string]string{"token": "*", "token_type_hint": tt.hint}
				for name, value := range tt.more {
					want[name] = value
				}
				sameParameters(t, requests[0].Form, want)
				if got := requests[0].Header.Get("Authorization"); got != tt.auth || requests[0].Method != http.MethodPost {
					t.Errorf("%s with Authorization %q", requests[0].Method, got)
				}
				if token := requests[0].Form.Get("token"); (token == strings.TrimPrefix(tok.Authorization()[0], "Bearer ")) != (tt.hint == "access_token") {
					t.Error("the other token was sent")
				}
				r.revoked(1)
				if r.call(tok) == 200 {
					t.Error("the access token still works")
				}
				r.empty(s)
			})
		})
	}
}

// B55: the tokens go here, whatever the server says, and both is told.
func TestLogoutWhileTheServerIsAway(t *testing.T) {
	t.Parallel()
	answers := map[string]struct {
		answer func(sent) *http.Response
		next   http.RoundTripper
		detail string
	}{
		"503":             {func(sent) *http.Response { return reply(503, "") }, nil, "503"},
		"400":             {func(sent) *http.Response { return reply(400, `{"error":"unsupported_token_type"}`) }, nil, "unsupported_token_type"},
		"401":             {func(sent) *http.Response { return reply(401, `{"error":"invalid_client"}`) }, nil, "invalid_client"},
		"a hostile error": {func(sent) *http.Response { return reply(400, `{"error":"<b>call 0900</b>"}`) }, nil, "400 other"},
		"a redirect": {func(sent) *http.Response {
			res := reply(307, "")
			res.Header.Set("Location", "http://evil.test/")
			return res
		}, nil, "307"},
		"reset":      {nil, failing{io.EOF}, "did not answer"},
		"unfinished": {nil, hanging{}, "time-out"},
	}
	for name, tt := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.person())
				r.logIn(s)
				r.wire.mu.Lock()
				next := r.wire.next
				if r.wire.answer = tt.answer; tt.next != nil {
					r.wire.next = tt.next
				}
				r.wire.mu.Unlock()
				begun := time.Now()
				r.logsOut(s, false, tt.detail)
				if took := time.Since(begun); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				if n := len(r.wire.to(r.endpoints.Revoke)); n != 1 {
					t.Errorf("%d revocations, want 1", n)
				}
				r.revoked(0)
				r.empty(s)
				r.fails(s, oauth.ErrLoginRequired)
				r.stop()
				r.wire.mu.Lock()
				r.wire.answer, r.wire.next = nil, next
				r.wire.mu.Unlock()
				s = r.start(r.person())
				defer r.stop()
				r.empty(s)
				r.fails(s, oauth.ErrLoginRequired)
				r.logsOut(s, false, "") // there is nothing to revoke
				if n := len(r.wire.to(r.endpoints.Revoke)); n != 1 {
					t.Errorf("%d revocations, want 1", n)
				}
			})
		})
	}
	t.Run("no revocation endpoint", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			a := r.person()
			a.Client.RevokeEndpoint = ""
			s := r.start(a)
			defer r.stop()
			r.logIn(s)
			r.logsOut(s, false, "no revocation endpoint")
			r.empty(s)
		})
	})
	t.Run("a store that can't be written: it is told", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			f := r.flaky()
			s := r.start(r.person())
			defer r.stop()
			r.logIn(s)
			f.onSave(full)
			out, err := s.Logout(r.Context())
			if !errors.Is(err, errDisk) || !out.Revoked {
				t.Errorf("Logout: %+v, %v", out, err)
			}
			f.onSave(nil)
			if _, err := s.Logout(r.Context()); err != nil { // again
				t.Error(err)
			}
			r.empty(s)
			r.fails(s, oauth.ErrLoginRequired)
		})
	})
}

// A failing transport breaks every connection off.
type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// A hanging one never answers.
type hanging struct{}

func (hanging) RoundTrip(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// Aidbox ends a session by DELETE with its access token.
func TestLogoutOfAidbox(t *testing.T) {
	t.Parallel()
	account := func(r *loginRig) *oauth.Account {
		a := r.machine()
		a.Client.RevokeEndpoint, a.Client.DeleteSession = r.endpoints.Session, true
		return a
	}
	t.Run("a live access token", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Provider: "aidbox"}, func(r *loginRig) {
			s := r.start(account(r))
			defer r.stop()
			tok := r.token(s)
			r.logsOut(s, true, "")
			requests := r.wire.to(r.endpoints.Session)
			if len(requests) != 1 || requests[0].Method != http.MethodDelete || len(requests[0].Form) != 0 || requests[0].URL.RawQuery != "" {
				t.Fatalf("%+v", requests)
			}
			if got := requests[0].Header["Authorization"]; len(got) != 1 || got[0] != tok.Authorization()[0] {
				t.Error("the request has another Authorization than the token's")
			}
			r.revoked(1)
			r.empty(s)
			if r.call(tok) == 200 {
				t.Error("the access token still works")
			}
		})
	})
	t.Run("an expired one, and a refresh token", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Provider: "aidbox"}, func(r *loginRig) {
			s := r.start(account(r))
			defer r.stop()
			r.token(s)
			after(2*time.Hour + time.Minute)
			r.logsOut(s, true, "")
			r.revoked(1) // else the refresh token lives on
			r.empty(s)
		})
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Provider: "aidbox"}, func(r *loginRig) {
			s := r.start(account(r))
			defer r.stop()
			r.token(s)
			r.sandbox.RevokeAccessTokens()
			r.logsOut(s, false, "401")
			r.empty(s)
		})
	})
}

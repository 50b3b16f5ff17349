package oauth_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// slow lets requests of a grant type wait before they are sent.
func (t *tap) slow(grant string, d time.Duration) {
	t.answers(func(s sent) *http.Response {
		if s.Form.Get("grant_type") == grant {
			time.Sleep(d)
		}
		return nil
	})
}

func TestLoginWhileASessionLives(t *testing.T) {
	t.Parallel()
	t.Run("replaces it, here and in the store", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.person())
			r.logIn(s)
			first, old := r.family(s), r.token(s)
			signedIn := s.Status().SignedIn
			after(time.Minute)
			r.logIn(s)
			second := r.family(s)
			if second == first || r.token(s) == old {
				t.Fatal("the first login's tokens are in use")
			}
			if st := s.Status(); st.SignedIn.Sub(signedIn) != time.Minute || st.State != oauth.StateReady {
				t.Errorf("%+v", st)
			}
			if err := s.Refresh(r.Context()); err != nil || r.family(s) != second {
				t.Errorf("Refresh: %v", err)
			}
			r.stop()
			s = r.start(r.person())
			defer r.stop()
			if r.family(s) != second {
				t.Error("after the restart the first login's tokens are back")
			}
			r.codes(2)
			r.requests(0, 1)
		})
	})
	t.Run("until it succeeds the session stays as it is", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			r.logIn(s)
			first := r.family(s)
			generation := s.Status().Generation
			l := r.begin(s, anns())
			_, err := r.finish(with(with(r.approve(l), "code", ""), "error", "access_denied"))
			r.refused(err, oauth.ErrLoginDenied)
			r.sandbox.Play(sandbox.LostReply, 1)
			_, err = r.finish(r.approve(r.begin(s, anns())))
			r.refused(err, oauth.ErrLoginFailed)
			if r.family(s) != first || s.Status().Generation != generation {
				t.Error("the session changed")
			}
			r.state(s, oauth.StateReady)
		})
	})
	// Whichever ends first: what the person did stays.
	for name, slow := range map[string]struct{ login, refresh time.Duration }{
		"the refresh ends first": {5 * time.Second, 2 * time.Second},
		"the login ends first":   {time.Second, 20 * time.Second},
	} {
		t.Run("while a refresh is in flight, "+name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.person())
				r.logIn(s)
				first := r.family(s)
				r.wire.answers(func(s sent) *http.Response {
					switch s.Form.Get("grant_type") {
					case "refresh_token":
						time.Sleep(slow.refresh)
					case "authorization_code":
						time.Sleep(slow.login)
					}
					return nil
				})
				q := r.approve(r.begin(s, anns()))
				refreshed := make(chan error, 1)
				go func() { refreshed <- s.Refresh(r.Context()) }()
				synctest.Wait()
				if _, err := r.finish(q); err != nil {
					t.Fatal(err)
				}
				if err := <-refreshed; err != nil {
					t.Errorf("Refresh: %v", err)
				}
				r.requests(0, 1)
				second := r.family(s)
				if second == first {
					t.Fatal("the refresh's tokens are in use")
				}
				r.stop()
				s = r.start(r.person())
				defer r.stop()
				r.wire.answers(nil)
				if err := s.Refresh(r.Context()); err != nil || r.family(s) != second {
					t.Errorf("the next refresh was that of the former tokens: %v", err)
				}
				r.state(s, oauth.StateReady)
			})
		})
	}
	t.Run("while a refresh whose answers are lost is in flight", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			r.logIn(s)
			r.wire.answers(func(s sent) *http.Response {
				if s.Form.Get("grant_type") == "refresh_token" {
					return reply(502, "")
				}
				return nil
			})
			go func() { _ = s.Refresh(r.Context()) }()
			time.Sleep(1500 * time.Millisecond) // it is between the replays
			if _, err := r.finish(r.approve(r.begin(s, anns()))); err != nil {
				t.Fatal(err)
			}
			r.wire.answers(nil)
			after(time.Minute)
			r.token(s)
			if err := s.Refresh(r.Context()); err != nil {
				t.Errorf("the new refresh token is lost: %v", err)
			}
			r.revoked(0)
		})
	})
}

// What stood in the way of a session is gone with a login.
func TestLoginClearsTheWay(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		fault sandbox.Fault // of refreshes; empty: the refresh token is revoked
		want  error
		state oauth.State
	}{
		{"a dead refresh token", "", oauth.ErrLoginRequired, oauth.StateLoginRequired},
		{"doubt", sandbox.Dead400Empty, oauth.ErrLoginRequired, oauth.StateLoginRequired},
		{"a refused client", sandbox.InvalidClient, oauth.ErrCredentialsRejected, oauth.StateRefused},
		{"a refused scope", sandbox.InvalidScope, oauth.ErrMisconfigured, oauth.StateRefused},
		{"an unknown outcome", sandbox.ServerError, oauth.ErrUnavailable, oauth.StateAway},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.person())
				r.logIn(s)
				if r.sandbox.RevokeRefreshTokens(); tt.fault != "" {
					r.sandbox.Play(tt.fault, -1)
				}
				after(20 * time.Minute)
				for range 4 {
					_, _ = s.Token(r.Context())
					after(20 * time.Second)
				}
				r.fails(s, tt.want)
				r.state(s, tt.state)
				r.sandbox.Clear()
				before := r.sandbox.TokenRequests("refresh_token")
				r.logIn(s)
				for range 2 {
					if f, err := s.Token(r.Context()); err != nil {
						t.Errorf("%v, %v", f, err)
					}
					r.state(s, oauth.StateReady)
					if d := s.Status().Detail; d != "" {
						t.Errorf("the status still says %q", d)
					}
					r.token(s)
					after(time.Minute)
					r.stop()
					s = r.start(r.person()) // nothing of it is in the store either
				}
				if n := r.sandbox.TokenRequests("refresh_token"); n != before {
					t.Errorf("%d refreshes after the login", n-before)
				}
				if err := s.Refresh(r.Context()); err != nil {
					t.Error(err)
				}
				r.stop()
			})
		})
	}
}

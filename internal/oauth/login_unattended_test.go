package oauth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// Login signs in where nobody is needed: one attempt, whatever was refused.
func TestLogin(t *testing.T) {
	t.Parallel()
	t.Run("beside a live session", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.account())
			defer r.stop()
			first := r.family(s)
			if err := s.Login(r.Context()); err != nil {
				t.Fatal(err)
			}
			if r.family(s) == first {
				t.Error("the former tokens are in use")
			}
			r.requests(2, 0)
		})
	})
	for name, relogin := range map[string]bool{"relogin on": true, "relogin off": false} {
		t.Run("a latch, "+name+": one attempt each, and it latches again", func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				a := r.account()
				a.Grant.(*oauth.Password).Relogin = relogin
				r.sandbox.Play(sandbox.WrongPassword, -1)
				s := r.start(a)
				r.fails(s, oauth.ErrCredentialsRejected)
				r.requests(1, 0)
				for i := range 3 {
					if err := s.Login(r.Context()); !errors.Is(err, oauth.ErrCredentialsRejected) {
						t.Errorf("Login: %v", err)
					}
					for range 5 {
						after(time.Minute)
						if f := r.failure(s, oauth.ErrCredentialsRejected); !f.RetryAt.IsZero() {
							t.Errorf("a retry is announced: %v", f.RetryAt)
						}
					}
					r.state(s, oauth.StateRefused)
					r.requests(2+i, 0)
					r.stop()
					s = r.start(a)
				}
				defer r.stop()

				// It was correct all the time.
				r.sandbox.Clear()
				after(time.Hour)
				r.requests(4, 0)
				if err := s.Login(r.Context()); err != nil {
					t.Fatal(err)
				}
				r.token(s)
				r.state(s, oauth.StateReady)
				r.requests(5, 0)
				after(2 * time.Hour)
				r.token(s)
				r.requests(5, 2) // one ahead while in use, one after the idle time
			})
		})
	}
	t.Run("a latch of client_credentials", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			a := r.account()
			a.Grant = oauth.ClientCredentials{}
			r.sandbox.Play(sandbox.InvalidClient, -1)
			s := r.start(a)
			defer r.stop()
			r.fails(s, oauth.ErrCredentialsRejected)
			if err := s.Login(r.Context()); !errors.Is(err, oauth.ErrCredentialsRejected) {
				t.Errorf("Login: %v", err)
			}
			after(time.Hour)
			r.fails(s, oauth.ErrCredentialsRejected)
			if n := r.sandbox.TokenRequests("client_credentials"); n != 2 {
				t.Errorf("%d attempts, want 2", n)
			}
			r.sandbox.Clear()
			if err := s.Login(r.Context()); err != nil {
				t.Error(err)
			}
			r.token(s)
		})
	})
	t.Run("refused beside a live refresh token: that goes on", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.account())
			defer r.stop()
			family := r.family(s)
			r.sandbox.Play(sandbox.WrongPassword, 1)
			if err := s.Login(r.Context()); !errors.Is(err, oauth.ErrCredentialsRejected) {
				t.Errorf("Login: %v", err)
			}
			r.requests(2, 0)
			if r.family(s) != family {
				t.Error("the session has other tokens")
			}
			after(2 * time.Hour)
			if r.family(s) != family {
				t.Error("the session has other tokens")
			}
			if n := r.sandbox.TokenRequests("password"); n != 2 {
				t.Errorf("%d password logins, want 2", n)
			}
		})
	})
	t.Run("refused beside a live refresh token: not tried again when that is dead", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			r.sandbox.Play(sandbox.WrongPassword, -1)
			if err := s.Login(r.Context()); !errors.Is(err, oauth.ErrCredentialsRejected) {
				t.Errorf("Login: %v", err)
			}
			if err := s.Refresh(r.Context()); err != nil {
				t.Error(err)
			}
			r.requests(2, 1)
			r.sandbox.RevokeRefreshTokens()
			after(time.Hour)
			r.fails(s, oauth.ErrCredentialsRejected)
			if n := r.sandbox.TokenRequests("password"); n != 2 {
				t.Errorf("%d password logins, want 2", n)
			}
		})
	})
	t.Run("the server is away: one attempt, none later", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			r.sandbox.Play(sandbox.WrongPassword, 1)
			s := r.start(r.account())
			defer r.stop()
			r.fails(s, oauth.ErrCredentialsRejected)
			r.sandbox.Play(sandbox.Unavailable, -1)
			if err := s.Login(r.Context()); !errors.Is(err, oauth.ErrUnavailable) {
				t.Errorf("Login: %v", err)
			}
			r.requests(2, 0)
			after(time.Hour)
			r.fails(s, oauth.ErrCredentialsRejected) // the latch still holds
			r.requests(2, 0)
		})
	})
	t.Run("the answer is lost: one attempt", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			r.sandbox.Play(sandbox.WrongPassword, 1)
			s := r.start(r.account())
			defer r.stop()
			r.fails(s, oauth.ErrCredentialsRejected)
			r.sandbox.Play(sandbox.LostReply, 1)
			if err := s.Login(r.Context()); !errors.Is(err, oauth.ErrUnavailable) {
				t.Errorf("Login: %v", err)
			}
			r.requests(2, 0)
			after(time.Hour)
			r.requests(2, 0)
		})
	})
	t.Run("a refresh is under way: it joins none", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Delay: 5 * time.Second}, func(r *loginRig) {
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			r.underWay(s)
			if err := s.Login(r.Context()); err != nil {
				t.Error(err)
			}
			r.requests(2, 1)
			if r.family(s) != "f2" {
				t.Error("the refresh's tokens are in use")
			}
		})
	})
}

package oauth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// F39: wrong password. Expected: exactly 1 attempt, latched over restarts. Best:
// none can be better.
func TestF39WrongPassword(t *testing.T) {
	t.Parallel()
	restarts, attempts := 0, 0
	for _, fault := range []sandbox.Fault{"", sandbox.WrongPassword, sandbox.WrongPassword401, sandbox.WrongPassword403, sandbox.HTMLForbidden, sandbox.Empty401} {
		t.Run(string(fault), func(t *testing.T) {
			play(t, sandbox.Config{LockAfter: 3}, func(r *rig) {
				password := newText("wrong")
				a := r.account()
				a.Grant.(*oauth.Password).Secret = password.secret
				if fault != "" {
					r.sandbox.Play(fault, -1)
				}
				for range 20 {
					s := r.start(a)
					for range 6 {
						after(10 * time.Minute)
						if f := r.failure(s, oauth.ErrCredentialsRejected); !f.RetryAt.IsZero() {
							t.Fatalf("a retry is announced: %v", f.RetryAt)
						}
					}
					r.state(s, oauth.StateRefused)
					r.stop()
				}
				r.requests(1, 0)
				restarts, attempts = restarts+20, attempts+r.sandbox.TokenRequests("")

				s := r.start(a)
				defer r.stop()
				r.sandbox.Clear()
				password.set("sandbox-password")
				r.within(s, 15*time.Second)
				r.requests(2, 0)
			})
		})
	}
	measured(t, 39, 3, "%d attempts for 6 kinds of refusals, over %d restarts and %d h", attempts, restarts, restarts)
	t.Run("each wrong password is tried once", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			password := newText("wrong")
			a := r.account()
			a.Grant.(*oauth.Password).Secret = password.secret
			s := r.start(a)
			after(time.Minute)
			password.set("also wrong")
			after(time.Minute)
			r.fails(s, oauth.ErrCredentialsRejected)
			r.requests(2, 0)
			password.set("wrong") // again
			after(time.Hour)
			r.requests(2, 0)
			r.stop()
			s = r.start(a)
			defer r.stop()
			r.fails(s, oauth.ErrCredentialsRejected)
			r.requests(2, 0)
		})
	})
	t.Run("Refresh heeds the latch", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			r.sandbox.Play(sandbox.WrongPassword, -1)
			s := r.start(r.account())
			defer r.stop()
			for range 3 {
				if err := s.Refresh(r.Context()); !errors.Is(err, oauth.ErrCredentialsRejected) {
					t.Errorf("Refresh: %v", err)
				}
			}
			r.requests(1, 0)
		})
	})
	t.Run("Forget keeps the latch", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			r.sandbox.Play(sandbox.WrongPassword, -1)
			s := r.start(r.account())
			defer r.stop()
			r.fails(s, oauth.ErrCredentialsRejected)
			if err := s.Forget(r.Context()); err != nil {
				t.Error(err)
			}
			r.fails(s, oauth.ErrCredentialsRejected)
			r.requests(1, 0)
		})
	})
}

// What a good answer may look like.
func TestAnswerShapes(t *testing.T) {
	t.Parallel()
	lives := map[sandbox.Fault]time.Duration{
		sandbox.NoExpiry: time.Hour, sandbox.ZeroExpiry: time.Hour, sandbox.NonsenseExpiry: time.Hour, sandbox.NegativeExpiry: time.Hour,
	}
	for _, fault := range []sandbox.Fault{
		sandbox.NoExpiry, sandbox.StringExpiry, sandbox.FloatExpiry, sandbox.ZeroExpiry, sandbox.NonsenseExpiry, sandbox.NegativeExpiry,
		sandbox.UpperTokenType, sandbox.ExtraMembers, sandbox.TextPlain, sandbox.SameRefreshToken, sandbox.NoRefreshToken, sandbox.EmptyRefreshToken,
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.account())
				defer r.stop()
				r.token(s)
				r.sandbox.Play(fault, 1)
				if err := s.Refresh(r.Context()); err != nil {
					t.Fatal(err)
				}
				r.requests(1, 1)
				st := s.Status()
				want := max(lives[fault], 600*time.Second)
				if lives := st.Expires.Sub(st.Obtained); lives != want || st.State != oauth.StateReady {
					t.Errorf("%s, the token lives for %v, want %v", st.State, lives, want)
				}
				if err := s.Refresh(r.Context()); err != nil { // the refresh token is the right one
					t.Error(err)
				}
				r.token(s)
				r.requests(1, 2)
			})
		})
	}
}

package oauth_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

func TestForget(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		s := r.start(r.noRelogin())
		tok := r.token(s)
		if err := s.Forget(r.Context()); err != nil {
			t.Fatal(err)
		}
		if s.Current() != nil || s.Status().HasRefreshToken {
			t.Error("there are still tokens")
		}
		after(48 * time.Hour)
		r.requests(1, 0) // nobody asked
		if again := r.token(s); again == tok {
			t.Error("the forgotten token is back")
		}
		r.requests(2, 0) // the next request may log in, even with relogin off
		if err := s.Forget(r.Context()); err != nil {
			t.Fatal(err)
		}
		r.stop()
		s = r.start(r.noRelogin()) // it is forgotten in the store, too
		defer r.stop()
		r.token(s)
		r.requests(3, 0)
	})
}

func TestForgetWhileARefreshIsUnderWay(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{Delay: 5 * time.Second}, func(r *rig) {
		s := r.start(r.account())
		defer r.stop()
		time.Sleep(time.Second)
		if err := s.Forget(r.Context()); err != nil {
			t.Fatal(err)
		}
		if s.Current() != nil || s.Status().HasRefreshToken {
			t.Error("there are still tokens")
		}
		r.token(s)
		r.requests(2, 0)
	})
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{RetryAfter: "200"}, func(r *rig) {
		s := r.start(r.account())
		defer r.stop()
		first := r.token(s)
		if err := s.Refresh(r.Context()); err != nil {
			t.Error(err)
		}
		r.requests(1, 1)
		if r.token(s) == first {
			t.Error("the token is the same")
		}

		r.sandbox.Play(sandbox.TooManyRequests, 1)
		if err := s.Refresh(r.Context()); !errors.Is(err, oauth.ErrUnavailable) {
			t.Errorf("Refresh: %v", err)
		}
		r.token(s) // there is still one
		if err := s.Refresh(r.Context()); err != nil {
			t.Errorf("Refresh heeds a pause: %v", err)
		}
		r.requests(1, 3)

		// The pause between doubts is no obstacle either.
		r.sandbox.Play(sandbox.Dead400Empty, 2)
		_ = s.Refresh(r.Context())
		_ = s.Refresh(r.Context())
		if err := s.Refresh(r.Context()); err != nil {
			t.Errorf("Refresh: %v", err)
		}
		r.requests(1, 6)

		r.sandbox.Play(sandbox.Slow, 1)
		r.underWay(s)
		after(15 * time.Second) // it goes on without its caller
		r.requests(1, 7)
		r.state(s, oauth.StateReady)
		r.token(s)
	})
}

func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{Delay: 5 * time.Second}, func(r *rig) {
		s := r.start(r.account())
		ctx, cancel := context.WithCancel(r.Context())
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		if _, err := s.Token(ctx); !errors.Is(err, context.Canceled) || time.Since(begin) != time.Second {
			t.Errorf("Token: %v after %v", err, time.Since(begin))
		}
		if _, err := s.Token(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Token: %v", err)
		}
		r.within(s, 4*time.Second)
		r.stop()
		s = r.start(r.account()) // it was committed, too
		defer r.stop()
		r.token(s)
		r.requests(1, 0)
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	t.Run("waits for the commit of a refresh under way", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{Delay: 5 * time.Second}, func(r *rig) {
			s := r.start(r.account())
			r.token(s)
			r.underWay(s)
			r.stop()
			if e := r.tokenEvents("refresh_token"); !e[0].Replied {
				t.Error("the answer was not waited for")
			}
			s = r.start(r.account())
			defer r.stop()
			r.token(s)
			r.requests(1, 1)
			after(550 * time.Second)
			r.token(s)
			r.requests(1, 2)
		})
	})
	t.Run("bounded", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{Grace: time.Minute}, func(r *rig) {
			s := r.start(r.account())
			r.token(s)
			r.sandbox.Play(sandbox.Slow, 1)
			r.underWay(s)
			ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
			defer cancel()
			begin := time.Now()
			if err := r.sessions.Close(ctx); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took != 2*time.Second {
				t.Errorf("it took %v", took)
			}
			r.requests(1, 1) // no replay while it ends
			s = r.start(r.account())
			defer r.stop()
			after(time.Second)
			r.requests(1, 2) // the next process knows that the outcome is unknown
			r.token(s)
		})
	})
	t.Run("leaves a commit alone, even when its time is up", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			f := r.flaky()
			s := r.start(r.account())
			tok := r.token(s)
			ended := make(chan error)
			saves := 0
			f.onSave(func(ctx context.Context, key oauth.Key, e oauth.Entry) error {
				if saves++; saves == 2 { // the result, after the intent
					go func() {
						gone, cancel := context.WithCancel(r.Context())
						cancel()
						ended <- r.sessions.Close(gone)
					}()
					time.Sleep(time.Second)
				}
				return f.Store.Save(ctx, key, e)
			})
			_ = s.Refresh(r.Context())
			if err := <-ended; err != nil {
				t.Error(err)
			}
			s = r.start(r.account())
			defer r.stop()
			if r.token(s).Authorization()[0] == tok.Authorization()[0] {
				t.Error("the result was not saved")
			}
			r.requests(1, 1)
		})
	})
	t.Run("breaks a pause off", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			r.token(s)
			r.sandbox.Play(sandbox.ServerError, -1)
			after(544 * time.Second)
			if s.Status().RetryAt.IsZero() {
				t.Error("there is no pause")
			}
			begin := time.Now()
			r.stop()
			if took := time.Since(begin); took > time.Second {
				t.Errorf("it took %v", took)
			}
		})
	})
	t.Run("begins nothing new", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			tok := r.token(s)
			r.stop()
			if again, err := s.Token(r.Context()); again != tok || err != nil {
				t.Errorf("Token: %v", err) // requests that drain still have theirs
			}
			after(550 * time.Second)
			if _, err := s.Token(r.Context()); err != nil {
				t.Errorf("Token: %v", err)
			}
			after(time.Minute)
			r.fails(s, oauth.ErrClosed)
			if err := s.Refresh(r.Context()); !errors.Is(err, oauth.ErrClosed) {
				t.Errorf("Refresh: %v", err)
			}
			r.requests(1, 0)
		})
	})
	t.Run("before a store was opened", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			if err := oauth.NewSessions(r.log).Close(r.Context()); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestSessionWaitsForConfigure(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		r.sessions = oauth.NewSessions(r.log)
		defer r.stop()
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if _, err := r.sessions.Session(ctx, oauth.Key{Account: "erp"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Session: %v", err)
		}
		if r.sessions.All() != nil {
			t.Error("there are sessions already")
		}
		time.AfterFunc(time.Second, func() {
			r.sessions.Open(lasting{r.store})
			r.configure(r.account())
		})
		s, err := r.sessions.Session(r.Context(), oauth.Key{Account: "erp"})
		if err != nil {
			t.Fatal(err)
		}
		r.token(s)
	})
}

// An idle session uses its refresh token now and then, but never the password:
// that waits for a request.
func TestKeepAliveMakesNoPasswordLogin(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		s := r.start(r.account())
		defer r.stop()
		synctest.Wait()
		r.sandbox.RevokeRefreshTokens()
		after(7 * 24 * time.Hour)
		r.requests(1, 1)
		r.token(s)
		r.requests(2, 1)
	})
}

// Nor does one whose refresh token is probably dead; and it rests until then,
// rather than find out again and again that it may not sign in.
func TestKeepAliveOfADoubtedToken(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		s := r.start(r.account())
		defer r.stop()
		synctest.Wait()
		r.sandbox.Play(sandbox.Dead400Empty, -1)
		after(7 * 24 * time.Hour)
		r.requests(1, 3)
		r.token(s)
		r.requests(2, 3)
	})
}

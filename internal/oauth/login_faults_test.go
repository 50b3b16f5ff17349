package oauth_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

func TestCloseDuringALogin(t *testing.T) {
	t.Parallel()
	t.Run("it may finish", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Delay: 5 * time.Second}, func(r *loginRig) {
			s := r.start(r.person())
			q := r.approve(r.begin(s, anns()))
			late := r.approve(r.begin(s, anns()))
			done := make(chan error, 1)
			go func() {
				_, err := r.finish(q)
				done <- err
			}()
			time.Sleep(time.Second)
			r.stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			_, err := r.finish(late)
			r.refused(err, oauth.ErrLoginFailed)
			s = r.start(r.person())
			defer r.stop()
			r.token(s)
			r.codes(1)
		})
	})
	t.Run("it is broken off at the end", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Delay: 30 * time.Second}, func(r *loginRig) {
			s := r.start(r.person())
			q := r.approve(r.begin(s, anns()))
			done := make(chan error, 1)
			go func() {
				_, err := r.finish(q)
				done <- err
			}()
			time.Sleep(time.Second)
			begun := time.Now()
			r.stop()
			if took := time.Since(begun); took != 10*time.Second {
				t.Errorf("Close took %v", took)
			}
			r.refused(<-done, oauth.ErrLoginFailed)
			s = r.start(r.person())
			defer r.stop()
			r.empty(s)
			r.codes(1)
		})
	})
	t.Run("the caller has gone", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Delay: 5 * time.Second}, func(r *loginRig) {
			s := r.start(r.person())
			q := r.approve(r.begin(s, anns()))
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			if _, err := r.sessions.FinishLogin(ctx, oauth.LoginFinish{Query: q.Encode(), Browser: anns().Browser, By: anns().By}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("FinishLogin: %v", err)
			}
			r.stop()
			s = r.start(r.person())
			defer r.stop()
			r.token(s)
		})
	})
}

func TestLoginWithAStoreThatFails(t *testing.T) {
	t.Parallel()
	t.Run("can't be written: the tokens are served from memory", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			f := r.flaky()
			s := r.start(r.person())
			f.onSave(full)
			r.logIn(s)
			r.token(s)
			r.state(s, oauth.StateDegraded)
			if !s.Status().Unsaved {
				t.Error("the status doesn't tell that the tokens are not saved")
			}
			if err := s.Refresh(r.Context()); err != nil {
				t.Error(err)
			}
			f.onSave(nil)
			after(15 * time.Second)
			r.state(s, oauth.StateReady)
			family := r.family(s)
			r.stop()
			s = r.start(r.person())
			defer r.stop()
			if r.family(s) != family {
				t.Error("the tokens were not saved")
			}
			r.codes(1)
		})
	})
	t.Run("can't be read: the login fails, and its tokens are given back", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Delay: time.Second}, func(r *loginRig) {
			f := r.flaky()
			s := r.start(r.person())
			defer r.stop()
			r.logIn(s)
			family := r.family(s)
			q := r.approve(r.begin(s, anns()))
			f.onLoad(broken)
			_, err := r.finish(q)
			e := r.refused(err, oauth.ErrLoginFailed)
			if !strings.Contains(e.Detail, "loading the tokens") {
				t.Errorf("%v", e)
			}
			f.onLoad(nil)
			if r.family(s) != family {
				t.Error("the session changed")
			}
			r.revoked(1)
		})
	})
	t.Run("can't be read at the first login: its code isn't sent", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			f := r.flaky()
			s := r.start(r.person())
			defer r.stop()
			q := r.approve(r.begin(s, anns()))
			f.onLoad(broken)
			_, err := r.finish(q)
			r.refused(err, oauth.ErrLoginFailed)
			r.codes(0)
			f.onLoad(nil)
			r.logIn(s)
			r.token(s)
		})
	})
}

// B37: a refresh token that comes with an access token of no use isn't lost
// without a word: it is kept, or given back.
func TestLoginWithAnUnusableAccessToken(t *testing.T) {
	t.Parallel()
	for _, fault := range []sandbox.Fault{sandbox.BadAccessToken, sandbox.MACTokenType, sandbox.Truncated} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.person())
				defer r.stop()
				r.sandbox.Play(fault, 1)
				_, err := r.finish(r.approve(r.begin(s, anns())))
				if kept := s.Status().HasRefreshToken; kept {
					r.token(s)
					return
				}
				r.refused(err, oauth.ErrLoginFailed)
				r.revoked(1)
			})
		})
	}
}

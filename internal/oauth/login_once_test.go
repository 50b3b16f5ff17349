package oauth_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// B6: a state is good for once, and not for ever.
func TestStateOnce(t *testing.T) {
	t.Parallel()
	t.Run("used", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			q := r.approve(r.begin(s, anns()))
			if _, err := r.finish(q); err != nil {
				t.Fatal(err)
			}
			family := r.family(s)
			for range 3 {
				_, err := r.finish(q)
				r.refused(err, oauth.ErrLoginUnknown)
			}
			r.codes(1)
			if r.family(s) != family {
				t.Error("the session has other tokens")
			}
			r.revoked(0)
		})
	})
	t.Run("used at the same time", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Delay: time.Second}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			q := r.approve(r.begin(s, anns()))
			errs := make(chan error)
			for range 50 {
				go func() {
					_, err := r.finish(q)
					errs <- err
				}()
			}
			good := 0
			for range 50 {
				if err := <-errs; err == nil {
					good++
				} else {
					r.refused(err, oauth.ErrLoginUnknown)
				}
			}
			if good != 1 {
				t.Errorf("%d of 50 callbacks were taken", good)
			}
			r.codes(1)
			r.token(s)
		})
	})
	for _, tt := range []struct {
		wait time.Duration
		want error
	}{{10*time.Minute - time.Second, nil}, {10 * time.Minute, oauth.ErrLoginUnknown}, {24 * time.Hour, oauth.ErrLoginUnknown}} {
		t.Run("after "+tt.wait.String(), func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.person())
				defer r.stop()
				l := r.begin(s, anns())
				if left := time.Until(l.Expires); left != 10*time.Minute {
					t.Errorf("the login expires in %v", left)
				}
				q := r.approve(l)
				after(tt.wait)
				_, err := r.finish(q)
				if !errors.Is(err, tt.want) {
					t.Errorf("FinishLogin: %v, want %v", err, tt.want)
				}
				r.codes(map[bool]int{true: 1, false: 0}[tt.want == nil])
			})
		})
	}
}

// B12: a code is sent once, whatever comes of it.
func TestCodeIsSentOnce(t *testing.T) {
	t.Parallel()
	for _, fault := range []sandbox.Fault{
		sandbox.LostReply, sandbox.ServerError, sandbox.LateServerError, sandbox.BadGateway, sandbox.TooManyRequests, sandbox.Unavailable, sandbox.HTML, sandbox.HTMLForbidden,
		sandbox.Redirect, sandbox.Huge, sandbox.Truncated, sandbox.InvalidClient, sandbox.InvalidScope, sandbox.Empty401, sandbox.MACTokenType, sandbox.BadAccessToken,
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.person())
				defer r.stop()
				r.sandbox.Play(fault, -1)
				l := r.begin(s, anns())
				q := r.approve(l)
				_, err := r.finish(q)
				r.refused(err, oauth.ErrLoginFailed)
				_, err = r.finish(q)
				r.refused(err, oauth.ErrLoginUnknown)
				after(time.Hour)
				r.codes(1)
				if s.Current() != nil {
					t.Error("there is a token")
				}
				r.sandbox.Clear()
				r.logIn(s) // begun again, it works
				r.codes(2)
				r.token(s)
			})
		})
	}
	t.Run("the caller leaves", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Delay: 15 * time.Second}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			l := r.begin(s, anns())
			q := r.approve(l)
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			got, err := r.sessions.FinishLogin(ctx, oauth.LoginFinish{Query: q.Encode(), Browser: anns().Browser, By: anns().By})
			if !errors.Is(err, context.DeadlineExceeded) || got == nil || got.ID != l.ID || got.Done {
				t.Fatalf("FinishLogin: %+v, %v", got, err)
			}
			_, err = r.finish(q) // pressed again
			r.refused(err, oauth.ErrLoginUnknown)
			if look, err := r.sessions.LookUpLogin(l.ID); err != nil || look.Done {
				t.Errorf("LookUpLogin: %+v, %v", look, err)
			}
			after(15 * time.Second)
			look, err := r.sessions.LookUpLogin(l.ID)
			if err != nil || !look.Done || look.Err != nil || look.Key != s.Key() {
				t.Errorf("LookUpLogin: %+v, %v", look, err)
			}
			r.codes(1)
			r.token(s)
		})
	})
	t.Run("somebody watches it", func(t *testing.T) { // the race detector, too
		t.Parallel()
		playLogin(t, sandbox.Config{Delay: time.Second}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			l := r.begin(s, anns())
			q := r.approve(l)
			var watching sync.WaitGroup
			for range 4 {
				watching.Go(func() {
					for range 1100 {
						if _, err := r.sessions.LookUpLogin(l.ID); err != nil {
							t.Error(err)
							return
						}
						time.Sleep(time.Millisecond)
					}
				})
			}
			time.Sleep(50 * time.Millisecond)
			if _, err := r.finish(q); err != nil {
				t.Error(err)
			}
			watching.Wait()
		})
	})
	t.Run("the server is slower than request_timeout", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{Delay: 2 * time.Minute}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			begun := time.Now()
			l := r.begin(s, anns())
			_, err := r.finish(r.approve(l))
			r.refused(err, oauth.ErrLoginFailed)
			if took := time.Since(begun); took != time.Minute {
				t.Errorf("it took %v", took)
			}
			look, err := r.sessions.LookUpLogin(l.ID)
			if err != nil || !look.Done {
				t.Fatalf("LookUpLogin: %+v, %v", look, err)
			}
			r.refused(look.Err, oauth.ErrLoginFailed)
			after(time.Hour)
			r.codes(1)
			r.empty(s)
		})
	})
}

package oauth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
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

// A login is for the account as it was when it began.
func TestLoginOfAChangedAccount(t *testing.T) {
	t.Parallel()
	changes := map[string]func(*oauth.Account){
		"client":         func(a *oauth.Account) { a.Client.ID = "other" },
		"scope":          func(a *oauth.Account) { a.Scope = "openid" },
		"token endpoint": func(a *oauth.Account) { a.Client.TokenEndpoint = "http://as2.test/oauth/v2/oauth-token" },
		"grant":          func(a *oauth.Account) { a.Grant = oauth.DeviceCode{} },
	}
	for name, change := range changes {
		t.Run(name+", before the callback", func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{}, func(r *loginRig) {
				s := r.start(r.person())
				defer r.stop()
				q := r.approve(r.begin(s, anns()))
				a := r.person()
				change(a)
				r.configure(a)
				_, err := r.finish(q)
				r.refused(err, oauth.ErrLoginChanged)
				r.codes(0)
				r.empty(s)
			})
		})
		t.Run(name+", while the code is exchanged", func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{Delay: 5 * time.Second}, func(r *loginRig) {
				s := r.start(r.person())
				defer r.stop()
				q := r.approve(r.begin(s, anns()))
				a := r.person()
				change(a)
				time.AfterFunc(2*time.Second, func() { r.configure(a) })
				_, err := r.finish(q)
				r.refused(err, oauth.ErrLoginChanged)
				r.codes(1)
				r.empty(s)
				r.configure(r.person())
				r.empty(s)
				after(time.Minute)
				r.revoked(1) // nobody has these tokens
			})
		})
	}
	t.Run("removed", func(t *testing.T) {
		t.Parallel()
		playLogin(t, sandbox.Config{}, func(r *loginRig) {
			s := r.start(r.person())
			defer r.stop()
			q := r.approve(r.begin(s, anns()))
			r.configure()
			_, err := r.finish(q)
			r.refused(err, oauth.ErrLoginChanged)
			r.codes(0)
		})
	})
}

// Pending logins outlive configurations, also one without their account.
func TestPendingLoginsSurviveConfigure(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		s := r.start(r.person())
		defer r.stop()
		l := r.begin(s, anns())
		q := r.approve(l)
		for range 50 {
			a := r.person()
			a.TokenTimeout += time.Second
			a.Client.Secret = oauth.Fixed("sandbox-secret")
			r.configure(a)
		}
		r.configure()
		r.configure(r.person())
		if look, err := r.sessions.LookUpLogin(l.ID); err != nil || look.Done {
			t.Errorf("LookUpLogin: %+v, %v", look, err)
		}
		if _, err := r.finish(q); err != nil {
			t.Fatal(err)
		}
		r.codes(1)
		r.token(s)
	})
}

// §4: secrets are read before each request, so that one that was rotated while
// the person was away is the one that is used.
func TestSecretRotatedDuringALogin(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		secret := newText("sandbox-secret")
		a := r.person()
		a.Client.Secret = secret.secret
		s := r.start(a)
		defer r.stop()
		q := r.approve(r.begin(s, anns()))
		r.sandbox.SetClientSecret("rotated")
		secret.set("rotated")
		if _, err := r.finish(q); err != nil {
			t.Fatal(err)
		}
		r.token(s)
	})
}

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
			if _, err := r.sessions.FinishLogin(ctx, q.Encode(), anns().Browser, anns().By); !errors.Is(err, context.DeadlineExceeded) {
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

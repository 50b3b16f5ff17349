package oauth_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// play runs f in virtual time.
func play(t *testing.T, c sandbox.Config, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newRig(t, c)) })
}

// noRelogin is the account with the password for the first sign-in only.
func (r *rig) noRelogin() *oauth.Account {
	a := r.account()
	a.Grant.(*oauth.Password).Relogin = false
	return a
}

// after lets virtual time go by, and what becomes due in it end.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// stale waits until the token of a rig in use has been due for a refresh.
func (r *rig) stale(s *oauth.Session) {
	r.Helper()
	r.token(s)
	after(545 * time.Second)
}

// tokenEvents are the requests of a grant type that the server saw.
func (r *rig) tokenEvents(grant string) []sandbox.Event {
	var events []sandbox.Event
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindToken && (grant == "" || e.Grant == grant) {
			events = append(events, e)
		}
	}
	return events
}

// gaps are the times between the requests of a grant type.
func (r *rig) gaps(grant string) []time.Duration {
	var gaps []time.Duration
	events := r.tokenEvents(grant)
	for i := 1; i < len(events); i++ {
		gaps = append(gaps, events[i].At.Sub(events[i-1].At))
	}
	return gaps
}

// within checks that a token can be had at most d from now, with nobody asking.
func (r *rig) within(s *oauth.Session, d time.Duration) {
	r.Helper()
	after(d)
	if s.Current() == nil {
		r.Fatalf("no token %v later: %s", d, s.Status().Detail)
	}
	r.token(s)
}

// failure asks for a token and returns why there is none.
func (r *rig) failure(s *oauth.Session, want error) *oauth.Failure {
	r.Helper()
	_, err := s.Token(r.Context())
	f := new(oauth.Failure)
	if !errors.Is(err, want) || !errors.As(err, &f) {
		r.Fatalf("Token: %v, want a Failure that is %v", err, want)
	}
	return f
}

// A text is a secret that changes while it is in use.
type text struct{ atomic.Pointer[string] }

func newText(s string) *text {
	t := new(text)
	t.set(s)
	return t
}
func (t *text) set(s string)         { t.Store(&s) }
func (t *text) secret() oauth.Secret { return oauth.NewSecret(*t.Load()) }

// F36: invalid_grant, true. Expected: dead at once; one password login or
// LOGIN_REQUIRED. Best: 2 or 3.
func TestF36TrueInvalidGrant(t *testing.T) {
	t.Parallel()
	with, without, calls := 0, 0, ""
	for name, kill := range map[string]func(*sandbox.Sandbox){
		"400 invalid_grant": (*sandbox.Sandbox).RevokeRefreshTokens,
		"401 invalid_grant": func(s *sandbox.Sandbox) { s.Play(sandbox.Dead401, -1) },
	} {
		t.Run(name+", relogin on: one password login", func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.account())
				defer r.stop()
				app := r.inUse(s)
				kill(r.sandbox)
				after(life)
				with = max(with, app.end())
				calls = app.String()
				r.requests(2, 1)
				r.state(s, oauth.StateReady)
				r.token(s)
			})
		})
		t.Run(name+", relogin off: login_required, no loop", func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.noRelogin())
				r.token(s)
				kill(r.sandbox)
				r.stale(s)
				r.requests(1, 1)
				app := r.inUse(s) // to its end nobody notices
				for range 60 {
					after(time.Minute)
				}
				if f := r.failure(s, oauth.ErrLoginRequired); !f.RetryAt.IsZero() {
					t.Fatalf("a retry is announced: %v", f.RetryAt)
				}
				without = max(without, app.end())
				r.state(s, oauth.StateLoginRequired)
				r.stop()
				s = r.start(r.noRelogin()) // the tombstone lasts
				defer r.stop()
				r.failure(s, oauth.ErrLoginRequired)
				r.requests(1, 1)
			})
		})
	}
	if with != 2 || without != 3 {
		t.Errorf("severity %d and %d, want 2 and 3", with, without)
	}
	measured(t, 36, with, "dead at the first answer: one password login, %s; without relogin severity %d: login_required, no request within an hour and over a restart", calls, without)
}

// F38: invalid_client (and its like, invalid_scope). Expected: latched, the
// refresh token kept; goes on after a change of the configuration. Best: 0
// after the fix.
func TestF38InvalidClient(t *testing.T) {
	t.Parallel()
	severity, longest := 0, time.Duration(0)
	for fault, want := range map[sandbox.Fault]error{sandbox.InvalidClient: oauth.ErrCredentialsRejected, sandbox.InvalidScope: oauth.ErrMisconfigured} {
		t.Run(string(fault), func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				secret := newText("sandbox-secret")
				a := r.account()
				a.Client.Secret = secret.secret
				s := r.start(a)
				r.token(s)
				r.sandbox.Play(fault, -1)
				r.stale(s)
				r.requests(1, 1)
				r.token(s)
				after(10 * time.Minute)
				r.failure(s, want)
				r.stop()
				s = r.start(a) // the latch lasts
				defer r.stop()
				for range 24 * 60 {
					after(time.Minute)
					if f := r.failure(s, want); !f.RetryAt.IsZero() {
						t.Fatalf("a retry is announced: %v", f.RetryAt)
					}
				}
				r.requests(1, 1)
				r.state(s, oauth.StateRefused)
				if !s.Status().HasRefreshToken {
					t.Error("the refresh token is gone")
				}

				// A new secret, found without a reload or a caller.
				r.sandbox.Clear()
				r.sandbox.SetClientSecret("new")
				secret.set("new")
				begin := time.Now()
				r.within(s, 15*time.Second)
				longest = max(longest, s.Status().Obtained.Sub(begin))
				app := r.inUse(s)
				after(2 * life)
				severity = max(severity, app.end())
				r.requests(1, 4)
				if p := r.presented(); p[1] != "f1.g1" {
					t.Errorf("the refresh tokens %v were presented: want the one that was kept", p)
				}
			})
		})
	}
	if severity != 0 {
		t.Errorf("severity %d after the fix", severity)
	}
	measured(t, 38, severity, "1 request over a day and a restart; after the fix the kept refresh token works within %v, no password login", longest)
}

func TestProbablyDead(t *testing.T) {
	t.Parallel()
	for _, fault := range []sandbox.Fault{sandbox.Dead400InvalidRequest, sandbox.Dead400Empty} {
		t.Run(string(fault)+": 3 tries over at least 30 s, then one password login", func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.account())
				defer r.stop()
				r.token(s)
				r.sandbox.Play(fault, -1)
				r.stale(s)
				after(2 * time.Minute)
				r.requests(2, 3)
				events := r.tokenEvents("refresh_token")
				if over := events[len(events)-1].At.Sub(events[0].At); over < 30*time.Second || over > time.Minute {
					t.Errorf("the tries took %v", over)
				}
				r.state(s, oauth.StateReady)
			})
		})
		t.Run(string(fault)+": without a login the token is kept and tried every 10 min", func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.noRelogin())
				defer r.stop()
				r.token(s)
				r.sandbox.Play(fault, -1)
				r.stale(s)
				after(5 * time.Minute)
				r.failure(s, oauth.ErrLoginRequired)
				r.state(s, oauth.StateLoginRequired)
				r.requests(1, 3)
				for range 180 {
					after(20 * time.Second)
					r.fails(s, oauth.ErrLoginRequired)
				}
				gaps := r.gaps("refresh_token")
				for _, gap := range gaps[2:] {
					if gap < 10*time.Minute-time.Second || gap > 10*time.Minute+2*time.Second {
						t.Errorf("tried again after %v", gap)
					}
				}
				if n := len(gaps[2:]); n != 6 {
					t.Errorf("tried %d times in an hour", n)
				}
				r.sandbox.Clear()
				r.within(s, 10*time.Minute+time.Second)
				if n := r.sandbox.TokenRequests("password"); n != 1 {
					t.Errorf("%d password logins", n)
				}
			})
		})
	}
	t.Run("the count is durable", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			r.token(s)
			r.sandbox.Play(sandbox.Dead400Empty, -1)
			r.stale(s)
			r.requests(1, 1)
			for range 5 { // a restart doesn't shorten the pause either
				r.stop()
				r.start(r.account())
				after(time.Second)
			}
			after(12 * time.Second)
			r.requests(1, 2)
			r.stop()
			s = r.start(r.account())
			after(17 * time.Second)
			r.requests(2, 3)
			r.token(s)
			r.stop()
		})
	})
	t.Run("the password is wrong, too: one attempt, then the token is tried every 10 min and recovers alone", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			r.sandbox.Play(sandbox.Dead400Empty, -1)
			r.sandbox.Play(sandbox.WrongPassword, -1)
			r.stale(s)
			after(2 * time.Minute)
			r.failure(s, oauth.ErrCredentialsRejected)
			r.requests(2, 3)
			after(time.Hour)
			if n := r.sandbox.TokenRequests("refresh_token"); n != 9 {
				t.Errorf("the token was tried %d times, want 3 and 6 within an hour", n)
			}
			r.sandbox.Clear()
			r.within(s, 10*time.Minute+time.Second)
			if n := r.sandbox.TokenRequests("password"); n != 2 {
				t.Errorf("%d password logins", n)
			}
		})
	})
}

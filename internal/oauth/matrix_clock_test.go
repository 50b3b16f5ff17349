package oauth_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

var jumps = map[string]time.Duration{"+1 day": day, "-1 day": -day, "+10 years": 10 * year, "-10 years": -10 * year}

// A use is what two hours of calls, one every 5 s, came to.
type use struct {
	refreshes, calls, failed int
	longest                  time.Duration // that a call waited for its token
}

func (u use) String() string {
	return fmt.Sprintf("%d refreshes in 2 h, %d of %d calls failed, longest wait %v", u.refreshes, u.failed, u.calls, u.longest)
}

// inUse2h plays jump after 600 s of use.
func inUse2h(t *testing.T, jump func(r *rig)) (u use) {
	t.Helper()
	play(t, sandbox.Config{}, func(r *rig) {
		s := r.start(r.account())
		defer r.stop()
		r.token(s)
		done := make(chan struct{})
		time.AfterFunc(600*time.Second, func() { jump(r); close(done) })
		for begin := time.Now(); time.Since(begin) < 2*time.Hour; time.Sleep(5 * time.Second) {
			u.calls++
			asked := time.Now()
			if tok, err := s.Token(r.Context()); err != nil || r.call(tok) != 200 {
				u.failed++
			}
			u.longest = max(u.longest, time.Since(asked))
		}
		<-done
		u.refreshes = r.sandbox.TokenRequests("refresh_token")
		if r.requests(1, u.refreshes); !s.Status().HasRefreshToken {
			t.Error("the refresh token is lost")
		}
	})
	return u
}

// F41: the clock jumps by a day either way while the program runs. Expected: at
// most one extra refresh, no refresh token lost. Best: 0 or 1.
func TestF41ClockJumpsWhileRunning(t *testing.T) {
	t.Parallel()
	usual, extra := inUse2h(t, func(*rig) {}), 0
	for _, jump := range []time.Duration{day, -day} {
		u := inUse2h(t, func(r *rig) { r.clocks.set(jump) })
		if extra = max(extra, u.refreshes-usual.refreshes); u.failed > 0 {
			t.Errorf("%v: %v", jump, u)
		}
		back := inUse2h(t, func(r *rig) {
			r.clocks.set(jump)
			time.Sleep(time.Minute)
			r.clocks.set(0)
		})
		if back.refreshes > usual.refreshes+2 || back.failed > 0 {
			t.Errorf("%v and back: %v; usually %v", jump, back, usual)
		}
	}
	if extra > 1 {
		t.Errorf("%d extra refreshes", extra)
	}
	measured(t, 41, 0, "a day either way: at most %d refresh more than usual (%v), no login, no call failed", extra, usual)
}

// Nothing that waits for its time waits longer because the clock went back.
func TestClockJumpsLeaveNothingStuck(t *testing.T) {
	t.Parallel()
	for name, jump := range jumps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("the keep-alive of an idle session", func(t *testing.T) {
				play(t, sandbox.Config{}, func(r *rig) {
					s := r.start(r.account())
					defer r.stop()
					r.token(s)
					after(10 * time.Minute)
					r.clocks.set(jump)
					after(25 * time.Hour)
					if n := r.sandbox.TokenRequests("refresh_token"); n < 2 || n > 3 { // one was of use
						t.Errorf("%d refreshes in 25 h", n)
					}
					r.token(s)
				})
			})
			t.Run("a retry", func(t *testing.T) {
				play(t, sandbox.Config{}, func(r *rig) {
					s := r.start(r.account())
					defer r.stop()
					r.token(s)
					r.sandbox.Play(sandbox.Unavailable, -1)
					after(20 * time.Minute)
					r.failure(s, oauth.ErrUnavailable)
					after(time.Minute)
					r.clocks.set(jump)
					if f := r.failure(s, oauth.ErrUnavailable); f.RetryAt.Sub(r.clocks.now()) > soon {
						t.Errorf("callers are told to come again in %v", f.RetryAt.Sub(r.clocks.now()))
					}
					r.sandbox.Clear()
					r.within(s, soon)
				})
			})
			t.Run("a token that is probably dead", func(t *testing.T) {
				play(t, sandbox.Config{}, func(r *rig) {
					s := r.start(r.noRelogin())
					defer r.stop()
					r.token(s)
					r.sandbox.Play(sandbox.Dead400Empty, -1)
					r.stale(s)
					r.clocks.set(jump)
					after(time.Minute)
					r.requests(1, 3)
					r.clocks.set(-jump / 2)
					r.sandbox.Clear()
					r.again(s, 10*time.Minute+time.Second)
				})
			})
			t.Run("what could not be saved", func(t *testing.T) {
				play(t, sandbox.Config{}, func(r *rig) {
					f := r.flaky()
					s := r.start(r.account())
					defer r.stop()
					r.token(s)
					f.onSave(full)
					r.stale(s)
					r.clocks.set(jump)
					f.onSave(nil)
					after(6 * time.Second)
					if s.Status().Unsaved {
						t.Error("it isn't saved yet")
					}
				})
			})
			t.Run("a latch", func(t *testing.T) {
				play(t, sandbox.Config{}, func(r *rig) {
					password := newText("wrong")
					a := r.account()
					a.Grant.(*oauth.Password).Secret = password.secret
					s := r.start(a)
					defer r.stop()
					r.fails(s, oauth.ErrCredentialsRejected)
					r.clocks.set(jump)
					after(time.Minute)
					r.requests(1, 0)
					password.set("sandbox-password")
					r.within(s, 11*time.Second)
				})
			})
		})
	}
}

// again checks that there is a token again after d at most.
func (r *rig) again(s *oauth.Session, d time.Duration) {
	r.Helper()
	for begin := time.Now(); s.Current() == nil; after(time.Second) {
		if time.Since(begin) > d {
			r.Fatalf("no token %v later: %s", d, s.Status().Detail)
		}
	}
	r.token(s)
}

// F42: the clock jumps while the program is down, or it starts with a wrong
// one. Expected: an access token from the future counts as expired, the refresh
// token is untouched. Best: 1.
func TestF42ClockJumpsWhileDown(t *testing.T) {
	t.Parallel()
	most := 0
	for name, jump := range jumps {
		t.Run("a token, "+name, func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.account())
				first := r.token(s).Authorization()[0]
				r.stop()
				r.clocks.set(jump)
				s = r.start(r.account())
				defer r.stop()
				if r.token(s).Authorization()[0] == first {
					t.Error("the token is in use, though nobody knows its age")
				}
				r.requests(1, 1)
				after(25 * time.Hour) // its keep-alive isn't years away
				n := r.sandbox.TokenRequests("refresh_token")
				if n < 2 || n > 3 {
					t.Errorf("%d refreshes in 25 h", n)
				}
				most = max(most, n)
			})
		})
		t.Run("a doubt, "+name, func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.account())
				r.token(s)
				r.sandbox.Play(sandbox.Dead400Empty, 1)
				r.stale(s)
				r.stop()
				r.clocks.set(jump)
				s = r.start(r.account())
				defer r.stop()
				r.again(s, 17*time.Second)
				r.requests(1, 2)
			})
		})
		t.Run("doubts, and no login, "+name, func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.noRelogin())
				r.token(s)
				r.sandbox.Play(sandbox.Dead400Empty, 3)
				r.stale(s)
				after(time.Minute)
				r.stop()
				r.requests(1, 3)
				r.clocks.set(jump)
				s = r.start(r.noRelogin())
				defer r.stop()
				r.again(s, 10*time.Minute+time.Second)
				r.requests(1, 4)
			})
		})
		t.Run("a sign-in without an outcome, "+name, func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				r.sandbox.Play(sandbox.LostReply, 6)
				r.start(r.account())
				after(10 * time.Minute)
				r.requests(6+1, 0)
				r.stop()
				r.store = store.NewMemory()
				r.sandbox.Play(sandbox.LostReply, -1)
				r.start(r.account())
				after(10 * time.Minute)
				r.stop()
				r.clocks.set(jump)
				before := r.sandbox.TokenRequests("password")
				s := r.start(r.account())
				defer r.stop()
				time.Sleep(time.Second)
				if n := r.sandbox.TokenRequests("password") - before; jump < 0 && n != 0 {
					t.Errorf("%d sign-ins at once: the pause is forgotten", n)
				}
				r.sandbox.Clear()
				r.again(s, 5*time.Minute+soon)
			})
		})
		t.Run("a latch, "+name, func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				password := newText("wrong")
				a := r.account()
				a.Grant.(*oauth.Password).Secret = password.secret
				r.fails(r.start(a), oauth.ErrCredentialsRejected)
				r.stop()
				r.clocks.set(jump)
				s := r.start(a)
				defer r.stop()
				r.fails(s, oauth.ErrCredentialsRejected)
				r.requests(1, 0)
				password.set("sandbox-password")
				r.within(s, 11*time.Second)
			})
		})
	}
	measured(t, 42, 1, "a day or ten years either way: one refresh at the start, the next by the keep-alive (%d in 25 h), no login; no stored pause lasts longer than it would have", most)
}

// The keep-alive of a user who is in the store alone.
func TestClockJumpsWhileDownForUsers(t *testing.T) {
	t.Parallel()
	for name, jump := range jumps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{Users: map[string]string{"ann": "x"}}, func(r *loginRig) {
				r.users(r.person())
				r.logInAs("ann")
				r.stop()
				r.clocks.set(jump)
				r.users(r.person())
				defer r.stop()
				after(30 * time.Hour)
				if n := r.refreshes()["ann"]; n < 1 || n > 2 {
					t.Errorf("%d refreshes in 30 h", n)
				}
			})
		})
	}
}

// Metadata that a wrong clock dated years ahead is fetched again all the same.
func TestClockJumpsWhileDownForMetadata(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{-day / 2, -10 * year} {
		playLogin(t, oidcServer, func(r *loginRig) {
			r.token(r.start(r.found()))
			r.stop()
			r.fetches(1, 1)
			r.clocks.set(jump)
			s := r.start(r.found())
			defer r.stop()
			for range 25 {
				r.token(s)
				after(time.Hour)
			}
			r.fetches(2, 3)
		})
	}
}

// The keep-alive of a user that fails is tried again, but not as if somebody
// waited for it, whatever the clock does.
func TestKeepAliveIsPatient(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"": 0, "+1 day": day, "-1 day": -day} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, sandbox.Config{Users: map[string]string{"ann": "x"}}, func(r *loginRig) {
				r.users(r.person())
				defer r.stop()
				r.logInAs("ann")
				r.sandbox.Play(sandbox.Unavailable, -1)
				after(30 * time.Hour)
				r.clocks.set(jump)
				after(24 * time.Hour)
				n := 0
				for _, e := range r.sandbox.Events() {
					if e.Grant == "refresh_token" || e.Kind == sandbox.KindProbe {
						n++
					}
				}
				if n < 6 || n > 13 {
					t.Errorf("asked %d times in 30 h, want about every 3 h", n)
				}
			})
		})
	}
}

// F43: the machine sleeps for 8 h. Expected: the access token is expired by the
// wall clock, and refreshed before the first request is forwarded. Best: 1.
func TestF43SuspendedForEightHours(t *testing.T) {
	t.Parallel()
	t.Run("the first request gets a new token", func(t *testing.T) {
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			first := r.token(s).Authorization()[0]
			after(time.Second)
			r.clocks.set(8 * time.Hour) // the monotonic clock and all timers stood still
			if r.token(s).Authorization()[0] == first {
				t.Error("the token from before is forwarded")
			}
			r.requests(1, 1)
		})
	})
	t.Run("one is there within a minute, with nobody asking", func(t *testing.T) {
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			r.token(s) // it is in use
			after(time.Second)
			r.clocks.set(8 * time.Hour)
			after(time.Minute)
			r.requests(1, 1)
			if s.Current() == nil {
				t.Error("there is no token")
			}
		})
	})
	t.Run("in the middle of a pause", func(t *testing.T) {
		play(t, sandbox.Config{RetryAfter: "300"}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			r.sandbox.Play(sandbox.TooManyRequests, -1)
			after(10 * time.Minute)
			r.fails(s, oauth.ErrUnavailable)
			r.sandbox.Clear()
			r.clocks.set(8 * time.Hour)
			r.within(s, time.Minute)
		})
	})
	usual := inUse2h(t, func(*rig) {})
	u := inUse2h(t, func(r *rig) { r.clocks.set(8 * time.Hour) })
	if u.refreshes > usual.refreshes+1 || u.failed > 0 {
		t.Errorf("%v; usually %v", u, usual)
	}
	measured(t, 43, 1, "one refresh, before the first request is forwarded; with nobody asking within a minute; then %v, usually %v", u, usual)
}

// G9: the clock jumps by a day and by ten years. Goal: no refresh token lost,
// at most one extra refresh for each jump.
func TestG09ClockJumps(t *testing.T) {
	t.Parallel()
	usual, extra := inUse2h(t, func(*rig) {}), 0
	for _, name := range []string{"+1 day", "-1 day", "+10 years", "-10 years"} {
		u := inUse2h(t, func(r *rig) { r.clocks.set(jumps[name]) })
		if u.refreshes > usual.refreshes+1 || u.failed > 0 {
			t.Errorf("%s: %v; usually %v", name, u, usual)
		}
		extra = max(extra, u.refreshes-usual.refreshes)
	}
	// A clock that never stands still: each jump may cost one.
	const many = 40
	u := inUse2h(t, func(r *rig) {
		for i := range many {
			r.clocks.set(time.Duration(i%5-2) * 5 * year)
			time.Sleep(time.Minute)
		}
	})
	if u.refreshes > usual.refreshes+many || u.failed > 0 {
		t.Errorf("%d jumps: %v; usually %v", many, u, usual)
	}
	t.Logf("G9: at most %d extra refreshes for a jump by ±1 day or ±10 years, no call failed, no login; %d jumps by years in 40 min: %v, usually %v",
		extra, many, u, usual)
}

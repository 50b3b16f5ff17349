package oauth_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

func TestSignInAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		s := r.start(r.account())
		defer r.stop()
		synctest.Wait()
		r.requests(1, 0)
		r.state(s, oauth.StateReady)
		r.token(s)
		r.requests(1, 0)
	})
}

func TestRefreshAheadInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		s := r.start(r.account())
		defer r.stop()
		first := r.token(s)
		time.Sleep(550 * time.Second) // stale at 525..540 s
		synctest.Wait()
		r.requests(1, 1)
		if r.token(s) == first {
			t.Error("the old token is still in use")
		}
	})
}

func TestIdleRefreshesAtNextRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		s := r.start(r.account())
		defer r.stop()
		synctest.Wait()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		r.requests(1, 0)
		r.token(s)
		r.requests(1, 1)
	})
}

func TestIdleKeepsRefreshTokenAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		r.start(r.account())
		defer r.stop()
		time.Sleep(7*24*time.Hour + time.Hour)
		synctest.Wait()
		if n := r.sandbox.TokenRequests("refresh_token"); n != 7 {
			t.Errorf("%d refreshes in a week, want 7", n)
		}
	})
}

func TestRestartNeedsNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		s := r.start(r.account())
		r.token(s)
		r.stop()
		s = r.start(r.account())
		r.token(s)
		r.stop()
		r.requests(1, 0)

		time.Sleep(time.Hour) // expired meanwhile
		s = r.start(r.account())
		r.token(s)
		r.stop()
		r.requests(1, 1)
	})
}

func TestManyCallersAtExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{Delay: 300 * time.Millisecond})
		s := r.start(r.account())
		defer r.stop()
		r.token(s)
		time.Sleep(2 * time.Hour)
		r.sessions.All() // idle: expired
		before := r.sandbox.TokenRequests("")
		var wg sync.WaitGroup
		for range 256 {
			wg.Go(func() { r.token(s) })
		}
		wg.Wait()
		if n := r.sandbox.TokenRequests("") - before; n != 1 {
			t.Errorf("%d token requests, want 1", n)
		}
	})
}

func TestCallerLeavesRefreshGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{Delay: 15 * time.Second})
		s := r.start(r.account())
		defer r.stop()
		r.fails(s, oauth.ErrTokenTimeout) // after 10 s
		r.token(s)                        // 5 s later
		r.requests(1, 0)
	})
}

func TestReject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		s := r.start(r.account())
		defer r.stop()
		first := r.token(s)
		r.sandbox.RevokeAccessTokens()
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				s.Reject(first, false)
				if r.token(s) == first {
					t.Error("the rejected token is given again")
				}
			})
		}
		wg.Wait()
		r.requests(1, 1)
		s.Reject(first, false) // late: it is not the current one any more
		synctest.Wait()
		r.requests(1, 1)
	})
}

func TestBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{TokenLifetime: 24 * time.Hour})
		s := r.start(r.account())
		defer r.stop()
		refuse := func(n int) {
			for range n { // an upstream that refuses everything
				tok := r.token(s)
				s.Reject(tok, false)
				if next := r.token(s); next != tok {
					s.Reject(next, true)
				}
			}
		}
		refuse(1000)
		r.requests(1, 1)
		time.Sleep(61 * time.Second)
		refuse(1000)
		r.requests(1, 2)
		time.Sleep(61 * time.Second) // doubled: still held
		refuse(1000)
		r.requests(1, 2)
		time.Sleep(60 * time.Second)
		refuse(1000)
		r.requests(1, 3)

		s.Accept(r.token(s), true) // a refused request that the new token let through
		s.Reject(r.token(s), false)
		r.token(s)
		r.requests(1, 4)
	})
}

func TestRejectedWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		s := r.start(r.account())
		defer r.stop()
		tok := r.token(s)
		r.sandbox.Play(sandbox.Unavailable, -1)
		s.Reject(tok, false)
		if again, err := s.Token(t.Context()); again != tok || err != nil {
			t.Errorf("Token: %v, %v; want the token that is there", again, err)
		}
	})
}

package oauth_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// An upstream that refuses one path for ever and takes others, called with
// bodies that can't be sent again, doesn't make the token rotate at each call.
func TestAlternatingRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{TokenLifetime: 24 * time.Hour})
		s := r.start(r.account())
		defer r.stop()
		alternate := func() {
			for range 200 {
				s.Accept(r.token(s), false)
				s.Reject(r.token(s), false)
			}
		}
		alternate()
		r.requests(1, 3)
		time.Sleep(time.Minute)
		alternate()
		r.requests(1, 3)
		time.Sleep(3 * time.Minute)
		alternate()
		r.requests(1, 6)
	})
}

// A token that was refused, or that an operator wants replaced, isn't given
// again because the refresh token proves dead: the sign-in follows at once.
func TestSignInFollowsDeadRefreshTokenAtOnce(t *testing.T) {
	for name, cause := range map[string]func(*testing.T, *oauth.Session, *oauth.Token){
		"rejected": func(_ *testing.T, s *oauth.Session, tok *oauth.Token) { s.Reject(tok, false) },
		"forced": func(t *testing.T, s *oauth.Session, _ *oauth.Token) {
			if err := s.Refresh(t.Context()); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, sandbox.Config{})
				s := r.start(r.account())
				defer r.stop()
				tok := r.token(s)
				r.sandbox.RevokeAccessTokens()
				r.sandbox.RevokeRefreshTokens()
				cause(t, s, tok)
				if r.token(s) == tok {
					t.Error("the dead token is given again")
				}
				r.requests(2, 1)
			})
		})
	}
}

// After Close began, who waits is told at once.
func TestTokenAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		s := r.start(r.account())
		tok := r.token(s)
		r.stop()
		start := time.Now()
		s.Reject(tok, false)
		if _, err := s.Token(t.Context()); !errors.Is(err, oauth.ErrClosed) || time.Since(start) > 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// The latch holds what was sent, also when the secret changes meanwhile.
func TestSecretChangesDuringAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		a := r.account()
		reads := 0
		a.Grant = &oauth.Password{User: oauth.Fixed("sandbox-user"), Relogin: true, Secret: func() oauth.Secret {
			if reads++; reads == 1 {
				return oauth.NewSecret("wrong-1")
			}
			return oauth.NewSecret("wrong-2")
		}}
		s := r.start(a)
		defer r.stop()
		r.fails(s, oauth.ErrCredentialsRejected)
		time.Sleep(time.Hour)
		r.fails(s, oauth.ErrCredentialsRejected)
		r.requests(2, 0) // one each
	})
}

// A process that dies during each sign-in doesn't try faster and faster.
func TestSignInKilledAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{Delay: 3 * time.Second})
		for range 50 {
			r.start(r.account())
			time.Sleep(2 * time.Second)
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // no time to land: as kill -9
			_ = r.sessions.Close(ctx)
		}
		if n := r.sandbox.TokenRequests("password"); n > 8 {
			t.Errorf("%d sign-ins in 100 s of crashes", n)
		}
	})
}

// An account that is removed and comes back has not lost what could not be
// saved.
func TestRemovedWithUnsavedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		broken := &brokenStore{Store: r.store}
		r.store = broken
		a, other := r.account(), r.account()
		other.Name = "other"
		a.Grant = &oauth.Password{User: oauth.Fixed("sandbox-user"), Secret: oauth.Fixed("sandbox-password")}
		s := r.start(a, other)
		defer r.stop()
		r.token(s)
		broken.fail.Store(true)
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.sessions.Configure(t.Context(), []*oauth.Account{other})
		broken.fail.Store(false)
		r.sessions.Configure(t.Context(), []*oauth.Account{a, other})
		s, err := r.sessions.Session(t.Context(), oauth.Key{Account: a.Name})
		if err != nil {
			t.Fatal(err)
		}
		r.token(s)
		if err := s.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		r.token(s)
	})
}

// brokenStore can't be written while fail is set.
type brokenStore struct {
	oauth.Store
	fail atomic.Bool
}

func (b *brokenStore) Save(ctx context.Context, key oauth.Key, e oauth.Entry) error {
	if b.fail.Load() {
		return errors.New("no space left")
	}
	return b.Store.Save(ctx, key, e)
}

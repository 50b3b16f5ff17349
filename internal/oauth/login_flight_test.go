package oauth_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// slowUnlock is a store after whose unlock the goroutine isn't run for a while.
type slowUnlock struct {
	oauth.Store
	pause *atomic.Int64
}

func (s slowUnlock) Lock(ctx context.Context, k oauth.Key) (func(), error) {
	unlock, err := s.Store.Lock(ctx, k)
	if err != nil {
		return nil, err
	}
	return func() { unlock(); time.Sleep(time.Duration(s.pause.Load())) }, nil
}

// A login that ends while a refresh is refused isn't undone by what the refresh
// came to.
func TestLoginEndsWithARefusedRefresh(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		var pause atomic.Int64
		r.store = slowUnlock{r.store, &pause}
		s := r.start(r.person())
		defer r.stop()
		r.logIn(s)
		r.token(s)
		pause.Store(int64(50 * time.Millisecond))
		after(time.Hour) // expired
		r.sandbox.RevokeRefreshTokens()
		q := r.approve(r.begin(s, anns()))
		r.wire.answers(func(x sent) *http.Response {
			if x.Form.Get("grant_type") == "refresh_token" {
				time.Sleep(5 * time.Second)
			}
			return nil
		})
		go func() { _, _ = s.Token(r.Context()) }()
		time.Sleep(time.Millisecond)
		go func() { _, _ = r.finish(q) }()
		after(20 * time.Second)
		r.token(s)
		after(2 * time.Hour)
		r.token(s)
	})
}

// Which server a callback is from is told by where it arrives, too (RFC 9700
// §4.4.2.2): one that came to the redirect URI of another account's server is
// refused, and its code goes nowhere.
func TestCallbackElsewhere(t *testing.T) {
	t.Parallel()
	playLogin(t, sandbox.Config{}, func(r *loginRig) {
		s := r.start(r.person())
		defer r.stop()
		login := r.begin(s, oauth.LoginStart{RedirectURI: "https://proxy.example:443/one", Browser: anns().Browser, By: anns().By})
		q := r.approve(login)
		finish := func(at string, may bool) error {
			_, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{
				Query: q.Encode(), At: at, Browser: anns().Browser, By: anns().By, May: func(oauth.Key) bool { return may },
			})
			return err
		}
		for _, at := range []string{"https://proxy.example/two", "https://proxy.example/", "https://other.example/one", "https://proxy.example:8443/one", "https://proxy.example/one/", "://"} {
			r.refused(finish(at, true), oauth.ErrCallbackMalformed)
		}
		r.refused(finish("https://proxy.example/one", false), oauth.ErrLoginForeign) // who began it may not any more
		r.codes(0)
		if err := finish("https://Proxy.example/one", true); err != nil {
			t.Error(err)
		}
		r.codes(1)
	})
}

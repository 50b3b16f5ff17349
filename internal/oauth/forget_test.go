package oauth_test

import (
	"testing"
	"testing/synctest"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// A record that can't be read stops the session, is left alone, and goes when
// an operator says so.
func TestForgetUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		inner := r.store
		r.store = store.NewSealed(inner, store.Keys{Current: store.NewKey()})
		s := r.start(r.account())
		r.token(s)
		r.stop()
		before, err := inner.Load(t.Context(), s.Key())
		if err != nil {
			t.Fatal(err)
		}

		r.store = store.NewSealed(inner, store.Keys{Current: store.NewKey()})
		s = r.start(r.account())
		defer r.stop()
		r.fails(s, oauth.ErrStoreUnavailable)
		r.state(s, oauth.StateUnknown)
		r.requests(1, 0)
		if after, err := inner.Load(t.Context(), s.Key()); err != nil || after.Generation != before.Generation {
			t.Errorf("generation %d, %v; want %d", after.Generation, err, before.Generation)
		}
		if err := s.Forget(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.token(s)
		r.requests(2, 0)
	})
}

package oauth_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// unreadable is a store whose entries can't be read until one is deleted.
// Anything else goes through to them.
type unreadable struct {
	oauth.Store
	deleted atomic.Bool
}

func (u *unreadable) Load(ctx context.Context, key oauth.Key) (oauth.Entry, error) {
	e, err := u.Store.Load(ctx, key)
	if err == nil && !u.deleted.Load() {
		return oauth.Entry{Generation: e.Generation}, fmt.Errorf("loading %q: %w", key, oauth.ErrUnreadable)
	}
	return e, err
}

func (u *unreadable) Delete(ctx context.Context, key oauth.Key, generation uint64) error {
	err := u.Store.Delete(ctx, key, generation)
	if err == nil {
		u.deleted.Store(true)
	}
	return err
}

// A record that can't be read stops the session, is left alone, and goes when
// an operator says so.
func TestForgetUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sandbox.Config{})
		inner := r.store
		s := r.start(r.account())
		r.token(s)
		r.stop()
		before, err := inner.Load(t.Context(), s.Key())
		if err != nil {
			t.Fatal(err)
		}

		r.store = &unreadable{Store: inner}
		s = r.start(r.account())
		defer r.stop()
		r.fails(s, oauth.ErrStoreUnavailable)
		r.state(s, oauth.StateUnknown)
		r.requests(1, 0)
		if after, err := inner.Load(t.Context(), s.Key()); err != nil || after.Generation != before.Generation || !bytes.Equal(after.Value, before.Value) {
			t.Errorf("generation %d, %v; want %d, not changed", after.Generation, err, before.Generation)
		}
		if err := s.Forget(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.token(s)
		r.requests(2, 0)
	})
}

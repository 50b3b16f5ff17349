package oauth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A queued store has somebody go before who wants a lock.
type queued struct {
	oauth.Store
	locks  int
	before map[int]func() // by the number of the lock, from 1
}

func (q *queued) Lock(ctx context.Context, key oauth.Key) (func(), error) {
	q.locks++
	if f := q.before[q.locks]; f != nil {
		f()
	}
	return q.Store.Lock(ctx, key)
}

// A password that is refused after an import was, and before what was there came
// back, stays refused.
func TestRefusedImportKeepsALatch(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		q := &queued{Store: r.store}
		r.store = q
		s := r.start(r.account())
		r.token(s)
		r.sandbox.SetPassword("another")
		q.before = map[int]func(){q.locks + 3: func() { // after the first for its record, and its refresh's
			r.fails(s, oauth.ErrCredentialsRejected)
		}}
		if err := s.Import(r.Context(), oauth.NewSecret("not-a-token")); !errors.Is(err, oauth.ErrImportRefused) {
			t.Errorf("Import: %v", err)
		}
		r.token(s) // what it had
		r.requests(2, 1)
		r.stop()

		r.sandbox.RevokeRefreshTokens()
		s = r.start(r.account())
		defer r.stop()
		after(time.Hour)
		r.fails(s, oauth.ErrCredentialsRejected)
		r.requests(2, 2)
	})
}

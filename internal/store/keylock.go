package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// keyLocks gives every key a lock of its own, within this process. A key takes
// memory only while somebody holds its lock or waits for it. Waiters get the
// lock in the order in which they came. It uses nothing but mutexes and
// channels, so that virtual time (testing/synctest) can pass while one waits.
type keyLocks struct {
	mu     sync.Mutex // guards slots and the refs in them
	slots  map[oauth.Key]*keySlot
	closed chan struct{}
}

// keySlot is the lock of one key. Whoever's value is in held has the lock.
type keySlot struct {
	held chan struct{} // one slot
	refs int           // holder and waiters
}

func newKeyLocks() *keyLocks {
	return &keyLocks{slots: make(map[oauth.Key]*keySlot), closed: make(chan struct{})}
}

// lock waits for the lock of a key until ctx ends or close is called. The
// unlock that it returns may be called from any goroutine, also after close;
// calling it again does nothing.
func (l *keyLocks) lock(ctx context.Context, key oauth.Key) (unlock func(), err error) {
	// select picks at random among the ready; these two must win over a free lock.
	if l.isClosed() {
		return nil, fmt.Errorf("locking %q: %w", key, oauth.ErrStoreClosed)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("locking %q: %w", key, err)
	}
	slot := l.enter(key)
	select {
	case slot.held <- struct{}{}:
	case <-ctx.Done():
		l.leave(key, slot)
		return nil, fmt.Errorf("waiting for the lock of %q: %w", key, ctx.Err())
	case <-l.closed:
		l.leave(key, slot)
		return nil, fmt.Errorf("waiting for the lock of %q: %w", key, oauth.ErrStoreClosed)
	}
	// A second call must never take the lock from the next holder.
	return sync.OnceFunc(func() {
		<-slot.held
		l.leave(key, slot)
	}), nil
}

func (l *keyLocks) enter(key oauth.Key) *keySlot {
	l.mu.Lock()
	defer l.mu.Unlock()
	slot := l.slots[key]
	if slot == nil {
		slot = &keySlot{held: make(chan struct{}, 1)}
		l.slots[key] = slot
	}
	slot.refs++
	return slot
}

func (l *keyLocks) leave(key oauth.Key, slot *keySlot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slot.refs--
	if slot.refs == 0 {
		delete(l.slots, key)
	}
}

// close sends every waiter away. Holders keep what they have.
func (l *keyLocks) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isClosed() {
		close(l.closed)
	}
}

func (l *keyLocks) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

package store

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func TestKeyLocksLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	l := newKeyLocks()
	for i := range 100_000 {
		unlock, err := l.lock(t.Context(), oauth.Key{Account: "a", User: strconv.Itoa(i)})
		if err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 && len(l.slots) != 1 {
			t.Fatalf("%d slots while one lock is held", len(l.slots))
		}
		unlock()
	}
	if len(l.slots) != 0 {
		t.Errorf("%d slots left", len(l.slots))
	}
}

func TestKeyLocksInVirtualTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewMemory()
		key := oauth.Key{Account: "a"}
		unlock, err := s.Lock(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		// Waiters come one by one; the third gives up after an hour.
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				ctx := t.Context()
				if i == 2 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Hour)
					defer cancel()
				}
				unlock, err := s.Lock(ctx, key)
				if i == 2 {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("Lock: %v, want the context's error", err)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				unlock()
			})
			synctest.Wait()
		}
		if refs := refsOf(s.locks, key); refs != 6 {
			t.Errorf("%d references with a holder and 5 waiters", refs)
		}
		time.Sleep(2 * time.Hour)
		if refs := refsOf(s.locks, key); refs != 5 {
			t.Errorf("%d references after one waiter left", refs)
		}
		unlock()
		wg.Wait()
		if want := []int{0, 1, 3, 4}; len(order) != 4 || [4]int(order) != [4]int(want) {
			t.Errorf("locked in the order %v, want %v", order, want)
		}
		if len(s.locks.slots) != 0 {
			t.Errorf("%d slots left", len(s.locks.slots))
		}
	})
}

func refsOf(l *keyLocks, key oauth.Key) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slots[key].refs
}

func TestSecondUnlockTakesNothing(t *testing.T) {
	t.Parallel()
	l := newKeyLocks()
	first, err := l.lock(t.Context(), oauth.Key{})
	if err != nil {
		t.Fatal(err)
	}
	first()
	second, err := l.lock(t.Context(), oauth.Key{})
	if err != nil {
		t.Fatal(err)
	}
	first() // must not free what the second holds
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.lock(ctx, oauth.Key{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the lock was given while it is held: %v", err)
	}
	second()
}

package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func testConcurrentSavers(t *testing.T, s oauth.Store) {
	const savers = 16
	for g := uint64(1); g <= 4; g++ {
		var errs [savers]error
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range savers {
			wg.Go(func() {
				<-start
				errs[i] = s.Save(t.Context(), alice, oauth.Entry{Generation: g, Value: fmt.Appendf(nil, "%d by %d", g, i)})
			})
		}
		close(start)
		wg.Wait()
		wantEntry(t, s, alice, g, fmt.Sprintf("%d by %d", g, onlyWinner(t, errs[:], oauth.ErrConflict)))
	}
}

func testConcurrentDeleters(t *testing.T, s oauth.Store) {
	save(t, s, alice, 1, "one")
	var errs [16]error
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = s.Delete(t.Context(), alice, 1) })
	}
	wg.Wait()
	onlyWinner(t, errs[:], oauth.ErrNotFound)
}

// onlyWinner returns the index of the only nil error; all others must be want.
func onlyWinner(t *testing.T, errs []error, want error) int {
	t.Helper()
	winner := -1
	for i, err := range errs {
		switch {
		case err != nil:
			wantError(t, "a loser", err, want)
		case winner >= 0:
			t.Fatalf("both %d and %d won", winner, i)
		default:
			winner = i
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	return winner
}

// lock takes a lock that must be free or soon be so.
func lock(t *testing.T, s oauth.Store, key oauth.Key) (unlock func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	unlock, err := s.Lock(ctx, key)
	if err != nil {
		t.Fatalf("Lock(%q): %v", key, err)
	}
	return unlock
}

// wantLocked fails if the lock of a key can be had.
func wantLocked(t *testing.T, s oauth.Store, key oauth.Key) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	unlock, err := s.Lock(ctx, key)
	if err == nil {
		unlock()
		t.Fatalf("Lock(%q) was given twice", key)
	}
	wantError(t, "Lock", err, context.DeadlineExceeded)
}

func testLockExcludes(t *testing.T, s oauth.Store) {
	unlock := lock(t, s, alice)
	wantLocked(t, s, alice)
	wantLocked(t, s, alice) // the waiter that left took nothing with it
	// The lock is for refreshes; reads and writes go on.
	save(t, s, alice, 1, "one")
	wantEntry(t, s, alice, 1, "one")
	unlock()
	lock(t, s, alice)()
	lock(t, s, alice)()
}

func testLockWaiterLeaves(t *testing.T, s oauth.Store) {
	unlock := lock(t, s, alice)
	ctx, cancel := context.WithCancel(t.Context())
	const waiters = 20
	left := make(chan error, waiters)
	for range waiters {
		go func() {
			unlock, err := s.Lock(ctx, alice)
			if err == nil {
				unlock()
			}
			left <- err
		}()
	}
	time.Sleep(10 * time.Millisecond) // most of them wait by now; none must need it
	cancel()
	for range waiters {
		select {
		case err := <-left:
			wantError(t, "Lock", err, context.Canceled)
		case <-time.After(patience):
			t.Fatal("a waiter stays although its context ended")
		}
	}
	wantLocked(t, s, alice)
	unlock()
	lock(t, s, alice)()
}

func testLockHandsOver(t *testing.T, s oauth.Store) {
	unlock := lock(t, s, alice)
	given := make(chan func(), 1)
	go func() {
		if unlock, err := s.Lock(t.Context(), alice); err == nil {
			given <- unlock
		}
	}()
	select {
	case <-given:
		t.Fatal("Lock was given twice")
	case <-time.After(20 * time.Millisecond):
	}
	unlock()
	select {
	case next := <-given:
		wantLocked(t, s, alice)
		next()
	case <-time.After(patience):
		t.Fatal("the lock wasn't handed over")
	}
	lock(t, s, alice)()
}

func testLockPerKey(t *testing.T, s oauth.Store) {
	unlocks := make([]func(), len(nasty))
	for i, key := range nasty {
		unlocks[i] = lock(t, s, key)
	}
	for i, key := range nasty[:3] {
		wantLocked(t, s, key)
		unlocks[i]()
		lock(t, s, key)()
	}
	for _, unlock := range unlocks[3:] {
		unlock()
	}
}

// testLockedCounter counts in the store under its lock: no save may conflict,
// no count may be lost.
func testLockedCounter(t *testing.T, s oauth.Store) {
	const workers, rounds = 8, 4
	var wg sync.WaitGroup
	var inside atomic.Int32
	count := func() error {
		unlock, err := s.Lock(t.Context(), alice)
		if err != nil {
			return err
		}
		defer unlock()
		if inside.Add(1) != 1 {
			return errors.New("two hold the lock")
		}
		defer inside.Add(-1)
		e, err := s.Load(t.Context(), alice)
		if err != nil && !errors.Is(err, oauth.ErrNotFound) {
			return err
		}
		n, _ := strconv.Atoi(string(e.Value)) // 0 at first
		return s.Save(t.Context(), alice, oauth.Entry{Generation: e.Generation + 1, Value: []byte(strconv.Itoa(n + 1))})
	}
	for range workers {
		wg.Go(func() {
			for range rounds {
				if err := count(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantEntry(t, s, alice, workers*rounds, strconv.Itoa(workers*rounds))
}

// testManyGoroutines is for the race detector: everything at the same time.
func testManyGoroutines(t *testing.T, s oauth.Store) {
	var wg sync.WaitGroup
	for i := range 24 {
		key := oauth.Key{Account: "a", User: strconv.Itoa(i)}
		wg.Go(func() {
			unlock, err := s.Lock(t.Context(), key)
			if err != nil {
				t.Errorf("Lock: %v", err)
				return
			}
			defer unlock()
			for g := uint64(1); g <= 3; g++ {
				if err := s.Save(t.Context(), key, oauth.Entry{Generation: g, Value: []byte(key.User)}); err != nil {
					t.Errorf("Save: %v", err)
				}
				if e, err := s.Load(t.Context(), key); err != nil || string(e.Value) != key.User || e.Generation != g {
					t.Errorf("Load(%q) = %d, %q, %v", key, e.Generation, e.Value, err)
				}
				if _, err := s.List(t.Context(), "a"); err != nil {
					t.Errorf("List: %v", err)
				}
			}
			if i%2 == 0 {
				if err := s.Delete(t.Context(), key, 3); err != nil {
					t.Errorf("Delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if keys, err := s.List(t.Context(), ""); err != nil || len(keys) != 12 {
		t.Errorf("List = %d keys, %v; want 12", len(keys), err)
	}
}

func testClose(t *testing.T, s oauth.Store) {
	ctx := t.Context()
	save(t, s, alice, 1, "one")
	unlock := lock(t, s, alice)
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	unlock() // must neither panic nor block
	_, err := s.Load(ctx, alice)
	wantError(t, "Load", err, oauth.ErrStoreClosed)
	_, err = s.List(ctx, "")
	wantError(t, "List", err, oauth.ErrStoreClosed)
	wantError(t, "Save", s.Save(ctx, alice, oauth.Entry{Generation: 2}), oauth.ErrStoreClosed)
	wantError(t, "Delete", s.Delete(ctx, alice, 1), oauth.ErrStoreClosed)
	_, err = s.Lock(ctx, alice)
	wantError(t, "Lock", err, oauth.ErrStoreClosed)
	wantError(t, "second Close", s.Close(), oauth.ErrStoreClosed)
}

func testCloseWithWaiter(t *testing.T, s oauth.Store) {
	unlock := lock(t, s, alice)
	defer unlock()
	left := make(chan error, 1)
	go func() {
		_, err := s.Lock(t.Context(), alice)
		left <- err
	}()
	time.Sleep(10 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	select {
	case err := <-left:
		wantError(t, "Lock", err, oauth.ErrStoreClosed)
	case <-time.After(patience):
		t.Fatal("a waiter stays although the store is closed")
	}
}

// testCloseUnderLoad closes while savers are at work: each call either works or
// says that the store is closed.
func testCloseUnderLoad(t *testing.T, s oauth.Store) {
	var wg sync.WaitGroup
	saved := make(chan struct{}, 1)
	for i := range 4 {
		key := oauth.Key{Account: "a", User: strconv.Itoa(i)}
		wg.Go(func() {
			for g := uint64(1); ; g++ {
				if err := s.Save(t.Context(), key, oauth.Entry{Generation: g}); err != nil {
					wantError(t, "Save", err, oauth.ErrStoreClosed)
					return
				}
				select {
				case saved <- struct{}{}:
				default:
				}
			}
		})
	}
	<-saved
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
}

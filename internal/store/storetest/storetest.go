// Package storetest holds the tests that every [oauth.Store] has to pass.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Run tests the contract of [oauth.Store]. Open returns a new, empty store each
// time; Run closes it. It is called from parallel subtests.
func Run(t *testing.T, open func(t *testing.T) oauth.Store) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s oauth.Store)
	}{
		{"NotFound", testNotFound},
		{"Generations", testGenerations},
		{"DeleteThenSave", testDeleteThenSave},
		{"Conflict", testConflict},
		{"ConcurrentSavers", testConcurrentSavers},
		{"ConcurrentDeleters", testConcurrentDeleters},
		{"ValueOwnership", testValueOwnership},
		{"Values", testValues},
		{"KeysApart", testKeysApart},
		{"List", testList},
		{"ContextEnded", testContextEnded},
		{"LockExcludes", testLockExcludes},
		{"LockWaiterLeaves", testLockWaiterLeaves},
		{"LockHandsOver", testLockHandsOver},
		{"LockPerKey", testLockPerKey},
		{"LockedCounter", testLockedCounter},
		{"ManyGoroutines", testManyGoroutines},
		{"Close", testClose},
		{"CloseWithWaiter", testCloseWithWaiter},
		{"CloseUnderLoad", testCloseUnderLoad},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil && !errors.Is(err, oauth.ErrStoreClosed) {
					t.Errorf("Close: %v", err)
				}
			})
			test.run(t, s)
		})
	}
}

var alice = oauth.Key{Account: "pagero", User: "alice"}

// patience bounds every wait that should end at once.
const patience = 10 * time.Second

func save(t *testing.T, s oauth.Store, key oauth.Key, generation uint64, value string) {
	t.Helper()
	if err := s.Save(t.Context(), key, oauth.Entry{Generation: generation, Value: []byte(value)}); err != nil {
		t.Fatalf("Save(%q, generation %d): %v", key, generation, err)
	}
}

func wantEntry(t *testing.T, s oauth.Store, key oauth.Key, generation uint64, value string) {
	t.Helper()
	e, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load(%q): %v", key, err)
	}
	if e.Generation != generation || string(e.Value) != value {
		t.Fatalf("Load(%q) = generation %d, %.40q; want %d, %.40q", key, e.Generation, e.Value, generation, value)
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want one that wraps %q", what, err, want)
	}
}

func testNotFound(t *testing.T, s oauth.Store) {
	_, err := s.Load(t.Context(), alice)
	wantError(t, "Load", err, oauth.ErrNotFound)
	wantError(t, "Delete", s.Delete(t.Context(), alice, 1), oauth.ErrNotFound)
	wantError(t, "Delete of generation 0", s.Delete(t.Context(), alice, 0), oauth.ErrNotFound)
	keys, err := s.List(t.Context(), "")
	if err != nil || len(keys) != 0 {
		t.Errorf("List = %v, %v; want nothing", keys, err)
	}
}

func testGenerations(t *testing.T, s oauth.Store) {
	for g := uint64(1); g <= 5; g++ {
		value := fmt.Sprint("value ", g)
		save(t, s, alice, g, value)
		wantEntry(t, s, alice, g, value)
	}
}

func testDeleteThenSave(t *testing.T, s oauth.Store) {
	ctx := t.Context()
	save(t, s, alice, 1, "one")
	save(t, s, alice, 2, "two")
	if err := s.Delete(ctx, alice, 2); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	_, err := s.Load(ctx, alice)
	wantError(t, "Load", err, oauth.ErrNotFound)
	wantError(t, "second Delete", s.Delete(ctx, alice, 2), oauth.ErrNotFound)
	wantError(t, "Save of generation 3", s.Save(ctx, alice, oauth.Entry{Generation: 3}), oauth.ErrConflict)
	save(t, s, alice, 1, "again")
	wantEntry(t, s, alice, 1, "again")
}

func testConflict(t *testing.T, s oauth.Store) {
	ctx := t.Context()
	const top = ^uint64(0)
	for _, g := range []uint64{0, 2, 3, top} {
		err := s.Save(ctx, alice, oauth.Entry{Generation: g, Value: []byte("x")})
		wantError(t, fmt.Sprintf("Save of generation %d over nothing", g), err, oauth.ErrConflict)
	}
	_, err := s.Load(ctx, alice)
	wantError(t, "Load after conflicts", err, oauth.ErrNotFound)

	save(t, s, alice, 1, "one")
	save(t, s, alice, 2, "two")
	for _, g := range []uint64{0, 1, 2, 4, top} {
		err := s.Save(ctx, alice, oauth.Entry{Generation: g, Value: []byte("x")})
		wantError(t, fmt.Sprintf("Save of generation %d over 2", g), err, oauth.ErrConflict)
		wantEntry(t, s, alice, 2, "two")
	}
	for _, g := range []uint64{0, 1, 3, top} {
		wantError(t, fmt.Sprintf("Delete of generation %d over 2", g), s.Delete(ctx, alice, g), oauth.ErrConflict)
		wantEntry(t, s, alice, 2, "two")
	}
}

// The values are larger than a page, so that an engine that hands out its own
// memory is caught.
func testValueOwnership(t *testing.T, s oauth.Store) {
	const size = 10_000
	want := strings.Repeat("a", size)
	value := []byte(want)
	if err := s.Save(t.Context(), alice, oauth.Entry{Generation: 1, Value: value}); err != nil {
		t.Fatal(err)
	}
	if string(value) != want {
		t.Fatalf("Save changed the caller's value to %.40q", value)
	}
	clear(value)
	wantEntry(t, s, alice, 1, want)
	e, err := s.Load(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	clear(e.Value)
	wantEntry(t, s, alice, 1, want)

	// What was loaded outlives the entry.
	e, err = s.Load(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	for g := uint64(2); g < 6; g++ {
		save(t, s, alice, g, strings.Repeat("z", size))
	}
	if err := s.Delete(t.Context(), alice, 5); err != nil {
		t.Fatal(err)
	}
	if string(e.Value) != want {
		t.Errorf("a loaded value changed to %.40q by a later Save or Delete", e.Value)
	}
}

func testValues(t *testing.T, s oauth.Store) {
	g := uint64(0)
	for _, size := range []int{0, 1, 64 << 10, 3, 200 << 10, 0} {
		value := bytes.Repeat([]byte{0, 0xff, 'v', byte(size)}, size/4+1)[:size]
		g++
		save(t, s, alice, g, string(value))
		wantEntry(t, s, alice, g, string(value))
	}
	if err := s.Save(t.Context(), alice, oauth.Entry{Generation: g + 1, Value: nil}); err != nil {
		t.Fatalf("Save of a nil value: %v", err)
	}
	wantEntry(t, s, alice, g+1, "")
}

// nasty are names that an encoding may mix up, in their order.
var nasty = []oauth.Key{
	{Account: "\x00"},
	{Account: "\x00", User: "\x00"},
	{Account: "\x00\x00"},
	{Account: "\x00\x01"},
	{Account: "\x00\xff"},
	{Account: "/"},
	{Account: "/", User: "/"},
	{Account: "/", User: "a"},
	{Account: "//"},
	{Account: "a"},
	{Account: "a", User: "\x00"},
	{Account: "a", User: "\x00b"},
	{Account: "a", User: "\x01"},
	{Account: "a", User: "/b"},
	{Account: "a", User: "b"},
	{Account: "a", User: "b\x00"},
	{Account: "a", User: "b/c"},
	{Account: "a", User: "ba"},
	{Account: "a", User: "é"},
	{Account: "a", User: "\xff"},
	{Account: "a\x00"},
	{Account: "a\x00", User: "b"},
	{Account: "a\x00\x01b"},
	{Account: "a\x00b"},
	{Account: "a\x00b", User: "c"},
	{Account: "a\x00\xff", User: "c"},
	{Account: "a\x01", User: "b"},
	{Account: "a/b"},
	{Account: "a/b", User: "c"},
	{Account: "ab"},
	{Account: "ab", User: "a"},
	{Account: "zoë", User: "名前"},
	{Account: "名前"},
	{Account: "\xff"},
	{Account: "\xff\xff", User: "\xff"},
}

func testKeysApart(t *testing.T, s oauth.Store) {
	for i, key := range nasty {
		save(t, s, key, 1, fmt.Sprint("value ", i))
	}
	for i, key := range nasty {
		wantEntry(t, s, key, 1, fmt.Sprint("value ", i))
	}
	for i, key := range nasty {
		if err := s.Delete(t.Context(), key, 1); err != nil {
			t.Fatalf("Delete(%q): %v", key, err)
		}
		if i+1 < len(nasty) {
			wantEntry(t, s, nasty[i+1], 1, fmt.Sprint("value ", i+1))
		}
	}
}

func testList(t *testing.T, s oauth.Store) {
	for i := range nasty {
		save(t, s, nasty[(i*17+5)%len(nasty)], 1, "v") // 17 and the length have no common divisor
	}
	check := func(account string, want []oauth.Key) {
		t.Helper()
		got, err := s.List(t.Context(), account)
		if err != nil {
			t.Fatalf("List(%q): %v", account, err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("List(%q) =\n%q, want\n%q", account, got, want)
		}
	}
	check("", nasty)
	accounts := []string{"no such", "a\x00\x01", "\x01", "zo"}
	for _, key := range nasty {
		accounts = append(accounts, key.Account)
	}
	for _, account := range accounts {
		check(account, slices.DeleteFunc(slices.Clone(nasty), func(k oauth.Key) bool { return k.Account != account }))
	}
	if err := s.Delete(t.Context(), nasty[9], 1); err != nil {
		t.Fatal(err)
	}
	check("", slices.Delete(slices.Clone(nasty), 9, 10))
}

func testContextEnded(t *testing.T, s oauth.Store) {
	save(t, s, alice, 1, "one")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Load(ctx, alice)
	wantError(t, "Load", err, context.Canceled)
	_, err = s.List(ctx, "")
	wantError(t, "List", err, context.Canceled)
	wantError(t, "Save", s.Save(ctx, alice, oauth.Entry{Generation: 2}), context.Canceled)
	wantError(t, "Delete", s.Delete(ctx, alice, 1), context.Canceled)
	for range 20 { // a free lock must not win by chance
		_, err = s.Lock(ctx, alice)
		wantError(t, "Lock", err, context.Canceled)
	}
	wantEntry(t, s, alice, 1, "one")
}

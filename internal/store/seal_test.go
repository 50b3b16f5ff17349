package store

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// plant puts raw bytes where a sealed entry would be.
func plant(t testing.TB, inner oauth.Store, key oauth.Key, generation uint64, raw []byte) {
	t.Helper()
	if e, err := inner.Load(t.Context(), key); err == nil {
		if err := inner.Delete(t.Context(), key, e.Generation); err != nil {
			t.Fatal(err)
		}
	}
	for g := uint64(1); g <= generation; g++ {
		if err := inner.Save(t.Context(), key, oauth.Entry{Generation: g, Value: raw}); err != nil {
			t.Fatal(err)
		}
	}
}

func raw(t testing.TB, inner oauth.Store, key oauth.Key) []byte {
	t.Helper()
	e, err := inner.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return e.Value
}

// wantUnreadable checks that an entry can't be read, that nothing of it comes
// back, and that it stays.
func wantUnreadable(t testing.TB, s *Sealed, key oauth.Key, what string) error {
	t.Helper()
	before := raw(t, s.inner, key)
	e, err := s.Load(t.Context(), key)
	if !errors.Is(err, oauth.ErrUnreadable) || e.Value != nil {
		t.Fatalf("%s: Load gave %q, %v; want an error that wraps ErrUnreadable", what, e.Value, err)
	}
	if e.Generation == 0 {
		t.Errorf("%s: the generation is missing, so that the entry can't be deleted", what)
	}
	if !bytes.Equal(raw(t, s.inner, key), before) {
		t.Errorf("%s: the entry was changed", what)
	}
	return err
}

func TestSealedBits(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	s := NewSealed(m, Keys{Current: NewKey(), Old: []Key{NewKey()}})
	mustSave(t, s, testKey, 1, "the refresh token")
	good := raw(t, m, testKey)
	if len(good) != headerSize+12+len("the refresh token")+16 {
		t.Errorf("%d sealed bytes", len(good))
	}
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		plant(t, m, testKey, 1, bad)
		wantUnreadable(t, s, testKey, fmt.Sprint("bit ", i))
	}
	for n := range good {
		plant(t, m, testKey, 1, good[:n])
		wantUnreadable(t, s, testKey, fmt.Sprint("cut to ", n))
	}
	plant(t, m, testKey, 1, append(bytes.Clone(good), 0))
	wantUnreadable(t, s, testKey, "a byte more")
	plant(t, m, testKey, 1, []byte("the refresh token"))
	wantUnreadable(t, s, testKey, "not sealed")
	plant(t, m, testKey, 1, good)
	wantValue(t, s, testKey, 1, "the refresh token")
}

// TestSealedPlace moves sealed values to where they don't belong.
func TestSealedPlace(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	s := NewSealed(m, Keys{Current: NewKey()})
	from := oauth.Key{Account: "ab", User: "c"}
	mustSave(t, s, from, 1, "one")
	first := raw(t, m, from)
	mustSave(t, s, from, 2, "two")
	second := raw(t, m, from)
	for _, to := range []oauth.Key{
		{Account: "ab", User: "d"}, {Account: "a", User: "bc"}, {Account: "abc"}, {Account: "ab"},
		{Account: "ab/c"}, {User: "abc"}, {Account: "c", User: "ab"},
	} {
		plant(t, m, to, 2, second)
		wantUnreadable(t, s, to, fmt.Sprintf("moved to %q", to))
	}
	plant(t, m, from, 3, second)
	wantUnreadable(t, s, from, "moved to a later generation")
	plant(t, m, from, 1, second)
	wantUnreadable(t, s, from, "moved to an earlier generation")
	plant(t, m, from, 2, first)
	wantUnreadable(t, s, from, "an old value put back")
	plant(t, m, from, 2, second)
	wantValue(t, s, from, 2, "two")
}

func TestSealedValuesDiffer(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	s := NewSealed(m, Keys{Current: NewKey()})
	seen := map[string]bool{}
	for g := uint64(1); g <= 50; g++ {
		mustSave(t, s, testKey, g, "same")
		seen[string(raw(t, m, testKey)[headerSize:headerSize+12])] = true
	}
	if len(seen) != 50 {
		t.Errorf("%d nonces in 50 values", len(seen))
	}
}

func TestSealedKeyRotation(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	oldKey, newKey := NewKey(), NewKey()
	other := oauth.Key{Account: "other"}
	s := NewSealed(m, Keys{Current: oldKey})
	mustSave(t, s, testKey, 1, "one")
	mustSave(t, s, other, 1, "o")

	s.SetKeys(Keys{Current: newKey})
	err := wantUnreadable(t, s, testKey, "new key alone")
	for _, want := range []string{"sealed with another key (id " + oldKey.ID() + ")", "old_key"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q doesn't say %q", err, want)
		}
	}
	err = s.Check(t.Context())
	if !errors.Is(err, oauth.ErrUnreadable) || !strings.Contains(err.Error(), "2 of 2") || !strings.Contains(err.Error(), oldKey.ID()) {
		t.Errorf("Check with the new key alone: %v", err)
	}

	s.SetKeys(Keys{Current: newKey, Old: []Key{NewKey(), oldKey}})
	do(t, s.Check(t.Context()))
	wantValue(t, s, testKey, 1, "one")
	mustSave(t, s, testKey, 2, "two") // with the new key
	wantValue(t, s, testKey, 2, "two")

	s.SetKeys(Keys{Current: newKey})
	wantValue(t, s, testKey, 2, "two")
	wantUnreadable(t, s, other, "not yet rewritten")
	if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "1 of 2") {
		t.Errorf("Check with one entry left: %v", err)
	}
	do(t, s.Delete(t.Context(), other, 1)) // needs no key
	do(t, s.Check(t.Context()))
}

func TestSealedWithoutKey(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	s := NewSealed(m, Keys{})
	if err := s.Save(t.Context(), testKey, oauth.Entry{Generation: 1, Value: []byte("x")}); err == nil {
		t.Fatal("Save without a key gave no error")
	}
	if keys, _ := m.List(t.Context(), ""); len(keys) != 0 {
		t.Error("Save without a key saved")
	}
	do(t, s.Check(t.Context()))
	mustSave(t, NewSealed(m, Keys{Current: NewKey()}), testKey, 1, "x")
	wantUnreadable(t, s, testKey, "no key")
	if err := s.Check(t.Context()); !errors.Is(err, oauth.ErrUnreadable) {
		t.Errorf("Check without a key: %v", err)
	}
	// Zero bytes where the id would be must not find the zero Key.
	plant(t, m, testKey, 1, append([]byte{sealByte}, make([]byte, 60)...))
	wantUnreadable(t, s, testKey, "key id 0")
}

func TestSealedCheckAndEmpty(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	s := NewSealed(m, Keys{Current: NewKey()})
	if empty, err := s.Empty(t.Context()); err != nil || !empty {
		t.Errorf("Empty() = %v, %v for a new store", empty, err)
	}
	mustSave(t, s, testKey, 1, "x")
	// The key is right, the rest damaged: that shows at Load, not at Check.
	broken := raw(t, m, testKey)
	broken[len(broken)-1] ^= 1
	plant(t, m, oauth.Key{Account: "broken"}, 1, broken)
	do(t, s.Check(t.Context()))
	plant(t, m, oauth.Key{Account: "clear"}, 1, []byte("never sealed: s3cret"))
	err := s.Check(t.Context())
	if !errors.Is(err, oauth.ErrUnreadable) || !strings.Contains(err.Error(), "1 of 3") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("Check with an entry that isn't sealed: %v", err)
	}
	if empty, err := s.Empty(t.Context()); err != nil || empty {
		t.Errorf("Empty() = %v, %v for a store with entries", empty, err)
	}
	mustClose(t, s)
	if err := s.Check(t.Context()); !errors.Is(err, oauth.ErrStoreClosed) {
		t.Errorf("Check after Close: %v", err)
	}
	if empty, err := s.Empty(t.Context()); !errors.Is(err, oauth.ErrStoreClosed) || empty {
		t.Errorf("Empty after Close: %v, %v", empty, err)
	}
}

// TestSealedSetKeysInUse is for the race detector, and checks that no call sees
// half of a change.
func TestSealedSetKeysInUse(t *testing.T) {
	t.Parallel()
	a, b := NewKey(), NewKey()
	s := NewSealed(NewMemory(), Keys{Current: a, Old: []Key{b}})
	done := make(chan struct{})
	var swaps sync.WaitGroup
	swaps.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				s.SetKeys(Keys{Current: b, Old: []Key{a}})
				s.SetKeys(Keys{Current: a, Old: []Key{b}})
			}
		}
	})
	var users sync.WaitGroup
	for i := range 4 {
		users.Go(func() {
			key := oauth.Key{Account: "a", User: fmt.Sprint(i)}
			for g := uint64(1); g <= 200; g++ {
				if err := s.Save(t.Context(), key, oauth.Entry{Generation: g, Value: []byte("v")}); err != nil {
					t.Error(err)
				}
				if e, err := s.Load(t.Context(), key); err != nil || string(e.Value) != "v" {
					t.Errorf("Load = %q, %v", e.Value, err)
				}
			}
		})
	}
	users.Wait()
	close(done)
	swaps.Wait()
}

// TestNoPlaintextInFile looks for a secret in every byte of the database.
func TestNoPlaintextInFile(t *testing.T) {
	t.Parallel()
	const secret = "Planted-Refresh-Token-0123456789"
	forms := []string{secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret))[:40]}
	for _, seal := range []bool{true, false} {
		b := newBolt(t)
		var s oauth.Store = b
		sealKey := NewKey()
		if seal {
			s = NewSealed(b, Keys{Current: sealKey})
		}
		check := func(when string) {
			t.Helper()
			data, err := os.ReadFile(b.Path())
			do(t, err)
			for _, form := range append(forms, string(sealKey.secret()[:]), sealKey.Text()) {
				if bytes.Contains(data, []byte(form)) && seal {
					t.Errorf("%s: the file contains %q", when, form)
				}
			}
			// Without sealing it must be found, or this test sees nothing.
			if !seal && !bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s: the file of a store that isn't sealed doesn't contain the value", when)
			}
		}
		mustSave(t, s, testKey, 1, secret)
		check("saved")
		mustSave(t, s, testKey, 2, strings.Repeat(secret, 3000))
		check("overwritten by a long one")
		mustSave(t, s, testKey, 3, secret)
		mustSave(t, s, testKey, 4, "short")
		check("overwritten by a short one")
		do(t, s.Delete(t.Context(), testKey, 4))
		check("deleted")
		mustClose(t, s)
		check("closed")
	}
}

// golden is "value" of testKey in generation 7, sealed with patternKey. It must
// stay readable: stores out there hold such values.
const golden = "019ca0c3144d1f11dc2ec144f41c4c2b42bfc227fd0c9e751f8467a9b2d0f76152fb4726091f22ef3708"

func goldenRing(t testing.TB) (r *ring, sealed []byte) {
	t.Helper()
	k := patternKey(t)
	sealed, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	return &ring{current: k, byID: map[keyID]Key{k.id(): k}}, sealed
}

func TestSealedFormatStays(t *testing.T) {
	t.Parallel()
	r, sealed := goldenRing(t)
	value, err := r.open(testKey, oauth.Entry{Generation: 7, Value: sealed})
	if err != nil || string(value) != "value" {
		t.Errorf("open = %q, %v", value, err)
	}
}

// FuzzSealedOpen gives foreign bytes to the reader of sealed values: it opens
// the golden one and no other.
func FuzzSealedOpen(f *testing.F) {
	r, good := goldenRing(f)
	f.Add(good, uint64(7))
	f.Add(good, uint64(8))
	f.Add(good[:headerSize], uint64(7))
	f.Add([]byte{sealByte}, uint64(1))
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, sealed []byte, generation uint64) {
		value, err := r.open(testKey, oauth.Entry{Generation: generation, Value: sealed})
		if bytes.Equal(sealed, good) && generation == 7 {
			if err != nil || string(value) != "value" {
				t.Fatalf("open = %q, %v", value, err)
			}
			return
		}
		if !errors.Is(err, oauth.ErrUnreadable) || value != nil {
			t.Fatalf("open = %q, %v", value, err)
		}
	})
}

func benchmarkStore(b *testing.B) *Sealed {
	return NewSealed(newBolt(b), Keys{Current: NewKey()})
}

func BenchmarkSealedBoltSave(b *testing.B) {
	s := benchmarkStore(b)
	e := oauth.Entry{Value: bytes.Repeat([]byte("x"), 2048)}
	b.ReportAllocs()
	for b.Loop() {
		e.Generation++
		if err := s.Save(b.Context(), testKey, e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealedBoltLoad(b *testing.B) {
	s := benchmarkStore(b)
	mustSave(b, s, testKey, 1, strings.Repeat("x", 2048))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Load(b.Context(), testKey); err != nil {
			b.Fatal(err)
		}
	}
}

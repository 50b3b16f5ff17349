package store

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func mustSeal(t testing.TB, r *ring, key oauth.Key, generation uint64, value string) []byte {
	t.Helper()
	sealed, err := r.seal(key, oauth.Entry{Generation: generation, Value: []byte(value)})
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func wantOpen(t testing.TB, r *ring, key oauth.Key, generation uint64, sealed []byte, value string) {
	t.Helper()
	got, err := r.open(key, oauth.Entry{Generation: generation, Value: sealed})
	if err != nil || string(got) != value {
		t.Fatalf("open = %q, %v; want %q", got, err, value)
	}
}

// wantUnreadable checks that a sealed value can't be opened, that nothing of it
// comes back, and that it stays as it is.
func wantUnreadable(t testing.TB, r *ring, key oauth.Key, generation uint64, sealed []byte, what string) error {
	t.Helper()
	before := bytes.Clone(sealed)
	value, err := r.open(key, oauth.Entry{Generation: generation, Value: sealed})
	if !errors.Is(err, oauth.ErrUnreadable) || value != nil {
		t.Fatalf("%s: open gave %q, %v; want an error that wraps ErrUnreadable", what, value, err)
	}
	if !bytes.Equal(sealed, before) {
		t.Errorf("%s: the sealed value was changed", what)
	}
	return err
}

func TestSealedBits(t *testing.T) {
	t.Parallel()
	r := newRing(Keys{Current: NewKey(), Old: []Key{NewKey()}})
	good := mustSeal(t, r, testKey, 1, "the refresh token")
	if len(good) != headerSize+12+len("the refresh token")+16 {
		t.Errorf("%d sealed bytes", len(good))
	}
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		wantUnreadable(t, r, testKey, 1, bad, fmt.Sprint("bit ", i))
	}
	for n := range good {
		wantUnreadable(t, r, testKey, 1, good[:n], fmt.Sprint("cut to ", n))
	}
	wantUnreadable(t, r, testKey, 1, append(bytes.Clone(good), 0), "a byte more")
	wantUnreadable(t, r, testKey, 1, []byte("the refresh token"), "not sealed")
	wantOpen(t, r, testKey, 1, good, "the refresh token")
}

// TestSealedPlace moves sealed values to where they don't belong.
func TestSealedPlace(t *testing.T) {
	t.Parallel()
	r := newRing(Keys{Current: NewKey()})
	from := oauth.Key{Account: "ab", User: "c"}
	first, second := mustSeal(t, r, from, 1, "one"), mustSeal(t, r, from, 2, "two")
	for _, to := range []oauth.Key{
		{Account: "ab", User: "d"}, {Account: "a", User: "bc"}, {Account: "abc"}, {Account: "ab"},
		{Account: "ab/c"}, {User: "abc"}, {Account: "c", User: "ab"},
	} {
		wantUnreadable(t, r, to, 2, second, fmt.Sprintf("moved to %q", to))
	}
	wantUnreadable(t, r, from, 3, second, "moved to a later generation")
	wantUnreadable(t, r, from, 1, second, "moved to an earlier generation")
	wantUnreadable(t, r, from, 2, first, "an old value put back")
	wantOpen(t, r, from, 2, second, "two")
	wantOpen(t, r, from, 1, first, "one")
}

func TestSealedValuesDiffer(t *testing.T) {
	t.Parallel()
	r := newRing(Keys{Current: NewKey()})
	nonces, values := map[string]bool{}, map[string]bool{}
	for range 50 {
		sealed := mustSeal(t, r, testKey, 1, "same")
		nonces[string(sealed[headerSize:headerSize+12])] = true
		values[string(sealed[headerSize+12:])] = true
	}
	if len(nonces) != 50 || len(values) != 50 {
		t.Errorf("%d nonces and %d ciphertexts in 50 values", len(nonces), len(values))
	}
}

func TestSealedByAnotherKey(t *testing.T) {
	t.Parallel()
	oldKey, newKey := NewKey(), NewKey()
	byOld := mustSeal(t, newRing(Keys{Current: oldKey}), testKey, 1, "one")

	err := wantUnreadable(t, newRing(Keys{Current: newKey}), testKey, 1, byOld, "new key alone")
	for _, want := range []string{"sealed with another key (id " + oldKey.ID() + ")", "old_key"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q doesn't say %q", err, want)
		}
	}

	both := newRing(Keys{Current: newKey, Old: []Key{NewKey(), oldKey}})
	wantOpen(t, both, testKey, 1, byOld, "one")
	byNew := mustSeal(t, both, testKey, 2, "two")
	wantOpen(t, newRing(Keys{Current: newKey}), testKey, 2, byNew, "two")
	wantUnreadable(t, newRing(Keys{Current: oldKey}), testKey, 2, byNew, "old key alone")

	// The name of another key on it doesn't make it that key's.
	renamed := bytes.Clone(byOld)
	copy(renamed[1:headerSize], byNew[1:headerSize])
	wantUnreadable(t, both, testKey, 1, renamed, "under another key's id")
}

func TestSealedWithoutKey(t *testing.T) {
	t.Parallel()
	k := NewKey()
	sealed := mustSeal(t, newRing(Keys{Current: k}), testKey, 1, "x")
	for name, r := range map[string]*ring{"no key": newRing(Keys{}), "an old key": newRing(Keys{Old: []Key{k, {}}})} {
		if got, err := r.seal(testKey, oauth.Entry{Generation: 1, Value: []byte("x")}); err == nil || got != nil {
			t.Errorf("%s: seal gave %q, %v", name, got, err)
		}
		// Zero bytes where the id would be must not find the zero Key.
		wantUnreadable(t, r, testKey, 1, append([]byte{sealByte}, make([]byte, 60)...), name+", key id 0")
	}
	wantUnreadable(t, newRing(Keys{}), testKey, 1, sealed, "no key")
	wantOpen(t, newRing(Keys{Old: []Key{k}}), testKey, 1, sealed, "x")
}

const canary = "Planted-Refresh-Token-0123456789"

// canaries are what a file must not contain: the planted token, and a key.
func canaries(k Key) []string {
	return []string{
		canary, hex.EncodeToString([]byte(canary)), base64.StdEncoding.EncodeToString([]byte(canary))[:40],
		string(k.secret()[:]), k.Text(),
	}
}

// TestNoPlaintextInFiles looks for a secret in every byte of the database, the
// spill and the marker.
func TestNoPlaintextInFiles(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	d := r.open()
	check := func(when string) {
		t.Helper()
		for _, path := range []string{r.place.Database, r.place.Spill, r.place.Instance} {
			for _, file := range under(t, path) {
				data := mustRead(t, file)
				for _, form := range canaries(r.keys.Current) {
					if bytes.Contains(data, []byte(form)) {
						t.Errorf("%s: %s contains %q", when, file, form)
					}
				}
			}
		}
	}
	mustSave(t, d, testKey, 1, canary)
	check("saved")
	mustSave(t, d, testKey, 2, strings.Repeat(canary, 3000))
	check("overwritten by a long one")
	mustSave(t, d, testKey, 3, canary)
	mustSave(t, d, testKey, 4, "short")
	check("overwritten by a short one")
	r.keys = Keys{Current: NewKey(), Old: []Key{r.keys.Current}}
	do(t, d.UseKeys(t.Context(), r.keys))
	_, err := d.Reseal(t.Context())
	do(t, err)
	check("sealed anew")
	do(t, d.Delete(t.Context(), testKey, 4))
	check("deleted")
	mustClose(t, d)
	check("closed")
}

// TestPlaintextIsFound has the files with nothing sealed in them: if the token
// weren't found there, the test above would see nothing.
func TestPlaintextIsFound(t *testing.T) {
	t.Parallel()
	b, s := newBolt(t), newSpill(t)
	check := func(when string, paths ...string) {
		t.Helper()
		for _, path := range paths {
			if !bytes.Contains(mustRead(t, path), []byte(canary)) {
				t.Errorf("%s: %s doesn't contain the value", when, path)
			}
		}
	}
	for g, value := range []string{canary, strings.Repeat(canary, 3000), canary} {
		mustSave(t, b, testKey, uint64(g)+1, value)
		do(t, s.save(testImage(testKey, uint64(g)+1, value)))
		check(fmt.Sprint("generation ", g+1), b.Path(), s.path)
	}
	do(t, b.Delete(t.Context(), testKey, 3))
	check("deleted", b.Path()) // the spill wipes it out
}

// under lists the files in a directory, or the path itself if it is a file.
func under(t *testing.T, path string) (files []string) {
	t.Helper()
	do(t, filepath.WalkDir(path, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	}))
	if len(files) == 0 {
		t.Errorf("there is nothing in %s", path)
	}
	return files
}

// golden is "value" of testKey in generation 7, sealed with patternKey. It must
// stay readable: stores out there hold such values.
const golden = "019ca0c3144d1f11dc2ec144f41c4c2b42bfc227fd0c9e751f8467a9b2d0f76152fb4726091f22ef3708"

func goldenRing(t testing.TB) (r *ring, sealed []byte) {
	t.Helper()
	sealed, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	return newRing(Keys{Current: patternKey(t)}), sealed
}

func TestSealedFormatStays(t *testing.T) {
	t.Parallel()
	r, sealed := goldenRing(t)
	wantOpen(t, r, testKey, 7, sealed, "value")
}

func TestUnseal(t *testing.T) {
	t.Parallel()
	_, sealed := goldenRing(t)
	e := oauth.Entry{Generation: 7, Value: sealed}
	for _, keys := range []Keys{{Current: patternKey(t)}, {Current: NewKey(), Old: []Key{patternKey(t)}}} {
		if value, err := Unseal(keys, testKey, e); err != nil || string(value) != "value" {
			t.Errorf("Unseal = %q, %v", value, err)
		}
	}
	if value, err := Unseal(Keys{Current: NewKey()}, testKey, e); !errors.Is(err, oauth.ErrUnreadable) || value != nil {
		t.Errorf("Unseal with another key = %q, %v", value, err)
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

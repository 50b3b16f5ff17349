package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// newSpill opens a new spill file, to be closed with the test.
func newSpill(t testing.TB) *spill {
	t.Helper()
	return reopenSpill(t, filepath.Join(t.TempDir(), "data", "tokens.db.spill"))
}

func reopenSpill(t testing.TB, path string) *spill {
	t.Helper()
	s, err := openSpill(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return s
}

func testImage(key oauth.Key, generation uint64, value string) image {
	return image{key: key, generation: generation, sequence: 100 + generation, value: []byte(value)}
}

// wantImages checks what a spill has of a key: the images as text, the newest
// first.
func wantImages(t testing.TB, s *spill, key oauth.Key, want ...image) {
	t.Helper()
	if got, want := describe(s.images(key)), describe(want); got != want {
		t.Fatalf("the images of %q are\n%swant\n%s", key, got, want)
	}
}

func describe(images []image) string {
	var b strings.Builder
	for _, im := range images {
		fmt.Fprintf(&b, "%q %d (%d): %d bytes, %.40q\n", im.key, im.generation, im.sequence, len(im.value), im.value)
	}
	return b.String()
}

func TestSpillIsDurable(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	path := s.path
	other := oauth.Key{Account: "pagero", User: "b\x00\xff"}
	id := storeID{1, 2, 3}
	do(t, s.setID(id))
	if disk := spillContent(t, s); !bytes.Equal(disk[:spillBlock], disk[spillHeaderAt[1]*spillBlock:][:spillBlock]) {
		t.Error("the two headers aren't the same")
	}
	one, two, three := testImage(testKey, 1, "one"), testImage(testKey, 2, "two"), testImage(testKey, 3, "three")
	theirs := testImage(other, 7, strings.Repeat("x", 9000))
	for _, im := range []image{one, two, theirs, three} {
		do(t, s.save(im))
	}
	for range 3 {
		wantImages(t, s, testKey, three, two)
		wantImages(t, s, other, theirs)
		wantImages(t, s, oauth.Key{Account: "pagero"})
		if got := s.keys(); !slices.Equal(got, []oauth.Key{testKey, other}) {
			t.Errorf("keys %q", got)
		}
		if s.id() != id || s.sequence() != 107 || s.damagedSlots() != 0 {
			t.Errorf("id %x, sequence %d, %d damaged", s.id(), s.sequence(), s.damagedSlots())
		}
		do(t, s.close())
		s = reopenSpill(t, path)
	}
}

func TestSpillConflicts(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	do(t, s.save(image{testKey, 5, 50, []byte("five")}))
	for _, old := range []image{{testKey, 4, 51, nil}, {testKey, 5, 49, nil}, {testKey, 0, 99, nil}, {oauth.Key{}, 0, 99, nil}} {
		if err := s.save(old); !errors.Is(err, oauth.ErrConflict) {
			t.Errorf("save of generation %d, sequence %d: %v", old.generation, old.sequence, err)
		}
	}
	again, later := image{testKey, 5, 51, []byte("again")}, image{testKey, 9, 3, []byte("later")}
	do(t, s.save(again))
	do(t, s.save(later))
	wantImages(t, s, testKey, later, again)
}

func TestSpillRemove(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	path := s.path
	secret := "a secret that is to go"
	for g := range uint64(5) { // outgrows its slots twice
		do(t, s.save(testImage(testKey, g+1, strings.Repeat(secret, 1+int(g*200)))))
	}
	kept := testImage(oauth.Key{Account: "kept"}, 1, "kept")
	do(t, s.save(kept))
	do(t, s.remove(testKey))
	do(t, s.remove(testKey)) // again, and it's no error
	wantImages(t, s, testKey)
	content, err := os.ReadFile(path)
	do(t, err)
	if bytes.Contains(content, []byte(secret)) || bytes.Contains(content, []byte(testKey.Account)) {
		t.Error("the file still has something of the removed key")
	}
	// The highest sequence was that of the removed key.
	do(t, s.close())
	s = reopenSpill(t, path)
	if s.sequence() != 105 || s.damagedSlots() != 0 {
		t.Errorf("sequence %d, %d damaged after a remove", s.sequence(), s.damagedSlots())
	}
	first := testImage(testKey, 1, "from the start")
	do(t, s.save(first))
	wantImages(t, s, testKey, first)
	wantImages(t, s, kept.key, kept)
}

func TestSpillLimits(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	longest := image{oauth.Key{User: strings.Repeat("k", longestDBKey-2)}, 1, 1, bytes.Repeat([]byte{9}, longestRecord-8)}
	do(t, s.save(longest))
	do(t, s.close())
	s = reopenSpill(t, s.path)
	wantImages(t, s, longest.key, longest)
	for _, im := range []image{
		{oauth.Key{User: longest.key.User + "k"}, 1, 1, nil},
		{testKey, 1, 1, append(longest.value, 1)},
	} {
		if err := s.save(im); err == nil || !strings.Contains(err.Error(), "too long") {
			t.Errorf("save of %d and %d bytes: %v", len(im.key.User), len(im.value), err)
		}
	}
	small := testImage(longest.key, 2, "small")
	do(t, s.save(small))
	if at := s.layout.entries[small.key].newest; at.blocks > 50 {
		t.Errorf("a small image takes %d blocks", at.blocks)
	}
	wantImages(t, s, small.key, small, longest)
}

func TestSpillClosed(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	do(t, s.save(testImage(testKey, 1, "one")))
	do(t, s.close())
	for what, err := range map[string]error{
		"save": s.save(testImage(testKey, 2, "")), "remove": s.remove(testKey), "setID": s.setID(storeID{}),
		"settle": s.settle(), "close": s.close(),
	} {
		if !errors.Is(err, oauth.ErrStoreClosed) {
			t.Errorf("%s after close: %v", what, err)
		}
	}
	if s.images(testKey) != nil || s.keys() != nil {
		t.Error("a closed spill has images")
	}
}

func TestSpillInUse(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	if _, err := openSpillFor(s.path, 50*time.Millisecond); !errors.Is(err, oauth.ErrStoreInUse) {
		t.Errorf("second opener: %v", err)
	}
	do(t, s.close())
	reopenSpill(t, s.path)
}

func TestSpillFirstOpenersRace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data", "spill")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s, err := openSpill(path)
			if err != nil {
				t.Error(err)
				return
			}
			if err := errors.Join(s.save(testImage(oauth.Key{User: fmt.Sprint(i)}, 1, "x")), s.close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := reopenSpill(t, path); len(s.keys()) != 4 {
		t.Errorf("keys %q after four openers", s.keys())
	}
	if names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(names) > 0 {
		t.Errorf("%q were left behind", names)
	}
}

func TestSpillConcurrentUse(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	var wg sync.WaitGroup
	for i := range 8 {
		key := oauth.Key{Account: "a", User: fmt.Sprint(i)}
		wg.Go(func() {
			for g := range uint64(10) {
				im := testImage(key, g+1, strings.Repeat(fmt.Sprint(g), int(g)*1000))
				if err := s.save(im); err != nil {
					t.Error(err)
				}
				if got := s.images(key); len(got) == 0 || describe(got[:1]) != describe([]image{im}) {
					t.Errorf("after the save of generation %d:\n%s", g+1, describe(got))
				}
				s.keys()
				s.sequence()
			}
			if i%2 == 0 {
				if err := s.remove(key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(s.keys()); got != 4 {
		t.Errorf("%d keys at the end, want 4", got)
	}
}

package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// breakFile puts another file under the open spill.
func breakFile(t *testing.T, s *spill, path string) {
	t.Helper()
	flag := os.O_RDWR
	if path == s.path {
		flag = os.O_RDONLY
	}
	other, err := os.OpenFile(path, flag, 0)
	do(t, err)
	unlockFile(s.file.File)
	do(t, syscall.Dup3(int(other.Fd()), int(s.file.Fd()), syscall.O_CLOEXEC))
	do(t, other.Close())
}

// TestSpillFailedWrite makes writes and syncs fail: the images from before
// stay, and the next call works again on the file opened anew.
func TestSpillFailedWrite(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"pwrite EBADF":     "", // the file, open for reading only
		"pwrite ENOSPC":    "/dev/full",
		"fdatasync EINVAL": "/dev/null",
	} {
		s := newSpill(t)
		if path == "" {
			path = s.path
		}
		id := storeID{1}
		do(t, s.setID(id))
		one, two, three := testImage(testKey, 1, "one"), testImage(testKey, 2, "two"), testImage(testKey, 3, "three")
		do(t, s.save(one))
		do(t, s.save(two))
		for what, call := range map[string]func() error{
			"save":   func() error { return s.save(three) },
			"new":    func() error { return s.save(testImage(oauth.Key{User: "new"}, 1, "new")) },
			"remove": func() error { return s.remove(testKey) },
			"setID":  func() error { return s.setID(storeID{2}) },
		} {
			breakFile(t, s, path)
			if err := call(); err == nil {
				t.Fatalf("%s: %s gave no error", name, what)
			}
			if !s.doubt {
				t.Fatalf("%s: after %s the file is still trusted", name, what)
			}
			wantImages(t, s, testKey, two, one)
			if s.id() != id || len(s.keys()) != 1 || s.damagedSlots() != 0 {
				t.Fatalf("%s: after %s: id %x, keys %q, %d damaged", name, what, s.id(), s.keys(), s.damagedSlots())
			}
		}
		do(t, s.save(three))
		wantImages(t, s, testKey, three, two)
	}
}

// TestSpillFailsOn has a file that can't be opened again after a failure.
func TestSpillFailsOn(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	one := testImage(testKey, 1, "one")
	do(t, s.save(one))
	away := s.path + ".away"
	breakFile(t, s, "/dev/full")
	do(t, os.Rename(s.path, away))
	for range 3 {
		if s.save(testImage(testKey, 2, "two")) == nil || s.settle() == nil || s.remove(testKey) == nil {
			t.Fatal("a call without a file gave no error")
		}
		if s.images(testKey) != nil || s.keys() != nil || s.sequence() != 101 {
			t.Fatalf("images and keys of a file that isn't there; sequence %d", s.sequence())
		}
	}
	do(t, os.WriteFile(s.path, spillContent(t, newSpill(t)), 0o600))
	if err := s.settle(); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("another file in its place: %v", err)
	}
	do(t, os.Rename(away, s.path))
	// What the failed calls wrote is written again before it counts.
	var again []run
	s.trace = func(b []byte, start int64) { again = append(again, run{start, int64(len(b)) / spillBlock}) }
	unsynced := slices.Clone(s.unsynced)
	do(t, s.settle())
	if n := len(unsynced); n == 0 || len(again) <= n || !slices.Equal(again[:n], unsynced) || again[n].blocks != 0 {
		t.Errorf("%v were in doubt, %v were written", unsynced, again)
	}
	wantImages(t, s, testKey, one)
}

// TestSpillOnFullDisk fills a file system to the brim: sessions that are known
// can be saved on and on, new ones can't, and one that goes makes room.
func TestSpillOnFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "small")
	do(t, os.Mkdir(dir, 0o700))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=700"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := reopenSpill(t, filepath.Join(dir, "spill"))
	last := map[oauth.Key]image{}
	for i := range 6 {
		im := testImage(oauth.Key{User: fmt.Sprint(i)}, 1, strings.Repeat("v", 2500))
		do(t, s.save(im))
		last[im.key] = im
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	do(t, err)
	if _, err := io.Copy(fill, neverEnding{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	do(t, fill.Close())
	for round := range 20 {
		for key, im := range last {
			im.generation++
			im.sequence++
			im.value = []byte(strings.Repeat(fmt.Sprint(round%10), 2400+50*round))
			do(t, s.save(im))
			last[key] = im
		}
		if round%5 == 4 {
			do(t, s.close())
			s = reopenSpill(t, s.path)
		}
	}
	known := len(last)
	var full error
	for i := 0; full == nil && i < 100; i++ {
		im := testImage(oauth.Key{User: fmt.Sprint("new", i)}, 1, strings.Repeat("n", 2500))
		if full = s.save(im); full == nil {
			last[im.key] = im
		}
	}
	if !errors.Is(full, syscall.ENOSPC) {
		t.Fatalf("new sessions on a full disk: %v after %d", full, len(last)-known)
	}
	if s.doubt {
		t.Error("a full disk raised doubt about the file")
	}
	do(t, s.remove(oauth.Key{User: "0"}))
	delete(last, oauth.Key{User: "0"})
	im := testImage(oauth.Key{User: "instead"}, 1, strings.Repeat("i", 2500))
	do(t, s.save(im))
	last[im.key] = im
	do(t, s.close())
	s = reopenSpill(t, s.path)
	for key, im := range last {
		if got := s.images(key); describe(newestOf(got)) != describe([]image{im}) {
			t.Errorf("%q has\n%s", key, describe(got))
		}
	}
}

// neverEnding gives bytes that aren't zero.
type neverEnding struct{}

func (neverEnding) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 0xff
	}
	return len(b), nil
}

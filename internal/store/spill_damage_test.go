package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// wantDamaged opens a file twice: the first opening reports so many damaged
// slots, the second finds the same images and nothing to complain about.
func wantDamaged(t *testing.T, dir string, disk []byte, damaged int, want ...image) {
	t.Helper()
	for range 2 {
		c := openContent(t, dir, disk)
		wantImages(t, c, testKey, want...)
		if got := c.damagedSlots(); got != damaged {
			t.Fatalf("%d damaged slots, want %d", got, damaged)
		}
		checkLayout(t, c.layout)
		disk, damaged = spillContent(t, c), 0
		do(t, c.close())
	}
}

func TestSpillFlippedBit(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := newSpill(t)
	one, two := testImage(testKey, 1, "one"), testImage(testKey, 2, "two")
	do(t, s.save(one))
	do(t, s.save(two))
	e := s.layout.entries[testKey]
	disk := spillContent(t, s)
	for i := range two.size() {
		flipped := bytes.Clone(disk)
		flipped[int(e.newest.start)*spillBlock+i] ^= 1 << (i % 8)
		wantDamaged(t, dir, flipped, 1, one)
	}
	flipped := bytes.Clone(disk)
	flipped[int(e.second.start)*spillBlock+50] ^= 1
	wantDamaged(t, dir, flipped, 1, two)
	flipped[int(e.newest.start)*spillBlock+50] ^= 1
	wantDamaged(t, dir, flipped, 2)
	flipped = bytes.Clone(disk)
	flipped[int(e.newest.start)*spillBlock+two.size()] ^= 1 // behind the image
	wantDamaged(t, dir, flipped, 0, two, one)
}

// TestSpillCutOff truncates a file in many places.
func TestSpillCutOff(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := newSpill(t)
	images := map[slot]image{}
	for _, user := range []string{"a", "b", "c", "d"} {
		im := testImage(oauth.Key{User: user}, 1, strings.Repeat(user, 9000))
		do(t, s.save(im))
		images[s.layout.entries[im.key].newest] = im
	}
	disk := spillContent(t, s)
	for cut := 2 * sector; cut < len(disk); cut += 5 * sector {
		c := openContent(t, dir, disk[:cut])
		for at, im := range images {
			whole := cut >= int(at.start)*spillBlock+im.size()
			if got := c.images(im.key); (len(got) == 1) != whole || whole && describe(got) != describe([]image{im}) {
				t.Fatalf("cut off at %d: the image at block %d is %s", cut, at.start, describe(got))
			}
		}
		do(t, c.save(testImage(testKey, 1, "goes on")))
		do(t, c.close())
	}
}

func TestSpillDamagedHeader(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	do(t, s.setID(storeID{5}))
	do(t, s.save(testImage(testKey, 1, "one")))
	disk := spillContent(t, s)
	second := spillHeaderAt[1] * spillBlock
	newer := bytes.Clone(disk)
	for _, at := range []int64{0, second} {
		h := s.header.encode()
		h[11]++
		resum(h)
		copy(newer[at:], h)
	}
	zeroed := bytes.Clone(disk)
	clear(zeroed[:spillExtent*spillBlock])
	path := filepath.Join(newDir(t), "spill")
	for name, c := range map[string]struct {
		content []byte
		damaged bool
		says    string
	}{
		"empty":              {nil, true, "empty"},
		"short":              {disk[:spillHeaderSize-1], true, "header"},
		"zeroed start":       {zeroed, true, "header"},
		"zeros":              {make([]byte, 1<<20), true, "header"},
		"text":               {[]byte("hello\n"), true, "header"},
		"of a newer release": {newer, false, "version 2"},
	} {
		do(t, os.WriteFile(path, c.content, 0o600))
		_, err := openSpill(path)
		if err == nil || errors.Is(err, errDamaged) != c.damaged || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if got, _ := os.ReadFile(path); !bytes.Equal(got, c.content) {
			t.Errorf("%s: the file was changed", name)
		}
		do(t, os.Remove(path))
	}
	for _, at := range []int64{0, second} { // one copy is enough
		lost := bytes.Clone(disk)
		clear(lost[at:][:spillBlock])
		wantDamaged(t, filepath.Dir(path), lost, 0, testImage(testKey, 1, "one"))
	}
}

// Of two headers that are whole the one written last counts.
func TestSpillHeadersDiffer(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	disk := spillContent(t, s)
	for i, at := range spillHeaderAt {
		newer := s.header
		newer.id, newer.count = storeID{9}, s.header.count+1
		changed := bytes.Clone(disk)
		copy(changed[at*spillBlock:], newer.encode())
		c := openContent(t, newDir(t), changed)
		if c.id() != newer.id {
			t.Errorf("header %d is newer: id %x", i, c.id())
		}
		do(t, c.close())
	}
}

// TestSpillHeadersApart looks at what is written between one sync and the next:
// never both headers.
func TestSpillHeadersApart(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	do(t, s.save(testImage(testKey, 1, "one")))
	window, syncs := map[int64]bool{}, 0
	s.trace = func(b []byte, start int64) {
		if b == nil {
			window = map[int64]bool{}
			syncs++
		} else if window[start] = true; window[spillHeaderAt[0]] && window[spillHeaderAt[1]] {
			t.Fatal("both headers were written without a sync between")
		}
	}
	do(t, s.setID(storeID{1}))
	do(t, s.remove(testKey))
	newer := s.header
	newer.id, newer.count = storeID{2}, newer.count+1
	do(t, s.writeHeader(&newer, 0)) // and the sync fails
	window, s.doubt = map[int64]bool{}, true
	do(t, s.settle())
	if s.id() != newer.id || syncs != 6 {
		t.Errorf("id %x, %d syncs", s.id(), syncs)
	}
}

// TestSpillOwnTornWrite has a save fail halfway: that is no damage to tell of.
func TestSpillOwnTornWrite(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	one, two := testImage(testKey, 1, "one"), testImage(testKey, 2, "two")
	do(t, s.save(one))
	spare := s.layout.entries[testKey].spare
	torn := encodeImage(&two, spare, s.header.salt)
	clear(torn[two.size()-1:])
	do(t, s.write(torn, spare.start))
	s.doubt = true
	wantImages(t, s, testKey, one)
	if s.damagedSlots() != 0 || s.layout.entries[testKey].spare != spare {
		t.Errorf("%d damaged, %+v", s.damagedSlots(), s.layout.entries[testKey])
	}
	do(t, s.save(two))
	wantImages(t, s, testKey, two, one)
}

// resum makes the checksum of a header right.
func resum(h []byte) {
	sum := headerHash(h)
	copy(h[spillHeaderSize-len(sum):], sum[:])
}

func TestSpillRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(path string) error
		says   string
	}{
		"link":      {func(path string) error { return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)) }, "symbolic link"},
		"directory": {func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "not a regular file"},
		"mode":      {func(path string) error { return os.Chmod(path, 0o640) }, "chmod 600"},
		"others":    {func(path string) error { return os.Chmod(filepath.Dir(path), 0o770) }, "chmod go-w"},
	} {
		if !hasModes && name != "directory" {
			continue
		}
		s := newSpill(t)
		do(t, s.close())
		do(t, c.change(s.path))
		_, err := openSpill(s.path)
		if err == nil || errors.Is(err, errDamaged) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSpillDamageInUse changes the file under an open spill.
func TestSpillDamageInUse(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	one, two, three := testImage(testKey, 1, "one"), testImage(testKey, 2, "two"), testImage(testKey, 3, "three")
	do(t, s.save(one))
	do(t, s.save(two))
	if _, err := s.file.WriteAt([]byte("?"), s.layout.entries[testKey].newest.start*spillBlock+90); err != nil {
		t.Fatal(err)
	}
	wantImages(t, s, testKey, one)
	if s.damagedSlots() != 1 {
		t.Errorf("%d damaged slots", s.damagedSlots())
	}
	do(t, s.save(three)) // in the place of the damaged one
	wantImages(t, s, testKey, three, one)
}

// badSectors is a file of which some blocks can't be read.
type badSectors struct {
	io.ReaderAt
	bad []run
}

func (f badSectors) ReadAt(b []byte, off int64) (int, error) {
	r := run{off / spillBlock, int64(len(b)) / spillBlock}
	if slices.ContainsFunc(f.bad, r.overlaps) {
		return 0, errors.New("bad sector")
	}
	return f.ReaderAt.ReadAt(b, off)
}

func TestSpillBadSectors(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	kept := testImage(oauth.Key{Account: "kept"}, 1, "kept")
	do(t, s.save(testImage(testKey, 1, "unreadable")))
	do(t, s.save(kept))
	lost := s.layout.entries[testKey].newest
	bad := []run{lost.run, {20, 3}}
	scan := scanSpill(badSectors{s.file, bad}, s.layout.blocks, s.header.salt)
	if !slices.Equal(scan.unreadable, bad) || len(scan.images) != 1 || scan.images[0].key != kept.key || len(scan.damaged) > 0 {
		t.Fatalf("unreadable %v, images %v, damaged %v", scan.unreadable, scan.images, scan.damaged)
	}
	s.layout, _ = arrange(s.layout.blocks, scan.images, scan.unreadable)
	s.unreadable = scan.unreadable
	checkLayout(t, s.layout, bad...)
	// The session goes, and what can't be read now must not be it one day.
	do(t, s.remove(testKey))
	checkLayout(t, s.layout)
	do(t, s.close())
	s = reopenSpill(t, s.path)
	wantImages(t, s, testKey)
	wantImages(t, s, kept.key, kept)
}

package store

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// TestSpillMisplaced has images that are whole, and not where they belong.
func TestSpillMisplaced(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s, other := newSpill(t), newSpill(t)
	one := testImage(testKey, 1, "one")
	do(t, s.save(one))
	do(t, other.save(testImage(testKey, 9, "of another file")))
	at := s.layout.entries[testKey].newest.start
	disk := spillContent(t, s)
	block := disk[at*spillBlock:][:spillBlock]
	moved := bytes.Clone(disk)
	copy(moved[(at+5)*spillBlock:], block)
	copy(moved[(at+6)*spillBlock:], block)
	wantDamaged(t, dir, moved, 2, one)
	foreign := bytes.Clone(disk)
	copy(foreign[at*spillBlock:], spillContent(t, other)[at*spillBlock:][:spillBlock])
	wantDamaged(t, dir, foreign, 1)
	// One that a name or a value pretends to be.
	forged := testImage(testKey, 99, "forged")
	im := image{oauth.Key{Account: "x"}, 1, 1, slices.Concat(make([]byte, spillBlock-spillImageSize-3),
		encodeImage(&forged, slot{run: run{at + 3, 1}}, other.header.salt))}
	do(t, s.save(im))
	inside := s.layout.entries[im.key].newest.start
	disk = spillContent(t, s)
	wantDamaged(t, dir, disk, 0, one)
	disk[inside*spillBlock] = 0 // the image around it no longer hides it
	wantDamaged(t, dir, disk, 2, one)
}

// TestSpillForged has images with the right hash that no spill has written.
func TestSpillForged(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	salt, disk := s.header.salt, spillContent(t, s)
	number := func(at, n int) func([]byte) { return func(b []byte) { binary.BigEndian.PutUint32(b[at:], uint32(n)) } }
	for name, c := range map[string]struct {
		at     slot
		change func(b []byte)
		short  bool
		fine   bool
	}{
		"nothing wrong":         {at: slot{run: run{3, 2}}, fine: true},
		"no blocks":             {at: slot{run: run{3, 2}}, change: number(24, 0)},
		"a third half":          {at: slot{run: run{3, 2}}, change: number(28, 2)},
		"generation 0":          {at: slot{run: run{3, 2}}, change: number(44, 0)},
		"longer than the slot":  {at: slot{run: run{3, 2}}, change: number(24, 1)},
		"over the other header": {at: slot{run: run{14, 2}}, short: true},
		"over the end":          {at: slot{run: run{31, 2}}, short: true},
		"not a key":             {at: slot{run: run{3, 2}}, change: func(b []byte) { b[spillImageSize+7] = 9 }},
	} {
		im := testImage(testKey, 1, strings.Repeat("x", spillBlock))
		if c.short {
			im.value = nil
		}
		b := encodeImage(&im, c.at, salt)
		if c.change != nil {
			c.change(b)
		}
		b = b[:im.size()]
		sum := imageHash(b)
		copy(b[spillHashAt:], sum[:])
		forged := bytes.Clone(disk)
		copy(forged[c.at.start*spillBlock:], b)
		o := openContent(t, newDir(t), forged)
		if got := len(o.keys()) == 1; got != c.fine {
			t.Errorf("%s: it is an image: %v", name, got)
		}
		do(t, o.close())
	}
}

// TestSpillStale has four images of one key: the two newest count, and the
// others must be gone for good.
func TestSpillStale(t *testing.T) {
	t.Parallel()
	s := newSpill(t)
	disk := spillContent(t, s)
	for g, start := range map[uint64]int64{1: 20, 2: 3, 3: 25, 4: 5} {
		im := testImage(testKey, g, "stale or not")
		copy(disk[start*spillBlock:], encodeImage(&im, slot{run: run{start, 1}}, s.header.salt))
	}
	c := openContent(t, newDir(t), disk)
	wantImages(t, c, testKey, testImage(testKey, 4, "stale or not"), testImage(testKey, 3, "stale or not"))
	do(t, c.remove(testKey))
	if bytes.Contains(spillContent(t, c), []byte("stale")) || c.damagedSlots() != 0 {
		t.Errorf("an image was left; %d damaged", c.damagedSlots())
	}
	do(t, c.close())
}

// TestSpillStaleSequence has the highest sequence in images that don't stay, as a
// disk leaves them that lied: the spill may not seem older the next time.
func TestSpillStaleSequence(t *testing.T) {
	t.Parallel()
	for name, stale := range map[string]int64{"of an image that is dropped": 2, "of the second": 8} {
		s := newSpill(t)
		disk := spillContent(t, s)
		for g, start := range map[uint64]int64{7: 20, 9: 25, uint64(stale): 5} {
			im := testImage(testKey, g, "x")
			if g == uint64(stale) {
				im.sequence = 1000
			}
			copy(disk[start*spillBlock:], encodeImage(&im, slot{run: run{start, 1}}, s.header.salt))
		}
		c := openContent(t, newDir(t), disk)
		do(t, c.save(testImage(testKey, 10, "the next")))
		first := c.sequence()
		do(t, c.close())
		c = reopenSpill(t, c.path)
		if first != 1000 || c.sequence() != 1000 {
			t.Errorf("%s: %d, and %d when it was opened again", name, first, c.sequence())
		}
		wantImages(t, c, testKey, testImage(testKey, 10, "the next"), testImage(testKey, 9, "x"))
	}
}

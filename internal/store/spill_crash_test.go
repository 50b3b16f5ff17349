package store

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func spillContent(t *testing.T, s *spill) []byte {
	t.Helper()
	b, err := os.ReadFile(s.path)
	do(t, err)
	return b
}

// openContent opens a spill file with this content.
func openContent(t *testing.T, dir string, content []byte) *spill {
	t.Helper()
	path := filepath.Join(dir, "copy")
	do(t, os.WriteFile(path, content, 0o600))
	s, err := openSpill(path)
	do(t, err)
	return s
}

func newDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "copies")
	do(t, os.Mkdir(dir, 0o700))
	return dir
}

const sector = 512

// TestSpillTornSave cuts every save short after each sector: what was there
// before must be found.
func TestSpillTornSave(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := newSpill(t)
	var last []image
	for g := range uint64(6) {
		before := spillContent(t, s)
		im := image{testKey, g + 1, g + 1, bytes.Repeat([]byte{byte(g + 1)}, []int{100, 2900, 2900, 10_000, 9000, 50}[g])}
		do(t, s.save(im))
		at := s.layout.entries[testKey].newest
		after := spillContent(t, s)[at.start*spillBlock : at.end()*spillBlock]
		last = append([]image{im}, last...)
		for cut := sector; cut <= len(after); cut += sector {
			// In the order of the file, and in the opposite one.
			for _, from := range []int{0, len(after) - cut} {
				torn := append(bytes.Clone(before), make([]byte, max(0, int(at.end())*spillBlock-len(before)))...)
				copy(torn[int(at.start)*spillBlock+from:], after[from:from+cut])
				c := openContent(t, dir, torn)
				got := c.images(testKey)
				want := last // the image is complete
				if describe(got[:min(1, len(got))]) != describe(last[:1]) {
					want = last[1:]
					if len(want) == 1 && len(got) == 1 || len(want) == 0 {
						want = want[:len(got)]
					}
				}
				if len(got) == 0 && g > 0 || describe(got) != describe(want[:len(got)]) {
					t.Fatalf("after sectors %d to %d of the save of generation %d:\n%s", from/sector, (from+cut)/sector, g+1, describe(got))
				}
				do(t, c.close())
			}
		}
	}
}

// disk is what a spill did to its file. Durable is what is on the disk for
// sure; the events since then are writes and, without bytes, syncs.
type disk struct {
	durable []byte
	events  []diskEvent
}

type diskEvent struct {
	bytes []byte
	start int64
}

func (d *disk) watch(s *spill) {
	s.trace = func(b []byte, start int64) {
		d.events = append(d.events, diskEvent{bytes.Clone(b), start * spillBlock})
	}
}

// crash returns what is on the disk after a power cut behind the first n events:
// what was synced, and of each write since then all, nothing, about every other
// sector, or what comes before some byte.
func (d *disk) crash(r *rand.Rand, n, length int) []byte {
	content := append(bytes.Clone(d.durable), make([]byte, max(0, length-len(d.durable)))...)
	synced := 0
	for i, e := range d.events[:n] {
		if e.bytes == nil {
			synced = i
		}
	}
	for i, e := range d.events[:n] {
		how := 0
		if i > synced {
			how = r.IntN(4)
		}
		switch how {
		case 0:
			copy(content[e.start:], e.bytes)
		case 1:
			copy(content[e.start:], e.bytes[:r.IntN(len(e.bytes))])
		case 2:
			for at := 0; at < len(e.bytes); at += sector {
				if r.IntN(2) == 0 {
					copy(content[int(e.start)+at:], e.bytes[at:at+sector])
				}
			}
		}
	}
	return content
}

// settle forgets the events before the last sync.
func (d *disk) settle(length int) {
	for i := len(d.events) - 1; i >= 0; i-- {
		if d.events[i].bytes == nil {
			rest := d.events[i+1:]
			d.durable, d.events = d.crash(nil, i+1, length), rest
			return
		}
	}
}

// TestSpillCrash lets a power cut happen in every step of a long random
// history, and another one in the opening that follows.
func TestSpillCrash(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	dir := newDir(t)
	s := newSpill(t)
	d := &disk{durable: spillContent(t, s)}
	d.watch(s)
	keys := []oauth.Key{{Account: "a"}, {Account: "a", User: "b"}, {Account: "c"}, {Account: "d"}}
	model := map[oauth.Key][]image{}
	for step := range uint64(30) {
		key, oldID := keys[r.IntN(len(keys))], s.id()
		old, id := model[key], oldID
		before := len(d.events)
		var now []image
		switch r.IntN(8) {
		case 0, 1:
			do(t, s.remove(key))
		case 2:
			id, now = storeID{byte(step)}, old
			do(t, s.setID(id))
		default:
			im := image{key: key, generation: 1, sequence: step, value: bytes.Repeat([]byte{byte(step + 1)}, r.IntN(2000)<<r.IntN(5))}
			if len(old) > 0 {
				im.generation += old[0].generation
			}
			do(t, s.save(im))
			now = append([]image{im}, newestOf(old)...)
		}
		length := len(spillContent(t, s))
		for range 4 {
			n := before + r.IntN(len(d.events)-before+1)
			all := n == len(d.events)
			crashTwice(t, r, dir, d.crash(r, n, length), func(c *spill) {
				for other, images := range model {
					if other != key {
						wantImages(t, c, other, images...)
					}
				}
				got := describe(newestOf(c.images(key)))
				if was, is := describe(newestOf(old)), describe(newestOf(now)); got != is && (all || got != was) {
					t.Fatalf("step %d: a crash after %d of %d writes left %s of %q, there was %s and to be %s",
						step, n-before, len(d.events)-before, got, key, was, is)
				}
				if got := c.id(); got != id && (all || got != oldID) {
					t.Fatalf("step %d: the id is %x, was %x and to be %x", step, got, oldID, id)
				}
			})
		}
		d.settle(length)
		if model[key] = now; now == nil {
			delete(model, key)
		}
		if r.IntN(4) == 0 {
			do(t, s.close())
			s = reopenSpill(t, s.path)
			d.durable, d.events = spillContent(t, s), nil
			d.watch(s)
		}
		for key, images := range model {
			wantImages(t, s, key, images...)
		}
		if len(s.keys()) != len(model) {
			t.Fatalf("step %d: keys %q, want %d", step, s.keys(), len(model))
		}
	}
}

func newestOf(images []image) []image { return images[:min(1, len(images))] }

// crashTwice opens what a crash left, lets a crash happen in that, and opens
// what that left.
func crashTwice(t *testing.T, r *rand.Rand, dir string, content []byte, check func(c *spill)) {
	t.Helper()
	path := filepath.Join(dir, "crashed")
	do(t, os.WriteFile(path, content, 0o600))
	d := &disk{durable: content}
	c := &spill{path: path}
	d.watch(c)
	do(t, c.open(time.Second))
	check(c)
	checkLayout(t, c.layout)
	length := len(spillContent(t, c))
	do(t, c.close())
	c = openContent(t, dir, d.crash(r, r.IntN(len(d.events)+1), length))
	check(c)
	checkLayout(t, c.layout)
	do(t, c.close())
}

// TestSpillTornHeader tears each of the header's copies while the id changes.
func TestSpillTornHeader(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := newSpill(t)
	im := testImage(testKey, 1, "one")
	do(t, s.save(im))
	before := spillContent(t, s)
	do(t, s.setID(storeID{7}))
	after := spillContent(t, s)
	for i, at := range spillHeaderAt {
		for cut := 0; cut < spillHeaderSize; cut += 3 {
			disk := bytes.Clone(before)
			if i == 1 {
				copy(disk, after[:spillBlock])
			}
			copy(disk[at*spillBlock:], after[at*spillBlock:][:cut])
			c := openContent(t, dir, disk)
			wantImages(t, c, testKey, im)
			if id := c.id(); i == 0 && id != (storeID{}) || i == 1 && id != (storeID{7}) {
				t.Fatalf("copy %d torn after %d bytes: id %x", i, cut, id)
			}
			mended := spillContent(t, c)
			if !bytes.Equal(mended[:spillBlock], mended[spillHeaderAt[1]*spillBlock:][:spillBlock]) {
				t.Fatalf("copy %d torn after %d bytes wasn't mended", i, cut)
			}
			do(t, c.close())
		}
	}
}

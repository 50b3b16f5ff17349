package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// checkLayout fails if two things use a block, or nothing does and it isn't
// free.
func checkLayout(t testing.TB, l *layout, unreadable ...run) {
	t.Helper()
	uses := make([]string, l.blocks)
	use := func(r run, by string) {
		for i := r.start; i < r.end(); i++ {
			if i < 0 || i >= l.blocks || uses[i] != "" {
				t.Fatalf("block %d of %d is %s and %s", i, l.blocks, uses[i], by)
			}
			uses[i] = by
		}
	}
	for _, at := range spillHeaderAt {
		use(run{at, 1}, "a header")
	}
	for _, r := range unreadable {
		use(r, "unreadable")
	}
	for i, r := range l.free {
		use(r, "free")
		if r.blocks < 1 || i > 0 && l.free[i-1].end() >= r.start {
			t.Fatalf("the free runs are %v", l.free)
		}
	}
	for key, e := range l.entries {
		use(e.newest.run, fmt.Sprint(key, " newest"))
		use(e.second.run, fmt.Sprint(key, " second"))
		use(e.spare.run, fmt.Sprint(key, " spare"))
		if e.spare.run == e.newest.mate() && e.spare.half == e.newest.half {
			t.Fatalf("%q has the same half twice: %+v", key, e)
		}
		if e.newest.generation == 0 || e.newest.newer(e.second) <= 0 || e.spare.generation != 0 {
			t.Fatalf("%q has %+v", key, e)
		}
	}
	if i := slices.Index(uses, ""); i >= 0 {
		t.Fatalf("block %d is neither used nor free", i)
	}
}

// TestSpillLayout lets many keys come, grow, shrink and go, sometimes on a full
// disk, and has the layout found again from the images alone after every step.
func TestSpillLayout(t *testing.T) {
	t.Parallel()
	refused, secondBest := 0, 0
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		l, _ := arrange(spillInitial, nil, nil)
		room := map[oauth.Key]int{} // size of an image that must have room whatever happens
		full := false
		for step := range 200 {
			if step%20 == 0 {
				full = r.IntN(3) == 0
			}
			key := oauth.Key{User: fmt.Sprint(r.IntN(12))}
			e, known := l.entries[key]
			if known && r.IntN(8) == 0 {
				delete(l.entries, key)
				delete(room, key)
				for _, s := range []slot{e.newest, e.second, e.spare} {
					if s.blocks > 0 {
						l.release(s.run)
					}
				}
			} else {
				im := &image{key: key, generation: e.newest.generation + 1, value: make([]byte, 1+r.IntN(3000)<<r.IntN(8))}
				switch enough, ok := placeOne(t, l, im, full); {
				case !ok && im.size() <= room[key]:
					t.Fatalf("seed %d, step %d: %d bytes have no room, %d were promised", seed, step, im.size(), room[key])
				case !ok:
					refused++
				case !enough:
					secondBest++
					room[key] = 0
				default:
					room[key] = im.size()
				}
			}
			checkLayout(t, l)
			l = foundAgain(t, l)
		}
	}
	if refused == 0 || secondBest == 0 {
		t.Errorf("%d images were refused, %d got the second best; want some of both", refused, secondBest)
	}
}

// placeOne does what save does, without a file. enough means that the image
// after this one has room, too; ok is false if there is no room for this one.
func placeOne(t *testing.T, l *layout, im *image, full bool) (enough, ok bool) {
	t.Helper()
	e, known := l.entries[im.key]
	blocks, frees := l.blocks, slices.Clone(l.free)
	p, missing := l.place(im)
	if l.blocks != blocks || !slices.Equal(l.free, frees) || l.entries[im.key] != e {
		t.Fatal("place changed the layout")
	}
	if missing > 0 && !full {
		l.grown((missing + spillExtent - 1) / spillExtent * spillExtent)
		if p, missing = l.place(im); missing > 0 {
			t.Fatal("the file grew and isn't large enough")
		}
	}
	if p.at.blocks == 0 {
		return false, false
	}
	if p.at.overlaps(e.newest.run) || !p.at.holds(int64(im.size())) {
		t.Fatalf("%d bytes were placed at %+v; there was %+v", im.size(), p.at, e)
	}
	l.placed(im.key, p)
	for _, r := range p.freed {
		l.release(r)
	}
	next := *im
	next.generation++
	if _, more := l.place(&next); more > 0 && missing == 0 {
		t.Fatalf("the next image of the same size has no room: %+v", l.entries[im.key])
	}
	if then := l.entries[im.key]; then.newest.generation != im.generation || known && then.second != e.newest {
		t.Fatalf("after %+v came %+v", e, then)
	}
	return missing == 0, true
}

// foundAgain returns the layout that an opening makes of the images; it must
// have the same and lose no room.
func foundAgain(t *testing.T, l *layout) *layout {
	t.Helper()
	var images []found
	for key, e := range l.entries {
		for _, s := range []slot{e.newest, e.second} {
			if s.blocks > 0 {
				images = append(images, found{s, key})
			}
		}
	}
	again, stale := arrange(l.blocks, images, nil)
	checkLayout(t, again)
	if len(stale) > 0 || again.blocks != l.blocks || len(again.entries) != len(l.entries) {
		t.Fatalf("%d blocks, %d keys, stale %v; want %d, %d", again.blocks, len(again.entries), stale, l.blocks, len(l.entries))
	}
	for key, e := range l.entries {
		f := again.entries[key]
		if f.newest != e.newest || f.second != e.second {
			t.Fatalf("%q has %+v, found again as %+v", key, e, f)
		}
		if room := max(f.spare.blocks, f.second.blocks); room < min(e.newest.blocks, max(e.spare.blocks, e.second.blocks)) {
			t.Fatalf("%q had room in %+v, found again as %+v", key, e, f)
		}
	}
	return again
}

// TestSpillArrange has images that can't all be right.
func TestSpillArrange(t *testing.T) {
	t.Parallel()
	a, b := oauth.Key{User: "a"}, oauth.Key{User: "b"}
	at := func(start, blocks int64, half int, generation, sequence uint64) slot {
		return slot{run{start, blocks}, half, generation, sequence}
	}
	for name, c := range map[string]struct {
		images     []found
		unreadable []run
		want       map[oauth.Key]entry
		stale      []run
	}{
		"nothing": {},
		"the older ones are stale": {
			images: []found{{at(1, 1, 0, 4, 1), a}, {at(2, 1, 1, 7, 1), a}, {at(5, 2, 0, 5, 1), a}, {at(9, 1, 0, 3, 1), a}, {at(11, 1, 0, 6, 1), a}},
			want:   map[oauth.Key]entry{a: {newest: at(2, 1, 1, 7, 1), second: at(11, 1, 0, 6, 1), spare: at(1, 1, 0, 0, 0)}},
			stale:  []run{{1, 1}, {5, 2}, {9, 1}},
		},
		"the sequence decides between equal generations": {
			images: []found{{at(1, 1, 0, 4, 9), a}, {at(2, 1, 1, 4, 8), a}, {at(3, 1, 0, 4, 10), a}},
			want:   map[oauth.Key]entry{a: {newest: at(3, 1, 0, 4, 10), second: at(1, 1, 0, 4, 9), spare: at(4, 1, 1, 0, 0)}},
			stale:  []run{{2, 1}},
		},
		"two want the same spare": {
			images: []found{{at(3, 1, 0, 1, 1), a}, {at(5, 1, 1, 1, 1), b}},
			want:   map[oauth.Key]entry{a: {newest: at(3, 1, 0, 1, 1), spare: at(4, 1, 1, 0, 0)}, b: {newest: at(5, 1, 1, 1, 1)}},
		},
		"a spare outside of the file, or over a header": {
			images: []found{{at(1, 3, 1, 1, 1), a}, {at(30, 2, 0, 1, 1), b}},
			want:   map[oauth.Key]entry{a: {newest: at(1, 3, 1, 1, 1)}, b: {newest: at(30, 2, 0, 1, 1)}},
		},
		"a spare over the second header": {
			images: []found{{at(13, 2, 0, 1, 1), a}, {at(16, 2, 1, 1, 1), b}},
			want:   map[oauth.Key]entry{a: {newest: at(13, 2, 0, 1, 1)}, b: {newest: at(16, 2, 1, 1, 1)}},
		},
		"a spare that can't be read": {
			images:     []found{{at(4, 2, 0, 1, 1), a}},
			unreadable: []run{{7, 1}},
			want:       map[oauth.Key]entry{a: {newest: at(4, 2, 0, 1, 1)}},
		},
	} {
		l, stale := arrange(spillInitial, c.images, c.unreadable)
		slices.SortFunc(stale, func(a, b run) int { return int(a.start - b.start) })
		for key, e := range l.entries {
			want := c.want[key]
			if e != want {
				t.Errorf("%s: %q has %+v, want %+v", name, key, e, want)
			}
		}
		if len(l.entries) != len(c.want) || !slices.Equal(stale, c.stale) {
			t.Errorf("%s: keys %v, stale %v, want %v", name, slices.Collect(maps.Keys(l.entries)), stale, c.stale)
		}
		checkLayout(t, l, c.unreadable...)
	}
}

// A session whose images have become small gives up its large slots, but the
// file doesn't grow for that.
func TestSpillLayoutShrinks(t *testing.T) {
	t.Parallel()
	l, _ := arrange(spillInitial, nil, nil)
	l.grown(2 * spillExtent)
	big, small := &image{key: testKey, generation: 1, value: make([]byte, 60_000)}, &image{key: testKey, generation: 2}
	placeOne(t, l, big, true)
	free := l.free
	l.free = nil
	if p, missing := l.place(small); missing > 0 || !p.at.holds(60_000) {
		t.Errorf("with nothing free a small image goes to %+v, missing %d", p.at, missing)
	}
	l.free = free
	if p, missing := l.place(small); missing > 0 || p.at.blocks != 1 {
		t.Errorf("a small image goes to %+v, missing %d", p.at, missing)
	}
}

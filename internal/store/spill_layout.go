package store

import (
	"cmp"
	"maps"
	"slices"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// run is a number of blocks in a row.
type run struct{ start, blocks int64 }

func (r run) end() int64 { return r.start + r.blocks }

func (r run) overlaps(s run) bool { return r.start < s.end() && s.start < r.end() }

// slot is a run for one image, which is the one with this generation and
// sequence; none if the generation is 0.
type slot struct {
	run
	half                 int
	generation, sequence uint64
}

func (s slot) holds(size int64) bool { return s.blocks*spillBlock >= size }

// mate returns the other slot of the pair.
func (s slot) mate() run {
	if s.half == 0 {
		return run{s.end(), s.blocks}
	}
	return run{s.start - s.blocks, s.blocks}
}

// newer compares by generation, then by sequence.
func (s slot) newer(t slot) int {
	return cmp.Or(cmp.Compare(s.generation, t.generation), cmp.Compare(s.sequence, t.sequence))
}

// slotBlocks returns how large a new slot for an image of this size is made:
// larger by a quarter, at least by 1 KiB, because it is to fit the next images
// of the key, too.
func slotBlocks(size int64) int64 {
	return (size + max(size/4, 1024) + spillBlock - 1) / spillBlock
}

// entry is what belongs to one key. A slot with no blocks isn't there.
type entry struct {
	newest slot // always there
	second slot // the image before
	spare  slot // empty; its generation is 0
}

// layout says what is where in a spill file. It is in memory only and knows
// nothing of files, so that each decision can be tested by itself.
type layout struct {
	blocks  int64 // length of the file
	entries map[oauth.Key]entry
	free    []run // in order, none adjacent, all zero in the file
}

// placing is the decision where an image goes, and what follows from that.
type placing struct {
	at    slot // with the generation and sequence of the image
	fresh run  // both slots if they are new, else no blocks
	then  entry
	freed []run // no longer in use once the image is durable
}

// place decides where the next image of a key goes: never over the newest, and
// without taking more of the file if one of the key's own slots will do. If
// nothing that is free will, missing says by how many blocks the file must grow;
// p is second best then, and may have no blocks.
func (l *layout) place(im *image) (p placing, missing int64) {
	size := int64(im.size())
	old := l.entries[im.key]
	own := old.spare
	if !own.holds(size) {
		own = old.second
	}
	next := false // whether the image after this one has room, too
	if own.holds(size) {
		p = old.reuse(own, im)
		next = p.then.second.holds(size) || p.then.spare.holds(size)
	}
	want := slotBlocks(size)
	// A slot that is much too large is written in full at every save.
	if next && own.blocks <= 8*want {
		return p, 0
	}
	if i := slices.IndexFunc(l.free, func(r run) bool { return r.blocks >= 2*want }); i >= 0 {
		return old.move(run{l.free[i].start, 2 * want}, im), 0
	}
	if next {
		return p, 0
	}
	missing = 2 * want
	if n := len(l.free); n > 0 && l.free[n-1].end() == l.blocks {
		missing -= l.free[n-1].blocks
	}
	return p, missing
}

// reuse places an image in own, the spare or the second slot.
func (e entry) reuse(own slot, im *image) placing {
	wasSecond := own.run == e.second.run
	own.generation, own.sequence = im.generation, im.sequence
	p := placing{at: own, then: entry{newest: own, second: e.newest, spare: e.spare}}
	if !wasSecond {
		p.then.spare = slot{}
		p.free(e.second)
	}
	return p
}

// move places an image in a new pair of slots.
func (e entry) move(pair run, im *image) placing {
	half := pair.blocks / 2
	at := slot{run{pair.start, half}, 0, im.generation, im.sequence}
	p := placing{at: at, fresh: pair, then: entry{
		newest: at,
		second: e.newest,
		spare:  slot{run: run{pair.start + half, half}, half: 1},
	}}
	p.free(e.second)
	p.free(e.spare)
	return p
}

func (p *placing) free(s slot) {
	if s.blocks > 0 {
		p.freed = append(p.freed, s.run)
	}
}

// placed takes over what place decided, but for the freed runs.
func (l *layout) placed(key oauth.Key, p placing) {
	if p.fresh.blocks > 0 {
		l.take(p.fresh)
	}
	l.entries[key] = p.then
}

// take makes a run, all of it at the start of a free one, no longer free.
func (l *layout) take(r run) {
	i, _ := l.find(r.start)
	if l.free[i].blocks == r.blocks {
		l.free = slices.Delete(l.free, i, i+1)
		return
	}
	l.free[i].start += r.blocks
	l.free[i].blocks -= r.blocks
}

// release makes a run free, and one with its neighbours.
func (l *layout) release(r run) {
	i, _ := l.find(r.start)
	if i < len(l.free) && r.end() == l.free[i].start {
		r.blocks += l.free[i].blocks
		l.free = slices.Delete(l.free, i, i+1)
	}
	if i > 0 && l.free[i-1].end() == r.start {
		l.free[i-1].blocks += r.blocks
		return
	}
	l.free = slices.Insert(l.free, i, r)
}

func (l *layout) find(start int64) (int, bool) {
	return slices.BinarySearchFunc(l.free, start, func(r run, start int64) int { return cmp.Compare(r.start, start) })
}

// grown makes the file longer.
func (l *layout) grown(blocks int64) {
	l.release(run{l.blocks, blocks})
	l.blocks += blocks
}

// roomy reports whether an extent is free in one piece.
func (l *layout) roomy() bool {
	return slices.ContainsFunc(l.free, func(r run) bool { return r.blocks >= spillExtent })
}

// sequence is the highest of the newest images.
func (l *layout) sequence() (highest uint64) {
	for _, e := range l.entries {
		highest = max(highest, e.newest.sequence)
	}
	return highest
}

func (l *layout) keys() []oauth.Key {
	return slices.SortedFunc(maps.Keys(l.entries), func(a, b oauth.Key) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.User, b.User))
	})
}

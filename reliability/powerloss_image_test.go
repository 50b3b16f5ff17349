//go:build linux

package reliability

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// sector is what a disk writes all or nothing.
const sector = 512

// A cut says where the power goes away, and what the disk makes of what it
// wasn't told to keep.
type cut struct {
	at   int
	seed uint64
	// keep says what becomes of a sector with writes that were not synced.
	keep keep
	// anyName keeps any of the pending changes of names; otherwise the first few
	// in order, as journaling file systems do.
	anyName bool
	// lies are the nodes for which no sync that begins at lieFrom or later has
	// any effect, if lieFrom is set; liar names them.
	lieFrom int
	liar    string
	lies    func(node any) bool
}

type keep int

const (
	keepNone    keep = iota // the old one
	keepAll                 // the newest one, as after a mere crash
	keepSome                // one or the other
	keepMost                // nine times of ten the newest
	keepFew                 // one time of ten the newest
	keepAny                 // also one in between
	keepWrites              // some of the writes, each of them whole
	manyOfKeeps             // how many there are
)

// image writes what the disk has after the cut, below an empty directory.
func (d *disk) image(root string, c cut) error {
	rng := rand.New(rand.NewPCG(c.seed, 1))
	names := map[*diskDir]map[string]any{}
	of := func(dir *diskDir) map[string]any {
		if names[dir] == nil {
			names[dir] = map[string]any{}
			maps.Copy(names[dir], dir.base)
		}
		return names[dir]
	}
	for _, n := range d.namesLeft(c, rng) {
		for _, e := range n.entries {
			e.apply(of)
		}
	}
	return writeDir(root, d.root, of, func(f *diskFile) []byte { return f.content(c, rng) })
}

func writeDir(path string, d *diskDir, names func(*diskDir) map[string]any, content func(*diskFile) []byte) error {
	entries := names(d)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		switch node := entries[name].(type) {
		case *diskDir:
			sub := filepath.Join(path, name)
			errs = append(errs, os.Mkdir(sub, 0o700), writeDir(sub, node, names, content))
		case *diskFile:
			errs = append(errs, os.WriteFile(filepath.Join(path, name), content(node), 0o600))
		}
	}
	return errors.Join(errs...)
}

// synced reports whether what ended at a place was durable at the cut.
func (c cut) synced(node any, end int, syncs []period) bool {
	return slices.ContainsFunc(syncs, func(s period) bool {
		lied := c.lieFrom > 0 && s.begin >= c.lieFrom && c.lies(node)
		return s.begin >= end && s.end < c.at && !lied
	})
}

// namesLeft are the changes of names that the cut leaves.
func (d *disk) namesLeft(c cut, rng *rand.Rand) []nameChange {
	var kept []nameChange
	pending := 0
	durable := func(n nameChange) bool {
		return !slices.ContainsFunc(n.entries, func(e dirEntry) bool { return !c.synced(e.dir, n.end, e.dir.syncs) })
	}
	for _, n := range d.names {
		if n.begin < c.at && !durable(n) {
			pending++
		}
	}
	first := rng.IntN(pending + 1)
	for _, n := range d.names {
		if n.begin >= c.at {
			break
		}
		if !durable(n) {
			if first--; c.anyName && rng.IntN(2) == 0 || !c.anyName && first < 0 {
				continue
			}
		}
		kept = append(kept, n)
	}
	return kept
}

// content is what the cut leaves of a file.
func (f *diskFile) content(c cut, rng *rand.Rand) []byte {
	b, size := slices.Clone(f.base), len(f.base)
	var pending []change
	for _, ch := range f.changes {
		switch {
		case ch.begin >= c.at:
		case c.synced(f, ch.end, f.syncs):
			b = ch.apply(b, 0, ch.reach(len(b)))
			size = int(ch.size)
		default:
			pending = append(pending, ch)
		}
	}
	touched := map[int][]change{} // by sector
	for _, ch := range pending {
		if c.keep == keepWrites && rng.IntN(2) == 0 {
			continue
		}
		from := int(ch.offset)
		if ch.data == nil {
			from = int(ch.size)
		}
		for s := from / sector; s*sector < ch.reach(len(b)); s++ {
			touched[s] = append(touched[s], ch)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(touched)) {
		for _, ch := range touched[s][:c.keep.of(len(touched[s]), rng)] {
			b = ch.apply(b, s*sector, (s+1)*sector)
		}
	}
	// The size is written apart from the data: the old one, or one of those since.
	if n := c.keep.of(len(pending), rng); n > 0 {
		size = int(pending[n-1].size)
	}
	return append(b, make([]byte, max(0, size-len(b)))...)[:size]
}

// of says how many of the writes to one sector, in order, are on the disk.
func (k keep) of(writes int, rng *rand.Rand) int {
	share := map[keep]float64{keepAll: 1, keepWrites: 1, keepSome: 0.5, keepMost: 0.9, keepFew: 0.1}
	if k == keepAny {
		return rng.IntN(writes + 1)
	}
	if rng.Float64() < share[k] {
		return writes
	}
	return 0
}

// reach is the end of the bytes that a change has to do with.
func (ch change) reach(length int) int {
	if ch.data == nil {
		return max(length, int(ch.size))
	}
	return int(ch.offset) + len(ch.data)
}

// apply makes the change in b, as far as it lies between two places. Sizes are
// not kept: b grows as needed, with zeros.
func (ch change) apply(b []byte, from, to int) []byte {
	if end := min(to, ch.reach(len(b))); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	if ch.data == nil {
		clear(b[min(max(int(ch.size), from), len(b)):min(to, len(b))])
		return b
	}
	start := int(ch.offset)
	low, high := max(from, start), min(to, start+len(ch.data))
	if low < high {
		copy(b[low:high], ch.data[low-start:high-start])
	}
	return b
}

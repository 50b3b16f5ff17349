package store

import (
	"cmp"
	"slices"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// found is a slot with a whole image in it.
type found struct {
	slot
	key oauth.Key
}

// arrange makes the layout of a file in which these images were found, and
// which can't be read in other places. Of each key the two newest count; what
// else there is, is stale, and free.
func arrange(blocks int64, images []found, unreadable []run) (l *layout, stale []run) {
	l = &layout{blocks: blocks, entries: make(map[oauth.Key]entry)}
	for _, im := range images {
		e := l.entries[im.key]
		switch s := im.slot; {
		case s.newer(e.newest) > 0:
			e.newest, e.second, s = s, e.newest, e.second
			stale = appendRun(stale, s)
		case s.newer(e.second) > 0:
			e.second, s = s, e.second
			stale = appendRun(stale, s)
		default:
			stale = appendRun(stale, s)
		}
		l.entries[im.key] = e
	}
	l.arrangeRest(unreadable)
	return l, stale
}

func appendRun(runs []run, s slot) []run {
	if s.blocks > 0 {
		runs = append(runs, s.run)
	}
	return runs
}

// used is a run that isn't free, and the key whose newest image needs the other
// slot of its pair, if it has one.
type used struct {
	slot
	key  oauth.Key
	want bool
}

// arrangeRest finds the spare slots and the free runs again, in one pass over
// what is used in the order of the file. A spare that something else is in the
// way of, which takes two faults, is none: the next save finds other room.
func (l *layout) arrangeRest(unreadable []run) {
	var taken []used
	for _, at := range spillHeaderAt {
		taken = append(taken, used{slot: slot{run: run{at, 1}}})
	}
	for _, r := range unreadable {
		taken = append(taken, used{slot: slot{run: r}})
	}
	for key, e := range l.entries {
		mated := e.second.run == e.newest.mate()
		taken = append(taken, used{e.newest, key, !mated})
		if e.second.blocks > 0 {
			taken = append(taken, used{slot: e.second})
		}
	}
	slices.SortFunc(taken, func(a, b used) int { return cmp.Compare(a.start, b.start) })
	end := int64(0) // of what is known to be used
	for i, u := range taken {
		next := l.blocks
		if i+1 < len(taken) {
			next = min(next, taken[i+1].start)
		}
		begin, after := u.start, u.end()
		if mate := u.mate(); u.want && (u.half == 1 && mate.start >= end || u.half == 0 && mate.end() <= next) {
			begin, after = min(begin, mate.start), max(after, mate.end())
			e := l.entries[u.key]
			e.spare = slot{run: mate, half: 1 - u.half}
			l.entries[u.key] = e
		}
		if begin > end {
			l.free = append(l.free, run{end, begin - end})
		}
		end = max(end, after)
	}
	if l.blocks > end {
		l.free = append(l.free, run{end, l.blocks - end})
	}
}

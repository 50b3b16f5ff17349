//go:build linux

package reliability

import (
	"fmt"
	"maps"
	"slices"
)

// lies counts cuts after which a disk had lied.
type lies struct {
	cuts    int
	missing int // something acknowledged was missing
	alarm   int // and the store took itself for another one, or called the entry damaged
	said    int // or told the operator of something that it mended
	back    int // nothing was missing, but what had been deleted was there again
	untrue  int // alarm though nothing was missing
}

func (l *lies) add(missing, back, alarm, said bool) {
	l.cuts++
	switch {
	case missing:
		l.missing++
		if alarm {
			l.alarm++
		} else if said {
			l.said++
		}
	case back:
		l.back++
	case alarm:
		l.untrue++
	}
}

// liars are the files that a disk ignores the syncs of; all of them and the
// directories, too, if there are none.
var liars = map[string][]string{
	"everything":              nil,
	"the database":            {"tokens.db"},
	"the spill":               {"tokens.db.spill"},
	"the database, the spill": {"tokens.db", "tokens.db.spill"},
}

// drawLies chooses a cut after which it turns out that the disk ignored syncs
// from some place on.
func (rig *powerRig) drawLies(d *disk) cut {
	c := rig.draw(d)
	c.lieFrom = 1 + rig.rng.IntN(c.at)
	names := slices.Sorted(maps.Keys(liars))
	c.liar = names[rig.rng.IntN(len(names))]
	var nodes []any
	for _, name := range liars[c.liar] {
		nodes = append(nodes, d.find("data", "caddy", "bearer", name))
	}
	c.lies = func(node any) bool { return nodes == nil || slices.Contains(nodes, node) }
	return c
}

// dishonest checks what a disk that lied about syncs has after a cut: the store
// opens, and every session is as it was at some time. If one is older than what
// was acknowledged, the store should take itself for another one, so that spent
// refresh tokens aren't used again.
func (rig *powerRig) dishonest(d *disk, c cut) []saved {
	rig.Helper()
	v := rig.view(d, c.at)
	o, err := rig.reopenTwice()
	missing, back := false, false
	alarm := v.instance != "" && o.instance != v.instance
	for k, is := range o.is {
		if err == nil && !rig.was[k][is] && is != unreadable {
			err = fmt.Errorf("%q is %+v, which it never was", powerKeys[k], is)
		}
		switch {
		case is == v.is[k] || v.under[k] && is == v.next[k]:
		case v.is[k].generation == 0:
			back = true
		default:
			missing = true
		}
		alarm = alarm || is == unreadable
	}
	if err != nil {
		rig.broken(d, c, err)
		return nil
	}
	rig.count(d, c)
	switch {
	case v.instance == "": // nothing was said before
	default:
		if rig.figures.lies == nil {
			rig.figures.lies = map[string]*lies{}
			for name := range liars {
				rig.figures.lies[name] = &lies{}
			}
		}
		rig.figures.lies[c.liar].add(missing, back, alarm, o.said)
	}
	return o.is
}

//go:build linux

package reliability

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"
)

var (
	cuts      = flag.Int("cuts", 150, "how many power cuts the tests of power loss simulate, each")
	powerSeed = flag.Uint64("powerseed", 0, "seed of the power cuts; 0 is a new one")
)

// TestF07PowerLossAtAnyWrite cuts the power all along a life, with enough -cuts
// between any two system calls: while a store is made, written, closed and opened
// again, from nothing and from what a cut has left.
func TestF07PowerLossAtAnyWrite(t *testing.T) {
	t.Parallel()
	rig := newPowerRig(t)
	perLife, i := max(*cuts/3, 1), 0
	rig.powerCuts(*cuts, perLife, func(d *disk) cut {
		c := rig.draw(d)
		c.at = 1 + i%perLife*d.end/perLife
		i++
		return c
	}, rig.honest)
	if t.Failed() {
		return
	}
	t.Logf("F07: severity 0; %s", rig.report())
}

// TestG05PowerLoss cuts the power at places by chance.
func TestG05PowerLoss(t *testing.T) {
	t.Parallel()
	rig := newPowerRig(t)
	rig.powerCuts(*cuts, 15, rig.draw, rig.honest)
	if t.Failed() {
		return
	}
	t.Logf("G5: %s", rig.report())
}

// TestF08DiskLiesAboutFsync cuts the power of a disk that ignores syncs.
func TestF08DiskLiesAboutFsync(t *testing.T) {
	t.Parallel()
	rig := newPowerRig(t)
	rig.powerCuts(*cuts, 15, rig.drawLies, rig.dishonest)
	if t.Failed() {
		return
	}
	f, sum := rig.figures, lies{}
	for _, name := range slices.Sorted(maps.Keys(f.lies)) {
		l := f.lies[name]
		t.Logf("lies about %s: %d cuts; acknowledged saves were missing after %d: alarm after %d, otherwise said after %d; deleted sessions back after %d; %d false alarms",
			name, l.cuts, l.missing, l.alarm, l.said, l.back, l.untrue)
		sum.missing, sum.alarm, sum.said = sum.missing+l.missing, sum.alarm+l.alarm, sum.said+l.said
	}
	t.Logf("F08: severity 2; %d cuts: it always opened and never served what had not been saved; acknowledged saves were missing after %d, noticed after %d of them",
		f.cuts, sum.missing, sum.alarm+sum.said)
}

// report says what was done, if nothing was lost.
func (rig *powerRig) report() string {
	f := rig.figures
	return fmt.Sprintf("%d power cuts in %d lives, before each up to %d acknowledged saves and deletions, %d in all: 0 lost; %d times a file had to be set aside",
		f.cuts, rig.life, f.most, f.acknowledged, f.renamed)
}

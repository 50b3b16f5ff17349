//go:build linux

package reliability

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// A saved is what a session may be in the store: generation 0 is absent.
type saved struct {
	life       int
	generation uint64
}

// unreadable is a session with an entry that says of itself that it is damaged.
var unreadable = saved{life: -1}

// A powerRig cuts the power of one life of the store after the other. Each goes
// on with what the last one left on the disk.
type powerRig struct {
	*testing.T
	root  string // everything is below it, always at the same path
	spare string // for a copy of what a cut left
	key   store.Key
	rng   *rand.Rand

	life     int
	before   int // files that were set aside before the last cut
	instance string
	is       []saved          // what each session is, as far as it was acknowledged
	was      []map[saved]bool // whatever each session may have been at any time
	figures  powerFigures
}

type powerFigures struct {
	cuts, acknowledged, most int
	renamed                  int // cuts after which a file was set aside
	lies                     map[string]*lies
}

func newPowerRig(t *testing.T) *powerRig {
	needStrace(t)
	// In memory: what counts is what strace saw, and a real disk makes one wait.
	dir := t.TempDir()
	if shm, err := os.MkdirTemp("/dev/shm", "powerloss-*"); err == nil {
		dir = shm
		t.Cleanup(func() { _ = os.RemoveAll(shm) })
	}
	seed := *powerSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-powerseed %d", seed)
	rig := &powerRig{
		T: t, root: filepath.Join(dir, "root"), spare: filepath.Join(dir, "spare"), key: store.NewKey(),
		rng: rand.New(rand.NewPCG(seed, 0)), is: make([]saved, len(powerKeys)), was: make([]map[saved]bool, len(powerKeys)),
	}
	for k := range rig.was {
		rig.was[k] = map[saved]bool{{}: true}
	}
	rig.fresh(rig.root)
	return rig
}

// fresh makes an empty directory.
func (rig *powerRig) fresh(dir string) {
	rig.Helper()
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		rig.Fatal(err)
	}
}

// live records one life that begins with what is on the disk now. Now and then
// another process came first and was killed, so that its last changes are neither
// durable nor gone.
func (rig *powerRig) live() *disk {
	rig.Helper()
	d, err := newDisk(rig.root)
	if err != nil {
		rig.Fatal(err)
	}
	processes := []int{0}
	if rig.rng.IntN(2) == 0 {
		processes = []int{1 + rig.rng.IntN(40), 0}
	}
	for _, dies := range processes {
		rig.life++
		calls := record(rig.T, rig.root, dies, childKey+"="+rig.key.Text(),
			childLife+"="+strconv.Itoa(rig.life), childSaves+"=60", childDies+"="+strconv.Itoa(dies))
		if err := d.replay(rig.root, calls); err != nil {
			rig.Fatal(err)
		}
	}
	return d
}

// A view is what a cut in a life makes of the sessions: what was acknowledged
// and what was under way.
type view struct {
	is, next []saved
	under    []bool // next is under way
	instance string
}

func (rig *powerRig) view(d *disk, at int) view {
	v := view{is: slices.Clone(rig.is), next: make([]saved, len(rig.is)), under: make([]bool, len(rig.is)), instance: rig.instance}
	for _, m := range d.messages {
		if m.begin >= at {
			break
		}
		word, rest, _ := strings.Cut(m.text, " ")
		if word == "instance" {
			v.instance = rest
		}
		if word != "try" && word != "ack" {
			continue
		}
		var k int
		var s saved
		if _, err := fmt.Sscan(rest, &k, &s.life, &s.generation); err != nil {
			rig.Fatal(m.text)
		}
		if s.generation == 0 {
			s.life = 0
		}
		v.next[k], v.under[k] = s, word == "try"
		rig.was[k][s] = true
		if word == "ack" {
			v.is[k] = s
		}
	}
	return v
}

// draw chooses a cut: anywhere, but often enough while the store is opened,
// which is a small part of a life.
func (rig *powerRig) draw(d *disk) cut {
	at := 1 + rig.rng.IntN(d.end)
	if rig.rng.IntN(4) == 0 {
		opened := slices.IndexFunc(d.messages, func(m message) bool { return m.text == "open" })
		at = 1 + rig.rng.IntN(d.messages[opened].begin)
	}
	return cut{at: at, seed: rig.rng.Uint64(), keep: keep(rig.rng.IntN(int(manyOfKeeps))), anyName: rig.rng.IntN(2) == 0}
}

// powerCuts cuts the power n times, so often in each life, and looks at what is
// left with check, which returns what the sessions are.
func (rig *powerRig) powerCuts(n, perLife int, draw func(*disk) cut, check func(d *disk, c cut) []saved) {
	rig.Helper()
	for rig.figures.cuts < n {
		d := rig.live()
		type outcome struct {
			cut
			is []saved
		}
		var all []outcome
		for range min(perLife, n-rig.figures.cuts) {
			c := draw(d)
			rig.put(d, c)
			is := check(d, c)
			if rig.Failed() {
				return
			}
			all = append(all, outcome{c, is})
			rig.figures.cuts++
		}
		if rig.rng.IntN(4) == 0 { // or with a new disk
			rig.fresh(rig.root)
			rig.is, rig.instance = make([]saved, len(powerKeys)), ""
			continue
		}
		// One of them is where the next life begins: the disk as the cut left it.
		o := all[rig.rng.IntN(len(all))]
		v := rig.view(d, o.at)
		rig.put(d, o.cut)
		rig.is, rig.instance = o.is, v.instance
		if o.lieFrom > 0 {
			rig.instance = "" // what it says next is news
		}
	}
}

// put makes the files what a cut leaves of them.
func (rig *powerRig) put(d *disk, c cut) {
	rig.Helper()
	rig.fresh(rig.root)
	if err := d.image(rig.root, c); err != nil {
		rig.Fatal(err)
	}
	rig.before = rig.setAside()
}

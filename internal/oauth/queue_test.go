package oauth

import (
	"math/rand/v2"
	"testing"
	"time"
)

// queued is a queue with an item due at each instant, and its sessions.
func queued(times ...instant) (*queue, []*Session) {
	q, all := newQueue(), []*Session{}
	for _, t := range times {
		s := &Session{}
		s.item = queueItem{session: s, index: -1}
		q.set(&s.item, t)
		all = append(all, s)
	}
	return q, all
}

func TestQueueGoesByEitherClock(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	before := at(time.Hour, time.Hour) // set before the wall clock jumped
	for _, tt := range []struct {
		name string
		now  instant
		due  bool
	}{
		{"neither", at(time.Hour-1, time.Hour-1), false},
		{"both", before, true},
		{"the wall clock went back a day: by the monotonic one", at(time.Hour-day, time.Hour), true},
		{"the wall clock went back 10 years", at(time.Hour-3650*day, time.Hour), true},
		{"the wall clock went on, or the machine slept", at(day, lookAround), true},
		{"the same, but before the time to look around", at(day, lookAround-1), false},
	} {
		q, _ := queued(before)
		due, next := q.due(tt.now)
		if (len(due) == 1) != tt.due || len(due) == len(q.items) {
			t.Errorf("%s: %d due, %d left", tt.name, len(due), len(q.items))
		}
		if next <= 0 || next > lookAround {
			t.Errorf("%s: the next look is in %v", tt.name, next)
		}
	}
}

// What was set before the wall clock went back doesn't stand in front of what
// was set after.
func TestQueueOrderAfterAJump(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	q, all := queued(at(time.Hour, time.Hour), at(-day+2*time.Second, 2*time.Second), at(day, time.Second))
	for i, want := range []*Session{all[2], all[1], all[0]} {
		mono := []time.Duration{time.Second, 2 * time.Second, time.Hour}[i]
		if due, _ := q.due(at(mono-day, mono)); len(due) != 1 || due[0] != want {
			t.Errorf("%v: %d due, or another one", mono, len(due))
		}
	}
}

// A look at 10,000 sessions, once a minute, costs next to nothing; and what it
// leaves is a heap.
func TestQueueLooksAroundAmong10000(t *testing.T) {
	t.Parallel()
	const n = 10_000
	var times []instant
	for i := range n {
		d := time.Duration(1+rand.IntN(1e6)) * time.Hour
		wall := d
		if i%10 == 0 {
			wall = 0 // the clock went on
		}
		times = append(times, at(wall, d))
	}
	q, _ := queued(times...)
	begin := time.Now()
	due, _ := q.due(at(time.Minute, lookAround))
	took := time.Since(begin)
	if len(due) != n/10 || len(q.items) != n-n/10 {
		t.Errorf("%d due, %d left", len(due), len(q.items))
	}
	last := time.Duration(0)
	for i, it := range append(queueHeap(nil), q.items...) {
		if it.index != i || q.items[i] != it {
			t.Fatalf("item %d thinks that it is %d", i, it.index)
		}
	}
	for len(q.items) > 0 {
		first := q.items[0].at.mono
		if first < last {
			t.Fatalf("%v after %v", first, last)
		}
		last = first
		q.set(q.items[0], instant{})
	}
	begin = time.Now()
	q, _ = queued(times...)
	set := time.Since(begin)
	q.due(at(0, lookAround))
	begin = time.Now()
	q.due(at(0, 2*lookAround))
	t.Logf("a look that finds %d of %d: %v; one that finds none: %v; setting all: %v", n/10, n, took, time.Since(begin), set)
}

func TestAnchor(t *testing.T) {
	t.Parallel()
	day, year := 24*time.Hour, 365*24*time.Hour
	for _, tt := range []struct {
		name        string
		stored, now time.Duration // by the wall clock
		wait        time.Duration
	}{
		{"to come", time.Minute, 0, time.Minute},
		{"over", 0, day, 0},
		{"long over", 0, 10 * year, 0},
		{"further ahead than it can be: a wrong clock's", day, 0, time.Hour},
		{"ten years ahead", 10 * year, 0, time.Hour},
	} {
		var a anchor
		now := at(tt.now, 0)
		if wait := -now.sub(a.instant(someTime.Add(tt.stored), time.Hour, now)); wait != tt.wait {
			t.Errorf("%s: in %v, want %v", tt.name, wait, tt.wait)
		}
	}
	var a anchor
	first := a.instant(someTime.Add(time.Minute), time.Hour, at(0, 0))
	for _, jump := range []time.Duration{-10 * year, -day, 0} {
		if again := a.instant(someTime.Add(time.Minute), time.Hour, at(jump, 30*time.Second)); again != first {
			t.Errorf("the wall clock moves it from %v to %v", first, again)
		}
	}
	if other := a.instant(someTime.Add(2*time.Minute), time.Hour, at(0, 0)); other == first {
		t.Error("another time has the same instant")
	}
}

func TestEarliestAndLatest(t *testing.T) {
	t.Parallel()
	a, b := at(time.Hour, time.Second), at(time.Minute, time.Minute)
	if got := earliest(a, b); got != at(time.Minute, time.Second) || got != earliest(b, a) {
		t.Errorf("earliest: %v", got)
	}
	if got := latest(a, b); got != at(time.Hour, time.Minute) || got != latest(b, a) {
		t.Errorf("latest: %v", got)
	}
}

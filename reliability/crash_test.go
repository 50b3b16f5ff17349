//go:build linux

package reliability

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	crashRuns    = flag.Int("runs", 0, "how many kills a goal's test makes; 0 is each point once")
	crashWorkers = flag.Int("workers", 2, "how many processes are killed at the same time")
	crashTable   = flag.String("table", "", "file for the results of the goals, in Markdown")
	crashPoint   = flag.String("point", "", "kill at this one only")
)

// A goal says what may become of sessions that are killed.
type goal struct {
	name, grant string
	grace       time.Duration
	// check says what is wrong with an outcome.
	check func(outcome) string
}

// With a grace for spent tokens, no kill loses a session.
func TestG01KillsWithGrace(t *testing.T) {
	goal{"G1: grace 30 s", "refresh_token", 30 * time.Second, func(out outcome) string {
		if out.lost && out.crash.finds != noStore {
			return "the session is lost"
		}
		return ""
	}}.pursue(t)
}

// With a password, no kill needs a person, and a login follows only where the
// refresh token is gone.
func TestG02KillsWithPassword(t *testing.T) {
	goal{"G2: no grace, password", "password", 0, func(out outcome) string {
		may := out.unavoidable
		if out.crash.signin {
			may++
		}
		switch {
		case out.lost:
			return "a person is needed"
		case out.logins > may:
			return fmt.Sprintf("%d logins, %d may be", out.logins, may)
		}
		return ""
	}}.pursue(t)
}

// With nothing else, exactly those sessions are lost whose current token is
// nowhere but in the server.
func TestG03KillsWithNothingElse(t *testing.T) {
	goal{"G3: no grace, nothing else", "refresh_token", 0, func(out outcome) string {
		switch {
		case out.crash.finds == noStore:
		case out.lost != out.last:
			return fmt.Sprintf("lost is %t, unavoidable %t", out.lost, out.last)
		case out.lost && !out.losing():
			return "the session is lost outside of W2 and W3"
		}
		return ""
	}}.pursue(t)
}

// losing reports whether a run's refresh died in W2 or W3.
func (out outcome) losing() bool {
	if out.crash.after != "" {
		return crashAt(out.crash.after).window.losing() || out.seen.losing()
	}
	return out.crash.window.losing() || out.seen.losing()
}

// plan returns the crashes of the runs: first each of them, then any. With the
// default, what happens while a process starts is left to one of the goals: it
// is the same for all.
func (g goal) plan() (list []crash) {
	able := slices.DeleteFunc(slices.Clone(crashes), func(c crash) bool {
		return c.never != "" || c.signin && g.grant != "password" || *crashPoint != "" && !strings.HasPrefix(c.name(), *crashPoint)
	})
	if *crashRuns == 0 {
		return slices.DeleteFunc(able, func(c crash) bool { return c.window == starting && c.after == "" && g.grace == 0 })
	}
	rand.Shuffle(len(able), func(i, j int) { able[i], able[j] = able[j], able[i] })
	list = slices.Clone(able)
	for len(list) < *crashRuns && len(able) > 0 {
		c := able[rand.IntN(len(able))]
		if c.window == starting && c.finds == "" && c.after == "" && rand.IntN(2) == 0 {
			if first := able[rand.IntN(len(able))]; !first.signin && first.window != starting && first.window != stopping && first.window != reloaded && first.window != anywhere {
				c.after = first.point
			}
		}
		if rand.IntN(8) == 0 {
			c = crashAt("a random moment")
		}
		list = append(list, c)
	}
	return list[:min(len(list), *crashRuns)]
}

// pursue runs a goal's crashes, several at a time, and reports.
func (g goal) pursue(t *testing.T) {
	if testing.Short() {
		t.Skip("it kills processes over and over")
	}
	var mu sync.Mutex
	var all []outcome
	failures := 0
	work := make(chan crash)
	benches := make([]*bench, *crashWorkers)
	for i := range benches {
		benches[i] = newBench(t, g.grant, g.grace)
	}
	begun := time.Now()
	var workers sync.WaitGroup
	for _, b := range benches {
		workers.Go(func() {
			for c := range work {
				out, err := b.run(c)
				for again := 0; err == nil && !out.landed && again < 2; again++ {
					out, err = b.run(c) // the refresh was one with another, which began earlier
				}
				problem := g.check(out)
				if err != nil {
					problem = err.Error()
				} else if !out.landed {
					problem = "the point was not reached"
				}
				mu.Lock()
				all = append(all, out)
				if problem != "" {
					failures++
					t.Errorf("%s (%s): %s\n%+v\n%s", c.name(), c.window, problem, out, history(b))
				}
				mu.Unlock()
				if problem == "" {
					continue
				}
				if err := b.restart(); err != nil {
					t.Errorf("no further runs here: %v", err)
					for range work {
					}
				}
			}
		})
	}
	for _, c := range g.plan() {
		mu.Lock()
		enough := failures >= 8
		mu.Unlock()
		if enough {
			t.Error("no further runs")
			break
		}
		work <- c
	}
	close(work)
	workers.Wait()
	took := time.Since(begun)
	text, sum := table(g.name, all, failures, took)
	t.Logf("%s, %d runs of %v: %d kills, %d logins (%d because the refresh token was revoked, %d without a store), %d lost, %d unavoidable",
		g.name, sum.runs, (took / time.Duration(max(sum.runs, 1))).Round(time.Millisecond), sum.kills, sum.logins, sum.revoked, sum.anew, sum.lost, sum.unavoidable)
	if *crashTable != "" {
		keepTable(t, text)
	} else if testing.Verbose() {
		t.Log("\n" + text)
	}
}

// restart brings a bench back to a good session after a run that went wrong.
func (b *bench) restart() error {
	_ = b.kill(9)
	b.mu.Lock()
	b.hold = nil
	b.mu.Unlock()
	if err := b.arm(""); err != nil {
		return err
	}
	if err := b.victim.start(); err != nil {
		return err
	}
	if _, err := b.answer(); err != nil {
		return err
	}
	return b.mend()
}

// history is what the server saw lately.
func history(b *bench) string {
	var s strings.Builder
	events := b.Events()
	for _, e := range events[max(0, len(events)-12):] {
		fmt.Fprintf(&s, "%d %s %s %s presented=%s issued=%s status=%d %s committed=%t\n", e.Seq, e.Kind, e.Grant, e.Path, e.Presented, e.Issued, e.Status, e.Error, e.Committed)
	}
	return s.String() + string(b.log())
}

package reliability

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	soakFor   = flag.Duration("soak", 20*time.Second, "how long TestSoak calls the proxy and breaks things")
	soakSeed  = flag.Uint64("soak-seed", 0, "seed of TestSoak's faults; 0: a new one")
	soakTable = flag.String("soak-table", "", "file for TestSoak's result as a Markdown table")
)

// A soak breaks things while callers call.
type soak struct {
	*soakProxy
	random  *rand.Rand
	calls   *soakCalls
	begin   time.Time
	windows []*soakWindow
	slowest time.Duration // recovery
	after   string        // the fault that it was from
}

// TestSoak calls the API through the proxy for -soak while tokens live 2 s and
// things break at random: what the sandboxes logged, and every failed request,
// must be explained by what was broken, and the process must stay as small as
// it was (goal G18).
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 20 s")
	}
	seed := *soakSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-soak-seed %d", seed)
	strict, graceful := soakServers(t)
	s := &soak{soakProxy: newSoakProxy(t, strict, graceful), random: rand.New(rand.NewPCG(seed, 0))}
	s.start()
	s.login("moved", "", "one", "moved")
	s.login("people", "ada", "two", "ada")
	s.login("people", "alan", "three", "alan")

	s.calls = &soakCalls{dir: s.dir}
	s.begin = time.Now()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	var samples []soakSample
	running.Go(func() { s.calls.run(ctx) })
	running.Go(func() { samples = s.sample(ctx, *soakFor/90) })
	running.Go(func() { s.settle(ctx) })
	s.breakThings()
	lasted := time.Since(s.begin)
	stop()
	running.Wait()
	s.stop(syscall.SIGTERM)
	strict.settle(true)
	graceful.settle(true)
	s.report(samples, lasted)
}

// settle keeps the sandboxes' events until ctx ends.
func (s *soak) settle(ctx context.Context) {
	for ctx.Err() == nil {
		s.strict.settle(false)
		s.graceful.settle(false)
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

// breakThings plays one fault after the other, each followed by a quiet time
// that begins when all sessions have a new token. Restarts are in the first
// quarter only, so that the rest shows whether one process stays small.
func (s *soak) breakThings() {
	most := min(max(*soakFor/40, 700*time.Millisecond), 8*time.Second)
	var faults, restarts []soakFault
	restart := false
	for s.quiet(most); time.Since(s.begin) < *soakFor-3*time.Second; s.quiet(most) {
		restart = !restart && time.Since(s.begin) < *soakFor/4-time.Second
		deck, all := &faults, s.faults
		if restart {
			deck, all = &restarts, s.restarts
		}
		if len(*deck) == 0 { // each once before any comes again
			*deck = all()
			s.random.Shuffle(len(*deck), func(i, j int) { (*deck)[i], (*deck)[j] = (*deck)[j], (*deck)[i] })
		}
		f := (*deck)[0]
		*deck = (*deck)[1:]
		if !s.play(f, 200*time.Millisecond+time.Duration(s.random.Int64N(int64(most)))) {
			return
		}
	}
}

// quiet is a time without faults; it fails the test if the process is gone.
func (s *soak) quiet(most time.Duration) {
	s.Helper()
	time.Sleep(200*time.Millisecond + time.Duration(s.random.Int64N(int64(most))))
	if s.ended() {
		s.Fatalf("the process has ended\n%s", s.logTail(40))
	}
}

// soakRecovery is how long a session may take after the end of a fault. Pauses
// are 30 s at most; it is 2 min at a server that answers probes but no requests.
const soakRecovery = 155 * time.Second // 2 min where a probe misleads, and a pause

// play breaks a thing, mends it, and waits until all is well. It returns false
// if that never happens.
func (s *soak) play(f soakFault, d time.Duration) bool {
	w := &soakWindow{kind: f.kind, excuses: f.excuses, begin: time.Now(), over: map[string]time.Time{}}
	s.windows = append(s.windows, w)
	f.play(d)
	w.end = time.Now()
	for time.Since(w.end) < soakRecovery {
		time.Sleep(100 * time.Millisecond)
		now := time.Now()
		for _, name := range append(s.strict.answeredSince(w.end), s.graceful.answeredSince(w.end)...) {
			if w.over[name].IsZero() {
				w.over[name] = now
			}
		}
		if len(w.over) == len(soakSessions) && s.calls.goodSince(w.end) {
			if took := now.Sub(w.end); took > s.slowest {
				s.slowest, s.after = took, f.kind
			}
			return true
		}
		if s.ended() {
			break
		}
	}
	s.Errorf("no recovery from %s of %s: new tokens since for %v\n%s", f.kind, w.begin.Format("15:04:05.000"),
		slices.Sorted(maps.Keys(w.over)), s.logTail(40))
	return false
}

// report judges, and tells the result in one line.
func (s *soak) report(samples []soakSample, lasted time.Duration) {
	explained, unexplained := s.check(s.T, s.calls.failures, s.windows)
	first, last := flat(s.T, samples, s.begin, *soakFor)
	s.panics()
	rotations, replays, logins, wrong := 0, 0, 0, 0
	for _, server := range []*soakServer{s.strict, s.graceful} {
		v := server.judge(s.kills)
		rotations, replays, logins, wrong = rotations+v.rotations, replays+v.replays, logins+v.logins, wrong+len(v.wrong)
		for i, w := range v.wrong {
			if i < 10 {
				s.Errorf("%s%s%s", w.text, server.around(w.at, w.at), s.logAround(w.at, w.at))
			}
		}
	}
	kinds := map[string]int{}
	for _, w := range s.windows {
		kinds[w.kind]++
	}
	var faults []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		faults = append(faults, fmt.Sprintf("%d %s", kinds[kind], kind))
	}
	if least := int(lasted / time.Second); rotations < least { // 4 sessions, about one in 1.6 s each
		s.Errorf("only %d rotations", rotations)
	}
	head := "| duration | rotations | requests | callers left | faults | slowest recovery | replays, logins after a lost answer | unexplained losses | failed requests explained, unexplained | size in the 2nd quarter | size in the last |"
	row := fmt.Sprintf("| %v | %d | %d | %d | %d: %s | %.1f s (%s) | %d, %d | %d | %d, %d | %v | %v |", lasted.Round(time.Second), rotations,
		s.calls.requests.Load(), s.calls.left.Load(), len(s.windows), strings.Join(faults, ", "), s.slowest.Seconds(), s.after,
		replays, logins, wrong, explained, unexplained, first, last)
	s.Logf("%s", row)
	s.Logf("G18: %v: %d rotations, %d requests, %d faults of %d kinds, %d unexplained losses, %d unexplained failures; in the 2nd quarter %v, in the last %v",
		lasted.Round(time.Second), rotations, s.calls.requests.Load(), len(s.windows), len(kinds), wrong, unexplained, first, last)
	if *soakTable != "" {
		table := head + "\n" + strings.Repeat("|---", strings.Count(head, "|")-1) + "|\n" + row + "\n"
		if err := os.WriteFile(*soakTable, []byte(table), 0o644); err != nil {
			s.Error(err)
		}
	}
}

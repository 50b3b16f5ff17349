package oauth

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCircuit(t *testing.T) {
	t.Parallel()
	fault := Answer{Outcome: Lost, Status: 500}
	unsent := Answer{Outcome: NotTried}
	open := func() circuit {
		var c circuit
		for range circuitAfter {
			c = c.after(fault, false, false, at(0, 0))
		}
		return c
	}
	misled := func(times int) circuit {
		c := open()
		for range times {
			c = c.after(fault, false, true, at(0, 0))
		}
		return c
	}
	tests := []struct {
		name string
		c    circuit
		now  time.Duration
		want step
	}{
		{"nothing happened: attempt", circuit{}, 0, stepAttempt},
		{"three failures: attempt", circuit{}.after(fault, false, false, at(0, 0)).after(fault, false, false, at(0, 0)).after(fault, false, false, at(0, 0)), 0, stepAttempt},
		{"four failures: probe", open(), time.Second, stepProbe},
		{"further requests of a flight are no failures of their own", circuit{failures: 3}.after(fault, true, false, at(0, 0)), 0, stepAttempt},
		{"half open, failed: wait", open().after(fault, false, true, at(0, 0)), circuitFirst - 1, stepWait},
		{"half open, failed, 15 s ago: probe", open().after(fault, false, true, at(0, 0)), circuitFirst, stepProbe},
		{"half open, failed again: wait twice as long", open().after(fault, false, true, at(0, 0)).after(fault, false, true, at(0, 0)), 2*circuitFirst - 1, stepWait},
		{"half open, failed ten times: wait 2 min", misled(10), circuitFloor - 1, stepWait},
		{"half open, failed ten times, 2 min ago: probe", misled(10), circuitFloor, stepProbe},
		{"an attempt without a probe failed: probe", open().after(fault, false, false, at(0, 0)), time.Second, stepProbe},
		{"probes fail for 5 min: attempt", open(), circuitBlind, stepAttempt},
		{"nothing was sent: attempt, it probes itself", circuit{failures: 9}.after(unsent, false, false, at(0, 0)), time.Second, stepAttempt},
		{"a request was lost: that isn't unsent", circuit{failures: 9}.after(Answer{Outcome: Lost}, false, false, at(0, 0)), time.Second, stepProbe},
		{"nothing was sent, a minute after a request failed: probe", open().after(unsent, false, false, at(0, 0)), time.Minute, stepProbe},
		{"nothing was sent, 2 min after: attempt", open().after(unsent, false, false, at(0, 0)), circuitFloor, stepAttempt},
		{"an unusable answer is a failure", circuit{failures: 3}.after(Answer{Outcome: Unusable, Status: 200}, false, false, at(0, 0)), time.Second, stepProbe},
		{"granted: attempt", open().after(Answer{Outcome: Granted, Status: 200}, false, true, at(0, 0)), 0, stepAttempt},
		{"a refusal: it lives", open().after(Answer{Outcome: ProbablyDead, Status: 400}, false, true, at(0, 0)), 0, stepAttempt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.c.next(at(tt.now, tt.now)); got != tt.want {
				t.Errorf("step %d, want %d: %+v", got, tt.want, tt.c)
			}
		})
	}
	failed := open().after(fault, false, true, at(0, 0))
	if failed.next(at(24*time.Hour, time.Second)) == stepWait || failed.next(at(-24*time.Hour, circuitFloor)) == stepWait {
		t.Error("a wall clock that jumps lengthens the wait")
	}
}

func TestCircuitAlive(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]bool{
		200: true, 302: true, 400: true, 401: true, 403: false, 404: true, 405: true, 429: false, 500: false, 501: false, 503: false,
	} {
		c := circuit{}.after(Answer{Outcome: Away, Status: 403}, false, false, at(0, 0))
		if got := c.alive(status); got != want {
			t.Errorf("%d after 403: alive is %v, want %v", status, got, want)
		}
	}
}

func TestCircuitPause(t *testing.T) {
	t.Parallel()
	half := circuit{failures: 5, notBefore: at(circuitFloor, circuitFloor)}
	for _, tt := range []struct {
		name        string
		c           circuit
		retryAfter  time.Duration
		least, most time.Duration
	}{
		{"open", circuit{failures: 9}, 0, 0, 30 * time.Second},
		{"half open, failed", half, 0, circuitFloor, circuitFloor + 30*time.Second},
		{"Retry-After is longer", half, 5 * time.Minute, 5 * time.Minute, 5*time.Minute + 3*time.Second},
		{"Retry-After is shorter", half, time.Second, circuitFloor, circuitFloor + 30*time.Second},
	} {
		for _, random := range []float64{0, 0.5, 0.999} {
			if got := tt.c.pause(9, tt.retryAfter, random, at(0, 0)); got < tt.least || got > tt.most {
				t.Errorf("%s: %v, want within %v and %v", tt.name, got, tt.least, tt.most)
			}
		}
	}
}

// An hour of a server that is away, decided without any server: whatever the
// probe says, no more than 40 requests leave.
func TestCircuitHour(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer Answer
		alive  bool
	}{
		"the probe tells":         {Answer{Outcome: Lost, Status: 503}, false},
		"the probe doesn't tell":  {Answer{Outcome: Lost, Status: 500}, true},
		"only the connection":     {Answer{Outcome: Lost}, true},
		"something in between":    {Answer{Outcome: Away, Status: 403}, circuit{status: 403}.alive(403)},
		"an unusable answer each": {Answer{Outcome: Unusable, Status: 200}, true},
	} {
		for _, random := range []float64{0, 0.01, 0.5, 0.999} {
			var c circuit
			sent, failures := 3, 0 // the quick replays of the first one
			for now := time.Duration(0); now < time.Hour; {
				probed := false
				s := c.next(at(now, now))
				if s == stepProbe && tt.alive {
					s, probed = stepAttempt, true
				}
				if s == stepAttempt {
					sent++
					c = c.after(tt.answer, false, probed, at(now, now))
				}
				failures++
				now += c.pause(failures, 0, random, at(now, now)) + 10*time.Millisecond
			}
			if sent > 40 || sent < 10 {
				t.Errorf("%s, random %v: %d requests in an hour", name, random, sent)
			}
		}
	}
}

// Thousands of users who wait for one server cost it one probe at a time, and
// one in probeHolds.
func TestProbesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, asked := time.Now(), 0
		var mu sync.Mutex
		c := &Client{TokenEndpoint: "http://as.test/token", Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			mu.Lock()
			asked++
			mu.Unlock()
			time.Sleep(time.Second)
			return &http.Response{StatusCode: 503, Body: http.NoBody}, nil
		})}
		now := func() instant { return instant{time.Now().Round(0), time.Since(begin)} }
		var p prober
		var work sync.WaitGroup
		for i := range 5000 {
			work.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond) // 50 s in all
				if status, detail, _ := p.probe(t.Context(), c, now); status != 503 || detail != "" {
					t.Errorf("status %d, detail %q", status, detail)
				}
			})
		}
		work.Wait()
		if asked < 24 || asked > 26 { // each takes 1 s and counts for 1 s
			t.Errorf("%d probes in 50 s", asked)
		}

		// Who can't wait for another's probe goes away.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		time.Sleep(time.Minute)
		go p.probe(t.Context(), c, now)
		synctest.Wait()
		if _, detail, _ := p.probe(ctx, c, now); detail == "" {
			t.Error("an answer came from nowhere")
		}
		time.Sleep(time.Minute)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

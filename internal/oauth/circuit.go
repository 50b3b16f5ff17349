package oauth

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// This file is how a session spares an authorization server that is away, and
// notices soon that it is back.

const (
	// circuitAfter failures in a row open the circuit.
	circuitAfter = 4
	// circuitFirst lies between attempts that fail although the probe before
	// them said that the server lives, and doubles up to circuitFloor: what lasts
	// for seconds must not cost minutes.
	circuitFirst = 15 * time.Second
	circuitFloor = 2 * time.Minute
	// circuitBlind after the last attempt there is one whatever the probe says:
	// some servers answer every GET with 500.
	circuitBlind = 5 * time.Minute
	probeTimeout = 5 * time.Second
)

// A circuit counts what became of a session's token requests. While it is open
// a probe goes before each: so a server that is away for an hour gets few
// requests with secrets in them, and is asked often enough all the same. It is
// in memory only: that one attempt is made at once after a restart is right.
type circuit struct {
	failures int // flights in a row to which the server gave no usable answer
	// unsent: the last request never left. Its dial told as much as a probe.
	unsent    bool
	status    int     // of the answer to the last request that left
	last      instant // when the last request that left failed
	misled    int     // attempts in a row that failed after a probe
	notBefore instant // no attempt until then
}

// A step is what comes next at a server.
type step int

const (
	stepAttempt step = iota
	stepProbe
	stepWait
)

// next decides.
func (c circuit) next(now instant) step {
	switch since := now.sub(c.last); {
	case c.failures < circuitAfter:
		return stepAttempt
	case c.wait(now) > 0:
		return stepWait
	case since >= circuitBlind, c.unsent && since >= circuitFloor:
		return stepAttempt
	}
	return stepProbe
}

// wait is how long no attempt may be made.
func (c circuit) wait(now instant) time.Duration { return max(0, -now.sub(c.notBefore)) }

// alive decides whether a probe's answer is one of a server that lives. What
// answers to GET as it did to the last attempt isn't: it is something in front
// of it.
func (c circuit) alive(status int) bool {
	return status != http.StatusTooManyRequests && status < 500 && status != c.status
}

// after is the circuit after an answer to a flight's request. again: it wasn't
// the flight's first; probed: a probe had said that the server lives.
func (c circuit) after(a Answer, again, probed bool, now instant) circuit {
	switch a.Outcome {
	case Granted, Dead, Refused, ProbablyDead:
		return circuit{}
	}
	if !again {
		c.failures++
	}
	if c.unsent = a.Status == 0 && a.Outcome != Lost; c.unsent {
		return c
	}
	c.last, c.status = now, a.Status
	if probed {
		c.notBefore = now.add(min(circuitFirst<<min(c.misled, 8), circuitFloor))
		c.misled++
	}
	return c
}

// pause is how long a session that failed rests: as its back-off says, and
// until the circuit lets something be done.
func (c circuit) pause(failures int, retryAfter time.Duration, random float64, now instant) time.Duration {
	pause := backOff(failures, retryAfter, random)
	if wait := c.wait(now); wait > 0 {
		pause = max(pause, wait+backOff(failures, 0, random))
	}
	return pause
}

// admitted reports whether the circuit lets a flight make its first attempt,
// or why not. An operator's it always does.
func (s *Session) admitted(a *Account, f *flight) (verdict, bool) {
	if f.forced || f.tried || f.probed {
		return verdict{}, true
	}
	s.mu.Lock()
	c := s.circuit
	s.mu.Unlock()
	now := s.sessions.now()
	switch c.next(now) {
	case stepAttempt:
		return verdict{}, true
	case stepWait:
		return verdict{err: ErrUnavailable, detail: "the token endpoint is given time to recover", pause: c.wait(now)}, false
	}
	ctx, cancel := context.WithTimeout(s.sessions.open, min(probeTimeout, a.RequestTimeout))
	defer cancel()
	client, err := s.server.resolve(ctx, &a.Client, tokenEndpoint)
	if err != nil {
		return verdict{err: ErrUnavailable, detail: err.Error(), backOff: true}, false
	}
	status, detail, pause := s.server.prober.probe(ctx, client, s.sessions.now)
	f.probed = detail == "" && c.alive(status)
	s.log().Debug("probe of the token endpoint", "alive", f.probed, "status", status)
	if f.probed {
		return verdict{}, true
	}
	if detail == "" {
		detail = "the token endpoint answers " + strconv.Itoa(status)
	}
	return verdict{err: ErrUnavailable, detail: detail, backOff: true, retryAfter: pause}, false
}

// noteAnswer has the circuit learn from the answer to a flight's request.
func (s *Session) noteAnswer(f *flight, again bool, a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.circuit = s.circuit.after(a, again, f.probed, s.sessions.now())
}

// probeHolds is how long the answer to a probe counts for other sessions.
const probeHolds = time.Second

// A prober makes the probes of all sessions of an account: thousands of users
// who wait for one server cost it no more than one.
type prober struct {
	mu   sync.Mutex
	last *probing
}

// A probing is one probe; its answer is there once done is closed.
type probing struct {
	done   chan struct{}
	until  instant // set with the answer, as it is
	status int
	detail string
	pause  time.Duration
}

func (p *prober) probe(ctx context.Context, c *Client, now func() instant) (status int, detail string, pause time.Duration) {
	p.mu.Lock()
	last := p.last
	if mine := last == nil || last.over(now()); mine {
		last = &probing{done: make(chan struct{})}
		p.last = last
		p.mu.Unlock()
		last.status, last.detail, last.pause = c.probe(ctx)
		p.mu.Lock()
		last.until = now().add(probeHolds)
		close(last.done)
	}
	p.mu.Unlock()
	select {
	case <-last.done:
		return last.status, last.detail, last.pause
	case <-ctx.Done():
		return 0, "the token endpoint could not be reached: time-out", 0
	}
}

// over reports whether the answer doesn't count any more.
func (p *probing) over(now instant) bool {
	select {
	case <-p.done:
		return !now.before(p.until)
	default:
		return false
	}
}

// probe asks whether the token endpoint lives, with a request that has nothing
// in it. A living one refuses it (RFC 6749 §3.2: POST). detail says why there
// is no answer; pause is what the server asked for.
func (c *Client) probe(ctx context.Context) (status int, detail string, pause time.Duration) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.TokenEndpoint, nil)
	if err != nil {
		return 0, "the token endpoint could not be asked: is token_endpoint right?", 0
	}
	req.Header.Set("User-Agent", userAgent)
	reply, err := c.Transport.RoundTrip(req) // follows no redirect
	if err != nil {
		return 0, "the token endpoint could not be reached: " + wireError(err), 0
	}
	_ = reply.Body.Close()
	return reply.StatusCode, "", retryAfter(reply.Header.Get("Retry-After"), time.Now())
}

package oauth

import (
	"hash/fnv"
	"math"
	"time"
)

// This file is when a session is looked at, and what it wants then.

// look is called when the session is due.
func (s *Session) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil {
		return
	}
	now := s.sessions.now()
	if s.state.unsaved && !now.before(s.state.saveAt) {
		s.saveBehind(now)
	}
	switch {
	case s.releasable(), s.wanted(now):
		s.start(flight{idle: s.idle && !s.asked.Load()})
	case s.keepAliveDue(now):
		s.start(flight{idle: true})
	default:
		s.schedule(now)
	}
}

// keepAliveDue reports whether an idle session has left its refresh token
// unused for long enough. Call it with mu.
func (s *Session) keepAliveDue(now instant) bool {
	at, ok := s.keepAliveAt(now)
	return ok && !now.before(at) && !s.removed && !s.dropped
}

// releasable reports whether a latch can be let go because what it holds
// changed. Call it with mu.
func (s *Session) releasable() bool {
	return s.latched() && !s.record().Latch.holds(s.account.Load())
}

func (s *Session) latched() bool {
	return s.failure.is(ErrCredentialsRejected, ErrMisconfigured)
}

func (s *Session) record() record {
	return s.state.records.of(s.account.Load().fingerprint())
}

// wanted reports whether a refresh is due in the background. Call it with mu.
func (s *Session) wanted(now instant) bool {
	if s.held(now) || s.removed || s.dropped {
		return false
	}
	if s.failure != nil {
		return s.own() || s.asked.Load()
	}
	t := s.token.Load()
	return t != nil && t.freshness(now) != Fresh && s.asked.Load()
}

// own: the account's own session, not one of its users'.
func (s *Session) own() bool { return s.key.User == "" }

// keepAliveAt is when an idle session uses its refresh token. Call it with mu.
func (s *Session) keepAliveAt(now instant) (instant, bool) {
	r, a := s.record(), s.account.Load()
	if r.usable().RefreshToken.Empty() || a.KeepAlive <= 0 || nextMove(r, a.rule(r)).move == moveLogin {
		return instant{}, false // the next request signs in
	}
	at := s.kept.instant(r.Refreshed.Add(keepAliveAfter(a.KeepAlive, s.jitter())), a.KeepAlive, now)
	switch {
	case s.failure == nil:
	case s.failure.RetryAt.IsZero():
		return instant{}, false
	default: // it failed: again, but not as often as for one who waits
		at = latest(at, s.until.add(a.KeepAlive/8))
	}
	return at, true
}

// jitter is the session's own, in [0,1), and stays the same, so that a time
// computed twice is the same time.
func (s *Session) jitter() float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.key.String()))
	return float64(h.Sum32()) / (math.MaxUint32 + 1)
}

const latchLook = 10 * time.Second

// schedule sets when the session is looked at next. Call it with mu.
func (s *Session) schedule(now instant) {
	var next instant
	sooner := func(at instant) {
		if next.wall.IsZero() {
			next = at
		}
		next = earliest(next, at)
	}
	if s.state.unsaved {
		sooner(s.state.saveAt)
	}
	if s.removed || s.dropped {
		s.sessions.queue.set(&s.item, next)
		return
	}
	if at, ok := s.keepAliveAt(now); ok {
		sooner(at)
	}
	if t := s.token.Load(); t != nil && s.failure == nil && t.freshness(now) == Fresh {
		sooner(t.obtained.add(t.span.stale))
	}
	if s.failure != nil && !s.failure.RetryAt.IsZero() && (s.own() || s.asked.Load()) {
		sooner(s.until)
	}
	if s.latched() {
		sooner(now.add(latchLook))
	}
	s.sessions.queue.set(&s.item, next)
}

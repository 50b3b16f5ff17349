package oauth

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
)

// A flight is one refresh of a session: from the lock to the end of the lock.
// It belongs to the session and not to the caller who caused it, so that
// nobody's leaving loses a rotated token.
type flight struct {
	// rejected is the token that the upstream refused, if that is the cause.
	rejected *Token
	// forced: refresh although the token is fresh and the last failure is held.
	forced bool
	// idle: only the keep-alive wants it, so that it never signs in.
	idle bool
	// login: sign in, whatever was refused before.
	login bool
	// overtaken counts the times that somebody else saved the session's entry.
	overtaken int
	// tried: it made a token request, so that what is saved now is its own.
	tried bool
	// probed: a probe found the server alive.
	probed bool
	// account is what it decided by last.
	account *Account

	done    chan struct{}
	failure *Failure // why it brought nothing; set before done is closed
}

// start begins a flight. Call it with mu.
func (s *Session) start(how flight) *flight {
	f := &how
	f.done = make(chan struct{})
	if !s.sessions.takeOff(func() { s.fly(f); failpoint.Hit("flight-unlocked") }) {
		f.failure = &Failure{Err: ErrClosed}
		close(f.done)
		return f
	}
	s.flight = f
	s.quiet.Store(math.MaxInt64)
	return f
}

// fly is the flight's goroutine.
func (s *Session) fly(f *flight) {
	failpoint.Hit("flight-started")
	v, unlock := s.locked(f)
	defer unlock() // what comes of the flight is noted before another may change the session
	failpoint.Hit("flight-landing")
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.outdated(f, v) {
		s.mu.Unlock()
		v = s.attempts(s.sessions.ctx, f)
		s.mu.Lock()
	}
	now := s.sessions.now()
	s.failure, s.until = nil, instant{}
	s.quiet.Store(0)
	if v.err == nil {
		s.failures, s.circuit = 0, circuit{}
	} else {
		s.failures++
		s.fail(v, now)
	}
	if t := s.token.Load(); t != nil && t.rejected.Swap(false) && s.record().Dead != nil {
		s.token.Store(nil) // refused, and nothing can renew it; otherwise it is this one or nothing
	}
	f.failure = s.failure
	s.flight, s.idle = nil, f.idle
	s.schedule(now)
	s.note()
	close(f.done)
	failpoint.Hit("flight-done")
}

// fail keeps what a verdict says. Call it with mu.
func (s *Session) fail(v verdict, now instant) {
	s.failure = s.failed(v.err, v.detail)
	s.quiet.Store(math.MaxInt64)
	pause := v.pause
	if v.backOff {
		pause = s.circuit.pause(s.failures, v.retryAfter, rand.Float64(), now)
	}
	if pause > 0 || v.backOff {
		s.until = now.add(pause)
		s.failure.RetryAt = s.until.wall
		s.quiet.Store(int64(s.until.mono))
	}
	if v.err != ErrClosed {
		log := s.log()
		if pause > 0 {
			log = log.With("retry_in", pause.Round(time.Millisecond))
		}
		log.Warn("no new token", "error", v.err, "detail", v.detail)
	}
}

// failed says why there is no token.
func (s *Session) failed(err error, detail string) *Failure {
	f := &Failure{Err: err, Detail: detail}
	if f.is(ErrLoginRequired) {
		f.Hint = "log in with `caddy bearer login " + s.key.String() + "`"
		if s.account.Load().Grant.Type() == "refresh_token" {
			f.Hint = "give it a refresh token with `caddy bearer import " + s.key.String() + "`"
		}
	}
	return f
}

// locked makes the flight's attempts under the session's lock, which the caller
// gives back.
func (s *Session) locked(f *flight) (verdict, func()) {
	unlock, err := s.sessions.store.Lock(s.sessions.ctx, s.key)
	if err != nil {
		return verdict{err: ErrStoreUnavailable, detail: "locking the session: " + err.Error(), backOff: true}, func() {}
	}
	failpoint.Hit("flight-locked")
	return s.attempts(s.sessions.ctx, f), unlock
}

// attempts moves until there is a token or nothing more to do now.
func (s *Session) attempts(ctx context.Context, f *flight) verdict {
	before := s.known().generation
	f.account = s.account.Load()
	if err := s.load(ctx); err != nil {
		return verdict{err: ErrStoreUnavailable, detail: err.Error(), backOff: true}
	}
	failpoint.Hit("records-loaded")
	for {
		a := s.account.Load().now()
		f.account = a
		state := s.known()
		r := state.records.of(a.fingerprint())
		if t := s.found(a, r, f, state.generation > before); t != nil {
			s.publish(a, t, false)
			return verdict{}
		}
		v := s.attempt(ctx, a, r, f)
		f.forced, f.login = false, f.login && !f.tried
		switch {
		case !v.again:
			return v
		case !sleep(s.sessions.open, v.pause):
			return verdict{err: ErrClosed}
		}
	}
}

// outdated reports whether the account was changed since it was decided by, so
// that what came of it is another identity's or may be mended. Call it with mu.
func (s *Session) outdated(f *flight, v verdict) bool {
	if f.account == nil || s.sessions.open.Err() != nil {
		return false
	}
	return !s.serves(f.account) || v.err != nil && !f.account.asks(s.account.Load())
}

// found returns the stored token if it makes a request needless: somebody else
// did the work, or none was in use yet.
func (s *Session) found(a *Account, r record, f *flight, newer bool) *Token {
	t := s.tokenOf(a, r)
	switch {
	case f.tried || r.Intent != nil || t.freshness(s.sessions.now()) != Fresh:
	case newer, !f.forced && s.token.Load() == nil:
		return t
	}
	return nil
}

// tokenOf puts the access token of a record into the form of use.
func (s *Session) tokenOf(a *Account, r record) *Token {
	return newToken(r.usable(), s.known().generation, s.sessions.now(), a.RefreshAhead, s.jitter())
}

// serves reports whether a is still the identity that the session is
// configured for.
func (s *Session) serves(a *Account) bool {
	now := s.account.Load()
	return now == a || now.fingerprint() == a.fingerprint()
}

// publish puts a token into use, unless the account was changed to another
// identity meanwhile.
func (s *Session) publish(a *Account, t *Token, successor bool) {
	if t == nil {
		return
	}
	t.successor = successor
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.serves(a) {
		return
	}
	s.asked.Store(false)
	s.token.Store(t)
	failpoint.Hit("token-published")
}

// sleep waits, and reports whether ctx still stands.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

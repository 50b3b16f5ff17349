package oauth

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A Session is the live token state of one account and user. It outlives
// configurations. It is safe for concurrent use.
type Session struct {
	key      Key
	sessions *Sessions
	server   *server
	account  atomic.Pointer[Account]

	// used is when a user's session was asked for last, by the monotonic clock.
	used  atomic.Int64
	token atomic.Pointer[Token]
	// asked: somebody wanted a token since the last one came.
	asked atomic.Bool
	// quiet holds wake-ups back until this monotonic time.
	quiet atomic.Int64
	// waiting counts the callers that wait for a flight.
	waiting atomic.Int64

	item queueItem

	mu      sync.Mutex
	removed bool // its account is no longer configured
	dropped bool // a user's, no longer in memory: the store has it
	saving  bool // in the background
	holds   int  // who does something to it, see hold
	flight  *flight
	// failure is why the last flight brought nothing; held until its time, or
	// without one until something changes.
	failure  *Failure
	until    instant
	failures int    // in a row
	idle     bool   // the last flight was the keep-alive's: what follows from it is, too
	missing  string // of the scope asked for, in the last answer
	circuit  circuit
	brake    brake
	state    snapshot
	// rested is the pause that the records demand before the next move, kept
	// the keep-alive.
	rested, kept anchor
	past         *past // nil until something happens
}

// A brake holds refreshes back that only the upstream's refusals ask for.
type brake struct {
	on    bool
	until instant
	last  time.Duration // 0: it wasn't on
	// recent are the last refreshes for the upstream's sake, newest last.
	recent []instant
}

const (
	maxRecent    = 3
	recentWithin = maxRecent * brakeBase
)

// spent reports whether there were as many refreshes lately as the brake lets
// pass: an API that refuses one path for ever, and accepts others in between,
// must not rotate the refresh token at each call.
func (b *brake) spent(now instant) bool {
	return len(b.recent) == maxRecent && now.sub(b.recent[0]) < recentWithin
}

func (b *brake) note(now instant) {
	b.recent = append(b.recent[max(0, len(b.recent)-maxRecent+1):len(b.recent):len(b.recent)], now)
}

// Token returns an access token that can be used. While one is fresh that is
// an atomic load; a stale one is given, too, and its successor fetched behind.
// Otherwise Token waits for one, bounded by ctx and the account's token
// time-out, or returns a [Failure].
func (s *Session) Token(ctx context.Context) (*Token, error) {
	return s.TokenAmong(ctx, math.MaxInt)
}

// TokenAmong is Token for one of at most so many callers that wait; one more
// fails at once, with [ErrBusy].
func (s *Session) TokenAmong(ctx context.Context, waiters int) (*Token, error) {
	t, now := s.token.Load(), s.sessions.now()
	f := t.freshness(now)
	if f == Expired || t.rejected.Load() {
		return s.await(ctx, waiters)
	}
	if !s.asked.Load() {
		s.asked.Store(true)
	}
	if f == Stale && int64(now.mono) >= s.quiet.Load() {
		s.wake(now)
	}
	return t, nil
}

// wake starts a refresh unless one is under way or held back.
func (s *Session) wake(now instant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil && !s.held(now) {
		s.start(flight{})
	}
}

// Current returns a token that can be used, or nil; it never asks for one.
func (s *Session) Current() *Token {
	if t := s.token.Load(); t.freshness(s.sessions.now()) != Expired {
		return t
	}
	return nil
}

// await joins or starts a flight and waits for its end.
func (s *Session) await(ctx context.Context, waiters int) (*Token, error) {
	timeout := s.account.Load().TokenTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrTokenTimeout)
	defer cancel()
	for waits := false; ; {
		t, f, err := s.join()
		s.asked.Store(true)
		if f == nil {
			return t, err
		}
		if !waits {
			waits = true
			defer s.waiting.Add(-1)
			if s.waiting.Add(1) > int64(waiters) {
				return nil, &Failure{Err: ErrBusy, Detail: fmt.Sprintf("%d callers wait for the same token already", waiters)}
			}
		}
		select {
		case <-f.done:
			if f.failure != nil && (s.Current() == nil || f.failure.is(ErrClosed)) {
				return nil, f.failure
			}
		case <-ctx.Done():
			if context.Cause(ctx) == ErrTokenTimeout {
				return nil, &Failure{Err: ErrTokenTimeout, Detail: "no answer from the authorization server within " + timeout.String()}
			}
			return nil, context.Cause(ctx)
		}
	}
}

// join returns a usable token, or the flight that may bring one, started if
// there is none, or why there is none to wait for.
func (s *Session) join() (*Token, *flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.sessions.now()
	t := s.token.Load()
	switch {
	case t.freshness(now) != Expired && !t.rejected.Load():
		return t, nil, nil
	case s.flight != nil:
		return nil, s.flight, nil
	case s.held(now):
		return nil, nil, s.told(now)
	}
	return nil, s.start(flight{}), nil
}

// told is the last failure as a caller is told of it: the wall clock may have
// been set since. Call it with mu.
func (s *Session) told(now instant) *Failure {
	if s.failure == nil || s.failure.RetryAt.IsZero() {
		return s.failure
	}
	f := *s.failure
	f.RetryAt = now.wall.Add(-now.sub(s.until))
	return &f
}

// held reports whether the last failure forbids a flight. Call it with mu.
func (s *Session) held(now instant) bool {
	return s.failure != nil && (s.failure.RetryAt.IsZero() || now.before(s.until))
}

// Reject tells that the upstream refused t. One refresh follows per token,
// however many callers reject it; none if t isn't the current token any more.
// replayed says that the refused request was itself the replay of a refused
// one: then the refusal isn't about the token, and the brake goes on. After
// Reject, [Session.Token] returns another token if there is or will be one,
// and t if there will be none.
func (s *Session) Reject(t *Token, replayed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.Load() != t || t.rejected.Load() {
		return
	}
	now := s.sessions.now()
	if s.flight == nil && s.held(now) && s.record().Dead != nil {
		s.token.Store(nil) // refused, and nothing can renew it
		return
	}
	if t.successor && (replayed || !t.accepted.Load()) && !s.brake.on {
		s.brake.last = nextBrake(s.brake.last)
		s.brake.on, s.brake.until = true, now.add(s.brake.last)
		s.log().Warn("the upstream refuses the new token as well; no further refresh for its sake",
			"until", s.brake.until.wall.UTC())
	}
	if s.brake.on && now.before(s.brake.until) || s.brake.spent(now) || s.flight == nil && s.held(now) {
		return
	}
	s.brake.on = false
	s.brake.note(now)
	t.rejected.Store(true)
	if s.flight == nil {
		s.start(flight{rejected: t})
	}
}

// Accept tells that the upstream took t; replayed, that it had refused the
// same request with the token before.
func (s *Session) Accept(t *Token, replayed bool) {
	if t.accepted.Load() && !replayed {
		return
	}
	t.accepted.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case replayed:
		s.brake = brake{}
	case !s.brake.on || !s.sessions.now().before(s.brake.until):
		s.brake.on, s.brake.last = false, 0
	}
}

// Key names the session.
func (s *Session) Key() Key { return s.key }

// Account returns the account as configured now.
func (s *Session) Account() *Account { return s.account.Load() }

func (s *Session) log() *slog.Logger {
	l := s.sessions.log.Load().With("account", s.key.Account)
	if s.key.User != "" {
		l = l.With("user", s.key.User)
	}
	return l
}

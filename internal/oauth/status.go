package oauth

import (
	"context"
	"errors"
	"time"
)

// A State is a session's condition in one word.
type State string

const (
	StateReady         State = "ready"          // there is a token that can be used
	StateRefreshing    State = "refreshing"     // none yet, a token request is under way
	StateDegraded      State = "degraded"       // it serves, but the store can't be written
	StateAway          State = "away"           // no token, the authorization server can't be asked
	StateRefused       State = "refused"        // no token, the credentials or the configuration were refused
	StateLoginRequired State = "login_required" // no token, a person has to log in
	StateUnknown       State = "unknown"        // nothing was tried yet, or the store can't be read
)

// A Status is what an operator may know of a session. It holds no secret.
type Status struct {
	Key   Key
	State State
	// Detail says why, and what to do.
	Detail string
	Grant  string
	// Generation counts the saves of the session's record.
	Generation uint64
	// Obtained and Expires are of the access token; zero without one.
	Obtained, Expires time.Time
	// HasRefreshToken, and until when it lives as far as that is known.
	HasRefreshToken bool
	RefreshExpires  time.Time
	// Refreshed is when the last token answer came.
	Refreshed time.Time
	// RetryAt is when the next attempt is due after a failure; zero if waiting
	// doesn't help.
	RetryAt time.Time
	// Unsaved: the newest tokens are in memory only.
	Unsaved bool
}

// Status tells the session's condition.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, r, now := s.account.Load(), s.record(), s.sessions.now()
	st := Status{
		Key: s.key, Grant: a.Grant.Type(), Generation: s.state.generation,
		HasRefreshToken: !r.Tokens.RefreshToken.Empty(), Refreshed: r.Refreshed, Unsaved: s.state.unsaved,
	}
	if a.RefreshLifetime > 0 && st.HasRefreshToken {
		st.RefreshExpires = r.Tokens.RefreshObtained.Add(a.RefreshLifetime)
	}
	t := s.token.Load()
	if f := t.freshness(now); f != Expired {
		st.Obtained = now.wall.Add(-now.sub(t.obtained))
		st.Expires = st.Obtained.Add(t.lifetime)
	} else {
		t = nil
	}
	if s.failure != nil {
		st.Detail, st.RetryAt = s.failure.Error(), s.failure.RetryAt
	}
	st.State = stateOf(t != nil, st.HasRefreshToken, s.flight != nil, s.state.unsaved, s.failure)
	return st
}

// stateOf decides the word.
func stateOf(token, refreshToken, flight, unsaved bool, failure *Failure) State {
	switch {
	case token && unsaved:
		return StateDegraded
	case token, failure == nil && !flight && refreshToken:
		return StateReady // an idle session refreshes at its next request
	case flight:
		return StateRefreshing
	case failure == nil:
		return StateUnknown
	case failure.is(ErrLoginRequired):
		return StateLoginRequired
	case failure.is(ErrCredentialsRejected, ErrMisconfigured):
		return StateRefused
	case failure.is(ErrStoreUnavailable, ErrClosed):
		return StateUnknown
	}
	return StateAway
}

// Refresh gets a new token now, whether one is needed or not, and doesn't heed
// pauses; a latch it does.
func (s *Session) Refresh(ctx context.Context) error {
	s.mu.Lock()
	f := s.flight
	if f == nil {
		f = s.start(flight{forced: true})
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		if f.failure != nil {
			return f.failure
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Forget drops the session's tokens here; the server isn't told. The next
// request may log in again, except with credentials that were refused. What
// can't be read is dropped, too.
func (s *Session) Forget(ctx context.Context) error {
	unlock, err := s.sessions.store.Lock(ctx, s.key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.drop(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token.Store(nil)
	if !s.record().Latch.holds(s.account.Load()) {
		s.failure, s.failures = nil, 0
	}
	s.schedule(s.sessions.now())
	s.log().Info("forgot the tokens")
	return nil
}

// drop empties what the store holds of the session. Refused credentials stay
// known.
func (s *Session) drop(ctx context.Context) error {
	err := s.load(ctx)
	if errors.Is(err, ErrUnreadable) {
		e, _ := s.sessions.store.Load(ctx, s.key) // tells the generation even so
		if err := s.sessions.store.Delete(ctx, s.key, e.Generation); err != nil {
			return err
		}
		s.learn(snapshot{})
		return nil
	}
	if err != nil {
		return err
	}
	state := s.known()
	var rs records
	for _, r := range state.records {
		rs = append(rs, record{Fingerprint: r.Fingerprint, Latch: r.Latch})
	}
	state.records = rs
	next, err := s.commit(ctx, state)
	if err == nil {
		s.settle(next, nil)
	}
	return err
}

package oauth

import (
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
	// Err is the kind of failure that stands, nil if none does; Detail says why,
	// and what to do on the command line; Reason is the part of it that says why.
	Err            error
	Detail, Reason string
	Grant          string
	// Generation counts the saves of the session's record.
	Generation uint64
	// Obtained and Expires are of the access token; zero without one.
	Obtained, Expires time.Time
	// HasRefreshToken, and until when it lives as far as that is known.
	HasRefreshToken bool
	RefreshExpires  time.Time
	// Refreshed is when the last token answer came, SignedIn when the last
	// sign-in was; zero if not known.
	Refreshed, SignedIn time.Time
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
		HasRefreshToken: !r.usable().RefreshToken.Empty(), Refreshed: r.Refreshed, SignedIn: r.SignedInAt, Unsaved: s.state.unsaved,
	}
	if a.RefreshLifetime > 0 && st.HasRefreshToken {
		st.RefreshExpires = r.Tokens.RefreshObtained.Add(a.RefreshLifetime)
	}
	t, failure := s.condition(now)
	if failure != nil {
		st.Err, st.Detail, st.Reason, st.RetryAt = failure.Err, failure.Error(), failure.Detail, failure.RetryAt
	} else {
		st.Detail = s.server.warning()
	}
	if t != nil {
		st.Obtained = now.wall.Add(-now.sub(t.obtained))
		st.Expires = st.Obtained.Add(t.lifetime)
	}
	st.State = s.stateNow(t, failure)
	return st
}

// condition is the token that can be used, if there is one, and why there is
// or will be none. Call it with mu.
func (s *Session) condition(now instant) (*Token, *Failure) {
	t := s.token.Load()
	if t.freshness(now) == Expired {
		t = nil
	}
	failure := s.told(now)
	if failure == nil && t == nil && s.flight == nil {
		r := s.record()
		if c := nextMove(r, s.account.Load().rule(r)); c.move == moveNone {
			failure = s.failed(c.err, c.detail) // known without trying
		}
	}
	return t, failure
}

// stateNow is the word for a condition. Call it with mu.
func (s *Session) stateNow(t *Token, failure *Failure) State {
	r := s.record()
	renewable := !r.usable().RefreshToken.Empty() || r.SignedIn && s.account.Load().Grant.MayLogin(true)
	return stateOf(t != nil, renewable, s.flight != nil, s.state.unsaved, failure)
}

// stateOf decides the word.
func stateOf(token, renewable, flight, unsaved bool, failure *Failure) State {
	switch {
	case token && unsaved:
		return StateDegraded
	case token, failure == nil && !flight && renewable:
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

package oauth

import (
	"context"
	"errors"
)

// This file is what operators do to a session.

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

// Import gives the session a refresh token that was got elsewhere, in place of
// what it has, and spends it at once: from then on its successor is ours alone.
func (s *Session) Import(ctx context.Context, refreshToken Secret) error {
	unlock, err := s.sessions.store.Lock(ctx, s.key)
	if err != nil {
		return err
	}
	err = s.bring(ctx, refreshToken)
	unlock()
	if err != nil {
		return err
	}
	return s.Refresh(ctx)
}

// bring stores an imported refresh token.
func (s *Session) bring(ctx context.Context, refreshToken Secret) error {
	if err := s.load(ctx); err != nil {
		return err
	}
	state, a, now := s.known(), s.account.Load(), s.sessions.now().wall
	old := state.records.of(a.fingerprint())
	state.records = state.records.with(record{
		Fingerprint: old.Fingerprint,
		Tokens:      TokenSet{RefreshToken: refreshToken, RefreshObtained: now},
		Latch:       old.Latch,
		SignedIn:    true,
		Refreshed:   now,
	})
	next, err := s.commit(ctx, state)
	if err != nil {
		return err
	}
	s.settle(next, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token.Store(nil)
	s.log().Info("imported a refresh token")
	return nil
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

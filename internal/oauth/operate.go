package oauth

import (
	"context"
	"errors"
)

// This file is what operators do to a session.

// Refresh gets a new token now, whether one is needed or not, and doesn't heed
// pauses; a latch it does.
func (s *Session) Refresh(ctx context.Context) error {
	s, release, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	return s.refresh(ctx, flight{forced: true})
}

// refresh makes a flight, or joins the one under way; a login is never one with
// another.
func (s *Session) refresh(ctx context.Context, how flight) error {
	for {
		s.mu.Lock()
		f := s.flight
		joined := f != nil
		if !joined {
			f = s.start(how)
		}
		s.mu.Unlock()
		select {
		case <-f.done:
			if joined && how.login {
				continue
			}
			if f.failure != nil {
				return f.failure
			}
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ErrImportRefused: the authorization server refused an imported refresh token.
var ErrImportRefused = errors.New("the authorization server refused the imported refresh token; the account keeps what it had")

// Import gives the session a refresh token that was got elsewhere, in place of
// what it has, and spends it at once: from then on its successor is ours alone.
// It never signs in. If the token is refused, the session keeps what it had,
// unless the process is killed before the answer: then that is gone.
func (s *Session) Import(ctx context.Context, refreshToken Secret) error {
	s, release, err := s.hold(ctx)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	if !s.sessions.takeOff(func() { // who asked may leave: what was there must come back all the same
		defer release()
		done <- s.spendImported(s.sessions.ctx, refreshToken)
	}) {
		release()
		return &Failure{Err: ErrClosed}
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Session) spendImported(ctx context.Context, refreshToken Secret) error {
	a := s.account.Load()
	var old record
	err := s.replace(ctx, a, s.saveOrFail, func(was record) (record, bool) {
		old = was
		now := s.sessions.now().wall
		return record{
			Fingerprint: was.Fingerprint,
			Tokens:      TokenSet{RefreshToken: refreshToken, RefreshObtained: now},
			Latch:       was.Latch,
			SignedIn:    was.SignedIn, // until it is known to be good
			Refreshed:   now,
		}, true
	})
	if err != nil {
		return err
	}
	err = s.refresh(ctx, flight{forced: true, idle: true})
	refused := false
	// What was there must not be lost with a store that can't be written now.
	keep := func(ctx context.Context, rs records) error {
		state := s.known()
		state.records = rs
		s.save(ctx, state)
		return nil
	}
	back := s.replace(ctx, a, keep, func(now record) (record, bool) {
		refused = now.Dead != nil || now.Doubt != nil
		old.Latch = now.Latch // somebody may have signed in since, and was refused
		return old, refused
	})
	if refused {
		return errors.Join(ErrImportRefused, back)
	}
	return err
}

// replace saves what by makes of the session's record, if anything, and puts
// its token into use.
func (s *Session) replace(ctx context.Context, a *Account, save func(context.Context, records) error, by func(record) (record, bool)) error {
	unlock, err := s.sessions.store.Lock(ctx, s.key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.load(ctx); err != nil {
		return err
	}
	r, ok := by(s.known().records.of(a.fingerprint()))
	if !ok {
		return nil
	}
	if err := save(ctx, s.known().records.with(r)); err != nil {
		return err
	}
	t := s.tokenOf(a, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.serves(a) {
		return nil // it is kept for when that identity is configured again
	}
	s.token.Store(t)
	s.failure, s.failures, s.circuit = nil, 0, circuit{}
	s.schedule(s.sessions.now())
	s.note()
	return nil
}

// Forget drops the session's tokens here; the server isn't told. The next
// request may log in again, except with credentials that were refused. What
// can't be read is dropped, too.
func (s *Session) Forget(ctx context.Context) error {
	s, release, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	unlock, err := s.sessions.store.Lock(ctx, s.key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.drop(ctx, false); err != nil {
		return err
	}
	s.log().Info("forgot the tokens")
	return nil
}

// drop empties what the store holds of the session, and takes its token out of
// use. Refused credentials stay known.
func (s *Session) drop(ctx context.Context, loggedOut bool) error {
	if err := s.dropRecords(ctx, loggedOut); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token.Store(nil)
	s.failure, s.failures, s.circuit = nil, 0, circuit{} // a latch is in the record
	s.schedule(s.sessions.now())
	s.note()
	return nil
}

func (s *Session) dropRecords(ctx context.Context, loggedOut bool) error {
	err := s.load(ctx)
	if errors.Is(err, ErrUnreadable) {
		e, _ := s.sessions.store.Load(ctx, s.key) // tells the generation even so
		return s.delete(ctx, e.Generation)
	}
	if err != nil {
		return err
	}
	a := s.account.Load()
	if !s.own() && a.PersonLogin() {
		return s.delete(ctx, s.known().generation) // without tokens there is nothing to know of a user
	}
	var rs records
	for _, r := range s.known().records {
		rs = append(rs, record{Fingerprint: r.Fingerprint, Latch: r.Latch, LoggedOut: r.LoggedOut})
	}
	if loggedOut {
		r := rs.of(a.fingerprint())
		r.LoggedOut = true
		rs = rs.with(r)
	}
	return s.saveOrFail(ctx, rs)
}

// delete takes the session out of the store.
func (s *Session) delete(ctx context.Context, generation uint64) error {
	if err := s.sessions.store.Delete(ctx, s.key, generation); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	s.learn(snapshot{})
	return nil
}

// saveOrFail stores what an operator wants. Unlike save it changes nothing if
// the store can't be written: the operator is told, and can do it again.
func (s *Session) saveOrFail(ctx context.Context, rs records) error {
	state := s.known()
	state.records = rs
	next, err := s.commit(ctx, state)
	if err == nil {
		s.settle(next, nil)
	}
	return err
}

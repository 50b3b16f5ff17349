package oauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
)

// This file is how a session keeps its records: in the store, and in memory
// while the store can't be written.

// A snapshot is what is known of the session's records.
type snapshot struct {
	records    records
	generation uint64
	// unsaved: the records are newer than what the store holds; the next
	// attempt to save them is at saveAt.
	unsaved bool
	saveAt  instant
}

// saveAgain is the pause between attempts to write to a store that can't.
const saveAgain = 5 * time.Second

func (s *Session) known() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// learn makes state the known one.
func (s *Session) learn(state snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

// load reads the session's records from the store. Those in memory that could
// not be saved are newer; then it tries to save them. Call it, and what
// follows, with the session's lock.
func (s *Session) load(ctx context.Context) error {
	if state := s.known(); state.unsaved {
		s.save(ctx, state)
		return nil
	}
	state, err := s.read(ctx)
	if err != nil {
		return err
	}
	s.learn(state)
	return nil
}

// read gives what the store holds.
func (s *Session) read(ctx context.Context) (snapshot, error) {
	e, err := s.sessions.store.Load(ctx, s.key)
	if errors.Is(err, ErrNotFound) {
		return snapshot{}, nil
	}
	if err != nil {
		return snapshot{}, fmt.Errorf("loading the tokens: %w", err)
	}
	rs, err := decodeRecords(e.Value, s.sessions.instance)
	return snapshot{records: rs, generation: e.Generation}, err
}

// saveIntent stores r before a token request, and reports whether it is ours
// to make: if somebody else saved meanwhile, it isn't, and their records are
// loaded. A store that can't be written doesn't stop a refresh: while the
// process lives nothing is lost.
func (s *Session) saveIntent(ctx context.Context, r record) bool {
	state := s.known()
	mine := state
	mine.records = state.records.with(r)
	next, err := s.commit(ctx, mine)
	if errors.Is(err, ErrConflict) && !state.unsaved && s.load(ctx) == nil {
		return false
	}
	s.settle(next, err)
	return true
}

// saveResult stores r after a token request. Unless it wins, which new tokens
// and a latch do, it says nothing of what somebody else has stored meanwhile:
// then that is loaded, and false returned.
func (s *Session) saveResult(ctx context.Context, r record, wins bool) bool {
	state := s.known()
	was := state.unsaved
	state.records = state.records.with(r)
	if wins || was {
		s.save(ctx, state)
		return true
	}
	next, err := s.commit(ctx, state)
	if errors.Is(err, ErrConflict) && s.load(ctx) == nil {
		return false
	}
	s.settle(next, err)
	return true
}

// save stores what may hold the only copy of a rotated refresh token: it wins
// over whatever is there, and stays in memory if it can't be stored now.
func (s *Session) save(ctx context.Context, state snapshot) {
	next, err := s.commit(ctx, state)
	if errors.Is(err, ErrConflict) {
		if stored, readErr := s.read(ctx); readErr == nil {
			state.generation = stored.generation
			next, err = s.commit(ctx, state)
		}
	}
	s.settle(next, err)
}

// saveBehind tries in the background to save what could not be saved. Call it
// with mu.
func (s *Session) saveBehind(now instant) {
	s.state.saveAt = now.add(saveAgain)
	if s.saving {
		return
	}
	s.saving = s.sessions.takeOff(func() {
		ctx := s.sessions.ctx
		if unlock, err := s.sessions.store.Lock(ctx, s.key); err == nil {
			_ = s.load(ctx) // settles what comes of it
			unlock()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.saving = false
		s.schedule(s.sessions.now())
	})
}

// commit stores a snapshot as the next generation and returns it as such, or
// as it was with the error. An error of the store doesn't tell whether the
// save took effect, so it looks.
func (s *Session) commit(ctx context.Context, state snapshot) (snapshot, error) {
	value, err := state.records.encode(s.sessions.instance)
	if err != nil {
		return state, err
	}
	next := Entry{Generation: state.generation + 1, Value: value}
	failpoint.Hit("records-encoded")
	if err = s.sessions.store.Save(ctx, s.key, next); err != nil {
		failpoint.Hit("save-doubted")
		e, loadErr := s.sessions.store.Load(ctx, s.key)
		if loadErr != nil || e.Generation != next.Generation || !bytes.Equal(e.Value, value) {
			return state, err
		}
	}
	failpoint.Hit("records-committed")
	state.generation = next.Generation
	return state, nil
}

// settle makes state the known one, whether it could be stored or not.
func (s *Session) settle(state snapshot, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.state.unsaved
	s.state = state
	failpoint.Hit("records-settled")
	s.state.unsaved = err != nil
	switch {
	case err != nil:
		s.state.saveAt = s.sessions.now().add(saveAgain)
		if !was {
			s.log().Error("saving the tokens; they are kept in memory and saved later", "error", err)
		}
	case was:
		s.log().Info("the tokens are saved again")
	}
	if was != s.state.unsaved {
		s.note()
	}
}

package oauth

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxUsers is how many users' sessions are in memory at most, as far as none
// of them is at work. The others are in the store alone, and cost nothing.
const maxUsers = 10_000

// users are the sessions of users that are in memory.
type users struct {
	byKey sync.Map // Key → *Session; read on every request
	count atomic.Int64
}

// user returns a user's session, made of what the store holds if it isn't in
// memory.
func (ss *Sessions) user(ctx context.Context, key Key) (*Session, error) {
	if s, ok := ss.users.byKey.Load(key); ok {
		s := s.(*Session)
		s.used.Store(int64(ss.now().mono))
		return s, nil
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if s, ok := ss.users.byKey.Load(key); ok {
		return s.(*Session), nil
	}
	account := (*ss.byAccount.Load())[key.Account] // Configure may have been faster
	if account == nil || !account.account.Load().PerUser {
		return nil, &Failure{Err: ErrUnknownUser}
	}
	s := ss.newSession(key, account.server)
	s.used.Store(int64(ss.now().mono))
	s.configure(ctx, account.account.Load())
	ss.users.byKey.Store(key, s)
	if ss.users.count.Add(1) > maxUsers {
		ss.users.evict(maxUsers * 9 / 10)
	}
	return s, nil
}

// evict drops the sessions that were asked for the longest time ago, until
// only so many are left or all others are at work. Who holds one that was
// dropped can go on: the store keeps it and its successor apart.
func (us *users) evict(left int64) {
	var all []*Session
	us.byKey.Range(func(_, s any) bool {
		all = append(all, s.(*Session))
		return true
	})
	slices.SortFunc(all, func(a, b *Session) int { return cmp.Compare(a.used.Load(), b.used.Load()) })
	for _, s := range all {
		if us.count.Load() <= left {
			return
		}
		us.drop(s)
	}
}

func (us *users) drop(s *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil || s.saving || s.state.unsaved || s.holds > 0 {
		return
	}
	s.dropped = true
	s.schedule(s.sessions.now())
	us.byKey.Delete(s.key)
	us.count.Add(-1)
}

// hold returns the session that is in use under the key of s, which may have
// been dropped from memory, and keeps it there until it is released: what is
// done to a session must be done to that one.
func (s *Session) hold(ctx context.Context) (live *Session, release func(), err error) {
	for {
		if live = s; !s.own() {
			if live, err = s.sessions.user(ctx, s.key); err != nil {
				return nil, nil, err
			}
		}
		live.mu.Lock()
		dropped, removed := live.dropped, live.removed
		if !dropped && !removed {
			live.holds++
		}
		live.mu.Unlock()
		switch {
		case removed:
			return nil, nil, &Failure{Err: ErrUnknownAccount}
		case !dropped:
			return live, live.release, nil
		}
	}
}

func (s *Session) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds--
}

// configure gives the sessions their accounts as they are now, and drops those
// whose account is gone.
func (us *users) configure(ctx context.Context, accounts map[string]*Session) {
	us.byKey.Range(func(_, v any) bool {
		s := v.(*Session)
		if own := accounts[s.key.Account]; own != nil && own.account.Load().PerUser {
			s.configure(ctx, own.account.Load())
		} else {
			s.remove()
			us.drop(s)
		}
		return true
	})
}

// Users returns the users of an account that the store has, in order.
func (ss *Sessions) Users(ctx context.Context, account string) ([]string, error) {
	keys, err := ss.store.List(ctx, account)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, k := range keys {
		if k.User != "" {
			names = append(names, k.User)
		}
	}
	return names, nil
}

const (
	// sweepEvery is how often stored users are looked through, at most; a
	// shorter keep-alive makes it shorter, down to a minute.
	sweepEvery = time.Hour
	// sweepAtOnce bounds the refreshes that a sweep makes at a time.
	sweepAtOnce = 4
)

// sweep uses the refresh tokens of users who are in the store alone, so that
// they don't age out.
func (ss *Sessions) sweep() {
	select {
	case <-ss.ready:
	case <-ss.open.Done():
		return
	}
	for {
		pause := sweepEvery
		for _, own := range *ss.byAccount.Load() {
			if a := own.account.Load(); a.PerUser && a.KeepAlive > 0 {
				pause = min(pause, max(a.KeepAlive/8, time.Minute))
			}
		}
		if !sleep(ss.open, pause) {
			return
		}
		for _, own := range *ss.byAccount.Load() {
			if own.account.Load().PerUser {
				ss.sweepAccount(own)
			}
		}
	}
}

func (ss *Sessions) sweepAccount(own *Session) {
	names, err := ss.Users(ss.open, own.key.Account)
	if err != nil {
		own.log().Warn("looking through the users", "error", err)
		return
	}
	slots := make(chan struct{}, sweepAtOnce)
	var work sync.WaitGroup
	defer work.Wait()
	for _, name := range names {
		key := Key{Account: own.key.Account, User: name}
		if _, ok := ss.users.byKey.Load(key); ok {
			continue // its own turn comes
		}
		if ss.open.Err() != nil {
			return
		}
		if !ss.stored(own, key) {
			continue
		}
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			if s, err := ss.Session(ss.open, key); err == nil {
				_ = s.refresh(ss.open, flight{idle: true}) // its failure is the session's
			}
		})
	}
}

// stored reports whether the keep-alive of a stored user is due.
func (ss *Sessions) stored(own *Session, key Key) bool {
	s, err := ss.glance(ss.open, own, key)
	if err != nil {
		return false
	}
	now := ss.now()
	// A time in the future is a wrong clock's. Nothing here remembers when it
	// was seen first, so its turn is now.
	at, ok := s.keepAliveAt(now)
	return ok && (!now.before(at) || s.record().Refreshed.After(now.wall))
}

// glance makes a session to look at, which isn't kept.
func (ss *Sessions) glance(ctx context.Context, own *Session, key Key) (*Session, error) {
	s := ss.newSession(key, own.server)
	a := own.account.Load()
	s.account.Store(a)
	state, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	s.state = state
	s.token.Store(newToken(s.record().usable(), state.generation, ss.now(), a.RefreshAhead, s.jitter()))
	return s, nil
}

// StatusOf tells the condition of a session without making it one that is in
// use.
func (ss *Sessions) StatusOf(ctx context.Context, key Key) (Status, error) {
	if s, ok := ss.users.byKey.Load(key); ok {
		return s.(*Session).Status(), nil
	}
	own := ss.All()[key.Account]
	switch {
	case own == nil:
		return Status{}, &Failure{Err: ErrUnknownAccount}
	case own.account.Load().PerUser != (key.User != ""):
		return Status{}, &Failure{Err: ErrUnknownUser}
	case key.User == "":
		return own.Status(), nil
	}
	s, err := ss.glance(ctx, own, key)
	if err != nil {
		return Status{}, err
	}
	return s.Status(), nil
}

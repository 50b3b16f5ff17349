package oauth

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
)

// Sessions are the live sessions of one store. They outlive configurations:
// each [Sessions.Configure] changes what accounts there are, and keeps the
// tokens and the refreshes under way.
type Sessions struct {
	log   atomic.Pointer[slog.Logger]
	start time.Time
	turn  func(instant) instant // what a test makes the clocks show
	queue *queue
	store Store
	// instance names this installation, if the store knows.
	instance string
	notice   atomic.Pointer[StoreNotice] // what is wrong with the store, all that was mended
	observer observer

	// open ends when no new refresh may begin, ctx when those under way must
	// end.
	open, ctx         context.Context
	stopOpen, stopAll context.CancelFunc
	flights, loop     sync.WaitGroup
	takeOffs          sync.Mutex // no flight is added while Close begins to wait

	ready     chan struct{} // closed by the first Configure
	readyOnce sync.Once
	// byAccount is read on every request: never changed, only replaced.
	byAccount atomic.Pointer[map[string]*Session]

	logins logins
	users  users

	mu sync.Mutex // of Configure
	// every has removed accounts, too: one may come back while its tokens are
	// unsaved or its refresh is under way.
	every map[string]*Session
}

// NewSessions makes sessions without a store: calls wait for
// [Sessions.Configure].
func NewSessions(log *slog.Logger) *Sessions {
	ss := &Sessions{start: time.Now(), queue: newQueue(), ready: make(chan struct{}), every: map[string]*Session{}}
	ss.log.Store(log)
	ss.ctx, ss.stopAll = context.WithCancel(context.Background())
	ss.open, ss.stopOpen = context.WithCancel(ss.ctx)
	return ss
}

// LogTo changes where the sessions log to.
func (ss *Sessions) LogTo(log *slog.Logger) { ss.log.Store(log) }

// now reads both clocks.
func (ss *Sessions) now() instant {
	t := time.Now()
	now := instant{wall: t.Round(0), mono: t.Sub(ss.start)}
	if ss.turn != nil {
		return ss.turn(now)
	}
	return now
}

// Open hands over the store, which [Sessions.Close] closes. It must be called
// once, before the first Configure.
func (ss *Sessions) Open(store Store) {
	ss.store = store
	if w, ok := store.(WatchedStore); ok {
		ss.instance = w.Instance()
		w.Watch(ss.noteStore)
	}
	failpoint.Hit("sessions-opened")
	ss.loop.Go(ss.sweep)
	ss.loop.Go(func() { ss.queue.run(ss.open, ss.now, (*Session).look) })
}

// Configure replaces the accounts. A session whose account stays the same
// identity keeps its token, and no token request is made for it. Accounts that
// can sign in with nobody at hand do so in the background.
func (ss *Sessions) Configure(ctx context.Context, accounts []*Account) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	byAccount := make(map[string]*Session, len(accounts))
	for _, a := range accounts {
		s := ss.every[a.Name]
		if s == nil {
			s = ss.newSession(Key{Account: a.Name}, ss.newServer(a.Name))
			ss.every[a.Name] = s
		}
		s.configure(ctx, a)
		byAccount[a.Name] = s
	}
	for name, s := range ss.every {
		if byAccount[name] == nil {
			s.remove()
		}
	}
	ss.byAccount.Store(&byAccount)
	ss.users.configure(ctx, byAccount)
	failpoint.Hit("sessions-configured")
	ss.readyOnce.Do(func() { close(ss.ready) })
}

func (ss *Sessions) newSession(key Key, sv *server) *Session {
	s := &Session{key: key, sessions: ss, server: sv}
	s.item = queueItem{session: s, index: -1}
	return s
}

// configure gives the session its account and does what the change demands.
func (s *Session) configure(ctx context.Context, a *Account) {
	before := s.account.Swap(a)
	if before == nil {
		if err := s.load(ctx); err != nil {
			s.log().Error("loading the tokens", "error", err)
		}
	}
	failpoint.Hit("session-loaded")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own() && !a.PerUser {
		defer s.note()
	}
	s.removed = false
	now, r := s.sessions.now(), s.record()
	same := before != nil && before.fingerprint() == a.fingerprint()
	if !same {
		s.failure, s.failures, s.circuit, s.brake = nil, 0, circuit{}, brake{}
		s.token.Store(newToken(r.usable(), s.state.generation, now, a.RefreshAhead, s.jitter()))
	}
	if s.flight != nil {
		return // its end schedules
	}
	changed := s.failure != nil && !before.asks(a)
	if changed {
		s.failures, s.circuit = 0, circuit{} // what failed may be mended
	}
	if !s.own() || a.PerUser {
		if changed {
			s.failure = nil
		}
		s.schedule(now) // the next request sees to it
		return
	}
	if !same && s.token.Load().freshness(now) != Fresh || r.Intent != nil && !same || changed || s.releasable() {
		s.failure = nil
		s.start(flight{})
		return
	}
	s.schedule(now)
}

// asks reports whether b would be decided about as a is.
func (a *Account) asks(b *Account) bool {
	return a.OnLostReply == b.OnLostReply && a.Client.TokenEndpoint == b.Client.TokenEndpoint &&
		a.Client.Auth == b.Client.Auth && a.Grant.Type() == b.Grant.Type() && a.Grant.MayLogin(true) == b.Grant.MayLogin(true)
}

// remove takes note that the account is no longer configured.
func (s *Session) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = true
	s.schedule(s.sessions.now())
}

// Session returns the session of a key. A user's is made on demand; there is
// one also for a user without tokens. Before the first Configure it waits,
// bounded by ctx.
func (ss *Sessions) Session(ctx context.Context, key Key) (*Session, error) {
	m := ss.byAccount.Load()
	if m == nil {
		select {
		case <-ss.ready:
			m = ss.byAccount.Load()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	s := (*m)[key.Account]
	switch {
	case s == nil:
		return nil, &Failure{Err: ErrUnknownAccount}
	case s.account.Load().PerUser != (key.User != ""):
		return nil, &Failure{Err: ErrUnknownUser}
	case key.User == "":
		return s, nil
	}
	return ss.user(ctx, key)
}

// All returns the accounts' own sessions by account, or nil before the first Configure. The
// map is the caller's.
func (ss *Sessions) All() map[string]*Session {
	m := ss.byAccount.Load()
	if m == nil {
		return nil
	}
	return maps.Clone(*m)
}

// takeOff runs fly in its own goroutine unless the sessions are closing.
func (ss *Sessions) takeOff(fly func()) bool {
	ss.takeOffs.Lock()
	defer ss.takeOffs.Unlock()
	if ss.open.Err() != nil {
		return false
	}
	ss.flights.Go(fly)
	return true
}

// Close lets the refreshes under way finish until ctx ends, then breaks them
// off, and closes the store. No new ones begin.
func (ss *Sessions) Close(ctx context.Context) error {
	ss.takeOffs.Lock()
	ss.stopOpen()
	ss.takeOffs.Unlock()
	failpoint.Hit("drain-begun")
	ss.loop.Wait()
	landed := make(chan struct{})
	go func() {
		ss.flights.Wait()
		close(landed)
	}()
	select {
	case <-landed:
	case <-ctx.Done():
		ss.log.Load().Warn("a refresh is still under way at the end; its answer will be lost")
	}
	ss.stopAll()
	<-landed
	failpoint.Hit("drain-landed")
	if ss.store == nil {
		return nil
	}
	ss.saveLast()
	return ss.store.Close()
}

// saveLast tries once more to save what is in memory only: it ends with the
// process.
func (ss *Sessions) saveLast() {
	ctx, cancel := context.WithTimeout(context.Background(), saveAgain)
	defer cancel()
	last := func(s *Session) {
		if !s.known().unsaved {
			return
		}
		if unlock, err := ss.store.Lock(ctx, s.key); err == nil {
			_ = s.load(ctx) // settles what comes of it
			unlock()
		}
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.every {
		last(s)
	}
	ss.users.byKey.Range(func(_, s any) bool { last(s.(*Session)); return true })
}

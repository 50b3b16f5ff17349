package oauth

import (
	"sync"
	"sync/atomic"
	"time"
)

// This file is how a program watches its sessions.

// An EventKind is what happened, in one word.
type EventKind string

const (
	EventRefreshed           EventKind = "refreshed"            // there is a new token, by whatever grant
	EventLoginRequired       EventKind = "login_required"       // a person has to log in
	EventCredentialsRejected EventKind = "credentials_rejected" // the credentials or the configuration were refused
	EventRefreshExpiring     EventKind = "refresh_expiring"     // the refresh token's life ends soon
	EventDegraded            EventKind = "degraded"             // no token, or an unsaved one: waiting may mend it
	EventRecovered           EventKind = "recovered"            // it is ready again
	EventTokenRequest        EventKind = "token_request"        // a token request came to its end
)

// An Event tells of a session, or with an empty Key of the store. It holds no
// secret.
type Event struct {
	Kind EventKind
	Key  Key
	At   time.Time
	// State is what the session's status says at that moment: as long as a
	// token lives it is [StateReady], whatever comes after it.
	State State
	// Err and Detail say why, as a [Failure] does; of a store that is degraded,
	// Detail alone.
	Err    error
	Detail string
	// Until is when the access token expires (EventRefreshed) or the refresh
	// token (EventRefreshExpiring).
	Until time.Time
	// Grant is the grant_type (EventRefreshed, EventTokenRequest); Outcome and
	// Took are of the request.
	Grant   string
	Outcome Outcome
	Took    time.Duration
}

// An observer is whom the events go to.
type observer struct {
	tell atomic.Pointer[func(Event)]

	mu    sync.Mutex
	queue []Event
	busy  bool
}

// Observe has tell called for each event, with no lock held: changes of a
// session's condition one after another and in order, token requests as they
// end, at any time. tell must not block. Of a session's changes there is at
// most one a second, of which the last one counts; refreshes likewise. Call it
// before Open.
func (ss *Sessions) Observe(tell func(Event)) { ss.observer.tell.Store(&tell) }

// send queues an event: it is called with locks held.
func (o *observer) send(e Event) {
	tell := o.tell.Load()
	if tell == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, e)
	if !o.busy {
		o.busy = true
		go o.deliver(*tell)
	}
}

func (o *observer) deliver(tell func(Event)) {
	for {
		o.mu.Lock()
		events := o.queue
		o.queue = nil
		o.busy = len(events) > 0
		o.mu.Unlock()
		if len(events) == 0 {
			return
		}
		for _, e := range events {
			tell(e)
		}
	}
}

// measured takes note of a token request.
func (s *Session) measured(grant string, outcome Outcome, took time.Duration) {
	now := s.sessions.now()
	s.mu.Lock()
	s.remember(now).count(outcome == Granted)
	s.mu.Unlock()
	if tell := s.sessions.observer.tell.Load(); tell != nil {
		(*tell)(Event{Kind: EventTokenRequest, Key: s.key, At: now.wall, Grant: grant, Outcome: outcome, Took: took})
	}
}

// A condition is what a session's events are about: a kind, or none while all
// is well, and the cause.
type condition struct {
	kind EventKind
	err  error
}

// errUnsaved is the cause of a condition.
var errUnsaved = &Failure{Err: ErrStoreUnavailable, Detail: "the newest tokens could not be saved; they are in memory only"}

// conditionOf decides. Nothing is told of a session that rests, is about to
// ask, or has a token yet while its server is away.
func conditionOf(live, unsaved bool, failure *Failure) (condition, bool) {
	switch {
	case failure.is(ErrLoginRequired):
		return condition{EventLoginRequired, failure.Err}, true
	case failure.is(ErrCredentialsRejected, ErrMisconfigured):
		return condition{EventCredentialsRejected, failure.Err}, true
	case unsaved:
		return condition{EventDegraded, errUnsaved}, true
	case failure != nil && !live:
		return condition{EventDegraded, failure.Err}, true
	case failure == nil && live:
		return condition{}, true
	}
	return condition{}, false
}

// tellPause lies between two events of a session.
const tellPause = time.Second

// note tells what has become of the session, if that is news. Call it with mu.
func (s *Session) note() {
	if s.removed || s.sessions.open.Err() != nil {
		return // its account is no longer configured; or it is the end, which breaks things off
	}
	now := s.sessions.now()
	s.noteExpiring(now)
	t, failure := s.condition(now)
	c, ok := conditionOf(t != nil, s.state.unsaved, failure)
	if !ok || s.past == nil && c.kind == "" {
		return
	}
	p := s.remember(now)
	if c == p.told || p.delayed {
		return
	}
	if wait := tellPause - now.sub(p.toldAt); wait > 0 && !p.toldAt.wall.IsZero() {
		p.delayed = s.sessions.takeOff(func() { s.noteLater(wait) })
		return
	}
	e := Event{Kind: c.kind, Key: s.key, At: now.wall, State: s.stateNow(t, failure), Err: c.err}
	switch {
	case c.kind == "":
		e.Kind = EventRecovered
		s.log().Info("ready again", "after", p.told.kind)
	case c.err == errUnsaved:
		e.Err, e.Detail = errUnsaved.Err, errUnsaved.Detail
	default:
		e.Detail = failure.because()
	}
	p.told, p.toldAt = c, now
	p.note(happened{at: now, kind: e.Kind, detail: e.Detail})
	s.sessions.observer.send(e)
}

// noteLater is note after a pause, unless the sessions close before.
func (s *Session) noteLater(wait time.Duration) {
	if !sleep(s.sessions.open, wait) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past.delayed = false
	s.note()
}

// noteRefreshed tells of a new token.
func (s *Session) noteRefreshed(grant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.sessions.now()
	p := s.remember(now)
	p.note(happened{at: now, kind: EventRefreshed, detail: grant})
	if !p.refreshed.wall.IsZero() && now.sub(p.refreshed) < tellPause {
		return
	}
	p.refreshed = now
	t, failure := s.condition(now)
	e := Event{Kind: EventRefreshed, Key: s.key, At: now.wall, State: s.stateNow(t, failure), Grant: grant}
	if t != nil {
		e.Until = now.wall.Add(t.lifetime - now.sub(t.obtained))
	}
	s.sessions.observer.send(e)
}

// expiringBefore is how long before the end of a refresh token's life that is
// told; half of the life if that is shorter.
const expiringBefore = 30 * 24 * time.Hour

// noteExpiring tells, once for each, of a refresh token whose life ends. Call
// it with mu.
func (s *Session) noteExpiring(now instant) {
	a, r := s.account.Load(), s.record()
	if a.RefreshLifetime <= 0 || r.usable().RefreshToken.Empty() {
		return
	}
	obtained := r.Tokens.RefreshObtained
	ends := obtained.Add(a.RefreshLifetime)
	if ends.Sub(now.wall) > min(expiringBefore, a.RefreshLifetime/2) {
		return
	}
	p := s.remember(now)
	if p.expiring.Equal(obtained) {
		return
	}
	p.expiring = obtained
	detail := "the refresh token's life ends " + ends.UTC().Format(time.RFC3339)
	if !a.Grant.MayLogin(true) {
		detail += "; before that, " + s.failed(ErrLoginRequired, "").Hint
	}
	s.log().Warn("the refresh token will expire", "detail", detail)
	p.note(happened{at: now, kind: EventRefreshExpiring, detail: detail})
	t, failure := s.condition(now)
	s.sessions.observer.send(Event{
		Kind: EventRefreshExpiring, Key: s.key, At: now.wall, State: s.stateNow(t, failure), Detail: detail, Until: ends,
	})
}

// because is the failure's cause and what to do, without the words of its kind.
func (f *Failure) because() string {
	switch {
	case f.Hint == "":
		return f.Detail
	case f.Detail == "":
		return f.Hint
	}
	return f.Detail + "; " + f.Hint
}

// Unsaved reports whether some session's newest tokens are in memory only.
func (ss *Sessions) Unsaved() bool {
	for _, s := range ss.All() {
		if s.known().unsaved {
			return true
		}
	}
	unsaved := false
	ss.users.byKey.Range(func(_, s any) bool {
		unsaved = s.(*Session).known().unsaved
		return !unsaved
	})
	return unsaved
}

package oauth

import "time"

// This file is what a session remembers of the last day, for people who look:
// in memory only, and nothing until something happens.

// A History is what happened to a session since the process began, at most the
// last 24 hours.
type History struct {
	// Hours are by the clock, oldest first; the last one is under way.
	Hours [24]Hour
	// Recent are the last changes, oldest first.
	Recent []Happening
}

// An Hour counts the token requests of one hour.
type Hour struct {
	Start time.Time // UTC
	// Refreshes brought a token, sign-ins included; Failures brought none.
	Refreshes, Failures int
}

// A Happening is one change of a session's condition. Detail says how or why,
// and holds no secret; it may be empty.
type Happening struct {
	At     time.Time // UTC
	Kind   EventKind
	Detail string
}

// maxHappenings are remembered. Refreshes in a row count as one.
const maxHappenings = 10

// A past is the history in the form that is kept: a session of a user must
// stay small.
type past struct {
	at     instant      // when hours was turned last
	hours  [24]hourPast // by age: the first is the current one
	recent []happened

	// told is the last condition that an event was sent of; the next one may be
	// delayed. refreshed is when one told of a new token, expiring the refresh
	// token, by its beginning, whose end was told of.
	told      condition
	toldAt    instant
	delayed   bool
	refreshed instant
	expiring  time.Time
}

type hourPast struct{ refreshes, failures uint16 }

type happened struct {
	at     instant
	kind   EventKind
	detail string
}

// History tells what happened to the session lately.
func (s *Session) History() History {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.past.history(s.sessions.now())
}

func (p *past) history(now instant) History {
	var h History
	hour := now.wall.UTC().Truncate(time.Hour)
	for i := range h.Hours {
		h.Hours[i].Start = hour.Add(time.Duration(i+1-len(h.Hours)) * time.Hour)
	}
	if p == nil {
		return h
	}
	p.turn(now)
	for age, n := range p.hours {
		of := &h.Hours[len(h.Hours)-1-age]
		of.Refreshes, of.Failures = int(n.refreshes), int(n.failures)
	}
	for _, e := range p.recent {
		at := now.wall.Add(-max(0, now.sub(e.at))).UTC()
		h.Recent = append(h.Recent, Happening{At: at, Kind: e.kind, Detail: e.detail})
	}
	return h
}

// turn moves the hours on, by whichever clock went further: the wall clock may
// have been set back, the other one may have slept.
func (p *past) turn(now instant) {
	wall := now.wall.Truncate(time.Hour).Sub(p.at.wall.Truncate(time.Hour)) / time.Hour
	passed := max(wall, (now.mono-p.at.mono)/time.Hour)
	if passed <= 0 {
		return
	}
	p.at = now
	n := min(int(passed), len(p.hours))
	copy(p.hours[n:], p.hours[:len(p.hours)-n])
	clear(p.hours[:n])
}

// remember returns the session's past, made if there is none. Call it with mu.
func (s *Session) remember(now instant) *past {
	if s.past == nil {
		s.past = &past{at: now}
	}
	s.past.turn(now)
	return s.past
}

// count notes a token request.
func (p *past) count(brought bool) {
	n := &p.hours[0].failures
	if brought {
		n = &p.hours[0].refreshes
	}
	*n = max(*n, *n+1) // stays at its end
}

// note keeps a change. A refresh that follows a refresh takes its place, so
// that what matters stays.
func (p *past) note(e happened) {
	last := len(p.recent) - 1
	switch {
	case last >= 0 && e.kind == EventRefreshed && p.recent[last].kind == EventRefreshed:
		p.recent[last] = e
	case len(p.recent) == maxHappenings:
		copy(p.recent, p.recent[1:])
		p.recent[last] = e
	default:
		p.recent = append(p.recent, e)
	}
}

package oauth

import (
	"time"
)

// An instant is one moment on two clocks. The wall clock goes on while the
// machine sleeps but can jump; the monotonic one can't jump but may stop.
type instant struct {
	wall time.Time     // without monotonic reading
	mono time.Duration // since an arbitrary start
}

// sub returns the larger of the two distances: time has passed if either
// clock says so.
func (i instant) sub(o instant) time.Duration {
	return max(i.mono-o.mono, i.wall.Sub(o.wall))
}

func (i instant) before(o instant) bool { return i.sub(o) < 0 }

// add moves both clocks.
func (i instant) add(d time.Duration) instant {
	return instant{i.wall.Add(d), i.mono + d}
}

// at returns the instant of a wall clock time, seen from i.
func (i instant) at(wall time.Time) instant { return i.add(wall.Sub(i.wall)) }

// earliest goes by each clock for itself: what is due at either of two instants
// is due then.
func earliest(a, b instant) instant {
	if b.wall.Before(a.wall) {
		a.wall = b.wall
	}
	return instant{a.wall, min(a.mono, b.mono)}
}

// latest is an instant that comes before neither, by whatever clock.
func latest(a, b instant) instant {
	if b.wall.After(a.wall) {
		a.wall = b.wall
	}
	return instant{a.wall, max(a.mono, b.mono)}
}

// An anchor puts a stored time, which is one of the wall clock alone, on both
// clocks when it is seen first. From then on no jump moves it away.
type anchor struct {
	stored time.Time
	at     instant
}

// instant is a stored time that is at most so long ahead: if it is more, a
// clock is wrong or was, and nobody knows how much of the time has passed.
func (a *anchor) instant(stored time.Time, most time.Duration, now instant) instant {
	if a.at.wall.IsZero() || !a.stored.Equal(stored) {
		a.stored, a.at = stored, now.add(max(0, min(stored.Sub(now.wall), most)))
	}
	return a.at
}

// Freshness is what can be done with an access token.
type Freshness int

const (
	// Expired: it must not be used any more.
	Expired Freshness = iota
	// Stale: it can be used, and its successor should be on the way.
	Stale
	// Fresh: it can be used.
	Fresh
)

func (f Freshness) String() string {
	return [...]string{"expired", "stale", "fresh"}[f]
}

const (
	maxAhead      = 60 * time.Second
	maxLastPart   = 2 * time.Second
	lastShare     = 0.05
	aheadJitter   = 0.25
	minLifetime   = time.Second
	maxLifetime   = 24 * time.Hour
	keepAlivePart = 0.1
)

// A span says when, counted from the moment a token was obtained, it becomes
// stale and when it expires.
type span struct{ stale, expired time.Duration }

// spanOf plans the life of an access token. It becomes stale before its end by
// the smaller of share·lifetime and 60 s, earlier by up to a quarter of that
// as random (in [0,1)) says, but never before half of its life; it isn't used
// in its last 5 % or 2 s, whichever is less.
func spanOf(lifetime time.Duration, share, random float64) span {
	ahead := min(time.Duration(share*float64(lifetime)), maxAhead)
	ahead += time.Duration(aheadJitter * random * float64(ahead))
	ahead = min(ahead, lifetime/2)
	last := min(time.Duration(lastShare*float64(lifetime)), maxLastPart)
	return span{stale: lifetime - max(ahead, last), expired: lifetime - last}
}

// freshness decides what a token of age can be used for.
func (s span) freshness(age time.Duration) Freshness {
	switch {
	case age >= s.expired:
		return Expired
	case age >= s.stale:
		return Stale
	}
	return Fresh
}

// keepAliveAfter is how long an idle session waits until it refreshes to keep
// its refresh token from ageing out: keepAlive, earlier by up to a tenth.
func keepAliveAfter(keepAlive time.Duration, random float64) time.Duration {
	return keepAlive - time.Duration(keepAlivePart*random*float64(keepAlive))
}

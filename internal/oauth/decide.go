package oauth

import (
	"time"
)

// This file decides, as judge.go does; neither does anything. [nextMove] says
// what a session can do to get a token, [judge] what an answer means for it.

// A move is what a session does to get a token.
type move int

const (
	moveNone     move = iota // nothing helps but a change
	moveRefresh              // spend the refresh token
	moveFallback             // spend the one before it, see record.Fallback
	moveLogin                // sign in with nobody at hand
)

// A rule is what of an account the decisions depend on.
type rule struct {
	mayLogin    bool // the grant may sign in now with nobody at hand
	counted     bool // servers count sign-ins that fail, and lock the user out
	latched     bool // the record's latch holds what is configured now
	onLostReply OnLostReply
}

func (a *Account) rule(r record) rule {
	return rule{
		mayLogin:    a.Grant.MayLogin(r.SignedIn),
		counted:     a.Grant.Username() != "",
		latched:     r.Latch.holds(a),
		onLostReply: a.OnLostReply,
	}
}

const (
	// doubtTries refusals that don't say what they refuse, doubtPause apart
	// (over 30 s in all), count as a dead refresh token; then it is tried every
	// doubtProbe.
	doubtTries = 3
	doubtPause = 16 * time.Second
	doubtProbe = 10 * time.Minute
)

// A choice is a move, not before a time, or why there is none.
type choice struct {
	move move
	// notBefore is the earliest time, the end of a pause that is so long; zero
	// means at once.
	notBefore time.Time
	pause     time.Duration
	// err and detail say what a caller is told while nothing can be done.
	err    error
	detail string
}

const stopHint = "the answer to a refresh was lost and on_lost_reply is stop"

const foreignHint = "the store was copied or restored, so that its refresh token may be spent or in use elsewhere; " +
	"`caddy bearer adopt` uses it all the same"

// nextMove decides how a session without a usable token can get one.
func nextMove(r record, p rule) choice {
	switch {
	case r.LoggedOut:
		return choice{err: ErrLoginRequired, detail: "it was logged out"}
	case p.latched && r.Latch.All:
		return latchedChoice(r.Latch)
	}
	if !r.usable().RefreshToken.Empty() {
		return nextRefresh(r, p)
	}
	switch {
	case p.latched:
		return latchedChoice(r.Latch)
	case p.mayLogin:
		return nextLogin(r, p)
	case r.Holder != "":
		return choice{err: ErrLoginRequired, detail: foreignHint}
	case r.Dead != nil:
		return choice{err: ErrLoginRequired, detail: "the refresh token was refused (" + r.Dead.Code + ") at " + r.Dead.At.UTC().Format(time.RFC3339)}
	case !r.SignedIn:
		return choice{err: ErrLoginRequired, detail: "nobody has logged in yet"}
	}
	return choice{err: ErrLoginRequired, detail: "there is no refresh token"}
}

// nextLogin decides when to sign in. One whose outcome isn't known counts at
// some servers: the next ones come after pauses that outlast a restart.
func nextLogin(r record, p rule) choice {
	c := choice{move: moveLogin}
	if p.counted && r.Intent != nil && r.Intent.Grant != "refresh_token" {
		c.rest(r.Intent.Started, loginPause(r.Intent.Tries))
		c.err, c.detail = ErrUnavailable, "the outcome of the last sign-in isn't known; the next one waits"
	}
	return c
}

// rest makes a choice wait for a pause after a time.
func (c *choice) rest(after time.Time, pause time.Duration) {
	c.notBefore, c.pause = after.Add(pause), pause
}

const maxLoginPause = 5 * time.Minute

// loginPause follows so many sign-ins without a known outcome: 2 s, 4 s, 8 s,
// up to 5 min.
func loginPause(tries int) time.Duration {
	return min(time.Second<<min(tries, 16), maxLoginPause)
}

// nextRefresh decides where there is a refresh token.
func nextRefresh(r record, p rule) choice {
	login := p.mayLogin && !p.latched
	lost := r.Intent != nil && r.Intent.Grant == "refresh_token"
	switch {
	case r.Intent != nil && p.onLostReply == LostLogin && login:
		return choice{move: moveLogin}
	case lost && p.onLostReply == LostLogin && p.latched:
		return latchedChoice(r.Latch)
	case lost && p.onLostReply == LostStop:
		return choice{err: ErrLoginRequired, detail: stopHint}
	case r.Doubt == nil:
		return choice{move: moveRefresh}
	case r.Doubt.Count == doubtTries && !r.Fallback.Empty():
		return choice{move: moveFallback} // once; the candidate stays
	case r.Doubt.Count < doubtTries:
		c := choice{move: moveRefresh, err: ErrUnavailable, detail: "the refresh token was refused without a reason; it is tried again"}
		c.rest(r.Doubt.Last, doubtPause)
		return c
	case login:
		return choice{move: moveLogin}
	}
	c := choice{move: moveRefresh, err: ErrLoginRequired, detail: "the refresh token is refused without a reason; it is kept and tried every 10 min"}
	c.rest(r.Doubt.Last, doubtProbe)
	if p.latched {
		l := latchedChoice(r.Latch)
		c.err, c.detail = l.err, l.detail
	}
	return c
}

func latchedChoice(l *latch) choice {
	switch {
	case l.Misconfigured:
		return choice{err: ErrMisconfigured, detail: l.Detail + "; no further attempt until the configuration changes"}
	case l.All:
		return choice{err: ErrCredentialsRejected, detail: l.Detail + ": correct the client's credentials; no further attempt until they change"}
	}
	return choice{err: ErrCredentialsRejected, detail: l.Detail + ": correct the grant's credentials, such as user and password; no further attempt until they change"}
}

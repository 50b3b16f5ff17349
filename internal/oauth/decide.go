package oauth

import (
	"time"
)

// This file decides; it does nothing. [nextMove] says what a session can do to
// get a token, [judge] what an answer means for it.

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
	c := choice{err: ErrCredentialsRejected, detail: l.Detail + "; no further attempt until they change"}
	if l.Misconfigured {
		c.err = ErrMisconfigured
		c.detail = l.Detail + "; no further attempt until the configuration changes"
	}
	return c
}

// A verdict is what follows an answer. With neither err nor again there are
// tokens.
type verdict struct {
	err    error // what a caller is told
	detail string
	// again: decide anew at once; the record says how.
	again bool
	// pause before the next decision, where it is fixed.
	pause time.Duration
	// backOff: pause as long as the failures in a row demand.
	backOff bool
	// retryAfter is the least pause, as the server asked.
	retryAfter time.Duration
}

// judge decides what the answer to a move means for the record. r.Intent is
// the one that was written for the move, before the one it replaced.
func judge(r record, m move, before *intent, a Answer, p rule, now time.Time) (record, verdict) {
	switch a.Outcome {
	case Granted:
		return granted(r, m, a, now)
	case Unusable:
		return salvaged(r, m, a, now)
	case Away, NotTried:
		if m == moveLogin && p.counted && a.credentialsRefused() {
			return refused(r, before, a, p, now)
		}
		r.Intent = before // as if it had not been tried
		return r, verdict{err: ErrUnavailable, detail: a.Detail, backOff: true, retryAfter: a.RetryAfter}
	case Lost:
		return lost(r, m, a, p)
	}
	if m == moveLogin {
		return refused(r, before, a, p, now)
	}
	return refusedRefresh(r, m, a, p, now)
}

// spends is the refresh token that a move spends; empty for a sign-in.
func (r record) spends(m move) Secret {
	switch m {
	case moveRefresh:
		return r.usable().RefreshToken
	case moveFallback:
		return r.Fallback
	}
	return Secret{}
}

// salvaged is what follows an answer with a refresh token and faults: that
// token is the best there is, but the server may never have committed what
// broke off. So the one that was spent for it is kept.
func salvaged(r record, m move, a Answer, now time.Time) (record, verdict) {
	spent, fallback := r.spends(m), r.Fallback
	r, _ = granted(r, m, a, now)
	switch {
	case !spent.Equal(r.Tokens.RefreshToken):
		r.Fallback = spent
	case m == moveRefresh: // it shows the same one again
		r.Fallback = fallback
	}
	return r, verdict{err: ErrUnavailable, detail: a.Detail, backOff: true}
}

func granted(r record, m move, a Answer, now time.Time) (record, verdict) {
	old, spent := r.usable(), r.spends(m)
	r.Tokens, r.Holder, r.Fallback = a.Tokens, "", Secret{}
	r.Tokens.Obtained, r.Tokens.Lifetime = now, a.Lifetime
	r.Tokens.RefreshObtained = now
	if a.Tokens.RefreshToken.Empty() {
		r.Tokens.RefreshToken = spent // RFC 6749 §6
	}
	if r.Tokens.RefreshToken.Equal(old.RefreshToken) {
		r.Tokens.RefreshObtained = old.RefreshObtained
	}
	r.Intent, r.Dead, r.Doubt = nil, nil, nil
	if m == moveLogin || r.Latch != nil && r.Latch.All {
		r.Latch = nil // a refused password stays refused, whatever a refresh brings
	}
	if m == moveLogin {
		r.SignedIn, r.SignedInAt, r.LoggedOut = true, now, false
	}
	r.Refreshed = now
	return r, verdict{}
}

// refused is what follows a sign-in that was refused: no other attempt with
// the same credentials.
func refused(r record, before *intent, a Answer, p rule, now time.Time) (record, verdict) {
	r.Intent = nil
	if before != nil && before.Grant == "refresh_token" {
		r.Intent = before // that one's outcome is still unknown
	}
	r, v := r.latch(a, a.Outcome == Refused, now)
	p.latched = true
	if c := nextMove(r, p); c.move == moveRefresh || c.move == moveFallback {
		v.pause = max(c.notBefore.Sub(now), time.Second) // the refresh token may be good
	}
	return r, v
}

// latch holds further attempts back. Its key is set by who has the account.
func (r record) latch(a Answer, all bool, now time.Time) (record, verdict) {
	mis := isRegistrationCode(a.Code) && a.Code != "invalid_client"
	r.Latch = &latch{All: all, Misconfigured: mis, At: now, Detail: a.Detail}
	c := latchedChoice(r.Latch)
	return r, verdict{err: c.err, detail: c.detail}
}

// refusedRefresh is what follows a refused refresh token.
func refusedRefresh(r record, m move, a Answer, p rule, now time.Time) (record, verdict) {
	r.Intent = nil
	switch {
	case a.Outcome == Dead && m == moveFallback:
		r.Fallback = Secret{} // the candidate is what is left
	case a.Outcome == Dead && !r.Fallback.Empty():
		r.Tokens.RefreshToken, r.Fallback, r.Doubt = r.Fallback, Secret{}, nil
		return r, verdict{err: ErrUnavailable, detail: a.Detail, again: true}
	case a.Outcome == Dead:
		r.Dead = &tombstone{At: now, Code: a.Code}
		r.Tokens.RefreshToken = Secret{}
		r.Doubt = nil
	case a.Outcome == Refused:
		return r.latch(a, true, now)
	default: // ProbablyDead
		d := doubt{First: now}
		if r.Doubt != nil {
			d = *r.Doubt
		}
		d.Count, d.Last = d.Count+1, now
		r.Doubt = &d
	}
	c := nextMove(r, p)
	if c.move == moveLogin || c.move == moveFallback {
		return r, verdict{err: ErrUnavailable, detail: a.Detail, again: true}
	}
	v := verdict{err: c.err, detail: c.detail}
	if c.move == moveRefresh {
		v.pause = c.notBefore.Sub(now)
	}
	return r, v
}

// lost is what follows a request whose outcome isn't known. The intent stays.
func lost(r record, m move, a Answer, p rule) (record, verdict) {
	v := verdict{err: ErrUnavailable, detail: a.Detail, backOff: true, retryAfter: a.RetryAfter}
	if m == moveLogin && p.counted {
		v.retryAfter = max(v.retryAfter, loginPause(r.Intent.Tries))
		return r, v
	}
	if c := nextMove(r, p); m != moveLogin && c.move == moveLogin {
		v.again = true
	} else if c.move == moveNone {
		v = verdict{err: c.err, detail: c.detail}
	} else if quick, ok := replayPause(r.Intent.Tries); ok {
		v.again, v.pause, v.backOff = true, quick, false
	}
	return r, v
}

// replayPause is the pause before the replay that follows so many requests
// without a known outcome: none, 1 s, 5 s. A server that grants a grace to
// clients that lost an answer does so for seconds.
func replayPause(tries int) (time.Duration, bool) {
	pauses := [...]time.Duration{0, time.Second, 5 * time.Second}
	if tries < 1 || tries > len(pauses) {
		return 0, false
	}
	return pauses[tries-1], true
}

const (
	backOffBase = time.Second
	backOffCap  = 30 * time.Second
)

// backOff is the pause after so many failures in a row (from 1): exponential
// with full jitter, at least what the server asked for.
func backOff(failures int, retryAfter time.Duration, random float64) time.Duration {
	d := min(backOffBase<<min(failures-1, 16), backOffCap)
	d = time.Duration(random * float64(d))
	if retryAfter > 0 {
		return max(retryAfter+d/10, d)
	}
	return d
}

const (
	brakeBase = 60 * time.Second
	brakeCap  = 10 * time.Minute
)

// nextBrake is how long refreshes for the upstream's sake are held back, after
// the pause before.
func nextBrake(last time.Duration) time.Duration {
	if last == 0 {
		return brakeBase
	}
	return min(2*last, brakeCap)
}

package oauth

import (
	"time"
)

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
	r.SignedIn = true // an imported token is a sign-in, once it is known to be good
	if m == moveLogin {
		r.SignedInAt, r.LoggedOut = now, false
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

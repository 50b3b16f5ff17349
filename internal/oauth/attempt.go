package oauth

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
)

// attempt makes one move: durable intent, one token request, commit, publish.
func (s *Session) attempt(ctx context.Context, a *Account, r record, f *flight) verdict {
	p := a.rule(r)
	c := nextMove(r, p)
	if f.login {
		c = choice{move: moveLogin}
	}
	failpoint.Hit("move-decided")
	if v, ok := s.mayMove(a, c, f); !ok {
		return v
	}
	before := r.Intent
	r.Intent = &intent{Grant: a.grantOf(c.move), Started: s.sessions.now().wall, Tries: 1}
	if before != nil && before.Grant == r.Intent.Grant {
		r.Intent.Tries += before.Tries
	}
	latch := newLatch(a, r.Latch)
	failpoint.Hit("intent-unsaved")
	if !s.saveIntent(ctx, r) {
		return f.overtake()
	}
	failpoint.Hit("intent-saved")

	again := f.tried
	f.tried = true
	answer := s.ask(ctx, a, r, c.move)
	s.noteAnswer(f, again, answer)
	failpoint.Hit("request-answered")
	r, v := judge(r, c.move, before, answer, p, s.sessions.now().wall)
	if r.Latch != nil && r.Latch.Key == nil {
		r.Latch.Salt, r.Latch.Key, r.Latch.Former = latch.Salt, latch.Key, latch.Former
	}
	failpoint.Hit("answer-judged")
	s.rest(nextMove(r, a.rule(r)), s.sessions.now()) // a pause that begins does so on both clocks
	wins := c.move == moveLogin || answer.Outcome == Granted || answer.Outcome == Unusable
	if !s.saveResult(context.WithoutCancel(ctx), r, wins) {
		return f.overtake()
	}
	failpoint.Hit("result-saved")
	if answer.Outcome == Granted {
		s.watchScope(a, answer.Tokens.Scope)
		s.publish(a, s.tokenOf(a, r), f.rejected != nil)
		s.log().Info("got a token", "grant", a.grantOf(c.move), "generation", s.known().generation,
			"expires_in", answer.Lifetime, "new_refresh_token", !answer.Tokens.RefreshToken.Empty())
		s.noteRefreshed(a.grantOf(c.move))
	}
	return v
}

// overtake is what follows when somebody else saved the session's entry: a new
// decision, unless that happens again and again.
func (f *flight) overtake() verdict {
	const most = 5
	if f.overtaken++; f.overtaken > most {
		return verdict{err: ErrStoreUnavailable, detail: "the session's entry is changed all the time by somebody else", backOff: true}
	}
	return verdict{again: true}
}

// mayMove reports whether a move can be made now, or why not.
func (s *Session) mayMove(a *Account, c choice, f *flight) (verdict, bool) {
	switch {
	case c.move == moveNone:
		return verdict{err: c.err, detail: c.detail}, false
	case c.move == moveLogin && f.idle:
		return verdict{}, false // the next request signs in
	}
	if wait := s.rest(c, s.sessions.now()); wait > 0 && !f.forced {
		return verdict{err: c.err, detail: c.detail, pause: wait}, false
	}
	return s.admitted(a, f)
}

// rest is how long a choice still has to wait.
func (s *Session) rest(c choice, now instant) time.Duration {
	if c.notBefore.IsZero() {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return -now.sub(s.rested.instant(c.notBefore, c.pause, now))
}

// ask makes the one token request of a move.
func (s *Session) ask(ctx context.Context, a *Account, r record, m move) Answer {
	ctx, cancel := context.WithTimeout(ctx, a.RequestTimeout)
	defer cancel()
	start := time.Now()
	answer := Answer{Outcome: NotTried}
	if c, err := s.server.resolve(ctx, &a.Client, tokenEndpoint); err != nil {
		answer.Detail = err.Error()
	} else if m == moveLogin {
		answer = a.Grant.SignIn(ctx, c, a.Scope)
	} else {
		failpoint.Hit("endpoint-resolved")
		answer = c.refresh(ctx, r.spends(m), a.Scope)
	}
	s.assumeLifetime(a, &answer)
	s.measured(a.grantOf(m), answer.Outcome, time.Since(start))
	s.log().Debug("token request", "grant", a.grantOf(m), "outcome", answer.Outcome.String(),
		"status", answer.Status, "took", time.Since(start))
	return answer
}

// assumeLifetime gives an answer without a lifetime that of the account.
func (s *Session) assumeLifetime(a *Account, answer *Answer) {
	if answer.Outcome == Granted && answer.Lifetime == 0 {
		answer.Lifetime = a.DefaultLifetime
		s.log().Warn("the token answer has no usable expires_in", "assumed", a.DefaultLifetime)
	}
}

// watchScope warns, once for each, of an answer with less than what was asked
// for (RFC 6749 §5.1: an answer that tells no scope gives all of it).
func (s *Session) watchScope(a *Account, granted string) {
	has := strings.Fields(granted)
	var lacks []string
	for _, want := range strings.Fields(a.Scope) {
		if granted != "" && !slices.Contains(has, want) {
			lacks = append(lacks, want)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := strings.Join(lacks, " ")
	if missing != "" && missing != s.missing {
		s.log().Warn("the authorization server grants a narrower scope than was asked for", "missing", missing)
	}
	s.missing = missing
}

// grantOf is the grant_type of a move.
func (a *Account) grantOf(m move) string {
	if m == moveLogin {
		return a.Grant.Type()
	}
	return "refresh_token"
}

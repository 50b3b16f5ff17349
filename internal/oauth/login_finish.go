package oauth

import (
	"context"
	"strings"
	"time"
)

// This file is how a login comes to its end.

// A LoginFinish is a callback (RFC 6749 §4.1.2), and who brings it.
type LoginFinish struct {
	// Query is the callback's, raw.
	Query string
	// At is the URL where it arrived; what is behind its path doesn't matter.
	// Empty if that isn't known.
	At string
	// Browser and By are those of the [LoginStart].
	Browser Secret
	By      string
	// May tells whether By may still act for a session; nil: yes.
	May func(Key) bool
}

// FinishLogin takes the callback of a login. The code is sent once, whatever
// comes of it. That the caller leaves doesn't end what has begun.
func (ss *Sessions) FinishLogin(ctx context.Context, f LoginFinish) (*Login, error) {
	cb, err := readCallback(f.Query)
	if err != nil {
		return nil, &LoginError{ErrCallbackMalformed, strings.TrimPrefix(err.Error(), ErrCallbackMalformed.Error()+": ")}
	}
	p, err := ss.logins.take(cb.State, f, time.Now())
	if err != nil {
		if p != nil && p.terminal {
			err = &LoginError{ErrLoginTerminal, "give it the address of this page"}
		}
		return nil, err
	}
	done := make(chan error, 1)
	if !ss.takeOff(func() {
		err := p.session.finish(ss.ctx, p, cb)
		ss.logins.end(p, err)
		done <- err
	}) {
		return nil, &LoginError{ErrLoginFailed, ErrClosed.Error()}
	}
	l := &Login{ID: p.id, Key: p.session.key, Expires: p.ends}
	select {
	case l.Err = <-done:
		l.Done = true
		return l, l.Err
	case <-ctx.Done():
		return l, context.Cause(ctx)
	}
}

// finish checks the callback and exchanges its code.
func (s *Session) finish(ctx context.Context, p *pendingLogin, cb callback) error {
	c := &p.account.Client
	if err := s.server.checkIss(ctx, c, s.key.User, cb.Iss); err != nil {
		return err
	}
	if cb.Error != "" {
		return &LoginError{ErrLoginDenied, "it answered " + cb.Error}
	}
	s, release, err := s.hold(ctx)
	if err != nil {
		return &LoginError{ErrLoginChanged, "begin it again"}
	}
	defer release()
	// The secrets are those of now; the code goes where the login began.
	now, err := s.resolved(ctx, tokenEndpoint)
	if err != nil {
		return &LoginError{ErrLoginFailed, err.Error()}
	}
	if !s.unchanged(p.account) || c.TokenEndpoint != "" && now.Client.TokenEndpoint != c.TokenEndpoint {
		return &LoginError{ErrLoginChanged, "begin it again"}
	}
	c = &now.Client
	request, cancel := context.WithTimeout(ctx, now.RequestTimeout)
	defer cancel()
	start := time.Now()
	answer := p.exchange(request, c, cb.Code)
	s.measured(now.Grant.Type(), answer.Outcome, time.Since(start))
	if answer.Outcome == Granted {
		if err := p.checkIDToken(c, answer, time.Now()); err != nil {
			s.giveBack(c, answer)
			return &LoginError{ErrLoginFailed, "the id_token is not for this login: " + err.Error()}
		}
		if err := s.server.pin(ctx, c, s.key.User, cb.Iss); err != nil {
			s.giveBack(c, answer)
			return err
		}
	}
	return s.receive(now, answer)
}

// receive puts what a login brought in place of what the session has. Tokens
// that nobody will use are given back.
func (s *Session) receive(a *Account, answer Answer) error {
	err := s.keep(a, answer)
	if err != nil {
		s.giveBack(&a.Client, answer)
	}
	return err
}

// giveBack revokes what a login brought, as far as the server lets it.
func (s *Session) giveBack(c *Client, answer Answer) {
	if answer.Tokens.RefreshToken.Empty() && answer.Tokens.AccessToken.Empty() {
		return
	}
	ctx, cancel := context.WithTimeout(s.sessions.ctx, revokeTimeout)
	defer cancel()
	if err := c.revoke(ctx, answer.Tokens); err != nil {
		s.log().Warn("revoking the tokens of a login that came to nothing", "error", err)
	}
}

func (s *Session) keep(a *Account, answer Answer) error {
	switch {
	case answer.Code == "access_denied": // of a device (RFC 8628 §3.5)
		return &LoginError{ErrLoginDenied, "it answered " + answer.Code}
	case answer.Outcome != Granted:
		return &LoginError{ErrLoginFailed, answer.Detail}
	}
	s.assumeLifetime(a, &answer)
	ctx := s.sessions.ctx
	s, release, err := s.hold(ctx)
	if err != nil {
		return &LoginError{ErrLoginChanged, "begin it again"}
	}
	defer release()
	unlock, err := s.sessions.store.Lock(ctx, s.key)
	if err != nil {
		return &LoginError{ErrLoginFailed, "locking the session: " + err.Error()}
	}
	defer unlock()
	if err := s.load(ctx); err != nil {
		return &LoginError{ErrLoginFailed, err.Error()}
	}
	if !s.unchanged(a) {
		return &LoginError{ErrLoginChanged, "begin it again"}
	}
	r, _ := granted(s.known().records.of(a.fingerprint()), moveLogin, answer, s.sessions.now().wall)
	s.saveResult(ctx, r, true)
	s.publish(a, s.tokenOf(a, r), false)
	s.renewed()
	s.noteRefreshed(a.Grant.Type())
	s.log().Info("a person logged in", "grant", a.Grant.Type())
	return nil
}

// renewed takes back what stood in the way of a session that has tokens now.
func (s *Session) renewed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure, s.failures, s.circuit, s.brake = nil, 0, circuit{}, brake{}
	s.quiet.Store(0)
	s.schedule(s.sessions.now())
	s.note()
}

// unchanged reports whether the session is still configured as the login that
// began with a.
func (s *Session) unchanged(a *Account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.account.Load()
	return !s.removed && now.fingerprint() == a.fingerprint() && now.Grant.Type() == a.Grant.Type()
}

// LookUpLogin returns a login that began, until it expires.
func (ss *Sessions) LookUpLogin(id string) (*Login, error) {
	p, ok := ss.logins.find(id, time.Now())
	if !ok {
		return nil, &LoginError{ErrLoginUnknown, "it has expired"}
	}
	return &Login{ID: p.id, Key: p.session.key, Device: p.prompt, Expires: p.ends, Done: p.done, Err: p.err}, nil
}

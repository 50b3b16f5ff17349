package oauth

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"
)

// This file is how a person logs in.

// Why a login came to nothing. A [LoginError] carries one of them, or
// [ErrCallbackMalformed], or [ErrIssuerMismatch].
var (
	// ErrLoginUnknown: no login waits for this callback: it has expired, was
	// used, or never began.
	ErrLoginUnknown = errors.New("no such login is waiting")
	// ErrLoginForeign: another browser or another user began the login.
	ErrLoginForeign = errors.New("the login was begun by somebody else")
	// ErrLoginTerminal: the login was begun on the command line, which waits for
	// the callback's address.
	ErrLoginTerminal = errors.New("the login was begun on the command line")
	// ErrLoginDenied: the authorization server answered with an error.
	ErrLoginDenied = errors.New("the authorization server refused the login")
	// ErrLoginFailed: the tokens could not be got.
	ErrLoginFailed = errors.New("the login failed")
	// ErrLoginChanged: the account's configuration changed meanwhile.
	ErrLoginChanged = errors.New("the account's configuration changed during the login")
	// ErrNoLogin: the account's grant has no login of this kind.
	ErrNoLogin = errors.New("the account's grant has no such login")
)

// A LoginError says why a login came to nothing.
type LoginError struct {
	Err error
	// Detail is what a person reads: what happened and what to do. It holds no
	// secret and no text of the server but a checked error code and, cut and
	// printable, an iss.
	Detail string
}

func (e *LoginError) Error() string { return e.Err.Error() + ": " + e.Detail }
func (e *LoginError) Unwrap() error { return e.Err }

// A LoginStart is who begins a login.
type LoginStart struct {
	// RedirectURI takes the place of the account's, for a command line that
	// listens on a port of its own (RFC 8252 §7.3). Empty: the account's.
	RedirectURI string
	// Browser binds the login to the one who began it: the callback has to
	// bring it again.
	Browser Secret
	// By is the portal's user who begins it; empty on the command line.
	By string
	// Terminal: a command line began it, and waits for the callback's address.
	Terminal bool
}

// A Login is one that began.
type Login struct {
	// ID is a handle to watch it by. It proves nothing.
	ID  string
	Key Key
	// URL is where the browser goes; empty for a device.
	URL string
	// Device is what the person is shown; nil for a browser.
	Device  *DevicePrompt
	Expires time.Time
	// Done tells that it came to its end; Err, that it came to nothing.
	Done bool
	Err  error
}

// PersonLogin reports whether the account's grant needs a person to log in.
func (a *Account) PersonLogin() bool {
	switch a.Grant.(type) {
	case *AuthorizationCode, DeviceCode:
		return true
	}
	return false
}

// BeginLogin begins a login of a person: with a browser (authorization_code) or
// by a code to enter elsewhere (device_code). Nothing changes for the session
// until it succeeds.
func (s *Session) BeginLogin(ctx context.Context, start LoginStart) (*Login, error) {
	ctx, cancel := context.WithTimeout(ctx, s.account.Load().RequestTimeout)
	defer cancel()
	a, err := s.resolved(ctx, func(c *Client) string {
		if s.account.Load().Grant.Type() == (DeviceCode{}).Type() {
			return c.DeviceEndpoint
		}
		return c.AuthorizeEndpoint
	})
	if err != nil {
		return nil, &LoginError{ErrLoginFailed, err.Error()}
	}
	now := time.Now()
	p := &pendingLogin{
		id: newID(), session: s, account: a, by: start.By, terminal: start.Terminal, browser: hash(start.Browser), ends: now.Add(loginLifetime), expires: now.Add(loginLifetime),
	}
	l := &Login{ID: p.id, Key: s.key}
	switch g := a.Grant.(type) {
	case *AuthorizationCode:
		if start.Browser.Empty() {
			return nil, &LoginError{ErrLoginFailed, "nothing binds it to the browser that begins it"}
		}
		if a.Client.AuthorizeEndpoint == "" {
			return nil, &LoginError{ErrLoginFailed, "the server's metadata has no authorization endpoint; set authorize_endpoint"}
		}
		redirectURI := start.RedirectURI
		if redirectURI == "" {
			redirectURI = g.RedirectURI
		}
		p.arrives = redirectURI
		if l.URL, p.authorization, err = g.url(&a.Client, a.Scope, redirectURI); err != nil {
			return nil, &LoginError{ErrLoginFailed, "authorize_endpoint is no URL"}
		}
	case DeviceCode:
		if err := s.beginDevice(ctx, p, now); err != nil {
			return nil, err
		}
		l.Device = p.prompt
	default:
		return nil, &LoginError{ErrNoLogin, "grant " + a.Grant.Type() + " needs no person, or takes tokens by `caddy bearer import`"}
	}
	l.Expires = p.ends
	s.sessions.logins.add(p, now)
	return l, nil
}

// resolved returns the account with its secrets as they are now and its
// endpoints.
func (s *Session) resolved(ctx context.Context, needed endpointOf) (*Account, error) {
	a := s.account.Load().now()
	c, err := s.server.resolve(ctx, &a.Client, needed)
	if err != nil {
		return nil, err
	}
	a.Client = *c
	return a, nil
}

// beginDevice asks for a device code, and then for tokens until the person is
// done.
func (s *Session) beginDevice(ctx context.Context, p *pendingLogin, now time.Time) error {
	c := &p.account.Client
	if c.DeviceEndpoint == "" {
		return &LoginError{ErrLoginFailed, "the server's metadata has no device endpoint; set device_endpoint"}
	}
	d, err := c.authorizeDevice(ctx, p.account.Scope)
	if err != nil {
		return &LoginError{ErrLoginFailed, err.Error()}
	}
	p.prompt, p.ends = &d.prompt, now.Add(min(d.lifetime, loginLifetime-time.Minute))
	waiting, cancel := context.WithDeadline(s.sessions.open, p.ends)
	p.cancel = cancel
	if !s.sessions.takeOff(func() {
		defer cancel()
		answer := d.poll(waiting, s.sessions.ctx, c, p.account.RequestTimeout)
		s.measured(p.account.Grant.Type(), answer.Outcome, 0)
		s.sessions.logins.end(p, s.receive(p.account, answer))
	}) {
		return &LoginError{ErrLoginFailed, ErrClosed.Error()}
	}
	return nil
}

// Login signs in a session whose grant needs no person: one attempt, whatever
// was refused before.
func (s *Session) Login(ctx context.Context) error {
	if g := s.account.Load().Grant; s.account.Load().PersonLogin() || g.Type() == "refresh_token" {
		return &LoginError{ErrNoLogin, "grant " + g.Type() + " can't sign in by itself"}
	}
	return s.refresh(ctx, flight{forced: true, login: true})
}

// browsable reports whether a person's browser may be sent to a URL: https, or
// http on this machine.
func browsable(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.User != nil || len(text) > 4096 || !isVisible(text) || !isHostname(u.Hostname()) {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())
}

// shown is text of the other side as it may be shown: short and printable.
func shown(text string) string {
	text = strings.Map(printable, text)
	return strings.ToValidUTF8(text[:min(len(text), 200)], "")
}

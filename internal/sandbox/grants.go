package sandbox

import (
	"net/http"
	"time"
)

// A tokenRequest is a request to the token endpoint. The grant notes in event
// what it learns about the token presented.
type tokenRequest struct {
	form  map[string]string
	base  string // the server's own URL, without a path
	play  behaviour
	event *Event
}

// A grantFunc carries out one grant type. It is called with s.mu held and the
// client authenticated.
type grantFunc func(*Sandbox, *tokenRequest) (pair, *refusal)

var grants = map[string]grantFunc{
	"password":           (*Sandbox).grantPassword,
	"refresh_token":      (*Sandbox).grantRefresh,
	"client_credentials": (*Sandbox).grantClientCredentials,
	"authorization_code": (*Sandbox).grantCode,
	deviceGrant:          (*Sandbox).grantDevice,
}

// grantPassword is RFC 6749 §4.3, and Aidbox's variant with a code.
func (s *Sandbox) grantPassword(tr *tokenRequest) (pair, *refusal) {
	username, password := tr.form["username"], tr.form["password"]
	if username == "" || password == "" {
		return pair{}, invalidRequest("username or password is missing")
	}
	if s.secureCodes() {
		if refused := s.spendSecureCode(tr.form["code"]); refused != nil {
			return pair{}, refused
		}
	}
	if refused := s.checkPassword(username, password); refused != nil {
		return pair{}, refused
	}
	f := s.newLogin(username, tr.form["scope"])
	return s.issueLogin(f, tr, tr.form["nonce"]), nil
}

// grantClientCredentials is RFC 6749 §4.4: there is no refresh token.
func (s *Sandbox) grantClientCredentials(tr *tokenRequest) (pair, *refusal) {
	return s.issue(s.newLogin("", tr.form["scope"]), nil, "", keepMute), nil
}

// grantRefresh is RFC 6749 §6, with the provider's rotation.
func (s *Sandbox) grantRefresh(tr *tokenRequest) (pair, *refusal) {
	token := tr.form["refresh_token"]
	if token == "" {
		return pair{}, invalidRequest("refresh_token is missing")
	}
	t := s.tokens.findRefresh(token)
	if t == nil {
		return pair{}, invalidGrant("unknown refresh token")
	}
	f, e := t.family, tr.event
	e.Family, e.Generation = f.name(), t.generation
	e.Presented = tokenName(f, t.generation)
	s.tellUser(e, f)
	if f.scope != "" && !within(tr.form["scope"], f.scope) {
		return pair{}, &refusal{http.StatusBadRequest, "invalid_scope", "the scope exceeds that of the login"}
	}
	if s.inactive[f.user] {
		return pair{}, invalidGrant("User is inactive")
	}
	if most := s.config.MaxRefreshes; most > 0 && f.refreshes >= most {
		return pair{}, invalidGrant("the refresh token has been used as often as it may")
	}
	ok, reused := t.spend(time.Now(), s.config.Grace)
	if reused {
		e.Committed = true
		return pair{}, invalidGrant("the refresh token was used before; all tokens of this login are revoked")
	}
	if !ok {
		return pair{}, invalidGrant("the refresh token is revoked")
	}
	mode := tr.play.mode
	if mode == rotate {
		mode = s.provider.refresh
	}
	f.refreshes++
	return s.issue(f, t, token, mode), nil
}

// newLogin begins a family for a user, or for the client itself if empty.
func (s *Sandbox) newLogin(user, scope string) *family {
	f := s.tokens.newFamily()
	f.user, f.scope = user, scope
	return f
}

// issueLogin grants the first pair of a login: with a refresh token unless the
// rules say otherwise, and with an id_token if openid was asked for.
func (s *Sandbox) issueLogin(f *family, tr *tokenRequest, nonce string) pair {
	mode := tr.play.mode
	c := s.config
	withheld := s.provider.offlineAccess && !c.AlwaysRefreshToken && !hasScope(f.scope, "offline_access", "offline")
	if mode == rotate && (withheld || c.MaxRefreshes < 0) {
		mode = keepMute
	}
	p := s.issue(f, nil, "", mode)
	if s.provider.openid && hasScope(f.scope, "openid") {
		p.idToken = s.newIDToken(f, tr, nonce, time.Now())
	}
	return p
}

func (s *Sandbox) issue(f *family, presented *refreshToken, token string, mode refreshMode) pair {
	now := time.Now()
	p := pair{mode: mode, access: s.provider.accessToken(now, s.config.TokenLifetime)}
	switch mode {
	case rotate:
		p.refresh = s.provider.refreshToken()
	case keepSame:
		p.refresh = token
	}
	return s.tokens.issue(f, presented, p, s.config, now)
}

// within says whether every scope asked for is among those granted.
func within(asked, granted string) bool {
	for _, token := range splitScope(asked) {
		if !hasScope(granted, token) {
			return false
		}
	}
	return true
}

package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// A Logout is what came of one.
type Logout struct {
	// Revoked: the server ended the tokens.
	Revoked bool
	// Detail says why it did not; empty if there was nothing to revoke.
	Detail string
}

// revokeTimeout bounds how long a logout waits for the server.
const revokeTimeout = 10 * time.Second

// Logout ends the session: the server is told to revoke the tokens (RFC 7009),
// and they are dropped here even if it can't be. It stays out until a login.
func (s *Session) Logout(ctx context.Context) (Logout, error) {
	s, release, err := s.hold(ctx)
	if err != nil {
		return Logout{}, err
	}
	defer release()
	unlock, err := s.sessions.store.Lock(ctx, s.key)
	if err != nil {
		return Logout{}, err
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx) // once begun, it is done
	if err := s.load(ctx); err != nil {
		return Logout{}, err
	}
	s.mu.Lock()
	tokens, fallback := s.record().usable(), s.record().Fallback
	s.mu.Unlock()
	out := s.revoke(ctx, tokens)
	if out.Revoked && !fallback.Empty() && !s.account.Load().Client.DeleteSession {
		out = s.revoke(ctx, TokenSet{RefreshToken: fallback}) // whichever of the two the server knows
	}
	if err := s.drop(ctx, true); err != nil {
		return out, err
	}
	s.log().Info("logged out", "revoked", out.Revoked, "detail", out.Detail)
	return out, nil
}

func (s *Session) revoke(ctx context.Context, tokens TokenSet) Logout {
	if tokens.RefreshToken.Empty() && tokens.AccessToken.Empty() {
		return Logout{}
	}
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	a, err := s.resolved(ctx, revokeEndpoint)
	if err != nil {
		return Logout{Detail: err.Error()}
	}
	c := &a.Client
	if c.DeleteSession && s.Current() == nil && !tokens.RefreshToken.Empty() {
		// Only a live access token ends a session there.
		if answer := c.refresh(ctx, tokens.RefreshToken, a.Scope); answer.Outcome == Granted {
			tokens = answer.Tokens
		}
	}
	if err := c.revoke(ctx, tokens); err != nil {
		return Logout{Detail: err.Error()}
	}
	return Logout{Revoked: true}
}

// revoke ends tokens at the server: the refresh token, with which the access
// tokens end at most servers, or else the access token (RFC 7009 §2.1).
func (c *Client) revoke(ctx context.Context, tokens TokenSet) error {
	if c.RevokeEndpoint == "" {
		return errors.New("there is no revocation endpoint, name the server's as revoke_endpoint if it has one; its tokens live on until they expire")
	}
	if c.DeleteSession {
		return c.deleteSession(ctx, tokens.AccessToken)
	}
	params := url.Values{"token": {tokens.RefreshToken.Reveal()}, "token_type_hint": {"refresh_token"}}
	if tokens.RefreshToken.Empty() {
		params = url.Values{"token": {tokens.AccessToken.Reveal()}, "token_type_hint": {"access_token"}}
	}
	e, err := c.send(ctx, c.RevokeEndpoint, params, false)
	if err != nil {
		return err
	}
	return e.revoked()
}

// deleteSession ends the session that an access token belongs to (Aidbox).
func (c *Client) deleteSession(ctx context.Context, token Secret) error {
	if token.Empty() {
		return errors.New("there is no access token to end the session with; it lives on at the server until it expires")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, c.RevokeEndpoint, nil)
	if err != nil {
		return errors.New("revoke_endpoint is no URL")
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	plain := *c
	plain.Auth = AuthNone
	e := &exchange{client: &plain}
	_, _ = e.RoundTrip(req)
	return e.revoked()
}

// revoked reports whether the server said yes (RFC 7009 §2.2).
func (e *exchange) revoked() error {
	switch {
	case e.reply == nil && e.err == nil:
		return errors.New("the revocation could not be asked for: is revoke_endpoint right?")
	case e.reply == nil:
		return fmt.Errorf("the revocation endpoint did not answer: %s", wireError(e.err))
	case e.reply.StatusCode == http.StatusOK || e.reply.StatusCode == http.StatusNoContent:
		return nil
	case e.reply.StatusCode == http.StatusServiceUnavailable:
		return errors.New("the revocation endpoint answered 503: the tokens may still be valid")
	}
	return fmt.Errorf("the revocation endpoint answered %d %s", e.reply.StatusCode, readMembers(e.body).code)
}

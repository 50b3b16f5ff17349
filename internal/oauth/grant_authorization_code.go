package oauth

import (
	"context"
	"net/url"
	"strings"
	"time"
)

// AuthorizationCode is the authorization code grant (RFC 6749 §4.1): a person
// signs in with a browser, see [Session.BeginLogin].
type AuthorizationCode struct {
	needsPerson
	// RedirectURI is where the browser comes back to, byte for byte as it is
	// registered.
	RedirectURI string
	// OmitRedirectURI leaves it out of both requests (RFC 6749 §3.1.2.3).
	OmitRedirectURI bool
	// PKCE sends a challenge with the method S256 (RFC 7636). There is no fall-
	// back: a server that refuses it refuses the login.
	PKCE bool
	// Prompt is sent along (OIDC Core §3.1.2.1); may be empty.
	Prompt string
}

func (*AuthorizationCode) Type() string { return "authorization_code" }
func (g *AuthorizationCode) Now() Grant { return g }

// authorization is one authorization request: what has to come back, and what
// the code is exchanged with.
type authorization struct {
	state, verifier, nonce Secret
	redirectURI            string // empty: left out
}

// url returns the authorization request (RFC 6749 §4.1.1) as URL; the query
// that the endpoint has stays (§3.1).
func (g *AuthorizationCode) url(c *Client, scope, redirectURI string) (string, authorization, error) {
	u, err := url.Parse(c.AuthorizeEndpoint)
	if err != nil {
		return "", authorization{}, err
	}
	q := u.Query()
	var a authorization
	a.state, _ = newVerifier()
	q.Set("response_type", "code")
	q.Set("client_id", c.ID)
	q.Set("state", a.state.Reveal())
	if !g.OmitRedirectURI {
		a.redirectURI = redirectURI
		q.Set("redirect_uri", redirectURI)
	}
	if scope != "" {
		q.Set("scope", scope)
	}
	if g.PKCE {
		verifier, challenge := newVerifier()
		a.verifier = verifier
		q.Set("code_challenge", challenge)
		q.Set("code_challenge_method", "S256")
	}
	if g.Prompt != "" {
		q.Set("prompt", g.Prompt)
	}
	if wantsIDToken(scope) {
		a.nonce, _ = newVerifier()
		q.Set("nonce", a.nonce.Reveal())
	}
	u.RawQuery = q.Encode()
	return u.String(), a, nil
}

// exchange spends the code (RFC 6749 §4.1.3). It makes exactly one request.
func (a authorization) exchange(ctx context.Context, c *Client, code Secret) Answer {
	params := url.Values{"grant_type": {"authorization_code"}, "code": {code.Reveal()}}
	if a.redirectURI != "" {
		params.Set("redirect_uri", a.redirectURI)
	}
	if !a.verifier.Empty() {
		params.Set("code_verifier", a.verifier.Reveal())
	}
	return c.request(ctx, params)
}

// wantsIDToken reports whether the answer has to bring an id_token (OIDC Core
// §3.1.2.1).
func wantsIDToken(scope string) bool {
	for value := range strings.FieldsSeq(scope) {
		if value == "openid" {
			return true
		}
	}
	return false
}

// checkIDToken looks at the id_token of an answer as far as OIDC Core §3.1.3.7
// asks of a client that got it from the token endpoint itself. After that it
// is of no use: nothing is built on it.
func (a authorization) checkIDToken(c *Client, answer Answer, now time.Time) error {
	if a.nonce.Empty() {
		return nil
	}
	return checkIDToken(answer.idToken, idTokenRules{Issuer: c.Issuer, ClientID: c.ID, Nonce: a.nonce.Reveal()}, now)
}

// needsPerson are the answers of a grant that can't sign in with nobody at
// hand.
type needsPerson struct{}

func (needsPerson) Username() string   { return "" }
func (needsPerson) MayLogin(bool) bool { return false }
func (needsPerson) Secrets() []Secret  { return nil }

// SignIn is never asked for: MayLogin forbids it.
func (needsPerson) SignIn(context.Context, *Client, string) Answer {
	return Answer{Outcome: Away, Detail: "a person has to log in"}
}

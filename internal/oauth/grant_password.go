package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// Password is the resource owner password credentials grant (RFC 6749 §4.3).
// RFC 9700 §2.4 forbids it to new designs; it is here for the servers that
// offer nothing else to a machine.
type Password struct {
	// User and Secret are read before each attempt.
	User, Secret SecretFunc
	// Relogin allows further sign-ins after the first one.
	Relogin bool
	// SecureCode, if not empty, is the redirect URI of Aidbox's secure code: a
	// code is fetched first, and sent along.
	SecureCode string
}

func (p *Password) Type() string             { return "password" }
func (p *Password) Username() string         { return p.User().Reveal() }
func (p *Password) MayLogin(again bool) bool { return p.Relogin || !again }
func (p *Password) Secrets() []Secret        { return []Secret{p.User(), p.Secret()} }

// Now reads both secrets once.
func (p *Password) Now() Grant {
	n := *p
	n.User, n.Secret = p.User.now(), p.Secret.now()
	return &n
}

func (p *Password) SignIn(ctx context.Context, c *Client, scope string) Answer {
	params := url.Values{
		"grant_type": {p.Type()},
		"username":   {p.User().Reveal()},
		"password":   {p.Secret().Reveal()},
	}
	if scope != "" {
		params.Set("scope", scope)
	}
	if p.SecureCode != "" {
		code, err := c.secureCode(ctx, p.SecureCode)
		if err != nil {
			// The password was not sent: this was no attempt.
			return Answer{Outcome: NotTried, Detail: "fetching the secure code: " + err.Error()}
		}
		params.Set("code", code.Reveal())
	}
	return c.request(ctx, params)
}

// secureCode fetches the code that Aidbox wants beside a password. It stands in
// the fragment of a redirect that is read and not followed.
func (c *Client) secureCode(ctx context.Context, redirectURI string) (Secret, error) {
	u, err := url.Parse(c.AuthorizeEndpoint)
	if err != nil {
		return Secret{}, errors.New("authorize_endpoint is no URL")
	}
	state, _ := newVerifier()
	q := u.Query()
	q.Set("grant_type", "password")
	q.Set("client_id", c.ID)
	q.Set("state", state.Reveal())
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Secret{}, errors.New("authorize_endpoint is no URL")
	}
	req.Header.Set("User-Agent", userAgent)
	res, err := c.Transport.RoundTrip(req)
	if err != nil {
		return Secret{}, errors.New("the authorization endpoint did not answer: " + wireError(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusFound {
		return Secret{}, fmt.Errorf("the authorization endpoint answered %d, not 302: is the client registered with a redirect_uri?", res.StatusCode)
	}
	return readFragment(res.Header.Get("Location"), redirectURI, state.Reveal())
}

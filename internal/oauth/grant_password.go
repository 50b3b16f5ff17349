package oauth

import (
	"context"
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
}

func (p *Password) Type() string             { return "password" }
func (p *Password) Username() string         { return p.User().Reveal() }
func (p *Password) MayLogin(again bool) bool { return p.Relogin || !again }
func (p *Password) Secrets() []Secret        { return []Secret{p.User(), p.Secret()} }

// Now reads both secrets once.
func (p *Password) Now() Grant {
	return &Password{User: p.User.now(), Secret: p.Secret.now(), Relogin: p.Relogin}
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
	return c.request(ctx, params)
}

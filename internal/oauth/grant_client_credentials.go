package oauth

import (
	"context"
	"net/url"
)

// ClientCredentials is the client credentials grant (RFC 6749 §4.4): the
// client acts for itself. As a rule there is no refresh token; the next access
// token comes from the next sign-in.
type ClientCredentials struct{}

func (ClientCredentials) Type() string       { return "client_credentials" }
func (ClientCredentials) Username() string   { return "" }
func (ClientCredentials) MayLogin(bool) bool { return true }
func (ClientCredentials) Secrets() []Secret  { return nil }

func (g ClientCredentials) Now() Grant { return g }

func (g ClientCredentials) SignIn(ctx context.Context, c *Client, scope string) Answer {
	params := url.Values{"grant_type": {g.Type()}}
	if scope != "" {
		params.Set("scope", scope)
	}
	return c.request(ctx, params)
}

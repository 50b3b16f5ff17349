package oauth

import (
	"slices"
	"time"
)

// A Provider is a named preset of an authorization server: a row of data. What
// it leaves empty, the account sets.
type Provider struct {
	Name string
	// Argument says what the preset needs to be told: a base URL, that the
	// endpoints are relative to, or an issuer, whose metadata has them.
	Argument Argument
	// AuthorizeEndpoint, TokenEndpoint and RevokeEndpoint are absolute URLs
	// (RFC 6749 §3.1, §3.2; RFC 7009 §2), or paths under the base URL.
	AuthorizeEndpoint, TokenEndpoint, RevokeEndpoint string
	// DeleteSession: see [Client].
	DeleteSession bool
	// PinIssuer: see [Client].
	PinIssuer bool
	// NoPKCE: the server doesn't know PKCE (RFC 7636).
	NoPKCE bool
	// Upstream is the URL of the API that the tokens are for. A server with a
	// base URL has its API there.
	Upstream string
	// ClientAuths are the ways of client authentication that the server
	// takes; the first is the default.
	ClientAuths []ClientAuth
	// PublicPassword: a public client may use the password grant.
	PublicPassword bool
	// RefreshLifetime is how long a refresh token lives; 0 if not known.
	RefreshLifetime time.Duration
}

// An Argument is what a preset needs to be told.
type Argument string

const (
	NoArgument     Argument = ""
	BaseArgument   Argument = "base URL"
	IssuerArgument Argument = "issuer"
)

const year = 365 * 24 * time.Hour

var (
	basicAuths = []ClientAuth{AuthBasic, AuthBasicRaw}
	// AllClientAuths are all ways of client authentication.
	AllClientAuths = []ClientAuth{AuthBasic, AuthBasicRaw, AuthPost, AuthPrivateKeyJWT, AuthTLS, AuthNone}
)

// Providers are the presets, by name.
var Providers = []Provider{
	{
		Name:              "pagero",
		AuthorizeEndpoint: "https://sso.pageroonline.com/oauth/v2/oauth-authorize",
		TokenEndpoint:     "https://sso.pageroonline.com/oauth/v2/oauth-token",
		RevokeEndpoint:    "https://sso.pageroonline.com/oauth/v2/oauth-revoke",
		PinIssuer:         true,
		Upstream:          "https://api.pageroonline.com",
		ClientAuths:       []ClientAuth{AuthBasic, AuthBasicRaw, AuthPost},
		RefreshLifetime:   3 * year,
	},
	{
		Name:              "pagero_legacy",
		AuthorizeEndpoint: "https://auth.pageroonline.com/oauth2/authorize",
		TokenEndpoint:     "https://auth.pageroonline.com/oauth2/token",
		NoPKCE:            true,
		Upstream:          "https://api.pageroonline.com",
		ClientAuths:       basicAuths,
		RefreshLifetime:   1 * year,
	},
	{
		Name:              "aidbox",
		Argument:          BaseArgument,
		AuthorizeEndpoint: "/auth/authorize",
		TokenEndpoint:     "/auth/token",
		RevokeEndpoint:    "/Session",
		DeleteSession:     true,
		ClientAuths:       []ClientAuth{AuthBasic, AuthBasicRaw, AuthPost, AuthNone},
		PublicPassword:    true,
	},
	{
		Name:              "webmethods",
		Argument:          BaseArgument,
		AuthorizeEndpoint: "/invoke/pub.oauth/authorize",
		TokenEndpoint:     "/invoke/pub.oauth/getToken",
		RevokeEndpoint:    "/invoke/pub.oauth/revokeToken",
		ClientAuths:       basicAuths,
	},
	{
		Name:        "oidc",
		Argument:    IssuerArgument,
		ClientAuths: AllClientAuths,
	},
}

// ProviderNamed returns the preset of a name, or false.
func ProviderNamed(name string) (Provider, bool) {
	i := slices.IndexFunc(Providers, func(p Provider) bool { return p.Name == name })
	if i < 0 {
		return Provider{}, false
	}
	return Providers[i], true
}

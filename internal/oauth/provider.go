package oauth

import (
	"slices"
	"time"
)

// A Provider is a named preset of an authorization server: a row of data. What
// it leaves empty, the account sets.
type Provider struct {
	Name string
	// AuthorizeEndpoint, TokenEndpoint and RevokeEndpoint are absolute URLs
	// (RFC 6749 §3.1, §3.2; RFC 7009 §2).
	AuthorizeEndpoint, TokenEndpoint, RevokeEndpoint string
	// Upstream is the URL of the API that the tokens are for.
	Upstream string
	// ClientAuths are the ways of client authentication that the server
	// takes; the first is the default.
	ClientAuths []ClientAuth
	// RefreshLifetime is how long a refresh token lives; 0 if not known.
	RefreshLifetime time.Duration
}

const year = 365 * 24 * time.Hour

// Providers are the presets, by name.
var Providers = []Provider{
	{
		Name:              "pagero",
		AuthorizeEndpoint: "https://sso.pageroonline.com/oauth/v2/oauth-authorize",
		TokenEndpoint:     "https://sso.pageroonline.com/oauth/v2/oauth-token",
		RevokeEndpoint:    "https://sso.pageroonline.com/oauth/v2/oauth-revoke",
		Upstream:          "https://api.pageroonline.com",
		ClientAuths:       []ClientAuth{AuthBasic, AuthBasicRaw, AuthPost},
		RefreshLifetime:   3 * year,
	},
	{
		Name:              "pagero_legacy",
		AuthorizeEndpoint: "https://auth.pageroonline.com/oauth2/authorize",
		TokenEndpoint:     "https://auth.pageroonline.com/oauth2/token",
		Upstream:          "https://api.pageroonline.com",
		ClientAuths:       []ClientAuth{AuthBasic, AuthBasicRaw},
		RefreshLifetime:   1 * year,
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

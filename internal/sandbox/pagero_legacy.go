package sandbox

import (
	"strconv"
	"time"
)

// pageroLegacy is Pagero's server before the one with single sign-on.
var pageroLegacy = provider{
	name:             "pagero_legacy",
	paths:            paths{authorize: "/oauth2/authorize", token: "/oauth2/token"},
	lifetime:         300 * time.Second,
	authMethods:      []string{"basic"},
	scopes:           []string{"all"},
	redirectRequired: true,
	accessToken:      func(time.Time, time.Duration) string { return newUUID() },
	refreshToken:     newUUID,
	code:             newUUID,
	members:          pageroLegacyMembers,
}

// pageroLegacyMembers is a token answer as the older documents show it, in
// their order.
func pageroLegacyMembers(_ Config, p pair) members {
	m := members{
		{"scope", `"all"`},
		{"access_token", quote(p.access)},
		{"token_type", `"bearer"`},
		{"expires_in", strconv.FormatInt(p.expiresIn, 10)},
		{"refresh_token", quote(p.refresh)},
	}
	if p.mode == keepMute {
		return m.drop("refresh_token")
	}
	return m
}

package sandbox

import (
	"encoding/base64"
	"strconv"
	"time"
)

// oidc is any OpenID provider that tells where its endpoints are.
var oidc = provider{
	name: "oidc",
	paths: paths{
		authorize: "/authorize",
		token:     "/token",
		revoke:    "/revoke",
		device:    "/device_authorization",
		verify:    "/device",
		discovery: "/.well-known/openid-configuration",
		jwks:      "/jwks.json",
	},
	lifetime:         time.Hour,
	authMethods:      []string{"basic", "post"},
	pkce:             []string{"S256"},
	iss:              true,
	redirectRequired: true,
	openid:           true,
	offlineAccess:    true,
	accessToken:      func(time.Time, time.Duration) string { return opaque(32) },
	refreshToken:     func() string { return opaque(32) },
	code:             func() string { return opaque(24) },
	members:          oidcMembers,
}

// opaque returns a token of n random bytes.
func opaque(n int) string { return base64.RawURLEncoding.EncodeToString(random(n)) }

func oidcMembers(_ Config, p pair) members {
	m := members{
		{"access_token", quote(p.access)},
		{"token_type", `"Bearer"`},
		{"expires_in", strconv.FormatInt(p.expiresIn, 10)},
	}
	if p.mode != keepMute {
		m = m.set("refresh_token", quote(p.refresh))
	}
	if p.family.scope != "" {
		m = m.set("scope", quote(p.family.scope))
	}
	return m
}

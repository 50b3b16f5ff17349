package sandbox

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
)

// aidbox is Health Samurai's server. Its refresh tokens stay as they are, and
// the answer to a refresh doesn't repeat them.
var aidbox = provider{
	name:         "aidbox",
	paths:        paths{authorize: "/auth/authorize", token: "/auth/token", session: "/Session"},
	lifetime:     time.Hour,
	authMethods:  []string{"basic", "post"},
	json:         true,
	pkce:         []string{"S256", "plain"},
	refresh:      keepMute,
	secureCode:   true,
	accessToken:  func(time.Time, time.Duration) string { return aidboxAccessToken() },
	refreshToken: func() string { return base64.RawURLEncoding.EncodeToString(random(16)) },
	code:         func() string { return hex.EncodeToString(random(16)) },
	members:      aidboxMembers,
}

// aidboxAccessToken returns a token as in the documents: a UUID in base64.
func aidboxAccessToken() string { return base64.RawURLEncoding.EncodeToString([]byte(newUUID())) }

// aidboxMembers is a token answer with the required members, and the optional
// ones that the configuration asks for.
func aidboxMembers(c Config, p pair) members {
	m := members{
		{"token_type", `"Bearer"`},
		{"access_token", quote(p.access)},
	}
	if c.SendExpiry {
		m = m.set("expires_in", strconv.FormatInt(p.expiresIn, 10))
	}
	if p.mode != keepMute {
		m = m.set("refresh_token", quote(p.refresh))
	}
	if c.UserInfo && p.family.user != "" {
		m = m.set("userinfo", members{
			{"resourceType", `"User"`},
			{"id", quote(p.family.user)},
			{"roles", `[{"type":"clinician","links":{}}]`},
		}.encodeText())
	}
	return m
}

// secureCode returns the code of the secure code flow: it looks like a JWT
// whose signature nobody but the server could check.
func secureCode(client string, expires time.Time) string {
	encode := base64.RawURLEncoding.EncodeToString
	payload := fmt.Sprintf(`{"sub":%s,"exp":%d,"jti":%s}`, quote(client), expires.Unix(),
		quote(encode([]byte(newUUID()))))
	return encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(payload)) + "." + encode(random(32))
}

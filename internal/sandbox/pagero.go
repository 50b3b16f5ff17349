package sandbox

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Where Pagero's authorization server has its endpoints.
const (
	tokenPath  = "/oauth/v2/oauth-token"
	revokePath = "/oauth/v2/oauth-revoke"
	movedPath  = "/oauth/v2/oauth-moved" // where the fault redirect points to
)

// pagero is Pagero Online's server, of the Curity family. Its issuer isn't
// published; this is where Curity has it.
var pagero = provider{
	name: "pagero",
	paths: paths{
		authorize: "/oauth/v2/oauth-authorize",
		token:     tokenPath,
		revoke:    revokePath,
		device:    "/oauth/v2/oauth-device",
		verify:    "/oauth/v2/oauth-device-verification",
		jwks:      "/oauth/v2/oauth-anonymous/jwks",
	},
	lifetime:         600 * time.Second,
	authMethods:      []string{"basic", "post"},
	scopes:           []string{"all", "openid"},
	pkce:             []string{"S256", "plain"},
	iss:              true,
	issuerPath:       "/oauth/v2/oauth-anonymous",
	redirectRequired: true,
	openid:           true,
	nonceRequired:    true,
	accessToken:      pageroAccessToken,
	refreshToken:     pageroRefreshToken,
	code:             func() string { return alphanumeric(32) },
	members:          pageroMembers,
}

// A member is one member of a JSON object; raw is its value as JSON.
type member struct{ name, raw string }

// members is a JSON object whose order and spelling of values are kept, which
// a Go map or struct can't do (600.0).
type members []member

func (m members) encode() []byte {
	text := []byte{'{'}
	for i, member := range m {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, quote(member.name)...)
		text = append(text, ':')
		text = append(text, member.raw...)
	}
	return append(text, '}')
}

func (m members) encodeText() string { return string(m.encode()) }

// text is a value as a person reads it: strings without quotes.
func (m member) text() string {
	var text string
	if json.Unmarshal([]byte(m.raw), &text) == nil {
		return text
	}
	return m.raw
}

func (m members) set(name, raw string) members {
	changed := append(members(nil), m...)
	for i := range changed {
		if changed[i].name == name {
			changed[i].raw = raw
			return changed
		}
	}
	return append(changed, member{name, raw})
}

func (m members) drop(name string) members {
	var rest members
	for _, member := range m {
		if member.name != name {
			rest = append(rest, member)
		}
	}
	return rest
}

// quote returns a string as JSON. It can't fail: every Go string can be one.
func quote(text string) string {
	raw, _ := json.Marshal(text)
	return string(raw)
}

// pageroMembers is a token answer as Pagero documents it: the type in lower
// case, the scope empty, a member that no RFC knows.
func pageroMembers(_ Config, p pair) members {
	scope := p.family.scope
	if scope == "all" {
		scope = ""
	}
	m := members{
		{"token_type", `"bearer"`},
		{"access_token", quote(p.access)},
		{"refresh_token", quote(p.refresh)},
		{"scope", quote(scope)},
		{"claims", `"publicid"`},
		{"expires_in", strconv.FormatInt(p.expiresIn, 10)},
	}
	if p.mode == keepMute {
		return m.drop("refresh_token")
	}
	return m
}

// pageroRefreshToken returns a new refresh token, prefix and UUID.
func pageroRefreshToken() string { return "_1XBPWQQ_" + newUUID() }

// pageroAccessToken returns a new access token: it looks like a JWT, but its
// signature is random. It keeps to the b64token of RFC 6750 §2.1.
func pageroAccessToken(now time.Time, lifetime time.Duration) string {
	header := fmt.Sprintf(`{"kid":"1553782041","x5t":%s,"typ":"JWT","alg":"RS256"}`,
		quote(base64.RawURLEncoding.EncodeToString(random(20))))
	payload := fmt.Sprintf(`{"jti":%s,"delegationId":%s,"scope":"","iat":%d,"exp":%d}`,
		quote(newUUID()), quote(newUUID()), now.Unix(), now.Add(lifetime).Unix())
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(header)) + "." + encode([]byte(payload)) + "." + encode(random(256))
}

// newUUID returns a random UUID (RFC 9562 §5.4).
func newUUID() string {
	b := random(16)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// alphanumeric returns n random letters and digits.
func alphanumeric(n int) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := random(n)
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)] // not even, which is no matter here
	}
	return string(b)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: it ends the program instead
	return b
}

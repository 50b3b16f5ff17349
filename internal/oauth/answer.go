package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"strconv"
	"strings"
	"time"
)

// An Outcome is what one token request came to, as far as the session's next
// step depends on it.
type Outcome int

const (
	// Granted: there is an access token, and maybe a refresh token.
	Granted Outcome = iota
	// Unusable: the answer has a refresh token, which must be kept, but no
	// access token that may be sent.
	Unusable
	// Dead: the grant is refused for good (invalid_grant).
	Dead
	// Refused: our registration or configuration is wrong.
	Refused
	// ProbablyDead: a refusal that doesn't say what it refuses.
	ProbablyDead
	// Away: something between us and the server answered, or the endpoint is
	// not a token endpoint.
	Away
	// NotTried: the server didn't use the grant.
	NotTried
	// Lost: the grant may have been spent.
	Lost
)

func (o Outcome) String() string {
	return [...]string{"granted", "unusable", "dead", "refused", "probably_dead", "away", "not_tried", "lost"}[o]
}

// An Answer is the reply to a token request (RFC 6749 §5). Its texts are safe
// to show: they hold nothing of the reply but a checked error code.
type Answer struct {
	Outcome Outcome
	// Tokens has what the answer gave; RefreshToken is empty if it gave none.
	Tokens TokenSet
	// Lifetime of the access token, 0 if the answer doesn't tell a usable one.
	Lifetime time.Duration
	// Status of the reply, 0 if there was none.
	Status int
	// Code is the error code (RFC 6749 §5.2), if there is one of legal form.
	Code string
	// Detail says what happened.
	Detail string
	// RetryAfter is what the server asked for, 0 if nothing.
	RetryAfter time.Duration

	idToken Secret // of a grant (OIDC Core §3.1.3.3): checked, then dropped
}

// credentialsRefused reports an answer that refuses a sign-in: each one counts
// as an attempt with a wrong password at some servers.
func (a Answer) credentialsRefused() bool {
	return a.Status == 400 || a.Status == 401 || a.Status == 403 ||
		a.Outcome == Dead || a.Outcome == Refused || a.Outcome == ProbablyDead
}

// maxAnswer is how much of a reply is read.
const maxAnswer = 64 << 10

// members are the parts of a token answer or an error answer.
type members struct {
	accessToken, refreshToken, tokenType, scope, idToken *string
	code                                                 string
	lifetime                                             time.Duration
	complete                                             bool // the whole object was read, no member says two things
}

// readMembers reads the members that matter, as far as the bytes go: what came
// before a fault counts. Names are case-sensitive, and a member of a wrong type
// counts as absent, so that no other member can lose the refresh token.
func readMembers(body []byte) (m members) {
	dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return m
	}
	seen := map[string]json.RawMessage{}
	twice := false
	for dec.More() {
		t, err := dec.Token()
		name, isName := t.(string)
		if err != nil || !isName {
			return m
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return m
		}
		first, again := seen[name]
		twice = twice || again && !bytes.Equal(first, value)
		seen[name] = value
		m.set(name, value)
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('}') {
		return m
	}
	_, err := dec.Token()
	m.complete = errors.Is(err, io.EOF) && !twice
	return m
}

func (m *members) set(name string, value json.RawMessage) {
	switch name {
	case "access_token":
		m.accessToken = text(value)
	case "refresh_token":
		if s := text(value); s != nil && *s != "" { // no second one takes it away
			m.refreshToken = s
		}
	case "token_type":
		m.tokenType = text(value)
	case "scope":
		m.scope = text(value)
	case "id_token":
		m.idToken = text(value)
	case "expires_in":
		m.lifetime = lifetime(value)
	case "error":
		if s := text(value); s != nil && *s != "" {
			m.code = errorCode(*s)
		}
	}
}

// text returns the string that value is, or nil.
func text(value json.RawMessage) *string {
	var s *string
	if json.Unmarshal(value, &s) != nil {
		return nil
	}
	return s
}

// lifetime reads expires_in: seconds as number or text, whole or not. What
// can't be a lifetime gives 0.
func lifetime(value json.RawMessage) time.Duration {
	s := string(value)
	if t := text(value); t != nil {
		s = strings.TrimSpace(*t)
	}
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || math.IsNaN(seconds) || seconds <= 0 {
		return 0
	}
	if seconds >= maxLifetime.Seconds() {
		return maxLifetime
	}
	return max(time.Duration(seconds*float64(time.Second)), minLifetime)
}

// errorCode returns code if it is one that may be shown: short, and of small
// letters and a few signs, as all that are registered. Anything else becomes
// "other": without digits and capitals no token passes, and hardly a password.
func errorCode(code string) string {
	if code == "" || len(code) > 64 {
		return "other"
	}
	for _, c := range []byte(code) {
		if (c < 'a' || c > 'z') && !strings.ContainsRune("_-.", rune(c)) {
			return "other"
		}
	}
	return code
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isB64Token reports whether s is a token of RFC 6750 §2.1; nothing else may
// be put into a header.
func isB64Token(s string) bool {
	s = strings.TrimRight(s, "=")
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && !strings.ContainsRune("-._~+/", rune(c)) {
			return false
		}
	}
	return s != ""
}

// readAnswer decides what a reply means. The refresh token comes first: no
// other fault of a successful reply may lose it.
func readAnswer(status int, contentType string, body []byte, whole bool) Answer {
	m := readMembers(body)
	media, _, _ := mime.ParseMediaType(contentType)
	html := media == "text/html" || media == "application/xhtml+xml"
	a := Answer{Status: status, Code: m.code, Lifetime: m.lifetime}
	if m.refreshToken != nil {
		a.Tokens.RefreshToken = NewSecret(*m.refreshToken)
	}
	if m.scope != nil {
		a.Tokens.Scope = *m.scope
	}
	if m.idToken != nil {
		a.idToken = NewSecret(*m.idToken)
	}
	switch {
	case status == 200 && m.code == "" && !html:
		a.Outcome, a.Detail = readGrant(m, whole, &a.Tokens)
		if a.Outcome == Lost && !a.Tokens.RefreshToken.Empty() {
			a.Outcome = Unusable
		}
	case html && (status < 500):
		a.Outcome, a.Code = Away, ""
	default:
		json := m.complete && whole
		a.Outcome = classify(status, m.code, json, len(bytes.TrimSpace(body)) == 0)
	}
	if status/100 == 2 && a.Outcome > Unusable && a.Outcome != Dead && a.Outcome != Refused && !a.Tokens.RefreshToken.Empty() {
		a.Outcome = Unusable // an odd yes, but what was sent for it is spent
	}
	if a.Outcome != Granted && a.Outcome != Unusable {
		a.Tokens, a.Lifetime = TokenSet{}, 0
	}
	if a.Detail == "" && a.Outcome != Granted {
		a.Detail = describe(a, media)
	}
	return a
}

// readGrant looks at a 200 that isn't an error.
func readGrant(m members, whole bool, ts *TokenSet) (Outcome, string) {
	switch {
	case !m.complete || !whole:
		return Lost, "the answer of the token endpoint is broken off, too long or not JSON"
	case m.accessToken == nil || *m.accessToken == "":
		return Lost, "the answer of the token endpoint has no access_token"
	case m.tokenType == nil || !strings.EqualFold(*m.tokenType, "bearer"):
		return Lost, "the answer of the token endpoint has another token_type than bearer"
	case !isB64Token(*m.accessToken):
		return Lost, "the access_token has characters that no bearer token may have (RFC 6750 §2.1)"
	}
	ts.AccessToken = NewSecret(*m.accessToken)
	return Granted, ""
}

// classify decides what any other reply means for the grant that was sent.
func classify(status int, code string, json, empty bool) Outcome {
	refusal := status == 400 || status == 401 || status == 200
	switch {
	case status == 429 || status == 503:
		return NotTried
	case status >= 500 || status >= 201 && status <= 299 || status < 200:
		return Lost
	case refusal && json && code == "invalid_grant":
		return Dead
	case refusal && json && isRegistrationCode(code):
		return Refused
	case refusal && (json || empty):
		return ProbablyDead
	}
	return Away
}

// isRegistrationCode reports the error codes that blame our registration or
// configuration and not the grant (RFC 6749 §5.2).
func isRegistrationCode(code string) bool {
	switch code {
	case "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope":
		return true
	}
	return false
}

// mediaWord is a media type as it may be shown: one that is known. Others are the
// server's text.
func mediaWord(media string) string {
	switch media {
	case "text/html", "application/xhtml+xml", "text/plain", "text/xml", "application/xml", "application/json", "application/problem+json":
		return strings.NewReplacer("/", "-", "+", "-").Replace(media)
	}
	return "other"
}

func describe(a Answer, media string) string {
	s := "the token endpoint answered " + strconv.Itoa(a.Status)
	switch {
	case a.Code != "":
		s += " " + a.Code
	case media != "":
		s += " (" + mediaWord(media) + ")"
	}
	if a.Status >= 300 && a.Status < 400 {
		s += "; redirects are not followed: is token_endpoint right?"
	} else if a.Status == 404 || a.Status == 405 {
		s += ": is token_endpoint right?"
	}
	return s
}

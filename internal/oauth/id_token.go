package oauth

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
)

// idTokenRules are what an id_token has to say.
type idTokenRules struct {
	Issuer   string // empty: not known, then iss isn't compared
	ClientID string
	Nonce    string // that of the authorization request; empty: none was sent
}

const (
	maxIDToken    = 64 << 10
	idTokenLeeway = time.Minute // for clocks that differ
)

// checkIDToken checks an id_token as OIDC Core §3.1.3.7 asks for. The signature
// isn't looked at: rule 6 lets TLS stand in for it where the token came straight
// from the token endpoint, and from nowhere else. So don't use this for a token
// of another origin. Errors name the claim and quote nothing.
func checkIDToken(token Secret, want idTokenRules, now time.Time) error {
	claims, err := readJWS(token.Reveal())
	if err != nil {
		return err
	}
	iss := text(claims["iss"])
	switch {
	case iss == nil || *iss == "":
		return errors.New("iss is missing")
	case want.Issuer != "" && *iss != want.Issuer:
		return errors.New("iss is not the account's issuer")
	}
	if err := checkAudience(claims, want.ClientID); err != nil {
		return err
	}
	exp, iat := number(claims["exp"]), number(claims["iat"])
	switch {
	case exp == nil:
		return errors.New("exp is missing or no number")
	case float64(now.UnixMilli())/1e3 >= *exp+idTokenLeeway.Seconds():
		return errors.New("exp is past: is the clock right?")
	case iat == nil:
		return errors.New("iat is missing or no number")
	}
	if want.Nonce == "" {
		return nil
	}
	nonce := text(claims["nonce"])
	if nonce == nil || subtle.ConstantTimeCompare([]byte(*nonce), []byte(want.Nonce)) != 1 {
		return errors.New("nonce is not the one that was sent")
	}
	return nil
}

// checkAudience checks for whom the token is (rules 3 to 5).
func checkAudience(claims map[string]json.RawMessage, clientID string) error {
	aud, azp := audience(claims["aud"]), claims["azp"]
	given := len(azp) > 0 && string(azp) != "null"
	party := text(azp)
	switch {
	case len(aud) == 0:
		return errors.New("aud is missing, or neither text nor a list of texts")
	case clientID == "" || !slices.Contains(aud, clientID):
		return errors.New("aud does not name the account's client_id")
	case len(aud) > 1 && !given:
		return errors.New("azp is missing, although aud names several")
	case given && (party == nil || *party != clientID):
		return errors.New("azp is not the account's client_id")
	}
	return nil
}

// readJWS returns the claims of a JWS in compact form (RFC 7515 §7.1), read
// strictly and not verified.
//
// The alg "none" is refused: OIDC Core §2 leaves it to clients that asked for
// it when they were registered, and nothing in an account says that ours did.
func readJWS(token string) (map[string]json.RawMessage, error) {
	if token == "" {
		return nil, errors.New("there is none")
	}
	if len(token) > maxIDToken {
		return nil, errors.New("it is too long")
	}
	parts := strings.Split(token, ".")
	switch len(parts) {
	case 3:
	case 5:
		return nil, errors.New("it is encrypted; register the client without id_token_encrypted_response_alg")
	default:
		return nil, errors.New("it is no JWS in compact form")
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || part == "" || strings.ContainsAny(part, "\r\n") { // the decoder skips those two
			return nil, errors.New("it is no JWS in compact form")
		}
	}
	header, err := readObject(decoded[0])
	if err != nil {
		return nil, errors.New("its header is no JSON object with each member once")
	}
	alg := text(header["alg"])
	switch {
	case alg == nil || *alg == "":
		return nil, errors.New("its header has no alg")
	case strings.EqualFold(*alg, "none"):
		return nil, errors.New("it is not signed (alg none)")
	case header["crit"] != nil: // RFC 7515 §4.1.11: we understand no extension
		return nil, errors.New("its header has a crit")
	}
	claims, err := readObject(decoded[1])
	if err != nil {
		return nil, errors.New("its payload is no JSON object with each claim once")
	}
	return claims, nil
}

// audience reads aud: a text or a list of texts (RFC 7519 §4.1.3); nil if it is
// anything else.
func audience(value json.RawMessage) []string {
	if one := text(value); one != nil {
		return []string{*one}
	}
	var list []*string
	if json.Unmarshal(value, &list) != nil || slices.Contains(list, nil) {
		return nil
	}
	aud := make([]string, len(list))
	for i, s := range list {
		aud[i] = *s
	}
	return aud
}

// number returns the number that value is, or nil.
func number(value json.RawMessage) *float64 {
	var n *float64
	if json.Unmarshal(value, &n) != nil {
		return nil
	}
	return n
}

package sandbox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// assertionType is the only client_assertion_type (RFC 7523 §2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertionLifetime is how far exp may lie ahead.
const assertionLifetime = 5 * time.Minute

// A jsonObject is one whose names are compared exactly, which a struct of
// encoding/json isn't.
type jsonObject map[string]json.RawMessage

// text returns a member that is a string, else "".
func (o jsonObject) text(name string) string {
	var text string
	if json.Unmarshal(o[name], &text) != nil {
		return ""
	}
	return text
}

// audience is a string or an array of strings (RFC 7519 §4.1.3).
func (o jsonObject) audience() []string {
	if one := o.text("aud"); one != "" {
		return []string{one}
	}
	var many []string
	if json.Unmarshal(o["aud"], &many) != nil {
		return nil
	}
	return many
}

// seconds returns a NumericDate, and whether it is there.
func (o jsonObject) seconds(name string) (time.Time, bool) {
	var seconds *float64
	if json.Unmarshal(o[name], &seconds) != nil || seconds == nil || *seconds < 0 || *seconds > 1e12 {
		return time.Time{}, false
	}
	whole := int64(*seconds)
	return time.Unix(whole, int64((*seconds-float64(whole))*1e9)), true
}

// parseJWT takes a compact JWS apart (RFC 7515 §7.1).
func parseJWT(text string) (header, claims jsonObject, signed string, signature []byte, err error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, nil, "", nil, errors.New("the assertion is no JWT")
	}
	for i, object := range []*jsonObject{&header, &claims} {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err != nil || json.Unmarshal(raw, object) != nil || *object == nil {
			return nil, nil, "", nil, errors.New("the assertion's header or claims are no JSON object")
		}
	}
	signature, err = base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return nil, nil, "", nil, errors.New("the assertion's signature is not base64url")
	}
	return header, claims, parts[0] + "." + parts[1], signature, nil
}

// verifySignature checks a signature with the algorithm that fits the key;
// what the header says must be just that (RFC 8725 §3.1).
func verifySignature(key crypto.PublicKey, algorithm, signed string, signature []byte) error {
	sum := sha256.Sum256([]byte(signed))
	var want string
	var good bool
	switch key := key.(type) {
	case *rsa.PublicKey:
		want, good = "RS256", rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	case *ecdsa.PublicKey:
		want = "ES256"
		if len(signature) == 64 && key.Curve.Params().BitSize == 256 { // RFC 7518 §3.4
			good = ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
		}
	case ed25519.PublicKey:
		want, good = "EdDSA", ed25519.Verify(key, []byte(signed), signature)
	default:
		return fmt.Errorf("a key of type %T can't be checked", key)
	}
	if algorithm != want {
		return fmt.Errorf("the assertion's alg must be %s", want)
	}
	if !good {
		return errors.New("the assertion's signature is wrong")
	}
	return nil
}

// checkAssertion is RFC 7523 §3. It is called with s.mu held and remembers the
// assertion, which may not come again while it is valid.
func (s *Sandbox) checkAssertion(form map[string]string, audiences []string, now time.Time) error {
	if form["client_assertion_type"] != assertionType {
		return errors.New("unknown client_assertion_type")
	}
	header, claims, signed, signature, err := parseJWT(form["client_assertion"])
	if err != nil {
		return err
	}
	if err := verifySignature(s.config.ClientKey, header.text("alg"), signed, signature); err != nil {
		return err
	}
	id := s.config.ClientID
	if claims.text("iss") != id || claims.text("sub") != id || form["client_id"] != "" && form["client_id"] != id {
		return errors.New("iss, sub and client_id must be the client's")
	}
	if !slices.ContainsFunc(claims.audience(), func(a string) bool { return slices.Contains(audiences, a) }) {
		return errors.New("the assertion is for another audience")
	}
	expires, ok := claims.seconds("exp")
	if !ok || !now.Before(expires) || expires.After(now.Add(assertionLifetime)) {
		return errors.New("exp is absent, past or more than 5 min ahead")
	}
	for _, name := range []string{"nbf", "iat"} {
		if at, ok := claims.seconds(name); ok && at.After(now) || !ok && claims[name] != nil {
			return fmt.Errorf("%s is in the future or no number", name)
		}
	}
	jti := claims.text("jti")
	if _, seen := s.assertions[jti]; jti == "" || seen {
		return errors.New("jti is absent or was used before")
	}
	for old, until := range s.assertions {
		if !now.Before(until) {
			delete(s.assertions, old)
		}
	}
	s.assertions[jti] = expires
	return nil
}

package sandbox

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"time"
)

// codeLifetime is that of authorization codes, keptCode how long a used or
// expired one is remembered, so that its reuse is noticed.
const (
	codeLifetime       = 10 * time.Minute
	secureCodeLifetime = time.Minute
	keptCode           = time.Hour
)

// An authorizationCode is one that a callback brought.
type authorizationCode struct {
	request authorizationRequest
	user    string
	expires time.Time
	used    bool
	family  *family // what it was exchanged for
}

// A codeState holds codes by their digests. Its owner's lock guards it.
type codeState struct {
	codes map[digest]*authorizationCode
	swept time.Time
}

func (cs *codeState) find(code string) *authorizationCode {
	return cs.codes[sha256.Sum256([]byte(code))]
}

func (cs *codeState) add(code string, ac *authorizationCode, now time.Time) {
	if cs.codes == nil {
		cs.codes = map[digest]*authorizationCode{}
	}
	if now.Sub(cs.swept) > codeLifetime {
		cs.swept = now
		for key, old := range cs.codes {
			if now.After(old.expires.Add(keptCode)) {
				delete(cs.codes, key)
			}
		}
	}
	cs.codes[sha256.Sum256([]byte(code))] = ac
}

// newCode returns a code for the user, for nobody in Aidbox's password grant.
func (s *Sandbox) newCode(ar *authorizationRequest, user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	expires := now.Add(codeLifetime)
	code := s.provider.code()
	if ar.fragment {
		expires = now.Add(secureCodeLifetime)
		code = secureCode(s.config.ClientID, expires)
	}
	s.codes.add(code, &authorizationCode{request: *ar, user: user, expires: expires}, now)
	return code
}

// grantCode is RFC 6749 §4.1.3. A code that was presented once is spent,
// whatever came of it; its reuse ends what it brought (§4.1.2).
func (s *Sandbox) grantCode(tr *tokenRequest) (pair, *refusal) {
	code := tr.form["code"]
	if code == "" {
		return pair{}, invalidRequest("code is missing")
	}
	ac := s.codes.find(code)
	if ac == nil || ac.request.fragment {
		return pair{}, invalidGrant("unknown code")
	}
	tr.event.Username = ac.user
	if ac.used {
		if f := ac.family; f != nil {
			tr.event.Family, tr.event.Generation, tr.event.Committed = f.name(), f.generation, !f.ended
			f.ended = true
		}
		return pair{}, invalidGrant("the code was used before; all tokens of this login are revoked")
	}
	// The parameter belongs here if it was there (RFC 6749 §4.1.3), and
	// webMethods refuses it if it wasn't.
	redirectURI, sent := tr.form["redirect_uri"]
	if sent != ac.request.sentRedirect {
		return pair{}, invalidRequest("redirect_uri must be here if and only if it was in the authorization request")
	}
	ac.used = true
	switch {
	case !time.Now().Before(ac.expires):
		return pair{}, invalidGrant("the code has expired")
	case sent && redirectURI != ac.request.redirectURI:
		return pair{}, invalidGrant("redirect_uri differs from that of the authorization request")
	case s.inactive[ac.user]:
		return pair{}, invalidGrant("User is inactive")
	}
	if refused := s.checkVerifier(&ac.request, tr.form["code_verifier"]); refused != nil {
		return pair{}, refused
	}
	ac.family = s.newLogin(ac.user, ac.request.scope)
	return s.issueLogin(ac.family, tr, ac.request.nonce), nil
}

// checkVerifier is RFC 7636 §4.6. A verifier without a challenge is refused,
// since somebody may have taken the challenge away (RFC 9700 §4.8.2).
func (s *Sandbox) checkVerifier(ar *authorizationRequest, verifier string) *refusal {
	switch {
	case s.provider.pkce == nil, ar.challenge == "" && verifier == "":
		return nil
	case ar.challenge == "":
		return invalidGrant("code_verifier without code_challenge")
	case verifier == "":
		return invalidGrant("code_verifier is missing")
	case !legalChallenge.MatchString(verifier):
		return invalidGrant("code_verifier is malformed")
	}
	got := verifier
	if ar.method == "S256" {
		sum := sha256.Sum256([]byte(verifier))
		got = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	if subtle.ConstantTimeCompare([]byte(got), []byte(ar.challenge)) != 1 {
		return invalidGrant("code_verifier doesn't match code_challenge")
	}
	return nil
}

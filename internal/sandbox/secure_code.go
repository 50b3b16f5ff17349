package sandbox

import (
	"net/url"
	"time"
)

// secureCodes says whether the password grant needs a code (Aidbox's client
// with auth.password.redirect_uri).
func (s *Sandbox) secureCodes() bool { return s.provider.secureCode && s.config.SecureCode != "" }

// secureCodeRequest reads GET /auth/authorize?grant_type=password, which needs
// nobody: the code alone opens nothing.
func (c Config) secureCodeRequest(base string, values url.Values) (*authorizationRequest, *refusal) {
	if _, err := checkRedirectURI(c.SecureCode); err != nil {
		return nil, invalidRequest("%v", err)
	}
	ar := &authorizationRequest{base: base, redirectURI: c.SecureCode, fragment: true}
	if len(values["state"]) > 1 {
		return ar, invalidRequest("state is repeated")
	}
	ar.state = values.Get("state")
	return ar, nil
}

// spendSecureCode is called with s.mu held. The code is gone after one try,
// also with a wrong password.
func (s *Sandbox) spendSecureCode(code string) *refusal {
	if code == "" {
		return invalidRequest("code is missing")
	}
	ac := s.codes.find(code)
	if ac == nil || !ac.request.fragment || ac.used || !time.Now().Before(ac.expires) {
		return invalidGrant("the code is unknown, used or expired")
	}
	ac.used = true
	return nil
}

package sandbox

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// A provider is one kind of authorization server, as data: what its documents
// say of paths, shapes and rules. A rule that is absent is its zero value.
type provider struct {
	name     string
	paths    paths
	lifetime time.Duration // of access tokens, unless Config says otherwise

	authMethods []string // basic, post: how a client with a secret may authenticate
	json        bool     // token requests may be JSON
	scopes      []string // all that it knows; nil: any
	pkce        []string // challenge methods (RFC 7636 §4.2); nil: a challenge is ignored

	iss              bool        // the callback carries iss (RFC 9207)
	issuerPath       string      // the issuer is the base URL and this
	redirectRequired bool        // redirect_uri must be sent even if only one is registered
	openid           bool        // the scope openid brings an id_token
	nonceRequired    bool        // openid needs a nonce
	offlineAccess    bool        // a refresh token only with the scope offline_access or offline
	refresh          refreshMode // of the answer to a refresh
	secureCode       bool        // the password grant may want a code first; see Config.SecureCode
	revokesPair      bool        // the revocation of an access token ends its login too

	accessToken        func(now time.Time, lifetime time.Duration) string
	refreshToken, code func() string
	members            func(Config, pair) members
	encoding           func(*http.Request) encoding // nil: JSON
}

// paths are those of a provider's endpoints; it lacks those that are empty.
type paths struct {
	authorize, token, revoke string
	device, verify           string // RFC 8628: for the client and for the person
	discovery, jwks, session string
}

// providers returns all rows; the first is the default.
func providers() []*provider {
	return []*provider{&pagero, &pageroLegacy, &aidbox, &webMethods, &oidc}
}

// Providers returns the values of Config.Provider, the default first.
func Providers() []string {
	var names []string
	for _, p := range providers() {
		names = append(names, p.name)
	}
	return names
}

func findProvider(name string) *provider {
	all := providers()
	if name == "" {
		return all[0]
	}
	for _, p := range all {
		if p.name == name {
			return p
		}
	}
	panic("sandbox: unknown provider " + name + "; known are " + strings.Join(Providers(), ", "))
}

// Endpoints are the URLs of an authorization server; it lacks those that are
// empty.
type Endpoints struct {
	Issuer              string // what the callback's iss is, where Iss is set
	Iss                 bool   // the callback carries iss
	Authorize, Token    string
	Revoke              string // RFC 7009
	DeviceAuthorization string // RFC 8628
	Verification        string // where a person enters the user code
	Session             string // DELETE with an access token ends its login
	Discovery, JWKS     string
}

// Endpoints returns where the provider has its endpoints; base is the URL of
// the authorization server without a path, as in Servers.
func (s *Sandbox) Endpoints(base string) Endpoints {
	p := s.provider.paths
	at := func(path string) string {
		if path == "" {
			return ""
		}
		return base + path
	}
	return Endpoints{
		Issuer: s.issuer(base), Iss: s.provider.iss,
		Authorize: at(p.authorize), Token: at(p.token), Revoke: at(p.revoke),
		DeviceAuthorization: at(p.device), Verification: at(p.verify),
		Session: at(p.session), Discovery: at(p.discovery), JWKS: at(p.jwks),
	}
}

// issuer is the identifier of the authorization server (RFC 9207 §2).
func (s *Sandbox) issuer(base string) string {
	if s.fixedIssuer != "" {
		return s.fixedIssuer
	}
	return base + s.provider.issuerPath
}

// baseURL is the server's own URL without a path, as the client wrote it.
func baseURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// checkScope refuses a scope that the provider doesn't know.
func (p *provider) checkScope(scope string) *refusal {
	for _, token := range splitScope(scope) {
		if p.scopes != nil && !slices.Contains(p.scopes, token) {
			return &refusal{http.StatusBadRequest, "invalid_scope", "the only scopes are " + strings.Join(p.scopes, ", ")}
		}
	}
	return nil
}

// splitScope splits at the spaces of RFC 6749 §3.3.
func splitScope(scope string) []string { return strings.Fields(scope) }

// hasScope says whether a scope is among those separated by spaces.
func hasScope(scope string, any ...string) bool {
	for _, token := range splitScope(scope) {
		if slices.Contains(any, token) {
			return true
		}
	}
	return false
}

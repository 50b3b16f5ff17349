package sandbox

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// An authorizationRequest is a request to the authorization endpoint
// (RFC 6749 §4.1.1) whose redirect URI is known good.
type authorizationRequest struct {
	base         string // the server's own URL, without a path
	redirectURI  string
	sentRedirect bool // redirect_uri was in the request
	state        string
	scope, nonce string
	prompt       string
	challenge    string // RFC 7636 §4.3; empty: none
	method       string
	fragment     bool // Aidbox's password grant, answered in the fragment
}

// readAuthorizationRequest checks a query. A refusal with a request is for the
// client, by redirect; one without is for the person, because the redirect URI
// can't be trusted (RFC 6749 §4.1.2.1).
func (s *Sandbox) readAuthorizationRequest(base, query string) (*authorizationRequest, *refusal) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, invalidRequest("the query is not form-urlencoded")
	}
	if len(values["client_id"]) > 1 || len(values["redirect_uri"]) > 1 {
		return nil, invalidRequest("client_id or redirect_uri is repeated")
	}
	c := s.settings()
	if values.Get("client_id") != c.ClientID {
		return nil, invalidRequest("client_id is missing or unknown")
	}
	if s.secureCodes() && values.Get("grant_type") == "password" {
		return c.secureCodeRequest(base, values)
	}
	redirectURI := values.Get("redirect_uri")
	ar := &authorizationRequest{base: base, redirectURI: redirectURI, sentRedirect: redirectURI != ""}
	if redirectURI == "" {
		if s.provider.redirectRequired || len(c.RedirectURIs) != 1 {
			return nil, invalidRequest("redirect_uri is missing")
		}
		ar.redirectURI = c.RedirectURIs[0] // RFC 6749 §3.1.2.3
	}
	if !c.redirectAllowed(ar.redirectURI) {
		return nil, invalidRequest("redirect_uri is not registered")
	}
	return ar, s.readParameters(c, ar, values)
}

// readParameters reads what is refused by redirect.
func (s *Sandbox) readParameters(c Config, ar *authorizationRequest, values url.Values) *refusal {
	if len(values["state"]) == 1 { // a repeated one is not sent back
		ar.state = values.Get("state")
	}
	for name, all := range values {
		if len(all) > 1 {
			return invalidRequest("the parameter %s is repeated", shorten(name))
		}
	}
	ar.scope, ar.nonce, ar.prompt = values.Get("scope"), values.Get("nonce"), values.Get("prompt")
	p := s.provider
	switch values.Get("response_type") {
	case "code":
	case "":
		return invalidRequest("response_type is missing")
	default:
		return &refusal{code: "unsupported_response_type", description: "the only response_type is code"}
	}
	if refused := p.checkScope(ar.scope); refused != nil {
		return refused
	}
	if p.nonceRequired && hasScope(ar.scope, "openid") && ar.nonce == "" {
		return invalidRequest("nonce is missing")
	}
	if p.pkce == nil {
		return nil
	}
	ar.challenge, ar.method = values.Get("code_challenge"), values.Get("code_challenge_method")
	return p.checkChallenge(ar, c.RequirePKCE || c.Public)
}

// legalChallenge is a code_challenge or code_verifier (RFC 7636 §4.1, §4.2).
var legalChallenge = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)

func (p *provider) checkChallenge(ar *authorizationRequest, required bool) *refusal {
	if ar.challenge == "" {
		if required {
			return invalidRequest("code challenge required") // as RFC 7636 §4.4.1
		}
		return nil
	}
	if ar.method == "" {
		ar.method = "plain" // RFC 7636 §4.3
	}
	if !slices.Contains(p.pkce, ar.method) {
		return invalidRequest("transform algorithm not supported")
	}
	if !legalChallenge.MatchString(ar.challenge) {
		return invalidRequest("code_challenge is malformed")
	}
	return nil
}

// redirectAllowed compares byte for byte (RFC 9700 §4.1.3).
func (c Config) redirectAllowed(uri string) bool {
	if _, err := checkRedirectURI(uri); err != nil {
		return false
	}
	if len(c.RedirectURIs) > 0 {
		return slices.Contains(c.RedirectURIs, uri)
	}
	u, err := url.Parse(uri)
	return err == nil && (u.Scheme == "https" || loopback(u.Hostname()))
}

// checkRedirectURI says whether a redirect URI can be redirected to: absolute,
// without a fragment (RFC 6749 §3.1.2), in characters of a URI.
func checkRedirectURI(uri string) (*url.URL, error) {
	for _, b := range []byte(uri) {
		if b <= ' ' || b >= 0x7f || strings.IndexByte(`"<>\^{|}`+"`", b) >= 0 {
			return nil, fmt.Errorf("byte %#x in a URI", b)
		}
	}
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return nil, fmt.Errorf("parsing the redirect URI: %w", err)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil, strings.Contains(uri, "#"):
		return nil, fmt.Errorf("the redirect URI must be http or https, without user and fragment")
	}
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

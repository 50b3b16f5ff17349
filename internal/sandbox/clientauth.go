package sandbox

import (
	"net/http"
	"slices"
	"time"
)

// clientAuthMethod names the way in which the client tried to authenticate;
// both if there were more than one.
func clientAuthMethod(r *http.Request, form map[string]string) string {
	var methods []string
	if _, _, basic := r.BasicAuth(); basic {
		methods = append(methods, "basic")
	}
	if form["client_secret"] != "" {
		methods = append(methods, "post")
	}
	if form["client_assertion"] != "" || form["client_assertion_type"] != "" {
		methods = append(methods, "private_key_jwt")
	}
	switch len(methods) {
	case 0:
		// A certificate beside another method is no method of its own: it may
		// be there for the connection's sake.
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			return "tls"
		}
		return "none"
	case 1:
		return methods[0]
	}
	return "both"
}

// clientMethods are those that the client is registered for.
func (s *Sandbox) clientMethods() []string {
	c := s.config
	switch {
	case c.ClientKey != nil:
		return []string{"private_key_jwt"}
	case s.certificates.wanted():
		return []string{"tls"}
	case c.Public:
		if slices.Contains(s.provider.authMethods, "post") {
			return []string{"none"}
		}
		return nil // the provider knows no public clients
	case c.SecretOptional:
		return append(slices.Clone(s.provider.authMethods), "none")
	}
	return s.provider.authMethods
}

// authenticate checks the client (RFC 6749 §2.3, RFC 7523 §3, RFC 8705 §2). It
// is called with s.mu held.
func (s *Sandbox) authenticate(r *http.Request, form map[string]string) *refusal {
	authorization := r.Header.Values("Authorization")
	if len(authorization) > 1 {
		return invalidRequest("more than one Authorization header")
	}
	method := clientAuthMethod(r, form)
	if method == "tls" && !s.certificates.wanted() {
		method = "none" // nobody asked for the certificate
	}
	switch {
	case method == "both":
		return invalidRequest("more than one client authentication method")
	case len(authorization) == 1 && method != "basic":
		return invalidClient("the Authorization header is not Basic")
	case method == "none" && !slices.Contains(s.clientMethods(), "none"):
		return invalidClient("the client did not authenticate")
	case !slices.Contains(s.clientMethods(), method):
		return invalidClient("the client is not registered for this method of authentication")
	}
	return s.checkClient(r, form, method)
}

func (s *Sandbox) checkClient(r *http.Request, form map[string]string, method string) *refusal {
	c := s.config
	switch method {
	case "basic":
		id, secret, _ := r.BasicAuth()
		if !c.basicMatches(id, secret) {
			return invalidClient("wrong client or secret")
		}
		// A client_id in the body beside Basic is no second method, but it
		// must name the same client.
		if other := form["client_id"]; other != "" && other != c.ClientID {
			return invalidRequest("client_id differs from the authenticated client")
		}
	case "post":
		if form["client_id"] != c.ClientID || form["client_secret"] != c.ClientSecret {
			return invalidClient("wrong client or secret")
		}
	case "private_key_jwt":
		base := baseURL(r)
		audiences := []string{base + s.provider.paths.token, base + r.URL.Path, s.issuer(base)}
		if err := s.checkAssertion(form, audiences, time.Now()); err != nil {
			return invalidClient(err.Error())
		}
	case "tls":
		if form["client_id"] != c.ClientID {
			return invalidClient("client_id is missing or unknown") // RFC 8705 §2
		}
		if !s.certificates.match(r.TLS.PeerCertificates, c.ClientID) {
			return invalidClient("the certificate is not the client's")
		}
	case "none":
		if form["client_id"] != c.ClientID {
			return invalidClient("client_id is missing or unknown")
		}
	}
	return nil
}

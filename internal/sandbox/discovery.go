package sandbox

import (
	"net/http"
	"net/url"
	"strings"
)

// serveDiscovery tells the endpoints (OpenID Connect Discovery §3, RFC 8414).
func (s *Sandbox) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	e := newEvent(KindDiscovery, r)
	if r.Method != http.MethodGet {
		x := s.begin(w, r, e)
		x.Header().Set("Allow", http.MethodGet)
		http.Error(x, "use GET", http.StatusMethodNotAllowed)
		return
	}
	b := s.faults.take(endpointDiscovery, "")
	e.Fault = b.info.Name
	x := s.begin(w, r, e)
	if b.answer != nil {
		b.answer(s, x)
		return
	}
	document := s.metadata(baseURL(r))
	if b.shape != nil {
		document = b.shape(document)
	}
	x.Header().Set("Content-Type", "application/json")
	_, _ = x.Write(document.encode())
}

func (s *Sandbox) metadata(base string) members {
	p := s.provider.paths
	at := func(path string) string { return quote(base + path) }
	methods := `["client_secret_basic","client_secret_post"]`
	c := s.settings()
	switch {
	case c.ClientKey != nil:
		methods = `["private_key_jwt"]`
	case s.wantsCertificate():
		methods = `["tls_client_auth","self_signed_tls_client_auth"]`
	case c.Public:
		methods = `["none"]`
	}
	return members{
		{"issuer", quote(s.issuer(base))},
		{"authorization_endpoint", at(p.authorize)},
		{"token_endpoint", at(p.token)},
		{"revocation_endpoint", at(p.revoke)},
		{"device_authorization_endpoint", at(p.device)},
		{"jwks_uri", at(p.jwks)},
		{"response_types_supported", `["code"]`},
		{"response_modes_supported", `["query"]`},
		{"grant_types_supported", `["authorization_code","refresh_token","password","client_credentials",` + quote(deviceGrant) + `]`},
		{"subject_types_supported", `["public"]`},
		{"id_token_signing_alg_values_supported", `["RS256"]`},
		{"scopes_supported", `["openid","offline_access","email"]`},
		{"token_endpoint_auth_methods_supported", methods},
		{"token_endpoint_auth_signing_alg_values_supported", `["RS256","ES256","EdDSA"]`},
		{"revocation_endpoint_auth_methods_supported", methods},
		{"code_challenge_methods_supported", `["S256"]`},
		{"authorization_response_iss_parameter_supported", `true`},
	}
}

// moveTokenEndpoint names the token endpoint's host otherwise: it is another
// name of the same loopback address, where there is one.
func moveTokenEndpoint(m members) members {
	for _, member := range m {
		if member.name != "token_endpoint" {
			continue
		}
		u, err := url.Parse(member.text())
		if err != nil {
			return m // the request's Host is to blame
		}
		host := "moved." + u.Hostname()
		switch u.Hostname() {
		case "127.0.0.1":
			host = "localhost"
		case "localhost":
			host = "127.0.0.1"
		}
		if port := u.Port(); port != "" {
			host += ":" + port
		}
		u.Host = host
		return m.set("token_endpoint", quote(u.String()))
	}
	return m
}

// plainEndpoints puts every endpoint on a foreign host, without TLS.
func plainEndpoints(m members) members {
	for _, member := range m {
		if strings.HasSuffix(member.name, "_endpoint") || member.name == "jwks_uri" {
			u, err := url.Parse(member.text())
			if err != nil {
				continue
			}
			m = m.set(member.name, quote("http://foreign.invalid"+u.Path))
		}
	}
	return m
}

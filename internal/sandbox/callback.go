package sandbox

import (
	"net/url"
	"strings"
)

// A parameter is one of a callback's.
type parameter struct{ name, value string }

// parameters are those of a callback (RFC 6749 §4.1.2), in their order.
type parameters []parameter

func (ps parameters) encode() string {
	var b strings.Builder
	for i, p := range ps {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(p.name) + "=" + url.QueryEscape(p.value))
	}
	return b.String()
}

// with returns the parameters with one of them changed, or added.
func (ps parameters) with(name, value string) parameters {
	changed := append(parameters(nil), ps...)
	for i := range changed {
		if changed[i].name == name {
			changed[i].value = value
			return changed
		}
	}
	return append(changed, parameter{name, value})
}

func (ps parameters) without(name string) parameters {
	var rest parameters
	for _, p := range ps {
		if p.name != name {
			rest = append(rest, p)
		}
	}
	return rest
}

// repeated returns the parameters with one of them twice, with other values,
// if it is there.
func (ps parameters) repeated(name string) parameters {
	for _, p := range ps {
		if p.name == name {
			return append(ps[:len(ps):len(ps)], parameter{name, "repeated-" + opaque(8)})
		}
	}
	return ps
}

// callbackURL adds parameters to a redirect URI, whose own query is kept. An
// empty path becomes /, as in Pagero's examples.
func callbackURL(redirectURI string, ps parameters, fragment bool) string {
	query := ps.encode()
	if fragment {
		return redirectURI + "#" + query
	}
	separator := "?"
	if strings.Contains(redirectURI, "?") {
		separator = "&"
		if strings.HasSuffix(redirectURI, "?") || strings.HasSuffix(redirectURI, "&") {
			separator = ""
		}
	} else if u, err := url.Parse(redirectURI); err == nil && u.Path == "" {
		separator = "/?"
	}
	return redirectURI + separator + query
}

// answer returns where the browser is sent: with a code for the user or, if
// refused isn't nil, with the error. A fault changes what is told of it.
func (s *Sandbox) answer(ar *authorizationRequest, user string, refused *refusal, e *Event) string {
	grant := "authorization_code"
	if ar.fragment {
		grant = "password"
	}
	b := s.faults.take(endpointAuthorize, grant)
	e.Fault = b.info.Name
	if b.deny != nil {
		refused = b.deny
	}
	var ps parameters
	if refused != nil {
		e.Error = refused.code
		ps = parameters{{"error", refused.code}}
		if refused.description != "" {
			ps = append(ps, parameter{"error_description", refused.description})
		}
	} else {
		e.Username = user
		ps = parameters{{"code", s.newCode(ar, user)}}
		e.Committed = true
	}
	if ar.state != "" {
		ps = append(ps, parameter{"state", ar.state})
	}
	if s.provider.iss {
		ps = append(ps, parameter{"iss", s.issuer(ar.base)})
	}
	if b.callback != nil {
		ps = b.callback(ps)
	}
	to := ar.redirectURI
	if b.elsewhere != "" {
		to = b.elsewhere
	}
	return callbackURL(to, ps, ar.fragment)
}

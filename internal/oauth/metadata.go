package oauth

import (
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Metadata is what an authorization server says of itself (RFC 8414 §2), as
// far as it is used. An endpoint that it doesn't have is empty.
type Metadata struct {
	Issuer            string `json:"issuer"`
	AuthorizeEndpoint string `json:"authorize_endpoint,omitempty"`
	TokenEndpoint     string `json:"token_endpoint,omitempty"`
	RevokeEndpoint    string `json:"revoke_endpoint,omitempty"`
	DeviceEndpoint    string `json:"device_endpoint,omitempty"`
	// SendsIss tells that every callback has an iss (RFC 9207 §3).
	SendsIss bool `json:"sends_iss,omitempty"`
}

// maxMetadata is how much of a metadata document is read, in bytes.
const maxMetadata = 256 << 10

// endpointFaults are the endpoints that metadata lacks, or has in a form that
// can't be used, by the options that override them.
type endpointFaults []endpointFault

type endpointFault struct{ option, text string }

func (fs endpointFaults) Error() string {
	var lines []string
	for _, f := range fs {
		lines = append(lines, f.text+"; set "+f.option)
	}
	return strings.Join(lines, "; ")
}

// unlessOverridden returns err without the faults of endpoints that the options
// override; nil if nothing else is wrong. The metadata that came with err can
// be used then.
func unlessOverridden(err error, options ...string) error {
	var fs endpointFaults
	if !errors.As(err, &fs) {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(fs), func(f endpointFault) bool { return slices.Contains(options, f.option) })
	if len(left) == 0 {
		return nil
	}
	return left
}

// readMetadata reads the metadata of an issuer (RFC 8414 §3.2, OIDC Discovery
// §4.2). If nothing but endpoints is wrong, the metadata has the others, and
// the error is of type endpointFaults. No error quotes the document.
func readMetadata(issuer string, body []byte) (Metadata, error) {
	if len(body) > maxMetadata {
		return Metadata{}, errors.New("it is too long")
	}
	object, err := readObject(body)
	if err != nil {
		return Metadata{}, err
	}
	m := Metadata{Issuer: issuer}
	if err := checkIssuer(text(object["issuer"]), issuer); err != nil {
		return Metadata{}, err
	}
	if value := object["authorization_response_iss_parameter_supported"]; value != nil {
		switch strings.Trim(string(value), `"`) { // some servers have text for everything
		case "true":
			m.SendsIss = true
		case "false", "null":
		default:
			return Metadata{}, errors.New("its authorization_response_iss_parameter_supported is neither true nor false")
		}
	}
	var faults endpointFaults
	for _, e := range []struct {
		name, option string
		endpoint     *string
	}{
		{"token_endpoint", "token_endpoint", &m.TokenEndpoint},
		{"authorization_endpoint", "authorize_endpoint", &m.AuthorizeEndpoint},
		{"revocation_endpoint", "revoke_endpoint", &m.RevokeEndpoint},
		{"device_authorization_endpoint", "device_endpoint", &m.DeviceEndpoint},
	} {
		value := object[e.name]
		given := text(value)
		switch {
		case value == nil || string(value) == "null":
			if e.endpoint == &m.TokenEndpoint {
				faults = append(faults, endpointFault{e.option, "it has no " + e.name})
			}
		case given == nil || !isEndpoint(*given) || strings.HasPrefix(issuer, "https:") && !strings.HasPrefix(*given, "https:"):
			faults = append(faults, endpointFault{e.option, "its " + e.name + " is no absolute https URL without user and fragment"})
		default:
			*e.endpoint = *given
		}
	}
	if faults != nil {
		return m, faults
	}
	return m, nil
}

// checkIssuer compares the issuer of a document with the configured one, as
// simple text (RFC 8414 §3.3).
func checkIssuer(given *string, want string) error {
	switch {
	case given == nil:
		return errors.New("it has no issuer")
	case *given == want:
		return nil
	case strings.TrimRight(*given, "/") == strings.TrimRight(want, "/"):
		return errors.New("its issuer differs from the configured one by a slash at the end")
	}
	return errors.New("its issuer is not the configured one")
}

// movedFrom compares with former metadata of the same issuer: it reports
// whether secrets would go to another host or port than before, and tells which
// in a sentence that is safe to show. Metadata without any such endpoint is
// compared with nothing.
func (m Metadata) movedFrom(old Metadata) (string, bool) {
	var known, moves []string
	for _, endpoint := range []string{old.AuthorizeEndpoint, old.TokenEndpoint, old.RevokeEndpoint, old.DeviceEndpoint} {
		if endpoint != "" {
			known = append(known, hostOf(endpoint))
		}
	}
	for _, e := range []struct{ name, now, before string }{
		{"authorization endpoint", m.AuthorizeEndpoint, old.AuthorizeEndpoint}, // people type their passwords there
		{"token endpoint", m.TokenEndpoint, old.TokenEndpoint},
		{"revocation endpoint", m.RevokeEndpoint, old.RevokeEndpoint},
		{"device endpoint", m.DeviceEndpoint, old.DeviceEndpoint},
	} {
		host := hostOf(e.now)
		switch {
		case e.now == "" || len(known) == 0:
		case e.before == "" && !slices.Contains(known, host):
			moves = append(moves, "the "+e.name+" is new, on "+host+", where no other was")
		case e.before != "" && host != hostOf(e.before):
			moves = append(moves, "the "+e.name+" moved from "+hostOf(e.before)+" to "+host)
		}
	}
	return strings.Join(moves, "; "), moves != nil
}

// hostOf returns the host of an endpoint, in lower case, with the port unless
// it is that of https.
func hostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || !isHostname(u.Hostname()) {
		return "an unknown host"
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" && u.Scheme == "http" {
		port = "80"
	}
	if port == "" || port == "443" {
		return host
	}
	return net.JoinHostPort(host, port)
}

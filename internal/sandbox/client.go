package sandbox

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
)

// maxForm is the most that a token or revocation request may weigh.
const maxForm = 64 << 10

// A refusal is an error answer of RFC 6749 §5.2.
type refusal struct {
	status      int
	code        string // the OAuth error code
	description string
}

func invalidRequest(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, "invalid_request", fmt.Sprintf(format, args...)}
}

func invalidGrant(description string) *refusal {
	return &refusal{http.StatusBadRequest, "invalid_grant", description}
}

// invalidClient is answered with 401 and a challenge, as RFC 6749 §5.2 demands
// of a server that is asked with an Authorization header.
func invalidClient(description string) *refusal {
	return &refusal{http.StatusUnauthorized, "invalid_client", description}
}

// readForm reads the parameters of a token or revocation request. What could
// be read is returned beside a refusal, so that it can be logged.
func readForm(w http.ResponseWriter, r *http.Request) (map[string]string, *refusal) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, invalidRequest("the media type must be application/x-www-form-urlencoded")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, invalidRequest("the body is larger than %d bytes", maxForm)
	}
	if err != nil {
		return nil, invalidRequest("the body ended early")
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, invalidRequest("the body is not form-urlencoded")
	}
	form := make(map[string]string, len(values))
	var refused *refusal
	for name, all := range values {
		if len(all) > 1 {
			refused = invalidRequest("a parameter is repeated")
		}
		if all[0] != "" { // sent without a value: as if omitted, RFC 6749 §3.2
			form[name] = all[0]
		}
	}
	if r.URL.RawQuery != "" { // secrets do not belong into a URI, RFC 6749 §2.3.1
		refused = invalidRequest("parameters in the URI")
	}
	return form, refused
}

// clientAuthMethod names the ways in which the client tried to authenticate.
func clientAuthMethod(r *http.Request, form map[string]string) string {
	_, _, basic := r.BasicAuth()
	post := form["client_secret"] != ""
	switch {
	case basic && post:
		return "both"
	case basic:
		return "basic"
	case post:
		return "post"
	}
	return "none"
}

// authenticate checks the client's credentials (RFC 6749 §2.3.1).
func (c Config) authenticate(r *http.Request, form map[string]string) *refusal {
	authorization := r.Header.Values("Authorization")
	if len(authorization) > 1 {
		return invalidRequest("more than one Authorization header")
	}
	method := clientAuthMethod(r, form)
	switch {
	case method == "both":
		return invalidRequest("more than one client authentication method")
	case len(authorization) == 1 && method != "basic":
		return invalidClient("the Authorization header is not Basic")
	}
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
	default:
		return invalidClient("the client did not authenticate")
	}
	return nil
}

func (c Config) basicMatches(id, secret string) bool {
	if !c.EncodedBasic && id == c.ClientID && secret == c.ClientSecret {
		return true
	}
	if c.RawBasic {
		return false
	}
	plainID, err := url.QueryUnescape(id)
	if err != nil {
		return false
	}
	plainSecret, err := url.QueryUnescape(secret)
	return err == nil && plainID == c.ClientID && plainSecret == c.ClientSecret
}

// clientEvent returns the event of a request to the token or revocation
// endpoint, with nothing in it that could be a secret.
func (c Config) clientEvent(kind string, r *http.Request, form map[string]string) Event {
	e := newEvent(kind, r)
	id, _, basic := r.BasicAuth()
	if basic {
		if plain, err := url.QueryUnescape(id); err == nil && id != c.ClientID {
			id = plain
		}
	} else {
		id = form["client_id"]
	}
	e.ClientAuth = clientAuthMethod(r, form)
	e.ClientID = knownOr(id, c.ClientID)
	e.Username = knownOr(form["username"], c.Username)
	e.Grant = knownOr(form["grant_type"], "password", "refresh_token", "authorization_code",
		"client_credentials", "urn:ietf:params:oauth:grant-type:device_code")
	return e
}

// knownOr returns name if it is empty or one of the known, else Unknown.
func knownOr(name string, known ...string) string {
	for _, k := range known {
		if name == k {
			return name
		}
	}
	if name == "" {
		return ""
	}
	return Unknown
}

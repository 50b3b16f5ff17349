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
	form, refused := readFormBody(w, r)
	if r.URL.RawQuery != "" && (refused == nil || form != nil) {
		// Secrets do not belong into a URI, RFC 6749 §2.3.1.
		refused = invalidRequest("parameters in the URI")
	}
	return form, refused
}

// readFormBody reads the parameters of a body and leaves the query alone.
func readFormBody(w http.ResponseWriter, r *http.Request) (map[string]string, *refusal) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, invalidRequest("the media type must be application/x-www-form-urlencoded")
	}
	body, refused := readAll(w, r)
	if refused != nil {
		return nil, refused
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, invalidRequest("the body is not form-urlencoded")
	}
	form := make(map[string]string, len(values))
	for name, all := range values {
		if len(all) > 1 {
			refused = invalidRequest("a parameter is repeated")
		}
		if all[0] != "" { // sent without a value: as if omitted, RFC 6749 §3.2
			form[name] = all[0]
		}
	}
	return form, refused
}

func readAll(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, invalidRequest("the body is larger than %d bytes", maxForm)
	}
	if err != nil {
		return nil, invalidRequest("the body ended early")
	}
	return body, nil
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
	} else if id = form["client_id"]; id == "" {
		if _, claims, _, _, err := parseJWT(form["client_assertion"]); err == nil {
			id = claims.text("sub")
		}
	}
	e.ClientAuth = clientAuthMethod(r, form)
	e.ClientID = knownOr(id, c.ClientID)
	e.Username = c.knownUser(form["username"])
	e.Grant = knownOr(form["grant_type"], "password", "refresh_token", "authorization_code",
		"client_credentials", deviceGrant)
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

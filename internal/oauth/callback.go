package oauth

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// ErrCallbackMalformed: a callback isn't the authorization response of RFC 6749
// §4.1.2. Nothing was asked of the authorization server.
var ErrCallbackMalformed = errors.New("the callback is malformed")

// A callback is an authorization response: a code or an error, never both.
type callback struct {
	Code  Secret
	State string
	Iss   *string // RFC 9207; nil if it is absent
	Error string  // a checked error code; empty if there is none
}

// maxCallback is the largest query, and Location, that is read, in bytes.
const maxCallback = 16 << 10

// responseParams are what an authorization response may have; each may be
// there once (RFC 6749 §3.1). The last two are anybody's text and never kept.
var responseParams = []string{"code", "state", "iss", "error", "error_description", "error_uri"}

// readCallback reads the raw query of an authorization response. Every error
// wraps [ErrCallbackMalformed], and quotes nothing of the query.
func readCallback(query string) (callback, error) {
	r, err := readResponse(query)
	if err == nil && r.State == "" {
		err = errors.New("it has no state")
	}
	if err != nil {
		return callback{}, fmt.Errorf("%w: %w", ErrCallbackMalformed, err)
	}
	return r, nil
}

// readResponse reads an authorization response without asking for a state.
func readResponse(form string) (callback, error) {
	params, err := readForm(form, responseParams)
	if err != nil {
		return callback{}, err
	}
	code, failure := params["code"], params["error"]
	switch {
	case code != "" && failure != "":
		return callback{}, errors.New("it has both a code and an error")
	case code == "" && failure == "":
		return callback{}, errors.New("it has neither a code nor an error")
	case !isVisible(code):
		return callback{}, errors.New("its code has characters that no code may have (RFC 6749 appendix A.11)")
	}
	cb := callback{Code: NewSecret(code), State: params["state"]}
	if iss := params["iss"]; iss != "" {
		cb.Iss = &iss
	}
	if failure != "" {
		cb.Error = errorCode(failure)
	}
	return cb, nil
}

// readForm decodes form parameters, and returns those of the names that have a
// value: one without counts as omitted (RFC 6749 §3.1), yet not twice. Others
// are ignored. A semicolon is a character like any other, unlike in
// [url.ParseQuery].
func readForm(form string, names []string) (map[string]string, error) {
	if len(form) > maxCallback {
		return nil, errors.New("it is too long")
	}
	params := map[string]string{}
	for pair := range strings.SplitSeq(form, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(rawName)
		value, err2 := url.QueryUnescape(rawValue)
		if err1 != nil || err2 != nil {
			return nil, errors.New("it has an escape sequence that can't be decoded")
		}
		if !slices.Contains(names, name) {
			continue
		}
		if _, again := params[name]; again {
			return nil, errors.New("it has the parameter " + name + " more than once")
		}
		params[name] = value
	}
	return params, nil
}

// isVisible reports whether s is of VSCHAR only: printable ASCII and the space.
func isVisible(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

package oauth

import (
	"crypto/subtle"
	"errors"
	"strings"
)

// readFragment reads the secure code of Aidbox's password grant from the
// Location of a 302 that isn't followed: the registered redirect URI, byte for
// byte, with code and state behind the #. The code is good for one token
// request and is never stored. Errors quote nothing of the Location but a
// checked error code.
func readFragment(location, redirectURI, state string) (Secret, error) {
	if len(location) > maxCallback {
		return Secret{}, errors.New("the redirect with the secure code is too long")
	}
	target, fragment, _ := strings.Cut(location, "#")
	if redirectURI == "" || target != redirectURI {
		return Secret{}, errors.New("the redirect with the secure code goes elsewhere than to the redirect_uri of secure_code")
	}
	if fragment == "" {
		return Secret{}, errors.New("the redirect has no fragment: is auth.password.redirect_uri of the client registered as in secure_code?")
	}
	r, err := readResponse(fragment)
	switch {
	case err != nil:
		return Secret{}, errors.New("the redirect's fragment is malformed: " + err.Error())
	case r.Error != "": // it ends the attempt, whosever it is
		return Secret{}, errors.New("the authorization endpoint gave no secure code: " + r.Error)
	case r.State == "" || subtle.ConstantTimeCompare([]byte(r.State), []byte(state)) != 1:
		return Secret{}, errors.New("the redirect with the secure code has another state than the one that was sent")
	}
	return r.Code, nil
}

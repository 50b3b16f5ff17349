package caddymodule

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is how the command line logs in and out.

// loginJSON is the body of POST /bearer/login and /bearer/login/finish.
type loginJSON struct {
	actionJSON
	// Browser is what binds the login to the terminal that began it.
	Browser string `json:"browser,omitempty"`
	// RedirectURI is where the terminal listens.
	RedirectURI string `json:"redirect_uri,omitempty"`
	// Query is that of the callback, At the URL where it arrived.
	Query string `json:"query,omitempty"`
	At    string `json:"at,omitempty"`
	// Login is the handle of one that began.
	Login string `json:"login,omitempty"`
}

// beganJSON is how a login stands.
type beganJSON struct {
	// Status is that of a session that was signed in at once, or whose login is
	// done.
	Status *accountStatus `json:"status,omitempty"`
	// Login is the handle, URL where the browser goes.
	Login string `json:"login,omitempty"`
	URL   string `json:"url,omitempty"`
	// The code of a device, and where it is entered.
	UserCode                string    `json:"user_code,omitempty"`
	VerificationURI         string    `json:"verification_uri,omitempty"`
	VerificationURIComplete string    `json:"verification_uri_complete,omitempty"`
	Expires                 time.Time `json:"expires,omitzero"`
	Done                    bool      `json:"done"`
}

func serveLogin(w http.ResponseWriter, r *http.Request) error {
	var body loginJSON
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	app, s, err := sessionOf(r.Context(), body.key())
	if err != nil {
		return err
	}
	if !s.Account().PersonLogin() {
		if err := s.Login(r.Context()); err != nil {
			return actionError(err)
		}
		return writeDone(w, r, app, s.Key())
	}
	if u, err := url.Parse(body.RedirectURI); body.RedirectURI != "" && (err != nil || u.Scheme != "http" || !loopback(u.Hostname())) {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: errors.New("redirect_uri must be on loopback")}
	}
	l, err := s.BeginLogin(r.Context(), oauth.LoginStart{
		RedirectURI: body.RedirectURI, Browser: oauth.NewSecret(body.Browser), Terminal: true,
	})
	if err != nil {
		return actionError(err)
	}
	answer := beganJSON{Login: l.ID, URL: l.URL, Expires: l.Expires.UTC()}
	if d := l.Device; d != nil {
		answer.UserCode, answer.VerificationURI, answer.VerificationURIComplete = d.UserCode, d.VerificationURI, d.VerificationURIComplete
	}
	return writeJSON(w, answer)
}

func writeDone(w http.ResponseWriter, r *http.Request, app *App, key oauth.Key) error {
	one, err := app.describeOne(r.Context(), key)
	if err != nil {
		return err
	}
	return writeJSON(w, beganJSON{Status: &one, Done: true})
}

func serveLoginFinish(w http.ResponseWriter, r *http.Request) error {
	var body loginJSON
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	app, err := inForce()
	if err != nil {
		return err
	}
	l, err := app.shared.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: body.Query, At: body.At, Browser: oauth.NewSecret(body.Browser)})
	if err != nil {
		return actionError(err)
	}
	return writeDone(w, r, app, l.Key)
}

func serveLoginStatus(w http.ResponseWriter, r *http.Request) error {
	var body loginJSON
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	app, err := inForce()
	if err != nil {
		return err
	}
	l, err := app.shared.sessions.LookUpLogin(body.Login)
	switch {
	case err != nil:
		return actionError(err)
	case l.Err != nil:
		return actionError(l.Err)
	case l.Done:
		return writeDone(w, r, app, l.Key)
	}
	return writeJSON(w, beganJSON{Login: l.ID, Expires: l.Expires.UTC()})
}

// logoutJSON is the answer of POST /bearer/logout: both facts.
type logoutJSON struct {
	Status  accountStatus `json:"status"`
	Revoked bool          `json:"revoked"`
	// Detail says why the server didn't revoke the tokens.
	Detail string `json:"detail,omitempty"`
}

func serveLogout(w http.ResponseWriter, r *http.Request) error {
	var body actionJSON
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	app, s, err := sessionOf(r.Context(), body.key())
	if err != nil {
		return err
	}
	out, err := s.Logout(r.Context())
	if err != nil {
		return actionError(err)
	}
	one, err := app.describeOne(r.Context(), s.Key())
	if err != nil {
		return err
	}
	return writeJSON(w, logoutJSON{Status: one, Revoked: out.Revoked, Detail: out.Detail})
}

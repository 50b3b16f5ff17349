package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Admin is the part of Caddy's admin endpoint under /bearer/:
//
//   - GET /bearer/status tells the condition of every account; with
//     ?account=<name>[&user=<name>], of one session.
//   - GET /bearer/users?account=<name> tells the condition of its users, in
//     order: up to &limit=<n> (100) of those behind &after=<user>.
//   - POST /bearer/refresh gets a session a new token now.
//   - POST /bearer/login signs a session in: at once if the grant needs no
//     person, otherwise it begins a login.
//   - POST /bearer/login/finish takes the callback of a login.
//   - POST /bearer/login/status tells how a login stands.
//   - POST /bearer/logout revokes a session's tokens and drops them.
//   - POST /bearer/import gives a session a refresh token from elsewhere.
//   - POST /bearer/forget drops a session's tokens here.
//   - POST /bearer/adopt takes over stored tokens that aren't used because they
//     are another installation's or another identity's; without
//     `"confirm": true` it only lists them.
//   - POST /bearer/backup answers with a copy of the store.
//   - POST /bearer/rekey seals the store anew.
//
// The last two take `{}`. The other POST requests take `{"account": "<name>"}` as application/json, with a
// `"user"` where the account has sessions per user, and answer with the
// session's condition. No answer holds a token or a secret.
type Admin struct{}

func (*Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.bearer", New: func() caddy.Module { return new(Admin) }}
}

// Routes implements caddy.AdminRouter.
func (*Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "GET /bearer/status", Handler: caddy.AdminHandlerFunc(serveStatus)},
		{Pattern: "GET /bearer/users", Handler: caddy.AdminHandlerFunc(serveUsers)},
		{Pattern: "POST /bearer/refresh", Handler: action(func(ctx context.Context, s *oauth.Session, _ actionJSON) error { return s.Refresh(ctx) })},
		{Pattern: "POST /bearer/forget", Handler: action(func(ctx context.Context, s *oauth.Session, _ actionJSON) error { return s.Forget(ctx) })},
		{Pattern: "POST /bearer/import", Handler: action(serveImport)},
		{Pattern: "POST /bearer/login", Handler: caddy.AdminHandlerFunc(serveLogin)},
		{Pattern: "POST /bearer/login/finish", Handler: caddy.AdminHandlerFunc(serveLoginFinish)},
		{Pattern: "POST /bearer/login/status", Handler: caddy.AdminHandlerFunc(serveLoginStatus)},
		{Pattern: "POST /bearer/logout", Handler: caddy.AdminHandlerFunc(serveLogout)},
		{Pattern: "POST /bearer/adopt", Handler: caddy.AdminHandlerFunc(serveAdopt)},
		{Pattern: "POST /bearer/backup", Handler: caddy.AdminHandlerFunc(serveBackup)},
		{Pattern: "POST /bearer/rekey", Handler: caddy.AdminHandlerFunc(serveRekey)},
	}
}

// inForce is the running app, or the answer that there is none.
func inForce() (*App, error) {
	if caddy.ActiveContext().Context == nil { // Caddy opens the admin endpoint first
		return nil, caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errStarting}
	}
	app, err := running()
	if err != nil {
		return nil, caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
	}
	return app, nil
}

// errStarting tells that no configuration is in force yet.
var errStarting = errors.New("no configuration is in force yet: the server is starting, or was started without one")

// noSession tells why there is no session of a key.
func noSession(key oauth.Key, err error) error {
	switch {
	case errors.Is(err, oauth.ErrUnknownUser) && key.User == "":
		err = fmt.Errorf("account %q has one session per user; name it as %s/<user>", key.Account, key.Account)
	case errors.Is(err, oauth.ErrUnknownUser):
		err = fmt.Errorf("account %q has no sessions per user; leave the user out", key.Account)
	default:
		err = fmt.Errorf("account %q: %w; `caddy bearer status` lists them", key.Account, err)
	}
	return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: err}
}

// actionJSON is the body of the POST requests.
type actionJSON struct {
	Account      string `json:"account"`
	User         string `json:"user,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
}

func serveImport(ctx context.Context, s *oauth.Session, body actionJSON) error {
	if body.RefreshToken == "" {
		return errNoRefreshToken
	}
	return s.Import(ctx, oauth.NewSecret(body.RefreshToken))
}

var errNoRefreshToken = errors.New("there is no refresh_token to import")

// action serves a POST that does something with one session.
func action(do func(context.Context, *oauth.Session, actionJSON) error) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		var body actionJSON
		if err := readBody(w, r, &body); err != nil {
			return err
		}
		app, s, err := sessionOf(r.Context(), body.key())
		if err != nil {
			return err
		}
		if err := do(r.Context(), s, body); err != nil {
			return actionError(err)
		}
		one, err := app.describeOne(r.Context(), s.Key())
		if err != nil {
			return err
		}
		return writeJSON(w, one)
	}
}

func (a actionJSON) key() oauth.Key { return oauth.Key{Account: a.Account, User: a.User} }

// sessionOf finds a session of the configuration in force.
func sessionOf(ctx context.Context, key oauth.Key) (*App, *oauth.Session, error) {
	app, err := inForce()
	if err != nil {
		return nil, nil, err
	}
	s, err := app.shared.sessions.Session(ctx, key)
	if err != nil {
		return nil, nil, noSession(key, err)
	}
	return app, s, nil
}

// actionError is the answer to an action that failed.
func actionError(err error) error {
	var login *oauth.LoginError
	switch {
	case errors.Is(err, errNoRefreshToken):
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	case errors.Is(err, oauth.ErrImportRefused), errors.Is(err, oauth.ErrNothingToAdopt), errors.As(err, &login):
		return caddy.APIError{HTTPStatus: http.StatusUnprocessableEntity, Err: err}
	}
	p := tokenProblem(err, time.Now())
	return caddy.APIError{HTTPStatus: p.Status, Err: fmt.Errorf("%s: %w", p.Code, err)}
}

// readBody reads a body. Its media type is one that no web page can send
// without asking first. Errors don't quote it: it may hold a secret.
func readBody(w http.ResponseWriter, r *http.Request, to any) error {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != "application/json" {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: errors.New("the body must be application/json")}
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: errors.New(`the body must be an object with the fields of this request, {"account": "<name>"} for instance`)}
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

var _ caddy.AdminRouter = (*Admin)(nil)

package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Admin is the part of Caddy's admin endpoint under /bearer/:
//
//   - GET /bearer/status tells the condition of every account; with
//     ?account=<name>[&user=<name>], of one session.
//   - POST /bearer/refresh gets a session a new token now.
//   - POST /bearer/login signs a session in: at once if the grant needs no
//     person, otherwise it begins a login.
//   - POST /bearer/login/finish takes the callback of a login.
//   - POST /bearer/login/status tells how a login stands.
//   - POST /bearer/logout revokes a session's tokens and drops them.
//   - POST /bearer/import gives a session a refresh token from elsewhere.
//   - POST /bearer/forget drops a session's tokens here.
//
// The POST requests take `{"account": "<name>"}` as application/json, with a
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
		{Pattern: "POST /bearer/refresh", Handler: action(func(ctx context.Context, s *oauth.Session, _ actionJSON) error { return s.Refresh(ctx) })},
		{Pattern: "POST /bearer/forget", Handler: action(func(ctx context.Context, s *oauth.Session, _ actionJSON) error { return s.Forget(ctx) })},
		{Pattern: "POST /bearer/import", Handler: action(serveImport)},
		{Pattern: "POST /bearer/login", Handler: caddy.AdminHandlerFunc(serveLogin)},
		{Pattern: "POST /bearer/login/finish", Handler: caddy.AdminHandlerFunc(serveLoginFinish)},
		{Pattern: "POST /bearer/login/status", Handler: caddy.AdminHandlerFunc(serveLoginStatus)},
		{Pattern: "POST /bearer/logout", Handler: caddy.AdminHandlerFunc(serveLogout)},
	}
}

// statusJSON is the answer of GET /bearer/status.
type statusJSON struct {
	Store    string          `json:"store"`
	Portal   string          `json:"portal,omitempty"`
	Accounts []accountStatus `json:"accounts"`
}

// accountStatus is the condition of a session. Times are UTC, RFC 3339.
type accountStatus struct {
	Account string      `json:"account"`
	User    string      `json:"user,omitempty"`
	State   oauth.State `json:"state"`
	// Users counts the stored users of an account with sessions per user. Then
	// nothing below but Grant is set.
	Users *int `json:"users,omitempty"`
	// Detail says why, and what to do.
	Detail string `json:"detail,omitempty"`
	Grant  string `json:"grant"`
	// Generation counts the saves of the account's record.
	Generation      uint64    `json:"generation"`
	Obtained        time.Time `json:"obtained,omitzero"`
	Expires         time.Time `json:"expires,omitzero"`
	HasRefreshToken bool      `json:"has_refresh_token"`
	RefreshExpires  time.Time `json:"refresh_expires,omitzero"`
	Refreshed       time.Time `json:"refreshed,omitzero"`
	SignedIn        time.Time `json:"signed_in,omitzero"`
	RetryAt         time.Time `json:"retry_at,omitzero"`
	// Unsaved: the newest tokens are in memory only.
	Unsaved bool `json:"unsaved,omitempty"`
	// RedirectURI is where callbacks arrive; at the command line if it is not
	// on the portal.
	RedirectURI string `json:"redirect_uri,omitempty"`
	Terminal    bool   `json:"terminal,omitempty"`
}

func (st accountStatus) name() string {
	return oauth.Key{Account: st.Account, User: st.User}.String()
}

func describe(st oauth.Status) accountStatus {
	return accountStatus{
		Account: st.Key.Account, User: st.Key.User, State: st.State, Detail: st.Detail, Grant: st.Grant, Generation: st.Generation,
		Obtained: st.Obtained.UTC(), Expires: st.Expires.UTC(),
		HasRefreshToken: st.HasRefreshToken, RefreshExpires: st.RefreshExpires.UTC(),
		Refreshed: st.Refreshed.UTC(), SignedIn: st.SignedIn.UTC(), RetryAt: st.RetryAt.UTC(), Unsaved: st.Unsaved,
	}
}

// describeAll tells the condition of every account.
func (app *App) describeAll(ctx context.Context) (all []accountStatus, err error) {
	all = []accountStatus{}
	for name, s := range app.shared.sessions.All() {
		st := describe(s.Status())
		if s.Account().PerUser {
			users, err := app.shared.sessions.Users(ctx, name)
			if err != nil {
				return nil, err
			}
			n := len(users)
			st = accountStatus{Account: name, State: oauth.StateReady, Users: &n, Grant: st.Grant}
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b accountStatus) int { return cmp.Compare(a.Account, b.Account) })
	return all, nil
}

// describeOne tells the condition of one session, and how it is logged in.
func (app *App) describeOne(ctx context.Context, key oauth.Key) (accountStatus, error) {
	st, err := app.shared.sessions.StatusOf(ctx, key)
	if err != nil {
		return accountStatus{}, err
	}
	one := describe(st)
	if a := app.account(key.Account); a != nil {
		if code, ok := a.Grant.(*oauth.AuthorizationCode); ok {
			one.RedirectURI, one.Terminal = code.RedirectURI, app.terminalLogin(code)
		}
	}
	return one, nil
}

func serveStatus(w http.ResponseWriter, r *http.Request) error {
	app, err := inForce()
	if err != nil {
		return err
	}
	answer := statusJSON{Store: app.lease.module.Describe(), Portal: app.portal}
	query := r.URL.Query()
	if key := (oauth.Key{Account: query.Get("account"), User: query.Get("user")}); key.Account != "" {
		one, err := app.describeOne(r.Context(), key)
		if err != nil {
			return noSession(key, err)
		}
		answer.Accounts = []accountStatus{one}
	} else if answer.Accounts, err = app.describeAll(r.Context()); err != nil {
		return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
	}
	return writeJSON(w, answer)
}

// inForce is the running app, or the answer that there is none.
func inForce() (*App, error) {
	app, err := running()
	if err != nil {
		return nil, caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
	}
	return app, nil
}

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
	case errors.Is(err, oauth.ErrImportRefused), errors.As(err, &login):
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
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: errors.New(`the body must be {"account": "<name>"}`)}
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

var _ caddy.AdminRouter = (*Admin)(nil)

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
//   - GET /bearer/status tells the condition of every account.
//   - POST /bearer/refresh gets an account a new token now.
//   - POST /bearer/import gives an account a refresh token from elsewhere.
//   - POST /bearer/forget drops an account's tokens here.
//
// The POST requests take `{"account": "<name>"}` as application/json, import
// with a `"refresh_token"` beside it, and answer with the account's condition. No answer holds a token or a secret.
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
	}
}

// statusJSON is the answer of GET /bearer/status.
type statusJSON struct {
	Store    string          `json:"store"`
	Accounts []accountStatus `json:"accounts"`
}

// accountStatus is the condition of an account. Times are UTC, RFC 3339.
type accountStatus struct {
	Account string      `json:"account"`
	State   oauth.State `json:"state"`
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
	RetryAt         time.Time `json:"retry_at,omitzero"`
	// Unsaved: the newest tokens are in memory only.
	Unsaved bool `json:"unsaved,omitempty"`
}

func statusOf(s *oauth.Session) accountStatus {
	st := s.Status()
	return accountStatus{
		Account: st.Key.String(), State: st.State, Detail: st.Detail, Grant: st.Grant, Generation: st.Generation,
		Obtained: st.Obtained.UTC(), Expires: st.Expires.UTC(),
		HasRefreshToken: st.HasRefreshToken, RefreshExpires: st.RefreshExpires.UTC(),
		Refreshed: st.Refreshed.UTC(), RetryAt: st.RetryAt.UTC(), Unsaved: st.Unsaved,
	}
}

func serveStatus(w http.ResponseWriter, _ *http.Request) error {
	app, err := running()
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
	}
	answer := statusJSON{Store: app.lease.module.Describe(), Accounts: []accountStatus{}}
	for _, s := range app.shared.sessions.All() {
		answer.Accounts = append(answer.Accounts, statusOf(s))
	}
	slices.SortFunc(answer.Accounts, func(a, b accountStatus) int { return cmp.Compare(a.Account, b.Account) })
	return writeJSON(w, answer)
}

// actionJSON is the body of the POST requests.
type actionJSON struct {
	Account      string `json:"account"`
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
		body, err := readAction(w, r)
		if err != nil {
			return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
		}
		app, err := running()
		if err != nil {
			return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
		}
		s, err := app.shared.sessions.Session(r.Context(), body.Account)
		if err != nil {
			return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("account %q: %w; `caddy bearer status` lists them", body.Account, err)}
		}
		err = do(r.Context(), s, body)
		switch {
		case errors.Is(err, errNoRefreshToken):
			return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
		case errors.Is(err, oauth.ErrImportRefused):
			return caddy.APIError{HTTPStatus: http.StatusUnprocessableEntity, Err: err}
		}
		if err != nil {
			p := tokenProblem(err, time.Now())
			return caddy.APIError{HTTPStatus: p.Status, Err: fmt.Errorf("%s: %w", p.Code, err)}
		}
		return writeJSON(w, statusOf(s))
	}
}

// readAction reads the body. Its media type is one that no web page can send
// without asking first. Errors don't quote it: it may hold a refresh token.
func readAction(w http.ResponseWriter, r *http.Request) (body actionJSON, err error) {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != "application/json" {
		return body, errors.New("the body must be application/json")
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil || body.Account == "" {
		return body, errors.New(`the body must be {"account": "<name>"}`)
	}
	return body, nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

var _ caddy.AdminRouter = (*Admin)(nil)

package caddymodule

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file tells the condition of the accounts and of the store.

// statusJSON is the answer of GET /bearer/status and what `caddy bearer status
// --json` prints. Its members keep their names and meaning; there may be more
// some day.
type statusJSON struct {
	// Store is where the tokens are kept, StoreProblem what is wrong there now,
	// StoreMended what of it was made good since it was opened, oldest first.
	Store        string   `json:"store"`
	StoreProblem string   `json:"store_problem,omitempty"`
	StoreMended  []string `json:"store_mended,omitempty"`
	// Portal is the URL where people log in.
	Portal   string          `json:"portal,omitempty"`
	Accounts []accountStatus `json:"accounts"`
	// Total counts the stored users of an account of which Accounts has some,
	// Next is the one after which the others come.
	Total *int   `json:"total,omitempty"`
	Next  string `json:"next,omitempty"`
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

func (app *App) statusOfStore() statusJSON {
	notice := app.shared.sessions.Store()
	return statusJSON{Store: app.lease.module.Describe(), StoreProblem: notice.Problem, StoreMended: notice.Mended, Portal: app.portal}
}

func serveStatus(w http.ResponseWriter, r *http.Request) error {
	app, err := inForce()
	if err != nil {
		return err
	}
	answer := app.statusOfStore()
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

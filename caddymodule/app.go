package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

const appName = "bearer"

// App is the bearer app: the accounts that this server acts as at APIs that
// want OAuth 2.0, and the store of their tokens.
//
// An account signs in at its authorization server, keeps the tokens, and
// rotates one-time refresh tokens without losing one. The transport
// `http.reverse_proxy.transport.bearer` (shorthand: the directive
// `bearer_proxy`) puts its access token on requests to the API.
//
// A reload keeps the open store, the tokens and the refreshes under way.
type App struct {
	// Where tokens are kept. Default: `{"store": "bbolt"}`.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=bearer.stores inline_key=store"`

	// URL of the portal, where people sign in: that of a site with the handler
	// bearer_portal, and a path there. Plain http is accepted on loopback only.
	// Default: none; then people sign in with `caddy bearer login`.
	Portal string `json:"portal,omitempty"`

	// The accounts by name.
	Accounts map[string]*Account `json:"accounts,omitempty"`

	ctx     caddy.Context // of Provision; Start gets none
	lease   lease
	portal  string          // checked; no slash at its end
	served  bool            // a site has the portal
	uses    map[string]bool // accounts that handlers use; true: with /<user>
	key     string
	shared  *shared
	started chan struct{}
	watched
}

func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: appName, New: func() caddy.Module { return new(App) }}
}

// Provision reads the configuration. It opens nothing and asks nobody.
func (app *App) Provision(ctx caddy.Context) error {
	quietStdLog()
	if app.StoreRaw == nil {
		app.StoreRaw = json.RawMessage(`{"store": "bbolt"}`)
	}
	module, err := ctx.LoadModule(app, "StoreRaw")
	if err != nil {
		return fmt.Errorf("loading the store: %w", err)
	}
	app.ctx, app.started = ctx, make(chan struct{})
	app.lease.log = ctx.Slogger()
	app.lease.module = module.(StoreModule)
	if len(app.Accounts) == 0 {
		return errors.New("bearer: no account is configured; add `account <name> { … }`")
	}
	if app.Portal != "" {
		if app.portal, err = portalURL(app.Portal); err != nil {
			return fmt.Errorf("portal: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(app.Accounts)) {
		if err := checkAccountName(name); err != nil {
			return err
		}
		a, err := app.Accounts[name].provision(name, app.portal, app.lease.log)
		if err != nil {
			return fmt.Errorf("account %s: %w", name, err)
		}
		app.lease.accounts = append(app.lease.accounts, a)
	}
	if err := checkRedirectURIs(app.lease.accounts); err != nil {
		return err
	}
	if err := app.watch(ctx); err != nil {
		return err
	}
	key := app.lease.module.PoolKey()
	if app.shared, err = acquire(key, app.lease.log); err != nil {
		return err
	}
	app.key = key // acquired: Cleanup gives it back
	return nil
}

// Start puts this configuration in force.
func (app *App) Start() error {
	warnOldToolchain(app.lease.log)
	app.spread()
	app.warnPortal()
	if err := app.shared.activate(app.ctx, &app.lease); err != nil {
		return err
	}
	close(app.started)
	return nil
}

// warnPortal tells of sign-ins that a browser can't bring to an end.
func (app *App) warnPortal() {
	if app.portal != "" && !app.served {
		app.lease.log.Warn("there is a portal's URL, but no site with bearer_portal; sign-ins by a browser will end nowhere", "portal", app.portal)
	}
	for _, a := range app.lease.accounts {
		code, ok := a.Grant.(*oauth.AuthorizationCode)
		if !ok || app.terminalLogin(code) || app.onPortal(code.RedirectURI) {
			continue
		}
		app.lease.log.Warn("the redirect_uri is neither on the portal's host nor on loopback; only `caddy bearer login --paste` can finish a sign-in",
			"account", a.Name, "redirect_uri", code.RedirectURI)
	}
}

// onPortal reports whether a redirect URI is on the portal's host.
func (app *App) onPortal(redirectURI string) bool {
	portal, err1 := url.Parse(app.portal)
	redirect, err2 := url.Parse(redirectURI)
	return err1 == nil && err2 == nil && portal.Scheme == redirect.Scheme && hostOf(portal) == hostOf(redirect)
}

// atPortal reports whether a request is for the portal, which isn't there if
// the request got so far: leading it back would never end.
func (app *App) atPortal(r *http.Request) bool {
	u, err := url.Parse(app.portal)
	return err == nil && hostOf(&url.URL{Scheme: u.Scheme, Host: r.Host}) == hostOf(u) && strings.HasPrefix(r.URL.Path, u.Path)
}

// Stop does nothing: requests may still be under way, and a new configuration
// may be in force already.
func (*App) Stop() error { return nil }

// Cleanup gives back what Provision acquired, and only that: it is called
// after a failed Provision, too.
func (app *App) Cleanup() error {
	if app.key == "" {
		return nil
	}
	err := app.shared.release(&app.lease)
	_, poolErr := pool.Delete(app.key)
	return errors.Join(err, poolErr)
}

// account returns what was made of a configured account, or nil.
func (app *App) account(name string) *oauth.Account {
	i := slices.IndexFunc(app.lease.accounts, func(a *oauth.Account) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return app.lease.accounts[i]
}

// session returns the session of an account and a user, whose names may hold
// placeholders of the request. Caddy may serve requests before it starts this
// app: those that need it wait.
func (app *App) session(r *http.Request, account, user, field string) (*oauth.Session, error) {
	key := oauth.Key{Account: account}
	if strings.Contains(account, "{") {
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		key.Account = repl.ReplaceAll(account, "")
	}
	if user != "" {
		if key.User = userOf(r, user, field); key.User == "" {
			return nil, &oauth.Failure{Err: oauth.ErrUnknownUser}
		}
	}
	s, err := app.shared.sessions.Session(r.Context(), key)
	if err == nil || app.account(key.Account) == nil {
		return s, err
	}
	select {
	case <-app.started:
	case <-app.ctx.Done(): // this configuration is at its end
	case <-r.Context().Done():
	}
	return app.shared.sessions.Session(r.Context(), key)
}

// appOf returns the app of the configuration that a module belongs to.
func appOf(ctx caddy.Context) (*App, error) {
	app, err := ctx.AppIfConfigured(appName)
	switch {
	case errors.Is(err, caddy.ErrNotConfigured):
		return nil, errNotConfigured
	case err != nil:
		return nil, err
	}
	return app.(*App), nil
}

var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)

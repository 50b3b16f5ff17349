package caddymodule

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Portal is the handler of the pages where people sign accounts in and out,
// and see their condition. Its place is the path of the global option `portal`;
// the callbacks of sign-ins are at the paths of the accounts' redirect URIs.
// Everything else is passed on.
//
// Put authentication in front of it (`basic_auth`, `forward_auth`, a client
// certificate), and name the user that it sets. A user signs in to their own
// session of the accounts that are used as `<account>/<user>`; accounts with
// one session are for admins.
//
// The pages need no script. A sign-in can be finished only in the browser and
// by the user who began it, within 10 minutes, once. No callback is written
// to the access log.
type Portal struct {
	// Who is here: a placeholder that the proxy has verified, such as
	// `{http.auth.user.id}`. A request without a user is refused.
	User string `json:"user,omitempty"`

	// Header field that may name the user, as `{http.request.header.<field>}`:
	// only where forward_auth, or a proxy in front, deletes and sets it.
	UserFromHeader string `json:"user_from_header,omitempty"`

	// Users who may see all accounts and act for all accounts and users.
	Admins []string `json:"admins,omitempty"`

	// Let everybody who reaches the portal see and do everything, also beyond
	// this machine. Without a user, that is how it is on loopback.
	Unprotected bool `json:"unprotected,omitempty"`

	app       *App
	log       *slog.Logger
	origin    string // of the portal: scheme and host
	base      string // its path, without a slash at its end
	admins    []string
	callbacks map[string]bool // their paths
	hosts     map[string]bool // that are answered to
}

func (*Portal) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bearer_portal", New: func() caddy.Module { return new(Portal) }}
}

// portalURL checks the URL of a portal and takes the slash off its end.
func portalURL(text string) (string, error) {
	text, err := resolve(text)
	if err != nil {
		return "", err
	}
	text = strings.TrimRight(text, "/")
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || strings.ContainsAny(text, "?#") || u.User != nil || u.RawPath != "":
		return "", errors.New("it must be a URL without user, query and escapes, such as https://proxy.example.com/bearer")
	case u.Scheme != "https" && u.Scheme != "http":
		return "", fmt.Errorf("the scheme %s is not supported; use https", u.Scheme)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return "", errors.New("plain http is accepted on loopback only; use https")
	}
	return text, nil
}

// Provision checks who may come, and where callbacks arrive.
func (p *Portal) Provision(ctx caddy.Context) (err error) {
	p.log = ctx.Slogger()
	if p.app, err = appOf(ctx); err != nil {
		return err
	}
	if p.app.portal == "" {
		return errors.New("bearer_portal: where is it? add `portal https://<this site>/bearer` to the global option bearer")
	}
	if err := checkUser(ctx, p.User, p.UserFromHeader); err != nil {
		return fmt.Errorf("bearer_portal: %w", err)
	}
	if err := p.checkProtection(ctx); err != nil {
		return fmt.Errorf("bearer_portal: %w", err)
	}
	for _, a := range p.Admins {
		name, err := resolve(a)
		if err != nil {
			return fmt.Errorf("bearer_portal: admins %s: %w", a, err)
		}
		p.admins = append(p.admins, name)
	}
	u, err := url.Parse(p.app.portal)
	if err != nil {
		return err
	}
	p.app.served = true
	p.origin, p.base = u.Scheme+"://"+u.Host, u.Path
	p.hosts = map[string]bool{hostOf(u): true}
	p.callbacks = map[string]bool{p.base + "/callback": true}
	for _, a := range p.app.lease.accounts {
		if code, ok := a.Grant.(*oauth.AuthorizationCode); ok && !p.app.terminalLogin(code) {
			if redirect, err := url.Parse(code.RedirectURI); err == nil {
				p.callbacks[or(redirect.Path, "/")] = true
				p.hosts[hostOf(redirect)] = true
			}
		}
	}
	return nil
}

// hostOf is the host of a URL as a browser puts it into the Host field.
func hostOf(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if u.Scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

// terminalLogin reports whether callbacks of a grant arrive at the command
// line: at a loopback address that isn't the portal's.
func (app *App) terminalLogin(g *oauth.AuthorizationCode) bool {
	u, err := url.Parse(g.RedirectURI)
	if err != nil || u.Scheme != "http" || !loopback(u.Hostname()) {
		return false
	}
	portal, err := url.Parse(app.portal)
	return err != nil || portal.Host != u.Host || portal.Scheme != u.Scheme
}

// checkProtection refuses a portal without a user that others can reach.
func (p *Portal) checkProtection(ctx caddy.Context) error {
	switch {
	case p.User != "" && p.Unprotected:
		return errors.New("user and unprotected exclude each other; remove one")
	case p.User == "" && len(p.Admins) > 0:
		return errors.New("admins needs the line user, which says who is here")
	case p.User != "" && !strings.Contains(p.User, "{"):
		return fmt.Errorf("user %s is the same for everybody; write a placeholder such as {http.auth.user.id}", p.User)
	case p.User != "" || p.Unprotected:
		return nil
	}
	if l := publicListener(ctx); l != "" {
		return fmt.Errorf("the site listens on %s, beyond this machine, and everybody could sign in and out; "+
			"put authentication in front and add the line `user {http.auth.user.id}`, or the line `unprotected`", l)
	}
	return nil
}

// ServeHTTP answers what is the portal's, and passes on the rest.
func (p *Portal) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path, inside := strings.CutPrefix(r.URL.Path, p.base)
	inside = inside && (path == "" || path[0] == '/')
	here := p.callbacks[r.URL.Path] && (inside || p.answersTo(r))
	callback := here && isCallback(r)
	// At the root of a site a query may be anything: that is the site's.
	broken := here && !inside && r.URL.Path != "/" && brokenCallback(r)
	if callback || broken || inside && path == "/callback" { // and nothing that is passed on
		caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true) // the query holds the code
	}
	switch {
	case !callback && !broken && (!inside || p.base == "" && !portalPaths[path]):
		return next.ServeHTTP(w, r)
	case path == "/style.css" && inside:
		serveStyle(w, r)
		return nil
	}
	v := &visit{Portal: p, w: w, r: r, path: path, user: userOf(r, p.User, p.UserFromHeader)}
	v.page = portalPage{Base: p.base, User: v.user, Unprotected: p.User == ""}
	var err error
	switch {
	case p.User == "" && !p.Unprotected && !localCaller(r):
		err = v.refuse("no_user")
	case !p.answersTo(r):
		v.page.Elsewhere = p.app.portal
		err = v.refuse("host_refused")
	case callback:
		err = v.callback()
	case broken:
		err = v.refuse("callback_malformed") // the code is nobody else's to see
	case p.User != "" && v.user == "":
		err = v.refuse("no_user")
	default:
		err = v.serve()
	}
	if err != nil {
		p.log.Error("answering at the portal", "error", err)
	}
	return nil
}

// answersTo reports whether a request is for a name of ours, so that a web
// page can't reach the portal by a name of its own (DNS rebinding).
func (p *Portal) answersTo(r *http.Request) bool {
	return p.hosts[hostOf(&url.URL{Scheme: p.scheme(), Host: r.Host})]
}

// scheme is that by which browsers reach the portal; TLS may end before us.
func (p *Portal) scheme() string {
	scheme, _, _ := strings.Cut(p.origin, ":")
	return scheme
}

// portalPaths are those of a portal at the root of its site, which has others
// beside it.
var portalPaths = map[string]bool{
	"": true, "/": true, "/style.css": true, "/login": true, "/logout": true, "/device": true, "/result": true, "/callback": true,
}

// callbackParams reports which parameters of a callback a query has, whatever
// their values: unlike [url.ParseQuery] it loses none that the login will see,
// for a semicolon or a bad escape.
func callbackParams(r *http.Request) (state, answer bool) {
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		switch name, _ := url.QueryUnescape(name); name {
		case "state":
			state = true
		case "code", "error":
			answer = true
		}
	}
	return state, answer
}

// isCallback reports whether a request is the answer of an authorization
// server (RFC 6749 §4.1.2): at its path there may be something else, too.
func isCallback(r *http.Request) bool {
	state, answer := callbackParams(r)
	return r.Method == http.MethodGet && state && answer
}

// brokenCallback reports what looks like a callback and isn't one.
func brokenCallback(r *http.Request) bool {
	state, answer := callbackParams(r)
	return !isCallback(r) && (state || answer)
}

// publicListener is an address of the site that others can reach, or empty.
func publicListener(ctx caddy.Context) string {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return ""
	}
	for _, l := range server.Listen {
		a, err := caddy.ParseNetworkAddress(l)
		if err == nil && !localListener(a) {
			return l
		}
	}
	return ""
}

// localListener reports an address that only this machine reaches, or that
// whoever starts the server answers for.
func localListener(a caddy.NetworkAddress) bool {
	return a.IsUnixNetwork() || a.IsFdNetwork() || loopback(a.Host)
}

// admin reports whether a visitor may see and do everything.
func (p *Portal) admin(user string) bool { return p.User == "" || slices.Contains(p.admins, user) }

// mine reports whether a visitor may see and act for a session.
func (p *Portal) mine(user string, key oauth.Key) bool {
	return p.admin(user) || user != "" && key.User == user
}

// parsePortal reads the directive:
//
//	bearer_portal {
//		user             <placeholder>
//		user_from_header <field>
//		admins           <user...>
//		unprotected
//	}
func parsePortal(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	p := new(Portal)
	h.Next() // bearer_portal
	if h.NextArg() {
		return nil, h.ArgErr()
	}
	return p, block(h.Dispenser, "bearer_portal", map[string]parser{
		"user":             word(&p.User),
		"user_from_header": checked(word(&p.UserFromHeader), func() error { return checkUserField(p.UserFromHeader) }),
		"admins":           words(&p.Admins),
		"unprotected":      toggle(&p.Unprotected),
	})
}

var (
	_ caddyhttp.MiddlewareHandler = (*Portal)(nil)
	_ caddy.Provisioner           = (*Portal)(nil)
)

package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Guard is the handler that decides who may use an account, and how. Whoever
// gets past it is, to the API, the account itself. The transport `bearer`
// serves only requests that a guard has let through.
//
// It refuses, before anything else, the methods CONNECT, TRACE, TRACK and PRI,
// and upgrades of the protocol unless allowed. It answers only to names of this
// machine, so that a web page can't reach it by a name of its own (DNS
// rebinding); refuses requests that web pages send; and serves only callers on
// this machine, unless others are configured or show a key.
//
// What the caller sends of credentials, cookies, browsers and proxies in front
// does not reach the API: Authorization, Proxy-Authorization, Cookie, X-API-Key,
// Forwarded, X-Forwarded-*, X-Real-IP, Via, Origin, Referer, Sec-*, in any
// spelling, nor do request trailers.
//
// An answer without Cache-Control gets `private, no-store`: a cache between us
// and the caller can't know that it is not for all.
//
// What it refuses is answered with a problem document (RFC 9457), with a code
// in it and in the header Caddy-Bearer-Error, and logged with the line to add,
// each code once a second at most. The connection of a refused request is
// closed; so is that of an HTTP/1.1 request with a chunked body, and of any
// HTTP/1.0 request: behind them another could be smuggled (RFC 9112 §6.1).
type Guard struct {
	// The account whose token the request will carry; may hold placeholders.
	// With it, a missing token is answered here and doesn't count against the
	// upstream. Default: none; then the transport answers.
	Account string `json:"account,omitempty"`

	// The user whose token the request will carry, where the account has one
	// session per user; a placeholder that the proxy has verified, such as
	// `{http.auth.user.id}`. A request without a user is refused. Default: none;
	// the account has one session.
	User string `json:"user,omitempty"`

	// Header field that may name the user, as `{http.request.header.<field>}`:
	// only where forward_auth, or a proxy in front, deletes and sets it.
	UserFromHeader string `json:"user_from_header,omitempty"`

	// Addresses that may call, as CIDR or IP: compared with Caddy's client_ip.
	// Default: loopback and Unix sockets, of requests without forwarding
	// headers and `client_ip_headers` (those have come from elsewhere).
	Callers []string `json:"callers,omitempty"`

	// Host names that are answered to, in addition to `localhost` and the
	// loopback addresses; with or without port. A request without a Host
	// (HTTP/1.0) passes.
	Hosts []string `json:"hosts,omitempty"`

	// Web pages that may call, by their origin: `https://app.example.com`. Other
	// pages are refused, also those of the site itself. Default: none.
	Origins []string `json:"origins,omitempty"`

	// Keys that callers show. With any, a request without one is refused, and
	// callers may be anywhere unless `callers` says where. Default: none.
	CallerKeys []CallerKey `json:"caller_keys,omitempty"`

	// Refuse paths that servers may read differently: with empty or dot segments,
	// backslashes, or escaped slashes, percent signs and control bytes. Default:
	// any path passes, byte for byte.
	StrictPaths bool `json:"strict_paths,omitempty"`

	// Let upgrades of the protocol (WebSocket) through.
	AllowUpgrade bool `json:"allow_upgrade,omitempty"`

	// Request fields that reach the API although they are withheld by default;
	// `*` at the end stands for any rest. Authorization can't be one.
	PassHeaders []string `json:"pass_headers,omitempty"`

	// How many callers may wait for the same token; one more is answered 503
	// with code busy. Default: 2000.
	MaxWaiters int `json:"max_waiters,omitempty"`

	// Whether each request leaves a line in the log
	// `http.handlers.bearer_guard.audit`: which caller used which account for
	// which method, host and path, and what came of it. Default: true.
	Audit *bool `json:"audit,omitempty"`

	app     *App
	log     *seldomLog
	audit   *zap.Logger // nil: none
	callers []netip.Prefix
	keys    callerKeys
}

// defaultWaiters is how many callers wait for one token by default.
const defaultWaiters = 2000

func (*Guard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bearer_guard", New: func() caddy.Module { return new(Guard) }}
}

// Provision prepares the lists.
func (g *Guard) Provision(ctx caddy.Context) (err error) {
	g.log = &seldomLog{to: ctx.Slogger()}
	if g.Audit == nil || *g.Audit {
		g.audit = ctx.Logger().Named("audit")
	}
	if g.app, err = appOf(ctx); err != nil {
		return err
	}
	if err := g.app.use(g.Account, g.User != ""); err != nil {
		return err
	}
	if err := checkUser(ctx, g.User, g.UserFromHeader); err != nil {
		return err
	}
	for _, c := range g.Callers {
		p, err := caddyhttp.CIDRExpressionToPrefix(c)
		if err != nil {
			return fmt.Errorf("callers %s: it must be an IP address or CIDR: %w", c, err)
		}
		if p.Addr().Is4In6() {
			return fmt.Errorf("callers %s: write the IPv4 address or CIDR itself", c)
		}
		g.callers = append(g.callers, p)
	}
	if err := g.checkHosts(); err != nil {
		return fmt.Errorf("hosts %w", err)
	}
	for i, h := range g.Hosts {
		g.Hosts[i] = strings.ToLower(h)
	}
	if err := g.checkOrigins(); err != nil {
		return fmt.Errorf("origins %w", err)
	}
	if err := checkFields(g.PassHeaders, "Authorization"); err != nil {
		return fmt.Errorf("pass_headers %w", err)
	}
	for _, k := range g.CallerKeys {
		if err := g.keys.add(k, ctx.Slogger()); err != nil {
			return err
		}
	}
	if g.MaxWaiters, err = waiters(g.MaxWaiters); err != nil {
		return err
	}
	g.warnPlainHTTP(ctx)
	return g.exposure(ctx)
}

// waiters is the configured number, or the default.
func waiters(n int) (int, error) {
	switch {
	case n < 0:
		return 0, errors.New("max_waiters: it must be a number above 0")
	case n == 0:
		return defaultWaiters, nil
	}
	return n, nil
}

func (g *Guard) checkHosts() error {
	for _, h := range g.Hosts {
		if h == "" || h[0] == ':' || strings.ContainsAny(h, "*{}/@ ") {
			return fmt.Errorf("%q: it must be a name or name:port, without wildcard", h)
		}
	}
	return nil
}

// exposure refuses a site that others can reach while nothing says who may
// call: it would be open to nobody, which its operator surely didn't mean.
func (g *Guard) exposure(ctx caddy.Context) error {
	if len(g.callers) > 0 || len(g.CallerKeys) > 0 {
		return nil
	}
	if l := publicListener(ctx); l != "" {
		return fmt.Errorf("the site listens on %s, beyond this machine, but nothing says who may call; "+
			"add `bind 127.0.0.1 [::1]` to the site, or `callers <address or CIDR>...` or `caller_key <name> {file.<path>}` to bearer_proxy or bearer_guard", l)
	}
	return nil
}

// passageVar is where the guard leaves the proof that it let a request pass.
const passageVar = "bearer.passage"

// A passage is that proof. Only the guard makes one: its type has no form that
// a configuration could write.
type passage struct {
	account, user string                      // as configured in the guard; may be empty
	session       *oauth.Session              // of the account and user; nil until known
	carried       atomic.Pointer[oauth.Token] // by the request; nil until it is sent
}

// passageOf is that of a request; nil without one.
func passageOf(r *http.Request) *passage {
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	pass, _ := vars[passageVar].(*passage)
	return pass
}

// nobodys reports a health check: a request of Caddy's own.
func nobodys(r *http.Request) bool { return r.Context().Value(caddyhttp.VarsCtxKey) == nil }

// carry notes the token that the request is sent with.
func (p *passage) carry(token *oauth.Token) {
	if p != nil {
		p.carried.Store(token)
	}
}

// ServeHTTP lets the request pass or answers it.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p, ok := g.refuse(r); ok {
		g.app.countRequest(g.Account, p.Code)
		if log := g.log.of(p.Code); log != nil {
			log.Warn("refused a request", "code", p.Code, "detail", p.Detail, "remote", r.RemoteAddr, "method", r.Method, "host", r.Host)
		}
		w.Header().Set("Connection", "close")
		p.write(w)
		return nil
	}
	if r.ProtoMajor == 1 && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0) {
		// A Content-Length beside it, by which a proxy in front may have measured
		// this request, is gone without a trace; so is a Transfer-Encoding in
		// HTTP/1.0, whose body then is the next request (RFC 9112 §6.1).
		w.Header().Set("Connection", "close")
	}
	pass := &passage{account: g.Account, user: g.User}
	answer := &passageWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, passage: pass}
	defer g.record(r, answer)
	if g.Account != "" {
		var err error
		if pass.session, err = g.app.session(r, g.Account, g.User, g.UserFromHeader); err == nil {
			_, err = tokenFor(r.Context(), pass.session, g.MaxWaiters)
		}
		if err != nil {
			g.noToken(answer, r, err)
			return nil
		}
	}
	withhold(r.Header, g.PassHeaders, g.AllowUpgrade && r.Header["Upgrade"] != nil)
	dropPortalCookies(r.Header)
	caddyhttp.SetVar(r.Context(), passageVar, pass)
	err := next.ServeHTTP(answer, r)
	var he caddyhttp.HandlerError
	if errors.As(err, &he) {
		if answer.status == 0 {
			answer.status = he.StatusCode
		}
		switch he.StatusCode {
		case http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusServiceUnavailable: // the last if none is healthy
			w.Header().Set(errorHeader, "upstream_unreachable")
		}
	}
	return err
}

// noToken answers a request that there is no token for. A browser that a
// person navigates is sent to the portal, where they can log in.
func (g *Guard) noToken(w http.ResponseWriter, r *http.Request, err error) {
	p := g.app.tokenProblem(err)
	if p.Portal != "" && r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && !g.app.atPortal(r) {
		w.Header().Set(errorHeader, p.Code)
		w.Header().Set("Cache-Control", "no-store")
		http.Redirect(w, r, p.Portal, http.StatusSeeOther)
		return
	}
	p.write(w)
}

var (
	_ caddyhttp.MiddlewareHandler = (*Guard)(nil)
	_ caddy.Provisioner           = (*Guard)(nil)
)

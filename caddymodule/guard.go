package caddymodule

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Guard is the handler that decides who may use an account, and how. Whoever
// gets past it is, to the API, the account itself. The transport `bearer`
// serves only requests that a guard has let through.
//
// It refuses, before anything else, the methods CONNECT, TRACE and TRACK, and
// upgrades of the protocol unless allowed. It answers only to names of this
// machine, so that a web page can't reach it by a name of its own (DNS
// rebinding), and serves only callers on this machine unless others are
// configured.
//
// What it refuses is answered with a problem document (RFC 9457), with a code
// in it and in the header Caddy-Bearer-Error, and logged with the line to add.
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
	// headers (those have come from elsewhere).
	Callers []string `json:"callers,omitempty"`

	// Host names that are answered to, in addition to `localhost` and the
	// loopback addresses; with or without port. A request without a Host
	// (HTTP/1.0) passes.
	Hosts []string `json:"hosts,omitempty"`

	// Let upgrades of the protocol (WebSocket) through.
	AllowUpgrade bool `json:"allow_upgrade,omitempty"`

	app     *App
	log     *slog.Logger
	callers []netip.Prefix
}

func (*Guard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bearer_guard", New: func() caddy.Module { return new(Guard) }}
}

// Provision prepares the lists.
func (g *Guard) Provision(ctx caddy.Context) (err error) {
	g.log = ctx.Slogger()
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
	return g.exposure(ctx)
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
	if len(g.callers) > 0 {
		return nil
	}
	if l := publicListener(ctx); l != "" {
		return fmt.Errorf("the site listens on %s, beyond this machine, but nothing says who may call; "+
			"add `bind 127.0.0.1 [::1]` to the site, or `callers <address or CIDR>...` to bearer_proxy or bearer_guard", l)
	}
	return nil
}

// passageVar is where the guard leaves the proof that it let a request pass.
const passageVar = "bearer.passage"

// A passage is that proof. Only the guard makes one: its type has no form that
// a configuration could write.
type passage struct {
	account, user string         // as configured in the guard; may be empty
	session       *oauth.Session // of the account and user; nil without one
}

// ServeHTTP lets the request pass or answers it.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p, ok := g.refuse(r); ok {
		g.log.Warn("refused a request", "code", p.Code, "detail", p.Detail, "remote", r.RemoteAddr, "method", r.Method, "host", r.Host)
		w.Header().Set("Connection", "close")
		p.write(w)
		return nil
	}
	dropPortalCookies(r.Header)
	pass := passage{account: g.Account, user: g.User}
	if g.Account != "" {
		var err error
		if pass.session, err = g.app.session(r, g.Account, g.User, g.UserFromHeader); err == nil {
			_, err = pass.session.Token(r.Context())
		}
		if err != nil {
			g.noToken(w, r, err)
			return nil
		}
	}
	caddyhttp.SetVar(r.Context(), passageVar, &pass)
	err := next.ServeHTTP(w, r)
	var he caddyhttp.HandlerError
	if errors.As(err, &he) && (he.StatusCode == http.StatusBadGateway || he.StatusCode == http.StatusGatewayTimeout) {
		w.Header().Set(errorHeader, "upstream_unreachable")
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

// refuse decides whether a request is refused, and how. The cheapest and the
// most dangerous come first.
func (g *Guard) refuse(r *http.Request) (problem, bool) {
	switch {
	case refusedMethod(r.Method):
		return refusal("method_refused", "CONNECT, TRACE and TRACK are never passed"), true
	case upgrades(r.Header) && !g.AllowUpgrade:
		return refusal("upgrade_refused", "to let WebSocket and the like pass, add the line: allow_upgrade"), true
	case !g.hostAllowed(r.Host):
		return refusal("host_refused", "to answer to this name, add the line: hosts "+printable(r.Host)), true
	}
	if detail, ok := g.callerAllowed(r); !ok {
		return refusal("caller_refused", detail), true
	}
	return problem{}, false
}

// refusedMethod reports the methods that are never passed: CONNECT turns the
// connection into a tunnel, TRACE answers with the token.
func refusedMethod(method string) bool {
	switch strings.ToUpper(method) {
	case http.MethodConnect, http.MethodTrace, "TRACK":
		return true
	}
	return false
}

// upgrades reports whether a request wants another protocol. The offer of
// HTTP/2 that Java's client adds to its first request is no such wish: it is
// taken off, and nothing else happens.
func upgrades(h http.Header) bool {
	values := h.Values("Upgrade")
	if len(values) == 0 {
		return false
	}
	if len(values) == 1 && strings.EqualFold(strings.TrimSpace(values[0]), "h2c") {
		h.Del("Upgrade")
		h.Del("Http2-Settings")
		return false
	}
	return true
}

// hostAllowed reports whether we answer to a Host (RFC 9110 §7.2).
func (g *Guard) hostAllowed(host string) bool {
	if host == "" {
		return true // HTTP/1.0
	}
	host = strings.ToLower(host)
	name := hostName(host)
	return loopback(name) || slices.Contains(g.Hosts, host) || slices.Contains(g.Hosts, name) ||
		strings.Contains(name, ":") && slices.Contains(g.Hosts, "["+name+"]")
}

// hostName is a Host without port and brackets, or as it is if it has another
// form than name, name:port, [address] or [address]:port.
func hostName(host string) string {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port, err = net.SplitHostPort(host + ":")
	}
	if err != nil || strings.Trim(port, "0123456789") != "" {
		return host
	}
	return name
}

var forwarding = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"}

// callerAllowed reports whether the caller may pass, or which line would let
// it.
func (g *Guard) callerAllowed(r *http.Request) (string, bool) {
	if len(g.callers) > 0 {
		client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
		ip, err := netip.ParseAddr(client)
		if err != nil && unixPeer(r.RemoteAddr) && forwardedBy(r) == "" {
			return "", true
		}
		ip = ip.Unmap().WithZone("")
		if err == nil && slices.ContainsFunc(g.callers, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return "", true
		}
		return "to serve this caller, add the line: callers " + printable(client), false
	}
	if unixPeer(r.RemoteAddr) {
		return "", true
	}
	if !localPeer(r) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		return "to serve callers beyond this machine, add the line: callers " + printable(host), false
	}
	if name := forwardedBy(r); name != "" {
		return "the request was forwarded from elsewhere (" + name + "); to serve such, add the line: callers 127.0.0.1 ::1", false
	}
	return "", true
}

// localCaller reports whether a request is from this machine, as far as can be
// told, and was not forwarded from elsewhere.
func localCaller(r *http.Request) bool {
	return forwardedBy(r) == "" && localPeer(r)
}

// localPeer reports whether a connection is from this machine.
func localPeer(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return unixPeer(r.RemoteAddr) || err == nil && peer.Addr().Unmap().IsLoopback()
}

// forwardedBy names the field that tells that a request came through another
// proxy, or is empty.
func forwardedBy(r *http.Request) string {
	for _, name := range forwarding {
		if r.Header[name] != nil {
			return name
		}
	}
	return ""
}

// unixPeer reports the remote address that a Unix socket gives.
func unixPeer(remote string) bool { return remote == "" || strings.HasPrefix(remote, "@") }

// printable keeps what can be part of a host or an address.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c > ' ' && c < 0x7f && !strings.ContainsRune("\"'`\\<>{}", c) {
			return c
		}
		return -1
	}, s)
	return s[:min(len(s), 100)]
}

var (
	_ caddyhttp.MiddlewareHandler = (*Guard)(nil)
	_ caddy.Provisioner           = (*Guard)(nil)
)

package caddymodule

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// This file decides which requests a guard refuses.

// refuse decides whether a request is refused, and how. The cheapest and the
// most dangerous come first. What is taken off it is taken off: an offer of
// HTTP/2, and the key that it shows.
func (g *Guard) refuse(r *http.Request) (problem, bool) {
	switch {
	case refusedMethod(r.Method):
		return refusal("method_refused", refusedMethods), true
	case upgrades(r.Header) && !g.AllowUpgrade:
		return refusal("upgrade_refused", "to let WebSocket and the like pass, add the line: allow_upgrade"), true
	case !g.hostAllowed(r.Host):
		return refusal("host_refused", "to answer to this name, add the line: hosts "+printable(r.Host)), true
	case g.foreignPage(r):
		return refusal("origin_refused", "a web page has sent this; to let its pages call, add the line: origins "+pageOf(r)), true
	}
	if detail, ok := g.callerAllowed(r); !ok {
		return refusal("caller_refused", detail), true
	}
	if len(g.CallerKeys) > 0 {
		name, ok := g.keys.owner(r)
		if !ok {
			return refusal("key_refused", "show the key of a caller_key line as X-API-Key, or as the password of Basic authentication"), true
		}
		identify(r, name)
	}
	if g.StrictPaths && (r.URL.Opaque != "" || ambiguous(r.URL.EscapedPath()) || r.URL.RawPath != "" && ambiguous(r.URL.RawPath)) {
		return refusal("path_refused", "the path can be read in more than one way; send it without empty and dot segments and without escaped slashes"), true
	}
	return problem{}, false
}

const refusedMethods = "CONNECT, TRACE, TRACK and PRI are never passed"

// refusedMethod reports the methods that are never passed: CONNECT turns the
// connection into a tunnel, TRACE answers with the token, and PRI is no request
// but the beginning of HTTP/2 (RFC 9113 §3.4), which Go hands to us like one.
func refusedMethod(method string) bool {
	switch strings.ToUpper(method) {
	case http.MethodConnect, http.MethodTrace, "TRACK", "PRI":
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
	if len(g.CallerKeys) > 0 {
		return "", true
	}
	if !localPeer(r) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		return "to serve callers beyond this machine, add the line: callers " + printable(host), false
	}
	if name := forwardedBy(r); name != "" {
		return "the request was forwarded from elsewhere (" + name + "); to serve such, add the line: callers " + forwardedFor(r), false
	}
	return "", true
}

// forwardedFor is what callers has to name for a forwarded request: the client,
// if a trusted proxy tells it, else the proxies on this machine.
func forwardedFor(r *http.Request) string {
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if ip, err := netip.ParseAddr(client); err == nil && !ip.Unmap().IsLoopback() {
		return printable(client)
	}
	return "127.0.0.1 ::1"
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
// proxy, or is empty. A field of client_ip_headers tells it whatever its value
// is, and whether Caddy trusts the proxy or not.
func forwardedBy(r *http.Request) string {
	if server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		for _, name := range server.ClientIPHeaders {
			if r.Header.Values(name) != nil {
				return name
			}
		}
	}
	for name := range r.Header {
		if named(forwarding, name) {
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

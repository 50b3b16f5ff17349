package caddymodule

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
)

// This file is which header fields pass between the caller and the API.

// Fields are named in lower case; a * at the end stands for any rest.
var (
	// withheld don't reach the API: the caller's credentials, and what a browser
	// or a proxy in front tells of itself and of others.
	withheld = append([]string{
		"authorization", "proxy-authorization", "cookie", "x-api-key", "origin", "referer", "sec-*",
	}, forwarding...)
	// forwarding are the fields that proxies add.
	forwarding = []string{"forwarded", "x-forwarded-*", "x-real-ip", "via"}
	// swallowed don't reach the caller: the session of one would become that of
	// all, and who may read an answer is not the API's to say.
	swallowed = []string{"set-cookie", "set-cookie2", "access-control-*"}
	// added are what Caddy's reverse proxy puts onto each request.
	added = []string{"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via"}
)

// named reports whether one of the patterns stands for a field. A `_` or `.`
// in the field counts as the `-` that many servers take it for.
func named(patterns []string, field string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return stands(p, field) })
}

func stands(pattern, field string) bool {
	rest := strings.HasSuffix(pattern, "*")
	if rest {
		pattern = pattern[:len(pattern)-1]
	}
	if len(field) < len(pattern) || len(field) > len(pattern) && !rest {
		return false
	}
	for i := range len(pattern) {
		if folded(field[i]) != pattern[i] {
			return false
		}
	}
	return true
}

func folded(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '_', c == '.':
		return '-'
	}
	return c
}

// withhold takes the fields off a request that don't pass. A protected field in
// another spelling never does: servers differ in what they read it as. The
// handshake of a WebSocket stays.
func withhold(h http.Header, pass []string, upgrade bool) {
	for field := range h {
		switch {
		case !named(withheld, field):
		case named(pass, field) && !strings.ContainsAny(field, "_."):
		case upgrade && strings.HasPrefix(field, "Sec-Websocket-"):
		default:
			delete(h, field)
		}
	}
}

// swallow takes the fields off an answer that don't pass.
func swallow(h http.Header, pass []string) {
	for field := range h {
		if named(swallowed, field) && !named(pass, field) {
			delete(h, field)
		}
	}
	delete(h, errorHeader) // it would say that the answer is ours
}

// leaks names the field of an answer that holds the token, or is empty.
func leaks(h http.Header, authorization []string) string {
	if len(authorization) == 0 {
		return ""
	}
	_, token, _ := strings.Cut(authorization[0], " ")
	for field, values := range h {
		if namesToken(field, token) {
			return field
		}
		for _, v := range values {
			if len(v) >= len(token) && strings.Contains(v, token) {
				return field
			}
		}
	}
	return ""
}

// namesToken reports whether a field's name holds the token. In names, HTTP
// changes the case.
func namesToken(field, token string) bool {
	return len(field) >= len(token) && strings.Contains(strings.ToLower(field), strings.ToLower(token))
}

// shownField is the name of a field that [leaks] has found, as it may be told.
func shownField(field string, authorization []string) string {
	if _, token, _ := strings.Cut(authorization[0], " "); namesToken(field, token) {
		return "named by the token"
	}
	return printable(field)
}

// requestOps are what Caddy does to a request before the operator's header_up:
// the upstream's own name becomes the Host, also where it is asked without TLS,
// because what the caller calls us is not its business; and what Caddy itself
// has added goes. Where no guard has been, all that is withheld goes.
func requestOps(pass []string, unguarded bool) *headers.HeaderOps {
	ops := &headers.HeaderOps{Set: http.Header{"Host": {"{http.reverse_proxy.upstream.hostport}"}}}
	fields := added
	if unguarded {
		fields = append(slices.Clone(withheld), added...)
	}
	for _, field := range fields {
		if !named(pass, strings.TrimSuffix(field, "*")) {
			ops.Delete = append(ops.Delete, field)
		}
	}
	return ops
}

// checkFields brings the names of pass_headers and pass_response_headers into
// the form of the lists above, or says which one can't be.
// One of them is only ours to send.
func checkFields(names []string, ours string) error {
	for i, name := range names {
		field := strings.TrimSuffix(name, "*")
		switch {
		case name == "" || field != "" && !validField.MatchString(field):
			return fmt.Errorf("%s: it must be the name of a header field, such as Cookie; a * at its end stands for any rest", name)
		case strings.EqualFold(name, ours):
			return fmt.Errorf("%s: it is ours to send; that of others can't pass", name)
		}
		names[i] = strings.ToLower(name)
	}
	return nil
}

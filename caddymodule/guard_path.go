package caddymodule

import (
	"fmt"
	"net/url"
	"strings"
)

// ambiguous reports whether servers may differ in what an escaped path names
// (RFC 3986 §6): one that compares it with a rule, and the API that serves it.
// These are empty segments, dot segments in any spelling and with parameters
// (`..;x`), backslashes, and escaped slashes, percent signs and control bytes.
func ambiguous(path string) bool {
	if path == "*" {
		return false // OPTIONS of the server as a whole, RFC 9112 §3.2.4
	}
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "//") || strings.Contains(path, `\`) {
		return true
	}
	for i := 0; i < len(path); i++ {
		if path[i] < ' ' || path[i] == 0x7f {
			return true
		}
		if path[i] != '%' || i+2 >= len(path) {
			continue
		}
		switch c := strings.ToLower(path[i+1 : i+3]); {
		case c == "2f", c == "5c", c == "25", c == "7f", c < "20":
			return true
		}
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		segment, _, _ = strings.Cut(dots.Replace(segment), ";")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// dots unescapes what a dot segment can be hidden by.
var dots = strings.NewReplacer("%2e", ".", "%2E", ".", "%3b", ";", "%3B", ";")

// wellEscaped is the RawPath by which a path goes out as it came in, except that
// what should have been escaped is (RFC 3986 §3.3). By one such byte net/url
// forgets the whole spelling: it would send %2F as a slash, and name another path
// than the one that was let pass.
func wellEscaped(u *url.URL) string {
	raw := u.RawPath
	if raw == "" || u.EscapedPath() == raw {
		return raw
	}
	var b strings.Builder
	for i := range len(raw) {
		switch c := raw[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~!$&'()*+,;=:@[]%/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

package caddymodule

import "strings"

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
		segment, _, _ = strings.Cut(segment, ";")
		segment = strings.ReplaceAll(strings.ReplaceAll(segment, "%2e", "."), "%2E", ".")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

package caddymodule

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// <account>/<user> is parted at the first slash outside of braces.
func TestAccountArg(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]string{
		"erp":                             {"erp", ""},
		"erp/alice":                       {"erp", "alice"},
		"erp/alice/b":                     {"erp", "alice/b"},
		"erp/a:b":                         {"erp", "a:b"},
		"erp/{http.auth.user.id}":         {"erp", "{http.auth.user.id}"},
		"{file./run/a}":                   {"{file./run/a}", ""},
		"{file./run/a}/{file./run/b}":     {"{file./run/a}", "{file./run/b}"},
		"{http.vars.a:b}/u":               {"{http.vars.a:b}", "u"},
		"x-{http.vars.a}-y/{http.vars.b}": {"x-{http.vars.a}-y", "{http.vars.b}"},
		"unix":                            {"unix", ""},
		"unixes/a":                        {"unixes", "a"},
		"erp/a{b}c":                       {"erp", "a{b}c"},
		"{a{b/c}}/u":                      {"{a{b/c}}", "u"},
	} {
		account, user, err := accountArg(text)
		if err != nil || [2]string{account, user} != want {
			t.Errorf("%s: %q %q %v, want %q", text, account, user, err, want)
		}
	}
	for text, want := range map[string]string{
		"/":               "write <account>/<user>",
		"/alice":          "write <account>/<user>",
		"erp/":            "write <account>/<user>",
		"{http.vars.a}/":  "write <account>/<user>",
		":443":            "the account comes before the upstreams",
		"erp:443":         "the account comes before the upstreams",
		"https://a.b":     "the account comes before the upstreams",
		"[::1]:443":       "the account comes before the upstreams",
		"unix//run/a.s":   "the account comes before the upstreams",
		"{http.vars.a}:1": "the account comes before the upstreams",

		"erp/{http.auth.user.id":     "its braces don't match; write a placeholder such as {http.auth.user.id}",
		"erp/http.auth.user.id}":     "its braces don't match",
		"erp/{http.auth.user.id}}":   "its braces don't match",
		"erp/}http.auth.user.id{":    "its braces don't match",
		"{erp":                       "its braces don't match",
		"erp}":                       "its braces don't match",
		"{http.vars.a/{http.vars.b}": "its braces don't match",
		"}{/alice":                   "its braces don't match",
	} {
		if account, user, err := accountArg(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q %q %v, want an error with %q", text, account, user, err, want)
		}
	}
}

// A request's user is known as a whole or not at all.
func TestUserOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, user, field string
		header            http.Header
		want              string
	}{
		{"literal", "alice", "", nil, "alice"},
		{"verified", "{http.auth.user.id}", "", nil, "bob"},
		{"opaque", "{http.auth.user.odd}", "", nil, "a/{b}\n "},
		{"two", "{http.auth.user.tenant}/{http.auth.user.id}", "", nil, "t1/bob"},
		{"unknown", "{http.auth.user.name}", "", nil, ""},
		{"empty", "{http.auth.user.none}", "", nil, ""},
		{"one of two unknown", "{http.auth.user.id}/{http.auth.user.name}", "", nil, ""},
		{"one of two empty", "x{http.auth.user.none}", "", nil, ""},
		{"field", "{http.request.header.Remote-User}", "Remote-User", http.Header{"Remote-User": {"carol"}}, "carol"},
		{"field in lower case", "{http.request.header.remote-user}", "remote-user", http.Header{"Remote-User": {"carol"}}, "carol"},
		{"no field", "{http.request.header.Remote-User}", "Remote-User", nil, ""},
		{"empty field", "{http.request.header.Remote-User}", "Remote-User", http.Header{"Remote-User": {""}}, ""},
		{"field twice", "{http.request.header.Remote-User}", "remote-user", http.Header{"Remote-User": {"carol", "dave"}}, ""},
		{"field twice, verified user", "{http.auth.user.id}", "Remote-User", http.Header{"Remote-User": {"carol", "carol"}}, ""},
	} {
		repl := caddy.NewReplacer()
		for name, v := range map[string]string{"id": "bob", "tenant": "t1", "none": "", "odd": "a/{b}\n "} {
			repl.Set("http.auth.user."+name, v)
		}
		r := httptest.NewRequest("GET", "/", nil)
		if test.header != nil {
			r.Header = test.header
		}
		// Caddy's HTTP app does the same for each request.
		repl.Map(func(key string) (any, bool) {
			field, ok := strings.CutPrefix(key, "http.request.header.")
			return strings.Join(r.Header.Values(field), ","), ok
		})
		r = r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, repl))
		if got := userOf(r, test.user, test.field); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestUserField(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "Remote-User", "remote-user", "X-1", "REMOTE-USER"} {
		if err := checkUserField(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"Remote_User", "Remote User", "Remote-User ", "Remote-User:", "Remote.User", "Ümlaut", "a\nb", "{x}", "*"} {
		if err := checkUserField(name); err == nil || err.Error() != name+": it must be the name of a header field, such as Remote-User" {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"Authorization", "aUTHORIZATION"} {
		if err := checkUserField(name); err == nil || err.Error() != "the field Authorization holds a password or a token, not a user; with basic_auth the user is {http.auth.user.id}" {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// FuzzAccountArg: whatever is written, account and user put together are it
// again, and neither is lost.
func FuzzAccountArg(f *testing.F) {
	for _, text := range []string{"erp", "erp/{http.auth.user.id}", "{a/b}/c", "}{/", "/", "a//b", "unix//x", "{a", "a/b}", "a/}{", "{a/{b}"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		account, user, err := accountArg(text)
		switch {
		case err != nil:
		case strings.Count(text, "{") != strings.Count(text, "}"):
			t.Errorf("%q passed, whose braces don't match", text)
		case user == "" && account != text, user != "" && (account == "" || account+"/"+user != text):
			t.Errorf("%q became %q and %q", text, account, user)
		}
	})
}

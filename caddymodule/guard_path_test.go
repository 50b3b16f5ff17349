package caddymodule

import (
	"net/url"
	"testing"
)

func TestAmbiguousPaths(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"*": false, "/": false, "/a/b": false, "/a/b/": false, "/a.b/..c/d..": false, "/...": false, "/a;v=1/b": false, "/%C3%A4%20x": false,
		"/a%2eb": false, "/%E2%82%AC": false, "/a:b@c!$&'()*+,=~": false, "/.well-known/x": false,

		"": true, "a": true, "//": true, "/a//b": true, "/a/": false, "/.": true, "/..": true, "/a/./b": true, "/a/../b": true, "/a/..": true,
		"/%2e%2e/a": true, "/%2E./a": true, "/.%2e": true, "/a/..;/b": true, "/a/..;x=1/b": true, "/a/.;/b": true, "/%2e%2E;/b": true,
		"/a%2fb": true, "/a%2Fb": true, "/a%5cb": true, `/a\b`: true, "/a%5Cb": true, "/%00": true, "/a%0d%0aX": true, "/%7f": true,
		"/%252e%252e": true, "/a%25b": true, "/\x01": true, "/a\x7f": true,
	} {
		if got := ambiguous(path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
}

// FuzzAmbiguous compares with what cleaning and decoding would change: a path
// that passes means the same however often it is decoded.
func FuzzAmbiguous(f *testing.F) {
	for _, seed := range []string{"/a/b", "/a%2eb", "/%2e%2e/a", "/a;b", "/..;/x", "/%C3%A4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || u.Opaque != "" || u.Host != "" || u.RawQuery != "" || u.ForceQuery || ambiguous(u.EscapedPath()) || u.Path == "*" {
			return
		}
		// Decoded once, it has as many segments as before, and none that leads elsewhere.
		clean, err := url.JoinPath("http://h", u.EscapedPath())
		if err != nil {
			t.Fatalf("%q passes: %v", path, err)
		}
		if c, _ := url.Parse(clean); c.Path != u.Path {
			t.Errorf("%q passes, and means %q to one and %q to another", path, u.Path, c.Path)
		}
		if again, err := url.PathUnescape(u.Path); err != nil || again != u.Path {
			t.Errorf("%q passes, and decoded twice means %q (%v)", path, again, err)
		}
	})
}

func TestWellEscaped(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"/a":              "",
		"/a%2Fb":          "/a%2Fb",
		"/a%2Fb|c":        "/a%2Fb%7Cc",
		"/a%2fb\"\\<>^`{": "/a%2fb%22%5C%3C%3E%5E%60%7B",
		"/%2F\xc3\xa9":    "/%2F%C3%A9",
	} {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			t.Fatal(err)
		}
		path := u.Path
		u.RawPath = wellEscaped(u)
		if u.RawPath != want || u.Path != path || want != "" && u.EscapedPath() != want {
			t.Errorf("%q: %q, sent as %q, want %q", raw, u.RawPath, u.EscapedPath(), want)
		}
	}
}

package caddymodule

import (
	"crypto/tls"
	"testing"
)

func TestForeignPages(t *testing.T) {
	t.Parallel()
	g := &Guard{Origins: []string{"https://App.example.com", "http://localhost:3000", "http://localhost:8080", "https://plain.example:443"}}
	if err := g.checkOrigins(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		header []string
		tls    bool
		refuse bool
	}{
		{name: "no browser"},
		{name: "typed", header: []string{"Sec-Fetch-Site", "none"}},
		{name: "its page", header: []string{"Origin", "https://app.example.com", "Sec-Fetch-Site", "cross-site"}},
		{name: "its page, as no browser writes it", header: []string{"Origin", "HTTPS://APP.EXAMPLE.COM"}, refuse: true},
		{name: "its page, a default port", header: []string{"Origin", "https://plain.example"}},
		{name: "its page, another port", header: []string{"Origin", "http://localhost:3000"}},
		{name: "our page", header: []string{"Sec-Fetch-Site", "same-origin"}},

		{name: "our page over TLS", header: []string{"Sec-Fetch-Site", "same-origin"}, tls: true, refuse: true},
		{name: "another page", header: []string{"Origin", "https://evil.example"}, refuse: true},
		{name: "another scheme", header: []string{"Origin", "http://app.example.com"}, refuse: true},
		{name: "another port", header: []string{"Origin", "https://app.example.com:8443"}, refuse: true},
		{name: "a longer name", header: []string{"Origin", "https://app.example.com.evil.example"}, refuse: true},
		{name: "null", header: []string{"Origin", "null"}, refuse: true},
		{name: "empty", header: []string{"Origin", ""}, refuse: true},
		{name: "two", header: []string{"Origin", "https://app.example.com", "Origin", "https://evil.example"}, refuse: true},
		{name: "a list", header: []string{"Origin", "https://app.example.com, https://evil.example"}, refuse: true},
		{name: "an image", header: []string{"Sec-Fetch-Site", "cross-site"}, refuse: true},
		{name: "same site", header: []string{"Sec-Fetch-Site", "same-site"}, refuse: true},
		{name: "unknown", header: []string{"Sec-Fetch-Site", "None"}, refuse: true},
		{name: "two sites", header: []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Site", "cross-site"}, refuse: true},
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "DELETE", "PROPFIND"} {
			r := guardRequest(method, "localhost:8080", c.header...)
			if c.tls {
				r.TLS = new(tls.ConnectionState)
			}
			code := refusedFor(g, r)
			if want := map[bool]string{true: "origin_refused"}[c.refuse]; code != want {
				t.Errorf("%s %s: %q, want %q", method, c.name, code, want)
			}
		}
	}
	if code := refusedFor(new(Guard), guardRequest("GET", "localhost:8080", "Sec-Fetch-Site", "same-origin")); code != "origin_refused" {
		t.Errorf("our page, without origins: %q", code)
	}
}

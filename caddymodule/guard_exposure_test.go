package caddymodule

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A site that others can reach and that says nothing of who may call is no site.
func TestExposedSiteNeedsCallers(t *testing.T) {
	for _, c := range []struct {
		bind, options string
		loads         bool
	}{
		{"0.0.0.0", "", false},
		{"[::]", "", false},
		{"192.0.2.1", "", false},
		{"127.0.0.1 192.0.2.1", "", false},
		{"0.0.0.0", "hosts erp.example.com\n\t\torigins https://app.example.com", false},
		{"0.0.0.0", "callers 192.0.2.0/24", true},
		{"0.0.0.0", "caller_key erp " + legacyKey, true},
		{"127.0.0.1 [::1]", "", true},
	} {
		r := newRig(t, sandbox.Config{})
		r.handler = c.options
		err := validateCaddyfile(t, strings.Replace(r.caddyfile(), "bind 127.0.0.1", "bind "+c.bind, 1))
		if (err == nil) != c.loads {
			t.Errorf("bind %s, %q: %v; want it to load: %v", c.bind, c.options, err, c.loads)
		}
		if err != nil && (!strings.Contains(err.Error(), "bind 127.0.0.1") || !strings.Contains(err.Error(), "callers") || !strings.Contains(err.Error(), "caller_key")) {
			t.Errorf("bind %s: it doesn't say which line to write: %v", c.bind, err)
		}
	}
}

// TM-3: over plain http under another name, nothing tells a page's GET from the
// application's.
func TestPlainHTTPUnderAName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		hosts []string
		keys  []CallerKey
		tls   bool
		warns bool
	}{
		{"a name", []string{"localhost:80", "erp.example.com:8080"}, nil, false, true},
		{"a name, over TLS", []string{"erp.example.com"}, nil, true, false},
		{"a name, with a key", []string{"erp.example.com"}, []CallerKey{{Name: "erp"}}, false, false},
		{"loopback", []string{"127.0.0.1:8080", "[::1]", "localhost"}, nil, false, false},
		{"no names", nil, nil, false, false},
	} {
		server := new(caddyhttp.Server)
		if c.tls {
			server.TLSConnPolicies = caddytls.ConnectionPolicies{new(caddytls.ConnectionPolicy)}
		}
		var log bytes.Buffer
		g := &Guard{Hosts: c.hosts, CallerKeys: c.keys, log: &seldomLog{to: slog.New(slog.NewTextHandler(&log, nil))}}
		g.warnPlainHTTP(caddy.Context{Context: context.WithValue(t.Context(), caddyhttp.ServerCtxKey, server)})
		if warned := strings.Contains(log.String(), "use https, or caller_key"); warned != c.warns {
			t.Errorf("%s: %q", c.name, log.String())
		}
	}
}

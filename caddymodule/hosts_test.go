package caddymodule

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

func TestUpstreamForms(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"api.example.com":                   "api.example.com",
		"API.Example.com":                   "api.example.com",
		"api.example.com:8443":              "api.example.com:8443",
		"https://api.example.com":           "api.example.com:443",
		"HTTPS://API.example.com/":          "api.example.com:443",
		"https://api.example.com:8443":      "api.example.com:8443",
		"http://127.0.0.1":                  "127.0.0.1:80",
		"h2c://127.0.0.1:9000":              "127.0.0.1:9000",
		"h2c://127.0.0.1":                   "127.0.0.1:80",
		"127.0.0.1":                         "127.0.0.1",
		"[2001:db8::1]":                     "2001:db8::1",
		"[2001:DB8::1]:8443":                "[2001:db8::1]:8443",
		"https://[2001:db8::1]":             "[2001:db8::1]:443",
		"unix//run/api.sock":                "unix//run/api.sock",
		"localhost":                         "localhost",
		"":                                  "",
		"https://":                          "",
		"/path":                             "",
		"https://api.example.com/v1":        "",
		"api.example.com/v1":                "",
		"https://api.example.com?x":         "",
		"https://api.example.com#x":         "",
		"https://u:p@api.example.com":       "",
		"u@api.example.com":                 "",
		"ftp://api.example.com":             "",
		"*.example.com":                     "",
		"{env.API}":                         "",
		"https://{env.API}":                 "",
		"api.example.com:port":              "",
		"api.example.com:80:80":             "",
		"2001:db8::1":                       "", // without brackets, its end could be a port
		"::1":                               "",
		"api.example.com other.example.com": "",
		"api.example.com\n":                 "",
		":443":                              "",
		"https://:443":                      "",
	} {
		got, err := upstream(text)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestUpstreamAllowed(t *testing.T) {
	t.Parallel()
	list := []string{"api.example.com", "alt.example.com:8443", "local:443", "2001:db8::1", "[2001:db8::2]:8443", "unix//run/api.sock"}
	for _, c := range []struct {
		dial       string
		tls, allow bool
	}{
		{"api.example.com:443", true, true},
		{"API.EXAMPLE.COM:443", true, true},
		{"api.example.com:443", false, false}, // without a port, the scheme's own
		{"api.example.com:80", false, true},
		{"api.example.com:80", true, false},
		{"api.example.com:8443", true, false},
		{"api.example.com", true, true},
		{"alt.example.com:8443", true, true},
		{"ALT.example.com:8443", true, true},
		{"alt.example.com:443", true, false},
		{"alt.example.com", true, false},
		{"local:443", true, true},
		{"[2001:db8::1]:443", true, true},
		{"[2001:db8::1]:444", true, false},
		{"[2001:db8::2]:8443", true, true},
		{"[2001:DB8::2]:8443", true, true},
		{"[2001:db8::3]:443", true, false},
		{"unix//run/api.sock", false, true},
		{"unix//run/other.sock", false, false},
		{"evil.example:443", true, false},
		{"api.example.com.evil.example:443", true, false},
		{"xapi.example.com:443", true, false},
		{"api.example.com.:443", true, false},
		{"api.example.com:0443", true, false},
		{"", true, false},
		{":443", true, false},
	} {
		if got := allowed(list, c.dial, c.tls); got != c.allow {
			t.Errorf("%s, TLS %v: %v, want %v", c.dial, c.tls, got, c.allow)
		}
	}
	if allowed(nil, "api.example.com:443", true) {
		t.Error("an empty list allows")
	}
}

// On the request path the usual address costs nothing.
func TestUpstreamAllowedAllocates(t *testing.T) {
	list := []string{"one.example.com:443", "api.example.com:443"}
	if n := testing.AllocsPerRun(100, func() { allowed(list, "api.example.com:443", true) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestUpstreamPlain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dial   string
		tls    bool
		accept bool
	}{
		{"api.example.com:443", true, true},
		{"api.example.com:80", true, true},
		{"127.0.0.1:80", false, true},
		{"127.1.2.3", false, true},
		{"localhost:9000", false, true},
		{"LocalHost:9000", false, true},
		{"[::1]:9000", false, true},
		{"::1", false, true},
		{"[::ffff:127.0.0.1]:80", false, true},
		{"unix//run/api.sock", false, true},
		{"api.example.com:80", false, false},
		{"api.example.com:443", false, false},
		{"localhost.evil.example:80", false, false},
		{"127.0.0.1.nip.io:80", false, false},
		{"0.0.0.0:80", false, false},
		{"10.0.0.1:80", false, false},
		{"[::]:80", false, false},
		{"unixish:80", false, false},
		{"", false, false},
	} {
		err := plainUpstream(c.dial, c.tls, false)
		if (err == nil) != c.accept {
			t.Errorf("%s, TLS %v: %v", c.dial, c.tls, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "use https://") || !strings.Contains(err.Error(), `"tls": {}`)) {
			t.Errorf("%s: it doesn't say what to write: %v", c.dial, err)
		}
	}
}

// What is an upstream of the account by its configured form is one at the dial
// address that Caddy makes of the same text.
func TestUpstreamOfAccount(t *testing.T) {
	t.Parallel()
	pagero, _ := oauth.ProviderNamed("pagero")
	hosts, err := new(Account).upstreams(pagero)
	if err != nil || !allowed(hosts, "api.pageroonline.com:443", true) || allowed(hosts, "api.pageroonline.com:80", false) {
		t.Errorf("the provider's: %v, %v", hosts, err)
	}
	// A list replaces the provider's.
	hosts, err = (&Account{Upstreams: []string{"a.example", "https://b.example:1"}}).upstreams(pagero)
	if err != nil || len(hosts) != 2 || allowed(hosts, "api.pageroonline.com:443", true) || !allowed(hosts, "b.example:1", true) {
		t.Errorf("the account's: %v, %v", hosts, err)
	}
	for _, bad := range []Account{{}, {Upstreams: []string{"a.example", "b.example/v1"}}} {
		if hosts, err := bad.upstreams(oauth.Provider{}); err == nil {
			t.Errorf("%+v: %v", bad, hosts)
		}
	}
}

func TestUpstreamEndpoint(t *testing.T) {
	t.Setenv("HOSTS_ENDPOINT", "https://login.example.com/token")
	t.Setenv("HOSTS_EMPTY", "")
	for text, want := range map[string]string{
		"https://login.example.com/token":     "https://login.example.com/token",
		"https://login.example.com":           "https://login.example.com",
		"HTTPS://login.example.com/t?a=b":     "HTTPS://login.example.com/t?a=b", // RFC 6749 §3.2: a query is kept
		"http://127.0.0.1:9/t":                "http://127.0.0.1:9/t",
		"http://localhost/t":                  "http://localhost/t",
		"http://[::1]:9/t":                    "http://[::1]:9/t",
		"{env.HOSTS_ENDPOINT}":                "https://login.example.com/token",
		"":                                    "",
		"{env.HOSTS_EMPTY}":                   "",
		"{env.HOSTS_UNSET}":                   "",
		"login.example.com/token":             "",
		"//login.example.com/token":           "",
		"https:///token":                      "",
		"https://:443/token":                  "",
		"https://login.example.com/t#f":       "",
		"https://u@login.example.com/t":       "",
		"https://u:p@login.example.com/t":     "",
		"http://login.example.com/t":          "",
		"http://localhost.evil.example/t":     "",
		"http://127.0.0.1@evil.example/t":     "",
		"http://0.0.0.0/t":                    "",
		"ftp://login.example.com/t":           "",
		"unix//run/login.sock":                "",
		"https://login.example.com/t\nX: y":   "",
		"https://login.example.com:port/t":    "",
		"https://login.exa mple.com/t":        "",
		"mailto:login@example.com":            "",
		"https:login.example.com/oauth/token": "",
	} {
		got, err := endpoint(text)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: the error shows credentials: %v", text, err)
		}
	}
}

// At a request, the transport sees a Unix socket as a path and, with the PROXY
// protocol, the caller's address before the upstream's.
func TestUpstreamUnixSocket(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	socket := filepath.Join(r.dir, "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.TrimRight(r.Header.Get("Authorization"), "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_."))
	}))
	server.Listener = l
	server.Start()
	defer server.Close()
	r.api = "unix/" + socket
	r.start()
	res, body := r.do("GET", "/", nil)
	if res.StatusCode != 200 || body != "Bearer " {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestUpstreamProxyProtocol(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		line, _ := in.ReadString('\n')
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		proxied, _, _ := strings.Cut(line, " 127.0.0.1 ")
		body := proxied + " " + req.Header.Get("Authorization")[:len("Bearer")]
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	}()
	r.api = "http://" + l.Addr().String()
	r.handler = "transport http {\n proxy_protocol v1\n }"
	r.start()
	if res, body := r.do("GET", "/", nil); body != "PROXY TCP4 Bearer" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestHostLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST": true, "127.0.0.1": true, "127.255.0.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "localhost.": false, "a.localhost": false, "128.0.0.1": false, "0.0.0.0": false, "::": false, "[::1]": false, "127.1": false, "0177.0.0.1": false, "::ffff:10.0.0.1": false,
	} {
		if got := loopback(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// Ways on which somebody else would read the token are refused at load.
func TestUpstreamInClear(t *testing.T) {
	for name, c := range map[string]struct{ upstream, options, want string }{
		"proxy, plain upstream":         {"http://127.0.0.1:9", "network_proxy url http://203.0.113.7:3128", "network proxy in clear"},
		"proxy, a port without TLS":     {"https://api.example.com", "network_proxy url http://203.0.113.7:3128\n\t\t\ttls_except_ports 8080", "network proxy in clear"},
		"proxy, TLS":                    {"https://api.example.com", "network_proxy url http://203.0.113.7:3128", ""},
		"no proxy":                      {"http://127.0.0.1:9", "network_proxy none", ""},
		"any certificate":               {"https://api.example.com", "tls_insecure_skip_verify", "tls_trust_pool"},
		"any certificate, this machine": {"https://127.0.0.1:9", "tls_insecure_skip_verify", ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := strings.NewReplacer("API", c.upstream, "OPTIONS", c.options).Replace(`{
	admin off
	log {
		output discard
	}
	bearer {
		store memory
		account a {
			token_endpoint https://login.example.com/token
			upstream api.example.com 127.0.0.1:9
			client_id id
			client_secret {env.HOME}
			grant client_credentials
		}
	}
}
http://:8080 {
	bind 127.0.0.1
	bearer_proxy a API {
		transport http {
			OPTIONS
		}
	}
}
`)
			text, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), nil)
			if err != nil {
				t.Fatal(err)
			}
			var cfg caddy.Config
			if err := json.Unmarshal(text, &cfg); err != nil {
				t.Fatal(err)
			}
			err = caddy.Validate(&cfg)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

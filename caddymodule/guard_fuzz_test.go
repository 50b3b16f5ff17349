package caddymodule

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// fuzzRules are the guards that requests are tried on.
var fuzzRules = []guardRules{
	{},
	{hosts: []string{"erp.example.com", "printer:8080", "[fd00::1]"}, origins: []string{"https://app.example.com", "http://intranet:8080", "http://localhost:8080"}, strict: true},
	{hosts: []string{"erp.example.com"}, keys: map[string]string{"erp": legacyKey, "scan": "key-with-a:colon-0123"}, strict: true},
	{callers: []string{"10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"}, upgrade: true},
	{callers: []string{"127.0.0.0/8"}, keys: map[string]string{"erp": legacyKey}, origins: []string{"http://localhost"}, upgrade: true},
	{clientField: "CF-Connecting-IP"},
	{callers: []string{"10.9.8.7", "2001:db8::/32"}, clientField: "CF-Connecting-IP"},
}

// FuzzGuard puts requests to guards inside of Caddy, and compares with the
// reference.
func FuzzGuard(f *testing.F) {
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, seed := range [][7]string{
		{"GET", "/a", "localhost", "", "", "127.0.0.1:1", ""},
		{"CONNECT", "localhost:80", "localhost", "", "", "127.0.0.1:1", ""},
		{"trace", "/", "evil.example", "null", "cross-site", "192.0.2.1:1", "Upgrade: websocket"},
		{"POST", "http://evil.example/x", "localhost", "https://evil.example", "same-site", "[::1]:1", "X-Forwarded-For: 1"},
		{"OPTIONS", "/a/../b", "erp.example.com:8080", "https://app.example.com", "cross-site", "10.1.2.3:1", "X-API-Key: " + legacyKey},
		{"GET", "/a%2Fb|c", "printer:8080", "", "same-origin", "[::ffff:10.0.0.1]:1", "Authorization: " + basic("x:"+legacyKey)},
		{"GET", "/a%2eb/%252e/..;/c\\d?x=//", "[fd00::1]", "", "none", "@", "Authorization: " + basic("x:key-with-a:colon-0123")},
		{"GET", "*", "localhost", "http://localhost:8080", "same-origin", "127.0.0.1:1", "Upgrade: h2c"},
		{"GET", "/%2e%2E/%5c%00//", "127.0.0.1.nip.io", "HTTP://LOCALHOST", "None", "0.0.0.0:1", "Via: x"},
		{"PUT", "http://localhost@evil.example/", "", "https://app.example.com:443", "none, cross-site", "[fe80::1%eth0]:1", "Forwarded:"},
		{"GET", "http://localhost", "[::1]:8080", "", "", "@", "X-Forwarded-Port: 1"},
		{"GET", "localhost:80", "localhost", "", "", "127.0.0.1:1", "X-Real-IP: x"},
		{"GET", "/", "locaLhost:80", "", "same-origin", "127.0.0.1:1", ""},
		{"GET", "/..%3b/", "localhost", "", "same-origin", "127.0.0.1:1", "Authorization: " + basic(legacyKey)},
		{"PRI", "/", "localhost", "", "", "127.0.0.1:1", "CF-Connecting-IP: 127.0.0.1"},
		{"GET", "/", "localhost", "", "", "@", "CF-Connecting-IP: 10.9.8.7"},
		{"GET", "/", "localhost", "", "", "@", "CF-Connecting-IP: unknown"},
		{"GET", "/", "localhost", "", "", "@", "cf-connecting-ip: x, [2001:db8::1%25]:5"},
		{"GET", "/", "localhost", "", "", "@x", "CF-Connecting-IP:"},
		{"GET", "/", "localhost", "", "", "10.9.8.7:1", "CF-Connecting-IP: 1.2.3.4"},
	} {
		for which := range fuzzRules {
			f.Add(byte(which), seed[0], seed[1], seed[2], seed[3], seed[4], seed[5], seed[6], which%2 == 0)
		}
	}
	var sites []string
	for _, rules := range fuzzRules {
		sites = append(sites, guardedSite(rules.options()))
	}
	servers := insideServers(f, "http://127.0.0.1:9", sites...)
	for i, rules := range fuzzRules {
		if rules.clientField != "" {
			servers[i].ClientIPHeaders, servers[i].TrustedProxiesUnix = []string{rules.clientField}, true
		}
	}
	f.Fuzz(func(t *testing.T, which byte, method, target, host, origin, site, peer, field string, old bool) {
		a := attempt{method: method, target: target, version: "HTTP/1.1", peer: peer}
		if old {
			a.version = "HTTP/1.0"
		}
		name, value, _ := strings.Cut(field, ":")
		for _, f := range [][2]string{{"Host", host}, {"Origin", origin}, {"Sec-Fetch-Site", site}, {name, strings.Trim(value, " \t")}} {
			if f[0] != "" && (f[1] != "" || f[0] == name && field != "") {
				a.fields = append(a.fields, f)
			}
		}
		if !sendable(a) {
			return
		}
		i := int(which) % len(fuzzRules)
		rules := fuzzRules[i]
		want := rules.verdict(a)
		got, ok := askInside(servers[i], a)
		if !ok || want == byServer {
			return
		}
		if want == passes && got.code == "path_refused" && rules.strict && !strings.HasPrefix(a.path(), "/") {
			return // stricter than the reference, about what is no path at all
		}
		if complaint := judged(got, want); complaint != "" {
			t.Errorf("guard %d: %q from %s: %s", i, a.text(), a.peer, complaint)
		}
	})
}

// sendable tells whether Go's server would take the request for one.
func sendable(a attempt) bool {
	if !validToken(a.method) || len(a.method) > 32 || a.target == "" || strings.ContainsAny(a.target, " \r\n") {
		return false
	}
	for _, f := range a.fields {
		if !validToken(f[0]) || !validValue(f[1]) || strings.Trim(f[1], " \t") != f[1] || strings.ContainsAny(f[0], "_.") {
			return false
		}
		if strings.EqualFold(f[0], "Host") && !validHost(f[1]) {
			return false
		}
	}
	_, err := netip.ParseAddrPort(a.peer)
	return validHost(a.authority()) && (err == nil || unixPeer(a.peer))
}

// An insideAPI is the other end of the transport: it writes requests as they
// go onto the wire, and reads them as the API does.
type insideAPI struct{ sent []wireRequest }

func (api *insideAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return nil, err
	}
	if r.Body != nil {
		_ = r.Body.Close()
	}
	br := bufio.NewReader(&b)
	for {
		w, err := readWire(br, io.Discard)
		if err != nil {
			break
		}
		if api.sent = append(api.sent, w); w.broken != "" {
			break
		}
	}
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// answerInside puts api behind the transports of a server.
func answerInside(t testing.TB, routes caddyhttp.RouteList, api *insideAPI) (found int) {
	t.Helper()
	for _, route := range routes {
		for _, h := range route.Handlers {
			switch h := h.(type) {
			case *caddyhttp.Subroute:
				found += answerInside(t, h.Routes, api)
			case *reverseproxy.Handler:
				inner := new(http.Transport)
				inner.RegisterProtocol("http", api)
				h.Transport.(*Transport).HTTPTransport.Transport = inner
				found++
			}
		}
	}
	return found
}

const passedOnPurpose = "Cookie X-Forwarded-* Sec-CH-UA X-API-Key"

// FuzzHeaderFilter sends whatever fields, trailers included, through guard and
// transport. The API gets one Authorization, ours, and no protected field by
// any name; and whatever the caller sends, the API gets one request.
func FuzzHeaderFilter(f *testing.F) {
	for _, fields := range []string{
		"", "Authorization: x\r\n", "authorization: a\r\nAUTHORIZATION: b\r\n", "Connection: Authorization\r\nAuthorization: x\r\n", "Connection: close, authorization\r\nCookie: a\r\n",
		"X_Forwarded_For: 1\r\nX.Real.Ip: 2\r\nX-API_Key: 3\r\n", "X-API-Key: " + legacyKey + "\r\n", "Proxy-Authorization: x\r\nTE: trailers\r\nTrailer: Authorization\r\n",
		"Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n5\r\nhello\r\n0\r\nAuthorization: x\r\n", "Sec-CH-UA: x\r\nSec_CH_UA: y\r\n", "Via: 1.1 x\r\nForwarded: for=x\r\n",
		"Upgrade: websocket\r\nConnection: Upgrade, Authorization\r\nSec-WebSocket-Key: x\r\nSec_WebSocket_Key: y\r\n", "Upgrade: h2c\r\nConnection: Upgrade\r\n", "X-A: 1\r\n Authorization: x\r\n",
		"Authorization_: x\r\n_Authorization: y\r\nAuthorization.: z\r\n", "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", "Caddy-Bearer-Error: x\r\nHost: localhost\r\n",
	} {
		f.Add(fields)
	}
	const options = "bearer_proxy erp http://127.0.0.1:9 {\n\t\tcallers 127.0.0.1\n\t\tallow_upgrade\n\t\t"
	servers := insideServers(f, "http://127.0.0.1:9", "\t"+options+"\n\t}", "\t"+options+"pass_headers "+passedOnPurpose+"\n\t}", "\t"+options+"caller_key erp "+legacyKey+"\n\t}")
	api := new(insideAPI)
	for _, s := range servers {
		if n := answerInside(f, s.Routes, api); n != 1 {
			f.Fatalf("the server has %d proxies", n)
		}
	}
	app, err := running()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, fields string) {
		for i, s := range servers {
			request := "POST /a HTTP/1.1\r\nHost: localhost\r\n" + strings.TrimSuffix(fields, "\r\n") + "\r\n\r\n"
			if i == 2 {
				request = strings.Replace(request, "\r\n", "\r\nX-API-Key: "+legacyKey+"\r\n", 1)
			}
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
			if err != nil || !servable(r) {
				return
			}
			r.RemoteAddr = "127.0.0.1:5000"
			api.sent = nil
			through(s, r)
			ours := authorizationOf(app)
			if len(api.sent) > 1 {
				t.Fatalf("site %d: %q: the API got %s", i, request, targets(api.sent))
			}
			var passed []string
			if i == 1 {
				passed = []string{"cookie", "sec-ch-ua", "x-api-key"}
			}
			for _, sent := range api.sent {
				for _, f := range sent.fields {
					if name := strings.ToLower(f[0]); i == 1 && strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "sec-websocket-") && r.Header.Get("Upgrade") != "" {
						passed = append(passed, name)
					}
				}
				if complaint := onlyOurs(sent, ours, passed...); complaint != "" || sent.broken != "" && sent.broken != cutOff {
					t.Errorf("site %d: %q: the API: %s%s", i, request, complaint, sent.broken)
				}
				if strings.Contains(strings.Join(sent.values("X-API-Key"), " "), legacyKey) && i == 2 {
					t.Errorf("site %d: %q: the API got the caller's key", i, request)
				}
			}
		}
	})
}

// servable tells whether Go's server would serve the request.
func servable(r *http.Request) bool {
	for name, values := range r.Header {
		if !validToken(name) || slices.ContainsFunc(values, func(v string) bool { return !validValue(v) }) {
			return false
		}
	}
	return validHost(r.Host)
}

// through puts a request to a server's routes. Caddy's own filter of names with
// _ and . is left out: what is asked is what the guard does.
func through(s *caddyhttp.Server, r *http.Request) {
	rec := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rec, s)
	routes := s.Routes.Compile(caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
	_ = routes.ServeHTTP(rec, r)
}

func authorizationOf(app *App) string {
	for _, s := range maps.Collect(maps.All(app.shared.sessions.All())) {
		if token := s.Current(); token != nil {
			return token.Authorization()[0]
		}
	}
	return ""
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// validToken is RFC 9110 §5.6.2.
func validToken(s string) bool { return s != "" && onlyOf(s, letters+"!#$%&'*+-.^_`|~") }

// validValue is RFC 9110 §5.5.
func validValue(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}

// validHost is RFC 3986 §3.2, as Go's server reads it.
func validHost(s string) bool { return onlyOf(s, letters+"!$%&'()*+,-.:;=[]_~") }

func onlyOf(s, set string) bool { return strings.Trim(s, set) == "" }

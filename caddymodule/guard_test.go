package caddymodule

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// guardRequest is a request of a caller on this machine.
func guardRequest(method, host string, header ...string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Method, r.Host, r.RemoteAddr = method, host, "127.0.0.1:5000"
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// refusedFor returns the code of a refusal; empty if the request passes.
func refusedFor(g *Guard, r *http.Request) string {
	p, ok := g.refuse(r)
	if !ok {
		return ""
	}
	return p.Code
}

func TestGuardHosts(t *testing.T) {
	t.Parallel()
	configured := []string{"erp.example.com", "printer:8080", "fd00::1", "192.0.2.7"}
	for _, c := range []struct {
		host string
		pass bool
	}{
		{"", true}, // HTTP/1.0
		{"localhost", true},
		{"LOCALHOST:8080", true},
		{"localhost:", true}, // an empty port is the default one, RFC 3986 §3.2.3
		{"127.0.0.1", true},
		{"127.8.9.1:1", true},
		{"[::1]", true},
		{"[::1]:80", true},
		{"::1", true},
		{"[::ffff:127.0.0.1]:80", true},

		{"evil.example", false},
		{"evil.example:80", false},
		{"localhost.evil.example", false},
		{"localhost.", false},
		{"evil.localhost", false},
		{"127.0.0.1.nip.io", false},
		{"127.0.0.1.nip.io:8080", false},
		{"127.1", false},
		{"127.0.0.01", false},
		{"2130706433", false},
		{"0.0.0.0", false},
		{"[::]", false},
		{"128.0.0.1", false},
		{"localhost:80a", false},
		{"localhost:-1", false},
		{"localhost:80:80", false},
		{"127.0.0.1:80@evil.example", false},
		{"user@localhost", false},
		{"user@localhost:80", false},
		{"evil.example:80@localhost", false},
		{"localhost/", false},
		{"localhost\x00", false},
		{"localhost ", false},
		{"localhost\t:80", false},
		{"http://localhost", false},
		{":8080", false},
		{":", false},
		{"[]", false},
		{"[", false},
		{"]", false},
		{"loc\u212alhost", false},
		{"loca\u017fhost", false},

		{"erp.example.com", true},
		{"ERP.example.com:1", true},
		{"xerp.example.com", false},
		{"erp.example.com.", false},
		{"erp.example.com.evil.example", false},
		{"printer:8080", true},
		{"Printer:8080", true},
		{"printer", false},
		{"printer:80", false},
		{"192.0.2.7:99", true},
		{"[fd00::1]", true},
		{"[fd00::1]:8080", true},
		{"[fd00::3]", false},
	} {
		g := &Guard{Hosts: configured}
		want := ""
		if !c.pass {
			want = "host_refused"
		}
		if got := refusedFor(g, guardRequest("GET", c.host)); got != want {
			t.Errorf("Host %q: %q, want %q", c.host, got, want)
		}
	}
}

// Without configured hosts, only names of this machine are answered to.
func TestGuardHostsDefault(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{"localhost": "", "erp.example.com": "host_refused", "192.0.2.7": "host_refused"} {
		if got := refusedFor(new(Guard), guardRequest("GET", host)); got != want {
			t.Errorf("Host %q: %q, want %q", host, got, want)
		}
	}
}

// Hosts as an operator writes them: in any case, an IPv6 address in brackets.
func TestGuardHostsConfigured(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.handler = "hosts ERP.example.com [FD00::1]"
	r.start()
	for host, want := range map[string]int{"erp.example.com": 200, "Erp.Example.Com:99": 200, "[fd00::1]": 200, "[fd00::1]:8080": 200, "localhost:1": 200,
		"fd00.example.com": 421, "[fd00::2]": 421} {
		res := raw(t, r.address, "GET /document/v1/documents HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if res.StatusCode != want {
			t.Errorf("Host %s: %s, want %d", host, res.Status, want)
		}
	}
}

func TestGuardMethods(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"CONNECT", "connect", "Connect", "TRACE", "trace", "TRACK", "track", "tRaCk", "PRI", "pri"} {
		// Whatever else is wrong or allowed: the method is refused first.
		for _, host := range []string{"localhost", "evil.example"} {
			r := guardRequest(method, host, "Upgrade", "websocket")
			p, _ := (&Guard{AllowUpgrade: true}).refuse(r)
			if p.Code != "method_refused" || !slices.Contains(regexp.MustCompile("[A-Z]+").FindAllString(p.Detail, -1), strings.ToUpper(method)) {
				t.Errorf("%s: %q, %s", method, p.Code, p.Detail)
			}
		}
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACES", "XTRACE", "PRIX", ""} {
		if got := refusedFor(new(Guard), guardRequest(method, "localhost")); got != "" {
			t.Errorf("%s: %q", method, got)
		}
	}
}

func TestGuardUpgrades(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values  []string
		upgrade bool
	}{
		{nil, false},
		{[]string{"h2c"}, false}, // Java's HttpClient
		{[]string{"H2C"}, false},
		{[]string{" h2c "}, false},
		{[]string{"websocket"}, true},
		{[]string{"WebSocket"}, true},
		{[]string{"h2c, websocket"}, true},
		{[]string{"h2c", "websocket"}, true},
		{[]string{"h2c", "h2c"}, true},
		{[]string{"h2"}, true},
		{[]string{"h2c/1"}, true},
		{[]string{"TLS/1.0"}, true},
		{[]string{""}, true},
	} {
		for _, allow := range []bool{false, true} {
			r := guardRequest("GET", "localhost", "Connection", "Upgrade, HTTP2-Settings", "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
			r.Header["Upgrade"] = c.values
			want := ""
			if c.upgrade && !allow {
				want = "upgrade_refused"
			}
			if got := refusedFor(&Guard{AllowUpgrade: allow}, r); got != want {
				t.Errorf("%q, allowed %v: %q, want %q", c.values, allow, got, want)
			}
			// The offer of HTTP/2 doesn't reach the API; an upgrade does.
			kept := len(c.values) > 0 && c.upgrade
			if has := r.Header.Values("Upgrade"); (len(has) > 0) != kept {
				t.Errorf("%q, allowed %v: Upgrade is %q", c.values, allow, has)
			}
			if settings := r.Header.Get("HTTP2-Settings"); c.values != nil && (settings != "") != kept {
				t.Errorf("%q, allowed %v: HTTP2-Settings is %q", c.values, allow, settings)
			}
		}
	}
}

func TestGuardCallersDefault(t *testing.T) {
	t.Parallel()
	for remote, pass := range map[string]bool{
		"127.0.0.1:1":          true,
		"127.9.9.9:1":          true,
		"[::1]:1":              true,
		"[::ffff:127.0.0.1]:1": true,
		"@":                    true, // Unix sockets
		"@name":                true,
		"":                     true,
		"192.0.2.1:1":          false,
		"10.0.0.1:1":           false,
		"[2001:db8::1]:1":      false,
		"[fe80::1%eth0]:1":     false,
		"[::ffff:192.0.2.1]:1": false,
		"[::]:1":               false,
		"0.0.0.0:1":            false,
		"127.0.0.1":            false, // no address of a peer looks like this
		"localhost:1":          false,
		"garbage":              false,
	} {
		r := guardRequest("GET", "localhost")
		r.RemoteAddr = remote
		// What Caddy makes of trusted proxies' headers is of no account here.
		r = clientIP(r, "127.0.0.1")
		want := ""
		if !pass {
			want = "caller_refused"
		}
		if got := refusedFor(new(Guard), r); got != want {
			t.Errorf("remote address %q: %q, want %q", remote, got, want)
		}
	}
}

func TestGuardForwarded(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "x-forwarded-for", "X-Forwarded-Host", "X-Forwarded-Port", "x_forwarded_for", "X-Real-IP", "Via"} {
		for _, value := range []string{"for=192.0.2.1", "127.0.0.1", ""} {
			p, ok := new(Guard).refuse(guardRequest("GET", "localhost", name, value))
			if !ok || p.Code != "caller_refused" || !strings.Contains(p.Detail, "add the line: callers 127.0.0.1 ::1") {
				t.Errorf("%s: %q: %+v, %v", name, value, p, ok)
			}
			r := clientIP(guardRequest("GET", "localhost", name, value), "127.0.0.1")
			if got := refusedFor(guardFor("127.0.0.1"), r); got != "" {
				t.Errorf("%s: %q, with callers: %q", name, value, got)
			}
			r = guardRequest("GET", "localhost", name, value)
			r.RemoteAddr = "@"
			if got := refusedFor(new(Guard), r); got != "caller_refused" {
				t.Errorf("%s: %q, on a Unix socket: %q", name, value, got)
			}
		}
	}
}

// A proxy in front that tells the client by a field of its own (client_ip_headers)
// has forwarded the request, whatever it says: also that it doesn't know.
func TestGuardClientIPHeaders(t *testing.T) {
	servers := insideServers(t, "http://127.0.0.1:9", guardedSite(""), guardedSite("callers 10.9.8.7"))
	for _, s := range servers {
		s.ClientIPHeaders, s.TrustedProxiesUnix = []string{"CF-Connecting-IP"}, true
	}
	const refused = "caller_refused"
	for _, c := range []struct {
		peer, value       string // (none): no such field
		byDefault, listed string
	}{
		{"@", "(none)", passes, passes}, // a process on the socket
		{"@", "10.9.8.7", refused, passes},
		{"@", "10.9.8.7:99", refused, passes},
		{"@", "unknown, 10.9.8.7", refused, passes},
		{"@", "1.2.3.4", refused, refused},
		{"@", "127.0.0.1", refused, refused},
		{"@", "unknown", refused, refused},
		{"@", "", refused, refused},
		{"@", ",", refused, refused},
		{"127.0.0.1:1", "(none)", passes, refused},
		{"127.0.0.1:1", "10.9.8.7", refused, refused}, // a proxy that isn't trusted
		{"10.9.8.7:1", "1.2.3.4", refused, passes},
	} {
		a := attempt{method: "GET", target: "/", version: "HTTP/1.1", fields: [][2]string{{"Host", "localhost"}}, peer: c.peer}
		if c.value != "(none)" {
			a.fields = append(a.fields, [2]string{"CF-Connecting-IP", c.value})
		}
		for i, want := range []string{c.byDefault, c.listed} {
			if got, ok := askInside(servers[i], a); !ok || judged(got, want) != "" {
				t.Errorf("site %d: from %s, CF-Connecting-IP: %s: %s", i, c.peer, c.value, judged(got, want))
			}
		}
	}
}

func TestGuardCallers(t *testing.T) {
	t.Parallel()
	callers := []string{"10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"}
	for _, c := range []struct {
		remote, client string // the peer, and what Caddy holds for the client
		pass           bool
	}{
		{"10.1.2.3:5", "10.1.2.3", true},
		{"[::ffff:10.1.2.3]:5", "::ffff:10.1.2.3", true},
		{"192.0.2.7:5", "192.0.2.7", true},
		{"[2001:db8::7]:5", "2001:db8::7", true},
		{"127.0.0.1:5", "10.1.2.3", true}, // behind a trusted proxy
		{"[::1]:5", "::1", true},
		{"@", "", true},
		{"", "", true},
		{"127.0.0.1:5", "127.0.0.1", false}, // not among them
		{"11.0.0.1:5", "11.0.0.1", false},
		{"192.0.2.8:5", "192.0.2.8", false},
		{"10.1.2.3:5", "192.0.2.8", false},
		{"[2001:db9::7]:5", "2001:db9::7", false},
		{"10.1.2.3:5", "", false},
		{"10.1.2.3:5", "garbage", false},
		{"@", "192.0.2.8", false}, // forwarded by a trusted proxy on the socket
	} {
		r := guardRequest("GET", "localhost")
		r.RemoteAddr = c.remote
		if got := refusedFor(guardFor(callers...), clientIP(r, c.client)) == ""; got != c.pass {
			t.Errorf("remote %q, client %q: passes %v, want %v", c.remote, c.client, got, c.pass)
		}
	}
	r := guardRequest("GET", "localhost")
	r.RemoteAddr = "10.1.2.3:5"
	if got := refusedFor(guardFor(callers...), r); got != "caller_refused" {
		t.Errorf("without Caddy's client_ip: %q", got)
	}
}

// guardFor is a guard as Provision leaves it.
func guardFor(callers ...string) *Guard {
	g := &Guard{Callers: callers}
	for _, c := range callers {
		p, err := caddyhttp.CIDRExpressionToPrefix(c)
		if err != nil {
			panic(err)
		}
		g.callers = append(g.callers, p)
	}
	return g
}

func clientIP(r *http.Request, ip string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: ip}))
}

// What a caller sends comes back in the detail, and an operator may paste it
// into a Caddyfile: no control character, no brace, no quote, no length.
func TestGuardDetails(t *testing.T) {
	t.Parallel()
	clean := regexp.MustCompile(`^[ -~]{1,300}$`)
	for _, nasty := range []string{"a\r\nX-Evil: 1", "a\x1b[31mred", "a\u202eb", "a`rm`$(x)", `a"b'c\d`, "a{env.SECRET}", "a<script>", "é", "a b\tc", strings.Repeat("x", 1000)} {
		for what, r := range map[string]*http.Request{
			"host":   guardRequest("GET", nasty),
			"client": clientIP(guardRequest("GET", "localhost"), nasty),
			"remote": guardRequest("GET", "localhost"),
		} {
			g := new(Guard)
			switch what {
			case "client":
				g = guardFor("192.0.2.1")
			case "remote":
				r.RemoteAddr = net.JoinHostPort(nasty, "1")
			}
			p, ok := g.refuse(r)
			if !ok || !clean.MatchString(p.Detail) || strings.ContainsAny(p.Detail, "{}<>\"'`\\") {
				t.Errorf("%s %q: %q, %v", what, nasty, p.Detail, ok)
			}
			if _, said, ok := strings.Cut(p.Detail, "add the line: "); !ok || strings.Count(said, " ") > 1 {
				t.Errorf("%s %q: the line to add is %q", what, nasty, said)
			}
		}
	}
}

// The line that a refusal names makes the request pass.
func TestGuardHints(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"erp.example.com", "ERP.example.com:8080", "192.0.2.7", "[fd00::1]:8080", "[fd00::1]"} {
		p, _ := new(Guard).refuse(guardRequest("GET", host))
		_, line, _ := strings.Cut(p.Detail, "add the line: hosts ")
		if got := refusedFor(&Guard{Hosts: []string{strings.ToLower(line)}}, guardRequest("GET", host)); got != "" {
			t.Errorf("after %q: %q", p.Detail, got)
		}
	}
	for _, remote := range []string{"192.0.2.7:5", "[2001:db8::1]:5"} {
		r := guardRequest("GET", "localhost")
		r.RemoteAddr = remote
		host, _, _ := net.SplitHostPort(remote)
		p, _ := new(Guard).refuse(r)
		_, line, _ := strings.Cut(p.Detail, "add the line: callers ")
		if got := refusedFor(guardFor(line), clientIP(r, host)); got != "" {
			t.Errorf("%s: after %q: %q", remote, p.Detail, got)
		}
	}
	for _, client := range []string{"127.0.0.1", "::1", "192.0.2.7", "2001:db8::1"} { // as Caddy knows it from a trusted proxy, or not
		r := clientIP(guardRequest("GET", "localhost", "X-Forwarded-For", "192.0.2.7"), client)
		p, _ := new(Guard).refuse(r)
		_, line, _ := strings.Cut(p.Detail, "add the line: callers ")
		if got := refusedFor(guardFor(strings.Fields(line)...), r); got != "" {
			t.Errorf("forwarded for %s: after %q: %q", client, p.Detail, got)
		}
	}
}

func TestGuardPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "", "a.b:80": "a.b:80", "[::1]:80": "[::1]:80", "a\nb c": "abc", "{x}": "x", "\x7f\x00é": "", strings.Repeat("y", 101): strings.Repeat("y", 100)} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// slowHostAllowed says the same as hostAllowed, spelled out from RFC 9110 §7.2
// and RFC 3986 §3.2: a host, in brackets if it is an IPv6 address, and maybe a
// port.
func slowHostAllowed(hosts []string, host string) bool {
	if host == "" {
		return true
	}
	host = strings.ToLower(host)
	if slices.Contains(hosts, host) {
		return true
	}
	name := host
	if m := regexp.MustCompile(`^(?:\[([^\[\]]*)\]|([^\[\]:]*)):([0-9]*)$`).FindStringSubmatch(host); m != nil {
		name = m[1] + m[2]
	} else if m := regexp.MustCompile(`^\[([^\[\]]*)\]$`).FindStringSubmatch(host); m != nil {
		name = m[1]
	}
	if slices.Contains(hosts, name) || name == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	return ip.Unmap().IsLoopback()
}

func FuzzHostAllowed(f *testing.F) {
	for _, host := range []string{"", "localhost", "LOCALHOST:8080", "127.0.0.1", "[::1]:80", "::1", "evil.example", "localhost.evil.example", "127.0.0.1.nip.io",
		"user@localhost", "localhost:80a", "[localhost]", "[::1", "erp.example.com:1", "printer:8080", "printer", "[fd00::1]:8", "::ffff:127.0.0.1", "[::1%25lo]", ":", "a:b:c", "\x00", "\u212a"} {
		f.Add(host)
	}
	hosts := []string{"erp.example.com", "printer:8080", "fd00::1"}
	g := &Guard{Hosts: hosts}
	f.Fuzz(func(t *testing.T, host string) {
		got, want := g.hostAllowed(host), slowHostAllowed(hosts, host)
		if got != want {
			t.Errorf("%q: %v, the reference says %v", host, got, want)
		}
	})
}

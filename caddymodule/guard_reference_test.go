package caddymodule

import (
	"encoding/base64"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// guardRules are a guard's options, for the reference.
type guardRules struct {
	hosts, origins, callers []string
	keys                    map[string]string // secrets by name
	upgrade, strict         bool
	clientField             string // client_ip_headers; told by a proxy on a Unix socket that is trusted
}

// options are the lines of the Caddyfile.
func (g guardRules) options() string {
	var lines []string
	add := func(name string, args ...string) {
		if len(args) > 0 {
			lines = append(lines, name+" "+strings.Join(args, " "))
		}
	}
	add("hosts", g.hosts...)
	add("origins", g.origins...)
	add("callers", g.callers...)
	for name, secret := range g.keys {
		add("caller_key", name, secret)
	}
	if g.upgrade {
		lines = append(lines, "allow_upgrade")
	}
	if g.strict {
		lines = append(lines, "strict_paths")
	}
	return strings.Join(lines, "\n\t\t")
}

// An attempt is a request as somebody writes it.
type attempt struct {
	method, target, version string
	fields                  [][2]string
	body                    string
	peer                    string // address and port; @ is a Unix socket
}

// text is the request's bytes.
func (a attempt) text() string {
	var b strings.Builder
	b.WriteString(a.method + " " + a.target + " " + a.version + "\r\n")
	for _, f := range a.fields {
		b.WriteString(f[0] + ": " + f[1] + "\r\n")
	}
	b.WriteString("\r\n" + a.body)
	return b.String()
}

// values are those of a field.
func (a attempt) values(name string) (values []string) {
	for _, f := range a.fields {
		if strings.EqualFold(f[0], name) {
			values = append(values, strings.Trim(f[1], " \t"))
		}
	}
	return values
}

// The reference answers two things besides a code.
const (
	passes    = ""
	byServer  = "(the server itself)" // Go or Caddy answers before any handler
	loopback4 = "127.0.0.0/8"
)

// verdict is the slow and obvious reference: what the design says of the guard,
// one rule after the other in its order. It shares nothing with the guard.
func (g guardRules) verdict(a attempt) string {
	if g.serverAnswers(a) {
		return byServer
	}
	switch strings.ToUpper(a.method) {
	case "CONNECT", "TRACE", "TRACK", "PRI":
		return "method_refused"
	}
	if up := a.values("Upgrade"); len(up) > 0 && !g.upgrade {
		if len(up) != 1 || strings.ToLower(up[0]) != "h2c" {
			return "upgrade_refused"
		}
	}
	if !g.knowsHost(a.authority()) {
		return "host_refused"
	}
	if !g.knowsOrigin(a) {
		return "origin_refused"
	}
	if !g.knowsCaller(a) {
		return "caller_refused"
	}
	if len(g.keys) > 0 && !g.knowsKey(a) {
		return "key_refused"
	}
	if g.strict && twoReadings(a.path()) {
		return "path_refused"
	}
	return passes
}

// serverAnswers: RFC 9112 §3.2 wants exactly one Host field in HTTP/1.1, and
// never two; and Go answers OPTIONS * itself.
func (g guardRules) serverAnswers(a attempt) bool {
	hosts := a.values("Host")
	switch {
	case len(hosts) > 1:
		return true
	case a.version == "HTTP/1.1" && len(hosts) == 0 && a.method != "CONNECT":
		return true
	case a.version == "HTTP/1.1" && a.authority() == "":
		return true
	case strings.Trim(hostOnly(a.authority()), ".") == "" && hostOnly(a.authority()) != "":
		return true
	case a.method == "OPTIONS" && a.target == "*":
		return true
	}
	return false
}

func hostOnly(authority string) string {
	if i := strings.LastIndex(authority, ":"); i >= 0 && !strings.Contains(authority[:i], ":") {
		return authority[:i]
	}
	return authority
}

var absoluteTarget = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://([^/?]*)`)

// authority is whom the request is for (RFC 9112 §3.3): that of an absolute
// target, else of the Host field.
func (a attempt) authority() string {
	if m := absoluteTarget.FindStringSubmatch(a.target); m != nil {
		if host := m[1][strings.LastIndex(m[1], "@")+1:]; host != "" {
			return host
		}
	}
	if strings.ToUpper(a.method) == "CONNECT" && a.target[0] != '/' {
		return a.target
	}
	if hosts := a.values("Host"); len(hosts) > 0 {
		return hosts[0]
	}
	return ""
}

func (g guardRules) knowsHost(authority string) bool {
	return slowHostAllowed(lowerAll(g.hosts), authority)
}

func lowerAll(in []string) (out []string) {
	for _, s := range in {
		out = append(out, strings.ToLower(strings.Trim(s, "[]")))
	}
	return out
}

// knowsOrigin: an application sends neither field. A browser says where the
// page comes from (RFC 6454 §7), or that nobody else had a hand in it.
func (g guardRules) knowsOrigin(a attempt) bool {
	listed := func(origin string) bool {
		for _, o := range g.origins {
			if o == origin && o != "null" {
				return true
			}
		}
		return false
	}
	if origins := a.values("Origin"); len(origins) > 0 {
		return len(origins) == 1 && listed(origins[0])
	}
	sites := a.values("Sec-Fetch-Site")
	switch {
	case len(sites) == 0:
		return true
	case len(sites) > 1:
		return false
	case sites[0] == "none":
		return true
	}
	return sites[0] == "same-origin" && listed("http://"+strings.TrimSuffix(strings.ToLower(a.authority()), ":80"))
}

// forwardingNames tell that a request comes from elsewhere.
var forwardingNames = regexp.MustCompile(`(?i)^(forwarded|x-forwarded-.*|x-real-ip|via)$`)

func (g guardRules) knowsCaller(a attempt) bool {
	forwarded := false
	for _, f := range a.fields {
		forwarded = forwarded || forwardingNames.MatchString(f[0]) || strings.EqualFold(f[0], g.clientField)
	}
	peer, err := netip.ParseAddrPort(a.peer)
	within := func(ip netip.Addr, list ...string) bool {
		for _, cidr := range list {
			if p, e := netip.ParsePrefix(cidr); e == nil && p.Contains(ip.Unmap().WithZone("")) {
				return true
			}
			if one, e := netip.ParseAddr(cidr); e == nil && one == ip.Unmap().WithZone("") {
				return true
			}
		}
		return false
	}
	in := func(list ...string) bool { return within(peer.Addr(), list...) }
	unix := strings.HasPrefix(a.peer, "@") || a.peer == ""
	client, told := g.toldClient(a)
	switch {
	case len(g.callers) > 0 && told:
		return within(client, g.callers...)
	case len(g.callers) > 0:
		return err == nil && in(g.callers...) || unix && !forwarded
	case len(g.keys) > 0:
		return true
	case forwarded:
		return false
	}
	return unix || err == nil && in(loopback4, "::1/128")
}

// toldClient is the first address in the field by which a trusted proxy tells
// the client: here only one on the Unix socket is.
func (g guardRules) toldClient(a attempt) (netip.Addr, bool) {
	if g.clientField == "" || a.peer != "@" {
		return netip.Addr{}, false
	}
	for _, part := range strings.Split(strings.Join(a.values(g.clientField), ","), ",") {
		if host, _, err := net.SplitHostPort(part); err == nil {
			part = host
		}
		address, _, _ := strings.Cut(strings.TrimSpace(part), "%")
		if ip, err := netip.ParseAddr(address); err == nil {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

func (g guardRules) knowsKey(a attempt) bool {
	for _, secret := range g.keys {
		for _, key := range a.values("X-API-Key") {
			if key == secret {
				return true
			}
		}
		for _, value := range a.values("Authorization") {
			scheme, encoded, _ := strings.Cut(value, " ")
			text, err := base64.StdEncoding.DecodeString(encoded)
			_, password, colon := strings.Cut(string(text), ":")
			if strings.EqualFold(scheme, "basic") && err == nil && colon && password == secret {
				return true
			}
		}
	}
	return false
}

// path is the target's, as it was sent: up to the query.
func (a attempt) path() string {
	target := a.target
	if m := absoluteTarget.FindString(target); m != "" {
		target = target[len(m):]
	}
	path, _, _ := strings.Cut(target, "?")
	return path
}

// twoReadings reports a path that two programs may read differently.
func twoReadings(path string) bool {
	if strings.Contains(path, "//") || strings.Contains(path, `\`) {
		return true
	}
	decoded := ""
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			n, err := strconv.ParseUint(path[i+1:i+3], 16, 8)
			if err != nil {
				return true
			}
			if n == '/' || n == '\\' || n == '%' {
				return true
			}
			c, i = byte(n), i+2
		}
		if c < ' ' || c == 0x7f {
			return true
		}
		decoded += string([]byte{c})
	}
	for segment := range strings.SplitSeq(decoded, "/") {
		name, _, _ := strings.Cut(segment, ";") // parameters, RFC 3986 §3.3
		if name == "." || name == ".." {
			return true
		}
	}
	return false
}

package caddymodule

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A site is a server of the http app, as far as it is about accounts.
type site struct {
	name    string
	listen  []string
	guards  []guarded
	portals []Portal
	proxies []proxied
}

// guarded is what a guard says of who may call.
type guarded struct {
	Callers    []string    `json:"callers"`
	CallerKeys []CallerKey `json:"caller_keys"`
}

// proxied is a reverse_proxy with our transport.
type proxied struct {
	Upstreams []struct {
		Dial string `json:"dial"`
	} `json:"upstreams"`
	Transport struct {
		Protocol  string                  `json:"protocol"`
		Account   string                  `json:"account"`
		Unguarded bool                    `json:"unguarded"`
		TLS       *reverseproxy.TLSConfig `json:"tls"`
		Proxy     json.RawMessage         `json:"network_proxy"`
		ProxyURL  string                  `json:"forward_proxy_url"`
	} `json:"transport"`
}

// sitesOf finds our handlers in the http app, however deep they are.
func sitesOf(config json.RawMessage) (sites []site) {
	var app struct {
		Servers map[string]map[string]any `json:"servers"`
	}
	if json.Unmarshal(config, &app) != nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(app.Servers)) {
		s := site{name: name}
		server := app.Servers[name]
		if list, ok := server["listen"].([]any); ok {
			for _, l := range list {
				s.listen = append(s.listen, fmt.Sprint(l))
			}
		}
		each(server, s.handler)
		if len(s.guards)+len(s.portals)+len(s.proxies) > 0 {
			sites = append(sites, s)
		}
	}
	return sites
}

// each calls f for every object in a configuration, however deep it is.
func each(v any, f func(map[string]any)) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			each(e, f)
		}
	case map[string]any:
		f(v)
		for _, key := range slices.Sorted(maps.Keys(v)) {
			each(v[key], f)
		}
	}
}

// handler keeps an object that is a handler of ours.
func (s *site) handler(object map[string]any) {
	text, err := json.Marshal(object)
	if err != nil {
		return
	}
	switch object["handler"] {
	case "bearer_guard":
		var g guarded
		if json.Unmarshal(text, &g) == nil {
			s.guards = append(s.guards, g)
		}
	case "bearer_portal":
		var p Portal
		if json.Unmarshal(text, &p) == nil {
			s.portals = append(s.portals, p)
		}
	case "reverse_proxy":
		var p proxied
		if json.Unmarshal(text, &p) == nil && p.Transport.Protocol == "bearer" {
			s.proxies = append(s.proxies, p)
		}
	}
}

// listeners looks at who can reach the sites, and what lets them in.
func (x *examination) listeners() {
	if len(x.sites) == 0 {
		x.add(oauth.LevelWarn, "", "listener", "no site uses an account", "write a site with `bearer_proxy <account> <API>`")
	}
	for _, s := range x.sites {
		for _, l := range s.listen {
			at, err := caddy.ParseNetworkAddress(l)
			x.found = append(x.found, s.exposure(l, err == nil && localListener(at))...)
		}
	}
}

// exposure judges one listener of a site; here: only this machine reaches it.
func (s site) exposure(listen string, here bool) (found []finding) {
	who := "this machine alone"
	if !here {
		who = "other machines"
	}
	what := fmt.Sprintf("the site at %s can be reached by %s", listen, who)
	lets := map[string]bool{}
	open := false
	for _, g := range s.guards {
		text, everybody := g.letsIn()
		lets[text] = true
		open = open || everybody
	}
	if len(lets) > 0 {
		what += "; accounts serve " + strings.Join(slices.Sorted(maps.Keys(lets)), ", or ")
	}
	switch {
	case open && !here:
		found = append(found, finding{oauth.LevelWarn, "", "listener", what, "whoever reaches it is the account; name the applications: callers <address or CIDR>..., or caller_key <name> <secret>"})
	default:
		found = append(found, finding{oauth.LevelOK, "", "listener", what, ""})
	}
	for _, p := range s.proxies {
		if p.Transport.Unguarded {
			found = append(found, finding{oauth.LevelWarn, p.Transport.Account, "listener", "the site at " + listen + " is unguarded: web pages and other users of this machine can use the account, too",
				"put bearer_guard in front of the reverse_proxy and remove unguarded; or use bearer_proxy"})
		}
	}
	for _, p := range s.portals {
		if p.Unprotected {
			everybody := "everybody who reaches "
			if here {
				everybody = "every user and program of this machine that reaches "
			}
			found = append(found, finding{oauth.LevelWarn, "", "listener", everybody + listen + " may use the portal: log accounts in and out",
				"put basic_auth or forward_auth in front of it, and write user {http.auth.user.id} in place of unprotected"})
		}
	}
	return found
}

// letsIn says in words whose requests the guard lets pass, and whether that is
// everybody.
func (g guarded) letsIn() (text string, everybody bool) {
	var names []string
	for _, k := range g.CallerKeys {
		names = append(names, k.Name)
	}
	switch {
	case len(g.Callers) == 0:
		text = "callers on this machine"
		if len(names) > 0 {
			text = "callers"
		}
	default:
		text = "callers at " + strings.Join(g.Callers, " ")
		everybody = len(names) == 0 && slices.ContainsFunc(g.Callers, func(c string) bool {
			p, err := netip.ParsePrefix(c)
			return err == nil && p.Bits() < 8
		})
	}
	if len(names) > 0 {
		text += " with the key of " + strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ", ")
	}
	return text, everybody
}

// upstreams looks whether the APIs of an account are there, by connecting to
// them. No request is sent.
func (x *examination) upstreams(ctx context.Context, a *oauth.Account) (found []finding) {
	seen := map[string]bool{}
	for _, s := range x.sites {
		for _, p := range s.proxies {
			for _, u := range p.Upstreams {
				switch {
				case p.Transport.Account != a.Name || seen[u.Dial]:
					continue
				case p.Transport.Proxy != nil || p.Transport.ProxyURL != "":
					found = append(found, finding{oauth.LevelOK, a.Name, "upstream", "the API at " + u.Dial + " is reached through a proxy, and not looked at", ""})
				default:
					found = append(found, connect(ctx, a.Name, u.Dial, p.Transport.TLS)...)
				}
				seen[u.Dial] = true
			}
		}
	}
	if len(seen) > 0 {
		return found
	}
	for _, u := range a.Upstreams { // no site, or one that knows its upstream per request only
		var secure *reverseproxy.TLSConfig
		host, _, err := net.SplitHostPort(u)
		if err != nil {
			host = strings.Trim(u, "[]")
		}
		if !loopback(host) {
			secure = new(reverseproxy.TLSConfig) // on this machine, it may be either
		}
		for _, f := range connect(ctx, a.Name, u, secure) {
			if f.Level == oauth.LevelFail { // it may be asked in another way
				f.Level = oauth.LevelWarn
			}
			found = append(found, f)
		}
	}
	return found
}

// connect connects to an API as the transport does; over TLS unless that is
// nil.
func connect(ctx context.Context, account, dial string, secure *reverseproxy.TLSConfig) []finding {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if strings.Contains(dial, "{") {
		return []finding{{oauth.LevelOK, account, "upstream", "the upstream " + dial + " is known per request only, and not looked at", ""}}
	}
	network, address := "tcp", dial
	if at, err := caddy.ParseNetworkAddress(dial); err == nil && at.IsUnixNetwork() {
		network, address, secure = at.Network, at.Host, nil
	} else if _, _, err := net.SplitHostPort(dial); err != nil {
		address = net.JoinHostPort(strings.Trim(dial, "[]"), "443")
	}
	state, err := handshake(ctx, network, address, secure)
	if err != nil {
		fix := oauth.Advice(err, "transport http { tls_trust_pool file /path/to/ca.pem }", "transport http { network_proxy url http://proxy.example.com:3128 }")
		return []finding{{oauth.LevelFail, account, "upstream", "the API at " + dial + ": " + oauth.WireError(err), fix}}
	}
	found := []finding{{oauth.LevelOK, account, "upstream", "the API at " + dial + " can be connected to", ""}}
	if state != nil {
		f := oauth.CheckCertificate(address, state, time.Now())
		found = append(found, finding{f.Level, account, f.Check, f.What, f.Fix})
	}
	return found
}

func handshake(ctx context.Context, network, address string, secure *reverseproxy.TLSConfig) (*tls.ConnectionState, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if secure == nil {
		return nil, nil
	}
	own, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer cancel()
	config, err := secure.MakeTLSClientConfig(own)
	if err != nil {
		return nil, fmt.Errorf("reading the TLS options: %w", err)
	}
	if config == nil { // all as usual
		config = new(tls.Config)
	}
	if config.ServerName == "" || strings.Contains(config.ServerName, "{") {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	client := tls.Client(conn, config)
	if err := client.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	state := client.ConnectionState()
	return &state, nil
}

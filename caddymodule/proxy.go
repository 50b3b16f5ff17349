package caddymodule

import (
	"encoding/json"
	"strings"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// parseProxy reads the directive bearer_proxy: a guard, and a reverse_proxy
// with the transport bearer behind it.
//
//	bearer_proxy [<matcher>] <account>[/<user>] [<upstreams...>] {
//		callers               <cidr...|private_ranges>
//		hosts                 <name...>
//		origins               <origin...>
//		caller_key            <name> <secret>
//		user_from_header      <field>
//		strict_paths
//		allow_upgrade
//		pass_headers          <name...>
//		pass_response_headers <name...>
//		max_waiters           <n>
//		audit                 on|off
//		replay_body           <size>
//		# and every subdirective of reverse_proxy; the options of a
//		# `transport http { … }` go to our transport
//	}
//
// Without upstreams, the API of the account's provider is meant.
func parseProxy(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // bearer_proxy
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		h.Next()
		return nil, h.WrapErr(err)
	}
	h.Next() // bearer_proxy again: the matcher's extraction has reset it
	segment := h.NextSegment()
	here := caddyfile.NewDispenser(segment[:1]) // for errors of the whole
	here.Next()
	p, err := splitProxy(segment, here)
	if err != nil {
		return nil, err
	}
	if !p.upstreams {
		upstream, err := defaultUpstream(h, p.transport.Account)
		if err != nil {
			return nil, here.Errf("bearer_proxy %s: %v", p.transport.Account, err)
		}
		p.head = append(p.head, sameLine(segment[0], upstream))
	}
	proxy, err := p.reverseProxy(h)
	if err != nil {
		return nil, err
	}
	route := caddyhttp.Route{HandlersRaw: []json.RawMessage{
		caddyconfig.JSONModuleObject(p.guard, "handler", "bearer_guard", nil),
		caddyconfig.JSONModuleObject(proxy, "handler", "reverse_proxy", nil),
	}}
	if matcher != nil {
		route.MatcherSetsRaw = []caddy.ModuleMap{matcher}
	}
	return []httpcaddyfile.ConfigValue{{Class: "route", Value: route}}, nil
}

// proxyParts are the tokens of bearer_proxy by whose they are.
type proxyParts struct {
	guard     *Guard
	transport *Transport
	head      []caddyfile.Token // reverse_proxy and its upstreams
	block     []caddyfile.Token // its block, with the braces; may be empty
	upstreams bool              // some are given
}

// splitProxy tells our options from those of reverse_proxy. Each subdirective
// is taken as a whole, so that an argument of one is never read as another.
func splitProxy(segment []caddyfile.Token, here *caddyfile.Dispenser) (proxyParts, error) {
	p := proxyParts{guard: new(Guard), transport: new(Transport)}
	p.head = []caddyfile.Token{sameLine(segment[0], "reverse_proxy")}
	d := caddyfile.NewDispenser(segment)
	d.Next() // bearer_proxy
	args := d.RemainingArgsAsTokens()
	if len(args) == 0 || args[0].Text == "" {
		return p, here.Errf("bearer_proxy: which account? write `bearer_proxy <account>`")
	}
	account, user, err := accountArg(args[0].Text)
	if err != nil {
		return p, here.Errf("bearer_proxy %s: %v", args[0].Text, err)
	}
	p.guard.Account, p.transport.Account = account, account
	p.guard.User, p.transport.User = user, user
	p.head = append(p.head, args[1:]...)
	p.upstreams = len(args) > 1
	if len(segment) > 1+len(args) {
		p.block = append(p.block, segment[1+len(args)])
	}
	if err := p.splitBlock(d); err != nil {
		return p, err
	}
	if len(p.block) > 0 {
		p.block = append(p.block, segment[len(segment)-1])
	}
	p.transport.UserFromHeader = p.guard.UserFromHeader
	p.transport.PassHeaders, p.transport.MaxWaiters = p.guard.PassHeaders, p.guard.MaxWaiters
	return p, nil
}

func (p *proxyParts) splitBlock(d *caddyfile.Dispenser) error {
	ours := p.guard.parsers()
	ours["replay_body"] = p.transport.parseReplayBody
	ours["pass_response_headers"] = passing(&p.transport.PassResponseHeaders, errorHeader)
	ours["transport"] = p.parseTransport
	seen := map[string]bool{}
	for d.NextBlock(0) {
		name := d.Val()
		parse, repeatable := ours[name+"..."]
		if !repeatable {
			parse = ours[name]
		}
		switch {
		case parse == nil:
			p.upstreams = p.upstreams || name == "to" || name == "dynamic"
			p.block = append(p.block, d.NextSegment()...)
			continue
		case seen[name] && !repeatable:
			return d.Errf("bearer_proxy: %s is there twice; remove one", name)
		}
		seen[name] = true
		if err := parse(d); err != nil {
			return err
		}
		if d.NextArg() {
			return d.ArgErr()
		}
	}
	return nil
}

// parseTransport reads `transport http { … }` on behalf of reverse_proxy.
func (p *proxyParts) parseTransport(d *caddyfile.Dispenser) error {
	line := *d
	segment := d.NextSegment()
	if len(segment) < 2 || segment[1].Text != "http" {
		return line.Errf("bearer_proxy has its own transport; of others, only `transport http` can be there, for its options")
	}
	p.block = append(p.block, segment...)
	return p.transport.parseCompression(segment[1:])
}

// accountArg reads <account>[/<user>]: names, or placeholders, parted at the
// first slash outside of braces.
func accountArg(text string) (account, user string, err error) {
	account = text
	braces := 0
	for i, c := range text {
		switch {
		case c == '{':
			braces++
		case c == '}':
			braces--
		case braces > 0 || user != "":
		case c == '/' && strings.HasPrefix(text, "unix/"), c == ':':
			return "", "", errText("the account comes before the upstreams")
		case c == '/' && (i == 0 || i == len(text)-1):
			return "", "", errText("write <account>/<user>, such as erp/{http.auth.user.id}")
		case c == '/':
			account, user = text[:i], text[i+1:]
		}
		if braces < 0 {
			break
		}
	}
	if braces != 0 {
		return "", "", errText("its braces don't match; write a placeholder such as {http.auth.user.id}")
	}
	return account, user, nil
}

// sameLine is a token of another text in the place of t, so that errors name
// the right line.
func sameLine(t caddyfile.Token, text string) caddyfile.Token {
	t.Text = text
	return t
}

// reverseProxy makes the reverse_proxy, and gives it our transport. That is
// done last: Caddy puts its own in for https upstreams.
func (p proxyParts) reverseProxy(h httpcaddyfile.Helper) (*reverseproxy.Handler, error) {
	proxy := new(reverseproxy.Handler)
	if err := proxy.UnmarshalCaddyfile(caddyfile.NewDispenser(append(p.head, p.block...))); err != nil {
		return nil, err
	}
	if err := proxy.FinalizeUnmarshalCaddyfile(h); err != nil {
		return nil, err
	}
	if proxy.TransportRaw != nil { // protocol http: parseTransport lets no other pass
		if err := json.Unmarshal(proxy.TransportRaw, &p.transport.HTTPTransport); err != nil {
			return nil, err
		}
	}
	proxy.TransportRaw = caddyconfig.JSONModuleObject(p.transport, "protocol", "bearer", nil)
	return proxy, nil
}

// defaultUpstream is the API of the account's provider.
func defaultUpstream(h httpcaddyfile.Helper, account string) (string, error) {
	const hint = "which API? write `bearer_proxy " + "<account> https://api.example.com`"
	if strings.Contains(account, "{") {
		return "", errText("the account is known only per request, so the API must be named: " + hint)
	}
	option, ok := h.Option(appName).(httpcaddyfile.App)
	if !ok {
		return "", errText("no account is configured; add the global option `bearer { account " + account + " { … } }`")
	}
	var app App
	if err := json.Unmarshal(option.Value, &app); err != nil {
		return "", err
	}
	c := app.Accounts[account]
	if c == nil {
		return "", errText("this account is not configured; add `account " + account + " { … }` to the global option bearer")
	}
	p, err := c.preset()
	if err != nil {
		return "", err
	}
	if p.Upstream == "" && p.Argument == oauth.BaseArgument {
		return "", errText("the base URL of the account's provider is a placeholder, so the API must be named: " + hint)
	}
	if p.Upstream == "" {
		return "", errText("the account has no provider that knows its API: " + hint)
	}
	return p.Upstream, nil
}

type errText string

func (e errText) Error() string { return string(e) }

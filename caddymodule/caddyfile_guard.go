package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// parsers of the guard's options, which bearer_proxy shares.
func (g *Guard) parsers() map[string]parser {
	return map[string]parser{
		"callers":          g.parseCallers,
		"hosts":            checked(words(&g.Hosts), g.checkHosts),
		"origins":          checked(words(&g.Origins), g.checkOrigins),
		"caller_key...":    g.parseCallerKey,
		"user_from_header": checked(word(&g.UserFromHeader), func() error { return checkUserField(g.UserFromHeader) }),
		"strict_paths":     toggle(&g.StrictPaths),
		"allow_upgrade":    toggle(&g.AllowUpgrade),
		"pass_headers":     passing(&g.PassHeaders, "Authorization"),
		"max_waiters":      count(&g.MaxWaiters),
		"audit":            onOff(&g.Audit),
	}
}

// passing reads names of header fields.
func passing(to *[]string, ours string) parser {
	return checked(words(to), func() error { return checkFields(*to, ours) })
}

func (g *Guard) parseCallers(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	for _, arg := range args {
		if arg == "private_ranges" {
			g.Callers = append(g.Callers, caddyhttp.PrivateRangesCIDR()...)
			continue
		}
		if _, err := caddyhttp.CIDRExpressionToPrefix(arg); err != nil {
			return d.Errf("callers %s: it must be an IP address, a CIDR or private_ranges", arg)
		}
		g.Callers = append(g.Callers, arg)
	}
	return nil
}

// parseGuard reads the directive:
//
//	bearer_guard [<matcher>] {
//		callers      <cidr...|private_ranges>
//		hosts        <name...>
//		origins      <origin...>
//		caller_key   <name> <secret>
//		strict_paths
//		allow_upgrade
//		pass_headers <name...>
//		audit        on|off
//	}
func parseGuard(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	g := new(Guard)
	h.Next() // bearer_guard
	if h.NextArg() {
		return nil, h.ArgErr()
	}
	options := g.parsers()
	delete(options, "user_from_header") // this form has no user,
	delete(options, "max_waiters")      // and waits for no token
	return g, block(h.Dispenser, "bearer_guard", options)
}

func (g *Guard) parseCallerKey(d *caddyfile.Dispenser) error {
	var k CallerKey
	if !d.AllArgs(&k.Name, &k.Secret) {
		return d.Err("caller_key: write `caller_key <name> {file./path/to/key}`")
	}
	if k.Secret == "" {
		return d.Errf("caller_key %s: the key is empty", k.Name)
	}
	g.CallerKeys = append(g.CallerKeys, k)
	return nil
}

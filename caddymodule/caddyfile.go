package caddymodule

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	caddy.RegisterModule(new(App))
	caddy.RegisterModule(new(BoltStore))
	caddy.RegisterModule(new(MemoryStore))
	caddy.RegisterModule(new(Transport))
	caddy.RegisterModule(new(Guard))
	caddy.RegisterModule(new(Portal))
	caddy.RegisterModule(new(Ready))
	caddy.RegisterModule(new(Webhook))
	caddy.RegisterModule(new(Admin))

	httpcaddyfile.RegisterGlobalOption(appName, parseApp)
	httpcaddyfile.RegisterHandlerDirective("bearer_guard", parseGuard)
	httpcaddyfile.RegisterDirectiveOrder("bearer_guard", httpcaddyfile.Before, "tracing")
	httpcaddyfile.RegisterHandlerDirective("bearer_ready", parseReady)
	httpcaddyfile.RegisterDirectiveOrder("bearer_ready", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterHandlerDirective("bearer_portal", parsePortal)
	httpcaddyfile.RegisterDirectiveOrder("bearer_portal", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterDirective("bearer_proxy", parseProxy)
	httpcaddyfile.RegisterDirectiveOrder("bearer_proxy", httpcaddyfile.Before, "reverse_proxy")
}

// A parser reads one subdirective; the dispenser is at its name.
type parser = func(*caddyfile.Dispenser) error

// block reads the block of a directive: each subdirective once, unless its
// name ends in "..." in parsers.
func block(d *caddyfile.Dispenser, of string, parsers map[string]parser) error {
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, repeatable := parsers[name+"..."]
		if !repeatable {
			parse = parsers[name]
		}
		switch {
		case name == "{":
			return d.Errf("%s: the option before takes no block", of)
		case parse == nil:
			known := slices.Sorted(maps.Keys(parsers))
			return d.Errf("%s: unknown option %s; there are %s", of, name, strings.ReplaceAll(strings.Join(known, ", "), "...", ""))
		case seen[name] && !repeatable:
			return d.Errf("%s: %s is there twice; remove one", of, name)
		}
		seen[name] = true
		if err := parse(d); err != nil {
			return err
		}
		if len(parsers) > 0 && d.NextArg() {
			return d.ArgErr()
		}
	}
	return nil
}

// word reads one argument.
func word(to *string) parser {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if !d.AllArgs(to) {
			return d.ArgErr()
		}
		if *to == "" {
			return d.Errf("%s: the value is empty", name)
		}
		return nil
	}
}

// words reads one argument or more.
func words(to *[]string) parser {
	return func(d *caddyfile.Dispenser) error {
		name, args := d.Val(), d.RemainingArgs()
		if len(args) == 0 {
			return d.ArgErr()
		}
		if slices.Contains(args, "") {
			return d.Errf("%s: a value is empty", name)
		}
		*to = append(*to, args...)
		return nil
	}
}

// checked reads an option and then checks what it was given, so that the error
// names its line. What holds placeholders is checked when they are filled in.
func checked(parse parser, check func() error) parser {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if err := parse(d); err != nil {
			return err
		}
		if err := check(); err != nil && strings.HasPrefix(err.Error(), name+" ") {
			return d.Err(err.Error())
		} else if err != nil {
			return d.Errf("%s: %v", name, err)
		}
		return nil
	}
}

// toggle reads an option without argument.
func toggle(to *bool) parser {
	return func(d *caddyfile.Dispenser) error {
		if d.NextArg() {
			return d.ArgErr()
		}
		*to = true
		return nil
	}
}

// duration reads a length of time above 0; d, w (week) and y (365 d) are units,
// too.
func duration(to *caddy.Duration) parser {
	return func(d *caddyfile.Dispenser) error {
		name, text := d.Val(), ""
		if !d.AllArgs(&text) {
			return d.ArgErr()
		}
		v, err := parseDuration(text)
		if err != nil || v <= 0 {
			return d.Errf("%s: %s is not a duration above 0, such as 10s, 24h, 30d or 3y", name, text)
		}
		*to = v
		return nil
	}
}

func parseDuration(text string) (caddy.Duration, error) {
	for unit, days := range map[string]int{"y": 365, "w": 7} {
		if n, ok := strings.CutSuffix(text, unit); ok {
			count, err := strconv.Atoi(n)
			if err != nil || count > 100 {
				return 0, strconv.ErrSyntax
			}
			text = strconv.Itoa(count*days) + "d"
		}
	}
	v, err := caddy.ParseDuration(text)
	return caddy.Duration(v), err
}

// onOff reads the word on or off.
func onOff(to **bool) parser {
	return func(d *caddyfile.Dispenser) error {
		name, text := d.Val(), ""
		if !d.AllArgs(&text) {
			return d.ArgErr()
		}
		if text != "on" && text != "off" {
			return d.Errf("%s %s: it must be on or off", name, text)
		}
		v := text == "on"
		*to = &v
		return nil
	}
}

// parseApp reads the global option:
//
//	bearer {
//		portal <url>
//		store bbolt|memory { … }
//		account <name> { … }
//	}
//
// It may be there several times, in imported files for instance.
func parseApp(d *caddyfile.Dispenser, existing any) (any, error) {
	app := new(App)
	if e, ok := existing.(httpcaddyfile.App); ok {
		if err := caddy.StrictUnmarshalJSON(e.Value, app); err != nil {
			return nil, err
		}
	}
	d.Next() // bearer
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	err := block(d, "bearer", map[string]parser{
		"portal":     app.parsePortal,
		"store":      app.parseStore,
		"account...": app.parseAccount,
	})
	if err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: appName, Value: caddyconfig.JSON(app, nil)}, nil
}

func (app *App) parsePortal(d *caddyfile.Dispenser) error {
	if app.Portal != "" {
		return d.Errf("bearer: portal is there twice; remove one")
	}
	return checked(word(&app.Portal), func() error {
		if !literal(app.Portal) {
			return nil
		}
		_, err := portalURL(app.Portal)
		return err
	})(d)
}

func (app *App) parseStore(d *caddyfile.Dispenser) error {
	if app.StoreRaw != nil {
		return d.Errf("bearer: store is there twice; remove one")
	}
	if !d.NextArg() {
		return d.ArgErr()
	}
	name := d.Val()
	if _, err := caddy.GetModule("bearer.stores." + name); err != nil {
		return d.Errf("store %s is not known; there are bbolt and memory, and what other modules bring", name)
	}
	m, err := caddyfile.UnmarshalModule(d, "bearer.stores."+name)
	if err != nil {
		return err
	}
	if _, ok := m.(StoreModule); !ok {
		return d.Errf("module bearer.stores.%s is not a store", name)
	}
	app.StoreRaw = caddyconfig.JSONModuleObject(m, "store", name, nil)
	return nil
}

// count reads a whole number above 0.
func count(to *int) parser {
	return func(d *caddyfile.Dispenser) error {
		name, text := d.Val(), ""
		if !d.AllArgs(&text) {
			return d.ArgErr()
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return d.Errf("%s %s: it must be a number above 0", name, text)
		}
		*to = n
		return nil
	}
}

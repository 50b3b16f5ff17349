package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

func (t *Transport) parseReplayBody(d *caddyfile.Dispenser) error {
	var text string
	if !d.AllArgs(&text) {
		return d.ArgErr()
	}
	size, err := humanize.ParseBytes(text)
	if err != nil || size > 1<<30 {
		return d.Errf("replay_body %s: it must be a size up to 1GiB, such as 64KiB; 0 turns replays off", text)
	}
	n := int64(size)
	t.ReplayBody = &n
	return nil
}

// UnmarshalCaddyfile reads the transport in its long form:
//
//	transport bearer <account>[/<user>] {
//		user_from_header      <field>
//		pass_headers          <name...>
//		pass_response_headers <name...>
//		max_waiters           <n>
//		replay_body           <size>
//		unguarded
//		# and every option of the transport http
//	}
func (t *Transport) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // bearer
	segment := d.NextSegment()
	d = caddyfile.NewDispenser(segment)
	d.Next()
	args := d.RemainingArgs()
	if len(args) == 0 || args[0] == "" {
		return d.Errf("transport bearer: which account? write `transport bearer <account>`")
	}
	if len(args) > 1 {
		return d.Errf("transport bearer takes one argument: <account> or <account>/<user>")
	}
	var err error
	if t.Account, t.User, err = accountArg(args[0]); err != nil {
		return d.Errf("transport bearer %s: %v", args[0], err)
	}
	rest := []caddyfile.Token{sameLine(segment[0], "http")}
	if len(segment) > 2 {
		rest = append(rest, segment[2]) // {
	}
	if err := t.parseCompression(segment); err != nil {
		return err
	}
	ours := map[string]parser{
		"replay_body":           t.parseReplayBody,
		"unguarded":             toggle(&t.Unguarded),
		"pass_headers":          passing(&t.PassHeaders, "Authorization"),
		"pass_response_headers": passing(&t.PassResponseHeaders, errorHeader),
		"max_waiters":           count(&t.MaxWaiters),
		"user_from_header":      checked(word(&t.UserFromHeader), func() error { return checkUserField(t.UserFromHeader) }),
	}
	seen := map[string]bool{}
	for d.NextBlock(0) {
		name := d.Val()
		switch {
		case ours[name] == nil:
			rest = append(rest, d.NextSegment()...)
		case seen[name]:
			err = d.Errf("transport bearer: %s is there twice; remove one", name)
		default:
			seen[name] = true
			err = ours[name](d)
		}
		if err != nil {
			return err
		}
	}
	if len(rest) == 2 { // no option of the transport http
		return nil
	}
	if len(rest) > 2 {
		rest = append(rest, segment[len(segment)-1]) // }
	}
	return t.HTTPTransport.UnmarshalCaddyfile(caddyfile.NewDispenser(rest))
}

// parseCompression reads the option that our default turns around: Caddy's own
// parser can turn compression off, but not on.
func (t *Transport) parseCompression(segment []caddyfile.Token) error {
	d := caddyfile.NewDispenser(segment)
	d.Next()
	d.RemainingArgs()
	for d.NextBlock(0) {
		option := caddyfile.NewDispenser(d.NextSegment())
		option.Next()
		if option.Val() != "compression" {
			continue
		}
		if err := onOff(&t.Compression)(option); err != nil {
			return err
		}
	}
	return nil
}

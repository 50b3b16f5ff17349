package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// This file is whose session a request uses.

// use notes that a handler uses an account, with sessions per user or without.
// One account has either the one or the others. Call it while provisioning.
func (app *App) use(account string, perUser bool) error {
	if account == "" {
		return nil
	}
	for other, before := range app.uses {
		if other != account && before != perUser && strings.Contains(other, "{") && strings.Contains(account, "{") {
			with, without := account, other
			if before {
				with, without = other, account
			}
			return fmt.Errorf("%s is used with /<user> and %s without, and both can be any account; name the accounts", with, without)
		}
	}
	if before, ok := app.uses[account]; ok && before != perUser {
		return fmt.Errorf("account %s is used with /<user> in one place and without in another; it has sessions of its users or one of its own, so use two accounts", account)
	}
	if app.uses == nil {
		app.uses = map[string]bool{}
	}
	app.uses[account] = perUser
	a := app.account(account)
	switch {
	case strings.Contains(account, "{"): // see App.Start
	case a == nil:
		return errors.New(notConfigured(account))
	case perUser && selfSufficient(a.Grant.Type()):
		return fmt.Errorf("account %s can't have sessions per user: grant %s signs in as one identity; leave /<user> out, or use grant authorization_code", account, a.Grant.Type())
	default:
		a.PerUser = perUser
	}
	return nil
}

// selfSufficient reports the grants that sign in as one identity, without the
// person.
func selfSufficient(grant string) bool { return grant == "password" || grant == "client_credentials" }

// spread makes accounts that only a placeholder names have sessions per user,
// if that is how the placeholder is used.
func (app *App) spread() {
	perUser := false
	for name, users := range app.uses {
		perUser = perUser || users && strings.Contains(name, "{")
	}
	for _, a := range app.lease.accounts {
		if _, named := app.uses[a.Name]; !named && perUser && !selfSufficient(a.Grant.Type()) {
			a.PerUser = true
		}
	}
}

// checkUserField refuses a field that can't name a user.
func checkUserField(name string) error {
	switch {
	case name == "":
		return nil
	case !validField.MatchString(name):
		return fmt.Errorf("%s: it must be the name of a header field, such as Remote-User", name)
	case strings.EqualFold(name, "Authorization"):
		return errors.New("the field Authorization holds a password or a token, not a user; with basic_auth the user is {http.auth.user.id}")
	}
	return nil
}

var (
	validField  = regexp.MustCompile("^[A-Za-z0-9-]+$")
	placeholder = regexp.MustCompile(`\{[^{}]*\}`)
)

// checkUser refuses a user that the proxy has not verified: anybody could be
// anybody. Caddy verifies {http.auth.user.*}; a client certificate, if the
// site demands one that is checked; a header field, if the operator says that
// something in front sets it.
func checkUser(ctx caddy.Context, user, field string) error {
	if err := checkUserField(field); err != nil {
		return fmt.Errorf("user_from_header %w", err)
	}
	found := placeholder.FindAllString(user, -1)
	switch {
	case strings.ContainsAny(placeholder.ReplaceAllString(user, ""), "{}"):
		return fmt.Errorf("the user %s: a brace is left over; write {http.auth.user.id}", user)
	case len(found) > 1: // "a/b" and "c" are not "a" and "b/c"
		return fmt.Errorf("the user %s: use one placeholder, whose value names one user only", user)
	case field != "" && (len(found) == 0 || !strings.EqualFold(found[0], "{http.request.header."+field+"}")):
		return fmt.Errorf("user_from_header %[1]s is there, but the user isn't that field; write {http.request.header.%[1]s}", field)
	case len(found) == 0:
		return nil
	}
	name := found[0][1 : len(found[0])-1]
	header, isHeader := strings.CutPrefix(name, "http.request.header.")
	switch {
	case field != "", strings.HasPrefix(name, "http.auth.user."):
		return nil
	case strings.HasPrefix(name, "http.request.tls.client."):
		return certificatesChecked(ctx)
	case isHeader:
		return fmt.Errorf("the user %s is what the caller writes; if forward_auth deletes and sets this field, add the line: user_from_header %s", found[0], header)
	}
	return fmt.Errorf("the user %s is not verified by the proxy; use {http.auth.user.id} after basic_auth, {http.request.tls.client.subject} of a checked client certificate, or user_from_header", found[0])
}

// certificatesChecked refuses a site that doesn't verify client certificates:
// their subjects are then what the caller likes.
func certificatesChecked(ctx caddy.Context) error {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return nil
	}
	checked := false
	for _, policy := range server.TLSConnPolicies {
		auth := policy.ClientAuthentication
		if auth == nil {
			continue // of another site: its callers have no certificate
		}
		if auth.Mode == "request" || auth.Mode == "require" {
			return errors.New("the user is of a client certificate, but the site takes any certificate; write `tls { client_auth { mode require_and_verify … } }`")
		}
		//lint:ignore SA1019 configurations may still have them
		if auth.CARaw == nil && len(auth.TrustedCACerts) == 0 && len(auth.TrustedCACertPEMFiles) == 0 {
			return errors.New("the user is of a client certificate, but nothing says whose certificates count; add `trust_pool file <ca.pem>` to client_auth")
		}
		checked = true
	}
	if !checked {
		return errors.New("the user is of a client certificate, but the site doesn't ask for one; add `tls { client_auth { mode require_and_verify … } }`")
	}
	return nil
}

// userOf resolves the user of a request. One that isn't known is empty.
func userOf(r *http.Request, user, field string) string {
	if field != "" && len(r.Header[textproto.CanonicalMIMEHeaderKey(field)]) > 1 {
		return "" // who set which?
	}
	if !strings.Contains(user, "{") {
		return user
	}
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	unknown := false
	text := placeholder.ReplaceAllStringFunc(user, func(p string) string {
		v, ok := repl.GetString(p[1 : len(p)-1])
		unknown = unknown || !ok || v == ""
		return v
	})
	if unknown {
		return ""
	}
	return text
}

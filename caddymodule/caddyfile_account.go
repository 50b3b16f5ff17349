package caddymodule

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func (app *App) parseAccount(d *caddyfile.Dispenser) error {
	var name string
	if !d.Args(&name) {
		return d.Errf("the account has no name; write `account <name> { … }`")
	}
	if strings.ContainsAny(name, "/{}") || name == "" {
		return d.Errf("account %s: a name has no slash and no braces", name)
	}
	if app.Accounts[name] != nil {
		return d.Errf("account %s is there twice; rename one", name)
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	c := new(Account)
	err := block(d, "account "+name, map[string]parser{
		"provider":         checked(c.parseProvider, func() error { _, err := c.preset(); return err }),
		"client_id":        word(&c.ClientID),
		"client_secret":    word(&c.ClientSecret),
		"client_auth":      c.parseClientAuth,
		"scope":            c.parseScope,
		"grant":            c.parseGrant,
		"token_endpoint":   checked(word(&c.TokenEndpoint), c.checkEndpoint),
		"token_param...":   checked(c.parseTokenParam, c.checkTokenParams),
		"tls":              c.parseTLS,
		"http_proxy":       word(&c.HTTPProxy),
		"upstream":         checked(words(&c.Upstreams), c.checkUpstreams),
		"refresh_ahead":    c.parseRefreshAhead,
		"token_timeout":    duration(&c.TokenTimeout),
		"request_timeout":  duration(&c.RequestTimeout),
		"keep_alive":       duration(&c.KeepAlive),
		"refresh_lifetime": duration(&c.RefreshLifetime),
		"default_lifetime": duration(&c.DefaultLifetime),
		"on_lost_reply":    checked(word(&c.OnLostReply), c.checkOnLostReply),
		"reject_status":    c.parseRejectStatus,
	}, later{
		"issuer":             "set token_endpoint",
		"authorize_endpoint": "there is no grant yet that uses it",
		"device_endpoint":    "there is no grant yet that uses it",
		"revoke_endpoint":    "tokens can't be revoked yet",
		"token_body":         "token requests are form-encoded",
	})
	if err != nil {
		return err
	}
	switch {
	case c.Grant == nil:
		return d.Errf("account %s has no grant; add `grant password { … }`", name)
	case c.OnLostReply == string(oauth.LostLogin) && !c.Grant.relogin():
		return d.Errf("account %s: %v", name, errLostLogin)
	}
	if err := c.checkClientAuth(); err != nil {
		return d.Errf("account %s: %v", name, err)
	}
	if app.Accounts == nil {
		app.Accounts = map[string]*Account{}
	}
	app.Accounts[name] = c
	return nil
}

func (c *Account) parseProvider(d *caddyfile.Dispenser) error {
	if !d.Args(&c.Provider) {
		return d.ArgErr()
	}
	switch c.Provider {
	case "aidbox", "webmethods", "oidc":
		return d.Errf("provider %s is not supported by this version; leave it out and set token_endpoint and upstream", c.Provider)
	}
	return nil
}

func (c *Account) parseClientAuth(d *caddyfile.Dispenser) error {
	if !d.Args(&c.ClientAuth) {
		return d.ArgErr()
	}
	switch c.ClientAuth {
	case "basic", "basic_raw", "post":
		return nil
	case "private_key_jwt", "tls", "none":
		return d.Errf("client_auth %s is not supported by this version; there are basic, basic_raw and post", c.ClientAuth)
	}
	return d.Errf("client_auth %s: it must be basic, basic_raw or post", c.ClientAuth)
}

func (c *Account) parseTLS(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	c.TLS = new(EndpointTLS)
	if err := block(d, "tls", map[string]parser{"ca": word(&c.TLS.CA)}, nil); err != nil {
		return err
	}
	if c.TLS.CA == "" {
		return d.Errf("tls needs a block with the line `ca <file>`")
	}
	return nil
}

func (c *Account) parseScope(d *caddyfile.Dispenser) error {
	var args []string
	if err := words(&args)(d); err != nil {
		return err
	}
	c.Scope = strings.Join(args, " ")
	return nil
}

func (c *Account) parseTokenParam(d *caddyfile.Dispenser) error {
	var name, value string
	if !d.AllArgs(&name, &value) || name == "" {
		return d.ArgErr()
	}
	if c.TokenParams == nil {
		c.TokenParams = url.Values{}
	}
	c.TokenParams.Add(name, value)
	return nil
}

func (c *Account) parseRefreshAhead(d *caddyfile.Dispenser) error {
	var text string
	if !d.AllArgs(&text) {
		return d.ArgErr()
	}
	number, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !percent || !(v > 0 && v <= 50) {
		return d.Errf("refresh_ahead %s: it must be a share of the lifetime, above 0%% and at most 50%%", text)
	}
	c.RefreshAhead = v / 100
	return nil
}

func (c *Account) parseRejectStatus(d *caddyfile.Dispenser) error {
	for d.NextArg() {
		status, err := strconv.Atoi(d.Val())
		if err != nil || status < 400 || status > 499 {
			return d.Errf("reject_status %s: it must be between 400 and 499", d.Val())
		}
		c.RejectStatus = append(c.RejectStatus, status)
	}
	if len(c.RejectStatus) == 0 {
		return d.ArgErr()
	}
	return nil
}

func (c *Account) parseGrant(d *caddyfile.Dispenser) error {
	g := new(Grant)
	if !d.Args(&g.Type) || d.NextArg() {
		return d.ArgErr()
	}
	c.Grant = g
	switch g.Type {
	case "password":
	case "client_credentials", "refresh_token":
		return nil
	case "authorization_code", "device_code":
		return d.Errf("grant %s is not supported by this version; there are %s", g.Type, grantTypes)
	default:
		return d.Errf("unknown grant %s; there are %s", g.Type, grantTypes)
	}
	err := block(d, "grant password", map[string]parser{
		"username": word(&g.Username),
		"password": word(&g.Password),
		"relogin":  onOff(&g.Relogin),
	}, later{"secure_code": "sign-ins are made with the password alone"})
	if err != nil {
		return err
	}
	if g.Username == "" || g.Password == "" {
		return d.Errf("grant password needs username and password, each on its own line")
	}
	return nil
}

package caddymodule

import (
	"net/url"
	"slices"
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
	if err := checkAccountName(name); err != nil {
		return d.Err(err.Error())
	}
	if app.Accounts[name] != nil {
		return d.Errf("account %s is there twice; rename one", name)
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	c := new(Account)
	err := block(d, "account "+name, map[string]parser{
		"provider":           checked(c.parseProvider, func() error { _, err := c.preset(); return err }),
		"client_id":          word(&c.ClientID),
		"client_secret":      word(&c.ClientSecret),
		"client_auth":        c.parseClientAuth,
		"scope":              joinedWords(&c.Scope),
		"grant":              c.parseGrant,
		"issuer":             word(&c.Issuer),
		"authorize_endpoint": checked(word(&c.AuthorizeEndpoint), checkEndpoint(&c.AuthorizeEndpoint)),
		"token_endpoint":     checked(word(&c.TokenEndpoint), checkEndpoint(&c.TokenEndpoint)),
		"revoke_endpoint":    checked(word(&c.RevokeEndpoint), checkEndpoint(&c.RevokeEndpoint)),
		"device_endpoint":    checked(word(&c.DeviceEndpoint), checkEndpoint(&c.DeviceEndpoint)),
		"token_body":         checked(word(&c.TokenBody), c.checkTokenBody),
		"token_param...":     checked(c.parseTokenParam, c.checkTokenParams),
		"tls":                c.parseTLS,
		"http_proxy":         word(&c.HTTPProxy),
		"upstream":           checked(words(&c.Upstreams), c.checkUpstreams),
		"refresh_ahead":      c.parseRefreshAhead,
		"token_timeout":      duration(&c.TokenTimeout),
		"request_timeout":    duration(&c.RequestTimeout),
		"keep_alive":         duration(&c.KeepAlive),
		"refresh_lifetime":   duration(&c.RefreshLifetime),
		"default_lifetime":   duration(&c.DefaultLifetime),
		"on_lost_reply":      checked(word(&c.OnLostReply), c.checkOnLostReply),
		"reject_status":      c.parseRejectStatus,
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
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 2 {
		return d.ArgErr()
	}
	if slices.Contains(args, "") {
		return d.Errf("provider: a value is empty")
	}
	c.Provider = args[0]
	if len(args) == 2 {
		c.ProviderURL = args[1]
	}
	return nil
}

func (c *Account) parseClientAuth(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	if slices.Contains(args, "") {
		return d.Errf("client_auth: a value is empty")
	}
	c.ClientAuth, args = args[0], args[1:]
	switch auth := oauth.ClientAuth(c.ClientAuth); {
	case !slices.Contains(oauth.AllClientAuths, auth):
		return d.Errf("client_auth %s: it must be one of %s", auth, joined(oauth.AllClientAuths))
	case auth == oauth.AuthPrivateKeyJWT && (len(args) == 1 || len(args) == 2):
		c.ClientKey = args[0]
		if len(args) == 2 {
			c.ClientKeyID = args[1]
		}
	case auth == oauth.AuthPrivateKeyJWT:
		return d.Errf("client_auth private_key_jwt needs its key; write `client_auth private_key_jwt <pem file> [<key id>]`")
	case auth == oauth.AuthTLS && len(args) == 2:
		c.ClientCertificate, c.ClientKey = args[0], args[1]
	case auth == oauth.AuthTLS:
		return d.Errf("client_auth tls needs a certificate and its key; write `client_auth tls <certificate file> <key file>`")
	case len(args) > 0:
		return d.Errf("client_auth %s takes no argument", auth)
	}
	return nil
}

func (c *Account) parseTLS(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	c.TLS = new(EndpointTLS)
	if err := block(d, "tls", map[string]parser{"ca": word(&c.TLS.CA)}); err != nil {
		return err
	}
	if c.TLS.CA == "" {
		return d.Errf("tls needs a block with the line `ca <file>`")
	}
	return nil
}

// joinedWords reads words that the protocol parts by spaces.
func joinedWords(to *string) parser {
	return func(d *caddyfile.Dispenser) error {
		var args []string
		if err := words(&args)(d); err != nil {
			return err
		}
		*to = strings.Join(args, " ")
		return nil
	}
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
	var options map[string]parser
	switch g.Type {
	case "password":
		options = map[string]parser{
			"username":    word(&g.Username),
			"password":    word(&g.Password),
			"relogin":     onOff(&g.Relogin),
			"secure_code": checked(word(&g.SecureCode), checkURI(&g.SecureCode)),
		}
	case "authorization_code":
		options = map[string]parser{
			"redirect_uri":      checked(word(&g.RedirectURI), checkURI(&g.RedirectURI)),
			"omit_redirect_uri": toggle(&g.OmitRedirectURI),
			"pkce":              checked(word(&g.PKCE), g.checkPKCE),
			"prompt":            joinedWords(&g.Prompt),
		}
	}
	if options != nil {
		if err := block(d, "grant "+g.Type, options); err != nil {
			return err
		}
	}
	if err := g.check(); err != nil {
		return d.Err(err.Error())
	}
	return nil
}

// checkURI says early what provision would say later.
func checkURI(text *string) func() error {
	return func() error {
		if !literal(*text) {
			return nil
		}
		return checkRedirectURI(*text)
	}
}

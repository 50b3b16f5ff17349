package caddymodule

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// grantTypes are those of the core, in the order of the README.
var grantTypes = []string{"password", "client_credentials", "authorization_code", "device_code", "refresh_token"}

// loopbackRedirect is where the command line listens if nothing else is
// configured: on any port (RFC 8252 §7.3).
const loopbackRedirect = "http://127.0.0.1/callback"

// provision checks the grant and makes of it what the core works with.
func (g *Grant) provision(p oauth.Provider, portal string, log *slog.Logger) (oauth.Grant, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	switch g.Type {
	case "password":
		return g.password(log)
	case "client_credentials":
		return oauth.ClientCredentials{}, nil
	case "device_code":
		return oauth.DeviceCode{}, nil
	case "refresh_token":
		return oauth.RefreshToken{}, nil
	}
	code := &oauth.AuthorizationCode{
		OmitRedirectURI: g.OmitRedirectURI,
		PKCE:            or(g.PKCE, preferredPKCE(p)) == "S256",
	}
	var err error
	if code.Prompt, err = resolveSome(g.Prompt); err != nil {
		return nil, fmt.Errorf("prompt: %w", err)
	}
	text := g.RedirectURI
	switch {
	case text == "" && portal == "":
		text = loopbackRedirect
	case text == "":
		text = portal + "/callback"
	}
	if code.RedirectURI, err = resolve(text); err == nil {
		err = checkRedirectURI(code.RedirectURI)
	}
	if err != nil {
		return nil, fmt.Errorf("redirect_uri: %w", err)
	}
	return code, nil
}

func preferredPKCE(p oauth.Provider) string {
	if p.NoPKCE {
		return "off"
	}
	return "S256"
}

// check refuses options that don't go together.
func (g *Grant) check() error {
	if g == nil || g.Type == "" {
		return errors.New("it has no grant; add `grant password { username …; password … }`, each on its line")
	}
	password := g.Username != "" || g.Password != "" || g.Relogin != nil || g.SecureCode != ""
	code := g.RedirectURI != "" || g.OmitRedirectURI || g.PKCE != "" || g.Prompt != ""
	switch {
	case !slices.Contains(grantTypes, g.Type):
		return fmt.Errorf("unknown grant %s; there are %s", g.Type, strings.Join(grantTypes, ", "))
	case password && g.Type != "password":
		return fmt.Errorf("grant %s takes no username, password, relogin and secure_code", g.Type)
	case code && g.Type != "authorization_code":
		return fmt.Errorf("grant %s takes no redirect_uri, omit_redirect_uri, pkce and prompt", g.Type)
	case g.Type == "password" && (g.Username == "" || g.Password == ""):
		return errors.New("grant password needs username and password, each on its own line")
	}
	return g.checkPKCE()
}

func (g *Grant) checkPKCE() error {
	if g.PKCE != "" && g.PKCE != "S256" && g.PKCE != "off" {
		return fmt.Errorf("pkce %s: it must be S256 or off", g.PKCE)
	}
	return nil
}

func (g *Grant) password(log *slog.Logger) (oauth.Grant, error) {
	p := &oauth.Password{Relogin: g.relogin()}
	var err error
	// A user's name is no secret: it may stand there, but may be in a file.
	if p.User = oauth.Fixed(g.Username); !literal(g.Username) {
		if p.User, err = secret("username", g.Username, log); err != nil {
			return nil, fmt.Errorf("username: %w", err)
		}
	}
	if p.Secret, err = secret("password", g.Password, log); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	if g.SecureCode == "" {
		return p, nil
	}
	if p.SecureCode, err = resolve(g.SecureCode); err == nil {
		err = checkRedirectURI(p.SecureCode)
	}
	if err != nil {
		return nil, fmt.Errorf("secure_code: %w", err)
	}
	return p, nil
}

// relogin reports whether the grant may sign in again by itself.
func (g *Grant) relogin() bool {
	return g.Type == "client_credentials" || g.Type == "password" && (g.Relogin == nil || *g.Relogin)
}

// checkRedirectURI refuses what no browser comes back to safely (RFC 6749
// §3.1.2, RFC 8252 §7.3).
func checkRedirectURI(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Fragment != "" || u.User != nil || strings.HasSuffix(text, "#"):
		return errors.New("it must be an absolute URL without user and fragment, such as https://proxy.example.com/bearer/callback")
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("the scheme %s is not supported; use https", u.Scheme)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("plain http is accepted on loopback only; use https")
	}
	return nil
}

// checkGrant refuses what the grant can't work with.
func checkGrant(a *oauth.Account, p oauth.Provider) error {
	c := &a.Client
	public := c.Auth == oauth.AuthNone
	switch g := a.Grant.(type) {
	case *oauth.AuthorizationCode:
		switch {
		case c.AuthorizeEndpoint == "" && !c.Discover:
			return errors.New("grant authorization_code needs authorize_endpoint, or a provider that has one")
		case public && !g.PKCE:
			return errors.New("pkce off: a public client (client_auth none) can't do without; remove the line")
		}
	case oauth.DeviceCode:
		if c.DeviceEndpoint == "" && !c.Discover {
			return errors.New("grant device_code needs device_endpoint, or a provider that has one")
		}
	case *oauth.Password:
		switch {
		case public && !p.PublicPassword:
			return errors.New("client_auth none: a public client may use the password grant at provider aidbox only; give it a client_secret")
		case g.SecureCode != "" && c.AuthorizeEndpoint == "":
			return errors.New("secure_code needs authorize_endpoint, or provider aidbox")
		}
	case oauth.ClientCredentials:
		if public {
			return errors.New("client_auth none: grant client_credentials is for clients with credentials (RFC 6749 §4.4)")
		}
	}
	return nil
}

// checkRedirectURIs refuses one redirect URI for several servers (RFC 9700
// §4.4.2): one of them could have the code of another brought to it. It is
// accepted where each server says in the callback who it is.
func checkRedirectURIs(accounts []*oauth.Account) error {
	first := map[string]*oauth.Account{}
	for _, a := range accounts {
		code, ok := a.Grant.(*oauth.AuthorizationCode)
		if !ok || code.RedirectURI == loopbackRedirect { // a port of its own each time
			continue
		}
		other := first[code.RedirectURI]
		if other == nil {
			first[code.RedirectURI] = a
			continue
		}
		if serverOf(a) == serverOf(other) {
			continue
		}
		for _, each := range []*oauth.Account{a, other} {
			c := &each.Client
			if c.NeedsIss = c.Discover; c.Issuer == "" && !c.PinIssuer {
				return fmt.Errorf("accounts %s and %s are of different servers and have one redirect_uri, %s, so that one server could be given the code of the other; "+
					"give each one of its own, or say by `issuer` what the callbacks of account %s name", other.Name, a.Name, code.RedirectURI, each.Name)
			}
		}
	}
	return nil
}

// serverOf names the server that an account's people log in at.
func serverOf(a *oauth.Account) string {
	if a.Client.Discover {
		return a.Client.Issuer
	}
	u, err := url.Parse(a.Client.AuthorizeEndpoint)
	if err != nil {
		return ""
	}
	return hostOf(u)
}

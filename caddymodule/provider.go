package caddymodule

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file fills in what a provider presets.

// preset returns the account's provider, with its endpoints as URLs as far as
// they are known when the file is read.
func (c *Account) preset() (oauth.Provider, error) {
	if c.Provider == "" {
		return oauth.Provider{ClientAuths: oauth.AllClientAuths}, nil
	}
	p, ok := oauth.ProviderNamed(c.Provider)
	if !ok {
		var names []string
		for _, p := range oauth.Providers {
			names = append(names, p.Name)
		}
		return p, fmt.Errorf("unknown provider %q; there are %s, or leave it out and set token_endpoint and upstream",
			c.Provider, strings.Join(names, ", "))
	}
	switch {
	case p.Argument == oauth.NoArgument && c.ProviderURL != "":
		return p, fmt.Errorf("provider %s takes no argument", p.Name)
	case p.Argument != oauth.NoArgument && c.ProviderURL == "":
		return p, fmt.Errorf("provider %s needs its %s; write `provider %s https://…`", p.Name, p.Argument, p.Name)
	case p.Argument == oauth.IssuerArgument && c.Issuer != "":
		return p, fmt.Errorf("the issuer of provider %s is its argument; remove the line issuer", p.Name)
	case p.Argument == oauth.NoArgument || !literal(c.ProviderURL):
		return p, nil
	}
	if _, err := endpoint(c.ProviderURL); err != nil || strings.ContainsAny(c.ProviderURL, "?#") {
		if err == nil {
			err = errors.New("it must be without query")
		}
		return p, fmt.Errorf("provider %s: the %s: %w", p.Name, p.Argument, err)
	}
	if p.Argument == oauth.BaseArgument {
		return under(p, c.ProviderURL)
	}
	return p, nil
}

// under sets the endpoints of a provider with a base URL.
func under(p oauth.Provider, base string) (oauth.Provider, error) {
	u, err := url.Parse(base)
	if err != nil {
		return p, err
	}
	base = strings.TrimRight(base, "/")
	p.AuthorizeEndpoint = base + p.AuthorizeEndpoint
	p.TokenEndpoint = base + p.TokenEndpoint
	p.RevokeEndpoint = base + p.RevokeEndpoint
	p.Upstream = u.Scheme + "://" + u.Host
	return p, nil
}

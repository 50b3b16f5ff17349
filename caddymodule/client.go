package caddymodule

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func (c *Account) provisionClient(cl *oauth.Client, p oauth.Provider, log *slog.Logger) (err error) {
	if cl.ID, err = resolve(c.ClientID); err != nil {
		return fmt.Errorf("client_id: %w", err)
	}
	if c.ClientSecret == "" {
		return errors.New("client_secret is missing")
	}
	if cl.Secret, err = secret("client_secret", c.ClientSecret, log); err != nil {
		return fmt.Errorf("client_secret: %w", err)
	}
	if err := c.checkClientAuth(); err != nil {
		return err
	}
	cl.Auth = oauth.ClientAuth(or(c.ClientAuth, string(p.ClientAuths[0])))
	if cl.TokenEndpoint, err = endpoint(or(c.TokenEndpoint, p.TokenEndpoint)); err != nil {
		return fmt.Errorf("token_endpoint: %w", err)
	}
	if err := c.checkTokenParams(); err != nil {
		return fmt.Errorf("token_param: %w", err)
	}
	cl.TokenParams = c.TokenParams
	cl.Transport, err = c.transport()
	return err
}

// transport is the way to the authorization server; it has nothing to do with
// the way to the API.
func (c *Account) transport() (http.RoundTripper, error) {
	var roots *x509.CertPool
	if c.TLS != nil {
		ca, err := resolve(c.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("tls ca: %w", err)
		}
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("tls ca: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls ca: %s holds no certificate in PEM form", ca)
		}
	}
	if c.HTTPProxy == "" {
		return oauth.NewTransport(roots, nil), nil
	}
	text, err := resolve(c.HTTPProxy)
	if err != nil {
		return nil, fmt.Errorf("http_proxy: %w", err)
	}
	proxy, err := url.Parse(text)
	if err != nil || proxy.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5"}, proxy.Scheme) {
		return nil, errors.New("http_proxy: it must be a URL such as http://proxy.example.com:3128; schemes are http, https and socks5")
	}
	return oauth.NewTransport(roots, proxy), nil
}

// checkClientAuth refuses a way that the provider doesn't take.
func (c *Account) checkClientAuth() error {
	p, err := c.preset()
	if err != nil || c.ClientAuth == "" || slices.Contains(p.ClientAuths, oauth.ClientAuth(c.ClientAuth)) {
		return err
	}
	return fmt.Errorf("client_auth %s: it must be one of %v", c.ClientAuth, p.ClientAuths)
}

// checkTokenParams refuses parameters that the grants set themselves.
func (c *Account) checkTokenParams() error {
	for _, name := range []string{"grant_type", "refresh_token", "username", "password", "client_id", "client_secret", "scope", "code"} {
		if c.TokenParams.Has(name) {
			return fmt.Errorf("the grant sets %s itself", name)
		}
	}
	return nil
}

// checkEndpoint says early what provision would say later.
func (c *Account) checkEndpoint() error {
	if !literal(c.TokenEndpoint) {
		return nil
	}
	_, err := endpoint(c.TokenEndpoint)
	return err
}

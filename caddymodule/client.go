package caddymodule

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func (c *Account) provisionClient(cl *oauth.Client, p oauth.Provider, log *slog.Logger) (err error) {
	if cl.ID, err = resolve(c.ClientID); err != nil {
		return fmt.Errorf("client_id: %w", err)
	}
	if err := c.checkClientAuth(); err != nil {
		return err
	}
	cl.Auth = c.clientAuth(p)
	if cl.Secret, err = c.clientSecret(cl, log); err != nil {
		return err
	}
	if err := c.provisionEndpoints(cl, p); err != nil {
		return err
	}
	if err := c.checkTokenParams(); err != nil {
		return fmt.Errorf("token_param: %w", err)
	}
	if err := c.checkTokenBody(); err != nil {
		return err
	}
	if cl.TokenParams, err = c.tokenParams(); err != nil {
		return fmt.Errorf("token_param: %w", err)
	}
	cl.JSONBody = c.TokenBody == "json"
	var certificate oauth.SecretFunc
	if cl.Auth == oauth.AuthTLS {
		certificate = cl.Secret
	}
	cl.Transport, err = c.transport(certificate)
	return err
}

// clientAuth is how the client authenticates.
func (c *Account) clientAuth(p oauth.Provider) oauth.ClientAuth {
	switch {
	case c.ClientAuth != "":
		return oauth.ClientAuth(c.ClientAuth)
	case c.TokenBody == "json" && slices.Contains(p.ClientAuths, oauth.AuthPost):
		return oauth.AuthPost
	}
	return p.ClientAuths[0]
}

// clientSecret is what the client proves itself with, see [oauth.Client].
func (c *Account) clientSecret(cl *oauth.Client, log *slog.Logger) (oauth.SecretFunc, error) {
	switch cl.Auth {
	case oauth.AuthNone:
		return nil, nil
	case oauth.AuthPrivateKeyJWT:
		key, err := pemSecret("client_key", c.ClientKey, log)
		if err != nil {
			return nil, fmt.Errorf("client_auth private_key_jwt: %w", err)
		}
		if cl.KeyID, err = resolveSome(c.ClientKeyID); err != nil {
			return nil, fmt.Errorf("client_auth private_key_jwt: the key id: %w", err)
		}
		if _, err := oauth.ReadSigningKey([]byte(key().Reveal()), cl.KeyID); err != nil {
			return nil, fmt.Errorf("client_auth private_key_jwt: %w", err)
		}
		return key, nil
	case oauth.AuthTLS:
		certificate, err := pemSecret("client_certificate", c.ClientCertificate, log)
		if err != nil {
			return nil, fmt.Errorf("client_auth tls: the certificate: %w", err)
		}
		key, err := pemSecret("client_key", c.ClientKey, log)
		if err != nil {
			return nil, fmt.Errorf("client_auth tls: the key: %w", err)
		}
		if _, err := tls.X509KeyPair([]byte(certificate().Reveal()), []byte(key().Reveal())); err != nil {
			return nil, fmt.Errorf("client_auth tls: %w", err)
		}
		return func() oauth.Secret { return oauth.NewSecret(certificate().Reveal() + "\n" + key().Reveal()) }, nil
	}
	secret, err := secret("client_secret", c.ClientSecret, log)
	if err != nil {
		return nil, fmt.Errorf("client_secret: %w", err)
	}
	return secret, nil
}

// provisionEndpoints sets what is configured, or else what the provider has.
func (c *Account) provisionEndpoints(cl *oauth.Client, p oauth.Provider) (err error) {
	cl.PinIssuer, cl.DeleteSession = p.PinIssuer, p.DeleteSession && c.RevokeEndpoint == ""
	if cl.Issuer, err = resolveSome(c.Issuer); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if p.Argument == oauth.IssuerArgument {
		cl.Discover = true
		if cl.Issuer, err = endpoint(c.ProviderURL); err != nil {
			return fmt.Errorf("issuer: %w", err)
		}
	}
	for _, e := range []struct {
		option, configured, preset string
		to                         *string
		needed                     bool
	}{
		{"token_endpoint", c.TokenEndpoint, p.TokenEndpoint, &cl.TokenEndpoint, !cl.Discover},
		{"authorize_endpoint", c.AuthorizeEndpoint, p.AuthorizeEndpoint, &cl.AuthorizeEndpoint, false},
		{"revoke_endpoint", c.RevokeEndpoint, p.RevokeEndpoint, &cl.RevokeEndpoint, false},
		{"device_endpoint", c.DeviceEndpoint, "", &cl.DeviceEndpoint, false},
	} {
		text := or(e.configured, e.preset)
		if text == "" && !e.needed {
			continue
		}
		if *e.to, err = endpoint(text); err != nil {
			return fmt.Errorf("%s: %w", e.option, err)
		}
	}
	return nil
}

// transport is the way to the authorization server; it has nothing to do with
// the way to the API.
func (c *Account) transport(certificate oauth.SecretFunc) (http.RoundTripper, error) {
	var roots *x509.CertPool
	if c.TLS != nil {
		ca, err := resolve(c.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("tls ca: %w", err)
		}
		pem, err := os.ReadFile(ca)
		if unread := (*fs.PathError)(nil); errors.As(err, &unread) && !literal(c.TLS.CA) { // it may hold a key
			err = fmt.Errorf("what the placeholder holds is not the name of a file that can be read: %w; name the file itself: tls { ca /path/to/ca.pem }", unread.Err)
		}
		if err != nil {
			return nil, fmt.Errorf("tls ca: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls ca: %s holds no certificate in PEM form", c.TLS.CA)
		}
	}
	if c.HTTPProxy == "" {
		return oauth.NewTransport(roots, nil, certificate), nil
	}
	text, err := resolve(c.HTTPProxy)
	if err != nil {
		return nil, fmt.Errorf("http_proxy: %w", err)
	}
	proxy, err := url.Parse(text)
	if err == nil && proxy.Scheme != "https" && !loopback(proxy.Hostname()) && strings.HasPrefix(c.anyPlain(), "http://") {
		return nil, fmt.Errorf("http_proxy: secrets for %s would go to it in clear; remove the proxy, or use https endpoints", c.anyPlain())
	}
	if err != nil || proxy.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5"}, proxy.Scheme) {
		return nil, errors.New("http_proxy: it must be a URL such as http://proxy.example.com:3128; schemes are http, https and socks5")
	}
	return oauth.NewTransport(roots, proxy, certificate), nil
}

// anyPlain is an endpoint without TLS, if there is one.
func (c *Account) anyPlain() string {
	for _, e := range []string{c.ProviderURL, c.TokenEndpoint, c.RevokeEndpoint, c.DeviceEndpoint} {
		if v, err := resolveSome(e); err == nil && strings.HasPrefix(v, "http://") {
			return v
		}
	}
	return ""
}

// checkClientAuth refuses a way that the provider doesn't take, and what
// doesn't belong to the way.
func (c *Account) checkClientAuth() error {
	p, err := c.preset()
	if err != nil {
		return err
	}
	auth := c.clientAuth(p)
	if !slices.Contains(p.ClientAuths, auth) {
		return fmt.Errorf("client_auth %s: provider %s takes %s", auth, or(p.Name, "none"), joined(p.ClientAuths))
	}
	needs := map[string]bool{
		"a client_secret":      auth == oauth.AuthBasic || auth == oauth.AuthBasicRaw || auth == oauth.AuthPost,
		"a client_key":         auth == oauth.AuthPrivateKeyJWT || auth == oauth.AuthTLS,
		"a client_certificate": auth == oauth.AuthTLS,
	}
	for _, has := range []struct{ name, value string }{
		{"a client_secret", c.ClientSecret}, {"a client_key", c.ClientKey}, {"a client_certificate", c.ClientCertificate},
	} {
		switch {
		case needs[has.name] && has.value == "" && has.name == "a client_secret":
			hint := ""
			if slices.Contains(p.ClientAuths, oauth.AuthNone) {
				hint = ", or `client_auth none` if the client is public"
			}
			return errors.New("client_secret is missing; add `client_secret {file./run/credentials/client_secret}`" + hint)
		case needs[has.name] && has.value == "":
			return fmt.Errorf("client_auth %s needs %s", auth, has.name)
		case !needs[has.name] && has.value != "":
			return fmt.Errorf("client_auth %s takes no %s; remove it", auth, strings.TrimPrefix(has.name, "a "))
		}
	}
	if c.ClientKeyID != "" && auth != oauth.AuthPrivateKeyJWT {
		return fmt.Errorf("client_auth %s takes no client_key_id; remove it", auth)
	}
	return nil
}

// tokenParams resolves the values of further parameters.
func (c *Account) tokenParams() (url.Values, error) {
	params := url.Values{}
	for name, values := range c.TokenParams {
		for _, v := range values {
			v, err := resolve(v)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			params.Add(name, v)
		}
	}
	return params, nil
}

func joined(auths []oauth.ClientAuth) string {
	var names []string
	for _, a := range auths {
		names = append(names, string(a))
	}
	return strings.Join(names, ", ")
}

func (c *Account) checkTokenBody() error {
	if c.TokenBody != "" && c.TokenBody != "form" && c.TokenBody != "json" {
		return fmt.Errorf("token_body %s: it must be form or json", c.TokenBody)
	}
	return nil
}

// checkTokenParams refuses parameters that the grants set themselves.
func (c *Account) checkTokenParams() error {
	for _, name := range []string{"grant_type", "refresh_token", "username", "password", "client_id", "client_secret", "scope", "code",
		"redirect_uri", "code_verifier", "device_code", "client_assertion", "client_assertion_type"} {
		if c.TokenParams.Has(name) {
			return fmt.Errorf("the grant sets %s itself", name)
		}
	}
	return nil
}

// checkEndpoint says early what provision would say later.
func checkEndpoint(text *string) func() error {
	return func() error {
		if !literal(*text) {
			return nil
		}
		_, err := endpoint(*text)
		return err
	}
}

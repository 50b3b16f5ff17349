package caddymodule

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file decides where secrets may go.

// endpoint checks the URL of an endpoint that secrets are sent to (RFC 6749
// §3.2).
func endpoint(text string) (string, error) {
	if text == "" {
		return "", errors.New("it is missing; set it, or a provider that has one")
	}
	text, err := resolve(text)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Fragment != "" || u.User != nil:
		return "", errors.New("it must be an absolute URL without user and fragment, such as https://login.example.com/oauth/token")
	case u.Scheme == "https":
	case u.Scheme != "http":
		return "", fmt.Errorf("the scheme %s is not supported; use https", u.Scheme)
	case !loopback(u.Hostname()):
		return "", errors.New("plain http is accepted on loopback only; use https")
	}
	return text, nil
}

// loopback reports whether a host is this machine by its very name.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// upstreams are the account's, or the provider's API, in the form that
// [allowed] compares with.
func (c *Account) upstreams(p oauth.Provider) ([]string, error) {
	list := c.Upstreams
	if len(list) == 0 && p.Upstream != "" {
		list = []string{p.Upstream}
	}
	if len(list) == 0 {
		return nil, errors.New("it has no upstream; name the hosts that its token may go to: upstream api.example.com")
	}
	var hosts []string
	for _, text := range list {
		host, err := upstream(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

// upstream brings a configured upstream into the form host, host:port or
// unix//path, in lower case.
func upstream(text string) (string, error) {
	if strings.HasPrefix(text, "unix/") {
		return text, nil
	}
	if strings.ContainsAny(text, "{}*") {
		return "", errors.New("placeholders and wildcards are not accepted; name each host")
	}
	if !strings.Contains(text, "://") {
		text = "//" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || strings.Contains(u.Hostname(), ":") != strings.HasPrefix(u.Host, "[") || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("it must be a host, host:port or URL without path")
	}
	port := u.Port()
	if port == "" && u.Scheme != "" {
		if port = schemePorts[u.Scheme]; port == "" {
			return "", fmt.Errorf("the scheme %s is not supported", u.Scheme)
		}
	}
	host := strings.ToLower(u.Hostname())
	if port == "" {
		return host, nil
	}
	return net.JoinHostPort(host, port), nil
}

var schemePorts = map[string]string{"https": "443", "http": "80", "h2c": "80"}

// allowed reports whether an account's token may go to the address that is
// dialled.
func allowed(upstreams []string, dial string, tls bool) bool {
	if slices.Contains(upstreams, dial) {
		return true // as a rule, without allocation
	}
	dial = strings.ToLower(dial)
	host, port, err := net.SplitHostPort(dial)
	if err != nil {
		return slices.Contains(upstreams, dial)
	}
	own := schemePorts["http"]
	if tls {
		own = schemePorts["https"]
	}
	return slices.Contains(upstreams, net.JoinHostPort(host, port)) || port == own && slices.Contains(upstreams, host)
}

// plainUpstream refuses an upstream beyond this machine that a token would go
// to in clear, or to whoever answers.
func plainUpstream(dial string, tls, unverified bool) error {
	if tls && !unverified || strings.HasPrefix(dial, "unix/") {
		return nil
	}
	host, _, err := net.SplitHostPort(dial)
	if err != nil {
		host = dial
	}
	switch {
	case loopback(host):
		return nil
	case tls:
		return fmt.Errorf("the certificate of %s is not checked, so that the token would go to whoever answers; use tls_trust_pool instead of tls_insecure_skip_verify", dial)
	}
	return fmt.Errorf("the token would go to %s in clear; use https:// (in JSON: \"tls\": {} in the transport)", dial)
}

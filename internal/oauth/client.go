package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
)

// NewTransport returns a transport for token requests: a new connection for
// each (a stale one is the commonest source of unknown outcomes), TLS 1.2 at
// least, no decompression. The certificate is checked against roots, or the
// system's authorities if that is nil; the way is direct unless proxy is given,
// whatever the environment says. With a certificate, PEM of the chain and its
// key, the client shows it (RFC 8705); it is read anew for each connection.
func NewTransport(roots *x509.CertPool, proxy *url.URL, certificate SecretFunc) *http.Transport {
	dialer.reserve()
	if roots == nil {
		// The system's are read once in the life of a process. If there is no
		// file descriptor for it at that time, none is trusted for ever.
		_, _ = x509.SystemCertPool()
	}
	t := &http.Transport{
		DialContext:            counted(dialer.DialContext),
		TLSClientConfig:        &tls.Config{RootCAs: roots},
		TLSHandshakeTimeout:    10 * time.Second,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxAnswer,
	}
	if proxy != nil {
		t.Proxy = http.ProxyURL(proxy)
	}
	if certificate != nil {
		t.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pem := []byte(certificate().Reveal())
			c, err := tls.X509KeyPair(pem, pem)
			return &c, err
		}
	}
	return t
}

// refresh spends the refresh token on new tokens (RFC 6749 §6).
func (c *Client) refresh(ctx context.Context, token Secret, scope string) Answer {
	failpoint.Hit("refresh-begun")
	params := url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {token.Reveal()},
	}
	if scope != "" {
		params.Set("scope", scope)
	}
	return c.request(ctx, params)
}

// request makes exactly one token request (RFC 6749 §3.2).
func (c *Client) request(ctx context.Context, params url.Values) Answer {
	maps.Copy(params, c.TokenParams)
	e, err := c.send(ctx, c.TokenEndpoint, params, c.JSONBody)
	if err != nil {
		return Answer{Outcome: Away, Detail: err.Error()}
	}
	failpoint.Hit("exchange-done")
	return e.answer()
}

// send makes exactly one HTTP request to an endpoint where the client
// authenticates, with a form or a JSON object. x/oauth2 encodes it; what came back is read by the exchange
// under it, because x/oauth2 throws away answers, refresh token included, that
// we must keep.
func (c *Client) send(ctx context.Context, endpoint string, params url.Values, json bool) (*exchange, error) {
	e := &exchange{client: c, params: params, json: json}
	config := clientcredentials.Config{
		ClientID:       c.ID,
		TokenURL:       endpoint,
		EndpointParams: params,
		AuthStyle:      oauth2.AuthStyleInParams,
	}
	switch c.Auth {
	case AuthBasic, AuthBasicRaw:
		config.AuthStyle, config.ClientSecret = oauth2.AuthStyleInHeader, c.secret().Reveal()
	case AuthPost:
		config.ClientSecret = c.secret().Reveal()
	case AuthPrivateKeyJWT:
		assertion, err := c.assertion()
		if err != nil {
			return nil, err
		}
		params.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		params.Set("client_assertion", assertion.Reveal())
	}
	if !params.Has("grant_type") {
		params["grant_type"] = nil // else x/oauth2 adds one
	}
	// The error says less than the exchange knows, and may quote the answer.
	_, _ = config.Token(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{
		Transport:     e,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}))
	return e, nil
}

// assertion is what the client authenticates with by its private key, made
// anew for each request.
func (c *Client) assertion() (Secret, error) {
	key, err := ReadSigningKey([]byte(c.secret().Reveal()), c.KeyID)
	if err != nil {
		return Secret{}, fmt.Errorf("reading the key of client_auth private_key_jwt: %w", err)
	}
	audience := c.Issuer
	if audience == "" {
		audience = c.TokenEndpoint
	}
	return key.assertion(c.ID, audience, time.Now())
}

const userAgent = "caddy-bearer"

func (c *Client) secret() Secret {
	if c.Secret == nil {
		return Secret{}
	}
	return c.Secret()
}

// newVerifier returns a code verifier, 256 random bits as 43 characters (RFC
// 7636 §4.1), and its S256 challenge. A verifier is fit for a state, too.
func newVerifier() (verifier Secret, challenge string) {
	v := oauth2.GenerateVerifier()
	return NewSecret(v), oauth2.S256ChallengeFromVerifier(v)
}

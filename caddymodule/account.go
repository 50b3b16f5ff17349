package caddymodule

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Account is one identity that the server acts as: a client, a grant, a scope
// and a name. Values may hold global placeholders such as `{env.NAME}` and
// `{file./run/credentials/name}`.
type Account struct {
	// Preset of an authorization server: `pagero`, `pagero_legacy`, `aidbox`,
	// `webmethods` or `oidc`. What it sets, the other options override. Default:
	// none; then token_endpoint and upstreams are required.
	Provider string `json:"provider,omitempty"`

	// What the preset needs to be told: the base URL of `aidbox` and
	// `webmethods`, the issuer of `oidc`.
	ProviderURL string `json:"provider_url,omitempty"`

	// Identifier of the client at the authorization server (RFC 6749 §2.2).
	ClientID string `json:"client_id,omitempty"`

	// Secret of the client. It is read again before each token request.
	ClientSecret string `json:"client_secret,omitempty"`

	// How the client authenticates: `basic` (HTTP Basic, form-encoded first,
	// RFC 6749 §2.3.1), `basic_raw` (HTTP Basic of the plain values), `post`
	// (in the body), `private_key_jwt` (an assertion signed with client_key,
	// RFC 7523), `tls` (client_certificate, RFC 8705) or `none` (a public
	// client). Default: that of the provider, or `basic`; with token_body json,
	// `post`.
	ClientAuth string `json:"client_auth,omitempty"`

	// Private key in PEM form, as file or text: of `private_key_jwt` (RSA:
	// RS256, P-256: ES256, P-384 and P-521 likewise, Ed25519: EdDSA) or of the certificate of `tls`. It
	// is read again before each token request.
	ClientKey string `json:"client_key,omitempty"`

	// Identifier of client_key, for the header of assertions (RFC 7515 §4.1.4).
	ClientKeyID string `json:"client_key_id,omitempty"`

	// Certificate of `tls` in PEM form, as file or text, with its chain.
	ClientCertificate string `json:"client_certificate,omitempty"`

	// Scope to ask for (RFC 6749 §3.3), values separated by spaces.
	Scope string `json:"scope,omitempty"`

	// How the account gets its first tokens.
	Grant *Grant `json:"grant,omitempty"`

	// The `iss` that every callback of a login must have (RFC 9207). Default:
	// of `oidc` its issuer; of `pagero` what the first login brings; otherwise a
	// callback with an `iss` is refused.
	Issuer string `json:"issuer,omitempty"`

	// URL of the authorization endpoint, where people sign in (RFC 6749 §3.1).
	// Plain http is accepted on loopback only, as for every endpoint.
	AuthorizeEndpoint string `json:"authorize_endpoint,omitempty"`

	// URL of the token endpoint (RFC 6749 §3.2).
	TokenEndpoint string `json:"token_endpoint,omitempty"`

	// URL of the revocation endpoint (RFC 7009 §2).
	RevokeEndpoint string `json:"revoke_endpoint,omitempty"`

	// URL of the device authorization endpoint (RFC 8628 §3.1).
	DeviceEndpoint string `json:"device_endpoint,omitempty"`

	// Form of token requests: `form`, or `json` for servers that want an
	// object. Default: `form`.
	TokenBody string `json:"token_body,omitempty"`

	// Further parameters of every token request, for instance `audience` or
	// `resource`.
	TokenParams url.Values `json:"token_params,omitempty"`

	// How the token endpoint's certificate is checked. Default: against the
	// system's authorities.
	TLS *EndpointTLS `json:"tls,omitempty"`

	// Proxy on the way to the token endpoint, as URL; schemes are http, https
	// and socks5. The environment's (HTTPS_PROXY) is never used. Default: none.
	HTTPProxy string `json:"http_proxy,omitempty"`

	// The only hosts that this account's token may ever go to, as `host`,
	// `host:port` or URL. Without a port, the scheme's own is meant. Default:
	// the provider's API.
	Upstreams []string `json:"upstreams,omitempty"`

	// The share of a token's lifetime, from above 0 to 0.5, before whose end
	// the next one is fetched, but at most 60 s. Default: 0.2.
	RefreshAhead float64 `json:"refresh_ahead,omitempty"`

	// How long a caller waits for a token. Default: 10s.
	TokenTimeout caddy.Duration `json:"token_timeout,omitempty"`

	// How long one token request may take. A caller who doesn't wait so long
	// doesn't end it. Default: 60s.
	RequestTimeout caddy.Duration `json:"request_timeout,omitempty"`

	// How often an idle account uses its refresh token, so that it doesn't age
	// out. Default: 24h.
	KeepAlive caddy.Duration `json:"keep_alive,omitempty"`

	// How long a refresh token lives. Default: as the provider says, or unknown.
	RefreshLifetime caddy.Duration `json:"refresh_lifetime,omitempty"`

	// How long an access token lives whose answer doesn't tell. Default: 1h.
	DefaultLifetime caddy.Duration `json:"default_lifetime,omitempty"`

	// What follows a refresh whose answer was lost, so that the one-time
	// refresh token may have been spent: `replay` it (at once, after 1 s, after
	// 5 s, then with growing pauses), `login` again by the password, or `stop`
	// and wait for a person. Default: `replay`.
	OnLostReply string `json:"on_lost_reply,omitempty"`

	// The API's answers that mean "this token is no good". Default: 401.
	RejectStatus []int `json:"reject_status,omitempty"`
}

// EndpointTLS is how the token endpoint's certificate is checked.
type EndpointTLS struct {
	// File of certificates in PEM form, the only authorities that are accepted.
	CA string `json:"ca,omitempty"`
}

// Grant is how an account gets its first tokens (RFC 6749 §1.3).
type Grant struct {
	// The grant type: `password`, `client_credentials` (the client acts for
	// itself), `authorization_code` (a person signs in by a browser, on the
	// portal or with `caddy bearer login`), `device_code` (a person enters a
	// code, RFC 8628), or `refresh_token` (the first refresh token comes from
	// elsewhere, by `caddy bearer import`).
	Type string `json:"type,omitempty"`

	// Name of the resource owner (RFC 6749 §4.3).
	Username string `json:"username,omitempty"`

	// Password of the resource owner. It is read again before each use.
	Password string `json:"password,omitempty"`

	// Whether the password may be used again when the refresh token is lost or
	// dead. If not, it is used once. Default: true.
	Relogin *bool `json:"relogin,omitempty"`

	// Redirect URI of Aidbox's secure code: before each sign-in by password, a
	// code is fetched, from the fragment of a redirect to this URI.
	SecureCode string `json:"secure_code,omitempty"`

	// Where the browser comes back to after a sign-in, byte for byte as it is
	// registered. On the portal's site that is any path there; a URL such as
	// `http://127.0.0.1:4711/callback` is answered by `caddy bearer login`, on
	// any port if it has none. Default: the portal's URL + `/callback`; without
	// a portal `http://127.0.0.1/callback`.
	RedirectURI string `json:"redirect_uri,omitempty"`

	// Leave the redirect URI out of both requests, for servers that have it
	// from the registration (RFC 6749 §3.1.2.3).
	OmitRedirectURI bool `json:"omit_redirect_uri,omitempty"`

	// `S256` (RFC 7636) or `off`, for servers that refuse it. There is no fall-
	// back from one to the other. Default: `S256`; of `pagero_legacy`, `off`.
	PKCE string `json:"pkce,omitempty"`

	// What the server shall ask the person for, such as `login` (OIDC Core
	// §3.1.2.1). Default: what it likes.
	Prompt string `json:"prompt,omitempty"`
}

const (
	defaultRefreshAhead   = 0.2
	defaultTokenTimeout   = 10 * time.Second
	defaultRequestTimeout = 60 * time.Second
	defaultKeepAlive      = 24 * time.Hour
	defaultLifetime       = time.Hour
)

// provision checks the account and makes of it what the core works with.
func (c *Account) provision(name, portal string, log *slog.Logger) (*oauth.Account, error) {
	log = log.With("account", name)
	if c.ProviderURL != "" {
		base, err := resolve(c.ProviderURL)
		if err != nil {
			return nil, fmt.Errorf("provider %s: %w", c.Provider, err)
		}
		resolved := *c
		resolved.ProviderURL, c = base, &resolved
	}
	p, err := c.preset()
	if err != nil {
		return nil, err
	}
	a := &oauth.Account{
		Name:            name,
		RefreshAhead:    or(c.RefreshAhead, defaultRefreshAhead),
		TokenTimeout:    time.Duration(or(c.TokenTimeout, caddy.Duration(defaultTokenTimeout))),
		RequestTimeout:  time.Duration(or(c.RequestTimeout, caddy.Duration(defaultRequestTimeout))),
		KeepAlive:       time.Duration(or(c.KeepAlive, caddy.Duration(defaultKeepAlive))),
		DefaultLifetime: time.Duration(or(c.DefaultLifetime, caddy.Duration(defaultLifetime))),
		RefreshLifetime: time.Duration(or(c.RefreshLifetime, caddy.Duration(p.RefreshLifetime))),
		OnLostReply:     oauth.OnLostReply(or(c.OnLostReply, string(oauth.LostReplay))),
		RejectStatus:    c.RejectStatus,
	}
	if len(a.RejectStatus) == 0 {
		a.RejectStatus = []int{401}
	}
	if a.Scope, err = resolveSome(c.Scope); err != nil {
		return nil, fmt.Errorf("scope: %w", err)
	}
	if a.Upstreams, err = c.upstreams(p); err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	if err := c.provisionClient(&a.Client, p, log); err != nil {
		return nil, err
	}
	if a.Grant, err = c.Grant.provision(p, portal, log); err != nil {
		return nil, err
	}
	if err := checkGrant(a, p); err != nil {
		return nil, err
	}
	if c.OnLostReply != "" {
		if err := c.checkOnLostReply(); err != nil {
			return nil, fmt.Errorf("on_lost_reply: %w", err)
		}
	}
	return a, check(a)
}

// checkUpstreams and checkOnLostReply say early what provision would say later.
func (c *Account) checkUpstreams() error {
	_, err := c.upstreams(oauth.Provider{})
	return err
}

func (c *Account) checkOnLostReply() error {
	if !slices.Contains([]string{"replay", "login", "stop"}, c.OnLostReply) {
		return fmt.Errorf("%s: it must be replay, login or stop", c.OnLostReply)
	}
	return nil
}

var errLostLogin = errors.New("on_lost_reply login needs a grant that may log in again: grant password with relogin on, or client_credentials")

func checkAccountName(name string) error {
	if strings.ContainsAny(name, "/{}") || name == "" {
		return fmt.Errorf("account %s: a name has no slash and no braces", name)
	}
	return nil
}

// check refuses values that don't go together.
func check(a *oauth.Account) error {
	switch {
	case a.RefreshAhead <= 0 || a.RefreshAhead > 0.5:
		return errors.New("refresh_ahead must be above 0 % and at most 50 %")
	case min(a.TokenTimeout, a.RequestTimeout, a.KeepAlive, a.DefaultLifetime, a.RefreshLifetime) < 0:
		return errors.New("token_timeout, request_timeout, keep_alive, default_lifetime and refresh_lifetime must not be negative")
	case a.OnLostReply == oauth.LostLogin && !a.Grant.MayLogin(true):
		return errLostLogin
	}
	for _, status := range a.RejectStatus {
		if status < 400 || status > 499 {
			return fmt.Errorf("reject_status %d: it must be between 400 and 499", status)
		}
	}
	return nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

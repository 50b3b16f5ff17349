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
	// Preset of an authorization server: `pagero` or `pagero_legacy`. What it
	// sets, the other options override. Default: none; then token_endpoint and
	// upstreams are required.
	Provider string `json:"provider,omitempty"`

	// Identifier of the client at the authorization server (RFC 6749 §2.2).
	ClientID string `json:"client_id,omitempty"`

	// Secret of the client. It is read again before each token request.
	ClientSecret string `json:"client_secret,omitempty"`

	// How the client authenticates: `basic` (HTTP Basic, form-encoded first,
	// RFC 6749 §2.3.1), `basic_raw` (HTTP Basic of the plain values) or `post`
	// (in the body). Default: that of the provider, or `basic`.
	ClientAuth string `json:"client_auth,omitempty"`

	// Scope to ask for (RFC 6749 §3.3), values separated by spaces.
	Scope string `json:"scope,omitempty"`

	// How the account gets its first tokens.
	Grant *Grant `json:"grant,omitempty"`

	// URL of the token endpoint. Plain http is accepted on loopback only.
	TokenEndpoint string `json:"token_endpoint,omitempty"`

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
	// itself), or `refresh_token` (the first refresh token comes from elsewhere,
	// by `caddy bearer import`).
	Type string `json:"type,omitempty"`

	// Name of the resource owner (RFC 6749 §4.3).
	Username string `json:"username,omitempty"`

	// Password of the resource owner. It is read again before each use.
	Password string `json:"password,omitempty"`

	// Whether the password may be used again when the refresh token is lost or
	// dead. If not, it is used once. Default: true.
	Relogin *bool `json:"relogin,omitempty"`
}

const grantTypes = "password, client_credentials and refresh_token"

const (
	defaultRefreshAhead   = 0.2
	defaultTokenTimeout   = 10 * time.Second
	defaultRequestTimeout = 60 * time.Second
	defaultKeepAlive      = 24 * time.Hour
	defaultLifetime       = time.Hour
)

// provision checks the account and makes of it what the core works with.
func (c *Account) provision(name string, log *slog.Logger) (*oauth.Account, error) {
	log = log.With("account", name)
	p, err := c.preset()
	if err != nil {
		return nil, err
	}
	a := &oauth.Account{
		Name:            name,
		Scope:           c.Scope,
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
	if a.Upstreams, err = c.upstreams(p); err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	if err := c.provisionClient(&a.Client, p, log); err != nil {
		return nil, err
	}
	if a.Grant, err = c.Grant.provision(log); err != nil {
		return nil, err
	}
	if c.OnLostReply != "" {
		if err := c.checkOnLostReply(); err != nil {
			return nil, fmt.Errorf("on_lost_reply: %w", err)
		}
	}
	return a, check(a)
}

func (c *Account) preset() (oauth.Provider, error) {
	if c.Provider == "" {
		return oauth.Provider{ClientAuths: []oauth.ClientAuth{oauth.AuthBasic, oauth.AuthBasicRaw, oauth.AuthPost}}, nil
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
	return p, nil
}

func (g *Grant) provision(log *slog.Logger) (oauth.Grant, error) {
	if g == nil || g.Type == "" {
		return nil, errors.New("it has no grant; add `grant password { username …; password … }`, each on its line")
	}
	switch g.Type {
	case "password":
	case "client_credentials", "refresh_token":
		if g.Username != "" || g.Password != "" || g.Relogin != nil {
			return nil, fmt.Errorf("grant %s takes neither username nor password nor relogin", g.Type)
		}
		if g.Type == "refresh_token" {
			return oauth.RefreshToken{}, nil
		}
		return oauth.ClientCredentials{}, nil
	default:
		return nil, fmt.Errorf("grant %s is not supported; there are %s", g.Type, grantTypes)
	}
	if g.Username == "" || g.Password == "" {
		return nil, errors.New("grant password needs username and password")
	}
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
	return p, nil
}

// relogin reports whether the grant may sign in again by itself.
func (g *Grant) relogin() bool {
	return g.Type == "client_credentials" || g.Type == "password" && (g.Relogin == nil || *g.Relogin)
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

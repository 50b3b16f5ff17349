package oauth

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// An Account is one identity that we act as: a client, a grant, a scope and a
// name. It isn't changed after it was handed over.
type Account struct {
	Name   string
	Client Client
	Grant  Grant
	// PerUser: it has one session per user, and none of its own.
	PerUser bool
	// Scope is what the token requests ask for (RFC 6749 §3.3); may be empty.
	Scope string

	// Upstreams are the host:port pairs that the tokens may be sent to.
	Upstreams []string
	// RejectStatus are the upstream answers that mean "this token is no good".
	RejectStatus []int

	// RefreshAhead is the share of a token's lifetime, above 0 and at most
	// 0.5, at whose beginning its successor is fetched.
	RefreshAhead float64
	// TokenTimeout is how long a caller waits for a token.
	TokenTimeout time.Duration
	// RequestTimeout is how long one token request may take.
	RequestTimeout time.Duration
	// KeepAlive is how long an idle session leaves its refresh token unused.
	KeepAlive time.Duration
	// DefaultLifetime is that of a token whose answer doesn't tell.
	DefaultLifetime time.Duration
	// RefreshLifetime is that of a refresh token; 0 if not known.
	RefreshLifetime time.Duration
	// OnLostReply says what follows a refresh whose outcome isn't known.
	OnLostReply OnLostReply
}

// now returns the account with its secrets as they are now.
func (a *Account) now() *Account {
	n := *a
	n.Grant = a.Grant.Now()
	n.Client.Secret = a.Client.Secret.now()
	return &n
}

// A Client is our registration at an authorization server, and the way there.
type Client struct {
	ID string
	// Secret is what the client proves itself with: its secret, or in PEM form
	// its private key (private_key_jwt), or its certificate and key (tls). Nil
	// for a public client.
	Secret SecretFunc
	Auth   ClientAuth
	// KeyID is the kid of assertions (RFC 7515 §4.1.4); may be empty.
	KeyID string

	// Issuer names the authorization server (RFC 8414 §2); may be empty.
	Issuer string
	// Discover: endpoints that are empty come from the issuer's metadata.
	Discover bool
	// NeedsIss: a callback without iss is refused although the issuer's metadata
	// doesn't promise one: the redirect URI is that of other servers, too.
	NeedsIss bool
	// PinIssuer: the iss of the first login's callback, its absence too, is
	// demanded of all later ones, unless there is an Issuer.
	PinIssuer bool

	// The endpoints are absolute URLs (RFC 6749 §3.1, §3.2; RFC 7009 §2; RFC
	// 8628 §3.1). Only the token endpoint is needed by every grant.
	AuthorizeEndpoint, TokenEndpoint, RevokeEndpoint, DeviceEndpoint string
	// DeleteSession: a session is ended by DELETE at the revocation endpoint
	// with its access token, not as RFC 7009 has it.
	DeleteSession bool

	// TokenParams are sent along with every token request.
	TokenParams url.Values
	// JSONBody: token requests are JSON objects, not forms.
	JSONBody bool
	// Transport carries the token requests. It must use a new connection for
	// each and follow nothing; [NewTransport] makes such a one.
	Transport http.RoundTripper
}

// server names what a client is registered at: the issuer where endpoints are
// discovered, or else the token endpoint.
func (c *Client) server() string {
	if c.Discover {
		return c.Issuer
	}
	return c.TokenEndpoint
}

// ClientAuth is how the client authenticates at the token endpoint (RFC 6749
// §2.3). It is never guessed: a wrong guess would spend a one-time grant.
type ClientAuth string

const (
	AuthBasic         ClientAuth = "basic"           // HTTP Basic, form-encoded first (RFC 6749 §2.3.1)
	AuthBasicRaw      ClientAuth = "basic_raw"       // HTTP Basic of the plain values
	AuthPost          ClientAuth = "post"            // client_id and client_secret in the body
	AuthPrivateKeyJWT ClientAuth = "private_key_jwt" // a signed assertion (RFC 7523)
	AuthTLS           ClientAuth = "tls"             // a client certificate (RFC 8705 §2)
	AuthNone          ClientAuth = "none"            // a public client: client_id alone
)

// A Grant is how an account gets its first tokens (RFC 6749 §1.3). A grant is
// one file.
type Grant interface {
	// Type is the word for it in a configuration: the value of grant_type, as
	// far as that is a word.
	Type() string
	// Username tells whose tokens they are, where the grant names somebody.
	Username() string
	// MayLogin reports whether the grant can sign in with nobody at hand;
	// again, if there was a sign-in before.
	MayLogin(again bool) bool
	// Secrets returns what the grant proves itself with, for the latch key.
	Secrets() []Secret
	// Now returns the grant with its secrets as they are now, so that an attempt
	// and its latch key are made of one reading.
	Now() Grant
	// SignIn makes exactly one token request.
	SignIn(ctx context.Context, c *Client, scope string) Answer
}

// OnLostReply is what follows a refresh whose outcome isn't known: the
// one-time refresh token may have been spent.
type OnLostReply string

const (
	// LostReplay sends the same refresh token again, at once, after 1 s, after
	// 5 s and then with growing pauses.
	LostReplay OnLostReply = "replay"
	// LostLogin signs in again.
	LostLogin OnLostReply = "login"
	// LostStop serves the live access token to its end and then waits for a
	// person.
	LostStop OnLostReply = "stop"
)

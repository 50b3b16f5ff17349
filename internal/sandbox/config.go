package sandbox

import (
	"crypto"
	"maps"
	"slices"
	"time"
)

// A Config says what the sandbox knows and how strict it is. The zero value
// works: every field has a default.
type Config struct {
	// Provider is whose wire shapes are played: pagero (the default),
	// pagero_legacy, aidbox, webmethods or oidc.
	Provider string

	// Issuer replaces the issuer that the sandbox has by its own URL.
	Issuer string

	ClientID, ClientSecret string // default sandbox-client, sandbox-secret
	Username, Password     string // default sandbox-user, sandbox-password

	// Users are further users and their passwords.
	Users map[string]string

	// RedirectURIs are those that the client has registered, compared byte for
	// byte. With none, any https URI and any http URI of loopback is taken.
	RedirectURIs []string

	// RequirePKCE refuses an authorization request without code_challenge, at a
	// provider that knows PKCE.
	RequirePKCE bool

	// Public is a client without a secret (RFC 6749 §2.1), which names itself
	// by client_id; RequirePKCE is implied. SecretOptional lets a client with a
	// secret leave it out too, as Aidbox does.
	Public, SecretOptional bool

	// ClientKey is the client's public key: *rsa.PublicKey (RS256),
	// *ecdsa.PublicKey of P-256 (ES256) or ed25519.PublicKey (EdDSA). If it is
	// set, the client authenticates by private_key_jwt (RFC 7523) and nothing
	// else.
	ClientKey crypto.PublicKey

	// ClientCertificate is PEM: a certificate of the client or of the CA that
	// issues them in the client's name. If it is set, the client authenticates
	// by TLS (RFC 8705) and nothing else. See also NewClientCertificate.
	ClientCertificate []byte

	// DeviceInterval is how often a device may poll; default 5 s, told in whole
	// seconds, rounded up. A negative one isn't told, which means 5 s.
	// DeviceLifetime is that of device codes; default 600 s.
	DeviceInterval, DeviceLifetime time.Duration

	// MaxRefreshes is how often the tokens of one login may be refreshed: 0 is
	// without end, a negative number gives out no refresh tokens.
	MaxRefreshes int

	// AlwaysRefreshToken gives out a refresh token also without the scope
	// offline_access, which the provider oidc wants.
	AlwaysRefreshToken bool

	// SendExpiry lets the provider aidbox send expires_in, UserInfo the member
	// userinfo. Both are absent there by default.
	SendExpiry, UserInfo bool

	// SecureCode is the redirect URI registered for Aidbox's password grant with
	// a code. If it is set, the grant is refused without one.
	SecureCode string

	// TokenLifetime is how long an access token lives; default is the
	// provider's: 600 s of pagero, 300 s of pagero_legacy, else 3600 s.
	// expires_in tells it in whole seconds, rounded down.
	TokenLifetime time.Duration

	// Grace is how long a spent refresh token still works, each time with a
	// new token pair of the same family, as long as no token that it was
	// exchanged for has been used. With 0, and otherwise afterwards, its
	// reuse ends the family with its live access tokens (RFC 9700 §4.14.2).
	Grace time.Duration

	// LockAfter is how many wrong passwords in a row lock the user, until
	// [Sandbox.SetPassword]; 0 is never.
	LockAfter int

	// Delay is how long every token answer takes, before anything is
	// committed. The request is carried out even if the client has gone.
	Delay time.Duration

	// RawBasic accepts the client's Basic credentials only as they are,
	// EncodedBasic only form-urlencoded first (RFC 6749 §2.3.1). With neither
	// both are fine; with both set no Basic credentials are accepted at all.
	RawBasic, EncodedBasic bool

	// OneAccessToken ends the older access token of a family at each refresh.
	OneAccessToken bool

	// Gate, if set, is told of the stages of each token request with its grant
	// type. It may take its time; the request waits, also if its client has
	// gone. If it returns false, the request ends there: without an answer, or
	// in the middle of one, and at Received without any effect.
	Gate func(stage Stage, grant string) bool

	SlowFor    time.Duration // how long the fault slow waits; default 15 s
	RetryAfter string        // the header of the fault 429; default "2"
	EventLimit int           // how many events are kept; default 10000
}

func (c Config) withDefaults() Config {
	for _, text := range []struct {
		field *string
		value string
	}{
		{&c.ClientID, "sandbox-client"},
		{&c.ClientSecret, "sandbox-secret"},
		{&c.Username, "sandbox-user"},
		{&c.Password, "sandbox-password"},
		{&c.RetryAfter, "2"},
	} {
		if *text.field == "" {
			*text.field = text.value
		}
	}
	if c.TokenLifetime == 0 {
		c.TokenLifetime = findProvider(c.Provider).lifetime
	}
	if c.DeviceInterval == 0 {
		c.DeviceInterval = 5 * time.Second
	}
	if c.DeviceLifetime == 0 {
		c.DeviceLifetime = 600 * time.Second
	}
	if c.SlowFor == 0 {
		c.SlowFor = 15 * time.Second
	}
	if c.EventLimit == 0 {
		c.EventLimit = 10000
	}
	c.Users = maps.Clone(c.Users) // the caller's may change
	c.RedirectURIs = slices.Clone(c.RedirectURIs)
	return c
}

// Package sandbox is an OAuth 2.0 authorization server with Pagero's wire
// shapes and an API behind it, to try the proxy against and to test it
// against. It keeps everything in memory, plays scripted faults and logs what
// reached it, so that a test can compare what a client believes with what the
// server did. It shares no code with the client.
//
// It is not for production: anyone who reaches the authorization server may
// read its events and play faults.
package sandbox

import (
	"net/http"
	"sync"
	"time"
)

// A Config says what the sandbox knows and how strict it is. The zero value
// works: every field has a default.
type Config struct {
	ClientID, ClientSecret string // default sandbox-client, sandbox-secret
	Username, Password     string // default sandbox-user, sandbox-password

	// TokenLifetime is how long an access token lives; default 600 s.
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
		c.TokenLifetime = 600 * time.Second
	}
	if c.SlowFor == 0 {
		c.SlowFor = 15 * time.Second
	}
	if c.EventLimit == 0 {
		c.EventLimit = 10000
	}
	return c
}

// A Sandbox is one authorization server, its only user and client, and the
// API that trusts it. Its methods and handlers are safe for concurrent use.
type Sandbox struct {
	log    eventLog
	faults faultQueue

	stop     chan struct{} // closed by Close
	stopOnce sync.Once

	mu     sync.Mutex
	config Config // ClientSecret, Password and TokenLifetime may change
	wrong  int    // wrong passwords in a row
	tokens tokenState
}

// New returns a sandbox in which nobody has logged in yet. In a test with
// virtual time it must be called inside the bubble.
func New(c Config) *Sandbox {
	c = c.withDefaults()
	s := &Sandbox{config: c, stop: make(chan struct{})}
	s.log.limit = c.EventLimit
	return s
}

// Close ends every wait (Config.Delay, the fault slow): those requests get no
// answer, and those that had not been committed change nothing. Requests that
// come later are served without waits.
func (s *Sandbox) Close() { s.stopOnce.Do(func() { close(s.stop) }) }

// SetPassword changes the user's password and unlocks the user. Tokens live on.
func (s *Sandbox) SetPassword(password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Password, s.wrong = password, 0
}

// SetClientSecret changes the client's secret. Tokens live on.
func (s *Sandbox) SetClientSecret(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.ClientSecret = secret
}

// SetTokenLifetime changes the lifetime of access tokens issued from now on.
func (s *Sandbox) SetTokenLifetime(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.TokenLifetime = d
}

// RevokeAccessTokens ends all live access tokens; refresh tokens stay.
func (s *Sandbox) RevokeAccessTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.tokens.access {
		a.revoked = true
	}
}

// RevokeRefreshTokens ends all refresh tokens: the next use of one is refused
// with invalid_grant. Access tokens stay, also after that use.
func (s *Sandbox) RevokeRefreshTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens.refresh {
		t.revoked = true
	}
}

// Events returns a copy of the log, oldest first.
func (s *Sandbox) Events() []Event { return s.log.list() }

// TokenRequests returns how many requests of a grant type have reached the
// token endpoint, or all of them if grant is empty, those that are malformed
// included. A request counts as soon as its body has been read, before it is
// answered, and whatever the answer.
func (s *Sandbox) TokenRequests(grant string) int { return s.log.tokenRequests(grant) }

// settings returns the configuration as it is now.
func (s *Sandbox) settings() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.config
}

// pause waits for d. It doesn't end when the client goes away, because a
// server that is busy wouldn't notice either; only Close ends it, and then
// the request with it.
func (s *Sandbox) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-s.stop:
		return // it came after Close
	default:
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.stop:
		panic(http.ErrAbortHandler)
	}
}

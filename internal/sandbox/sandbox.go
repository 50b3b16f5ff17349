// Package sandbox is an OAuth 2.0 authorization server with the wire shapes of
// Pagero or of another provider, and an API behind it, to try the proxy against
// and to test it against. It keeps everything in memory, plays scripted faults and logs what
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

// A Sandbox is one authorization server, its users and only client, and the
// API that trusts it. Its methods and handlers are safe for concurrent use.
type Sandbox struct {
	log    eventLog
	faults faultQueue

	stop     chan struct{} // closed by Close
	stopOnce sync.Once

	provider    *provider
	fixedIssuer string // Config.Issuer

	mu       sync.Mutex
	config   Config         // ClientSecret, Password and TokenLifetime may change
	wrong    map[string]int // wrong passwords in a row, by user
	inactive map[string]bool
	tokens   tokenState
	codes    codeState
	sessions map[digest]string // users by the cookie of the login page
	devices  map[digest]*deviceLogin

	ca           *authority // made by ListenTLS
	certificates registeredCertificates
	assertions   map[string]time.Time // until when a jti is remembered
}

// New returns a sandbox in which nobody has logged in yet. In a test with
// virtual time it must be called inside the bubble. New panics if
// Config.Provider is unknown (see [Providers]) or Config.ClientCertificate is
// no certificate.
func New(c Config) *Sandbox {
	c = c.withDefaults()
	s := &Sandbox{
		config:      c,
		stop:        make(chan struct{}),
		provider:    findProvider(c.Provider),
		fixedIssuer: c.Issuer,
		wrong:       map[string]int{},
		inactive:    map[string]bool{},
		sessions:    map[digest]string{},
		devices:     map[digest]*deviceLogin{},
		assertions:  map[string]time.Time{},
	}
	s.log.limit = c.EventLimit
	if c.ClientCertificate != nil {
		if err := s.certificates.register(c.ClientCertificate); err != nil {
			panic("sandbox: " + err.Error())
		}
	}
	return s
}

// Close ends every wait (Config.Delay, the fault slow): those requests get no
// answer, and those that had not been committed change nothing. Requests that
// come later are served without waits.
func (s *Sandbox) Close() { s.stopOnce.Do(func() { close(s.stop) }) }

// SetPassword changes the password of Config.Username and unlocks that user.
// Tokens live on.
func (s *Sandbox) SetPassword(password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Password = password
	delete(s.wrong, s.config.Username)
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

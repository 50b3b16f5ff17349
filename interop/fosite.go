// Package interop is an authorization server that its client's authors did not
// write: ory/fosite, with the grants password and refresh_token, and an API
// behind it. Its tests run caddy-bearer's own binary against it.
//
// It is a module of its own, so that what only these tests need is in nobody's
// build. The binary is built from the folder above, which Go's test cache does
// not see: run
//
//	go test -count 1 ./...
package interop

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/storage"
)

// Config is what the server knows of its only client and its only user.
type Config struct {
	// The client authenticates with HTTP Basic, form-encoded first (RFC 6749
	// §2.3.1); the secret has 72 bytes at most.
	ClientID, ClientSecret string
	Username, Password     string
	// TokenLifetime is that of access tokens. fosite rounds their end to a full
	// second, and expires_in down: 5 s live for 4.5 s to 5.5 s, and say 4 or 5.
	TokenLifetime time.Duration
	// APIDelay is how long after a request's arrival the API looks at its token.
	// Meanwhile a refresh may have killed it. Default: 0.
	APIDelay time.Duration
}

// Scopes that the client may ask for. Only with ScopeOffline does fosite give a
// refresh token.
const (
	ScopeAPI     = "api"
	ScopeOffline = "offline"
)

// Server is the authorization server and the API. Refresh tokens work once:
// whoever presents a spent one has the whole family revoked, access token
// included (RFC 9700 §4.14.2). A refresh revokes the former access token at once.
type Server struct {
	config Config

	// mu is held while fosite works: its example store writes to a map without
	// the map's own lock, and looks a refresh token up and spends it in two
	// steps, so that two requests at a time could both be granted.
	mu       sync.Mutex
	provider fosite.OAuth2Provider
	events   []TokenEvent
	spent    string

	served, refused atomic.Int64
}

// TokenEvent is one request to the token endpoint.
type TokenEvent struct {
	At    time.Time // when it was decided
	Grant string    // grant_type, as sent
	// Presented is the SHA-256 of the refresh token that was sent, in hex; empty
	// without one.
	Presented string
	Status    int
	Code      string // error code of RFC 6749 §5.2, empty when granted
}

// New returns a server that listens nowhere yet.
func New(c Config) (*Server, error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	config := &fosite.Config{
		AccessTokenLifespan:  c.TokenLifetime,
		RefreshTokenLifespan: time.Hour,
		GlobalSecret:         secret,
		ScopeStrategy:        fosite.ExactScopeStrategy,
		HashCost:             4, // bcrypt's least; tests wait for it
		// Otherwise a refresh token is as good as an access token to the API.
		DisableRefreshTokenValidation: true,
	}
	hash, err := (&fosite.BCrypt{Config: config}).Hash(context.Background(), []byte(c.ClientSecret))
	if err != nil {
		return nil, fmt.Errorf("hashing the client secret: %w", err)
	}
	store := storage.NewMemoryStore()
	store.Users[c.Username] = storage.MemoryUserRelation{Username: c.Username, Password: c.Password}
	store.Clients[c.ClientID] = &fosite.DefaultOpenIDConnectClient{
		DefaultClient: &fosite.DefaultClient{
			ID:         c.ClientID,
			Secret:     hash,
			GrantTypes: []string{"password", "refresh_token"},
			Scopes:     []string{ScopeAPI, ScopeOffline},
		},
		TokenEndpointAuthMethod: "client_secret_basic",
	}
	return &Server{config: c, provider: compose.Compose(config, store,
		&compose.CommonStrategy{CoreStrategy: compose.NewOAuth2HMACStrategy(config)},
		//lint:ignore SA1019 the grant is what the client is there for
		compose.OAuth2ResourceOwnerPasswordCredentialsFactory,
		compose.OAuth2RefreshTokenGrantFactory,
		compose.OAuth2TokenIntrospectionFactory,
	)}, nil
}

// AuthorizationServer serves the token endpoint at every path (RFC 6749 §3.2).
func (s *Server) AuthorizationServer() http.Handler { return http.HandlerFunc(s.serveToken) }

func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	req, res, err := s.grant(r)
	if err != nil {
		s.provider.WriteAccessError(r.Context(), w, req, err)
		return
	}
	s.provider.WriteAccessResponse(r.Context(), w, req, res)
}

// grant decides a token request and logs it, before anybody has the answer.
func (s *Server) grant(r *http.Request) (fosite.AccessRequester, fosite.AccessResponder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A client that went away doesn't undo what it caused.
	ctx := context.WithoutCancel(r.Context())
	req, err := s.provider.NewAccessRequest(ctx, r, new(fosite.DefaultSession))
	if err != nil {
		s.log(r, err)
		return req, nil, err
	}
	for _, scope := range req.GetRequestedScopes() {
		req.GrantScope(scope) // the handler has checked that the client may
	}
	res, err := s.provider.NewAccessResponse(ctx, req)
	s.log(r, err)
	return req, res, err
}

// log keeps what came of a token request. Call it with mu.
func (s *Server) log(r *http.Request, err error) {
	e := TokenEvent{At: time.Now(), Grant: r.PostForm.Get("grant_type"), Status: http.StatusOK}
	token := r.PostForm.Get("refresh_token")
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		e.Presented = hex.EncodeToString(sum[:])
	}
	if err != nil {
		refusal := fosite.ErrorToRFC6749Error(err)
		e.Status, e.Code = refusal.CodeField, refusal.ErrorField
	} else if token != "" {
		s.spent = token
	}
	s.events = append(s.events, e)
}

// TokenEvents returns the log of the token endpoint, oldest first.
func (s *Server) TokenEvents() []TokenEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]TokenEvent(nil), s.events...)
}

// Spent returns the refresh token that was spent last, for who plays a thief;
// empty if there was no refresh.
func (s *Server) Spent() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spent
}

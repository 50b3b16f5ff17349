// Package interop is two authorization servers that their client's authors did
// not write, and an API behind each: ory/fosite, in this process, and npm
// oidc-provider, in one of its own. Its tests run caddy-bearer's own binary
// against them.
//
// It is a module of its own, so that what only these tests need is in nobody's
// build. The script run installs what they need and runs them all. The binary is
// built from the folder above, which Go's test cache does not see: by hand, run
//
//	go test -count 1 ./...
package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/openid"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"
)

// Config is what the server knows of its only user and of its clients.
type Config struct {
	// The client authenticates with HTTP Basic, form-encoded first (RFC 6749
	// §2.3.1); the secret has 72 bytes at most.
	ClientID, ClientSecret string
	Username, Password     string
	// RedirectURI is that of the client and of the client PublicClient. If its
	// host is a loopback address, any port will do (RFC 8252 §7.3).
	RedirectURI string
	// Issuer is named in id_tokens.
	Issuer string
	// TokenLifetime is that of access tokens. fosite rounds their end to a full
	// second, and expires_in down: 5 s live for 4.5 s to 5.5 s, and say 4 or 5.
	TokenLifetime time.Duration
	// APIDelay is [API].Delay.
	APIDelay time.Duration
}

// Scopes that the client may ask for. Only with ScopeOffline does fosite give a
// refresh token.
const (
	ScopeAPI     = "api"
	ScopeOffline = "offline"
	ScopeOpenID  = "openid"
)

// PublicClient is the client_id of a client without credentials.
const PublicClient = "public"

// Server is the authorization server, with the grants authorization_code (PKCE
// with S256 only), password and refresh_token. Refresh tokens work once: whoever
// presents a spent one has the whole family revoked, access token included (RFC
// 9700 §4.14.2). A refresh revokes the former access token at once.
type Server struct {
	config Config

	// mu is held while fosite works: its example store writes to a map without
	// the map's own lock, and looks a refresh token up and spends it in two
	// steps, so that two requests at a time could both be granted.
	mu       sync.Mutex
	provider fosite.OAuth2Provider
}

// New returns a server that listens nowhere yet.
func New(c Config) (*Server, error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	config := &fosite.Config{
		AccessTokenLifespan:  c.TokenLifetime,
		RefreshTokenLifespan: time.Hour,
		IDTokenIssuer:        c.Issuer,
		EnforcePKCE:          true,
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
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key for id_tokens: %w", err)
	}
	keys := func(context.Context) (any, error) { return key, nil }
	store := storage.NewMemoryStore()
	store.Users[c.Username] = storage.MemoryUserRelation{Username: c.Username, Password: c.Password}
	store.Clients[c.ClientID] = c.client(&fosite.DefaultClient{ID: c.ClientID, Secret: hash}, "client_secret_basic", "password")
	store.Clients[PublicClient] = c.client(&fosite.DefaultClient{ID: PublicClient, Public: true}, "none")
	return &Server{config: c, provider: compose.Compose(config, store,
		&compose.CommonStrategy{
			CoreStrategy:               compose.NewOAuth2HMACStrategy(config),
			OpenIDConnectTokenStrategy: compose.NewOpenIDConnectStrategy(keys, config),
			Signer:                     &jwt.DefaultSigner{GetPrivateKey: keys},
		},
		compose.OAuth2AuthorizeExplicitFactory,
		compose.OpenIDConnectExplicitFactory,
		compose.OAuth2PKCEFactory, // after the one that makes the code
		//lint:ignore SA1019 the grant is what the client is there for
		compose.OAuth2ResourceOwnerPasswordCredentialsFactory,
		compose.OAuth2RefreshTokenGrantFactory,
		compose.OAuth2TokenRevocationFactory,
		compose.OAuth2TokenIntrospectionFactory,
	)}, nil
}

// client completes a client; grants are those that it has besides.
func (c Config) client(d *fosite.DefaultClient, auth string, grants ...string) fosite.Client {
	d.GrantTypes = append(grants, "authorization_code", "refresh_token")
	d.ResponseTypes = []string{"code"}
	d.Scopes = []string{ScopeAPI, ScopeOffline, ScopeOpenID}
	d.RedirectURIs = []string{c.RedirectURI}
	return &fosite.DefaultOpenIDConnectClient{DefaultClient: d, TokenEndpointAuthMethod: auth}
}

// AuthorizationServer serves the endpoints /authorize (RFC 6749 §3.1), /token
// (§3.2) and /revoke (RFC 7009).
func (s *Server) AuthorizationServer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", s.showSignIn)
	mux.HandleFunc("POST /authorize", s.signIn)
	mux.HandleFunc("GET /cancel", s.cancel)
	mux.HandleFunc("POST /token", s.serveToken)
	mux.HandleFunc("POST /revoke", s.serveRevocation)
	return mux
}

func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	req, res, err := s.grant(r)
	if err != nil {
		s.provider.WriteAccessError(r.Context(), w, req, err)
		return
	}
	s.provider.WriteAccessResponse(r.Context(), w, req, res)
}

// grant decides a token request.
func (s *Server) grant(r *http.Request) (fosite.AccessRequester, fosite.AccessResponder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	req, err := s.provider.NewAccessRequest(r.Context(), r, openid.NewDefaultSession())
	if err != nil {
		return req, nil, err
	}
	if req.GetGrantTypes().ExactOne("password") {
		for _, scope := range req.GetRequestedScopes() {
			req.GrantScope(scope) // the handler has checked that the client may
		}
	}
	res, err := s.provider.NewAccessResponse(r.Context(), req)
	return req, res, err
}

func (s *Server) serveRevocation(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	s.mu.Lock()
	err := s.provider.NewRevocationRequest(r.Context(), r)
	s.mu.Unlock()
	s.provider.WriteRevocationResponse(r.Context(), w, err)
}

// Live reports whether a token is a live access token with [ScopeAPI], and
// whose.
func (s *Server) Live(ctx context.Context, token string) (user string, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	use, req, err := s.provider.IntrospectToken(ctx, token, fosite.AccessToken, openid.NewDefaultSession(), ScopeAPI)
	if err != nil || use != fosite.AccessToken {
		return "", false
	}
	return req.GetSession().GetSubject(), true
}

// session is that of somebody who has just signed in.
func session(user string) *openid.DefaultSession {
	now := time.Now().UTC()
	return &openid.DefaultSession{
		Subject: user,
		Claims:  &jwt.IDTokenClaims{Subject: user, AuthTime: now, RequestedAt: now},
		Headers: &jwt.Headers{},
	}
}

package oauth_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// A rig is the sandbox's authorization server behind an in-memory network and
// sessions that use it. It must be made inside a synctest bubble.
type rig struct {
	*testing.T
	sandbox  *sandbox.Sandbox
	store    oauth.Store
	sessions *oauth.Sessions
	dial     func() *http.Transport
	log      *slog.Logger
	clocks   clocks // of the sessions; the server has its own
}

func newRig(t *testing.T, c sandbox.Config) *rig {
	t.Helper()
	r := &rig{T: t, sandbox: sandbox.New(c), store: store.NewMemory(), log: slog.New(slog.DiscardHandler)}
	network := sandbox.Pipe()
	server := &http.Server{Handler: r.sandbox.AuthorizationServer(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = server.Serve(network) }()
	r.dial = func() *http.Transport {
		tr := oauth.NewTransport(nil, nil, nil)
		tr.DialContext = network.DialContext
		return tr
	}
	t.Cleanup(func() {
		_ = server.Close()
		_ = network.Close()
		r.sandbox.Close()
	})
	return r
}

// account is one that the sandbox knows.
func (r *rig) account() *oauth.Account {
	return &oauth.Account{
		Name: "erp",
		Client: oauth.Client{
			ID: "sandbox-client", Secret: oauth.Fixed("sandbox-secret"), Auth: oauth.AuthBasic,
			TokenEndpoint: "http://as.test/oauth/v2/oauth-token",
			Transport:     r.dial(),
		},
		Grant:        &oauth.Password{User: oauth.Fixed("sandbox-user"), Secret: oauth.Fixed("sandbox-password"), Relogin: true},
		Scope:        "all",
		RejectStatus: []int{401},
		RefreshAhead: 0.2, TokenTimeout: 10 * time.Second, RequestTimeout: 60 * time.Second,
		KeepAlive: 24 * time.Hour, DefaultLifetime: time.Hour, OnLostReply: oauth.LostReplay,
	}
}

// start begins with what the store holds, as a new process does.
func (r *rig) start(accounts ...*oauth.Account) *oauth.Session {
	r.Helper()
	r.sessions = oauth.NewSessions(r.log)
	r.sessions.Turn(r.clocks.turn)
	r.sessions.Open(lasting{r.store})
	r.sessions.Configure(r.Context(), accounts)
	s, err := r.sessions.Session(r.Context(), oauth.Key{Account: accounts[0].Name})
	if err != nil {
		r.Fatal(err)
	}
	return s
}

func (r *rig) stop() {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.sessions.Close(ctx); err != nil {
		r.Error(err)
	}
}

// lasting keeps a memory store over the restarts of a test.
type lasting struct{ oauth.Store }

func (lasting) Close() error { return nil }

// token asks for one and checks that the sandbox's API takes it.
func (r *rig) token(s *oauth.Session) *oauth.Token {
	r.Helper()
	tok, err := s.Token(r.Context())
	if err != nil {
		r.Fatalf("Token: %v", err)
	}
	if status := r.call(tok); status != 200 {
		r.Fatalf("the API answers %d to the token", status)
	}
	return tok
}

// call asks the API with the token.
func (r *rig) call(tok *oauth.Token) int {
	req := httptest.NewRequest("GET", "http://api.test/echo", nil)
	req.Header["Authorization"] = tok.Authorization()
	rec := httptest.NewRecorder()
	r.sandbox.API().ServeHTTP(rec, req)
	return rec.Code
}

// requests checks how many token requests the server saw, by grant.
func (r *rig) requests(password, refresh int) {
	r.Helper()
	p, f := r.sandbox.TokenRequests("password"), r.sandbox.TokenRequests("refresh_token")
	if p != password || f != refresh {
		r.Errorf("token requests: %d by password, %d by refresh token; want %d and %d", p, f, password, refresh)
	}
}

// fails asks for a token and checks why there is none.
func (r *rig) fails(s *oauth.Session, want error) {
	r.Helper()
	if tok, err := s.Token(r.Context()); !errors.Is(err, want) {
		r.Errorf("Token: %v, %v; want %v", tok, err, want)
	}
}

func (r *rig) state(s *oauth.Session, want oauth.State) {
	r.Helper()
	if st := s.Status(); st.State != want {
		r.Errorf("state is %s (%s), want %s", st.State, st.Detail, want)
	}
}

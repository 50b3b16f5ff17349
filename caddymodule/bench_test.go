package caddymodule

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// benchSessions are sessions with one account, erp, that has a token.
func benchSessions(b *testing.B) *oauth.Sessions {
	ss := oauth.NewSessions(slog.New(slog.DiscardHandler))
	ss.Open(store.NewMemory())
	ss.Configure(b.Context(), []*oauth.Account{{
		Name: "erp",
		Client: oauth.Client{ID: "x", Auth: oauth.AuthBasic, TokenEndpoint: "http://as/", Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(strings.NewReader(`{"access_token":"abc","token_type":"bearer","expires_in":86400}`))}, nil
		})},
		Grant:     &oauth.Password{User: oauth.Fixed("u"), Secret: oauth.Fixed("p"), Relogin: true},
		Upstreams: []string{"127.0.0.1:80"}, RejectStatus: []int{401}, RefreshAhead: 0.2,
		TokenTimeout: time.Second, RequestTimeout: time.Second, DefaultLifetime: time.Hour, OnLostReply: oauth.LostReplay,
	}})
	b.Cleanup(func() { _ = ss.Close(context.Background()) })
	s, _ := ss.Session(b.Context(), oauth.Key{Account: "erp"})
	if _, err := s.Token(b.Context()); err != nil {
		b.Fatal(err)
	}
	return ss
}

// BenchmarkTransport compares what our transport adds to a request with
// Caddy's: both call an upstream that answers at once in the same process.
func BenchmarkTransport(b *testing.B) {
	instant := new(http.Transport)
	instant.RegisterProtocol("http", roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
	}))
	stock := &reverseproxy.HTTPTransport{Transport: instant}
	ours := &Transport{
		HTTPTransport: reverseproxy.HTTPTransport{Transport: instant},
		Account:       "erp", app: &App{shared: &shared{sessions: benchSessions(b)}}, replayBody: defaultReplayBody,
	}
	s, _ := ours.app.shared.sessions.Session(b.Context(), oauth.Key{Account: "erp"})
	pass := &passage{account: "erp", session: s}
	ctx := context.WithValue(b.Context(), caddyhttp.VarsCtxKey, map[string]any{passageVar: pass})
	req := httptest.NewRequest("GET", "http://127.0.0.1:80/", nil).WithContext(ctx)
	req.URL.Scheme, req.Body = "", nil
	for i := range 10 {
		req.Header.Set(fmt.Sprintf("X-Field-%d", i), "value")
	}
	for _, bench := range []struct {
		name string
		rt   http.RoundTripper
	}{{"http", stock}, {"bearer", ours}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				req.URL.Scheme = ""
				if _, err := bench.rt.RoundTrip(req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

const benchCaddyfile = `{
	admin off
	persist_config off
	log {
		output discard
	}
	bearer {
		store memory
		account erp {
			client_id sandbox-client
			client_secret sandbox-secret
			token_endpoint %[2]s/oauth/v2/oauth-token
			upstream %[1]s
			grant password {
				username sandbox-user
				password sandbox-password
			}
		}
	}
}
http://:18391 {
	bind 127.0.0.1
	reverse_proxy %[1]s {
		header_up Authorization "Bearer %[3]s"
		transport http {
			compression off
			keepalive_idle_conns_per_host 512
			tls_trust_pool file %[4]s
		}
	}
}
http://:18392 {
	bind 127.0.0.1
	bearer_proxy erp %[1]s {
		transport http {
			tls_trust_pool file %[4]s
		}
	}
}
`

// BenchmarkEndToEnd compares a site with bearer_proxy with the same site with
// reverse_proxy and a token that is written into the configuration: over
// sockets, 32 callers at a time.
func BenchmarkEndToEnd(b *testing.B) {
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(401)
		}
		_, _ = io.WriteString(w, `{"items":[]}`)
	}))
	defer api.Close()
	ca := filepath.Join(b.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}), 0o600); err != nil {
		b.Fatal(err)
	}
	sb := sandbox.New(sandbox.Config{TokenLifetime: 24 * time.Hour})
	servers, err := sb.Listen()
	if err != nil {
		b.Fatal(err)
	}
	defer servers.Close()
	load := func(token string) {
		json, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(fmt.Appendf(nil, benchCaddyfile, api.URL, servers.AuthorizationServerURL, token, ca), nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := caddy.Load(json, true); err != nil {
			b.Fatal(err)
		}
	}
	load("abc")
	defer func() { _ = caddy.Stop() }()
	app, err := running()
	if err != nil {
		b.Fatal(err)
	}
	token, err := app.shared.sessions.All()["erp"].Token(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	load(strings.TrimPrefix(token.Authorization()[0], "Bearer ")) // the same length on the wire
	for _, bench := range []struct{ name, url string }{
		{"header_up", "http://127.0.0.1:18391/"}, {"bearer_proxy", "http://127.0.0.1:18392/"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			work := make(chan struct{})
			var wg sync.WaitGroup
			for range 32 {
				wg.Go(func() {
					for range work {
						res, err := client.Get(bench.url)
						if err != nil || res.StatusCode != 200 {
							b.Error(res, err)
							continue
						}
						_, _ = io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
				})
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
		})
	}
}

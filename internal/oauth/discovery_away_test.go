package oauth_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// What is configured goes before what is found, and does without it.
func TestDiscoveryOverridden(t *testing.T) {
	t.Parallel()
	override := func(r *loginRig) *oauth.Account {
		a := r.found()
		a.Client.TokenEndpoint = "http://localhost:8081/token"
		return a
	}
	t.Run("the rest is found", func(t *testing.T) {
		t.Parallel()
		playLogin(t, oidcServer, func(r *loginRig) {
			s := r.start(override(r))
			defer r.stop()
			r.token(s)
			r.logsOut(s, true, "")
			if r.hosts() != "localhost:8081" || len(r.wire.to("/revoke")) != 1 || r.wire.to("/revoke")[0].URL.Host != "127.0.0.1:8081" {
				t.Errorf("token requests went to %s", r.hosts())
			}
		})
	})
	t.Run("a document that lacks it will do", func(t *testing.T) {
		t.Parallel()
		playLogin(t, oidcServer, func(r *loginRig) {
			r.wire.changes(func(s sent, m map[string]any) {
				if s.Method == http.MethodGet {
					delete(m, "token_endpoint")
				}
			})
			s := r.start(override(r))
			defer r.stop()
			r.token(s)
			r.logsOut(s, true, "")
		})
	})
	t.Run("away", func(t *testing.T) {
		t.Parallel()
		playLogin(t, oidcServer, func(r *loginRig) {
			r.sandbox.Play(sandbox.DiscoveryAway, -1)
			s := r.start(override(r))
			defer r.stop()
			r.token(s)
			after(2 * time.Hour)
			r.token(s)
		})
	})
	t.Run("hanging", func(t *testing.T) {
		t.Parallel()
		playLogin(t, oidcServer, func(r *loginRig) {
			r.hangs()
			s := r.start(override(r))
			defer r.stop()
			after(time.Minute)
			for range 5 { // each caller waits for token_timeout at most
				r.token(s)
				after(2 * time.Hour)
			}
		})
	})
}

// Metadata that can't be had at the first time is a server that is away.
func TestDiscoveryAwayAtFirst(t *testing.T) {
	t.Parallel()
	type wrong struct {
		name   string
		begin  func(*loginRig)
		detail string
	}
	for _, tt := range []wrong{
		{"away", func(r *loginRig) { r.sandbox.Play(sandbox.DiscoveryAway, -1) }, "503"},
		{"another issuer", func(r *loginRig) { r.sandbox.Play(sandbox.WrongDiscoveryIssuer, -1) }, "issuer"},
		{"an endpoint without TLS", func(r *loginRig) { r.sandbox.Play(sandbox.DiscoveryHTTP, -1) }, "https"},
		{"no token endpoint", func(r *loginRig) {
			r.wire.changes(func(s sent, m map[string]any) { delete(m, "token_endpoint") })
		}, "set token_endpoint"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			playLogin(t, oidcServer, func(r *loginRig) {
				tt.begin(r)
				a := r.found()
				s := r.start(a)
				defer r.stop()
				for range 60 {
					after(time.Minute)
					if f := r.failure(s, oauth.ErrUnavailable); f.RetryAt.IsZero() || !strings.Contains(f.Detail, tt.detail) {
						t.Fatalf("%+v", f)
					}
				}
				r.state(s, oauth.StateAway)
				if n := r.sandbox.TokenRequests(""); n != 0 {
					t.Errorf("%d token requests", n)
				}
				r.fetches(30, 2*60*4) // at least so seldom as the back-off has it
				r.sandbox.Clear()
				r.wire.changes(nil)
				r.within(s, 2*time.Minute)
				r.requests(1, 0)
			})
		})
		t.Run(tt.name+", of a login", func(t *testing.T) {
			t.Parallel()
			playLogin(t, oidcServer, func(r *loginRig) {
				tt.begin(r)
				s := r.start(r.discovered())
				defer r.stop()
				_, err := s.BeginLogin(r.Context(), anns())
				if e := r.refused(err, oauth.ErrLoginFailed); !strings.Contains(e.Detail, tt.detail) {
					t.Errorf("%q", e.Detail)
				}
				r.sandbox.Clear()
				r.wire.changes(nil)
				r.logIn(s)
				r.token(s)
			})
		})
	}
	t.Run("hanging: who leaves, leaves", func(t *testing.T) {
		t.Parallel()
		r := realRig(t, oidcServer)
		r.hangs()
		r.users(r.discovered())
		defer r.stop()
		begin := func(name string, patience time.Duration) (took time.Duration) {
			ctx, cancel := context.WithTimeout(r.Context(), patience)
			defer cancel()
			begun := time.Now()
			_, err := r.user(name).BeginLogin(ctx, by(name))
			r.refused(err, oauth.ErrLoginFailed)
			return time.Since(begun)
		}
		var first sync.WaitGroup
		first.Go(func() { begin("ann", time.Second) })
		time.Sleep(50 * time.Millisecond)
		if took := begin("bob", 50*time.Millisecond); took > 500*time.Millisecond {
			t.Errorf("who wanted to wait 50 ms waited %v for another's fetch", took)
		}
		first.Wait()
	})
}

// realRig is a rig in real time: a goroutine that waits for a mutex stops
// virtual time.
func realRig(t *testing.T, c sandbox.Config) *loginRig {
	t.Helper()
	r := &loginRig{rig: newRig(t, c)}
	r.wire = &tap{next: r.dial()}
	r.endpoints = r.sandbox.Endpoints(base)
	return r
}

package oauth_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// Metadata is fetched again once a day, behind what is going on.
func TestDiscoveryIsFetchedAgain(t *testing.T) {
	t.Parallel()
	t.Run("daily", func(t *testing.T) {
		t.Parallel()
		playLogin(t, oidcServer, func(r *loginRig) {
			s := r.start(r.found())
			defer r.stop()
			for range 7 * 24 {
				r.token(s)
				after(time.Hour)
			}
			r.fetches(6, 7)
		})
	})
	t.Run("a path that changed is used then", func(t *testing.T) {
		t.Parallel()
		playLogin(t, oidcServer, func(r *loginRig) {
			s := r.start(r.found())
			defer r.stop()
			r.token(s)
			r.wire.changes(func(s sent, m map[string]any) {
				if s.Method == http.MethodGet {
					m["token_endpoint"] = base + "/token?v=2"
				}
			})
			for range 23 {
				after(time.Hour)
				r.token(s)
			}
			last := func() string {
				seen := r.wire.to(base + "/token")
				return seen[len(seen)-1].URL.RawQuery
			}
			if last() != "" {
				t.Error("the new endpoint is used too early")
			}
			after(2 * time.Hour)
			_, _ = s.Token(r.Context())
			after(2 * time.Hour)
			_, _ = s.Token(r.Context())
			if last() != "v=2" {
				t.Error("the new endpoint isn't used")
			}
			r.wire.seen = nil // the sandbox's own rule about queries is no matter here
		})
	})
	for _, name := range []string{"away", "hanging", "of another issuer", "garbage"} {
		t.Run(name+": nobody notices", func(t *testing.T) {
			t.Parallel()
			playLogin(t, oidcServer, func(r *loginRig) {
				s := r.start(r.found())
				defer r.stop()
				r.token(s)
				switch name {
				case "away":
					r.sandbox.Play(sandbox.DiscoveryAway, -1)
				case "hanging":
					r.hangs()
				case "of another issuer":
					r.sandbox.Play(sandbox.WrongDiscoveryIssuer, -1)
				case "garbage":
					r.wire.answers(func(s sent) *http.Response {
						if s.Method == http.MethodGet {
							return reply(200, "{")
						}
						return nil
					})
				}
				for range 48 * 2 {
					after(30 * time.Minute)
					begun := time.Now()
					r.token(s)
					if took := time.Since(begun); took != 0 {
						t.Fatalf("a caller waited %v", took)
					}
				}
				r.state(s, oauth.StateReady)
				r.fetches(10, 2*26) // once an hour at most from the second day on; two places each
				if name == "hanging" {
					r.hears()
				}
				r.sandbox.Clear()
				r.wire.answers(nil)
				before := len(r.wire.seenBy())
				for range 24 {
					after(time.Hour)
					r.token(s)
				}
				fetched := 0
				for _, s := range r.wire.seenBy()[before:] {
					if s.Method == http.MethodGet {
						fetched++
					}
				}
				if fetched != 1 {
					t.Errorf("%d fetches in the day after it is well again", fetched)
				}
			})
		})
	}
}

// B54: secrets don't go to another host because a document says so.
func TestDiscoveryMoved(t *testing.T) {
	t.Parallel()
	playLogin(t, oidcServer, func(r *loginRig) {
		const moved = "http://localhost:8081/token"
		s := r.start(r.found())
		r.token(s)
		r.wire.changes(func(s sent, m map[string]any) {
			if s.Method == http.MethodGet {
				m["token_endpoint"] = moved
			}
		})
		warned := func() {
			t.Helper()
			if d := s.Status().Detail; !strings.Contains(d, "moved from 127.0.0.1:8081 to localhost:8081") || !strings.Contains(d, "set the endpoints") {
				t.Errorf("the status says %q", d)
			}
		}
		for range 30 {
			after(time.Hour)
			r.token(s)
		}
		warned()
		r.state(s, oauth.StateReady)
		// It says so as long as nothing else is known.
		r.sandbox.Play(sandbox.DiscoveryAway, -1)
		for range 30 {
			after(time.Hour)
			r.token(s)
		}
		warned()
		r.sandbox.Clear()
		r.stop()
		s = r.start(r.found())
		defer r.stop()
		for range 30 {
			after(time.Hour)
			r.token(s)
		}
		warned()
		if got := r.hosts(); got != "127.0.0.1:8081" {
			t.Errorf("token requests went to %s", got)
		}

		elsewhere := r.found()
		elsewhere.Client.Issuer = "http://localhost:8081"
		r.configure(elsewhere)
		r.token(s)
		if d := s.Status().Detail; d != "" {
			t.Errorf("of another issuer, the status says %q", d)
		}
		r.configure(r.found())
		r.token(s)
		before := r.hosts()

		a := r.found()
		a.Client.TokenEndpoint = moved // the operator consents
		r.configure(a)
		for range 30 {
			after(time.Hour)
			r.token(s)
		}
		if got := strings.TrimPrefix(r.hosts(), before); got != " localhost:8081" && got != "" || !strings.HasSuffix(r.hosts(), "localhost:8081") {
			t.Errorf("token requests went to %s", r.hosts())
		}
		if d := s.Status().Detail; d != "" {
			t.Errorf("the status still says %q", d)
		}
		if n := r.sandbox.TokenRequests("password"); n != 2 { // one at each issuer
			t.Errorf("%d sign-ins: the tokens were lost on the way", n)
		}
	})
}

package oauth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

var oidcServer = sandbox.Config{Provider: "oidc", AlwaysRefreshToken: true}

// found is an account that needs nobody, whose endpoints come from metadata.
func (r *loginRig) found() *oauth.Account {
	a := r.discovered()
	a.Grant = r.account().Grant
	return a
}

// fetches checks how often the metadata was asked for.
func (r *loginRig) fetches(least, most int) {
	r.Helper()
	n := 0
	for _, s := range r.wire.seenBy() {
		if strings.Contains(s.URL.Path, "/.well-known/") {
			n++
		}
	}
	if n < least || n > most {
		r.Errorf("metadata was asked for %d times, want %d to %d", n, least, most)
	}
}

func (t *tap) seenBy() []sent {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]sent(nil), t.seen...)
}

// hosts are those that token requests went to.
func (r *loginRig) hosts() string {
	var hosts []string
	for _, s := range r.wire.seenBy() {
		if s.Form.Has("grant_type") && (len(hosts) == 0 || hosts[len(hosts)-1] != s.URL.Host) {
			hosts = append(hosts, s.URL.Host)
		}
	}
	return strings.Join(hosts, " ")
}

// hangs lets requests for metadata wait until the client gives up.
func (r *loginRig) hangs() {
	r.wire.mu.Lock()
	defer r.wire.mu.Unlock()
	r.wire.next = deaf{r.wire.next}
}

// A deaf server answers everything but requests for metadata.
type deaf struct{ http.RoundTripper }

func (d deaf) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.Contains(req.URL.Path, "/.well-known/") {
		return hanging{}.RoundTrip(req)
	}
	return d.RoundTripper.RoundTrip(req)
}

func (r *loginRig) hears() {
	r.wire.mu.Lock()
	defer r.wire.mu.Unlock()
	r.wire.next = r.wire.next.(deaf).RoundTripper
}

// One fetch is for all sessions of an account, and for the logins.
func TestDiscoveryIsFetchedOnce(t *testing.T) {
	t.Parallel()
	t.Run("many at a time", func(t *testing.T) {
		t.Parallel()
		r := realRig(t, oidcServer)
		r.wire.answers(func(s sent) *http.Response {
			if s.Method == http.MethodGet {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		})
		r.users(r.discovered())
		defer r.stop()
		var people sync.WaitGroup
		for i := range 20 {
			people.Go(func() {
				name := fmt.Sprint("user", i)
				q := r.approve(r.begin(r.user(name), by(name)))
				if _, err := r.sessions.FinishLogin(r.Context(), q.Encode(), by(name).Browser, name); err != nil {
					t.Error(err)
				}
				r.token(r.user(name))
			})
		}
		people.Wait()
		r.fetches(1, 1)
	})
	t.Run("and over a restart", func(t *testing.T) {
		t.Parallel()
		playLogin(t, oidcServer, func(r *loginRig) {
			r.users(r.discovered())
			for i := range 10 {
				name := fmt.Sprint("user", i)
				q := r.approve(r.begin(r.user(name), by(name)))
				if _, err := r.sessions.FinishLogin(r.Context(), q.Encode(), by(name).Browser, name); err != nil {
					t.Fatal(err)
				}
			}
			after(2 * time.Hour)
			r.token(r.user("user7"))
			r.logsOut(r.user("user8"), true, "")
			r.fetches(1, 1)
			r.stop()

			r.sandbox.Play(sandbox.DiscoveryAway, -1)
			r.users(r.discovered())
			defer r.stop()
			after(2 * time.Hour)
			r.token(r.user("user7"))
			if err := r.user("user9").Refresh(r.Context()); err != nil {
				t.Error(err)
			}
			l := r.begin(r.user("user10"), by("user10"))
			if !strings.HasPrefix(l.URL, r.endpoints.Authorize+"?") {
				t.Errorf("the login goes to %s", l.URL)
			}
			r.fetches(1, 1)
		})
	})
}

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

		a := r.found()
		a.Client.TokenEndpoint = moved // the operator consents
		r.configure(a)
		for range 30 {
			after(time.Hour)
			r.token(s)
		}
		if got := r.hosts(); got != "127.0.0.1:8081 localhost:8081" {
			t.Errorf("token requests went to %s", got)
		}
		if d := s.Status().Detail; d != "" {
			t.Errorf("the status still says %q", d)
		}
		if n := r.sandbox.TokenRequests("password"); n != 1 {
			t.Errorf("%d sign-ins: the tokens were lost on the way", n)
		}
	})
}

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

// B53: another issuer is another server, whose metadata is fetched.
func TestDiscoveryOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	playLogin(t, oidcServer, func(r *loginRig) {
		s := r.start(r.found())
		defer r.stop()
		first := r.family(s)
		a := r.found()
		a.Client.Issuer = "http://localhost:8081"
		r.configure(a)
		if r.family(s) == first {
			t.Error("the former issuer's tokens are in use")
		}
		if got := r.hosts(); got != "127.0.0.1:8081 localhost:8081" {
			t.Errorf("token requests went to %s", got)
		}
		r.fetches(2, 2)
		r.configure(r.found())
		if r.family(s) != first {
			t.Error("back again, it has other tokens")
		}
		after(2 * time.Hour)
		r.token(s)
		if got := r.hosts(); got != "127.0.0.1:8081 localhost:8081 127.0.0.1:8081" {
			t.Errorf("token requests went to %s", got)
		}
	})
}

// All grants and the revocation use what was found.
func TestDiscoveryOfADeviceLogin(t *testing.T) {
	t.Parallel()
	playLogin(t, oidcServer, func(r *loginRig) {
		a := r.discovered()
		a.Grant = oauth.DeviceCode{}
		s := r.start(a)
		defer r.stop()
		l := r.begin(s, anns())
		if u, err := url.Parse(l.Device.VerificationURI); err != nil || u.Path != "/device" {
			t.Errorf("%+v", l.Device)
		}
		if err := r.sandbox.ApproveDevice(l.Device.UserCode, "sandbox-user"); err != nil {
			t.Fatal(err)
		}
		after(10 * time.Second)
		r.token(s)
		r.logsOut(s, true, "")
	})
}

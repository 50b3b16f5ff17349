package oauth_test

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// Something between us and the server, or a wrong endpoint.
func TestSomethingBetween(t *testing.T) {
	t.Parallel()
	for _, fault := range []sandbox.Fault{sandbox.HTML, sandbox.HTMLForbidden, sandbox.Redirect} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.account())
				defer r.stop()
				r.token(s)
				r.sandbox.Play(fault, -1)
				r.away(s, soon)
				r.sandbox.Clear()
				r.within(s, soon)
				if n := r.sandbox.TokenRequests("password"); n != 1 {
					t.Errorf("%d password logins", n)
				}
				for _, e := range r.sandbox.Events() {
					if e.Kind == sandbox.KindFollowed {
						t.Fatal("a redirect was followed")
					}
				}
			})
		})
	}
	t.Run("404", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			wrong := r.account()
			wrong.Client.TokenEndpoint = "http://as.test/wrong"
			r.sessions.Configure(r.Context(), []*oauth.Account{wrong})
			r.away(s, soon)
			r.requests(1, 0)
			r.sessions.Configure(r.Context(), []*oauth.Account{r.account()})
			r.within(s, time.Second)
			r.requests(1, 1)
		})
	})
}

// soon and blind are how long a session rests at most if it can tell that the
// server lives without a token request, and if it can't.
const (
	soon  = 31 * time.Second
	blind = 2*time.Minute + soon
)

// outage is an hour in which every refresh fails: nobody notices while the
// access token lives, then callers learn when to come again.
func (r *rig) outage(s *oauth.Session) {
	r.Helper()
	r.away(s, blind)
}

// away is an outage in which the session rests at most so long.
func (r *rig) away(s *oauth.Session, most time.Duration) {
	r.Helper()
	before := r.sandbox.TokenRequests("")
	for range 59 { // to the token's 590th second
		after(10 * time.Second)
		r.token(s)
	}
	for range 300 {
		after(10 * time.Second)
		f := r.failure(s, oauth.ErrUnavailable)
		if wait := time.Until(f.RetryAt); f.RetryAt.IsZero() || wait > most {
			r.Fatalf("the next attempt is at %v, in %v", f.RetryAt, wait)
		}
	}
	r.state(s, oauth.StateAway)
	if n := r.sandbox.TokenRequests("") - before; n > 40 {
		r.Errorf("%d token requests in an hour", n)
	}
	if !s.Status().HasRefreshToken {
		r.Error("the refresh token is gone")
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	for _, fault := range []sandbox.Fault{sandbox.Unavailable, sandbox.ServerError, sandbox.BadGateway} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.account())
				defer r.stop()
				r.token(s)
				r.sandbox.Play(fault, -1)
				r.away(s, soon)
				r.sandbox.Clear()
				r.within(s, soon)
				if n := r.sandbox.TokenRequests("password"); n != 1 {
					t.Errorf("%d password logins", n)
				}
			})
		})
	}
	t.Run("the network is down", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			var down atomic.Bool
			a := r.account()
			tr := a.Client.Transport.(*http.Transport)
			dial := tr.DialContext
			tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				if down.Load() {
					return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Name: "as.test"}}
				}
				return dial(ctx, network, address)
			}
			a.OnLostReply = oauth.LostStop // nothing was sent: it doesn't count as lost
			s := r.start(a)
			defer r.stop()
			r.token(s)
			down.Store(true)
			r.away(s, soon)
			down.Store(false)
			r.within(s, soon)
			r.requests(1, 1)
		})
	})
	t.Run("before the first sign-in", func(t *testing.T) {
		t.Parallel()
		play(t, sandbox.Config{}, func(r *rig) {
			r.sandbox.Play(sandbox.Unavailable, -1)
			s := r.start(r.account())
			defer r.stop()
			after(time.Hour)
			r.failure(s, oauth.ErrUnavailable)
			if n := r.sandbox.TokenRequests(""); n > 40 {
				t.Errorf("%d token requests in an hour", n)
			}
			r.sandbox.Clear()
			r.within(s, soon)
		})
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{"120": 2 * time.Minute, "99999999999999999999": 5 * time.Minute} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{RetryAfter: header}, func(r *rig) {
				s := r.start(r.account())
				defer r.stop()
				r.token(s)
				r.sandbox.Play(sandbox.TooManyRequests, -1)
				r.stale(s)
				for range 180 {
					after(20 * time.Second)
					_, _ = s.Token(r.Context())
				}
				if !s.Status().HasRefreshToken {
					t.Error("the refresh token is gone")
				}
				var asked []time.Time // a probe's answer counts, too
				for _, e := range r.sandbox.Events() {
					if e.Grant == "refresh_token" || e.Kind == sandbox.KindProbe && e.Status == 429 {
						asked = append(asked, e.At)
					}
				}
				for i := range asked[1:] {
					if gap := asked[i+1].Sub(asked[i]); gap < want || gap > want+10*time.Second {
						t.Errorf("asked again after %v, want %v", gap, want)
					}
				}
				if len(asked) < 11 {
					t.Errorf("asked %d times in an hour", len(asked))
				}
				r.sandbox.Clear()
				r.within(s, want+10*time.Second)
				if n := r.sandbox.TokenRequests("password"); n != 1 {
					t.Errorf("%d password logins", n)
				}
			})
		})
	}
}

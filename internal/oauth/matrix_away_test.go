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

// An absence is a way in which an authorization server is away.
type absence struct {
	name  string
	start func(r *rig)
	// recovery is how long after its return there must be a token.
	recovery time.Duration
}

func absences(down *atomic.Bool) []absence {
	list := []absence{
		{"no connection", func(*rig) { down.Store(true) }, soon},
		{"an hour of lost replies", func(r *rig) { r.sandbox.Play(sandbox.LostReply, -1) }, blind},
		{"500 to POST alone", func(r *rig) { r.sandbox.Play(sandbox.LateServerError, -1) }, blind},
	}
	for _, fault := range []sandbox.Fault{sandbox.Unavailable, sandbox.ServerError, sandbox.BadGateway, sandbox.TooManyRequests, sandbox.HTML, sandbox.HTMLForbidden} {
		list = append(list, absence{string(fault), func(r *rig) { r.sandbox.Play(fault, -1) }, soon})
	}
	return list
}

// A dropout is a way to the server that can be cut.
func (r *rig) dropout(a *oauth.Account, down *atomic.Bool) {
	tr := a.Client.Transport.(*http.Transport)
	dial := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if down.Load() {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Name: "as.test"}}
		}
		return dial(ctx, network, address)
	}
}

// hour is one in which callers come all the time and get a token as long as
// the last one lives. It returns how long that was.
func (r *rig) hour(s *oauth.Session) (served time.Duration) {
	r.Helper()
	begin := time.Now()
	for time.Since(begin) < time.Hour {
		if tok, err := s.Token(r.Context()); err == nil {
			served = time.Since(begin)
			if status := r.call(tok); status != 200 {
				r.Fatalf("%v: the API answers %d", served, status)
			}
		} else if f := r.failure(s, oauth.ErrUnavailable); time.Until(f.RetryAt) > blind {
			r.Fatalf("callers are told to come again in %v", time.Until(f.RetryAt))
		}
		time.Sleep(time.Second)
	}
	return served
}

// F35: the authorization server is away for an hour, then back. Expected: the
// access token is used to its end; then 503 with Retry-After; at most 40
// attempts; recovery within the back-off's cap, 30 s. Best: 1.
func TestF35ServerAwayForAnHour(t *testing.T) {
	t.Parallel()
	down := new(atomic.Bool)
	most, told, untold := 0, time.Duration(0), time.Duration(0)
	for _, away := range absences(down) {
		t.Run(away.name, func(t *testing.T) { // one after the other: they share down
			attempts, slowest, probes := 0, time.Duration(0), 0
			for range 5 { // the jitter differs
				play(t, sandbox.Config{Grace: 24 * time.Hour}, func(r *rig) {
					a := r.account()
					r.dropout(a, down)
					s := r.start(a)
					defer r.stop()
					r.token(s)
					away.start(r)
					before := r.sandbox.TokenRequests("")
					if served := r.hour(s); served < 590*time.Second {
						t.Errorf("callers got a token for %v, want 10 min", served)
					}
					attempts = max(attempts, r.sandbox.TokenRequests("")-before)
					probes = max(probes, r.probes())
					r.sandbox.Clear()
					down.Store(false)
					back := time.Now()
					for s.Current() == nil && time.Since(back) < time.Hour {
						_, _ = s.Token(r.Context())
						time.Sleep(100 * time.Millisecond)
					}
					slowest = max(slowest, time.Since(back))
					r.token(s)
					if n := r.sandbox.TokenRequests("password"); n != 1 {
						t.Errorf("%d password logins", n)
					}
				})
			}
			if attempts > 40 || slowest > away.recovery {
				t.Errorf("%d attempts in the hour, recovery after %v; want at most 40, %v", attempts, slowest, away.recovery)
			}
			t.Logf("%s: at most %d attempts in the hour and %d probes; a token %v after its return", away.name, attempts, probes, slowest.Round(time.Second/10))
			most = max(most, attempts)
			if away.recovery == blind {
				untold = max(untold, slowest)
			} else {
				told = max(told, slowest)
			}
		})
	}
	measured(t, 35, 1, "at most %d attempts in the hour; a token %v after the return, %v where the server answered GET as if it lived",
		most, told.Round(time.Second/10), untold.Round(time.Second/10))
	t.Logf("G10: callers served to the token's end; at most %d attempts; recovery %v, %v where the server answered GET as if it lived",
		most, told.Round(time.Second/10), untold.Round(time.Second/10))
}

// probes counts the probes, and checks that there is nothing in them.
func (r *rig) probes() int {
	r.Helper()
	n := 0
	for _, e := range r.sandbox.Events() {
		switch {
		case e.Kind == sandbox.KindFollowed:
			r.Error("a redirect was followed")
		case e.Kind != sandbox.KindProbe:
		case e.Method != "GET" || e.ClientAuth != "none" || e.ClientID != "" || e.Grant != "" || e.Username != "":
			r.Errorf("a probe with something in it: %+v", e)
		default:
			n++
		}
	}
	return n
}

// An operator's refresh is an attempt, whatever the circuit says.
func TestRefreshIsNoProbe(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		s := r.start(r.account())
		defer r.stop()
		r.token(s)
		r.sandbox.Play(sandbox.Unavailable, -1)
		after(20 * time.Minute)
		_, _ = s.Token(r.Context())
		after(time.Minute)
		probes, requests := r.probes(), r.sandbox.TokenRequests("")
		if probes == 0 {
			t.Fatal("the circuit isn't open")
		}
		if err := s.Refresh(r.Context()); err == nil {
			t.Error("it got a token")
		}
		if p, n := r.probes()-probes, r.sandbox.TokenRequests("")-requests; p != 0 || n != 1 {
			t.Errorf("%d probes, %d token requests; want 1 token request", p, n)
		}
	})
}

// After a restart there is one attempt at once, not a probe.
func TestRestartClosesTheCircuit(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		s := r.start(r.account())
		r.token(s)
		r.sandbox.Play(sandbox.Unavailable, -1)
		r.outage(s)
		r.stop()
		r.sandbox.Clear()
		probes := r.probes()
		s = r.start(r.account())
		defer r.stop()
		r.token(s)
		if n := r.probes() - probes; n != 0 {
			t.Errorf("%d probes", n)
		}
	})
}

// What is configured anew is tried at once, whatever failed before.
func TestChangeClosesTheCircuit(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{Grace: day}, func(r *rig) {
		s := r.start(r.account())
		defer r.stop()
		r.token(s)
		r.sandbox.Play(sandbox.LateServerError, -1)
		r.outage(s)
		for n := r.sandbox.TokenRequests(""); r.sandbox.TokenRequests("") == n; { // to the beginning of a pause
			after(time.Second)
		}
		r.sandbox.Clear()
		stop := r.account()
		stop.OnLostReply = oauth.LostStop
		r.configure(stop)
		r.fails(s, oauth.ErrLoginRequired) // as it says
		r.configure(r.account())
		r.within(s, time.Second)
	})
}

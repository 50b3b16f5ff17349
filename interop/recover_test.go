package interop

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"syscall"
	"testing"
	"time"
)

// requests returns the log in short: grant and status of each token request.
func (r *rig) requests() []string {
	var all []string
	for _, e := range r.TokenEvents() {
		all = append(all, e.Grant+" "+http.StatusText(e.Status))
	}
	return all
}

// want compares the log, once it is as long: a request may be made behind the
// caller's back.
func (r *rig) want(requests ...string) {
	r.Helper()
	for end := time.Now().Add(patience); len(r.TokenEvents()) < len(requests) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if got := r.requests(); !slices.Equal(got, requests) {
		r.Errorf("the token requests were %q, want %q", got, requests)
	}
}

const (
	signedIn  = "password OK"
	refreshed = "refresh_token OK"
	dead      = "refresh_token Bad Request"
)

// Somebody uses an old refresh token of ours: the server revokes the family, the
// API refuses our access token, and one sign-in mends it under way.
func TestFamilyRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t, withLifetime(10*time.Minute), nil)
	p := newProxy(r)
	p.run()
	p.works()
	if out, err := p.bearer("refresh", "erp"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.works()
	r.want(signedIn, refreshed)

	if a := r.ask(refresh(r.Spent())); a.status != 400 || a.Error != "invalid_grant" {
		t.Fatalf("the thief got %d %s", a.status, a.Error)
	}
	_, refused := r.APIRequests()
	p.works()
	if _, now := r.APIRequests(); now != refused+1 {
		t.Errorf("the API refused %d requests, want 1", now-refused)
	}
	r.want(signedIn, refreshed, dead, dead, signedIn)
	events := r.TokenEvents()
	if events[2].Presented != events[1].Presented || events[3].Presented == events[1].Presented {
		t.Errorf("the thief's or our refresh token is another: %+v", events)
	}

	if out, err := p.bearer("refresh", "erp"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	p.restart() // the new family is on the disk
	p.works()
	r.want(signedIn, refreshed, dead, dead, signedIn, refreshed)
}

// A trap stands before the token endpoint and holds one refresh back, before or
// after the server decides it. Its answer never arrives.
type trap struct {
	next    http.Handler
	commit  bool          // let the server decide it first
	armed   chan struct{} // take a value: the next refresh is caught
	caught  chan struct{} // gets a value when one is
	release chan struct{} // give a value to break its connection
}

func newTrap(commit bool) *trap {
	return &trap{commit: commit, armed: make(chan struct{}, 1), caught: make(chan struct{}), release: make(chan struct{})}
}

func (tp *trap) wrap(next http.Handler) http.Handler {
	tp.next = next
	return tp
}

func (tp *trap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if sent, err := form(r); err != nil || sent.Get("grant_type") != "refresh_token" {
		tp.next.ServeHTTP(w, r)
		return
	}
	select {
	case <-tp.armed:
	default:
		tp.next.ServeHTTP(w, r)
		return
	}
	if tp.commit {
		tp.next.ServeHTTP(httptest.NewRecorder(), r)
	}
	tp.caught <- struct{}{}
	<-tp.release
	panic(http.ErrAbortHandler)
}

// wait waits for c, but not for ever.
func wait[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("it doesn't happen")
	}
	return v
}

// A refresh is cut off at the two places where it hurts, by the end of the proxy
// or of the connection. A spent token costs one sign-in, an unspent one nothing,
// and the application's next request is served in any case.
func TestRefreshCutOff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		commit, kill bool
		want         []string
	}{
		{"killed before the server decides", false, true, []string{signedIn, refreshed}},
		{"killed before our commit", true, true, []string{signedIn, refreshed, dead, signedIn}},
		{"connection lost before the server decides", false, false, []string{signedIn, refreshed}},
		{"answer lost", true, false, []string{signedIn, refreshed, dead, signedIn}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tp := newTrap(tt.commit)
			r := newRig(t, withLifetime(10*time.Minute), tp.wrap)
			p := newProxy(r)
			p.run()
			p.works()
			tp.armed <- struct{}{}
			asked := make(chan error, 1)
			go func() {
				_, err := p.bearer("refresh", "erp")
				asked <- err
			}()
			wait(t, tp.caught)
			if tt.kill {
				p.stop(syscall.SIGKILL)
			}
			tp.release <- struct{}{}
			if err := wait(t, asked); tt.kill != (err != nil) {
				t.Errorf("caddy bearer refresh: %v", err)
			}
			if tt.kill {
				p.run()
			}
			p.works()
			r.want(tt.want...)
			if _, refused := r.APIRequests(); !tt.kill && refused != 0 {
				t.Error("caddy bearer refresh said that there is a new token, and the API refuses it")
			}
			if len(tt.want) == 4 {
				if e := r.TokenEvents(); e[1].Presented != e[2].Presented {
					t.Errorf("another refresh token was presented: %+v", e)
				}
			}
		})
	}
}

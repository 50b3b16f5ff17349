package oauth_test

import (
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
				if _, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: q.Encode(), Browser: by(name).Browser, By: name}); err != nil {
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
				if _, err := r.sessions.FinishLogin(r.Context(), oauth.LoginFinish{Query: q.Encode(), Browser: by(name).Browser, By: name}); err != nil {
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

// A login may begin before the metadata is there, if its endpoint is
// configured.
func TestLoginBeforeMetadata(t *testing.T) {
	t.Parallel()
	playLogin(t, oidcServer, func(r *loginRig) {
		a := r.discovered()
		a.Client.AuthorizeEndpoint = "http://127.0.0.1:8081/authorize"
		s := r.start(a)
		defer r.stop()
		r.logIn(s)
		r.token(s)
	})
}

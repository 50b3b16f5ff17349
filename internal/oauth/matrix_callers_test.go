package oauth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// another is a second holder of the session erp, in a process of its own, that
// no lock keeps away.
func (r *rig) another(st oauth.Store, a *oauth.Account) *oauth.Session {
	r.Helper()
	other := oauth.NewSessions(r.log)
	other.Open(lockless{st})
	other.Configure(r.Context(), []*oauth.Account{a})
	s, err := other.Session(r.Context(), oauth.Key{Account: "erp"})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := other.Close(r.Context()); err != nil {
			r.Error(err)
		}
	})
	return s
}

// durable gives the rig a store in files, as the program has it.
func (r *rig) durable(path string, key store.Key) *store.Durable {
	r.Helper()
	d, err := store.Open(store.Place{Database: path})
	if err != nil {
		r.Fatal(err)
	}
	if err := d.UseKeys(r.Context(), store.Keys{Current: key}); err != nil {
		r.Fatal(errors.Join(err, d.Close()))
	}
	r.store = d
	return d
}

// F37: invalid_grant for an older generation than the store has. Expected: read
// again, ignored. Best: 0.
func TestF37InvalidGrantForAnOlderGeneration(t *testing.T) {
	t.Parallel()
	severity, calls := 0, 0
	for name, account := range map[string]func(*rig) *oauth.Account{"relogin on": (*rig).account, "relogin off": (*rig).noRelogin} {
		t.Run(name, func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				var refuse times
				g := r.between(func(w http.ResponseWriter, req *http.Request) bool {
					if !refuse.take() {
						return false
					}
					time.Sleep(5 * time.Second) // meanwhile another one refreshes
					page{400, "application/json", `{"error":"invalid_grant"}`, nil}.serve(w)
					return true
				})
				shared := r.store
				r.store = lockless{shared}
				s := r.start(account(r))
				defer r.stop()
				r.token(s)
				theirs := r.another(shared, account(r))
				app := r.inUse(s)
				refuse.set(1)
				done := make(chan error)
				go func() { done <- s.Refresh(r.Context()) }()
				time.Sleep(time.Second)
				if err := theirs.Refresh(r.Context()); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Errorf("the refresh that was overtaken: %v", err)
				}
				after(3 * life)
				severity = max(severity, app.end())
				calls += app.calls
				t.Log(app)
				if !s.Status().HasRefreshToken {
					t.Error("the newer refresh token is dropped")
				}
				if got := g.tokens(); len(got) < 4 || got[:3] != "AAB" {
					t.Errorf("refresh tokens %s were sent, want the newer one after the refusal", got)
				}
				r.requests(1, r.sandbox.TokenRequests("refresh_token"))
			})
		})
	}
	if severity != 0 {
		t.Errorf("severity %d", severity)
	}
	measured(t, 37, severity, "%d calls, 0 failed, no password login: the newer generation is used", calls)
}

// A doubleServer rotates twice when a refresh token is used by two at a time:
// both of its answers are good (as Apache CXF did, CVE-2026-50631).
type doubleServer struct {
	mu      sync.Mutex
	valid   map[string]bool
	issued  int
	waiting []chan struct{}
	double  bool // hold requests until there are two
	refused int
}

func (d *doubleServer) serve(w http.ResponseWriter, req *http.Request) bool {
	token := req.FormValue("refresh_token")
	d.mu.Lock()
	ok := token == "" || d.valid[token]
	if !ok {
		d.refused++
	}
	var turn chan struct{}
	if d.double && token != "" {
		turn = make(chan struct{})
		d.waiting = append(d.waiting, turn)
	}
	d.mu.Unlock()
	if turn != nil {
		<-turn
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !ok {
		page{400, "application/json", `{"error":"invalid_grant"}`, nil}.serve(w)
		return true
	}
	delete(d.valid, token)
	d.issued++
	next := fmt.Sprint("RT", d.issued)
	d.valid[next] = true
	page{200, "application/json", fmt.Sprintf(`{"access_token":"AT%d","token_type":"bearer","expires_in":600,"refresh_token":%q}`, d.issued, next), nil}.serve(w)
	return true
}

// hold makes requests wait from now on, or no longer; it returns those that
// wait.
func (d *doubleServer) hold(double bool) []chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting := d.waiting
	d.double, d.waiting = double, nil
	return waiting
}

// F51: the server rotates twice on parallel use. Expected: the last one that is
// committed wins. Best: 0.
func TestF51ServerRotatesTwiceOnParallelUse(t *testing.T) {
	t.Parallel()
	rounds := 0
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		t.Run(fmt.Sprint("answered in the order ", order), func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				d := &doubleServer{valid: map[string]bool{}}
				g := r.between(d.serve)
				shared := r.store
				r.store = lockless{shared}
				s := r.start(r.account())
				defer r.stop()
				if _, err := s.Token(r.Context()); err != nil {
					t.Fatal(err)
				}
				theirs := r.another(shared, r.account())
				for range 5 {
					d.hold(true)
					var both sync.WaitGroup
					for _, one := range []*oauth.Session{s, theirs} {
						both.Go(func() {
							if err := one.Refresh(r.Context()); err != nil {
								t.Errorf("Refresh: %v", err)
							}
						})
						time.Sleep(time.Second)
					}
					waiting := d.hold(false)
					if len(waiting) != 2 {
						t.Fatalf("%d requests at a time", len(waiting))
					}
					for _, i := range order {
						close(waiting[i])
						time.Sleep(time.Second)
					}
					both.Wait()
					after(2 * life) // both are idle, and their tokens expired
					for _, one := range []*oauth.Session{s, theirs} {
						if _, err := one.Token(r.Context()); err != nil {
							t.Errorf("Token: %v", err)
						}
					}
					rounds++
				}
				d.mu.Lock()
				defer d.mu.Unlock()
				if d.refused != 0 || g.answered.Load() != int32(d.issued) {
					t.Errorf("%d of %d requests were refused: a token that was given up is sent", d.refused, g.answered.Load())
				}
				if logins := d.issued - len(g.tokens()); logins != 1 {
					t.Errorf("%d password logins", logins)
				}
			})
		})
	}
	measured(t, 51, 0, "%d double rotations, answered in either order: 0 refusals, no password login", rounds)
}

// F52: the server gives a refresh token with odd bytes, or of 16 KiB. Expected:
// stored verbatim, form-encoded. Best: 0.
func TestF52OddRefreshTokens(t *testing.T) {
	t.Parallel()
	odd := []string{
		" leading and trailing ", "a+b%20c&d=e;f", "%00%", `"quoted" \back\slash/ <&>`, "tab\tline\r\nfeed\x00\x01\x7f", "é ü \u2028 \U0001f511 \ufeff",
		"null", "[]", "grant_type=password", "Bearer x", strings.Repeat("x", 16<<10), strings.Repeat("é&+% ", 16<<10/6), "plain",
	}
	play(t, sandbox.Config{}, func(r *rig) {
		path, key := filepath.Join(t.TempDir(), "data", "tokens.db"), store.NewKey()
		given, sent := 0, []string(nil)
		r.between(func(w http.ResponseWriter, req *http.Request) bool {
			body, _ := io.ReadAll(req.Body)
			for part := range strings.SplitSeq(string(body), "&") {
				if name, value, _ := strings.Cut(part, "="); name == "refresh_token" {
					sent = append(sent, value)
				}
			}
			answer, _ := json.Marshal(map[string]any{"access_token": "AT", "token_type": "bearer", "expires_in": 600, "refresh_token": odd[given%len(odd)]})
			given++
			page{200, "application/json", string(answer), nil}.serve(w)
			return true
		})
		for range odd { // each over a restart
			d := r.durable(path, key)
			s := r.start(r.account())
			if _, err := s.Token(r.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.Refresh(r.Context()); err != nil {
				t.Error(err)
			}
			r.stop()
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if len(sent) != len(odd) {
			t.Errorf("%d refreshes, want %d", len(sent), len(odd))
		}
		for i, value := range sent {
			if want := url.QueryEscape(odd[i]); value != want {
				t.Errorf("token %d was sent as %.60s, want %.60s", i, value, want)
			}
		}
	})
	measured(t, 52, 0, "%d tokens of up to 16 KiB, each sealed, on disk and over a restart: sent back byte for byte", len(odd))
}

// G12: 1,000 callers at a time at expiry, 100 rounds. Target: exactly 100
// refreshes, and nobody is left without a token.
func TestG12CallersAtExpiry(t *testing.T) {
	t.Parallel()
	const callers, rounds = 1000, 100
	play(t, sandbox.Config{Delay: 300 * time.Millisecond}, func(r *rig) {
		s := r.start(r.account())
		defer r.stop()
		r.token(s)
		after(life) // refreshed, then idle
		refreshes, failed, longest := 0, 0, time.Duration(0)
		for range rounds {
			after(2 * life) // the token of the last round was refreshed once, as it was in use
			var wg sync.WaitGroup
			var mu sync.Mutex
			start := make(chan struct{})
			for range callers {
				wg.Go(func() {
					<-start
					begin := time.Now()
					_, err := s.Token(r.Context())
					mu.Lock()
					defer mu.Unlock()
					if longest = max(longest, time.Since(begin)); err != nil {
						failed++
					}
				})
			}
			requests := r.sandbox.TokenRequests("")
			if s.Current() != nil {
				t.Fatal("the token has not expired")
			}
			close(start)
			wg.Wait()
			n := r.sandbox.TokenRequests("") - requests
			if refreshes += n; n != 1 {
				t.Errorf("%d token requests for %d callers", n, callers)
			}
		}
		if n := r.sandbox.TokenRequests("password"); n != 1 {
			t.Errorf("%d password logins", n)
		}
		t.Logf("G12: %d refreshes for %d rounds of %d callers, %d without a token, longest wait %v of which the server took 300ms", refreshes, rounds, callers, failed, longest)
		if failed > 0 || longest > 400*time.Millisecond {
			t.Errorf("%d failed, longest wait %v", failed, longest)
		}
	})
}

// G13: wrong password, 100 restarts on a database file. Target: 1 attempt per
// secret.
func TestG13WrongPasswordOver100Restarts(t *testing.T) {
	t.Parallel()
	const restarts = 100
	play(t, sandbox.Config{}, func(r *rig) {
		path, key := filepath.Join(t.TempDir(), "data", "tokens.db"), store.NewKey()
		password := newText("wrong")
		a := r.account()
		a.Grant.(*oauth.Password).Secret = password.secret
		for i := range restarts {
			if i == restarts/2 {
				password.set("also wrong")
			}
			d := r.durable(path, key)
			s := r.start(a)
			r.fails(s, oauth.ErrCredentialsRejected)
			after(time.Minute)
			r.fails(s, oauth.ErrCredentialsRejected)
			r.stop()
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		r.requests(2, 0)
		t.Logf("G13: %d attempts with 2 wrong passwords over %d restarts", r.sandbox.TokenRequests(""), restarts)
	})
}

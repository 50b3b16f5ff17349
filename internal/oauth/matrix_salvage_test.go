package oauth_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// neverCommitted makes the next refreshes get an answer that breaks off behind
// a complete refresh token which the server doesn't know: it took everything
// back. Call it before account.
func (r *rig) neverCommitted() *times {
	cut := new(times)
	r.between(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPost || r.sandbox.TokenRequests("password") == 0 || !cut.take() {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		_, _ = fmt.Fprint(w, `{"token_type":"bearer","access_token":"x","refresh_token":"`+candidate+`","expires`)
		return true
	})
	return cut
}

const candidate = "never-committed"

// stored is all that the store has, in clear.
func (r *rig) stored(s *oauth.Session) string {
	r.Helper()
	e, err := r.store.Load(r.Context(), s.Key())
	if err != nil {
		r.Fatal(err)
	}
	return string(e.Value)
}

// F25: 200 with truncated JSON. Expected: the refresh token is salvaged, and
// tried before the old one. Best: 0.
func TestF25TruncatedJSON(t *testing.T) {
	t.Parallel()
	severity := 0
	t.Run("the server committed: the candidate is good, the old one isn't sent", func(t *testing.T) {
		play(t, sandbox.Config{}, func(r *rig) { // no grace: the old one would end it all
			a := r.account()
			s := r.start(a)
			app := r.inUse(s)
			r.sandbox.Play(sandbox.Truncated, 1)
			after(life)
			severity = max(severity, app.end())
			r.spent("f1.g1", "f1.g2")
			r.requests(1, 2)
			if strings.Contains(r.stored(s), "fallback") {
				t.Error("the fallback is kept beside a good refresh token")
			}
			r.stop()
		})
	})
	t.Run("it did not: the old one is tried at once, with no login", func(t *testing.T) {
		play(t, sandbox.Config{}, func(r *rig) {
			cut := r.neverCommitted()
			a := r.account()
			s := r.start(a)
			app := r.inUse(s)
			cut.set(1)
			after(life)
			severity = max(severity, app.end())
			r.spent("", "f1.g1")
			r.requests(1, 2)
			if kept := r.stored(s); strings.Contains(kept, "fallback") || strings.Contains(kept, candidate) || strings.Contains(kept, "dead") {
				t.Errorf("the store has %s", kept)
			}
			r.stop()
		})
	})
	for _, fault := range []sandbox.Fault{sandbox.Dead400Empty, sandbox.Dead400InvalidRequest} {
		t.Run("it did not, and refuses with "+string(fault)+": three tries, then the old one", func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				cut := r.neverCommitted()
				s := r.start(r.account())
				app := r.inUse(s)
				cut.set(1)
				r.sandbox.Play(fault, 3)
				after(life)
				severity = max(severity, app.end())
				if e := r.tokenEvents("refresh_token"); len(e) != 4 || e[3].Presented != "f1.g1" || e[3].At.Sub(e[2].At) > time.Second {
					t.Errorf("refreshes %v, want the old one right after the third refusal", r.presented())
				}
				r.requests(1, 4)
				r.stop()
			})
		})
	}
	t.Run("over a restart", func(t *testing.T) {
		play(t, sandbox.Config{}, func(r *rig) {
			cut := r.neverCommitted()
			s := r.start(r.noRelogin())
			r.token(s)
			cut.set(1)
			if err := s.Refresh(r.Context()); err == nil {
				t.Error("a broken answer is taken for a good one")
			}
			if !strings.Contains(r.stored(s), "fallback_refresh_token") {
				t.Error("the store has no fallback")
			}
			r.stop()
			s = r.start(r.noRelogin())
			defer r.stop()
			r.token(s)
			r.spent("", "f1.g1")
		})
	})
	if severity != 0 {
		t.Errorf("severity %d", severity)
	}
	measured(t, 25, severity, "the server committed: 1 request more; it did not: 2 more, at once; it refuses without a reason: 4 more within 32 s; no login")
}

// Both are dead: what follows is what follows one.
func TestCandidateAndFallbackDead(t *testing.T) {
	t.Parallel()
	for relogin, password := range map[bool]int{true: 2, false: 1} {
		t.Run(fmt.Sprint(relogin), func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{}, func(r *rig) {
				cut := r.neverCommitted()
				a := r.account()
				a.Grant.(*oauth.Password).Relogin = relogin
				s := r.start(a)
				defer r.stop()
				r.token(s)
				cut.set(1)
				r.sandbox.RevokeRefreshTokens()
				r.stale(s)
				after(time.Minute)
				r.requests(password, 2)
				r.spent("", "f1.g1")
				if relogin {
					r.token(s)
					return
				}
				r.fails(s, oauth.ErrLoginRequired)
				after(time.Hour)
				r.requests(1, 2)
			})
		})
	}
}

// Whoever drops the tokens drops the fallback.
func TestFallbackIsDropped(t *testing.T) {
	t.Parallel()
	for name, drop := range map[string]func(*rig, *oauth.Session) error{
		"forget": func(r *rig, s *oauth.Session) error { return s.Forget(r.Context()) },
		"logout": func(r *rig, s *oauth.Session) error { _, err := s.Logout(r.Context()); return err },
		"import": func(r *rig, s *oauth.Session) error {
			_ = s.Import(r.Context(), oauth.NewSecret("another")) // the answer is lost, for which the token is kept
			return nil
		},
		"login": func(r *rig, s *oauth.Session) error { return s.Login(r.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, sandbox.Config{}, func(r *rig) {
				cut := r.neverCommitted()
				a := r.account()
				a.Client.RevokeEndpoint = "http://as.test/oauth/v2/oauth-revoke"
				s := r.start(a)
				defer r.stop()
				r.token(s)
				cut.set(1)
				_ = s.Refresh(r.Context())
				if !strings.Contains(r.stored(s), "fallback_refresh_token") {
					t.Fatal("there is no fallback")
				}
				if name == "import" {
					r.sandbox.Play(sandbox.ServerError, -1)
				}
				if err := drop(r, s); err != nil {
					t.Fatal(err)
				}
				if kept := r.stored(s); strings.Contains(kept, "fallback") || strings.Contains(kept, candidate) {
					t.Errorf("the store has %s", kept)
				}
				if name != "logout" {
					return
				}
				revoked := 0
				for _, e := range r.sandbox.Events() {
					if e.Kind == sandbox.KindRevoke {
						revoked++
					}
				}
				if revoked != 2 {
					t.Errorf("%d revocations, want one of each refresh token", revoked)
				}
			})
		})
	}
}

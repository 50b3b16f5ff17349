package oauth_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// F23: reset or time-out after the authorization server committed. Expected:
// the same token again, promptly (rule 9). Best: 0 with grace.
func TestF23ResetAfterTheServerCommitted(t *testing.T) {
	t.Parallel()
	severity, calls := 0, 0
	for _, tt := range []struct {
		name   string
		fault  sandbox.Fault
		times  int
		config sandbox.Config
	}{
		{"reset once", sandbox.LostReply, 1, sandbox.Config{Grace: 30 * time.Second}},
		{"reset three times", sandbox.LostReply, 3, sandbox.Config{Grace: 30 * time.Second}},
		{"time-out", sandbox.Slow, 1, sandbox.Config{Grace: 2 * time.Minute, SlowFor: 90 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			play(t, tt.config, func(r *rig) {
				s := r.start(r.account())
				defer r.stop()
				app := r.inUse(s)
				r.sandbox.Play(tt.fault, tt.times)
				after(life + 90*time.Second)
				severity = max(severity, app.end())
				calls += app.calls
				t.Log(app)
				want := make([]string, tt.times+1)
				for i := range want {
					want[i] = "f1.g1"
				}
				r.spent(want...)
				r.requests(1, tt.times+1)
				for i, gap := range r.gaps("refresh_token") {
					if most := [...]time.Duration{0, time.Second, 5 * time.Second}[i]; tt.fault == sandbox.LostReply && gap != most {
						t.Errorf("replay %d came after %v, want %v", i+1, gap, most)
					}
				}
				after(life) // and the next one is spent as ever
				r.token(s)
				r.requests(1, tt.times+2)
			})
		})
	}
	if severity > 1 {
		t.Errorf("severity %d", severity)
	}
	measured(t, 23, severity, "%d calls, no password login; the same token again at once, after 1 s and after 5 s; after a time-out of 60 s the server's grace must be longer", calls)
}

// F24: late answer, after our caller's time-out. Expected: the reader is kept
// alive past the caller's deadline, so that a late answer is still stored.
// Best: 0.
func TestF24LateAnswer(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{15 * time.Second, 40 * time.Second, 59 * time.Second} {
		t.Run("nobody has a token, "+late.String(), func(t *testing.T) {
			play(t, sandbox.Config{SlowFor: late}, func(r *rig) {
				s := r.start(r.account())
				r.token(s)
				after(time.Hour)
				r.sandbox.Play(sandbox.Slow, 1)
				begin := time.Now()
				r.fails(s, oauth.ErrTokenTimeout)
				if waited := time.Since(begin); waited != 10*time.Second {
					t.Errorf("the caller waited %v, want token_timeout", waited)
				}
				after(late - 10*time.Second)
				if s.Current() == nil {
					t.Error("the late answer was thrown away")
				}
				r.stop() // and it is in the store
				s = r.start(r.account())
				defer r.stop()
				r.token(s)
				r.spent("f1.g1", "f1.g2") // the first one while the token was in use
				r.requests(1, 2)
				after(life)
				r.spent("f1.g1", "f1.g2", "f1.g3") // the late one's token
				r.token(s)
			})
		})
	}
	var severity int
	var figure string
	t.Run("in use", func(t *testing.T) {
		play(t, sandbox.Config{SlowFor: 15 * time.Second, EventLimit: 1 << 20}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			app := r.inUse(s)
			r.sandbox.Play(sandbox.Slow, -1)
			after(10 * life)
			severity, figure = app.end(), app.String()
			if n := r.sandbox.TokenRequests("refresh_token"); n < 10 || n > 12 {
				t.Errorf("%d refreshes in %v", n, 10*life)
			}
			if seen := r.presented(); len(seen) < 2 || seen[len(seen)-1] != fmt.Sprintf("f1.g%d", len(seen)) {
				t.Errorf("presented %v: want each one once", seen)
			}
			r.requests(1, r.sandbox.TokenRequests("refresh_token"))
		})
	})
	if severity != 0 {
		t.Errorf("severity %d: %s", severity, figure)
	}
	measured(t, 24, severity, "in use, every answer 15 s late: %s; answers 15, 40 and 59 s late are stored, each token spent once", figure)
}

// rewrite lets the server answer, and changes a successful token answer.
func (r *rig) rewrite(n *times, change func(body string) string) {
	next := r.sandbox.AuthorizationServer()
	r.between(func(w http.ResponseWriter, req *http.Request) bool {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, req)
		body := rec.Body.String()
		if rec.Code == 200 && n.take() {
			body = change(body)
		}
		w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(rec.Code)
		_, _ = io.WriteString(w, body)
		return true
	})
}

// member changes the value of a member, as JSON; the answer must have it.
func member(t *testing.T, body, name, value string) string {
	key := `"` + name + `":`
	i := strings.Index(body, key)
	if i < 0 {
		t.Errorf("the answer has no %s: %s", name, body)
		return body
	}
	i += len(key)
	end := i + strings.IndexAny(body[i:], ",}")
	if body[i] == '"' {
		end = i + 1 + strings.IndexByte(body[i+1:], '"') + 1
	}
	return body[:i] + value + body[end:]
}

// F26: 200, the refresh token fine, other members broken. Expected: the refresh
// token is saved, the access token unusable, hence the next refresh. Best: 1.
func TestF26RefreshTokenFineOtherMembersBroken(t *testing.T) {
	t.Parallel()
	severity, cases := 0, 0
	for _, tt := range []struct{ name, value string }{
		{"access_token", `null`}, {"access_token", `""`}, {"access_token", `{"a":[1]}`}, {"access_token", `"a\r\nX-Injected: 1"`}, {"access_token", `"é"`},
		{"token_type", `"mac"`}, {"token_type", `7`}, {"token_type", `null`},
		{"expires_in", `0,`}, {"scope", `"a","scope":"b"`}, {"scope", `"unfinished`},
	} {
		t.Run(tt.name+" "+tt.value, func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				var broken times
				r.rewrite(&broken, func(body string) string { return member(t, body, tt.name, tt.value) })
				s := r.start(r.account())
				defer r.stop()
				app := r.inUse(s)
				broken.set(1)
				after(life)
				severity = max(severity, app.end())
				cases++
				t.Log(app)
				r.spent("f1.g1", "f1.g2") // the broken answer's
				r.requests(1, 2)
				r.token(s)
			})
		})
	}
	if severity > 1 {
		t.Errorf("severity %d", severity)
	}
	measured(t, 26, severity, "%d broken answers, 0 refresh tokens lost: each one's was spent next", cases)
}

// F27: 200 without a refresh token, with the same one, with an empty string.
// Expected: keep it, accept it, treat it as absent. Best: 0.
func TestF27NoSameOrEmptyRefreshToken(t *testing.T) {
	t.Parallel()
	severity, calls := 0, 0
	for _, fault := range []sandbox.Fault{sandbox.NoRefreshToken, sandbox.SameRefreshToken, sandbox.EmptyRefreshToken} {
		t.Run(string(fault), func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				s := r.start(r.account())
				r.token(s)
				r.sandbox.Play(fault, 3)
				app := r.inUse(s)
				after(3 * life)
				r.spent("f1.g1", "f1.g1", "f1.g1")
				after(life)
				severity = max(severity, app.end())
				calls += app.calls
				t.Log(app)
				r.requests(1, 4)
				r.stop()
				s = r.start(r.account())
				defer r.stop()
				after(time.Hour)
				r.token(s)
				r.spent("f1.g1", "f1.g1", "f1.g1", "f1.g1", "f1.g5")
			})
		})
	}
	if severity != 0 {
		t.Errorf("severity %d", severity)
	}
	measured(t, 27, severity, "%d calls, 0 failed; the token that is there is spent again until another comes", calls)
}

// F31: 500, 502, 504. Expected: unknown outcome, hence rule 9 with back-off.
// Best: 0.
func TestF31ServerErrors(t *testing.T) {
	t.Parallel()
	const grace = 30 * time.Second
	severity, calls := 0, 0
	for _, tt := range []struct {
		name   string
		fault  sandbox.Fault
		tokens string
	}{
		{"500", sandbox.ServerError, "AAAA"},
		{"500 after commit", sandbox.LateServerError, "AAAA"},
		{"502", sandbox.BadGateway, "AAAA"},
		{"504", "", "AAAA"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			play(t, sandbox.Config{Grace: grace}, func(r *rig) {
				var gateway times
				g := r.between(func(w http.ResponseWriter, _ *http.Request) bool {
					if !gateway.take() {
						return false
					}
					w.WriteHeader(http.StatusGatewayTimeout)
					return true
				})
				s := r.start(r.account())
				defer r.stop()
				app := r.inUse(s)
				begin := time.Now()
				if tt.fault == "" {
					gateway.set(3)
				} else {
					r.sandbox.Play(tt.fault, 3)
				}
				after(life)
				severity = max(severity, app.end())
				calls += app.calls
				t.Log(app)
				if got := g.tokens(); got != tt.tokens {
					t.Errorf("refresh tokens %s were sent, want %s", got, tt.tokens)
				}
				if st := s.Status(); st.Obtained.Sub(begin) > 550*time.Second {
					t.Errorf("the new token came after %v, want 6 s behind the first try", st.Obtained.Sub(begin))
				}
				if gaps := fmt.Sprint(r.gaps("refresh_token")); tt.fault != "" && gaps != "[0s 1s 5s]" {
					t.Errorf("asked again after %s", gaps)
				}
				r.token(s)
				r.requests(1, 4-int(g.answered.Load()))
			})
		})
	}
	t.Run("without end", func(t *testing.T) {
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			r.sandbox.Play(sandbox.ServerError, -1)
			r.outage(s)
			r.sandbox.Clear()
			r.within(s, time.Minute)
			r.requests(1, r.sandbox.TokenRequests("refresh_token"))
		})
	})
	if severity != 0 {
		t.Errorf("severity %d", severity)
	}
	measured(t, 31, severity, "three answers of each kind: %d calls, 0 failed, asked again at once, after 1 s and 5 s with the same token", calls)
}

// F40: the password changed at the provider, the refresh token fine. Expected:
// nothing. Best: 0.
func TestF40PasswordChangedRefreshTokenFine(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		s := r.start(r.account())
		app := r.inUse(s)
		r.sandbox.SetPassword("changed")
		after(12 * life)
		severity := app.end()
		refreshes := r.sandbox.TokenRequests("refresh_token")
		r.requests(1, refreshes)
		if refreshes < 12 || severity != 0 {
			t.Errorf("severity %d after %d refreshes: %s", severity, refreshes, app)
		}
		r.stop()
		after(time.Hour)
		s = r.start(r.account()) // a restart needs no password either
		defer r.stop()
		r.token(s)
		r.requests(1, refreshes+1)
		measured(t, 40, severity, "%d refreshes and a restart after the change: %s, no password sent", refreshes+1, app)
	})
}

// F47: the server grants a narrower scope on refresh. Expected: alarm, keep
// going. Best: 0.
func TestF47NarrowerScopeOnRefresh(t *testing.T) {
	t.Parallel()
	play(t, sandbox.Config{}, func(r *rig) {
		log := r.logged()
		narrow, scope := times{}, `"all"`
		r.rewrite(&narrow, func(body string) string { return member(t, body, "scope", scope) })
		a := r.account()
		a.Scope = "all openid"
		s := r.start(a)
		defer r.stop()
		app := r.inUse(s)
		alarms := func() int {
			return strings.Count(log.String(), "level=WARN msg=\"the authorization server grants a narrower scope")
		}
		after(3 * life)
		if n := alarms(); n != 0 {
			t.Errorf("%d alarms although the scope is whole", n)
		}
		narrow.set(-1)
		after(3 * life)
		severity := app.end()
		if n := alarms(); n != 1 {
			t.Errorf("%d alarms, want 1: %s", n, log)
		}
		if severity != 0 {
			t.Errorf("severity %d: %s", severity, app)
		}
		refreshes := r.sandbox.TokenRequests("refresh_token")
		r.requests(1, refreshes)
		measured(t, 47, severity, "%d refreshes, the last half of them with half of the scope: %s, %d alarm", refreshes, app, alarms())
	})
}

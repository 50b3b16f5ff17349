package oauth_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A page is what something between the sessions and the server answers.
type page struct {
	status      int
	media, body string
	header      []string // names and values
}

func (p page) String() string { return fmt.Sprint(p.status, " ", p.media, " ", p.header) }

func (p page) serve(w http.ResponseWriter) {
	for i := 0; i+1 < len(p.header); i += 2 {
		w.Header().Set(p.header[i], p.header[i+1])
	}
	w.Header()["Content-Type"] = nil
	if p.media != "" {
		w.Header().Set("Content-Type", p.media)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(p.body)))
	w.WriteHeader(p.status)
	_, _ = io.WriteString(w, p.body)
}

const loginPage = "<!DOCTYPE html><html><title>Log in to the network</title><body>refresh_token access_token {\"error\":\"invalid_grant\"}</body></html>"

// blocked has an application in use while p answers in place of the server:
// three times, and then, if wanted, for an hour. It is the same refresh token
// that is sent until the server answers again, and nobody signs in. It returns
// the severity of the three answers, and how many requests were made in the
// hour.
func blocked(t *testing.T, p page, hour bool) (severity, requests int) {
	t.Helper()
	play(t, sandbox.Config{}, func(r *rig) {
		var block times
		g := r.between(func(w http.ResponseWriter, _ *http.Request) bool {
			if !block.take() {
				return false
			}
			p.serve(w)
			return true
		})
		s := r.start(r.account())
		defer r.stop()
		app := r.inUse(s)
		block.set(3)
		after(life)
		severity = app.end()
		if got := g.tokens(); got != "AAAA" || severity != 0 {
			t.Errorf("%v, three times: severity %d, refresh tokens %s were sent, want AAAA; %s", p, severity, got, app)
		}
		r.spent("f1.g1")
		r.requests(1, 1)
		if !hour {
			return
		}

		if err := s.Refresh(r.Context()); err != nil {
			t.Fatal(err)
		}
		before := len(g.tokens())
		block.set(-1)
		r.outage(s)
		requests = len(g.tokens()) - before
		block.set(0)
		r.within(s, time.Minute)
		if got := g.tokens(); got[:5] != "AAAAB" || strings.Trim(got[5:], "C") != "" {
			t.Errorf("%v: refresh tokens %s were sent", p, got)
		}
		r.spent("f1.g1", "f1.g2", "f1.g3")
		r.requests(1, 3)
	})
	return severity, requests
}

// F28: 200 with HTML from a captive portal, `text/html`. Expected: transient,
// the refresh token unharmed. Best: 0.
func TestF28CaptivePortal(t *testing.T) {
	t.Parallel()
	severity, most := 0, 0
	for _, p := range []page{
		{200, "text/html", loginPage, nil},
		{200, "text/html; charset=utf-8", loginPage, nil},
		{200, "application/xhtml+xml", loginPage, nil},
		{200, "text/html", "", nil},
	} {
		t.Run(p.String(), func(t *testing.T) {
			s, n := blocked(t, p, true)
			severity, most = max(severity, s), max(most, n)
		})
	}
	measured(t, 28, severity, "three pages in place of the answer: 0 calls failed; an hour of them: at most %d requests, the same refresh token then works", most)
}

// F29: 400 with HTML, 403 of a web application firewall, 404. Expected:
// transient or a matter of the configuration, the refresh token unharmed.
// Best: 0.
func TestF29RefusedBySomethingBetween(t *testing.T) {
	t.Parallel()
	severity, most := 0, 0
	for _, p := range []page{
		{400, "text/html", loginPage, nil},
		{401, "text/html", loginPage, nil},
		{403, "text/html", loginPage, nil},
		{403, "", "", nil},
		{403, "application/json", `{"error":"invalid_grant"}`, nil},
		{404, "text/html", loginPage, nil},
		{404, "application/json", `{"error":"invalid_grant"}`, nil},
		{405, "text/plain", "method not allowed", []string{"Allow", "GET"}},
		{407, "text/html", loginPage, []string{"Proxy-Authenticate", "Basic"}},
	} {
		t.Run(p.String(), func(t *testing.T) {
			s, n := blocked(t, p, p.body == loginPage)
			severity, most = max(severity, s), max(most, n)
		})
	}
	measured(t, 29, severity, "three refusals in place of the answer: 0 calls failed; an hour of them: at most %d requests, the same refresh token then works", most)
}

// F34: 3xx at the token endpoint. Expected: never followed. Best: 0.
func TestF34RedirectAtTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	severity, most := 0, 0
	redirects := []page{{307, "", "", nil}, {307, "", "", []string{"Location", "/moved"}}, {307, "", "", []string{"Location", "ht!tp://%zz"}}}
	for _, status := range []int{300, 301, 302, 303, 305, 307, 308} {
		redirects = append(redirects, page{status, "", "", []string{"Location", "http://elsewhere.test/token"}})
	}
	for i, p := range redirects {
		t.Run(p.String(), func(t *testing.T) {
			s, n := blocked(t, p, i < 2) // a request that followed would be one more
			severity, most = max(severity, s), max(most, n)
		})
	}
	t.Run("as the sandbox plays it", func(t *testing.T) {
		play(t, sandbox.Config{}, func(r *rig) {
			s := r.start(r.account())
			defer r.stop()
			r.token(s)
			r.sandbox.Play(sandbox.Redirect, 3)
			after(life)
			for _, e := range r.sandbox.Events() {
				if e.Kind == sandbox.KindFollowed {
					t.Error("the redirect was followed")
				}
			}
			r.token(s)
			r.requests(1, 4)
		})
	})
	measured(t, 34, severity, "%d kinds of redirects, none followed: 0 calls failed; an hour of them: at most %d requests, the same refresh token then works", len(redirects), most)
}

// F30: 429 and 503 with Retry-After in seconds, as a date, absurd. Expected:
// honoured, capped. Best: 1.
func TestF30RetryAfter(t *testing.T) {
	t.Parallel()
	const longest, watched = 5 * time.Minute, 30 * time.Minute
	// A date has whole seconds: the second that formatting cuts off is added.
	date := func(d time.Duration) func() string {
		return func() string { return time.Now().Add(d + time.Second).UTC().Format(http.TimeFormat) }
	}
	text := func(s string) func() string { return func() string { return s } }
	severity, headers := 0, 0
	for _, tt := range []struct {
		name   string
		header func() string
		want   time.Duration // 0: our own pauses, up to a minute
	}{
		{"120", text("120"), 2 * time.Minute},
		{"a date in 2 min", date(2 * time.Minute), 2 * time.Minute},
		{"a day", text("86400"), longest},
		{"more than any number holds", text("99999999999999999999"), longest},
		{"a date in a year", date(365 * 24 * time.Hour), longest},
		{"a date past", date(-time.Hour), 0},
		{"negative", text("-120"), 0},
		{"text", text("soon"), 0},
		{"a fraction", text("120.5"), 0},
	} {
		for i, status := range []int{429, 503} {
			if i == 1 && tt.want != 2*time.Minute {
				continue // the header is read alike
			}
			t.Run(fmt.Sprint(status, " ", tt.name), func(t *testing.T) {
				play(t, sandbox.Config{EventLimit: 1 << 20}, func(r *rig) {
					var block times
					var at []time.Time
					g := r.between(func(w http.ResponseWriter, _ *http.Request) bool {
						if !block.take() {
							return false
						}
						at = append(at, time.Now())
						page{status, "application/json", `{"error":"temporarily_unavailable"}`, []string{"Retry-After", tt.header()}}.serve(w)
						return true
					})
					s := r.start(r.account())
					defer r.stop()
					app := r.inUse(s)
					after(life - 60*time.Second) // refreshed once
					r.spent("f1.g1")
					block.set(-1)
					after(watched)
					f := r.failure(s, oauth.ErrUnavailable)
					if wait := time.Until(f.RetryAt); wait <= 0 || wait > max(tt.want, time.Minute)+10*time.Second {
						t.Errorf("a caller is told to come again in %v", wait)
					}
					least, most := tt.want, tt.want+10*time.Second
					if tt.want == 0 {
						most = time.Minute + 10*time.Second
					}
					for i := 1; i < len(at); i++ {
						if gap := at[i].Sub(at[i-1]); gap < least || gap > most {
							t.Errorf("asked again after %v, want %v to %v", gap, least, most)
						}
					}
					if len(at) < int((watched-life)/most)-1 { // the first one comes when the token is stale
						t.Errorf("asked %d times in %v", len(at), watched)
					}
					block.set(0)
					r.within(s, most)
					severity = max(severity, app.end())
					headers++
					if got := g.tokens(); strings.Trim(got[1:], "B") != "" {
						t.Errorf("refresh tokens %s were sent", got)
					}
					r.spent("f1.g1", "f1.g2")
					r.requests(1, 2)
				})
			})
		}
	}
	if severity != 1 {
		t.Errorf("severity %d", severity)
	}
	measured(t, 30, severity, "%d kinds of answers, %v each: asked again when the server said, at the latest after %v; callers see 503 with the time to come again once the access token has ended", headers, watched, longest)
}

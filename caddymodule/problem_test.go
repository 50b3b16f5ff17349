package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func TestProblemOfToken(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	failure := func(err error, in time.Duration) error {
		f := &oauth.Failure{Err: err, Detail: "what to do"}
		if in != 0 {
			f.RetryAt = now.Add(in)
		}
		return f
	}
	for _, c := range []struct {
		err    error
		status int
		code   string
		retry  string // Retry-After, in seconds; empty: none
	}{
		{oauth.ErrUnavailable, 503, "authorization_server_unavailable", "1"},
		{failure(oauth.ErrUnavailable, 0), 503, "authorization_server_unavailable", "1"},
		{failure(oauth.ErrUnavailable, 30*time.Second), 503, "authorization_server_unavailable", "30"},
		{failure(oauth.ErrUnavailable, 30*time.Second+time.Millisecond), 503, "authorization_server_unavailable", "31"},
		{failure(oauth.ErrUnavailable, time.Millisecond), 503, "authorization_server_unavailable", "1"},
		{failure(oauth.ErrUnavailable, -time.Hour), 503, "authorization_server_unavailable", "1"},
		{fmt.Errorf("asking: %w", failure(oauth.ErrUnavailable, 5*time.Second)), 503, "authorization_server_unavailable", "5"},
		{oauth.ErrClosed, 503, "authorization_server_unavailable", "1"},

		// Waiting doesn't help, whatever the session does by itself.
		{oauth.ErrLoginRequired, 503, "login_required", ""},
		{failure(oauth.ErrLoginRequired, 10*time.Minute), 503, "login_required", ""},
		{failure(oauth.ErrCredentialsRejected, 0), 503, "credentials_rejected", ""},
		{failure(oauth.ErrMisconfigured, 0), 503, "account_misconfigured", ""},
		{failure(oauth.ErrStoreUnavailable, 0), 503, "store_unavailable", ""},
		{errors.New("something else"), 503, "store_unavailable", ""},

		{failure(oauth.ErrTokenTimeout, 0), 504, "token_timeout", ""},
		{context.DeadlineExceeded, 504, "token_timeout", ""},
		{context.Canceled, 504, "token_timeout", ""},
		{oauth.ErrUnknownAccount, 403, "unknown_account", ""},
		{fmt.Errorf("account x: %w", oauth.ErrUnknownAccount), 403, "unknown_account", ""},
	} {
		p := tokenProblem(c.err, now)
		if p.Status != c.status || p.Code != c.code || p.Title == "" {
			t.Errorf("%v: %+v, want %d %s", c.err, p, c.status, c.code)
		}
		if got := p.fields(nil).Get("Retry-After"); got != c.retry {
			t.Errorf("%v: Retry-After %q, want %q", c.err, got, c.retry)
		}
		var f *oauth.Failure
		// What the store says names files: for the log only.
		if errors.As(c.err, &f) && (p.Detail == f.Detail) == errors.Is(f, oauth.ErrStoreUnavailable) {
			t.Errorf("%v: the detail is %q", c.err, p.Detail)
		}
		// What isn't a Failure wasn't written for callers to read.
		if f == nil && strings.Contains(p.Detail, c.err.Error()) {
			t.Errorf("%v: the detail shows the error: %q", c.err, p.Detail)
		}
	}
}

// The codes and statuses are promised to whoever reads them by machine.
func TestProblemRefusals(t *testing.T) {
	t.Parallel()
	want := map[string]int{"unknown_account": 403, "caller_refused": 403, "host_refused": 421, "method_refused": 405, "upgrade_refused": 403,
		"origin_refused": 403, "key_refused": 401, "path_refused": 400, "upstream_not_allowed": 502, "token_leak_stopped": 502}
	if got, want := slices.Sorted(maps.Keys(problems)), slices.Sorted(maps.Keys(want)); !slices.Equal(got, want) {
		t.Errorf("the codes are %q, want %q", got, want)
	}
	for code, status := range want {
		p := refusal(code, "do this")
		if p.Status != status || p.Code != code || p.Title == "" || p.Detail != "do this" || p.retryAfter != 0 {
			t.Errorf("%s: %+v", code, p)
		}
		if problems[code].Detail != "" || problems[code].Code != "" {
			t.Errorf("%s: the template was written to", code)
		}
	}
}

// As a handler and as a transport, the answer is the same.
func TestProblemAnswer(t *testing.T) {
	t.Parallel()
	const body = `{"status":403,"code":"host_refused","title":"No","detail":"add <this>: \"x\""}` + "\n"
	p := problem{Status: 403, Code: "host_refused", Title: "No", Detail: `add <this>: "x"`, retryAfter: 1500 * time.Millisecond,
		header: http.Header{"Www-Authenticate": {"Basic"}}}
	w := httptest.NewRecorder()
	w.Header().Set("X-Before", "kept")
	p.write(w)
	req := httptest.NewRequest("GET", "/", nil)
	for form, res := range map[string]*http.Response{"handler": w.Result(), "transport": p.response(req)} {
		text, err := io.ReadAll(res.Body)
		if err != nil || string(text) != body {
			t.Errorf("%s: the body is %s, %v; want %s", form, text, err, body)
		}
		if res.StatusCode != 403 || res.Status != "403 Forbidden" || res.ContentLength != int64(len(body)) {
			t.Errorf("%s: %s, %d bytes", form, res.Status, res.ContentLength)
		}
		for name, want := range map[string]string{"Content-Type": "application/problem+json", "Content-Length": strconv.Itoa(len(body)), "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			"Caddy-Bearer-Error": "host_refused", "Retry-After": "2", "Www-Authenticate": "Basic"} {
			if got := res.Header.Values(name); !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %s is %q, want %q", form, name, got, want)
			}
		}
	}
	if w.Header().Get("X-Before") != "kept" {
		t.Error("fields of others are gone")
	}
	if res := p.response(req); res.Request != req || res.Proto != "HTTP/1.1" || res.Body.Close() != nil {
		t.Errorf("the response isn't whole: %+v", res)
	}
	if len(p.header) != 1 {
		t.Errorf("the problem's own header was written to: %v", p.header)
	}
}

// RFC 9457 §3: a type, absent as about:blank, a status and a title; detail
// only if there is something to say.
func TestProblemShape(t *testing.T) {
	t.Parallel()
	for _, p := range []problem{refusal("host_refused", ""), refusal("method_refused", "x"), tokenProblem(oauth.ErrUnavailable, time.Now())} {
		var m map[string]any
		if err := json.Unmarshal(p.body(), &m); err != nil {
			t.Fatal(err)
		}
		want := []string{"code", "status", "title"}
		if p.Detail != "" {
			want = append(want, "detail")
		}
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(m)); !slices.Equal(got, want) || m["status"] != float64(p.Status) || m["code"] != p.Code {
			t.Errorf("%s: %v", p.Code, m)
		}
	}
}

package caddymodule

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

func TestProxySignsIn(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.start()
	r.get("/document/v1/documents")
	r.get("/echo")
	r.requests(1, 0)
}

// F45: the resource server answers 401 always. Expected: one refresh per access
// token, then the 401 passes; no storm at the authorization server. Best: the
// same.
func TestF45ResourceServerAlwaysAnswers401(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.handler = "transport http {\n\t\t\tdial_timeout 30s\n\t\t}" // a thousand connections, on a slow machine
	r.start()
	r.get("/echo")
	r.sandbox.Play(sandbox.RejectAccessToken, -1)
	refused := func() {
		res, text := r.do("GET", "/echo", nil)
		if res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") == "" || !strings.Contains(text, "invalid_token") || res.Header.Get(errorHeader) != "" {
			t.Errorf("%d %v %s", res.StatusCode, res.Header, text)
		}
	}
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(refused)
	}
	wg.Wait()
	if n := r.sandbox.TokenRequests("refresh_token"); n != 1 {
		t.Errorf("%d refreshes for 1,000 callers at once, want 1", n)
	}
	for range 1000 {
		refused()
	}
	n := r.sandbox.TokenRequests("refresh_token")
	if n > 3 {
		t.Errorf("%d refreshes after 1,000 callers in turn, want 3 at most", n)
	}
	r.requests(1, n)
	r.presentedOnce()
	r.sandbox.Clear()
	r.get("/echo")
	measured(t, 45, 0, "1,000 callers at once: 1 refresh; 1,000 more in turn: %d in all; each got the server's own 401", n)
}

// F46: the resource server answers 401 once, the access token being revoked
// early. Expected: a refresh, and the request once more if its body can be
// replayed. Best: 1.
func TestF46ResourceServerAnswers401Once(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body) // all of it, also where the token is refused
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.sandbox.API().ServeHTTP(w, req)
	}))
	defer api.Close()
	r.api = api.URL
	r.handler = "replay_body 64KiB"
	r.start()
	r.get("/echo")
	longest, again := time.Duration(0), 0
	for i, tt := range []struct {
		method        string
		size          int
		chunked       bool
		status, calls int
	}{
		{"GET", 0, false, 200, 2},
		{"POST", 10 << 10, false, 201, 2},
		{"POST", 10 << 10, true, 201, 2},
		{"POST", 64 << 10, false, 201, 2},
		{"POST", 64<<10 + 16, false, 401, 1}, // too long to be kept: the refusal passes
		{"POST", 64<<10 + 16, true, 401, 1},
	} {
		r.sandbox.RevokeAccessTokens()
		path, body := "/file/v1/files", bytes.Repeat([]byte("0123456789abcdef"), tt.size/16)
		var send io.Reader = bytes.NewReader(body)
		if tt.chunked {
			send = struct{ io.Reader }{send}
		}
		if tt.method == "GET" {
			path, send = "/echo", nil
		}
		before, begin := r.apiRequests(), time.Now()
		res, text := r.do(tt.method, path, send)
		longest = max(longest, time.Since(begin))
		sum := sha256.Sum256(body)
		whole := strings.Contains(text, hex.EncodeToString(sum[:]))
		if res.StatusCode != tt.status || tt.status == 201 && !whole {
			t.Errorf("%+v: %d %s", tt, res.StatusCode, text)
		}
		if tt.status == 401 && (res.Header.Get("WWW-Authenticate") == "" || !strings.Contains(text, "invalid_token")) {
			t.Errorf("%+v: the refusal was changed: %v %s", tt, res.Header, text)
		}
		if n := r.apiRequests() - before; n != tt.calls {
			t.Errorf("%+v: the API was asked %d times", tt, n)
		}
		again += tt.calls - 1
		r.get("/echo") // and the next call works
		r.requests(1, i+1)
	}
	r.presentedOnce()
	measured(t, 46, 1, "%d of 4 requests that can be sent again were, bodies too; a body longer than replay_body passes its 401 and the next call works; 1 refresh each, the longest took %v", again, longest.Round(time.Millisecond))
}

// apiRequests counts what reached the API.
func (r *rig) apiRequests() (n int) {
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindAPI {
			n++
		}
	}
	return n
}

func TestNoToken(t *testing.T) {
	for _, tt := range []struct {
		fault  sandbox.Fault
		status int
		code   string
		retry  bool
	}{
		{sandbox.Unavailable, 503, "authorization_server_unavailable", true},
		{sandbox.HTML, 503, "authorization_server_unavailable", true},
		{sandbox.InvalidClient, 503, "credentials_rejected", false},
		{sandbox.InvalidScope, 503, "account_misconfigured", false},
		{sandbox.Slow, 504, "token_timeout", false},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			r := newRig(t, sandbox.Config{SlowFor: 3 * time.Second})
			r.sandbox.Play(tt.fault, -1)
			r.account = "token_timeout 1s"
			r.start()
			res := r.fails(tt.status, tt.code)
			if got := res.Header.Get("Retry-After") != ""; got != tt.retry {
				t.Errorf("Retry-After: %v, want %v", got, tt.retry)
			}
			if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
				t.Error(ct)
			}
			for _, e := range r.sandbox.Events() {
				if e.Kind == sandbox.KindAPI {
					t.Error("a request reached the API without a token")
				}
			}
		})
	}
}

func TestUpstreamUnreachable(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.api = "http://" + freeAddress(t)
	r.start()
	r.fails(502, "upstream_unreachable")
}

// Without a guard the transport refuses, unless told otherwise; with one it
// serves, and says itself that there is no token.
func TestLongForm(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	long := func(before, option string) string {
		c := r.caddyfile()
		i := strings.Index(c, "\tbearer_proxy")
		return c[:i] + "\t" + before + "\n\treverse_proxy " + r.api + " {\n\t\ttransport bearer erp {\n\t\t\t" + option + "\n\t\t\tdial_timeout 2s\n\t\t}\n\t}\n}\n"
	}
	t.Cleanup(r.stop)
	for _, tt := range []struct{ before, option, code string }{
		{"", "", "caller_refused"},
		{"", "unguarded", ""},
		{"bearer_guard", "", ""},
	} {
		if err := r.load(long(tt.before, tt.option)); err != nil {
			t.Fatal(err)
		}
		res, text := r.do("GET", "/echo", nil)
		if res.Header.Get(errorHeader) != tt.code {
			t.Errorf("%q %q: %d %v %s", tt.before, tt.option, res.StatusCode, res.Header, text)
		}
	}
	app, _ := running()
	if err := app.shared.sessions.All()["erp"].Forget(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.sandbox.Play(sandbox.Unavailable, -1)
	r.fails(503, "authorization_server_unavailable")
}

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

func TestManyCallersAtExpiry(t *testing.T) {
	r := newRig(t, sandbox.Config{Delay: 300 * time.Millisecond, TokenLifetime: 2 * time.Second})
	r.handler = "transport http {\n\t\t\tdial_timeout 30s\n\t\t}"
	r.start()
	r.ready()
	time.Sleep(2200 * time.Millisecond) // idle: expired
	r.sandbox.SetTokenLifetime(time.Hour)
	before := r.sandbox.TokenRequests("")
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			if res, text := r.do("GET", "/echo", nil); res.StatusCode != 200 {
				t.Errorf("%d %s", res.StatusCode, text)
			}
		})
	}
	wg.Wait()
	if n := r.sandbox.TokenRequests("") - before; n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

// An upstream that refuses everything gets its refusals delivered, and causes
// no storm at the authorization server.
func TestUpstreamAlwaysRefuses(t *testing.T) {
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
	if n := r.sandbox.TokenRequests("refresh_token"); n > 3 {
		t.Errorf("%d refreshes after 1,000 callers in turn, want 3 at most", n)
	}
}

func TestReplayAfterRefusal(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.start()
	r.get("/echo")
	body := bytes.Repeat([]byte("0123456789"), 1024)
	sum := sha256.Sum256(body)
	for _, chunked := range []bool{false, true} {
		r.sandbox.RevokeAccessTokens()
		var send io.Reader = bytes.NewReader(body)
		if chunked {
			send = struct{ io.Reader }{send}
		}
		res, text := r.do("POST", "/file/v1/files", send)
		if res.StatusCode != 201 || !strings.Contains(text, hex.EncodeToString(sum[:])) {
			t.Errorf("chunked %v: %d %s", chunked, res.StatusCode, text)
		}
	}
	r.requests(1, 2)

}

// A body that is longer than what is kept isn't sent again: the refusal
// passes, and the next call works.
func TestNoReplayOfLongBody(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		req.Body = http.NoBody
		r.sandbox.API().ServeHTTP(w, req)
	}))
	defer api.Close()
	r.api = api.URL
	r.handler = "replay_body 64KiB"
	r.start()
	r.get("/echo")
	for _, tt := range []struct{ size, status int }{{64 << 10, 200}, {64<<10 + 1, 401}} {
		r.sandbox.RevokeAccessTokens()
		res, text := r.do("POST", "/echo", bytes.NewReader(make([]byte, tt.size)))
		if res.StatusCode != tt.status {
			t.Errorf("%d bytes: %d %s, want %d", tt.size, res.StatusCode, text, tt.status)
		}
		if tt.status == 401 && (res.Header.Get("WWW-Authenticate") == "" || !strings.Contains(text, "invalid_token")) {
			t.Errorf("the refusal was changed: %v %s", res.Header, text)
		}
		r.get("/echo")
	}
	r.requests(1, 2)
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

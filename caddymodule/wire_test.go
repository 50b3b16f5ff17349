package caddymodule

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// The upstream gets one Authorization, ours, whatever the caller sends.
func TestAuthorizationIsOurs(t *testing.T) {
	var seen atomic.Pointer[http.Header]
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.Store(&r.Header) }))
	defer api.Close()
	r := newRig(t, sandbox.Config{})
	r.api = api.URL
	r.start()
	r.ready()
	want := r.session().Current().Authorization()[0]
	for _, fields := range []string{
		"",
		"Authorization: Basic b3RoZXI6c2VjcmV0\r\n",
		"authorization: a\r\nAUTHORIZATION: b\r\nAuthorization: c\r\n",
		"Connection: close, Authorization\r\n",
		"Connection: authorization\r\n",
		"Connection: AUTHORIZATION, keep-alive\r\nAuthorization: x\r\n",
		"Connection: keep-alive\r\nConnection: Authorization\r\n",
		"connection: ,,authorization,,\r\n",
		"Keep-Alive: Authorization\r\nProxy-Connection: Authorization\r\n",
		"Trailer: Authorization\r\n",
		"TE: Authorization\r\n",
		"Authorization : x\r\n", // refused by Caddy before us, or ours
		"Authorization_: x\r\nHttp_Authorization: y\r\n",
		"Proxy-Authorization: Basic eDp5\r\n",
	} {
		seen.Store(nil)
		raw(t, r.address, "GET /x HTTP/1.1\r\nHost: localhost\r\n"+fields+"\r\n")
		h := seen.Load()
		if h == nil {
			if !strings.Contains(fields, " :") {
				t.Errorf("%q: the request did not arrive", fields)
			}
			continue
		}
		if got := (*h)["Authorization"]; len(got) != 1 || got[0] != want {
			t.Errorf("%q: the upstream got Authorization %d times, or not ours", fields, len(got))
		}
		for name, values := range *h {
			if name != "Authorization" && strings.Contains(strings.ToLower(name), "authorization") {
				t.Errorf("%q: the upstream got %s: %s", fields, name, values)
			}
		}
	}
}

// raw sends bytes and returns the first answer.
func raw(t *testing.T, address, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// The API's answer can't pass for one of ours.
func TestErrorHeaderIsOurs(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(errorHeader, "login_required")
		w.WriteHeader(503)
	}))
	defer api.Close()
	r := newRig(t, sandbox.Config{})
	r.api = api.URL
	r.start()
	if res, _ := r.do("GET", "/", nil); res.Header.Get(errorHeader) != "" || res.StatusCode != 503 {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

// A dynamic upstream is compared per request.
func TestUpstreamNotAllowed(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the token went to another host")
	}))
	defer other.Close()
	r := newRig(t, sandbox.Config{})
	config := strings.Replace(r.caddyfile(), "bearer_proxy erp "+r.api+" {", "bearer_proxy erp {\n\t\tto {http.request.header.X-Target}\n", 1)
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	for target, want := range map[string]string{
		strings.TrimPrefix(other.URL, "http://"): "upstream_not_allowed",
		"192.0.2.1:80":                           "upstream_not_allowed",
		strings.TrimPrefix(r.api, "http://"):     "",
	} {
		res, text := r.do("GET", "/echo", nil, "X-Target", target)
		if res.Header.Get(errorHeader) != want {
			t.Errorf("%s: %d %v %s", target, res.StatusCode, res.Header, text)
		}
	}
}

// What the application gets and sends is untouched.
func TestStreamsPass(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.handler = "allow_upgrade"
	r.start()
	res, text := r.do("GET", "/events", nil)
	if res.Header.Get("Content-Type") != "text/event-stream" || strings.Count(text, "data:") != 3 {
		t.Errorf("events: %v %q", res.Header, text)
	}
	res, _ = r.do("GET", "/trailers", nil)
	if len(res.Trailer) == 0 {
		t.Error("no trailers")
	}
	if res, _ = r.do("GET", "/echo", nil); res.Header.Get("Content-Encoding") != "" || res.Uncompressed {
		t.Error("the answer was compressed on the way")
	}
	var echo struct {
		Host    string              `json:"host"`
		Headers map[string][]string `json:"headers"`
	}
	if err := json.Unmarshal([]byte(r.get("/echo")), &echo); err != nil {
		t.Fatal(err)
	}
	if "http://"+echo.Host != r.api {
		t.Errorf("the API sees the host %s", echo.Host)
	}
}

func TestWebSocket(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			w.WriteHeader(400)
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.CopyN(conn, buf, 5)
	}))
	defer api.Close()
	const upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	r := newRig(t, sandbox.Config{})
	r.api = api.URL
	r.start()
	if res := raw(t, r.address, upgrade); res.StatusCode != 403 || res.Header.Get(errorHeader) != "upgrade_refused" {
		t.Errorf("without allow_upgrade: %d", res.StatusCode)
	}
	r.handler = "allow_upgrade"
	r.stop() // while Caddy hands a listener over, a connection may be reset
	if err := r.load(r.caddyfile()); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, upgrade)
	br := bufio.NewReader(conn)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v %v", res, err)
	}
	fmt.Fprint(conn, "hello")
	echo := make([]byte, 5)
	if _, err := io.ReadFull(br, echo); err != nil || string(echo) != "hello" {
		t.Errorf("%q %v", echo, err)
	}
}

// CONNECT with a payload doesn't touch the connections to the API.
func TestConnectRefused(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.start()
	r.get("/echo")
	for _, method := range []string{"CONNECT", "TRACE", "TRACK"} {
		res := raw(t, r.address, method+" localhost:80 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\nGET /status/418 HTTP/1.1\r\nHost: x\r\n\r\nxxxx")
		if res.StatusCode != 405 || res.Header.Get(errorHeader) != "method_refused" {
			t.Errorf("%s: %d", method, res.StatusCode)
		}
	}
	for range 10 {
		r.get("/echo")
	}
	for _, e := range r.sandbox.Events() {
		if e.Kind == sandbox.KindAPI && e.Path != "/echo" {
			t.Errorf("the API was asked for %s", e.Path)
		}
	}
}

// Health checks carry a token if there is one, and never ask for one.
func TestHealthCheck(t *testing.T) {
	var with, without atomic.Int64
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/health":
		case r.Header.Get("Authorization") == "":
			without.Add(1)
		default:
			with.Add(1)
			w.WriteHeader(401) // says nothing about the token
		}
	}))
	defer api.Close()
	r := newRig(t, sandbox.Config{})
	r.api = api.URL
	r.account = "token_timeout 1s"
	r.handler = "health_uri /health\n\t\thealth_interval 20ms\n\t\thealth_status 4xx"
	r.sandbox.Play(sandbox.Unavailable, -1)
	r.start()
	r.eventually("checked without a token", func() bool { return without.Load() > 2 })
	r.sandbox.Clear()
	r.eventually("checked with a token", func() bool { return with.Load() > 10 })
	if n := r.sandbox.TokenRequests("refresh_token"); n != 0 {
		t.Errorf("the health checks caused %d refreshes", n)
	}
}

package oauth

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A wire is a token endpoint on a loopback socket that sees every byte.
type wire struct {
	url      string // of the token endpoint
	listener net.Listener
	accepted atomic.Int32

	mu       sync.Mutex
	requests []wireRequest
}

type wireRequest struct {
	*http.Request
	body string
}

// newWire serves each connection with one answer; more requests on the same
// connection are read, and so counted.
func newWire(t *testing.T, config *tls.Config, answer func(net.Conn)) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, url: "http://" + l.Addr().String() + "/token"}
	if config != nil {
		w.url = "https" + strings.TrimPrefix(w.url, "http")
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.accepted.Add(1)
			go w.serve(c, config, answer)
		}
	}()
	return w
}

func (w *wire) serve(c net.Conn, config *tls.Config, answer func(net.Conn)) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if config != nil {
		c = tls.Server(c, config)
	}
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(req.Body)
		w.mu.Lock()
		w.requests = append(w.requests, wireRequest{req, string(body)})
		w.mu.Unlock()
		answer(c)
	}
}

func (w *wire) seen() []wireRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]wireRequest(nil), w.requests...)
}

// send answers with the text, as HTTP with a Content-Length.
func send(status int, header, body string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = fmt.Fprintf(c, "HTTP/1.1 %d x\r\n%sContent-Length: %d\r\n\r\n%s", status, header, len(body), body)
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

const jsonHeader = "Content-Type: application/json\r\n"

func (w *wire) client(auth ClientAuth) *Client {
	return &Client{ID: "id", Secret: Fixed("secret"), Auth: auth, TokenEndpoint: w.url, Transport: NewTransport(nil, nil, nil)}
}

func (w *wire) refresh(t *testing.T, c *Client) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return c.refresh(ctx, NewSecret("RT"), "all")
}

func TestClientAuthOnTheWire(t *testing.T) {
	t.Parallel()
	const id, secret = "id:1 ü", "a:b%+ é"
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	tests := []struct {
		auth ClientAuth
		want string // Authorization
		form url.Values
	}{
		// RFC 6749 §2.3.1: form-urlencoded, so that a colon can't be mistaken.
		{AuthBasic, basic("id%3A1+%C3%BC:a%3Ab%25%2B+%C3%A9"), url.Values{}},
		{AuthBasicRaw, basic("id:1 ü:a:b%+ é"), url.Values{}},
		{AuthPost, "", url.Values{"client_id": {id}, "client_secret": {secret}}},
	}
	for _, tt := range tests {
		t.Run(string(tt.auth), func(t *testing.T) {
			t.Parallel()
			w := newWire(t, nil, send(200, jsonHeader, good))
			c := w.client(tt.auth)
			c.ID, c.Secret = id, Fixed(secret)
			c.TokenEndpoint += "?tenant=a%20b&x=1"
			c.TokenParams = url.Values{"audience": {"https://api.test/?a=b&c"}, "resource": {"r"}}
			if a := w.refresh(t, c); a.Outcome != Granted {
				t.Fatalf("%v: %s", a.Outcome, a.Detail)
			}
			seen := w.seen()
			if len(seen) != 1 || w.accepted.Load() != 1 {
				t.Fatalf("%d requests on %d connections", len(seen), w.accepted.Load())
			}
			r := seen[0]
			if r.Method != "POST" || r.RequestURI != "/token?tenant=a%20b&x=1" {
				t.Errorf("%s %s", r.Method, r.RequestURI)
			}
			tt.form.Set("grant_type", "refresh_token")
			tt.form.Set("refresh_token", "RT")
			tt.form.Set("scope", "all")
			tt.form.Set("audience", "https://api.test/?a=b&c")
			tt.form.Set("resource", "r")
			if r.body != tt.form.Encode() {
				t.Errorf("the body is\n%s\nwant\n%s", r.body, tt.form.Encode())
			}
			if got := strings.Join(r.Header.Values("Authorization"), "|"); got != tt.want {
				t.Errorf("Authorization is %q, want %q", got, tt.want)
			}
			for name, want := range map[string]string{"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded",
				"Accept-Encoding": "", "Cookie": "", "Referer": "", "Idempotency-Key": "", "User-Agent": "caddy-bearer"} {
				if got := strings.Join(r.Header.Values(name), "|"); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestPasswordOnTheWire(t *testing.T) {
	t.Parallel()
	w := newWire(t, nil, send(200, jsonHeader, good))
	g := &Password{User: Fixed("us er"), Secret: Fixed("p&w=ö")}
	if a := g.SignIn(t.Context(), w.client(AuthBasic), ""); a.Outcome != Granted {
		t.Fatalf("%v: %s", a.Outcome, a.Detail)
	}
	if r := w.seen()[0]; r.body != "grant_type=password&password=p%26w%3D%C3%B6&username=us+er" || r.URL.RawQuery != "" {
		t.Errorf("the body is %s, the query %q; an empty scope is left out", r.body, r.URL.RawQuery)
	}
}

// The password is read anew before each attempt, and so is the client secret.
func TestSecretsReadAnew(t *testing.T) {
	t.Parallel()
	w := newWire(t, nil, send(400, jsonHeader, `{}`))
	n := 0
	c := w.client(AuthPost)
	c.Secret = func() Secret { n++; return NewSecret("s" + strconv.Itoa(n)) }
	w.refresh(t, c)
	first := n
	w.refresh(t, c)
	if seen := w.seen(); len(seen) != 2 || n == first || seen[0].body == seen[1].body {
		t.Errorf("the secret was read %d times, then %d times", first, n-first)
	}
}

// A grant is one HTTP request on one new connection, whatever comes back: a
// second one would spend a one-time token twice.
func TestOneRequestPerGrant(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		answer func(net.Conn)
		want   Outcome
	}{
		{"granted", send(200, jsonHeader, good), Granted},
		{"granted, chunked", func(c net.Conn) {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", jsonHeader, len(good), good)
		}, Granted},
		{"invalid_grant", send(400, jsonHeader, `{"error":"invalid_grant"}`), Dead},
		{"401 with a challenge", send(401, jsonHeader+"WWW-Authenticate: Basic realm=\"x\"\r\n", `{"error":"invalid_client"}`), Refused},
		{"empty 400", send(400, "", ""), ProbablyDead},
		{"403 HTML", send(403, "Content-Type: text/html\r\n", "<html>"), Away},
		{"408", send(408, "", ""), Away},
		{"421", send(421, "", ""), Away},
		{"425", send(425, "", ""), Away},
		{"429", send(429, "Retry-After: 0\r\n", ""), NotTried},
		{"503", send(503, "Retry-After: 0\r\n", ""), NotTried},
		{"500", send(500, "", ""), Lost},
		{"502", send(502, "", ""), Lost},
		{"unreadable 200", send(200, jsonHeader, "{"), Lost},
		{"closed without an answer", func(c net.Conn) { _ = c.Close() }, Lost},
		{"reset after the request was read", reset, Lost},
		{"not HTTP", func(c net.Conn) { _, _ = io.WriteString(c, "CANARY\r\n\r\n"); _ = c.Close() }, Lost},
		{"half a head", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-CANARY"); _ = c.Close() }, Lost},
		{"a head that never ends", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Pad: "+strings.Repeat("CANARY", 30000)+"\r\n\r\n")
			_ = c.Close()
		}, Lost},
		{"half a body, with the refresh token", func(c net.Conn) {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%sContent-Length: 500\r\n\r\n%s", jsonHeader, good)
			_ = c.Close()
		}, Unusable},
		{"half a body, without", func(c net.Conn) {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%sContent-Length: 500\r\n\r\n%s", jsonHeader, good[:30])
			_ = c.Close()
		}, Lost},
		{"half an error", func(c net.Conn) {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 400 x\r\n%sContent-Length: 500\r\n\r\n{\"error\":\"invalid_grant\"}", jsonHeader)
			_ = c.Close()
		}, Away},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, nil, tt.answer)
			c := w.client(AuthBasic)
			c.TokenEndpoint += "?q=CANARY"
			a := w.refresh(t, c)
			if a.Outcome != tt.want {
				t.Errorf("%v (%s), want %v", a.Outcome, a.Detail, tt.want)
			}
			if s := fmt.Sprintf("%+v", a); strings.Contains(s, "CANARY") || strings.Contains(s, "127.0.0.1") {
				t.Errorf("the answer shows the URL or the reply: %s", s)
			}
			if n, conns := len(w.seen()), w.accepted.Load(); n != 1 || conns != 1 {
				t.Errorf("%d requests on %d connections, want 1 on 1", n, conns)
			}
			w.refresh(t, c)
			if n, conns := len(w.seen()), w.accepted.Load(); n != 2 || conns != 2 {
				t.Errorf("a second grant: %d requests on %d connections, want 2 on 2", n, conns)
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, where := range []string{"same host", "another host", "nowhere", "nonsense"} {
			t.Run(fmt.Sprint(status, " ", where), func(t *testing.T) {
				t.Parallel()
				other := newWire(t, nil, send(200, jsonHeader, good))
				location := map[string]string{"same host": "Location: /moved\r\n", "another host": "Location: " + other.url + "\r\n",
					"nonsense": "Location: ht!tp://%zz\r\n"}[where]
				w := newWire(t, nil, send(status, location, ""))
				a := w.refresh(t, w.client(AuthPost))
				if a.Outcome != Away || a.Status != status || !strings.Contains(a.Detail, "token_endpoint") {
					t.Errorf("%v, %d (%s)", a.Outcome, a.Status, a.Detail)
				}
				if n, followed := len(w.seen()), other.accepted.Load(); n != 1 || followed != 0 {
					t.Errorf("%d requests, %d to the other host", n, followed)
				}
			})
		}
	}
}

func TestRetryAfterOnTheWire(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{"": 0, "Retry-After: 7\r\n": 7 * time.Second, "Retry-After: 99999\r\n": 5 * time.Minute} {
		w := newWire(t, nil, send(503, header, ""))
		if a := w.refresh(t, w.client(AuthBasic)); a.RetryAfter != want {
			t.Errorf("%q: %v, want %v", header, a.RetryAfter, want)
		}
	}
}

package caddymodule

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// auditTo gives the audit a log of its own.
func (r *rig) auditTo() (read func() []map[string]any) {
	r.Helper()
	file := filepath.Join(r.dir, "audit.log")
	r.global += "\n\tlog audit {\n\t\toutput file " + file + "\n\t\tinclude http.handlers.bearer_guard.audit\n\t}"
	return func() (lines []map[string]any) {
		text, err := os.ReadFile(file)
		if err != nil {
			r.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				r.Fatalf("%s: %v", line, err)
			}
			lines = append(lines, fields)
		}
		return lines
	}
}

// One line for each request that a guard let pass, with who and what, and
// nothing else: no query, no header, no body.
func TestAudit(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	lines := r.auditTo()
	r.secret("scanner.key", scannerKey)
	r.handler = "caller_key scanner {file." + r.dir + "/scanner.key}\n\t\tcallers 127.0.0.1"
	r.start()
	send := func(method, path, key string) int {
		res, _ := r.do(method, path, nil, "X-Api-Key", key, "X-Secret", "canary-header")
		return res.StatusCode
	}
	send("POST", "/echo/invoices?secret=canary-query", scannerKey)
	if status := send("GET", "/echo", "canary-wrong-key"); status != 401 {
		t.Errorf("a wrong key: %d", status)
	}
	send("GET", "/nothing-there", scannerKey)
	got := lines()
	want := []map[string]any{
		{"caller": "scanner", "account": "erp", "user": "", "method": "POST", "host": r.address, "path": "/echo/invoices", "status": 200.0, "outcome": "passed"},
		{"caller": "scanner", "account": "erp", "user": "", "method": "GET", "host": r.address, "path": "/nothing-there", "status": 404.0, "outcome": "passed"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d: %v", len(got), len(want), got)
	}
	for i, line := range got {
		for _, standard := range []string{"level", "ts", "logger", "msg"} {
			delete(line, standard)
		}
		if fmt.Sprint(line) != fmt.Sprint(want[i]) {
			t.Errorf("line %d: %v\nwant %v", i, line, want[i])
		}
	}
	r.sandbox.Close() // its servers go on; the API is away:
	r.servers.Close()
	if status := send("GET", "/echo", scannerKey); status != 502 {
		t.Errorf("without the API: %d", status)
	}
	last := lines()[2]
	if last["outcome"] != "upstream_unreachable" || last["status"] != 502.0 {
		t.Errorf("without the API: %v", last)
	}
}

func TestAuditOff(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	lines := r.auditTo()
	r.handler = "audit off"
	r.start()
	r.get("/echo")
	if got := lines(); len(got) > 0 {
		t.Errorf("%v", got)
	}
}

// Who is refused a thousand times fills no disk.
func TestRefusalsAreCounted(t *testing.T) {
	t.Parallel()
	l := new(seldomLog)
	start := time.Now()
	told, others := 0, 0
	for i := range 3000 { // within three seconds
		if n, ok := l.due("host_refused", start.Add(time.Duration(i)*time.Millisecond)); ok {
			told++
			others += n
		}
	}
	if told != 3 || others != 1998 {
		t.Errorf("%d lines with %d others", told, others)
	}
	if _, ok := l.due("caller_refused", start); !ok {
		t.Error("another code waits for the first one")
	}
}

// answering is an API of the test.
func answering(t *testing.T, serve http.HandlerFunc) string {
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return s.URL
}

// pipelined sends bytes and reads the answers that come until the connection ends or
// stays silent.
func pipelined(t *testing.T, address, text string) (answers []*http.Response, closed bool) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := in.Peek(1); err != nil {
			return answers, err == io.EOF
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("%v after %d answers", err, len(answers))
		}
		_, _ = io.Copy(io.Discard, res.Body)
		answers = append(answers, res)
	}
}

// Behind a request with a chunked body nothing else is served on its
// connection: a proxy in front that went by Content-Length would have passed on
// the second request as a part of the first one's body.
func TestNothingBehindAChunkedBody(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	var served atomic.Int32
	r.api = answering(t, func(w http.ResponseWriter, req *http.Request) { served.Add(1) })
	r.start()
	const second = "GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, first := range map[string]string{
		"TE":    "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"CL+TE": "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 48\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		// Go takes Transfer-Encoding off such a request; then it has no body.
		"TE, HTTP/1.0":    "POST / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
		"CL+TE, HTTP/1.0": "POST / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		served.Store(0)
		answers, closed := pipelined(t, r.address, first+second)
		if len(answers) != 1 || !closed || served.Load() != 1 || answers[0].StatusCode != 200 {
			t.Errorf("%s: %d answers, closed %v, %d requests at the API", name, len(answers), closed, served.Load())
		}
	}
	if answers, _ := pipelined(t, r.address, second+second); len(answers) != 2 {
		t.Errorf("without a body: %d answers", len(answers))
	}
}

// A proxy on this machine that Caddy trusts says by client_ip_headers whom it
// asks for: that is no caller on this machine, also if it says nothing of use.
func TestClientOfATrustedProxy(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.global = "servers {\n\t\ttrusted_proxies static private_ranges\n\t\tclient_ip_headers CF-Connecting-IP\n\t}"
	r.start()
	for value, line := range map[string]string{"192.0.2.1": "callers 192.0.2.1", "unknown": "callers 127.0.0.1 ::1", "": "callers 127.0.0.1 ::1", "127.0.0.1": "callers 127.0.0.1 ::1"} {
		res, text := r.do("GET", "/echo", nil, "CF-Connecting-IP", value)
		if res.StatusCode != 403 || res.Header.Get(errorHeader) != "caller_refused" || !strings.Contains(text, "add the line: "+line+"\"") {
			t.Errorf("%q: %d %s", value, res.StatusCode, text)
		}
	}
	r.get("/echo")
	r.handler = "callers 192.0.2.1"
	if err := r.load(r.caddyfile()); err != nil {
		t.Fatal(err)
	}
	r.settled()
	for value, want := range map[string]int{"192.0.2.1": 200, "192.0.2.2": 403, "unknown": 403} {
		if res, text := r.do("GET", "/echo", nil, "CF-Connecting-IP", value); res.StatusCode != want {
			t.Errorf("%q, with callers: %d %s", value, res.StatusCode, text)
		}
	}
}

// An informational answer is filtered as the last one is.
func TestInformationalAnswers(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.api = answering(t, func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Link", "</style.css>; rel=preload")
		h.Set("Set-Cookie", "a=b")
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("X-Echo", req.Header.Get("Authorization"))
		w.WriteHeader(http.StatusEarlyHints)
		h.Del("X-Echo")
		_, _ = io.WriteString(w, "done")
	})
	r.site = "header X-Site here"
	r.start()
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	in := textproto.NewReader(bufio.NewReader(conn))
	for _, want := range []string{"HTTP/1.1 103 Early Hints", "HTTP/1.1 200 OK"} {
		line, _ := in.ReadLine()
		h, err := in.ReadMIMEHeader()
		if line != want || err != nil {
			t.Fatalf("%q %v", line, err)
		}
		if h.Get("Link") == "" || h.Get("Set-Cookie") != "" || h.Get("Access-Control-Allow-Origin") != "" || h.Get("X-Echo") != "" {
			t.Errorf("%s: %v", line, h)
		}
		if strings.Contains(line, "200") && h.Get("X-Site") != "here" {
			t.Errorf("the site's own field is gone: %v", h)
		}
	}
}

// The token in a field of the answer goes no further, whatever the status. A
// refusal is one all the same: the token is refreshed.
func TestTokenLeakIsStopped(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.api = answering(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("X-Debug", "got "+req.Header.Get("Authorization"))
		if req.URL.Path == "/401" {
			w.WriteHeader(401)
		}
		_, _ = io.WriteString(w, "body")
	})
	r.start()
	for _, path := range []string{"/", "/401"} {
		res, body := r.do("GET", path, nil)
		if res.StatusCode != 502 || res.Header.Get(errorHeader) != "token_leak_stopped" || res.Header.Get("X-Debug") != "" ||
			strings.Contains(body, "Bearer") || !strings.Contains(body, "X-Debug") {
			t.Errorf("%s: %d %v %s", path, res.StatusCode, res.Header, body)
		}
	}
	if n := r.sandbox.TokenRequests(""); n != 2 {
		t.Errorf("%d token requests", n)
	}
}

// An operator's own header_up wins over what is withheld, and what is asked for
// by pass_headers passes.
func TestHeaderUpWins(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.handler = "callers 127.0.0.1\n\t\theader_up X-Api-Key of-the-operator\n\t\theader_up X-Forwarded-Proto https\n\t\tpass_headers Referer Via"
	r.start()
	h := r.echoed("X-Api-Key", "of-the-caller", "Referer", "http://here/", "Cookie", "a=b", "X-Forwarded-Host", "evil")
	for field, want := range map[string]string{
		"X-Api-Key": "of-the-operator", "X-Forwarded-Proto": "https", "Referer": "http://here/", "Via": "1.1 Caddy",
		"Cookie": "", "X-Forwarded-Host": "", "X-Forwarded-For": "",
	} {
		if got := h.Get(field); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
}

// Without a guard, the transport withholds the same.
func TestUnguardedWithholds(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.site = "handle /echo {\n reverse_proxy " + r.api + " {\n transport bearer erp {\n unguarded\n pass_headers Referer\n }\n header_up X-Own 1\n }\n }"
	r.start()
	h := r.echoed("X-Api-Key", "k", "Referer", "http://here/", "Cookie", "a=b", "X-Forwarded-Host", "evil", "Sec-Fetch-Mode", "cors",
		"X-Real-Ip", "192.0.2.1", "Origin", "http://evil.example", "Authorization", "Basic x")
	for _, field := range []string{"X-Api-Key", "Cookie", "X-Forwarded-Host", "X-Forwarded-For", "Sec-Fetch-Mode", "X-Real-Ip", "Origin", "Via"} {
		if h.Get(field) != "" {
			t.Errorf("the API got %s: %s", field, h.Get(field))
		}
	}
	if h.Get("Referer") == "" || h.Get("X-Own") == "" || len(h["Authorization"]) > 0 {
		t.Errorf("the API got %v", h)
	}
}

// No cache between us and the caller may give one caller's answer to another.
func TestAnswersArePrivate(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.api = answering(t, func(w http.ResponseWriter, req *http.Request) {
		if own := req.URL.Query().Get("own"); own != "" {
			w.Header().Set("Cache-Control", own)
		}
		w.WriteHeader(404)
	})
	r.start()
	for path, want := range map[string]string{"/": "private, no-store", "/?own=max-age=60": "max-age=60"} {
		if res, _ := r.do("GET", path, nil); res.Header.Get("Cache-Control") != want || len(res.Header["Cache-Control"]) != 1 {
			t.Errorf("%s: %q", path, res.Header["Cache-Control"])
		}
	}
}

// echoed makes a request and returns the fields that the API got; the sandbox
// leaves the token out.
func (r *rig) echoed(header ...string) http.Header {
	r.Helper()
	res, text := r.do("GET", "/echo", nil, header...)
	var echo struct{ Headers http.Header }
	if err := json.Unmarshal([]byte(text), &echo); err != nil || res.StatusCode != 200 {
		r.Fatalf("%d %v", res.StatusCode, err)
	}
	return echo.Headers
}

// Past max_waiters callers are sent away at once; those who wait get the token.
func TestMaxWaiters(t *testing.T) {
	r := newRig(t, sandbox.Config{SlowFor: 500 * time.Millisecond})
	r.handler = "max_waiters 5"
	r.sandbox.Play(sandbox.Slow, 1)
	r.start()
	var served, busy atomic.Int32
	done := make(chan error, 20)
	for range cap(done) {
		go func() {
			res, err := http.Get("http://" + r.address + "/echo")
			if err == nil {
				defer res.Body.Close()
				switch {
				case res.StatusCode == 200:
					served.Add(1)
				case res.StatusCode == 503 && res.Header.Get(errorHeader) == "busy" && res.Header.Get("Retry-After") == "1":
					busy.Add(1)
				default:
					err = fmt.Errorf("%s %v", res.Status, res.Header)
				}
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if served.Load() != 5 || busy.Load() != 15 {
		t.Errorf("%d served, %d sent away", served.Load(), busy.Load())
	}
	r.get("/echo")
}

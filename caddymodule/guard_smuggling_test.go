package caddymodule

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// hidden is the request that somebody tries to bring to the API past the guard.
// The guard would refuse it, for its Host: whoever sees it at the API, as a
// request of its own, sees a smuggled one.
const hidden = "GET /hidden HTTP/1.1\r\nHost: evil.example\r\nX-Smuggled: yes\r\n\r\n"

// A smuggling is bytes of which some are hidden in a request.
type smuggling struct {
	name, text string
	served     bool // whether the first request is a good one, to be served
}

func smugglings() []smuggling {
	post := func(fields string) string { return "POST /first HTTP/1.1\r\nHost: localhost\r\n" + fields }
	h := hidden
	length := func(s string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(s)) }
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(s), s) }
	const chunked = "Transfer-Encoding: chunked\r\n"
	list := []smuggling{
		{"body by length", post(length(h)) + "\r\n" + h, true},
		{"body in chunks", post(chunked) + "\r\n" + chunk(h), true},
		{"GET with body", strings.Replace(post(length(h)), "POST", "GET", 1) + "\r\n" + h, true},
		{"HEAD with body", strings.Replace(post(length(h)), "POST", "HEAD", 1) + "\r\n" + h, true},
		{"pipelined", post(length("x")) + "\r\nx" + h, true},
		{"CL.TE", post(length("0\r\n\r\n"+h)+chunked) + "\r\n0\r\n\r\n" + h, false},
		{"TE.CL", post(chunked+"Content-Length: 4\r\n") + "\r\n" + chunk(h), false},
		{"CL 0 and TE", post("Content-Length: 0\r\n"+chunked) + "\r\n" + chunk(h), false},
		{"CL too short", post("Content-Length: 1\r\n") + "\r\nx" + h, true},
		{"CL twice, equal", post(length("x")+length("x")) + "\r\nx" + h, false},
		{"CL twice, different", post(length(h)+"Content-Length: 0\r\n") + "\r\n" + h, false},
		{"CL twice, different, turned", post("Content-Length: 0\r\n"+length(h)) + "\r\n" + h, false},
		{"CL list", post(fmt.Sprintf("Content-Length: 0, %d\r\n", len(h))) + "\r\n" + h, false},
		{"TE twice", post(chunked+chunked) + "\r\n0\r\n\r\n" + h, false},
		{"TE list", post("Transfer-Encoding: identity, chunked\r\n") + "\r\n0\r\n\r\n" + h, false},
		{"TE in HTTP/1.0", strings.Replace(post(chunked+length(h)), "1.1", "1.0", 1) + "\r\n0\r\n\r\n" + h, false},
		{"TE in HTTP/1.0, kept", strings.Replace(post("Connection: keep-alive\r\n"+chunked), "1.1", "1.0", 1) + "\r\n" + h, true},
		{"TE and CL in HTTP/1.0, kept", strings.Replace(post("Connection: keep-alive\r\nContent-Length: 0\r\n"+chunked), "1.1", "1.0", 1) + "\r\n" + chunk(h), true},
		{"TE and no end", post(chunked) + "\r\n5\r\nhello\r\n" + h, false},
		{"bare LF after a chunk's length", post(chunked) + "\r\n5\nhello\r\n0\r\n\r\n" + h, false},
		{"bare LF after a chunk", post(chunked) + "\r\n5\r\nhello\n0\r\n\r\n" + h, false},
		{"bare LF in an extension", post(chunked) + "\r\n5;\n\nhello\r\n0\r\n\r\n" + h, false}, // CVE-2025-22871
		{"an extension", post(chunked) + "\r\n5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n" + h, false},
		{"bare CR in an extension", post(chunked) + "\r\n5;\rx\r\nhello\r\n0\r\n\r\n" + h, false},
		{"a chunk of -1", post(chunked) + "\r\n-1\r\nx\r\n0\r\n\r\n" + h, false},
		{"a chunk of 0x5", post(chunked) + "\r\n0x5\r\nhello\r\n0\r\n\r\n" + h, false},
		{"a chunk of +5", post(chunked) + "\r\n+5\r\nhello\r\n0\r\n\r\n" + h, false},
		{"a chunk of 2⁶⁴", post(chunked) + "\r\n10000000000000005\r\nhello\r\n0\r\n\r\n" + h, false},
		{"a long chunk", post(chunked) + "\r\n3\r\nhello\r\n0\r\n\r\n" + h, false},
		{"trailers", post(chunked) + "\r\n0\r\nX-A: b\r\n\r\n" + h, false},
		{"a request as trailer", post(chunked) + "\r\n0\r\n" + h, false},
		{"bare LF lines", strings.ReplaceAll(post(length("x")), "\r", "") + "\nx" + h, false},
		{"bare LF between fields", post("X-A: b\nContent-Length: 0\r\n"+chunked) + "\r\n" + chunk(h), false},
		{"bare CR between fields", post("X-A: b\rContent-Length: 0\r\n") + "\r\n" + h, false},
		{"NUL in a field", post("X-A: \x00\r\n") + "\r\n" + h, false},
		{"space before the colon", post("Content-Length : 5\r\n") + "\r\nhello" + h, false},
		{"folded length", post("Content-Length:\r\n 5\r\n") + "\r\nhello" + h, false},
		{"folded coding", post("Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n") + "\r\nhello" + h, false},
		{"an empty line first", "\r\n\r\n" + post(length("x")) + "\r\nx" + h, false},
		{"a prefix", post(length("x")) + "\r\nxyz" + h, true},
		{"absolute", strings.Replace(post(length(h)), "/first", "http://localhost/first", 1) + "\r\n" + h, true},
		{"space in the target", strings.Replace(post(""), "/first", "/first HTTP/1.1\r\nX: y", 1) + "\r\n" + h, false},
		{"escaped CRLF in the target", strings.Replace(post(length("")), "/first", "/first%20HTTP/1.1%0d%0aHost:x%0d%0a%0d%0aGET%20/hidden", 1) + "\r\n" + h, false},
		{"expect and no body", post("Expect: 100-continue\r\n"+length(h)) + "\r\n" + h, true},
		{"another expectation", post("Expect: x\r\n"+length(h)) + "\r\n" + h, false},
		{"HTTP/1.2", strings.Replace(post(length("")), "1.1", "1.2", 1) + "\r\n" + h, false},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h, false},
		{"HTTP/2 preface behind a request", "GET /first HTTP/1.1\r\nHost: localhost\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h, true},
		{"HTTP/2 preface with a Host behind a request", "GET /first HTTP/1.1\r\nHost: localhost\r\n\r\nPRI * HTTP/2.0\r\nHost: localhost\r\n\r\nSM\r\n\r\n" + h, true},
		{"HTTP/0.9", "GET /first\r\n" + h, false},
	}
	for _, te := range []string{" chunked", "\tchunked", "chunked ", "Chunked", "CHUNKED", "xchunked", "chunkedx", "chunked, identity", "identity", "gzip, chunked", "chunked,", ",chunked", "\"chunked\"", "chunked;q=1", "\x0bchunked", "chunk\x00ed", "x\r\nTransfer-Encoding: chunked"} {
		list = append(list, smuggling{"TE " + te, post("Content-Length: 5\r\nTransfer-Encoding:"+te+"\r\n") + "\r\n0\r\n\r\n" + h, false})
	}
	for _, te := range []string{"Transfer-Encoding : chunked", "Transfer_Encoding: chunked", "transfer-encoding: chunked", " Transfer-Encoding: chunked", "X: y\r\n Transfer-Encoding: chunked", "Transfer-Encoding\r\n: chunked", "Transfer.Encoding: chunked", "Content_Length: 0", "Content-Length:\x0b0"} {
		list = append(list, smuggling{"name " + te, post("Content-Length: 5\r\n"+te+"\r\n") + "\r\n0\r\n\r\n" + h, false})
	}
	for _, cl := range []string{"+5", "-5", "0x5", "5 5", "5,5", "05", "5.0", "", "５", "99999999999999999999", "5\x00"} {
		list = append(list, smuggling{"CL " + cl, post("Content-Length: "+cl+"\r\n") + "\r\nhello" + h, false})
	}
	for _, method := range []string{"CONNECT", "TRACE", "TRACK", "PRI", "connect"} {
		for _, target := range []string{"localhost:80", "/first", "http://localhost/first", "*"} {
			head := method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n"
			list = append(list, smuggling{head[:len(head)-19] + " with length", head + length(h) + "\r\n" + h, false},
				smuggling{method + " " + target + " in chunks", head + chunked + "\r\n" + chunk(h), false},
				smuggling{method + " " + target + " without length", head + "\r\n" + h, false})
		}
	}
	for _, protocol := range []string{"websocket", "h2c", "TLS/1.0", "HTTP/2.0", "h2c, websocket", "foo"} {
		fields := "Connection: Upgrade\r\nUpgrade: " + protocol + "\r\n"
		list = append(list, smuggling{"upgrade " + protocol, post(fields+length("")) + "\r\n" + h, false},
			smuggling{"upgrade with length " + protocol, post(fields+length(h)) + "\r\n" + h, false},
			smuggling{"upgrade in chunks " + protocol, post(fields+chunked) + "\r\n" + chunk(h), false},
			smuggling{"upgrade of GET " + protocol, strings.Replace(post(fields), "POST", "GET", 1) + "\r\n" + h, false},
			smuggling{"upgrade, no Connection " + protocol, strings.Replace(post("Upgrade: "+protocol+"\r\n"), "POST", "GET", 1) + "\r\n" + h, false})
	}
	return list
}

// TM-14 and TM-6, with the advisories CVE-2026-56866, CVE-2026-94439 (Go),
// CVE-2026-71324, CVE-2026-88008 (Traefik), CVE-2026-73548 (Envoy),
// CVE-2026-2833 (Pingora), CVE-2025-22871 (Go): whatever the bytes, the API
// sees no request that the guard has not seen, and the next caller gets the
// answer to its own.
func TestSmuggling(t *testing.T) {
	for _, c := range []struct{ name, options, answer string }{
		{"default", "", ""},
		{"upgrades allowed", "allow_upgrade", ""},
		{"upgrades allowed, and the API agrees", "allow_upgrade", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, api := newWireRig(t, c.options)
			if c.answer != "" {
				api.answer = func(r wireRequest) string {
					if r.values("Upgrade") != nil {
						return c.answer
					}
					return ""
				}
			}
			tally := &tally{T: t}
			defer tally.end()
			for i, s := range smugglings() {
				if c.answer != "" && !strings.HasPrefix(s.name, "upgrade") {
					continue
				}
				smuggle(tally, r, api, c.answer != "", i, s)
			}
			t.Logf("%d smugglings", len(smugglings()))
		})
	}
}

// smuggle makes one attempt, and looks at what the API and the next callers
// get; agrees says whether the API agrees to upgrades.
func smuggle(t *tally, r *rig, api *wireAPI, agrees bool, i int, s smuggling) {
	// Connections to the API are kept meanwhile, for the next to be poisoned.
	c := dialCaller(t, r.address)
	c.send(s.text)
	if one, ok := strings.CutSuffix(s.text, hidden); ok && one != "" {
		c.send("GET /normal HTTP/1.1\r\nHost: localhost\r\n\r\n") // on the same connection
	}
	answers := c.drain(s.text[:max(0, strings.Index(s.text, " "))], 40*time.Millisecond)
	c.conn.Close()
	for n := range 3 { // more than one idle connection may be there
		target := fmt.Sprintf("/next/%d/%d", i, n)
		got, err := askWire(t, r.address, "GET", "GET "+target+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if err != nil || got.status != 200 || got.body != "GET "+target+" 0\n" {
			t.Errorf("%s: the next caller, who asked for %s, got %v %v; smuggled was\n%q", s.name, target, got, err, s.text)
		}
	}
	sent := api.take()
	tunnels := map[int]bool{} // what is in those is the caller's own
	for _, request := range sent {
		switch {
		case tunnels[request.conn] && strings.HasPrefix(request.target, "/next"):
			t.Errorf("%s: the next caller's request went into a tunnel: %s", s.name, targets(sent))
		case tunnels[request.conn]:
		case agrees && request.values("Upgrade") != nil:
			tunnels[request.conn] = true
		case request.target == "/hidden" || request.values("X-Smuggled") != nil:
			t.Errorf("%s: the API got the hidden request: %s; the bytes were\n%q", s.name, targets(sent), s.text)
		case request.broken != "" && (request.broken != cutOff || s.served):
			t.Errorf("%s: the API got bytes that are no request: %s; the bytes were\n%q", s.name, targets(sent), s.text)
		case slices.Contains([]string{"CONNECT", "TRACE", "TRACK", "PRI"}, strings.ToUpper(request.method)):
			t.Errorf("%s: the API got %s", s.name, request.method)
		}
	}
	if len(answers) == 0 && s.served {
		t.Errorf("%s: no answer to\n%q", s.name, s.text)
		return
	}
	if s.served && (answers[0].status != 200 || len(sent) < 4 || !strings.HasSuffix(sent[0].target, "/first")) {
		t.Errorf("%s: got %v, and the API %s; the first request is a good one:\n%q", s.name, answers, targets(sent), s.text)
	}
	chunkedOnce := strings.Contains(strings.ToLower(s.text), "\r\ntransfer-encoding: chunked\r\n")
	if chunkedOnce && strings.HasPrefix(s.text, "POST") && (len(answers) > 1 || len(answers) == 1 && !answers[0].closed) {
		t.Errorf("%s: the connection stays open after Transfer-Encoding: %v\n%q", s.name, answers, s.text)
	}
}

// An upgrade that the API agrees to is a tunnel: what goes through it is the
// caller's own, on a connection that nobody else gets.
func TestUpgradeOwnsItsConnection(t *testing.T) {
	r, api := newWireRig(t, "allow_upgrade")
	api.answer = func(r wireRequest) string {
		if r.values("Upgrade") != nil {
			return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
		}
		return ""
	}
	c := dialCaller(t, r.address)
	defer c.conn.Close()
	c.send("GET /tunnel HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if got, err := c.next("GET"); err != nil || got.status != 101 {
		t.Fatalf("%v %v", got, err)
	}
	c.send("GET /inside HTTP/1.1\r\nHost: x\r\n\r\n")
	if got, err := c.next("GET"); err != nil || got.body != "GET /inside 0\n" {
		t.Fatalf("%v %v", got, err)
	}
	for range 20 {
		if got, err := askWire(t, r.address, "GET", "GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil || got.body != "GET /other 0\n" {
			t.Fatalf("%v %v", got, err)
		}
	}
	tunnel := 0
	for _, request := range api.take() {
		switch request.target {
		case "/tunnel":
			tunnel = request.conn
		case "/inside":
			if len(request.values("Authorization")) != 0 {
				t.Error("the tunnel's inside was touched")
			}
		default:
			if request.conn == tunnel {
				t.Error("the tunnel's connection was given to another caller")
			}
		}
	}
}

// Requests one after the other on a connection without waiting: all are
// answered, in their order, each with its own answer, and each is guarded.
func TestPipelining(t *testing.T) {
	r, api := newWireRig(t)
	var text strings.Builder
	var want []string
	for i := range 50 {
		body := strings.Repeat("x", i)
		fmt.Fprintf(&text, "POST /%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", i, i, body)
		want = append(want, fmt.Sprintf("POST /%d %d\n", i, i))
	}
	text.WriteString(hidden)
	text.WriteString("GET /after HTTP/1.1\r\nHost: localhost\r\n\r\n")
	c := dialCaller(t, r.address)
	defer c.conn.Close()
	c.send(text.String())
	var got []string
	for _, a := range c.drain("POST", time.Second) {
		got = append(got, a.body)
	}
	if len(got) != 51 || !slices.Equal(got[:50], want) || !strings.Contains(got[50], "host_refused") {
		t.Errorf("got %q", got)
	}
	for _, request := range api.take() {
		if request.target == "/hidden" || request.target == "/after" {
			t.Errorf("the API got %s", request.target)
		}
	}
}

// Callers side by side, some of whom smuggle: everybody gets their own answer.
func TestSmugglingSideBySide(t *testing.T) {
	r, api := newWireRig(t)
	all := smugglings()
	var callers sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		callers.Go(func() {
			for i := w; ; i += 4 {
				select {
				case <-stop:
					return
				default:
				}
				c := dialCaller(t, r.address)
				c.send(all[i%len(all)].text)
				_ = c.conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				_, _ = c.next("GET")
				c.conn.Close()
			}
		})
	}
	for w := range 4 {
		callers.Go(func() {
			for i := range 100 {
				target := fmt.Sprintf("/own/%d/%d", w, i)
				got, err := askWire(t, r.address, "GET", "GET "+target+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
				if err != nil || got.body != "GET "+target+" 0\n" {
					t.Errorf("%s: got %v %v", target, got, err)
				}
			}
			if w == 0 {
				close(stop)
			}
		})
	}
	callers.Wait()
	for _, request := range api.take() {
		if request.target == "/hidden" {
			t.Error("the API got a hidden request")
		}
	}
}

// The API of these tests sees a smuggled request if there is one: else they
// would prove nothing.
func TestWireAPISeesSmuggled(t *testing.T) {
	for _, text := range []string{
		"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n" + hidden,
		"POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + hidden,
		"GET /first HTTP/1.1\r\nHost: x\r\n\r\n" + hidden,
	} {
		api := newWireAPI(t)
		c := dialCaller(t, api.address)
		c.send(text)
		for range 2 {
			if _, err := c.next("GET"); err != nil {
				t.Fatal(err)
			}
		}
		c.conn.Close()
		if sent := api.take(); len(sent) != 2 || sent[1].target != "/hidden" {
			t.Errorf("%q: it saw %s", text, targets(sent))
		}
	}
}

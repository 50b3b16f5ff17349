package caddymodule

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A wireAPI is an API that keeps the very bytes it gets. It reads them as
// RFC 9112 says and no more kindly, so that a byte too many on a connection is
// a request of its own to it. Its answers say which request they are for.
type wireAPI struct {
	address string

	mu       sync.Mutex
	conns    []*bytes.Buffer
	requests []wireRequest
	// answer gives another answer than 200; empty takes the usual one.
	answer func(wireRequest) string
}

// A wireRequest is what the API made of the bytes.
type wireRequest struct {
	conn           int
	method, target string
	fields         [][2]string // name and value, as they came
	body           string
	broken         string // why these bytes are no request
}

// cutOff is what is wrong with a request whose connection was closed amid the
// body: that is how a proxy says that it got no whole one itself (RFC 9112 §8).
const cutOff = "the body is cut off"

func newWireAPI(t testing.TB) *wireAPI {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	api := &wireAPI{address: l.Addr().String()}
	var gone sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	gone.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			gone.Go(func() {
				api.serve(conn)
				_ = conn.Close()
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		gone.Wait()
	})
	return api
}

func (api *wireAPI) serve(conn net.Conn) {
	seen := new(bytes.Buffer)
	api.mu.Lock()
	api.conns = append(api.conns, seen)
	number := len(api.conns)
	api.mu.Unlock()
	br := bufio.NewReader(io.TeeReader(conn, lockedWriter{&api.mu, seen}))
	for {
		r, err := readWire(br, conn)
		if err != nil {
			return // closed between two requests
		}
		r.conn = number
		api.mu.Lock()
		api.requests = append(api.requests, r)
		answer := ""
		if api.answer != nil {
			answer = api.answer(r)
		}
		api.mu.Unlock()
		if r.broken != "" {
			return
		}
		if answer == "" {
			answer = usualAnswer(r)
		}
		if _, err := io.WriteString(conn, answer); err != nil || strings.Contains(answer, "Connection: close") {
			return
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// usualAnswer names the request.
func usualAnswer(r wireRequest) string {
	text := r.method + " " + r.target + " " + strconv.Itoa(len(r.body)) + "\n"
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", len(text))
	if r.method == "HEAD" {
		return head
	}
	return head + text
}

// readWire reads a request; an error means that none has begun.
func readWire(br *bufio.Reader, conn io.Writer) (r wireRequest, err error) {
	if _, err := br.Peek(1); err != nil {
		return r, err
	}
	line, ok := wireLine(br)
	parts := strings.Split(line, " ")
	if !ok || len(parts) != 3 || parts[2] != "HTTP/1.1" {
		r.broken = "request line " + strconv.Quote(line)
		return r, nil
	}
	r.method, r.target = parts[0], parts[1]
	for {
		line, ok := wireLine(br)
		if ok && line == "" {
			break
		}
		name, value, found := strings.Cut(line, ":")
		if !ok || !found || name == "" || strings.ContainsAny(name, " \t") {
			r.broken = "field line " + strconv.Quote(line)
			return r, nil
		}
		r.fields = append(r.fields, [2]string{name, strings.Trim(value, " \t")})
	}
	if len(r.values("Expect")) > 0 {
		_, _ = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	r.readBody(br)
	return r, nil
}

// wireLine reads a line that ends in CRLF, without it.
func wireLine(br *bufio.Reader) (string, bool) {
	line, err := br.ReadString('\n')
	text, ok := strings.CutSuffix(line, "\r\n")
	return text, err == nil && ok && !strings.ContainsAny(text, "\r\x00")
}

// readBody reads the body (RFC 9112 §6.3). CONNECT has none, whatever its
// fields say.
func (r *wireRequest) readBody(br *bufio.Reader) {
	lengths, codings := r.values("Content-Length"), r.values("Transfer-Encoding")
	switch {
	case r.method == "CONNECT":
	case len(lengths)+len(codings) > 1:
		r.broken = fmt.Sprintf("lengths %q and codings %q", lengths, codings)
	case len(codings) == 1 && codings[0] != "chunked":
		r.broken = "coding " + strconv.Quote(codings[0])
	case len(codings) == 1:
		r.readChunks(br)
	case len(lengths) == 1:
		n, err := strconv.ParseUint(lengths[0], 10, 31)
		if err != nil {
			r.broken = "length " + strconv.Quote(lengths[0])
			return
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(br, body); err != nil {
			r.broken = cutOff
		}
		r.body = string(body)
	}
}

func (r *wireRequest) readChunks(br *bufio.Reader) {
	for {
		line, ok := wireLine(br)
		if !ok && line == "" {
			r.broken = cutOff
			return
		}
		n, err := strconv.ParseUint(line, 16, 31) // Go sends no extensions
		if !ok || err != nil {
			r.broken = "chunk " + strconv.Quote(line)
			return
		}
		if n == 0 {
			break
		}
		data := make([]byte, n+2)
		if _, err := io.ReadFull(br, data); err != nil || string(data[n:]) != "\r\n" {
			r.broken = "the chunk's end"
			return
		}
		r.body += string(data[:n])
	}
	for { // trailers count as fields: none may be there
		line, ok := wireLine(br)
		if line == "" {
			if !ok {
				r.broken = "the trailers' end"
			}
			return
		}
		name, value, _ := strings.Cut(line, ":")
		r.fields = append(r.fields, [2]string{"(trailer) " + name, strings.TrimSpace(value)})
	}
}

// values are those of a field, in any case of its name.
func (r *wireRequest) values(name string) (values []string) {
	for _, f := range r.fields {
		if strings.EqualFold(f[0], name) {
			values = append(values, f[1])
		}
	}
	return values
}

// take returns what the API got since the last time.
func (api *wireAPI) take() []wireRequest {
	api.mu.Lock()
	defer api.mu.Unlock()
	got := api.requests
	api.requests = nil
	return got
}

// newWireRig is a running site in front of an API that keeps the bytes.
func newWireRig(t *testing.T, options ...string) (*rig, *wireAPI) {
	t.Helper()
	r, api := prepareWireRig(t, options...)
	r.start()
	r.ready()
	return r, api
}

// prepareWireRig is a site that doesn't run yet.
func prepareWireRig(t *testing.T, options ...string) (*rig, *wireAPI) {
	t.Helper()
	r := newRig(t, sandbox.Config{})
	api := newWireAPI(t)
	r.api = "http://" + api.address
	r.handler = strings.Join(options, "\n\t\t")
	return r, api
}

// A wireAnswer is what a caller gets.
type wireAnswer struct {
	status int
	code   string // Caddy-Bearer-Error
	header http.Header
	body   string
	closed bool // nothing more will come: Connection: close
}

func (a wireAnswer) String() string { return fmt.Sprintf("%d %s %q", a.status, a.code, a.body) }

// A wireCaller is a legacy application's connection, byte by byte.
type wireCaller struct {
	conn net.Conn
	br   *bufio.Reader
}

func dialCaller(t testing.TB, address string) *wireCaller {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &wireCaller{conn, bufio.NewReader(conn)}
}

// send sends bytes. That the proxy has hung up meanwhile is no failure.
func (c *wireCaller) send(text string) { _, _ = io.WriteString(c.conn, text) }

// next reads an answer; interim ones are passed over.
func (c *wireCaller) next(method string) (wireAnswer, error) {
	for {
		res, err := http.ReadResponse(c.br, &http.Request{Method: method})
		if err != nil {
			return wireAnswer{}, err
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			return wireAnswer{}, err
		}
		if res.StatusCode/100 == 1 && res.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		return wireAnswer{res.StatusCode, res.Header.Get(errorHeader), res.Header, string(body), res.Close}, nil
	}
}

// askWire sends one request on a connection of its own, and reads its answer.
func askWire(t testing.TB, address, method, request string) (wireAnswer, error) {
	t.Helper()
	c := dialCaller(t, address)
	defer c.conn.Close()
	c.send(request)
	return c.next(method)
}

// drain reads all answers, until the proxy closes the connection or says
// nothing for a while.
func (c *wireCaller) drain(method string, quiet time.Duration) (answers []wireAnswer) {
	for {
		_ = c.conn.SetReadDeadline(time.Now().Add(quiet))
		a, err := c.next(method)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout(), err != nil:
			return answers
		}
		answers, method = append(answers, a), "GET"
	}
}

// A tally tells the first failures of a corpus, and counts the others.
type tally struct {
	*testing.T
	failures int
}

func (c *tally) Errorf(format string, args ...any) {
	c.Helper()
	if c.failures++; c.failures <= 12 {
		c.T.Errorf(format, args...)
	}
}

func (c *tally) end() {
	c.Helper()
	if c.failures > 12 {
		c.T.Errorf("and %d more", c.failures-12)
	}
}

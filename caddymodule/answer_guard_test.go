package caddymodule

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// plainLog makes Caddy log as it does by default, into a file, requests included.
func (r *rig) plainLog() string {
	file := filepath.Join(r.dir, "plain.log")
	r.global += "\n\tlog {\n\t\toutput file " + file + "\n\t}"
	r.site += "\n\tlog"
	return file
}

// errorPage shows all that Caddy has to say about an error.
const errorPage = "\n\thandle_errors {\n\t\trespond \"error page: {err.message} | {err.trace} | {err.status_text} | {http.error}\"\n\t}"

func bareToken(authorization []string) string {
	_, token, _ := strings.Cut(authorization[0], " ")
	return token
}

// repeated reports whether a text has the token, in any case, without showing it.
func repeated(text, token string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(token))
}

func TestQuiet(t *testing.T) {
	const secret = "S3cret"
	reset := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	late := &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
	dial := reverseproxy.NewDialError(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED})
	unknown := "asking the API: the connection failed, or the answer is not valid HTTP; what the API sent is not shown, as it may hold the token"
	for _, c := range []struct {
		err  error
		want string // empty: the very same error
	}{
		{dial, ""},
		{late, ""},
		{context.Canceled, ""},
		{context.DeadlineExceeded, ""},
		{fmt.Errorf("malformed HTTP status code %q", secret), unknown},
		{fmt.Errorf("http2: server sent GOAWAY; debug=%q", secret), unknown},
		{errors.New(secret + " operation was canceled"), unknown},
		{tls.AlertError(40), unknown},
		{reset, "asking the API: read: connection reset by peer"},
		{fmt.Errorf("net/http: %s: %w", secret, reset), "asking the API: read: connection reset by peer"},
		{fmt.Errorf("net/http: %s: %w", secret, late), "asking the API: read: time-out"},
		{fmt.Errorf("%s: %w", secret, io.EOF), "asking the API: the connection was closed"},
		{io.ErrUnexpectedEOF, "asking the API: the connection was closed"},
		{fmt.Errorf("%s: %w", secret, context.Canceled), "asking the API: canceled"},
		{tls.RecordHeaderError{Msg: secret}, "asking the API: it does not speak TLS there"},
		{&net.OpError{Op: "proxyconnect", Net: "tcp", Err: dial}, "asking the API: proxyconnect: dial tcp: connection refused"},
	} {
		got := quiet(c.err)
		if c.want == "" && got != c.err {
			t.Errorf("%v: became %v", c.err, got)
		}
		if c.want != "" && got.Error() != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
		if !errors.Is(got, c.err) {
			t.Errorf("%v can't be found in %v", c.err, got)
		}
		// Caddy answers 504 to what is a net.Error with a time-out, else 502.
		before, was := c.err.(net.Error)
		after, is := got.(net.Error)
		if (was && before.Timeout()) != (is && after.Timeout()) {
			t.Errorf("%v: it counts as another status in %v", c.err, got)
		}
	}
}

const notHTTP = "asking the API: the connection failed, or the answer is not valid HTTP"

// TM-24: what an API sends in place of HTTP is neither logged nor shown. Caddy logs
// an error that no page is for.
func TestBrokenAnswersTellNothing(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
	for _, page := range []string{"", errorPage} {
		r, api := prepareWireRig(t)
		log := r.plainLog()
		r.site += page
		r.start()
		r.ready()
		for name, answer := range map[string]string{
			"status":          "HTTP/1.1 abcTOKEN OK\r\n\r\n",
			"no HTTP":         "Bearer TOKEN\r\n\r\n",
			"version":         "HTTP/TOKEN 200 OK\r\n\r\n",
			"field line":      "HTTP/1.1 200 OK\r\nBearer TOKEN\r\n\r\n",
			"folded":          "HTTP/1.1 200 OK\r\n TOKEN\r\nContent-Length: 0\r\n\r\n",
			"length":          "HTTP/1.1 200 OK\r\nContent-Length: TOKEN\r\n\r\n",
			"two lengths":     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: TOKEN\r\n\r\n",
			"coding":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: TOKEN\r\n\r\n",
			"trailers' names": chunked + "Trailer: Content-Length,TOKEN\r\n\r\n0\r\n\r\n",
			"interim":         "HTTP/1.1 103 Early Hints\r\nBearer TOKEN\r\n\r\n" + okHead + "\r\nok",
			"body: trailer":   chunked + "\r\n2\r\nok\r\n0\r\nBearer TOKEN\r\n\r\n",
			"body: chunk":     chunked + "\r\n2\r\nok\r\nTOKEN\r\nok\r\n0\r\n\r\n",
		} {
			api.answersWith(answer)
			r.breaksOff(name, log, page != "", strings.HasPrefix(name, "body"))
		}
		r.stop()
	}
}

// breaksOff checks what is told of an answer that breaks off, with its header fine
// or not, and that the token isn't.
func (r *rig) breaksOff(name, log string, page, begun bool) {
	r.Helper()
	token, before := bareToken(r.session().Current().Authorization()), len(read(r.T, log))
	got := allBytes(r.T, r.address, closing)
	said := func() string { return read(r.T, log)[before:] }
	r.eventually("logged", func() bool { return strings.Contains(said(), "handled request") })
	if repeated(got, token) || repeated(said(), token) {
		r.Errorf("%s: the token is in the answer: %v; in the log: %v", name, repeated(got, token), repeated(said(), token))
		return
	}
	if strings.Contains(said(), notHTTP) != (begun || !page) || begun && !contains(said(), "aborting with incomplete response") {
		r.Errorf("%s: logged\n%s", name, said())
	}
	if !begun && (!strings.HasPrefix(got, "HTTP/1.1 502 ") || strings.Contains(got, "error page: "+notHTTP) != page) ||
		begun && (!strings.HasPrefix(got, "HTTP/1.1 200 ") || strings.HasSuffix(got, "0\r\n\r\n")) {
		r.Errorf("%s: the caller got\n%s", name, got)
	}
}

// Debug data of a GOAWAY is what an API says in HTTP/2 where it says why.
func TestGoAwayTellsNothing(t *testing.T) {
	for _, page := range []string{"", errorPage} {
		for _, begun := range []bool{false, true} {
			r := newRig(t, sandbox.Config{})
			r.api = rawHTTP2(t, func() (answer string) {
				last := "\x00"
				if begun {
					answer, last = http2Frame(1, 4, 1, "\x88")+http2Frame(0, 0, 1, "o"), "\x01" // :status 200
				}
				token := bareToken(r.session().Current().Authorization())
				return answer + http2Frame(7, 0, 0, "\x00\x00\x00"+last+"\x00\x00\x00\x02"+token)
			})
			r.handler = "transport http {\n versions h2c\n }"
			log := r.plainLog()
			r.site += page
			r.start()
			r.ready()
			r.breaksOff(fmt.Sprintf("GOAWAY, begun: %v", begun), log, page != "", begun)
			r.stop()
		}
	}
}

// rawHTTP2 is an API that sends these frames to the first stream of each
// connection.
func rawHTTP2(t *testing.T, answer func() string) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = io.ReadFull(conn, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
				_, _ = io.WriteString(conn, http2Frame(4, 0, 0, "")+http2Frame(4, 1, 0, "")) // SETTINGS
				for head := make([]byte, 9); ; {
					if _, err := io.ReadFull(conn, head); err != nil {
						return
					}
					_, _ = io.CopyN(io.Discard, conn, int64(head[0])<<16|int64(head[1])<<8|int64(head[2]))
					if head[3] == 1 { // HEADERS
						_, _ = io.WriteString(conn, answer())
						_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
						_, _ = io.Copy(io.Discard, conn) // unread bytes would make the end a reset
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return "http://" + l.Addr().String()
}

// http2Frame is a frame on stream 0 or 1 (RFC 9113 §4.1).
func http2Frame(kind, flags, stream byte, payload string) string {
	return string([]byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags, 0, 0, 0, stream}) + payload
}

// What is wrong on the way to the API is said, and Caddy treats it as ever.
func TestUpstreamFaultsStaySaid(t *testing.T) {
	dead := freeAddress(t)
	silent := answering(t, func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
	gone := answering(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for _, c := range []struct {
		api, options, method string
		status               int
		says                 string
	}{
		{"http://" + dead, "", "GET", 502, "connection refused"},
		{"http://" + dead, "", "POST", 502, "connection refused"},
		{silent, "transport http {\n response_header_timeout 50ms\n }", "GET", 504, "timeout awaiting response headers"},
		{silent, "transport http {\n read_timeout 50ms\n }", "POST", 504, "i/o timeout"},
		{gone, "", "POST", 502, "asking the API: the connection was closed"},
	} {
		r := newRig(t, sandbox.Config{})
		r.api, r.handler = c.api, c.options
		r.site = errorPage
		r.start()
		res, text := r.do(c.method, "/", nil)
		if res.StatusCode != c.status || !contains(text, "error page: ", c.says) {
			t.Errorf("%s %s: %d %s", c.method, c.api, res.StatusCode, text)
		}
		r.stop()
	}
}

// A request that has not reached an API is sent to another one, a POST, too.
func TestDialErrorIsTriedAgain(t *testing.T) {
	r, api := prepareWireRig(t)
	r.api = "http://" + freeAddress(t) + " " + r.api
	r.handler = "lb_policy first\n lb_try_duration 5s\n lb_try_interval 10ms\n fail_duration 20s"
	r.start()
	res, text := r.do("POST", "/a", strings.NewReader("x"))
	if sent := api.take(); res.StatusCode != 200 || len(sent) != 1 {
		t.Errorf("%d %s; the API got %d requests", res.StatusCode, text, len(sent))
	}
}

// A caller that goes away is nobody's error.
func TestCallerGoneIsNoError(t *testing.T) {
	for _, begun := range []bool{false, true} {
		r := newRig(t, sandbox.Config{})
		asked := make(chan bool, 1)
		r.api = answering(t, func(w http.ResponseWriter, req *http.Request) {
			if begun {
				_, _ = io.WriteString(w, "begun")
				_ = http.NewResponseController(w).Flush()
			}
			asked <- true
			<-req.Context().Done()
		})
		r.handler = "flush_interval -1"
		log := r.plainLog()
		r.start()
		c := dialCaller(t, r.address)
		c.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
		<-asked
		if begun {
			_, _ = c.br.ReadString('b')
		}
		c.conn.Close()
		r.eventually("logged", func() bool { return strings.Contains(read(t, log), "handled request") })
		for line := range strings.Lines(read(t, log)) {
			if contains(line, `"level":"error"`) || !begun && contains(line, "handled request") && !contains(line, `"status":499`) {
				t.Errorf("begun %v: %s", begun, line)
			}
		}
		r.stop()
	}
}

// answers lets the API answer by a function; empty stands for the usual answer.
func (api *wireAPI) answers(answer func(wireRequest) string) {
	api.mu.Lock()
	defer api.mu.Unlock()
	api.answer = answer
}

// A lockedBuffer is where a log goes that is read meanwhile.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// What an API sends unasked is quoted in the standard logger's line, which Caddy
// takes into its log.
func TestUnsolicitedBytesAreNotLogged(t *testing.T) {
	to := new(lockedBuffer)
	defer stdlog.SetOutput(stdlog.Writer())
	stdlog.SetOutput(to)
	r, api := prepareWireRig(t)
	r.plainLog() // with a log of its own, a configuration leaves the standard logger alone
	r.start()
	r.ready()
	token := bareToken(r.session().Current().Authorization())
	api.answersWith(okHead + "\r\nokHTTP/1.1 200 OK\r\nX-Echo: TOKEN\r\n\r\n")
	if got := allBytes(t, r.address, closing); !strings.HasSuffix(got, "\r\n\r\nok") {
		t.Errorf("the caller got %q", got)
	}
	r.eventually("logged", func() bool { return strings.Contains(to.String(), unsolicited) })
	if got := to.String(); repeated(got, token) || !strings.HasSuffix(got, unsolicited+"\n") {
		t.Errorf("logged: %s", strings.ReplaceAll(got, token, "(the token)"))
	}
	stdlog.Print("another line")
	if got := to.String(); !strings.HasSuffix(got, "another line\n") {
		t.Errorf("logged: %s", got)
	}
}

// Caddy points the standard logger at its own with each configuration without a
// default log, also where it fails later: there is one stdLog before it, always.
func TestStdLogIsOne(t *testing.T) {
	defer stdlog.SetOutput(stdlog.Writer())
	r := newRig(t, sandbox.Config{})
	one := func(after string) (to io.Writer) {
		t.Helper()
		l, ok := stdlog.Writer().(stdLog)
		if _, two := l.to.(stdLog); !ok || two {
			t.Errorf("after %s, the standard logger writes to %T over %T", after, stdlog.Writer(), l.to)
		}
		return l.to
	}
	r.start()
	first := one("the start")
	if err := r.load(r.caddyfile()); err != nil {
		t.Fatal(err)
	}
	if again := one("a reload"); again == first {
		t.Error("a reload left the standard logger alone")
	}
	site, before := r.site, one("a reload")
	r.site += "\n\thandle /x {\n\t\tbearer_proxy nobody " + r.api + "\n\t}"
	if err := r.load(r.caddyfile()); err == nil {
		t.Error("an unknown account passed")
	}
	if one("a reload that failed") == before {
		t.Error("it failed too early to prove anything")
	}
	r.site = site
	r.plainLog()
	for range 2 {
		if err := r.load(r.caddyfile()); err != nil {
			t.Fatal(err)
		}
		one("a reload with a log")
	}
	r.settled()
}

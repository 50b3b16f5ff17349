package oauth_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// A resetConn is reset before it takes the first byte.
type resetConn struct{ net.Conn }

func (c resetConn) Write([]byte) (int, error) {
	_ = c.Conn.Close()
	return 0, &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.ECONNRESET)}
}

// F22: reset before anything was sent. Expected: a free retry, whatever
// on_lost_reply says. Best: 0.
func TestF22ResetBeforeSend(t *testing.T) {
	t.Parallel()
	severity, calls := 0, 0
	for name, fail := range map[string]func(net.Conn) (net.Conn, error){
		"connection refused": func(c net.Conn) (net.Conn, error) {
			_ = c.Close()
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		},
		"no such host": func(c net.Conn) (net.Conn, error) {
			_ = c.Close()
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "as.test", IsNotFound: true}}
		},
		"reset before the first byte": func(c net.Conn) (net.Conn, error) { return resetConn{c}, nil },
	} {
		for _, policy := range []oauth.OnLostReply{oauth.LostReplay, oauth.LostLogin, oauth.LostStop} {
			t.Run(fmt.Sprintf("%s, on_lost_reply %v", name, policy), func(t *testing.T) {
				play(t, sandbox.Config{}, func(r *rig) {
					var faults times
					a := r.account()
					a.OnLostReply = policy
					tr := a.Client.Transport.(*http.Transport)
					dial := tr.DialContext
					tr.DialContext = oauth.Counted(func(ctx context.Context, network, address string) (net.Conn, error) {
						c, err := dial(ctx, network, address)
						if err == nil && faults.take() {
							return fail(c)
						}
						return c, err
					})
					s := r.start(a)
					defer r.stop()
					app := r.inUse(s)
					faults.set(3)
					after(life)
					severity = max(severity, app.end())
					calls += app.calls
					if faults.left.Load() != 0 {
						t.Errorf("%d faults are left: there was no free retry", faults.left.Load())
					}
					r.spent("f1.g1")
					r.requests(1, 1)
				})
			})
		}
	}
	if severity != 0 {
		t.Errorf("severity %d", severity)
	}
	measured(t, 22, severity, "three failures each, under each on_lost_reply: %d calls, 0 failed, the server saw one refresh", calls)
}

// raw takes the connection of a request over and writes to it as it likes.
func raw(w http.ResponseWriter, write func(net.Conn)) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	write(c)
	_ = c.Close()
}

const goodAnswer = `{"access_token":"AT","token_type":"bearer","expires_in":600,"refresh_token":"RT"}`

// F32: slowloris, headers or body. Expected: a total deadline. Best: 1.
func TestF32Slowloris(t *testing.T) {
	t.Parallel()
	dribble := func(first, each string) func(net.Conn, string) {
		return func(c net.Conn, granted string) {
			_, err := io.WriteString(c, strings.Replace(first, "GRANTED", granted[:len(granted)-1], 1))
			for err == nil {
				time.Sleep(9 * time.Second)
				_, err = io.WriteString(c, each)
			}
		}
	}
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
	severity, cases, longest := 0, 0, time.Duration(0)
	for _, tt := range []struct {
		name   string
		answer func(c net.Conn, granted string)
		tokens string // sent then
	}{
		{"no answer", func(c net.Conn, _ string) { _, _ = io.Copy(io.Discard, c) }, "AA"},
		{"head", dribble("HTTP/1.1 200 OK\r\nX: ", "x"), "AA"},
		{"interim answers", dribble("", "HTTP/1.1 103 Early Hints\r\n\r\n"), "AA"},
		{"body", dribble(head+"{", " "), "AA"},
		{"body, the refresh token is here", dribble(head+"GRANTED", " "), "AB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			play(t, sandbox.Config{}, func(r *rig) {
				var slow times
				var begun, over []time.Time
				g := r.between(func(w http.ResponseWriter, req *http.Request) bool {
					begun = append(begun, time.Now())
					if !slow.take() {
						return false
					}
					granted := " "
					if tt.tokens == "AB" { // the server commits
						rec := httptest.NewRecorder()
						r.sandbox.AuthorizationServer().ServeHTTP(rec, req)
						granted = rec.Body.String()
					}
					raw(w, func(c net.Conn) { tt.answer(c, granted) })
					over = append(over, time.Now())
					return true
				})
				s := r.start(r.account())
				defer r.stop()
				app := r.inUse(s)
				slow.set(1)
				after(life + 30*time.Second)
				severity = max(severity, app.end())
				longest = max(longest, app.longest)
				cases++
				t.Log(app)
				if got := g.tokens(); got[:2] != tt.tokens {
					t.Errorf("refresh tokens %s were sent, want %s", got, tt.tokens)
				}
				if held := over[0].Sub(begun[1]); held > 70*time.Second {
					t.Errorf("the connection was held for %v", held)
				}
				if gap := begun[2].Sub(begun[1]); gap < 60*time.Second || gap > 61*time.Second {
					t.Errorf("the next request came after %v, want request_timeout", gap)
				}
				r.token(s)
				r.requests(1, len(g.tokens())-strings.Count(tt.tokens, "AA"))
			})
		})
	}
	if severity > 1 {
		t.Errorf("severity %d", severity)
	}
	measured(t, 32, severity, "%d slow answers, each given up after 60 s: longest wait of a call %v", cases, longest)
}

// A hostile answer is one of the corpus of F22 to F34, on a socket.
type hostile struct {
	name  string
	write func(net.Conn)
	kept  bool // its refresh token can be known, and must be used
}

func answerWith(status int, header, body string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = fmt.Fprintf(c, "HTTP/1.1 %d x\r\n%sContent-Length: %d\r\n\r\n%s", status, header, len(body), body)
	}
}

// gibibyte sends 1 GiB behind first.
func gibibyte(first string) func(net.Conn) {
	return func(c net.Conn) {
		filler := bytes.Repeat([]byte(" "), 64<<10)
		_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", 1<<30, first)
		for sent := 0; err == nil && sent < 1<<30; sent += len(filler) {
			_, err = c.Write(filler)
		}
	}
}

// bomb is 16 MiB once it is unpacked.
var bomb = sync.OnceValue(func() string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, goodAnswer+strings.Repeat(" ", 16<<20))
	_ = z.Close()
	return b.String()
})

const (
	isJSON = "Content-Type: application/json\r\n"
	isHTML = "Content-Type: text/html\r\n"
)

// huge are the answers of F33.
func huge() []hostile {
	deep := strings.Repeat("[", 60000)
	return []hostile{
		{"1 GiB", gibibyte(""), false},
		{"1 GiB behind the refresh token", gibibyte(goodAnswer[:len(goodAnswer)-1]), true},
		{"1 GiB in chunks", func(c net.Conn) {
			filler := bytes.Repeat([]byte("x"), 1<<20)
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n"+isJSON+"Transfer-Encoding: chunked\r\n\r\n")
			for n := 0; err == nil && n < 1<<10; n++ {
				_, err = fmt.Fprintf(c, "100000\r\n%s\r\n", filler)
			}
		}, false},
		{"a head without end", func(c net.Conn) {
			filler := "X: " + strings.Repeat("x", 64<<10) + "\r\n"
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for n := 0; err == nil && n < 1<<14; n++ {
				_, err = io.WriteString(c, filler)
			}
		}, false},
		{"gzip bomb", answerWith(200, isJSON+"Content-Encoding: gzip\r\n", bomb()), false},
		{"gzip bomb, deflate announced", answerWith(200, isJSON+"Content-Encoding: deflate, gzip\r\n", bomb()), false},
		{"deep JSON", answerWith(200, isJSON, `{"a":`+deep), false},
		{"deep JSON behind the refresh token", answerWith(200, isJSON, `{"refresh_token":"RT","a":`+deep), true},
		{"deep JSON, an error", answerWith(400, isJSON, `{"error":`+deep), false},
	}
}

// odd are the rest of the corpus.
func odd() []hostile {
	return []hostile{
		{"closed", func(net.Conn) {}, false},
		{"reset", func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }, false},
		{"not HTTP", func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n\r\n") }, false},
		{"half a head", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Ha") }, false},
		{"half a body", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+isJSON+"Content-Length: 500\r\n\r\n"+goodAnswer[:20])
		}, false},
		{"half a body behind the refresh token", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+isJSON+"Content-Length: 500\r\n\r\n"+goodAnswer[:len(goodAnswer)-1])
		}, true},
		{"no access token", answerWith(200, isJSON, `{"refresh_token":"RT","token_type":"bearer"}`), true},
		{"HTML 200", answerWith(200, isHTML, "<html>"), false},
		{"HTML 400", answerWith(400, isHTML, "<html>"), false},
		{"HTML 403", answerWith(403, isHTML, "<html>"), false},
		{"404", answerWith(404, "", ""), false},
		{"429", answerWith(429, "Retry-After: 1\r\n", ""), false},
		{"503", answerWith(503, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", ""), false},
		{"500", answerWith(500, "", ""), false},
		{"502", answerWith(502, isHTML, "<html>"), false},
		{"504", answerWith(504, "", ""), false},
		{"307", answerWith(307, "Location: /moved\r\n", ""), false},
		{"slow head", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "); _, _ = io.Copy(io.Discard, c) }, false},
		{"slow body", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+isJSON+"Content-Length: 500\r\n\r\n{")
			_, _ = io.Copy(io.Discard, c)
		}, false},
	}
}

// A attack is a session whose server answers a hostile corpus, on sockets and
// in real time.
type attack struct {
	*testing.T
	session  *oauth.Session
	tokens   chan string // the refresh token of each request
	answer   atomic.Pointer[func(net.Conn)]
	deadline time.Duration
}

func newAttack(t *testing.T) *attack {
	a := &attack{T: t, tokens: make(chan string, 64), deadline: time.Second}
	server := &http.Server{
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			token := req.FormValue("refresh_token")
			a.tokens <- token
			if answer := a.answer.Swap(nil); answer != nil {
				raw(w, *answer)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"access_token":"AT","token_type":"bearer","expires_in":600,"refresh_token":"%s+"}`, token)
		}),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	sessions := oauth.NewSessions(slog.New(slog.DiscardHandler))
	sessions.Open(store.NewMemory())
	t.Cleanup(func() {
		_ = sessions.Close(context.Background())
		_ = server.Close()
	})
	sessions.Configure(t.Context(), []*oauth.Account{{
		Name: "erp",
		Client: oauth.Client{
			ID: "id", Secret: oauth.Fixed("secret"), Auth: oauth.AuthBasic,
			TokenEndpoint: "http://" + l.Addr().String() + "/token", Transport: oauth.NewTransport(nil, nil, nil),
		},
		Grant:        &oauth.Password{User: oauth.Fixed("u"), Secret: oauth.Fixed("p"), Relogin: true},
		RejectStatus: []int{401}, RefreshAhead: 0.2, DefaultLifetime: time.Hour, OnLostReply: oauth.LostReplay,
		TokenTimeout: 10 * time.Second, RequestTimeout: a.deadline, KeepAlive: 24 * time.Hour,
	}})
	if a.session, err = sessions.Session(t.Context(), oauth.Key{Account: "erp"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.session.Token(t.Context()); err != nil || <-a.tokens != "" {
		t.Fatal(err)
	}
	return a
}

// play answers the next refresh with h, and the one after it well. The caller
// sees nothing: the access token lives. It returns how long the answer was read.
func (a *attack) play(h hostile) time.Duration {
	a.Helper()
	a.answer.Store(&h.write)
	ctx, cancel := context.WithTimeout(a.Context(), 30*time.Second)
	defer cancel()
	begin := time.Now()
	err := a.session.Refresh(ctx)
	took := time.Since(begin)
	sent := []string{<-a.tokens}
	if err != nil { // not replayed by itself
		if errors.Is(err, context.DeadlineExceeded) {
			a.Fatalf("%s: no end", h.name)
		}
		if err := a.session.Refresh(ctx); err != nil {
			a.Errorf("%s, the next refresh: %v", h.name, err)
		}
	}
	sent = append(sent, <-a.tokens)
	want := sent[0]
	if h.kept {
		want = "RT"
	}
	if sent[1] != want {
		a.Errorf("%s: then %.20q was sent, want %.20q", h.name, sent[1], want)
	}
	if len(a.tokens) > 0 {
		a.Errorf("%s: %d requests more", h.name, len(a.tokens))
	}
	if tok, err := a.session.Token(ctx); err != nil || tok == nil {
		a.Errorf("%s: a caller gets %v", h.name, err)
	}
	return took
}

// grown runs f and returns how much memory it took at most: allocated in all,
// and resident if the system tells (0 if not).
func grown(f func()) (allocated, resident int) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := memory("VmRSS:")
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // the peak is counted from here
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc), max(0, memory("VmHWM:")-start)
}

// memory reads a figure of the process, in bytes; 0 where there is none.
func memory(name string) int {
	text, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(text), name)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.Atoi(fields[0])
	return kib << 10
}

const mostMemory = 8 << 20

// F33: 1 GiB of body, a gzip bomb, deep JSON. Expected: capped, less than 8 MiB
// of growth. Best: 0. Not parallel: it measures what the whole process takes.
func TestF33HugeAnswers(t *testing.T) {
	a := newAttack(t)
	most, resident, longest := 0, 0, time.Duration(0)
	for _, h := range huge() {
		allocated, rss := grown(func() { longest = max(longest, a.play(h)) })
		t.Logf("%s: %d KiB allocated, RSS +%d KiB", h.name, allocated>>10, rss>>10)
		if most, resident = max(most, allocated), max(resident, rss); allocated > mostMemory || rss > mostMemory {
			t.Errorf("%s: %d KiB were allocated, RSS +%d KiB", h.name, allocated>>10, rss>>10)
		}
	}
	if longest > a.deadline+5*time.Second {
		t.Errorf("it took %v", longest)
	}
	measured(t, 33, 0, "%d answers: at most %d KiB allocated for one, RSS +%d KiB at the peak, given up after %v at the latest, 0 refresh tokens lost", len(huge()), most>>10, resident>>10, longest.Round(time.Millisecond))
}

// G11: the corpus of F22 to F34. Target: no refresh token lost that could be
// known, RSS +8 MiB at most, the deadline kept.
func TestG11HostileAnswers(t *testing.T) {
	a := newAttack(t)
	corpus := append(huge(), odd()...)
	longest := time.Duration(0)
	allocated, resident := grown(func() {
		for _, h := range corpus {
			longest = max(longest, a.play(h))
			runtime.GC() // the growth of one answer, not the garbage of all
		}
	})
	if per := allocated / len(corpus); per > mostMemory || resident > mostMemory {
		t.Errorf("%d KiB are allocated per answer, RSS +%d KiB", per>>10, resident>>10)
	}
	if longest > a.deadline+5*time.Second {
		t.Errorf("it took %v", longest)
	}
	t.Logf("G11: %d hostile answers, 0 refresh tokens lost that could be known, %d KiB allocated per answer, RSS +%d KiB, the deadline of %v exceeded by %v at most",
		len(corpus), allocated/len(corpus)>>10, resident>>10, a.deadline, max(0, longest-a.deadline).Round(time.Millisecond))
}

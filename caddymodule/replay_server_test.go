package caddymodule

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// goAwayListener meets its first connection with GOAWAY (RFC 9113, section 6.8) once more of the
// body has arrived than one read gives, and leaves the others to the server.
type goAwayListener struct {
	net.Listener
	once sync.Once
}

func (l *goAwayListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		first := false
		l.once.Do(func() { first = true })
		if first {
			sendGoAway(conn)
			return l.Listener.Accept()
		}
	}
	return conn, err
}

func sendGoAway(conn net.Conn) {
	const preface, frameData = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(replayPatience))
	_, _ = io.ReadFull(conn, make([]byte, len(preface)))
	_, _ = conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS
	head := make([]byte, 9)
	for body := 0; ; {
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		size := int(binary.BigEndian.Uint32(head) >> 8)
		if _, err := io.CopyN(io.Discard, conn, int64(size)); err != nil {
			return
		}
		if head[3] == frameData {
			body += size
		}
		if body > replayChunk {
			// GOAWAY: last stream 0, NO_ERROR
			_, _ = conn.Write([]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
			_, _ = io.Copy(io.Discard, conn)
			return
		}
	}
}

func TestReplayGoAway(t *testing.T) {
	want := randomBytes(100 << 10)
	for _, length := range []int64{int64(len(want)), -1} {
		for _, limit := range []int64{1 << 20, 10} {
			t.Run(fmt.Sprintf("length %d, limit %d", length, limit), func(t *testing.T) {
				leaveNoGoroutine(t)
				var inner [2]*http.Transport
				var attempts atomic.Int32
				var target string
				for i := range inner {
					srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						attempts.Add(1)
						if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, want) {
							t.Errorf("%s: %d bytes, %v", r.Header.Get("Authorization"), len(got), err)
						}
						if isOld(r) {
							refuse(w)
						}
					}))
					srv.Listener = &goAwayListener{Listener: srv.Listener}
					srv.Config.Protocols = new(http.Protocols)
					srv.Config.Protocols.SetUnencryptedHTTP2(true)
					srv.Start()
					target = srv.URL
					address := srv.Listener.Addr().String()
					inner[i] = &http.Transport{Protocols: srv.Config.Protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						return new(net.Dialer).DialContext(ctx, "tcp", address)
					}}
					t.Cleanup(func() {
						inner[i].CloseIdleConnections()
						srv.Close()
					})
				}
				src := newReplayBody(bytes.NewReader(want))
				req := replayRequest(t, target, src, length)
				res, err := (&replayTrip{first: inner[0], second: inner[1], limit: limit}).RoundTrip(req)
				switch {
				case limit < int64(len(want)):
					if !errors.Is(err, errNotKept) {
						t.Errorf("the beginning is gone, yet: %v, %v", res, err)
					}
				case err != nil:
					t.Fatal(err)
				default:
					res.Body.Close()
					if res.StatusCode != 200 || attempts.Load() != 2 {
						t.Errorf("%s after %d attempts", res.Status, attempts.Load())
					}
				}
				src.closedOnce(t)
			})
		}
	}
}

// A body that the transport has not touched can be sent again at any size.
func TestReplayExpectContinue(t *testing.T) {
	leaveNoGoroutine(t)
	want := randomBytes(4 << 20)
	srv, tr := replayServer(t, 1, func(w http.ResponseWriter, r *http.Request) {
		if isOld(r) {
			refuse(w)
			return
		}
		if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	tr.ExpectContinueTimeout = replayPatience
	src := newReplayBody(bytes.NewReader(want))
	req := replayRequest(t, srv.URL, src, int64(len(want)))
	req.Header.Set("Expect", "100-continue")
	rt := &replayTrip{first: tr, second: tr, limit: 10, between: func() {
		if src.reads.Load() > 0 {
			t.Error("the body was read before 100 Continue")
		}
	}}
	res, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Error(res.Status)
	}
	src.closedOnce(t)
}

func TestReplayUpgrade(t *testing.T) {
	leaveNoGoroutine(t)
	srv, tr := replayServer(t, 1, func(w http.ResponseWriter, r *http.Request) {
		if isOld(r) {
			refuse(w)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, "re: "+line)
	})
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		req := replayRequest(t, srv.URL, body, 0)
		req.Method = http.MethodGet
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		res, err := (&replayTrip{first: tr, second: tr, limit: 10}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		rw, ok := res.Body.(io.ReadWriteCloser)
		if !ok || res.StatusCode != 101 {
			t.Fatalf("%s with a %T", res.Status, res.Body)
		}
		_, _ = io.WriteString(rw, "hello\n")
		if got, err := io.ReadAll(rw); string(got) != "re: hello\n" {
			t.Errorf("%q %v", got, err)
		}
		rw.Close()
	}
}

// Real server bodies on both protocols, many at once, the way a proxy runs.
func TestReplayBehindServer(t *testing.T) {
	for _, front := range []int{1, 2} {
		eachProtocol(t, func(t *testing.T, back int) {
			srv, tr := replayServer(t, back, func(w http.ResponseWriter, r *http.Request) {
				if isOld(r) && !r.URL.Query().Has("read") {
					refuse(w)
					return
				}
				body, err := io.ReadAll(r.Body)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				if isOld(r) {
					refuse(w)
					return
				}
				_, _ = w.Write(body)
			})
			rt := &replayTrip{first: tr, second: tr, limit: 64 << 10}
			proxy, client := replayServer(t, front, func(w http.ResponseWriter, r *http.Request) {
				out := r.Clone(r.Context())
				out.RequestURI = ""
				u, _ := url.Parse(srv.URL)
				out.URL.Scheme, out.URL.Host = u.Scheme, u.Host
				res, err := rt.RoundTrip(out)
				if err != nil {
					t.Error(err)
					w.WriteHeader(502)
					return
				}
				defer res.Body.Close()
				w.WriteHeader(res.StatusCode)
				_, _ = io.Copy(w, res.Body)
			})
			var wg sync.WaitGroup
			for i := range 24 {
				wg.Go(func() {
					want := randomBytes(i * 2500) // all within the limit
					var body io.Reader = bytes.NewReader(want)
					if i%2 == 0 {
						body = io.MultiReader(body) // of unknown length
					}
					res, err := (&http.Client{Transport: client, Timeout: replayPatience}).Post(
						proxy.URL+[]string{"/", "/?read"}[i%3/2], "a/b", body)
					if err != nil {
						t.Error(err)
						return
					}
					defer res.Body.Close()
					if got, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || !bytes.Equal(got, want) {
						t.Errorf("%d bytes came back as %d, %s, %v", len(want), len(got), res.Status, err)
					}
				})
			}
			wg.Wait()
			if n := rt.replays.Load(); n != 24 {
				t.Errorf("%d replays", n)
			}
		})
	}
}

// A stream past the limit costs constant memory, and what was kept of it is let go.
func TestReplayFlatMemory(t *testing.T) {
	leaveNoGoroutine(t)
	const total, limit, step = 256 << 20, 4 << 20, 1 << 20
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if n != total || err != nil {
			t.Errorf("%d bytes arrived, %v", n, err)
		}
	}))
	defer srv.Close()
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, most, last := heap(), int64(0), int64(0)
	sent, next := int64(0), int64(0)
	src := newReplayBody(readFunc(func(p []byte) (int, error) {
		if sent == total {
			return 0, io.EOF
		}
		if sent >= next {
			last = heap() - before
			most = max(most, last)
			if next += step; next > 2*limit {
				next += 63 * step
			}
		}
		n := min(int64(len(p)), total-sent)
		sent += n
		return int(n), nil
	}))
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := (&replayTrip{first: tr, limit: limit}).RoundTrip(replayRequest(t, srv.URL, src, -1))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	src.closedOnce(t)
	if most > 8<<20 || last > 1<<20 {
		t.Errorf("the heap grew by up to %d bytes, and by %d after the limit", most, last)
	}
}

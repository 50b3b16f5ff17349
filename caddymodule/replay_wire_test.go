package caddymodule

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The upstream refuses after it has read everything: the limit alone decides.
func TestReplaySizesAndLimits(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol int) {
		var want []byte
		srv, tr := replayServer(t, protocol, func(w http.ResponseWriter, r *http.Request) {
			got, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes arrived, %d sent, %v", r.Header.Get("Authorization"), len(got), len(want), err)
			}
			if sized := r.Header.Get("X-Sized") != ""; sized != (r.ContentLength >= 0) && len(want) > 0 {
				t.Errorf("sized %t arrived with length %d", sized, r.ContentLength)
			}
			if isOld(r) {
				refuse(w)
			}
		})
		for _, size := range []int{0, 1, 10 << 10, 64 << 10, 4 << 20} {
			want = randomBytes(size)
			for _, sized := range []bool{true, false} {
				for _, limit := range []int{0, size - 1, size, size + 1} {
					if limit < 0 || size > 1<<20 && limit > size {
						continue
					}
					name := fmt.Sprintf("%d bytes, sized %t, limit %d", size, sized, limit)
					src, length := newReplayBody(bytes.NewReader(want)), int64(-1)
					if sized {
						length = int64(size)
					}
					req := replayRequest(t, srv.URL, src, length)
					if sized {
						req.Header.Set("X-Sized", "1")
					}
					rt := &replayTrip{first: tr, second: tr, limit: int64(limit)}
					res, err := rt.RoundTrip(req)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if limit > 0 && size <= limit {
						if res.StatusCode != 200 {
							t.Errorf("%s: %s", name, res.Status)
						}
					} else {
						checkRefused(t, res)
					}
					res.Body.Close()
					src.closedOnce(t)
					if got := rt.replays.Load() == 1; got != (res.StatusCode == 200) {
						t.Errorf("%s: replayed %t, %s", name, got, res.Status)
					}
				}
			}
		}
	})
}

// The refusal arrives while the upload goes on, and the first attempt's reader sits in the
// client's body; what it gets there belongs to the second attempt.
func TestReplaySlowUpload(t *testing.T) {
	want := randomBytes(200 << 10)
	eachProtocol(t, func(t *testing.T, protocol int) {
		for _, length := range []int64{int64(len(want)), -1} {
			for _, limit := range []int{100 << 10, 10} {
				for _, cut := range []int{0, 1, 5000, 100 << 10} {
					slowUpload(t, protocol, want, length, limit, cut)
				}
			}
		}
	})
}

// slowUpload sends cut bytes before the refusal, and the others when a second attempt has arrived
// or the refusal was passed on.
func slowUpload(t *testing.T, protocol int, want []byte, length int64, limit, cut int) {
	answered := make(chan struct{})
	srv, tr := replayServer(t, protocol, func(w http.ResponseWriter, r *http.Request) {
		duplex(w)
		if isOld(r) {
			_, _ = io.ReadFull(r.Body, make([]byte, cut))
			refuse(w)
			return
		}
		close(answered)
		got, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(got, want) || r.ContentLength != length {
			t.Errorf("limit %d, cut %d: %d bytes of length %d arrived, %v", limit, cut, len(got), r.ContentLength, err)
		}
	})
	pr, pw := io.Pipe()
	go func() {
		_, _ = pw.Write(want[:cut])
		<-answered
		_, _ = pw.Write(want[cut:])
		pw.Close()
	}()
	src := newReplayBody(pr)
	rt := &replayTrip{first: tr, second: tr, limit: int64(limit)}
	res, err := rt.RoundTrip(replayRequest(t, srv.URL, src, length))
	if err != nil {
		t.Fatal(err)
	}
	if cut <= limit {
		if res.StatusCode != 200 {
			t.Errorf("limit %d, cut %d: %s", limit, cut, res.Status)
		}
	} else {
		checkRefused(t, res)
		close(answered)
	}
	res.Body.Close()
	src.closedOnce(t)
}

// While a token is fetched, a transport that is still sending must not run past the limit; and
// when no token comes, it goes on.
func TestReplayHeldThenGivenUp(t *testing.T) {
	leaveNoGoroutine(t)
	want := randomBytes(300 << 10)
	src := newReplayBody(bytes.NewReader(want))
	p := newReplay(replayRequest(t, "http://h/", src, int64(len(want))), 64<<10)
	body := p.attempt(replayOld).Body
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if !p.canReplay() {
		t.Fatal("10 bytes of 64 KiB can't be replayed")
	}
	rest := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(body)
		_ = body.Close()
		rest <- b
	}()
	time.Sleep(20 * time.Millisecond)
	if !p.canReplay() {
		t.Error("canReplay took its promise back")
	}
	if n := src.reads.Load(); n > 10 {
		t.Errorf("%d reads past the limit", n)
	}
	p.finish()
	if got := <-rest; !bytes.Equal(got, want[10:]) {
		t.Errorf("%d bytes after it was given up, want %d", len(got), len(want)-10)
	}
	src.closedOnce(t)
}

// Request trailers are dropped: nothing has looked at them before.
func TestReplayTrailers(t *testing.T) {
	const declared = "X-Sum"
	eachProtocol(t, func(t *testing.T, protocol int) {
		for range 20 {
			var seen atomic.Int32
			srv, tr := replayServer(t, protocol, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if string(body) != "hello" || len(r.Trailer) > 0 {
					t.Errorf("%s %s: %q, trailers %v, %v", r.Method, r.Header.Get("Authorization"), body, r.Trailer, err)
				}
				seen.Add(1)
				if isOld(r) {
					refuse(w)
				}
			})
			for _, method := range []string{"POST", "GET"} {
				src := newReplayBody(strings.NewReader("hello"))
				req := replayRequest(t, srv.URL, src, -1)
				req.Method = method
				req.Trailer = http.Header{declared: nil}
				src.trailer, src.final = req.Trailer, http.Header{declared: {"a", "b"}}
				res, err := (&replayTrip{first: tr, second: tr, limit: 100}).RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				src.closedOnce(t)
			}
			if seen.Load() != 4 {
				t.Errorf("%d attempts, want 4", seen.Load())
			}
			tr.CloseIdleConnections()
			srv.Close()
		}
	})
}

// Each side waits for the other, as gRPC may: nothing may wait for a read of the client's body.
func TestReplaySilentClient(t *testing.T) {
	for _, second := range []int{200, 403} {
		eachProtocol(t, func(t *testing.T, protocol int) {
			srv, tr := replayServer(t, protocol, func(w http.ResponseWriter, r *http.Request) {
				duplex(w)
				if isOld(r) {
					refuse(w)
					return
				}
				w.WriteHeader(second)
				_, _ = io.WriteString(w, "done")
			})
			if protocol == 1 {
				// net/http's server wants the body's end before it takes the next request.
				srv.Config.SetKeepAlivesEnabled(false)
			}
			pr, pw := io.Pipe()
			src := newReplayBody(pr)
			start := time.Now()
			res, err := (&replayTrip{first: tr, second: tr, limit: 100}).RoundTrip(replayRequest(t, srv.URL, src, -1))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != second || string(got) != "done" || err != nil {
				t.Errorf("%s %q %v", res.Status, got, err)
			}
			if d := time.Since(start); d > replayPatience/2 {
				t.Errorf("took %v", d)
			}
			pw.Close() // the server does so when the handler returns
			src.closedOnce(t)
		})
	}
}

// No message may wait for the next one: neither in the part that is kept nor after it.
func TestReplayBidirectional(t *testing.T) {
	leaveNoGoroutine(t)
	const rounds = 200
	srv, tr := replayServer(t, 2, func(w http.ResponseWriter, r *http.Request) {
		if isOld(r) {
			refuse(w)
			return
		}
		_ = http.NewResponseController(w).Flush()
		line := bufio.NewReader(r.Body)
		for {
			s, err := line.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, "re: "+s)
			_ = http.NewResponseController(w).Flush()
		}
	})
	pr, pw := io.Pipe()
	src := newReplayBody(pr)
	res, err := (&replayTrip{first: tr, second: tr, limit: 500}).RoundTrip(replayRequest(t, srv.URL, src, -1))
	if err != nil {
		t.Fatal(err)
	}
	line := bufio.NewReader(res.Body)
	for i := range rounds {
		fmt.Fprintf(pw, "message %d\n", i)
		if s, err := line.ReadString('\n'); s != fmt.Sprintf("re: message %d\n", i) {
			t.Fatalf("round %d: %q %v", i, s, err)
		}
	}
	pw.Close()
	if _, err := line.ReadByte(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	res.Body.Close()
	src.closedOnce(t)
}

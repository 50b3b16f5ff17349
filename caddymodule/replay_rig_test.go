package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

const replayPatience = 30 * time.Second // until a hang is called one

var (
	replayOld = []string{"Bearer old"}
	replayNew = []string{"Bearer new"}
)

// replayTrip is the shape of the transport that replay.go is for.
type replayTrip struct {
	first, second http.RoundTripper
	limit         int64
	between       func() // runs while the refused response is held
	replays       atomic.Int32
}

func (rt *replayTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	p := newReplay(req, rt.limit)
	defer p.finish()
	res, err := rt.first.RoundTrip(p.attempt(replayOld))
	if err != nil || res.StatusCode != http.StatusUnauthorized || !p.canReplay() {
		return res, err
	}
	if rt.between != nil {
		rt.between()
	}
	discard(res)
	rt.replays.Add(1)
	return rt.second.RoundTrip(p.attempt(replayNew))
}

// replayBody stands for the body that Caddy hands to a transport. As there, Read and Close share a
// field without a lock, so that the race detector sees a Close during a Read, and the trailer map
// is written by the Read that ends.
type replayBody struct {
	src     io.Reader
	trailer http.Header // written at EOF
	final   http.Header

	plain   int // deliberately without a lock
	reads   atomic.Int32
	inside  atomic.Int32 // reads under way
	overlap atomic.Bool  // Close was called meanwhile
	closes  atomic.Int32
	closed  chan struct{}
}

func newReplayBody(src io.Reader) *replayBody {
	return &replayBody{src: src, closed: make(chan struct{})}
}

func (b *replayBody) Read(p []byte) (int, error) {
	b.reads.Add(1)
	if b.closes.Load() > 0 {
		return 0, errors.New("read after close")
	}
	b.inside.Add(1)
	defer b.inside.Add(-1)
	n, err := b.src.Read(p)
	b.plain += n
	if err == io.EOF {
		maps.Copy(b.trailer, b.final)
	}
	return n, err
}

func (b *replayBody) Close() error {
	b.plain++
	if b.inside.Load() > 0 {
		b.overlap.Store(true)
	}
	if b.closes.Add(1) == 1 {
		if c, ok := b.src.(io.Closer); ok {
			_ = c.Close() // a writer blocked in a pipe goes on
		}
		close(b.closed)
	}
	return nil
}

// closedOnce waits for the one Close.
func (b *replayBody) closedOnce(t *testing.T) {
	t.Helper()
	select {
	case <-b.closed:
	case <-time.After(replayPatience):
		t.Error("the source body is never closed")
	}
	if n := b.closes.Load(); n > 1 {
		t.Errorf("the source body was closed %d times", n)
	}
	if b.overlap.Load() {
		t.Error("the source body was closed during a read")
	}
}

// replayServer starts an upstream: protocol 1 or 2, over TLS.
func replayServer(t *testing.T, protocol int, handler http.HandlerFunc) (*httptest.Server, *http.Transport) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != protocol {
			t.Errorf("upstream saw %s", r.Proto)
		}
		handler(w, r)
	}))
	srv.EnableHTTP2 = protocol == 2
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	tr := srv.Client().Transport.(*http.Transport)
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		srv.Close()
	})
	return srv, tr
}

// duplex lets an HTTP/1 server answer before it has the body. It does not keep its connections in
// order then, so only tests with one request on each use it.
func duplex(w http.ResponseWriter) {
	_ = http.NewResponseController(w).EnableFullDuplex()
}

// refuse answers as an API does that does not want the token.
func refuse(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, "refused")
	_ = http.NewResponseController(w).Flush()
}

func isOld(r *http.Request) bool { return r.Header.Get("Authorization") == replayOld[0] }

// replayRequest builds a request as Caddy would; length -1 is chunked.
func replayRequest(t *testing.T, target string, body io.ReadCloser, length int64) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), replayPatience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Body, req.ContentLength, req.GetBody = body, length, nil
	return req
}

// leaveNoGoroutine fails the test when goroutines outlive it. Not for parallel tests.
func leaveNoGoroutine(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(replayPatience)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<16)
				t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	chacha := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = chacha.Read(b)
	return b
}

func eachProtocol(t *testing.T, f func(t *testing.T, protocol int)) {
	for _, protocol := range []int{1, 2} {
		t.Run(fmt.Sprintf("h%d", protocol), func(t *testing.T) {
			leaveNoGoroutine(t)
			f(t, protocol)
		})
	}
}

func checkRefused(t *testing.T, res *http.Response) {
	t.Helper()
	got, err := io.ReadAll(res.Body)
	if res.StatusCode != 401 || string(got) != "refused" || err != nil || res.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("want the refusal untouched, got %d %q %v %v", res.StatusCode, got, err, res.Header)
	}
}

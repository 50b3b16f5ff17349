package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
)

func TestDiscard(t *testing.T) {
	t.Parallel()
	slow, read := make(chan struct{}), atomic.Int64{}
	body := newReplayBody(readFunc(func(p []byte) (int, error) {
		<-slow
		read.Add(int64(len(p)))
		return len(p), nil // endless
	}))
	discard(&http.Response{Body: body}) // must not wait
	close(slow)
	body.closedOnce(t)
	if n := read.Load(); n > discardLimit || n == 0 {
		t.Errorf("read %d bytes", n)
	}
	discard(&http.Response{Body: http.NoBody})
}

func TestReplayAttemptsAreIndependent(t *testing.T) {
	t.Parallel()
	for _, body := range []io.ReadCloser{nil, http.NoBody, newReplayBody(strings.NewReader("x"))} {
		req := replayRequest(t, "http://h/path?q", body, 1)
		req.URL.Scheme = ""
		req.Host, req.TransferEncoding = "api.example", []string{"chunked"}
		req.Trailer = http.Header{"X-Sum": nil}
		req.Header = http.Header{"Authorization": {"Basic client"}, "AUTHORIZATION": {"x"}, "authorization": {"y"}, "Accept": {"a"}}
		before := req.Clone(req.Context())
		p := newReplay(req, 10)
		first, second := p.attempt(replayOld), p.attempt(replayNew)
		first.URL.Scheme = "https"
		first.Header.Set("X-New", "1")
		want := http.Header{"Authorization": replayNew, "Accept": {"a"}}
		if !reflect.DeepEqual(second.Header, want) || &second.Header["Authorization"][0] != &replayNew[0] {
			t.Errorf("header %v", second.Header)
		}
		if second.URL.Scheme != "" || second.URL.RequestURI() != "/path?q" || second.Host != req.Host ||
			second.ContentLength != 1 || !reflect.DeepEqual(second.TransferEncoding, req.TransferEncoding) ||
			second.Context() != req.Context() || second.Method != req.Method {
			t.Errorf("second attempt: %+v", second)
		}
		if !reflect.DeepEqual(req.Header, before.Header) || *req.URL != *before.URL || !reflect.DeepEqual(req.Trailer, before.Trailer) {
			t.Errorf("the incoming request changed: %v %v", req.Header, req.URL)
		}
		if bare := p.attempt(nil).Header; len(bare) != 1 {
			t.Errorf("without a token: %v", bare)
		}
		p.finish()
	}
	req := replayRequest(t, "http://h/", nil, 0)
	req.Header = nil
	if got := newReplay(req, 0).attempt(replayOld).Header.Get("Authorization"); got != replayOld[0] {
		t.Errorf("Authorization %q", got)
	}
}

func TestReplayAllocations(t *testing.T) {
	req := benchmarkRequest(nil)
	if n := testing.AllocsPerRun(1000, func() { replayOnce(req) }); n > 5 {
		t.Errorf("%v allocations without a body", n)
	}
}

func benchmarkRequest(body io.ReadCloser) *http.Request {
	req := httptest.NewRequest(http.MethodPost, "http://api.example/path?q=1", nil)
	req.Body = body
	for i := range 10 {
		req.Header[fmt.Sprintf("X-Header-%d", i)] = []string{"value"}
	}
	return req
}

var replaySink *http.Request

func replayOnce(req *http.Request) {
	p := newReplay(req, 1<<20)
	defer p.finish()
	replaySink = p.attempt(replayOld)
	if replaySink.Body != nil {
		_, _ = io.Copy(io.Discard, replaySink.Body)
		_ = replaySink.Body.Close()
	}
}

func BenchmarkAttemptNoBody(b *testing.B) {
	b.ReportAllocs()
	req := benchmarkRequest(nil)
	for b.Loop() {
		replayOnce(req)
	}
}

func BenchmarkAttemptBody10KiB(b *testing.B) {
	b.ReportAllocs()
	data := randomBytes(10 << 10)
	b.SetBytes(int64(len(data)))
	req := benchmarkRequest(nil)
	req.ContentLength = int64(len(data))
	for b.Loop() {
		req.Body = io.NopCloser(bytes.NewReader(data))
		replayOnce(req)
	}
}

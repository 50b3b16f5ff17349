package caddymodule

import (
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// discardLimit is how many bytes of an unwanted response are read to keep its connection.
const discardLimit = 64 << 10

// A replay makes the attempts of one request, for a RoundTripper:
//
//	p := newReplay(req, limit)
//	defer p.finish()
//	res, err := inner.RoundTrip(p.attempt(first))
//	if err == nil && refused(res) && p.canReplay() {
//		// get a token; without one, return res as it is
//		discard(res)
//		res, err = inner.RoundTrip(p.attempt(second))
//	}
//
// Its methods are for the one goroutine that runs RoundTrip; the requests that it makes are for
// any, as transports use them. The incoming request, its URL and its header map are never changed.
// Response bodies are not touched, except by discard.
type replay struct {
	req    *http.Request
	source *replaySource // nil without a body
}

// newReplay prepares the attempts of req. At most limit bytes of the body are kept for another
// attempt, plus one read of 32 KiB; memory grows as they arrive. With limit 0 or less, a request
// that has a body is never replayed; it streams in constant memory, as any does past its limit.
func newReplay(req *http.Request, limit int64) *replay {
	return &replay{req, newReplaySource(req, limit)} // short enough to be inlined, onto the caller's stack
}

// attempt returns the request of the next attempt. authorization becomes its only Authorization
// field; the slice is shared, so nobody may change it; when empty, the attempt has no such field.
// Attempts after the first need a true canReplay before; they start at the body's first byte, and
// reads of the attempt before fail from now on unless the whole body is here already.
//
// Length and transfer coding stay as they came. Trailers are dropped: what decided about the
// request has not seen them.
func (p *replay) attempt(authorization []string) *http.Request {
	// One allocation for both: they live equally long.
	out := &struct {
		req http.Request
		url url.URL
	}{}
	if p.source == nil {
		out.req = *p.req
	} else {
		out.req = p.source.request
		p.source.begin(&out.req)
	}
	if out.req.URL != nil {
		out.url = *out.req.URL // Caddy's transport writes the scheme into it
		out.req.URL = &out.url
	}
	out.req.Header = withAuthorization(out.req.Header, authorization)
	out.req.Trailer = nil
	return &out.req
}

// withAuthorization returns a copy of header whose only Authorization field, in any spelling, is
// the given one.
func withAuthorization(header http.Header, authorization []string) http.Header {
	const name = "Authorization"
	header = maps.Clone(header)
	if header == nil {
		header = make(http.Header, 1)
	}
	for key := range header {
		if len(key) == len(name) && strings.EqualFold(key, name) {
			delete(header, key)
		}
	}
	if len(authorization) > 0 {
		header[name] = authorization
	}
	return header
}

// canReplay reports whether another attempt would send the very same bytes: there is no body, or
// what has been read of it so far fits the limit and nothing failed. A body that nobody has read
// yet (Expect: 100-continue) can be replayed at any size. Once true, it stays true until attempt
// or finish, unless reading fails: a transport that is still sending goes on up to the limit and
// then waits.
func (p *replay) canReplay() bool {
	s := p.source
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held {
		s.held = !s.finished && s.limit > 0 && s.base == 0 && int64(len(s.buf)) <= s.limit
	}
	return s.held && (s.err == nil || s.err == io.EOF)
}

// finish says that no further attempt comes. The source body is closed once the last attempt's
// body is, never during a read; when that needs waiting, it happens in a goroutine.
// Until finish nothing closes it. Calling finish again has no effect.
func (p *replay) finish() {
	if p.source != nil {
		p.source.finish()
	}
}

// discard reads at most 64 KiB of a response whose place another one takes, so that its connection
// can be used again, and closes it. It returns at once: closing an HTTP/2 response waits for the
// goroutine that sends the request body. The request's context bounds it.
func discard(res *http.Response) {
	if res.Body == nil || res.Body == http.NoBody {
		return
	}
	go func() {
		_, _ = io.CopyN(io.Discard, res.Body, discardLimit)
		_ = res.Body.Close()
	}()
}

package caddymodule

import (
	"errors"
	"io"
	"net/http"
	"reflect"
	"sync"
)

const replayChunk = 32 << 10 // bytes asked of a request body at once

var (
	errReplaced  = errors.New("reading the request body: another attempt took over")
	errNotKept   = errors.New("reading the request body again: it is longer than what was kept")
	errBodyInUse = errors.New("reading the request body: an earlier round trip has not let go of it")
)

// busyBodies holds the bodies that a finished replay still reads or has yet to close. Caddy may
// retry a request with the very same body meanwhile (lb_retries), and would send what is left of
// it as if that were all.
var busyBodies sync.Map // of io.ReadCloser

// A replaySource reads the body of the incoming request once, for one replayReader at a time.
//
// Each read runs in a goroutine of its own into buf, so that a reader can be closed or replaced
// while the client is silent. Without that, an upstream that ends a stream early (gRPC does so for
// every error) would wait for a client that waits for it.
type replaySource struct {
	request http.Request // as it came
	body    io.ReadCloser
	limit   int64

	mu       sync.Mutex
	changed  sync.Cond     // anything below changed
	buf      []byte        // the body from byte base on, as far as it has been read
	base     int64         // more than 0 when the beginning is gone
	err      error         // how the body ended; io.EOF when it is complete
	reading  bool          // a goroutine is in body.Read, and owns buf beyond its length
	touched  bool          // body.Read was called
	held     bool          // an attempt is announced: keep the beginning
	finished bool          // no attempt will come
	closed   bool          // body.Close was called, or is not for us to call
	listed   bool          // in busyBodies
	current  *replayReader // the only one that makes us read
}

// newReplaySource returns nil when req has no body.
func newReplaySource(req *http.Request, limit int64) *replaySource {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	s := &replaySource{request: *req, body: req.Body, limit: max(limit, 0)}
	s.changed.L = &s.mu
	if reflect.ValueOf(s.body).Comparable() {
		if _, busy := busyBodies.Load(s.body); busy {
			s.err, s.closed = errBodyInUse, true
		}
	}
	return s
}

// begin gives out a body, and makes it the current attempt.
func (s *replaySource) begin(out *http.Request) {
	first := &replayReader{source: s}
	out.Body = first
	// An HTTP/2 transport asks for the body again when the server goes away before reading it.
	last := first
	out.GetBody = func() (io.ReadCloser, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.current != last:
			return nil, errReplaced
		case s.base > 0:
			return nil, errNotKept
		case s.err != nil && s.err != io.EOF:
			return nil, s.err
		}
		last.stale = true
		last = &replayReader{source: s}
		s.replace(last)
		return last, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = false
	s.replace(first)
}

// replace makes r the current reader. s.mu is held.
func (s *replaySource) replace(r *replayReader) {
	s.current = r
	s.changed.Broadcast()
}

// room returns where the next read goes, or nil when it has to wait. The current reader has taken
// all of buf. s.mu is held, no read is under way.
func (s *replaySource) room() []byte {
	switch over := s.base > 0 || int64(len(s.buf)) > s.limit; {
	case over && s.held:
		return nil
	case over:
		s.base += int64(len(s.buf))
		if cap(s.buf) != replayChunk {
			s.buf = make([]byte, 0, replayChunk) // lets go of what was kept
		}
		s.buf = s.buf[:0]
	case len(s.buf) == cap(s.buf):
		s.grow()
	}
	room := s.buf[len(s.buf):cap(s.buf)]
	return room[:min(len(room), replayChunk)]
}

// grow doubles buf, at most to what the limit and the declared length can fill. The byte beyond
// the length is where EOF is read.
func (s *replaySource) grow() {
	size := max(2*int64(cap(s.buf)), 4<<10)
	if n := s.request.ContentLength; n >= int64(len(s.buf)) {
		if cap(s.buf) == 0 {
			size = replayChunk
		}
		size = min(size, n+1)
	}
	buf := make([]byte, len(s.buf), min(size, s.limit+replayChunk))
	copy(buf, s.buf)
	s.buf = buf
}

// fill reads the body once.
func (s *replaySource) fill(room []byte) {
	n, err := s.body.Read(room)
	s.mu.Lock()
	s.reading = false
	s.buf = s.buf[:len(s.buf)+n]
	s.err = err
	s.changed.Broadcast()
	s.mu.Unlock()
	s.release()
}

func (s *replaySource) finish() {
	s.mu.Lock()
	s.finished, s.held = true, false
	s.changed.Broadcast()
	idle := s.idle() && (s.err != nil || !s.touched)
	if s.touched && !s.closed && !idle && !s.listed && reflect.ValueOf(s.body).Comparable() {
		busyBodies.Store(s.body, nil)
		s.listed = true
	}
	s.mu.Unlock()
	s.release()
}

// idle reports whether the body may be closed. s.mu is held.
func (s *replaySource) idle() bool {
	return s.finished && !s.reading && (s.current == nil || s.current.closed)
}

// release closes the body once nobody needs it.
func (s *replaySource) release() {
	s.mu.Lock()
	if s.closed || !s.idle() {
		s.mu.Unlock()
		return
	}
	s.closed = true
	s.base, s.buf = s.base+int64(len(s.buf)), nil // the response keeps us alive
	ended := s.err != nil || !s.touched
	listed := s.listed
	s.mu.Unlock()

	done := func() {
		_ = s.body.Close()
		if listed {
			busyBodies.Delete(s.body)
		}
	}
	if ended {
		done()
		return
	}
	go done() // net/http first reads on, up to 256 KiB, at the client's pace
}

// A replayReader is the body of one attempt, or of one try of a transport within it.
type replayReader struct {
	source *replaySource

	// Under source.mu:
	at     int64 // the next byte to give out
	closed bool
	stale  bool // GetBody gave out another one
}

// Read gives out what is kept, then what comes.
func (r *replayReader) Read(p []byte) (int, error) {
	s := r.source
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := r.unusable(); err != nil {
			return 0, err
		}
		if len(p) == 0 {
			return 0, nil
		}
		if n := copy(p, s.buf[r.at-s.base:]); n > 0 {
			r.at += int64(n)
			if s.err == io.EOF && r.at == s.base+int64(len(s.buf)) {
				return n, io.EOF
			}
			return n, nil
		}
		if s.err != nil {
			return 0, s.err
		}
		if !s.reading {
			if room := s.room(); room != nil {
				s.reading, s.touched = true, true
				go s.fill(room)
			}
		}
		s.changed.Wait()
	}
}

// unusable returns why r can't be read, or nil. source.mu is held.
func (r *replayReader) unusable() error {
	s := r.source
	switch {
	case r.closed:
		return http.ErrBodyReadAfterClose
	case r.stale, s.current != r && s.err != io.EOF:
		return errReplaced // with all of the body here, an older attempt may complete its request
	case r.at < s.base:
		return errNotKept
	}
	return nil
}

// Close ends the reading of r. It neither waits for a read of the source nor closes the source
// before finish.
func (r *replayReader) Close() error {
	s := r.source
	s.mu.Lock()
	r.closed = true
	s.changed.Broadcast()
	s.mu.Unlock()
	s.release()
	return nil
}

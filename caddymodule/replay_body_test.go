package caddymodule

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// choppy reads as networks do: a few bytes, sometimes none, sometimes with EOF at once.
type choppy struct {
	rest []byte
	rnd  *rand.Rand
}

func (c *choppy) Read(p []byte) (int, error) {
	if c.rnd.IntN(4) == 0 {
		runtime.Gosched()
	}
	n := copy(p[:min(len(p), c.rnd.IntN(3000))], c.rest)
	c.rest = c.rest[n:]
	if len(c.rest) == 0 && (n == 0 || c.rnd.IntN(2) == 0) {
		return n, io.EOF
	}
	return n, nil
}

// Whatever the first attempt has read when the second one starts, and however the transports
// restart and close theirs, the last one gets the source's bytes, all of them, in order.
func TestReplayRandomInterleavings(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		want := randomBytes(rnd.IntN(40 << 10))
		src := newReplayBody(&choppy{want, rand.New(rand.NewPCG(seed, 2))})
		length := int64(-1)
		if rnd.IntN(2) == 0 {
			length = int64(len(want))
		}
		req := replayRequest(t, "http://h/", src, length)
		p := newReplay(req, int64(rnd.IntN(60<<10)))

		out := p.attempt(replayOld)
		cut := rnd.IntN(len(want) + 1)
		reached, stopped := make(chan struct{}), make(chan struct{})
		go func() { // reads on, as an HTTP/1 transport does
			defer close(stopped)
			defer out.Body.Close()
			buf, got, told := make([]byte, 1+seed%5000), []byte(nil), false
			for {
				if len(got) >= cut && !told {
					told = true
					close(reached)
				}
				n, err := out.Body.Read(buf)
				if got = append(got, buf[:n]...); !bytes.HasPrefix(want, got) {
					t.Errorf("seed %d: the first attempt reads wrong bytes", seed)
				}
				if err != nil {
					break
				}
			}
			if !told {
				close(reached)
			}
		}()
		<-reached
		if !p.canReplay() {
			p.finish()
			<-stopped
			src.closedOnce(t)
			continue
		}
		again := p.attempt(replayNew)
		body, taken, closed := again.Body, int64(0), false
		for range rnd.IntN(3) {
			n, err := io.CopyN(io.Discard, body, rnd.Int64N(20<<10))
			if taken += n; err != nil && err != io.EOF {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if closed = rnd.IntN(2) == 0; closed {
				body.Close()
			}
			next, err := again.GetBody()
			if errors.Is(err, errNotKept) {
				break
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			body, taken, closed = next, 0, false
		}
		if !closed {
			got, err := io.ReadAll(body)
			if err != nil || !bytes.Equal(got, want[taken:]) {
				t.Errorf("seed %d: %d bytes after %d of %d, %v", seed, len(got), taken, len(want), err)
			}
		}
		body.Close()
		<-stopped
		p.finish()
		src.closedOnce(t)
	}
}

// The simplest form of the property above: nothing but the cut is random.
func TestReplayEveryCut(t *testing.T) {
	t.Parallel()
	want := randomBytes(3000)
	for cut := range len(want) + 1 {
		src := newReplayBody(bytes.NewReader(want))
		p := newReplay(replayRequest(t, "http://h/", src, -1), 3000)
		first := p.attempt(replayOld)
		_, _ = io.ReadFull(first.Body, make([]byte, cut))
		if !p.canReplay() {
			t.Fatalf("cut %d can't be replayed", cut)
		}
		if got, err := io.ReadAll(p.attempt(replayNew).Body); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("cut %d: %d bytes, %v", cut, len(got), err)
		}
	}
}

func TestReplayCloseWaitsForReadAndFinish(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"close, finish", "finish, close"} {
		pr, pw := io.Pipe()
		src := newReplayBody(pr)
		p := newReplay(replayRequest(t, "http://h/", src, -1), 10)
		body := p.attempt(replayOld).Body
		read := make(chan error)
		go func() {
			_, err := body.Read(make([]byte, 1))
			read <- err
		}()
		for src.reads.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		for _, step := range strings.Split(order, ", ") {
			if step == "close" {
				body.Close()
				if err := <-read; !errors.Is(err, http.ErrBodyReadAfterClose) {
					t.Errorf("%s: the blocked reader got %v", order, err)
				}
			} else {
				p.finish()
				p.finish()
			}
		}
		time.Sleep(5 * time.Millisecond)
		if src.closes.Load() > 0 {
			t.Errorf("%s: closed during a read", order)
		}
		_, _ = pw.Write([]byte("x"))
		src.closedOnce(t)
	}
}

func TestReplayCloses(t *testing.T) {
	t.Parallel()
	t.Run("unused", func(t *testing.T) {
		src := newReplayBody(strings.NewReader("x"))
		newReplay(replayRequest(t, "http://h/", src, 1), 10).finish()
		if src.closes.Load() != 1 {
			t.Error("finish left an unused body open")
		}
	})
	t.Run("not before finish", func(t *testing.T) {
		src := newReplayBody(strings.NewReader("x"))
		p := newReplay(replayRequest(t, "http://h/", src, 1), 10)
		body := p.attempt(replayOld).Body
		_, _ = io.ReadFull(body, make([]byte, 1))
		body.Close()
		if src.closes.Load() != 0 {
			t.Error("closed while an attempt may come")
		}
		p.finish()
		src.closedOnce(t)
		if p.source.buf != nil {
			t.Error("the response would keep the body's bytes alive")
		}
	})
	t.Run("unread", func(t *testing.T) {
		src := newReplayBody(strings.NewReader("x"))
		p := newReplay(replayRequest(t, "http://h/", src, 1), 10)
		p.attempt(replayOld).Body.Close()
		p.finish()
		if src.closes.Load() != 1 {
			t.Error("an unread body must be closed when finish returns: Caddy retries with it")
		}
	})
	t.Run("slow close", func(t *testing.T) {
		// net/http reads on in Close, at the client's pace.
		src, slow := newReplayBody(strings.NewReader("xy")), make(chan struct{})
		p := newReplay(replayRequest(t, "http://h/", slowClose{src, slow}, 2), 10)
		body := p.attempt(replayOld).Body
		_, _ = io.ReadFull(body, make([]byte, 1))
		body.Close()
		p.finish()
		close(slow)
		src.closedOnce(t)
	})
}

type slowClose struct {
	*replayBody
	until chan struct{}
}

func (c slowClose) Close() error {
	<-c.until
	return c.replayBody.Close()
}

// Caddy may run a second round trip with a body that the first one still reads. What is left of it
// must not pass for all of it.
func TestReplayBodyInUse(t *testing.T) {
	t.Parallel()
	pr, pw := io.Pipe()
	src := newReplayBody(pr)
	req := replayRequest(t, "http://h/", src, -1)
	p := newReplay(req, 10)
	body := p.attempt(replayOld).Body
	go func() { _, _ = body.Read(make([]byte, 1)) }()
	for src.reads.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	body.Close()
	p.finish()

	retry := newReplay(req, 10)
	if retry.canReplay() {
		t.Error("a body in use can be replayed")
	}
	again := retry.attempt(replayOld)
	if _, err := again.Body.Read(make([]byte, 1)); !errors.Is(err, errBodyInUse) {
		t.Errorf("read: %v", err)
	}
	if _, err := again.GetBody(); !errors.Is(err, errBodyInUse) {
		t.Errorf("GetBody: %v", err)
	}
	again.Body.Close()
	retry.finish()
	pw.Close()
	src.closedOnce(t)
	for deadline := time.Now().Add(replayPatience); ; time.Sleep(time.Millisecond) {
		if _, busy := busyBodies.Load(src); !busy {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("a closed body stays on the list")
		}
	}
}

func TestReplaySourceError(t *testing.T) {
	t.Parallel()
	broken := errors.New("the client went away")
	src := newReplayBody(io.MultiReader(strings.NewReader("hello"), readFunc(func([]byte) (int, error) { return 0, broken })))
	p := newReplay(replayRequest(t, "http://h/", src, -1), 100)
	body := p.attempt(replayOld).Body
	if got, err := io.ReadAll(body); string(got) != "hello" || err != broken {
		t.Errorf("%q %v", got, err)
	}
	if p.canReplay() {
		t.Error("a body that broke off can be replayed")
	}
	body.Close()
	p.finish()
	src.closedOnce(t)

	// It breaks after the announcement: the second attempt gets as far as the first.
	src = newReplayBody(io.MultiReader(strings.NewReader("hello"), readFunc(func([]byte) (int, error) { return 0, broken })))
	p = newReplay(replayRequest(t, "http://h/", src, -1), 100)
	body = p.attempt(replayOld).Body
	_, _ = io.ReadFull(body, make([]byte, 5))
	if !p.canReplay() {
		t.Fatal("nothing failed yet")
	}
	if _, err := body.Read(make([]byte, 1)); err != broken || p.canReplay() {
		t.Errorf("%v, and can be replayed: %t", err, p.canReplay())
	}
	if got, err := io.ReadAll(p.attempt(replayNew).Body); string(got) != "hello" || err != broken {
		t.Errorf("%q %v", got, err)
	}
	p.finish()
}

// An attempt that is replaced must not wait for a silent client, unless it can complete.
func TestReplayOlderAttempt(t *testing.T) {
	t.Parallel()
	pr, pw := io.Pipe()
	src := newReplayBody(pr)
	p := newReplay(replayRequest(t, "http://h/", src, -1), 10)
	older := p.attempt(replayOld).Body
	read := make(chan error)
	go func() {
		_, err := older.Read(make([]byte, 1))
		read <- err
	}()
	for src.reads.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if !p.canReplay() {
		t.Fatal("nothing was read yet")
	}
	newer := p.attempt(replayNew).Body
	select {
	case err := <-read:
		if !errors.Is(err, errReplaced) {
			t.Errorf("the older attempt got %v", err)
		}
	case <-time.After(replayPatience):
		t.Fatal("the older attempt hangs")
	}
	go func() {
		_, _ = pw.Write([]byte("hello"))
		pw.Close()
	}()
	if got, err := io.ReadAll(newer); string(got) != "hello" || err != nil {
		t.Errorf("newer: %q %v", got, err)
	}
	if got, err := io.ReadAll(older); string(got) != "hello" || err != nil {
		t.Errorf("with the whole body here, older: %q %v", got, err)
	}
	p.finish()
}

package sandbox

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestPipeVirtualTime: with real server and transport an hour takes no time,
// connections are kept alive, and idle ones end when the server says.
func TestPipeVirtualTime(t *testing.T) {
	t.Parallel()
	wall := time.Now()
	synctest.Test(t, func(t *testing.T) {
		l := Pipe()
		var conns []string
		server := &http.Server{
			IdleTimeout: 2 * time.Minute,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conns = append(conns, r.RemoteAddr)
				time.Sleep(time.Hour)
				_, _ = io.WriteString(w, "done")
			}),
		}
		go server.Serve(l)
		defer server.Close()
		client := &http.Client{Transport: &http.Transport{DialContext: l.DialContext}}
		for _, pause := range []time.Duration{time.Minute, 3 * time.Minute, 0} {
			req, _ := http.NewRequest(http.MethodGet, "http://pipe.test/", nil)
			if a := send(client, req); a.body != "done" {
				t.Fatalf("got %q %v", a.body, a.err)
			}
			time.Sleep(pause)
		}
		if len(conns) != 3 || conns[0] != "pipe:1" || conns[1] != "pipe:1" || conns[2] != "pipe:2" {
			t.Errorf("connections %v", conns)
		}
	})
	if took := time.Since(wall); took > 10*time.Second {
		t.Errorf("three virtual hours took %v", took)
	}
}

func TestPipeAbort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := Pipe()
		server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		})}
		go server.Serve(l)
		defer server.Close()
		client := &http.Client{Transport: &http.Transport{DialContext: l.DialContext}}
		for _, size := range []int64{0, 10, 1 << 20} { // the last is not read to its end
			req, _ := http.NewRequest(http.MethodPost, "http://pipe.test/", io.LimitReader(zeros{}, size))
			a := send(client, req)
			if !errors.Is(a.err, io.EOF) && !errors.Is(a.err, syscall.EPIPE) {
				t.Errorf("body of %d: status %d, error %v; want EOF or a broken pipe", size, a.status, a.err)
			}
		}
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestPipeErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := l.DialContext(ctx, "tcp", "x:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial without accept: %v", err)
		}
		connect := func() (client, server net.Conn) {
			accepted := make(chan net.Conn)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					t.Error(err)
				}
				accepted <- conn
			}()
			client, err := l.DialContext(t.Context(), "tcp", "x:1")
			if err != nil {
				t.Fatal(err)
			}
			return client, <-accepted
		}
		var b [1]byte

		client, server := connect()
		client.Close()
		if _, err := client.Read(b[:]); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after own close: %v", err)
		}
		if _, err := server.Read(b[:]); err != io.EOF {
			t.Errorf("read after the other's close: %v", err)
		}
		if _, err := server.Write(b[:]); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after the other's close: %v", err)
		}
		server.Close()

		client, server = connect()
		if client.LocalAddr().String() != server.RemoteAddr().String() || server.LocalAddr().String() != l.Addr().String() {
			t.Errorf("addresses %v %v", client.LocalAddr(), server.RemoteAddr())
		}
		_ = client.SetReadDeadline(time.Now().Add(time.Second))
		var timeout net.Error
		if _, err := client.Read(b[:]); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("read deadline: %v", err)
		}
		_ = client.SetReadDeadline(time.Time{})
		waiting := make(chan error)
		go func() { _, err := l.Accept(); waiting <- err }()
		synctest.Wait()
		for range 2 {
			if err := l.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if err := <-waiting; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		if _, err := client.Read(b[:]); err != io.EOF {
			t.Errorf("read after the listener's close: %v", err)
		}
		if _, err := l.DialContext(t.Context(), "tcp", "x:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial after close: %v", err)
		}
	})
}

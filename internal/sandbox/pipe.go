package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// A PipeListener is a network of one address in memory. A goroutine that waits
// for it is durably blocked, so that an [http.Server] and an [http.Transport]
// with its DialContext run in virtual time (testing/synctest), which they
// can't over a socket. Connections are not buffered: a write waits for the
// other side's read.
type PipeListener struct {
	accept chan net.Conn
	closed chan struct{}

	mu    sync.Mutex
	count int
	conns map[*pipeConn]struct{} // open ends, of both sides; nil once closed
}

// Pipe returns a network that listens. In a test with virtual time it must be
// called inside the bubble.
func Pipe() *PipeListener {
	return &PipeListener{
		accept: make(chan net.Conn),
		closed: make(chan struct{}),
		conns:  map[*pipeConn]struct{}{},
	}
}

// DialContext connects to the listener whatever the address. It waits until
// the connection is accepted; after Close it is refused.
func (l *PipeListener) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server, err := l.connect()
	if err != nil {
		return nil, err
	}
	select {
	case l.accept <- server:
		return client, nil
	case <-l.closed:
		err = refused()
	case <-ctx.Done():
		err = &net.OpError{Op: "dial", Net: "pipe", Addr: l.Addr(), Err: ctx.Err()}
	}
	_ = client.Close()
	_ = server.Close()
	return nil, err
}

func (l *PipeListener) connect() (client, server *pipeConn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return nil, nil, refused()
	}
	l.count++
	near, far := net.Pipe()
	address := pipeAddr(fmt.Sprintf("pipe:%d", l.count))
	ending := new(atomic.Pointer[pipeConn])
	client = &pipeConn{Conn: near, listener: l, local: address, remote: "pipe", ending: ending}
	server = &pipeConn{Conn: far, listener: l, local: "pipe", remote: address, ending: ending}
	l.conns[client], l.conns[server] = struct{}{}, struct{}{}
	return client, server, nil
}

// refused is what a socket says if nobody listens, so that a client finds that
// nothing was sent.
func refused() error {
	return &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr("pipe"), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// Accept waits for the next connection. It is for [http.Server].
func (l *PipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accept:
		return conn, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "pipe", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Close ends the listener and every connection, as a killed server does.
func (l *PipeListener) Close() error {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	if conns == nil {
		return nil
	}
	close(l.closed)
	for conn := range conns {
		if conn.remote != "pipe" { // the server's end; the client's sees it
			_ = conn.Close()
		}
	}
	return nil
}

// Addr returns the only address there is.
func (l *PipeListener) Addr() net.Addr { return pipeAddr("pipe") }

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

// A pipeConn is an end of a net.Pipe that speaks of errors as a socket does.
type pipeConn struct {
	net.Conn
	listener      *PipeListener
	local, remote pipeAddr

	// ending is shared by both ends and holds the one that closed first. A
	// transport closes its end once it has read the end of the stream, and a
	// write under way must still learn that the server was the cause.
	ending *atomic.Pointer[pipeConn]
}

func (c *pipeConn) LocalAddr() net.Addr  { return c.local }
func (c *pipeConn) RemoteAddr() net.Addr { return c.remote }

func (c *pipeConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.explain("read", err)
}

func (c *pipeConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.explain("write", err)
}

// explain turns io.ErrClosedPipe, which says nothing of who closed, into the
// error of a socket. A time-out and the end of the stream stay as they are.
func (c *pipeConn) explain(op string, err error) error {
	if !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	if c.ending.Load() == c {
		return &net.OpError{Op: op, Net: "pipe", Addr: c.remote, Err: net.ErrClosed}
	}
	return &net.OpError{Op: op, Net: "pipe", Addr: c.remote, Err: os.NewSyscallError(op, syscall.EPIPE)}
}

func (c *pipeConn) Close() error {
	c.ending.CompareAndSwap(nil, c)
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

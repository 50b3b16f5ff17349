package oauth

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A process that has no file descriptors left can't dial, and so can't refresh,
// for want of one or two. So a few are held open, and given up for the time of
// a dial. They are the process's: all transports share them.

// spares are enough for a look-up (resolv.conf, hosts, a socket for each
// family and one for TCP) and a connection by each family.
const spares = 8

// dialer is that of all token requests.
var dialer = &sparingDialer{
	dial: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	turn: make(chan struct{}, 1),
}

// A sparingDialer dials, and if there is no file descriptor left for that, it
// gives its spare ones up and dials once more.
type sparingDialer struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	turn chan struct{} // full while one dials with the spares: there are enough for one

	mu    sync.Mutex
	spare []*os.File
	lent  bool // a dial needs what was released
}

func (d *sparingDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.reserve() // what is missing of them
	conn, err := d.dial(ctx, network, address)
	if err == nil || ctx.Err() != nil || !exhausted(err) {
		return conn, err
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, err
	}
	d.release()
	defer d.takeBack()
	if conn, err = d.dial(ctx, network, address); err != nil {
		return nil, err
	}
	return &spareConn{Conn: conn, dialer: d}, nil
}

// reserve opens spare descriptors, as many as it can get, unless they are lent.
func (d *sparingDialer) reserve() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fill()
}

func (d *sparingDialer) fill() {
	for len(d.spare) < spares && !d.lent {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return
		}
		d.spare = append(d.spare, f)
	}
}

func (d *sparingDialer) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lent = true
	for _, f := range d.spare {
		_ = f.Close()
	}
	d.spare = nil
}

// takeBack opens what the connection leaves over, before others take it.
func (d *sparingDialer) takeBack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lent = false
	d.fill()
}

// exhausted reports whether a dial failed for want of a file descriptor. The
// resolver's errors don't always tell, and it takes a hosts file that can't be
// opened for an empty one; so it tries.
func exhausted(err error) bool {
	if !none(err) {
		var f *os.File
		if f, err = os.Open(os.DevNull); err == nil {
			_ = f.Close()
		}
	}
	return none(err)
}

func none(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// A spareConn is a connection that took the place of a spare descriptor.
type spareConn struct {
	net.Conn
	dialer *sparingDialer
}

func (c *spareConn) Close() error {
	err := c.Conn.Close()
	c.dialer.reserve()
	return err
}

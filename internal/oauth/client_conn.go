package oauth

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
)

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// counted dials connections that count what is written to them, because a
// request of which not one byte left was surely not acted on.
func counted(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: c}, nil
	}
}

type countedConn struct {
	net.Conn
	bytes atomic.Int64
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.bytes.Add(int64(len(b))) // who looks meanwhile must not miss them
	n, err := c.Conn.Write(b)
	c.bytes.Add(int64(n - len(b)))
	return n, err
}

// written tells whether anything was written to c after this call. Of a
// connection that doesn't count it is said.
func written(c net.Conn) func() bool {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	counted, ok := c.(*countedConn)
	if !ok {
		return func() bool { return true }
	}
	before := counted.bytes.Load()
	return func() bool { return counted.bytes.Load() > before }
}

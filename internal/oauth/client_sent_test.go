package oauth

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Nothing was sent: the token is certainly not spent.
func TestNothingSent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	c := &Client{ID: "id", Auth: AuthBasic, TokenEndpoint: "http://" + l.Addr().String() + "/CANARY?CANARY", Transport: NewTransport(nil, nil, nil)}
	a := c.refresh(t.Context(), NewSecret("RT"), "")
	if a.Outcome != NotTried || !strings.Contains(a.Detail, "refused") || strings.Contains(a.Detail, "CANARY") {
		t.Errorf("nobody listens: %v (%s)", a.Outcome, a.Detail)
	}

	w := newWire(t, nil, send(200, jsonHeader, good))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if a := w.client(AuthBasic).refresh(ctx, NewSecret("RT"), ""); a.Outcome != NotTried || len(w.seen()) != 0 {
		t.Errorf("canceled before: %v (%s), %d requests", a.Outcome, a.Detail, len(w.seen()))
	}

	tr := NewTransport(nil, nil, nil)
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "as.test", IsNotFound: true}}
	}
	c = &Client{ID: "id", Auth: AuthBasic, TokenEndpoint: "http://as.test/CANARY?CANARY", Transport: tr}
	if a := c.refresh(t.Context(), NewSecret("RT"), ""); a.Outcome != NotTried || !strings.Contains(a.Detail, "as.test") || strings.Contains(a.Detail, "CANARY") {
		t.Errorf("no such host: %v (%s)", a.Outcome, a.Detail)
	}

	for _, endpoint := range []string{"", "://CANARY", "http://%zzCANARY", "ftp://127.0.0.1/CANARY", "http:///CANARY"} {
		c := &Client{ID: "id", Auth: AuthBasic, TokenEndpoint: endpoint, Transport: NewTransport(nil, nil, nil)}
		a := c.refresh(t.Context(), NewSecret("RT"), "")
		if a.Outcome != Away && a.Outcome != NotTried || strings.Contains(a.Detail, "CANARY") {
			t.Errorf("endpoint %q: %v (%s)", endpoint, a.Outcome, a.Detail)
		}
	}
}

// A reset before the request was read: whether bytes left can't be known for
// sure, but it was no answer, and there is no second request for it.
func TestResetBeforeTheRequestWasRead(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var accepted atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			reset(c)
		}
	}()
	c := &Client{ID: "id", Auth: AuthBasic, TokenEndpoint: "http://" + l.Addr().String() + "/token", Transport: NewTransport(nil, nil, nil)}
	if a := c.refresh(t.Context(), NewSecret("RT"), ""); a.Outcome != Lost && a.Outcome != NotTried || accepted.Load() != 1 {
		t.Errorf("%v (%s) after %d connections", a.Outcome, a.Detail, accepted.Load())
	}

	// If the very first write fails, nothing has left.
	tr := NewTransport(nil, nil, nil)
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return deadConn{}, nil }
	c.Transport = tr
	if a := c.refresh(t.Context(), NewSecret("RT"), ""); a.Outcome != Lost && a.Outcome != NotTried {
		t.Errorf("no byte could be written: %v (%s)", a.Outcome, a.Detail)
	}
}

// A deadConn takes no byte.
type deadConn struct{ net.Conn }

func (deadConn) Write([]byte) (int, error)       { return 0, net.ErrClosed }
func (deadConn) Read([]byte) (int, error)        { return 0, io.EOF }
func (deadConn) Close() error                    { return nil }
func (deadConn) SetDeadline(time.Time) error     { return nil }
func (deadConn) SetReadDeadline(time.Time) error { return nil }
func (deadConn) LocalAddr() net.Addr             { return &net.TCPAddr{} }
func (deadConn) RemoteAddr() net.Addr            { return &net.TCPAddr{} }

func TestProxyFromTheEnvironmentIsIgnored(t *testing.T) {
	w := newWire(t, nil, send(200, jsonHeader, good))
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, "http://proxy.test:3128")
	}
	tr := NewTransport(nil, nil, nil)
	if tr.Proxy != nil {
		t.Error("the transport asks for a proxy")
	}
	var dialed string
	tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed = address
		return new(net.Dialer).DialContext(ctx, network, w.listener.Addr().String())
	}
	c := w.client(AuthBasic)
	c.TokenEndpoint, c.Transport = "http://as.test/token", tr
	if a := w.refresh(t, c); a.Outcome != Granted || dialed != "as.test:80" {
		t.Errorf("%v, connected to %s", a.Outcome, dialed)
	}
	if r := w.seen()[0]; r.RequestURI != "/token" || r.Host != "as.test" {
		t.Errorf("%s of %s", r.RequestURI, r.Host)
	}
}

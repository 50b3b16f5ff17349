//go:build linux

package reliability

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// How the wire to a soakServer is broken. What the sandbox itself can play is
// played there.
const (
	wireFine  = iota
	wireReset // connections are reset before a request is read
	wireHang  // requests are read and never answered
	wireBusy  // 503 with Retry-After: 1
)

var soakWires = [...]string{"fine", "reset", "hanging", "503 with Retry-After"}

// A soakServer is an authorization server and its API, with a wire in front of
// the first that can break. What doesn't pass the wire is no event.
type soakServer struct {
	*testing.T
	name    string
	sb      *sandbox.Sandbox
	api     string // host:port
	address string // of the authorization server; stays the same
	handler http.Handler
	server  *http.Server
	wire    atomic.Int32
	journal soakJournal
}

func newSoakServer(t *testing.T, name string, c sandbox.Config) *soakServer {
	t.Helper()
	c.EventLimit = 6000 // more than arrive until the journal has settled
	s := &soakServer{T: t, name: name, sb: sandbox.New(c)}
	servers, err := s.sb.Listen()
	if err != nil {
		t.Fatal(err)
	}
	s.handler, s.address, s.api = s.sb.AuthorizationServer(), "127.0.0.1:0", servers.APIURL[len("http://"):]
	s.listen()
	t.Cleanup(func() {
		s.sb.Close()
		servers.Close()
		s.refuse()
	})
	return s
}

// refuse ends listener and connections: whoever dials finds nobody.
func (s *soakServer) refuse() { _ = s.server.Close() }

// listen takes the address that it had before. Somebody else may have it for a
// moment as the near end of a connection.
func (s *soakServer) listen() {
	s.Helper()
	var l net.Listener
	var err error
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if l, err = net.Listen("tcp", s.address); err == nil {
			break
		}
		if time.Now().After(deadline) {
			s.Fatal(err)
		}
	}
	s.address = l.Addr().String()
	server := &http.Server{Handler: s, ReadHeaderTimeout: 30 * time.Second}
	s.server = server
	go func() {
		if err := server.Serve(soakListener{l, &s.wire}); !errors.Is(err, http.ErrServerClosed) {
			s.Error(err)
		}
	}()
}

type soakListener struct {
	net.Listener
	wire *atomic.Int32
}

func (l soakListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.wire.Load() != wireReset {
			return conn, err
		}
		reset(conn)
	}
}

// reset closes a connection so that the other side's next read or write fails.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func (s *soakServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch s.wire.Load() {
	case wireReset: // on a connection from before
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			reset(conn)
		}
	case wireHang:
		_, _ = io.Copy(io.Discard, r.Body)
		for s.wire.Load() == wireHang && r.Context().Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
		panic(http.ErrAbortHandler)
	case wireBusy:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "busy", http.StatusServiceUnavailable)
	default:
		s.handler.ServeHTTP(w, r)
	}
}

// tokenURL is the token endpoint, as configured.
func (s *soakServer) tokenURL() string { return "http://" + s.address + "/oauth/v2/oauth-token" }

// soakServers are the two servers: one ends a login at the reuse of a refresh
// token, the other lets a client that lost an answer ask again for 30 s.
func soakServers(t *testing.T) (strict, graceful *soakServer) {
	t.Helper()
	strict = newSoakServer(t, "strict", sandbox.Config{
		TokenLifetime: 2 * time.Second,
		SlowFor:       1500 * time.Millisecond, // within request_timeout
	})
	graceful = newSoakServer(t, "graceful", sandbox.Config{
		TokenLifetime: 2 * time.Second,
		Grace:         30 * time.Second,
		SlowFor:       4 * time.Second, // beyond request_timeout
		Users:         map[string]string{"moved": "one", "ada": "two", "alan": "three"},
	})
	return strict, graceful
}

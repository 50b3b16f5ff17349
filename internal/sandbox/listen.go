package sandbox

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Servers are a sandbox on loopback sockets.
type Servers struct {
	AuthorizationServerURL string // without a path
	APIURL                 string
	CAPEM                  []byte // who issued the certificate of both; nil without TLS
	Close                  func() // ends listeners and connections, at once; may be called again
}

// Listen starts the authorization server and the API on free ports of
// 127.0.0.1. It may be called again, also after Servers.Close, with the same
// tokens.
func (s *Sandbox) Listen() (*Servers, error) { return s.listen(nil) }

// ListenTLS is Listen with https and HTTP/1.1. The certificate is good for
// 127.0.0.1, ::1 and localhost and comes from a CA of this sandbox. Clients
// are asked for a certificate but may go without.
func (s *Sandbox) ListenTLS() (*Servers, error) {
	ca, err := s.authority()
	if err != nil {
		return nil, err
	}
	certPEM, keyPEM, err := ca.issueServer()
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("pairing certificate and key: %w", err)
	}
	servers, err := s.listen(&tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequestClientCert,
		MinVersion:   tls.VersionTLS12,
	})
	if err != nil {
		return nil, err
	}
	servers.CAPEM = ca.pem()
	return servers, nil
}

// listen uses no TLS if config is nil.
func (s *Sandbox) listen(config *tls.Config) (*Servers, error) {
	// Neither has a write time-out: slow answers and long streams are wanted.
	authorization := &http.Server{
		Handler:           s.AuthorizationServer(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	api := &http.Server{ // uploads may take long, so no ReadTimeout
		Handler:           s.API(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    1 << 20,
	}
	authorizationURL, stopAuthorization, err := serve(authorization, config)
	if err != nil {
		return nil, err
	}
	apiURL, stopAPI, err := serve(api, config)
	if err != nil {
		stopAuthorization()
		return nil, err
	}
	return &Servers{
		AuthorizationServerURL: authorizationURL,
		APIURL:                 apiURL,
		Close: func() {
			stopAuthorization()
			stopAPI()
		},
	}, nil
}

// serve starts a server; stop ends it and waits until it has stopped
// listening, not for its handlers.
func serve(server *http.Server, config *tls.Config) (url string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("listening on loopback: %w", err)
	}
	scheme := "http://"
	if config != nil {
		// Whoever fails the handshake is told so there.
		server.ErrorLog = log.New(io.Discard, "", 0)
		scheme, listener = "https://", tls.NewListener(listener, config)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			_ = listener.Close() // whoever dials sees that nobody is there
		}
	})
	return scheme + listener.Addr().String(), func() {
		_ = server.Close()
		running.Wait()
	}, nil
}

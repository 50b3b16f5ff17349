package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Servers are a sandbox on loopback sockets.
type Servers struct {
	AuthorizationServerURL string // without a path
	APIURL                 string
	Close                  func() // ends listeners and connections, at once; may be called again
}

// Listen starts the authorization server and the API on free ports of
// 127.0.0.1. It may be called again, also after Servers.Close, with the same
// tokens.
func (s *Sandbox) Listen() (*Servers, error) {
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
	authorizationURL, stopAuthorization, err := serve(authorization)
	if err != nil {
		return nil, err
	}
	apiURL, stopAPI, err := serve(api)
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
func serve(server *http.Server) (url string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("listening on loopback: %w", err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			_ = listener.Close() // whoever dials sees that nobody is there
		}
	})
	return "http://" + listener.Addr().String(), func() {
		_ = server.Close()
		running.Wait()
	}, nil
}

//go:build linux

package reliability

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// An authority is the sandbox on loopback, with a hand on what it does when.
type authority struct {
	*sandbox.Sandbox
	url, api string

	mu      sync.Mutex
	hold    *hold
	clients map[net.Conn]bool // connections to the authorization server
}

// A hold makes the next request that comes to a stage wait there.
type hold struct {
	stage   sandbox.Stage
	reached chan struct{}
	release chan bool // whether the request goes on
}

func newAuthority(t *testing.T, grace time.Duration) *authority {
	t.Helper()
	a := &authority{clients: map[net.Conn]bool{}}
	a.Sandbox = sandbox.New(sandbox.Config{
		Grace: grace, TokenLifetime: 5 * time.Hour, EventLimit: 200, AlwaysRefreshToken: true,
		Gate: func(stage sandbox.Stage, _ string) bool { return a.pass(stage) },
	})
	serve := func(h http.Handler, state func(net.Conn, http.ConnState)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: h, ConnState: state}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { _ = s.Close() })
		return "http://" + l.Addr().String()
	}
	a.url = serve(a.AuthorizationServer(), func(c net.Conn, state http.ConnState) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if state == http.StateClosed || state == http.StateHijacked {
			delete(a.clients, c)
		} else {
			a.clients[c] = true
		}
	})
	a.api = serve(a.API(), nil)
	t.Cleanup(a.Close)
	return a
}

func (a *authority) pass(stage sandbox.Stage) bool {
	a.mu.Lock()
	h := a.hold
	if h == nil || h.stage != stage {
		a.mu.Unlock()
		return true
	}
	a.hold = nil
	a.mu.Unlock()
	close(h.reached)
	return <-h.release
}

// holdAt makes the next token request wait at a stage.
func (a *authority) holdAt(stage sandbox.Stage) *hold {
	h := &hold{stage: stage, reached: make(chan struct{}), release: make(chan bool, 1)}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hold = h
	return h
}

// end lets the request that waits go on or end it, and holds no other.
func (a *authority) end(h *hold, goesOn bool) {
	a.mu.Lock()
	a.hold = nil
	a.mu.Unlock()
	select {
	case h.release <- goesOn:
	default: // told before
	}
}

// settle waits until the server has done all that a dead client asked for. Of
// the connections, the last accepted is its own: those made before it are known
// then.
func (a *authority) settle() error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := client.Get(a.url + "/sandbox/events")
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond / 2) {
		a.mu.Lock()
		left := len(a.clients)
		a.mu.Unlock()
		if left == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d connections to the authorization server are still open", left)
		}
	}
}

// last is the sequence number of the latest event.
func (a *authority) last() int {
	if all := a.Events(); len(all) > 0 {
		return all[len(all)-1].Seq
	}
	return 0
}

// since returns the token requests after an event, a grant type's or all.
func (a *authority) since(seq int, grant string) (list []sandbox.Event) {
	for _, e := range a.Events() {
		if e.Seq > seq && e.Kind == sandbox.KindToken && (grant == "" || e.Grant == grant) {
			list = append(list, e)
		}
	}
	return list
}

// current names the refresh token that the server gave out last.
func (a *authority) current() (name string) {
	for _, e := range a.Events() {
		if e.Kind == sandbox.KindToken && e.Issued != "" {
			name = e.Issued
		}
	}
	return name
}

// login signs in as a person would elsewhere, and returns the refresh token.
func (a *authority) login() (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := client.PostForm(a.url+"/oauth/v2/oauth-token", url.Values{
		"grant_type": {"password"}, "username": {"sandbox-user"}, "password": {"sandbox-password"},
		"client_id": {"sandbox-client"}, "client_secret": {"sandbox-secret"},
	})
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.RefreshToken == "" {
		return "", fmt.Errorf("a login elsewhere: %d, %v", res.StatusCode, err)
	}
	return answer.RefreshToken, nil
}

package caddymodule

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A trap is another origin. Whatever reaches it is too much.
type trap struct {
	addresses []string // 127.0.0.1 and, where there is one, ::1
	mu        sync.Mutex
	caught    []string
}

func newTrap(t *testing.T) *trap {
	tr := new(trap)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue // no IPv6
		}
		t.Cleanup(func() { _ = l.Close() })
		tr.addresses = append(tr.addresses, l.Addr().String())
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.SetDeadline(time.Now().Add(time.Second))
				first := make([]byte, 64<<10)
				n, _ := c.Read(first)
				_ = c.Close()
				tr.mu.Lock()
				tr.caught = append(tr.caught, string(first[:n]))
				tr.mu.Unlock()
			}
		}()
	}
	return tr
}

// shapes are Location fields that lead, for some reader of URLs, to the trap;
// own is the server that sends them.
func (tr *trap) shapes(own string) [][]string {
	host := tr.addresses[0]
	v6 := tr.addresses[len(tr.addresses)-1]
	_, port, _ := net.SplitHostPort(host)
	var shapes [][]string
	for _, location := range []string{
		"http://" + host + "/x", "https://" + host + "/x", "HTTP://" + host + "/x", "//" + host + "/x", "///" + host + "/x", "////" + host,
		"http://user:password@" + host + "/", "http://" + own + "@" + host + "/", "http://" + host + "\\@" + own + "/", "http://" + host + "#@" + own + "/", "http://" + host + "?@" + own + "/",
		"http:\\\\" + host + "\\x", "\\\\" + host + "\\x", "/\\" + host + "/x", "http:/" + host + "/x", "http:" + host + "/x", "http:///" + host + "/x",
		" http://" + host + "/x", "\thttp://" + host + "/x", "http://" + host + " /x", "ht\ttp://" + host + "/x",
		"http://localhost:" + port + "/x", "http://LOCALHOST.:" + port + "/x", "http://127.1:" + port + "/x", "http://2130706433:" + port + "/x", "http://0x7f000001:" + port + "/x",
		"http://0177.0.0.1:" + port + "/x", "http://0.0.0.0:" + port + "/x", "http://[::ffff:127.0.0.1]:" + port + "/x", "http://" + v6 + "/x", "http://%31%32%37.0.0.1:" + port + "/x",
		"http://" + strings.SplitN(own, ":", 2)[0] + ":" + port + "/token", "https://" + own + "/token", "ftp://" + host + "/x", "ws://" + host + "/x",
		"javascript:fetch('http://" + host + "')", "data:text/html,x", "file:///etc/passwd", "unix:///run/x.sock",
		"http://" + host + "/?refresh_token={refresh_token}", "http://" + host + "/x#" + strings.Repeat("x", 30000), "", "/moved", "?moved", ".",
	} {
		shapes = append(shapes, []string{"Location", location})
	}
	return append(shapes,
		[]string{"Location", "/moved", "Location", "http://" + host + "/x"},
		[]string{"Refresh", "0; url=http://" + host + "/x"},
		[]string{"Content-Location", "http://" + host + "/x"},
		[]string{"Location", "http://" + host + "/x", "Alt-Svc", `h2="` + host + `"; ma=60`},
		[]string{"Link", "<http://" + host + "/x>; rel=preconnect"},
	)
}

// A turncoat passes requests on to a server, or answers with a redirect.
type turncoat struct {
	*httptest.Server
	redirect  atomic.Pointer[redirection]
	redirects atomic.Int32
}

type redirection struct {
	status int
	header []string
	path   string // prefix
	skip   atomic.Int32
}

func newTurncoat(t *testing.T, next http.Handler) *turncoat {
	tc := new(turncoat)
	tc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		to := tc.redirect.Load()
		if to == nil || !strings.HasPrefix(req.URL.Path, to.path) || to.skip.Add(-1) >= 0 {
			next.ServeHTTP(w, req)
			return
		}
		tc.redirects.Add(1)
		_, _ = io.Copy(io.Discard, req.Body)
		for i := 0; i+1 < len(to.header); i += 2 {
			w.Header()[to.header[i]] = append(w.Header()[to.header[i]], to.header[i+1])
		}
		w.WriteHeader(to.status)
	}))
	t.Cleanup(tc.Close)
	return tc
}

// redirections are the corpus: every shape with a status that asks for the body
// once more, and every status with some of the shapes.
func (tr *trap) redirections(own, path string) []*redirection {
	var list []*redirection
	for i, header := range tr.shapes(own) {
		statuses := []int{307 + i%2}
		if i < 4 {
			statuses = []int{201, 300, 301, 302, 303, 305, 307, 308, 399}
		}
		for _, status := range statuses {
			list = append(list, &redirection{status: status, header: header, path: path})
		}
	}
	return list
}

// G14: a corpus of redirects, at the token endpoint, the revocation endpoint,
// the discovery document and the API, with and without a replay. Target: 0
// bytes at another origin.
func TestG14Redirects(t *testing.T) {
	r := newRig(t, sandbox.Config{EventLimit: 1 << 20})
	tr := newTrap(t)
	as := newTurncoat(t, r.sandbox.AuthorizationServer())
	api := newTurncoat(t, r.sandbox.API())
	r.servers.AuthorizationServerURL, r.api = as.URL, api.URL
	r.account = "revoke_endpoint " + as.URL + "/oauth/v2/oauth-revoke"
	config := strings.Replace(r.caddyfile(), "account erp {", "account found {\n\t\t\tprovider oidc "+as.URL+
		"\n\t\t\tclient_id sandbox-client\n\t\t\tclient_secret {file."+r.dir+"/client_secret}\n\t\t\tupstream "+r.api+"\n\t\t\tgrant client_credentials\n\t\t}\n\t\taccount erp {", 1)
	as.redirect.Store(&redirection{status: 307, header: tr.shapes(as.Listener.Addr().String())[0], path: "/.well-known/"})
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.ready()
	counts := map[string]int32{}
	counted := func(what string, tc *turncoat, f func()) {
		before := tc.redirects.Load()
		f()
		counts[what] = tc.redirects.Load() - before
		tc.redirect.Store(nil)
		if counts[what] == 0 {
			t.Errorf("%s was never redirected", what)
		}
	}
	ctx := context.Background()
	own := as.Listener.Addr().String()
	s := r.session()
	counted("token endpoint", as, func() {
		for _, to := range tr.redirections(own, "/oauth/v2/oauth-token") {
			as.redirect.Store(to)
			if err := s.Refresh(ctx); err == nil {
				t.Errorf("%d %q: a refresh was granted", to.status, to.header)
			}
		}
	})
	if err := s.Refresh(ctx); err != nil {
		t.Errorf("after the redirects: %v", err)
	}
	r.requests(1, 1) // it is the first refresh token still
	counted("discovery", as, func() {
		found := r.namedSession("found")
		for _, to := range tr.redirections(own, "/.well-known/") {
			as.redirect.Store(to)
			if err := found.Refresh(ctx); err == nil {
				t.Errorf("%d %q: the metadata were found", to.status, to.header)
			}
		}
	})
	passed := 0
	own = api.Listener.Addr().String()
	for what, replay := range map[string]bool{"API": false, "API, replayed": true} {
		counted(what, api, func() {
			for i, to := range tr.redirections(own, "/echo") {
				if replay {
					r.sandbox.RevokeAccessTokens()
					to.skip.Store(1) // 401 first
				}
				api.redirect.Store(to)
				method, body := "POST", io.Reader(bytes.NewReader([]byte("canary-body")))
				if i%2 == 0 {
					method, body = "GET", nil
				}
				req, err := http.NewRequest(method, "http://"+r.address+"/echo", body)
				if err != nil {
					t.Fatal(err)
				}
				res, err := client.Transport.RoundTrip(req) // follows nothing
				if err != nil {
					t.Errorf("%d %q: %v", to.status, to.header, err)
					continue
				}
				_ = res.Body.Close()
				if res.StatusCode != to.status || to.header[0] == "Location" && strings.TrimSpace(res.Header.Get("Location")) != strings.TrimSpace(to.header[1]) {
					t.Errorf("%d %q: the caller got %d %q", to.status, to.header, res.StatusCode, res.Header.Get("Location"))
				}
				passed++
			}
		})
	}
	r.presentedOnce()
	counted("revocation", as, func() {
		for _, to := range tr.redirections(as.Listener.Addr().String(), "/oauth/v2/oauth-revoke") {
			as.redirect.Store(to)
			if _, err := s.Logout(ctx); err != nil {
				t.Logf("logout: %v", err)
			}
			if err := s.Login(ctx); err != nil {
				t.Fatal(err)
			}
		}
	})
	time.Sleep(50 * time.Millisecond)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, text := range tr.caught {
		t.Errorf("another origin got %q", text)
	}
	t.Logf("G14: %d shapes of redirects; %v; %d redirects of the API passed to the caller as they were; 0 connections to another origin", len(tr.shapes(own)), counts, passed)
}

func (r *rig) namedSession(account string) *oauth.Session {
	r.Helper()
	app, err := running()
	if err != nil {
		r.Fatal(err)
	}
	s, err := app.shared.sessions.Session(context.Background(), oauth.Key{Account: account})
	if err != nil {
		r.Fatal(fmt.Errorf("%s: %w", account, err))
	}
	return s
}

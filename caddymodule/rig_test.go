package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A rig is a running Caddy with the bearer app, in front of the sandbox or an
// API of the test. There is one Caddy per process: tests with a rig don't run
// in parallel.
type rig struct {
	*testing.T
	sandbox *sandbox.Sandbox
	servers *sandbox.Servers
	dir     string
	// What the Caddyfile is made of.
	api, site, account, global, handler string
	address                             string // of the site
}

func newRig(t *testing.T, c sandbox.Config) *rig {
	t.Helper()
	r := &rig{T: t, sandbox: sandbox.New(c), dir: t.TempDir()}
	var err error
	if r.servers, err = r.sandbox.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.sandbox.Close()
		r.servers.Close()
	})
	r.api = r.servers.APIURL
	r.address = freeAddress(t)
	r.secret("client_secret", "sandbox-secret")
	r.secret("password", "sandbox-password")
	return r
}

func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		if _, given := addresses.LoadOrStore(l.Addr().String(), true); !given {
			return l.Addr().String()
		}
	}
}

// addresses are those that were given to a test: the kernel may offer one twice.
var addresses sync.Map

func (r *rig) secret(name, value string) {
	r.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(value), 0o600); err != nil {
		r.Fatal(err)
	}
}

// caddyfile is what an operator writes, with the test's additions.
func (r *rig) caddyfile() string {
	host, port, _ := net.SplitHostPort(r.address)
	return fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https disable_redirects
	grace_period 5s
	%[1]s
	bearer {
		store bbolt {
			path %[2]s/store/tokens.db
		}
		account erp {
			client_id sandbox-client
			client_secret {file.%[2]s/client_secret}
			token_endpoint %[3]s/oauth/v2/oauth-token
			upstream %[4]s
			grant password {
				username sandbox-user
				password {file.%[2]s/password}
			}
			%[5]s
		}
	}
}

http://:%[6]s {
	bind %[7]s
	%[8]s
	bearer_proxy erp %[9]s {
		%[10]s
	}
}
`, r.global, r.dir, r.servers.AuthorizationServerURL, r.api, r.account, port, host, r.site, r.api, r.handler)
}

// start loads the Caddyfile, and stops Caddy at the end of the test.
func (r *rig) start() {
	r.Helper()
	if err := r.load(r.caddyfile()); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(r.stop)
}

func (r *rig) load(caddyfile string) error {
	json, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		return err
	}
	return caddy.Load(json, true)
}

// restart stops Caddy and starts it with the same store.
func (r *rig) restart() {
	r.Helper()
	r.stop()
	if err := r.load(r.caddyfile()); err != nil {
		r.Fatal(err)
	}
	r.settled()
}

// settled waits until a reload has handed the port over: meanwhile the kernel
// may close a connection that the old listener has not accepted.
func (r *rig) settled() {
	r.Helper()
	good := 0
	r.eventually("reloaded", func() bool {
		conn, err := net.Dial("tcp", r.address)
		if good++; err != nil {
			good = 0
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err = conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			good = 0 // closed
		}
		return good == 5
	})
}

func (r *rig) stop() {
	r.Helper()
	if err := caddy.Stop(); err != nil {
		r.Error(err)
	}
}

// client is a legacy application: plain HTTP, nothing of OAuth.
var client = &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 512}}

func (r *rig) do(method, path string, body io.Reader, header ...string) (*http.Response, string) {
	r.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+r.address+path, body)
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	return res, string(text)
}

// get checks that a call is served.
func (r *rig) get(path string) string {
	r.Helper()
	res, text := r.do("GET", path, nil)
	if res.StatusCode != 200 {
		r.Fatalf("GET %s: %d %s %s", path, res.StatusCode, res.Header.Get(errorHeader), text)
	}
	return text
}

// fails checks that a call is answered by us, with status and code.
func (r *rig) fails(status int, code string) *http.Response {
	r.Helper()
	res, text := r.do("GET", "/echo", nil)
	if res.StatusCode != status || res.Header.Get(errorHeader) != code {
		r.Errorf("%d %s %s; want %d %s", res.StatusCode, res.Header.Get(errorHeader), text, status, code)
	}
	return res
}

// requests checks how many token requests the server saw, by grant.
func (r *rig) requests(password, refresh int) {
	r.Helper()
	p, f := r.sandbox.TokenRequests("password"), r.sandbox.TokenRequests("refresh_token")
	if p != password || f != refresh {
		r.Errorf("token requests: %d by password, %d by refresh token; want %d and %d", p, f, password, refresh)
	}
}

// ready waits until the account has a token.
func (r *rig) ready() {
	r.Helper()
	r.eventually("ready", func() bool { return r.session().Status().State == oauth.StateReady })
}

func (r *rig) session() *oauth.Session {
	r.Helper()
	app, err := running()
	if err != nil {
		r.Fatal(err)
	}
	s, err := app.shared.sessions.Session(context.Background(), oauth.Key{Account: "erp"})
	if err != nil {
		r.Fatal(err)
	}
	return s
}

func (r *rig) eventually(what string, ok func() bool) {
	r.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("not %s within 20 s", what)
		}
	}
}

// logFile makes Caddy log everything into a file.
func (r *rig) logFile() string {
	file := filepath.Join(r.dir, "caddy.log")
	r.global += "\n\tlog {\n\t\tlevel DEBUG\n\t\toutput file " + file + "\n\t}"
	return file
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func contains(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

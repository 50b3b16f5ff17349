package interop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that has to happen. Nothing is
// measured by it.
const patience = 60 * time.Second

// application calls with a new connection each time: old ones end with the
// proxy's process.
var application = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

func TestMain(m *testing.M) {
	code := m.Run()
	if binary != "" {
		os.RemoveAll(filepath.Dir(binary))
	}
	os.Exit(code)
}

var binary string

// buildCaddy builds, once, the binary that operators run.
var buildCaddy = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		return err
	}
	binary = filepath.Join(dir, "caddy")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/caddy")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building caddy: %w\n%s", err, out)
	}
	return nil
})

// A proxy is caddy-bearer as a sidecar, in a directory of its own.
type proxy struct {
	*testing.T
	rig          *rig
	dir, address string
	account      []string // lines of the account
	target       string   // of bearer_proxy: the account, and the user if it has one
	options      string   // of bearer_proxy
	cmd          *exec.Cmd
	log          *os.File
}

// newProxy writes the files of a proxy that signs in by itself; lines, if any,
// take the place of the account's scope and client_auth.
func newProxy(r *rig, lines ...string) *proxy {
	r.Helper()
	if len(lines) == 0 {
		lines = []string{"client_auth basic", "scope " + ScopeAPI + " " + ScopeOffline}
	}
	p := makeProxy(r)
	p.write("client_secret", r.ClientSecret)
	p.write("password", r.Password)
	p.account = append(lines,
		"token_endpoint "+r.url+r.paths.token,
		"client_id "+r.ClientID,
		"client_secret {file."+p.dir+"/client_secret}",
		"grant password {", "username "+r.Username, "password {file."+p.dir+"/password}", "}")
	p.configure()
	return p
}

// makeProxy prepares a proxy that has no configuration yet.
func makeProxy(r *rig) *proxy {
	r.Helper()
	if err := buildCaddy(); err != nil {
		r.Fatal(err)
	}
	p := &proxy{T: r.T, rig: r, dir: r.TempDir(), address: freeAddress(r.T), target: "erp"}
	var err error
	if p.log, err = os.Create(filepath.Join(p.dir, "log")); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(p.end)
	return p
}

// freeAddress is one on which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// configure writes the Caddyfile.
func (p *proxy) configure() {
	p.Helper()
	_, port, _ := net.SplitHostPort(p.address)
	p.write("Caddyfile", fmt.Sprintf(`{
	admin unix/%[1]s/admin.sock
	grace_period 5s
	bearer {
		store bbolt {
			path %[1]s/data/tokens.db
		}
		account erp {
			upstream %[2]s
			%[4]s
		}
	}
}

http://:%[3]s {
	bind 127.0.0.1
	bearer_proxy %[5]s %[2]s {
		%[6]s
	}
}
`, p.dir, p.rig.api.URL, port, strings.Join(p.account, "\n\t\t\t"), p.target, p.options))
}

// end stops the proxy and shows its log if something is wrong with it.
func (p *proxy) end() {
	p.stop(syscall.SIGKILL)
	p.log.Close()
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		p.Error(err)
	}
	for _, bad := range []string{"DATA RACE", "panic"} {
		if bytes.Contains(text, []byte(bad)) {
			p.Errorf("%s in the proxy's log", bad)
		}
	}
	p.holdsNoSecret("the proxy's log", text)
	if p.Failed() {
		p.Logf("%s", text)
	}
}

// holdsNoSecret fails the test if a text has a part of the credentials that
// stays as it is in JSON, or form-encoded; or the start of fosite's tokens; or
// what went over the wire.
func (p *proxy) holdsNoSecret(where string, text []byte) {
	p.Helper()
	parts := []string{"p+q%r", "p%2Bq%25r", "secure", "ory_at_", "ory_rt_", "ory_ac_"}
	for _, secret := range append(parts, p.rig.Secrets()...) {
		if bytes.Contains(text, []byte(secret)) {
			p.Errorf("a secret is in %s", where)
		}
	}
}

func (p *proxy) write(name, text string) {
	p.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.Fatal(err)
	}
}

// command prepares the binary with all its files in the proxy's directory.
func (p *proxy) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, append(args, "--config", p.dir+"/Caddyfile")...)
	cmd.Env = append(os.Environ(), "HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir+"/config", "XDG_DATA_HOME="+p.dir+"/data")
	return cmd
}

// start runs the proxy and waits until it listens.
func (p *proxy) start() error {
	// Not with the test's context: the proxy ends when we say so.
	p.cmd = p.command(context.Background(), "run")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("starting the proxy: %w", err)
		}
	}
}

// run starts the proxy or ends the test.
func (p *proxy) run() {
	p.Helper()
	if err := p.start(); err != nil {
		p.Fatal(err)
	}
}

// stop sends a signal and waits for the end.
func (p *proxy) stop(sig syscall.Signal) {
	if p.cmd != nil && p.cmd.Process != nil && p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Signal(sig)
		_ = p.cmd.Wait()
	}
}

// restart kills the proxy as a power failure would, and starts it.
func (p *proxy) restart() {
	p.Helper()
	p.stop(syscall.SIGKILL)
	p.run()
}

// bearer runs a command of the operator's against the running proxy.
func (p *proxy) bearer(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	out, err := p.command(ctx, append([]string{"bearer"}, args...)...).CombinedOutput()
	return string(out), err
}

// call makes a request as the application does, without credentials, and
// returns the status and, where the proxy itself answered, its code.
func (p *proxy) call(client *http.Client, body string) (status int, code string, err error) {
	method := "GET"
	if body != "" {
		method = "POST"
	}
	req, err := http.NewRequestWithContext(p.Context(), method, "http://"+p.address+"/document", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode == http.StatusOK && string(text) != body {
		err = fmt.Errorf("the API got %d bytes other than the %d that were sent", len(text), len(body))
	}
	return res.StatusCode, res.Header.Get("Caddy-Bearer-Error"), err
}

// works fails the test unless the API can be called.
func (p *proxy) works() {
	p.Helper()
	if status, code, err := p.call(application, "a body"); err != nil || status != http.StatusOK {
		p.Fatal(status, code, err)
	}
}

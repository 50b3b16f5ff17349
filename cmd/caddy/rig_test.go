package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// binDir is where the binary is that all tests run.
var binDir string

func TestMain(m *testing.M) {
	var err error
	if binDir, err = os.MkdirTemp("", "caddy-bearer-cmd"); err != nil {
		panic(err)
	}
	if err := os.Chmod(binDir, 0o755); err != nil { // other users run it, too
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(binDir)
	os.Exit(code)
}

// build builds the binary that operators run: linking it takes longer than most
// of the tests.
var build = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-o", filepath.Join(binDir, "caddy"), ".").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
})

func buildCaddy(t *testing.T) string {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(binDir, "caddy")
}

// A proxy is the binary as a sidecar, in a directory of its own.
type proxy struct {
	*testing.T
	bin, dir, address string
	cmd               *exec.Cmd
	log               *os.File
}

// newSandboxProxy is a proxy with a sandbox of its own.
func newSandboxProxy(t *testing.T, c sandbox.Config) (*sandbox.Sandbox, *sandbox.Servers, *proxy) {
	t.Helper()
	sb := sandbox.New(c)
	servers, err := sb.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(servers.Close)
	return sb, servers, newProxy(t, servers)
}

func newProxy(t *testing.T, servers *sandbox.Servers) *proxy {
	t.Helper()
	p := &proxy{T: t, bin: buildCaddy(t), dir: t.TempDir()}
	p.address = freeAddress(t)
	_, port, _ := net.SplitHostPort(p.address)
	p.write("client_secret", "sandbox-secret")
	p.write("password", "sandbox-password")
	p.write("Caddyfile", fmt.Sprintf(`{
	admin unix/%[1]s/admin.sock
	grace_period 5s
	bearer {
		store bbolt {
			path %[1]s/data/tokens.db
		}
		account erp {
			client_id sandbox-client
			client_secret {file.%[1]s/client_secret}
			token_endpoint %[2]s/oauth/v2/oauth-token
			upstream %[3]s
			grant password {
				username sandbox-user
				password {file.%[1]s/password}
			}
		}
	}
}

http://:%[4]s {
	bind 127.0.0.1
	bearer_proxy erp %[3]s
}
`, p.dir, servers.AuthorizationServerURL, servers.APIURL, port))
	var err error
	if p.log, err = os.Create(filepath.Join(p.dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill(syscall.SIGKILL)
		p.log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(p.log.Name())
			t.Logf("%s", text)
		}
	})
	return p
}

func (p *proxy) write(name, text string) {
	p.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.Fatal(err)
	}
}

// command prepares the binary with its files in the proxy's directory.
func (p *proxy) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.bin, args...)
	cmd.Env = append(os.Environ(), "HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir+"/config", "XDG_DATA_HOME="+p.dir+"/data")
	return cmd
}

func (p *proxy) start() {
	p.Helper()
	p.cmd = p.command("run", "--config", p.dir+"/Caddyfile")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			p.Fatal(err)
		}
	}
}

func (p *proxy) kill(sig syscall.Signal) {
	if p.cmd != nil && p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Signal(sig)
		_ = p.cmd.Wait()
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// An output is what a process has said so far.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

// says waits until a text is there, and returns all.
func (o *output) says(t *testing.T, text string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		o.mu.Lock()
		all := o.text.String()
		o.mu.Unlock()
		if strings.Contains(all, text) {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("it doesn't say %q: %s", text, all)
		}
	}
}

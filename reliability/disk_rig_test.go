//go:build linux

package reliability

import (
	"context"
	"errors"
	"fmt"
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

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// diskBinary is the program as operators run it, built once for all tests of
// this package that don't want failpoints.
var diskBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "reliability-*")
	if err != nil {
		return "", err
	}
	atEnd = append(atEnd, func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "caddy")
	if out, err := exec.Command("go", "build", "-race=false", "-o", bin, "../cmd/caddy").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return bin, nil
})

// A diskProxy is the program with its files where a test can break the disk. Its
// account has nothing but the refresh token that was imported: a refresh token
// that is lost, or used twice, ends it.
type diskProxy struct {
	*testing.T
	sb              *sandbox.Sandbox
	servers         *sandbox.Servers
	lifetime        time.Duration // of an access token
	dir             string        // of all that must not break
	database, spill string
	cmd             *exec.Cmd
	ended           chan struct{}
	log             *os.File
	caller, admin   *http.Client
}

// newDiskProxy prepares the files. An empty spill means its usual place.
func newDiskProxy(t *testing.T, lifetime time.Duration, database, spill string) *diskProxy {
	t.Helper()
	dir := t.TempDir()
	if database == "" {
		database = dir + "/data/tokens.db"
	}
	p := &diskProxy{T: t, lifetime: lifetime, dir: dir, database: database, spill: spill,
		sb: sandbox.New(sandbox.Config{TokenLifetime: lifetime, EventLimit: 100_000})}
	if spill == "" {
		p.spill = database + ".spill"
	}
	var err error
	if p.servers, err = p.sb.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.servers.Close)
	if p.log, err = os.OpenFile(dir+"/log", os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		t.Fatal(err)
	}
	overSocket := func(name string) *http.Client {
		return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", dir+"/"+name)
			}}}
	}
	p.caller, p.admin = overSocket("site.sock"), overSocket("admin.sock")
	if err := os.WriteFile(dir+"/Caddyfile", []byte(p.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop(syscall.SIGKILL)
		if t.Failed() {
			text, _ := os.ReadFile(p.log.Name())
			t.Logf("%s", text[max(0, len(text)-6000):])
		}
		p.log.Close()
	})
	return p
}

func (p *diskProxy) config() string {
	var accounts strings.Builder
	for _, name := range []string{"erp", "second", "third"} {
		fmt.Fprintf(&accounts, `
		account %s {
			client_id      sandbox-client
			client_secret  sandbox-secret
			token_endpoint %s/oauth/v2/oauth-token
			upstream       %s
			grant refresh_token
		}`, name, p.servers.AuthorizationServerURL, p.servers.APIURL)
	}
	return fmt.Sprintf(`{
	admin unix/%[1]s/admin.sock
	grace_period 2s
	log {
		exclude admin.api
	}
	bearer {
		store bbolt {
			path  %[2]s
			spill %[3]s
		}%[4]s
	}
}
http://:8001 {
	bind unix/%[1]s/site.sock
	bearer_proxy erp %[5]s
}
`, p.dir, p.database, p.spill, accounts.String(), p.servers.APIURL)
}

// start returns when the site and the admin endpoint answer.
func (p *diskProxy) start() {
	p.Helper()
	if err := p.tryStart(); err != nil {
		p.Fatal(err)
	}
}

func (p *diskProxy) tryStart() error {
	bin, err := diskBinary()
	if err != nil {
		return err
	}
	cmd := exec.Command(bin, "run", "--config", p.dir+"/Caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir+"/config", "XDG_DATA_HOME="+p.dir+"/share")
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	p.cmd, p.ended = cmd, ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", p.dir+"/site.sock"); err == nil {
			conn.Close()
			if p.ask("GET", "/bearer/status", "", nil) == nil {
				return nil
			}
		}
		select {
		case <-ended:
			return fmt.Errorf("it ended at its start: %v", cmd.ProcessState)
		default:
		}
		if time.Now().After(deadline) {
			return errors.New("it didn't start within 20 s")
		}
	}
}

// stop ends the process with a signal, if it runs.
func (p *diskProxy) stop(sig syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	p.cmd = nil
}

// alive fails the test if the process has ended by itself.
func (p *diskProxy) alive() {
	p.Helper()
	select {
	case <-p.ended:
		p.Fatalf("the process ended by itself: %v", p.cmd.ProcessState)
	default:
	}
}

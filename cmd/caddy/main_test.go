package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

var steady = flag.Duration("steady", 12*time.Second, "how long TestSteadyTraffic calls the proxy")

// buildCaddy builds the binary that operators run.
func buildCaddy(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "caddy")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// A proxy is the binary as a sidecar, in a directory of its own.
type proxy struct {
	*testing.T
	bin, dir, address string
	cmd               *exec.Cmd
	log               *os.File
}

func newProxy(t *testing.T, servers *sandbox.Servers) *proxy {
	t.Helper()
	p := &proxy{T: t, bin: buildCaddy(t), dir: t.TempDir()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = l.Addr().String()
	l.Close()
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

// TestSteadyTraffic calls the API through the proxy while tokens live 5 s and
// every refresh token works once, and kills the proxy in the middle.
func TestSteadyTraffic(t *testing.T) {
	sb := sandbox.New(sandbox.Config{TokenLifetime: 5 * time.Second})
	servers, err := sb.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer servers.Close()
	p := newProxy(t, servers)
	p.start()

	ctx, cancel := context.WithTimeout(t.Context(), *steady)
	defer cancel()
	var down atomic.Bool
	kills := time.AfterFunc(*steady/2, func() {
		down.Store(true)
		p.kill(syscall.SIGKILL)
		p.start()
		down.Store(false)
	})
	defer kills.Stop()
	calls, failures := 0, 0
	for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		before := down.Load()
		res, err := http.Get("http://" + p.address + "/echo")
		if err != nil {
			if !before && !down.Load() {
				failures++
				t.Errorf("the proxy is up, but: %v", err)
			}
			continue
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if calls++; res.StatusCode != 200 {
			failures++
			t.Errorf("%d %s", res.StatusCode, text)
		}
	}
	checkRotation(t, sb)
	t.Logf("%d calls, %d failures, %d refreshes, %d sign-ins", calls, failures,
		sb.TokenRequests("refresh_token"), sb.TokenRequests("password"))
	if n := sb.TokenRequests("refresh_token"); n < int(*steady/(6*time.Second)) {
		t.Errorf("only %d refreshes", n)
	}
}

// checkRotation reads the server's own log: every refresh token was presented
// once. Only if the kill fell between the server's commit and our fsync, one is
// presented again, refused, and followed by one sign-in.
func checkRotation(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	times, again := map[string]int{}, 0
	for _, e := range sb.Events() {
		if e.Kind == sandbox.KindToken && e.Grant == "refresh_token" {
			if times[e.Presented]++; times[e.Presented] > 1 {
				again++
			}
		}
	}
	if again > 1 {
		t.Errorf("refresh tokens were used more than once: %v", times)
	}
	if n := sb.TokenRequests("password"); n != 1+again {
		t.Errorf("%d sign-ins, want %d", n, 1+again)
	}
}

// F15: two processes, the same store. Expected: the second exits with a code and
// a message, without any request to the authorization server. Best: 0.
func TestF15TwoProcessesSameStore(t *testing.T) {
	sb := sandbox.New(sandbox.Config{TokenLifetime: time.Second})
	servers, err := sb.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer servers.Close()
	p := newProxy(t, servers)
	p.start()
	calls, failed := 0, 0
	call := func() {
		res, err := http.Get("http://" + p.address + "/echo")
		if calls++; err != nil || res.StatusCode != 200 {
			failed++
			t.Error(res, err)
			return
		}
		res.Body.Close()
	}
	call()
	text, err := os.ReadFile(p.dir + "/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(p.address)
	other := strings.NewReplacer("admin.sock", "admin2.sock", ":"+port+" {", ":0 {", "client_id sandbox-client", "client_id second-client").Replace(string(text))
	p.write("Caddyfile2", other)
	begin := time.Now()
	second := p.command("run", "--config", p.dir+"/Caddyfile2")
	out := new(bytes.Buffer)
	second.Stdout, second.Stderr = out, out
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- second.Wait() }()
	for running := true; running; { // nobody notices while the second one tries
		select {
		case err = <-ended:
			running = false
		case <-time.After(100 * time.Millisecond):
			call()
		}
	}
	took := time.Since(begin)
	if err == nil || !strings.Contains(out.String(), "in use") || !strings.Contains(out.String(), "tokens.db") {
		t.Errorf("%v\n%s", err, out)
	}
	if took > 20*time.Second {
		t.Errorf("it ended after %v", took)
	}
	call()
	seconds := 0
	for _, e := range sb.Events() {
		if e.Kind == sandbox.KindToken && e.ClientID != "sandbox-client" {
			seconds++
		}
	}
	if seconds > 0 || sb.TokenRequests("password") != 1 {
		t.Errorf("%d token requests of the second process, %d sign-ins", seconds, sb.TokenRequests("password"))
	}
	checkRotation(t, sb)
	t.Logf("F15: severity 0; the second process ended after %v with exit code %d and the name of the file, %d token requests; %d of %d calls through the first one failed",
		took.Round(time.Millisecond), second.ProcessState.ExitCode(), seconds, failed, calls)
}

// The commands, as an operator types them.
func TestCommands(t *testing.T) {
	sb := sandbox.New(sandbox.Config{})
	servers, err := sb.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer servers.Close()
	p := newProxy(t, servers)
	p.start()
	for _, tt := range []struct {
		args string
		exit int
		want string
	}{
		{"status", 0, "erp      ready"},
		{"status", 0, "config/caddy/bearer/store.key"},
		{"status --json", 0, `"state": "ready"`},
		{"refresh erp", 0, "erp has a new token"},
		{"forget erp", 0, "erp has no tokens"},
		{"refresh", 2, "usage:"},
		{"refresh erp more", 2, "usage:"},
		{"refresh nobody", 1, "caddy bearer status"},
		{"status --address 127.0.0.1:1", 1, "--config or --address"},
	} {
		if tt.args == "status" || tt.args == "status --json" {
			_, _ = http.Get("http://" + p.address + "/echo")
		}
		args := append([]string{"bearer"}, strings.Fields(tt.args)...)
		if !strings.Contains(tt.args, "--address") {
			args = append(args, "--config", p.dir+"/Caddyfile")
		}
		out, err := p.command(args...).CombinedOutput()
		exit := 0
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			exit = ee.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if exit != tt.exit || !bytes.Contains(out, []byte(tt.want)) {
			t.Errorf("%s: exit %d, want %d and %q in\n%s", tt.args, exit, tt.exit, tt.want, out)
		}
	}
}

// An integration is moved here with its refresh token, which no password
// replaces.
func TestImport(t *testing.T) {
	sb := sandbox.New(sandbox.Config{})
	servers, err := sb.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer servers.Close()
	p := newProxy(t, servers)
	text, err := os.ReadFile(p.dir + "/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	grant := string(text[bytes.Index(text, []byte("grant password")):])
	grant = grant[:strings.Index(grant, "}\n\t\t}")+1]
	p.write("Caddyfile", strings.Replace(string(text), grant, "grant refresh_token", 1))
	p.start()
	bearer := func(stdin string, args ...string) (int, string) {
		cmd := p.command(append([]string{"bearer"}, append(args, "--config", p.dir+"/Caddyfile")...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if exit, out := bearer("", "status"); exit != 3 || !strings.Contains(out, "caddy bearer import") {
		t.Errorf("status before: exit %d\n%s", exit, out)
	}
	for _, stdin := range []string{"", "\n", "two words\n"} {
		if exit, out := bearer(stdin, "import", "erp"); exit != 2 {
			t.Errorf("import of %q: exit %d\n%s", stdin, exit, out)
		}
	}
	if exit, out := bearer("_1XBPWQQ_unknown\n", "import", "erp"); exit != 1 || strings.Contains(out, "_1XBPWQQ_unknown") {
		t.Errorf("import of an unknown token: exit %d\n%s", exit, out)
	}

	form := strings.NewReader("grant_type=password&username=sandbox-user&password=sandbox-password&client_id=sandbox-client&client_secret=sandbox-secret")
	res, err := http.Post(servers.AuthorizationServerURL+"/oauth/v2/oauth-token", "application/x-www-form-urlencoded", form)
	if err != nil {
		t.Fatal(err)
	}
	var elsewhere struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&elsewhere); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if exit, out := bearer(elsewhere.RefreshToken+"\n", "import", "erp"); exit != 0 || strings.Contains(out, elsewhere.RefreshToken) {
		t.Errorf("import: exit %d\n%s", exit, out)
	}
	if res, err := http.Get("http://" + p.address + "/echo"); err != nil || res.StatusCode != 200 {
		t.Error(res, err)
	}
	if exit, out := bearer("", "status"); exit != 0 {
		t.Errorf("status after: exit %d\n%s", exit, out)
	}
	if n := sb.TokenRequests("password"); n != 1 {
		t.Errorf("%d sign-ins by password, want the one elsewhere", n)
	}
}

// A second sandbox doesn't share the first one's port.
func TestSandboxPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(buildCaddy(t), "bearer", "sandbox", "--listen", l.Addr().String())
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("--listen")) {
		t.Errorf("%v\n%s", err, out)
	}
}

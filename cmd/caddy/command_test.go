package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// An operator at work in the directory of the Caddyfile: nothing has to be said
// twice, a second server by mistake does no harm, and what Caddy generates has
// our commands.
func TestOperator(t *testing.T) {
	t.Parallel()
	sb, _, p := newSandboxProxy(t, sandbox.Config{})
	here := func(exit int, want string, args ...string) {
		t.Helper()
		cmd := p.command(args...)
		cmd.Dir = p.dir
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Error(args, err)
			return
		}
		if code := cmd.ProcessState.ExitCode(); code != exit || !bytes.Contains(out, []byte(want)) {
			t.Errorf("%q: exit %d, want %d and %q in\n%s", args, code, exit, want, out)
		}
	}
	here(0, " failed\n", "bearer", "check")
	here(1, "is the server running", "bearer", "status")
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		here(0, "", "bearer", "wait", "--timeout", "30s", "erp")
	}()
	p.start()
	<-waited
	before := sb.TokenRequests("")
	here(0, "erp      ready", "bearer", "status")
	here(0, `"failed": 0`, "bearer", "check", "--json")
	if n := sb.TokenRequests(""); n != before || n != 1 {
		t.Errorf("%d token requests, %d before", n, before)
	}
	here(2, "did you mean status?", "bearer", "statsu")
	here(2, "unknown flag: --jsn", "bearer", "status", "--jsn")
	here(0, "status\tShows", "__complete", "bearer", "st")
	here(0, "erp\tready", "__complete", "bearer", "refresh", "")
	here(0, "bash completion", "completion", "bash")
	here(0, "", "manpage", "--directory", "man")
	p.manPages()
	here(1, "another server answers at the admin endpoint", "run")
	here(1, "another server answers at the admin endpoint", "run", "--config", "Caddyfile")
	here(0, "erp      ready", "bearer", "status") // it has its socket still
	p.kill(syscall.SIGKILL)                       // which leaves the socket's file behind
	p.start()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		cmd := p.command("bearer", "wait", "--timeout", "0")
		cmd.Dir = p.dir
		if cmd.Run() == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not ready after a restart")
		}
	}
}

// manPages checks those that were made.
func (p *proxy) manPages() {
	p.Helper()
	pages, _ := filepath.Glob(filepath.Join(p.dir, "man", "caddy-bearer-*.8"))
	if len(pages) != 12 {
		p.Errorf("man pages: %q", pages)
	}
	for page, wants := range map[string][]string{
		"wait":    {"--timeout", "wait [<account>[/<user>]...] [--timeout <duration>]", "one by one; <account>/<user> waits"},
		"status":  {"login_required  no token", "caddy bearer status erp/ada"},
		"sandbox": {"lost-reply ", "[--fault <name>[:<times>]]"},
	} {
		text, err := os.ReadFile(filepath.Join(p.dir, "man", "caddy-bearer-"+page+".8"))
		for _, want := range wants {
			if plain := strings.ReplaceAll(string(text), `\`, ""); err != nil || !strings.Contains(plain, want) {
				p.Errorf("%s: %v, no %q in %s", page, err, want, text)
			}
		}
	}
}

// The commands, as an operator types them.
func TestCommands(t *testing.T) {
	t.Parallel()
	_, _, p := newSandboxProxy(t, sandbox.Config{})
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
	t.Parallel()
	sb, servers, p := newSandboxProxy(t, sandbox.Config{})
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
	t.Parallel()
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

// The sandbox ends when it is told, leaves nothing behind, and colours nothing
// that is no terminal. Ctrl-C ends a login that waits for what is pasted.
func TestSandboxEnds(t *testing.T) {
	t.Parallel()
	p := &proxy{T: t, bin: buildCaddy(t), dir: t.TempDir()}
	tmp := t.TempDir()
	server := p.command("bearer", "sandbox", "--listen", freeAddress(t), "--grant", "authorization_code")
	server.Env = append(server.Env, "TMPDIR="+tmp)
	said := new(output)
	server.Stdout, server.Stderr = said, said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	_, rest, _ := strings.Cut(said.says(t, "Ctrl-C ends it."), "--address ")
	address, _, _ := strings.Cut(rest, "\n")

	login := p.command("bearer", "login", "sandbox", "--paste", "--address", address)
	asked := new(output)
	login.Stdout, login.Stderr = asked, asked
	if _, err := login.StdinPipe(); err != nil { // nobody types
		t.Fatal(err)
	}
	if err := login.Start(); err != nil {
		t.Fatal(err)
	}
	asked.says(t, "Then paste the address")
	_ = login.Process.Signal(os.Interrupt)
	_ = login.Wait()
	if text := asked.says(t, "interrupted"); login.ProcessState.ExitCode() != 1 {
		t.Errorf("%v\n%s", login.ProcessState, text)
	}

	_ = server.Process.Signal(syscall.SIGTERM)
	if err := server.Wait(); err != nil || strings.Contains(said.says(t, ""), "\x1b") {
		t.Errorf("%v\n%q", err, said.says(t, ""))
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

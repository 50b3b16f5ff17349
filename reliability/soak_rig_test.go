//go:build linux

package reliability

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A soakProxy is the binary that operators run, in a directory of its own. Its
// sites are Unix sockets, over which a reload loses no connection.
type soakProxy struct {
	*testing.T
	bin, dir         string
	strict, graceful *soakServer
	admin            *http.Client

	pid    atomic.Int64
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	log    *os.File
	kills  []time.Time // SIGKILL only
}

// A soakSession is one that the callers use: of an account or of one of its
// users. tokenUser is whose access token the API must see.
type soakSession struct{ name, account, user, tokenUser string }

var soakSessions = []soakSession{
	{"erp", "erp", "", "sandbox-user"}, // password, relogin on, no grace
	{"api", "api", "", ""},             // client_credentials
	{"moved", "moved", "", "moved"},    // refresh_token, imported; grace
	{"ada", "people", "ada", "ada"},    // one session per user
	{"alan", "people", "alan", "alan"},
}

func newSoakProxy(t *testing.T, strict, graceful *soakServer) *soakProxy {
	t.Helper()
	p := &soakProxy{T: t, bin: filepath.Join(t.TempDir(), "caddy"), dir: t.TempDir(), strict: strict, graceful: graceful}
	if out, err := exec.Command("go", "build", "-race=false", "-o", p.bin, "../cmd/caddy").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.admin = unixClient(p.dir+"/admin.sock", false)
	p.write("client_secret", "sandbox-secret")
	p.write("password", "sandbox-password")
	p.write("Caddyfile", p.config("INFO", ""))
	var err error
	if p.log, err = os.OpenFile(p.dir+"/log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop(syscall.SIGKILL)
		p.log.Close()
	})
	return p
}

// config is the configuration, if so wanted without one account and its site.
func (p *soakProxy) config(level, without string) string {
	var accounts, sites strings.Builder
	for i, a := range []struct {
		name, grant string
		server      *soakServer
	}{
		{"erp", "grant password {\n\t\t\t\tusername sandbox-user\n\t\t\t\tpassword {file." + p.dir + "/password}\n\t\t\t}", p.strict},
		{"api", "grant client_credentials", p.strict},
		{"moved", "grant refresh_token", p.graceful},
		{"people", "grant refresh_token", p.graceful},
	} {
		if a.name == without {
			continue
		}
		fmt.Fprintf(&accounts, `
		account %s {
			client_id       sandbox-client
			client_secret   {file.%s/client_secret}
			token_endpoint  %s
			upstream        %s
			request_timeout 3s
			%s
		}`, a.name, p.dir, a.server.tokenURL(), a.server.api, a.grant)
		named, options := a.name, ""
		if a.name == "people" {
			named, options = "people/{http.request.header.X-User}", " {\n\t\tuser_from_header X-User\n\t}"
		}
		fmt.Fprintf(&sites, "\nhttp://:%d {\n\tbind unix/%s/%s.sock\n\tbearer_proxy %s http://%s%s\n}\n",
			8001+i, p.dir, a.name, named, a.server.api, options)
	}
	return fmt.Sprintf(`{
	admin unix/%[1]s/admin.sock
	grace_period 5s
	log {
		level %[2]s
		exclude admin.api
	}
	bearer {
		store bbolt {
			path %[1]s/data/tokens.db
		}%[3]s
	}
}
%[4]s`, p.dir, level, accounts.String(), sites.String())
}

func (p *soakProxy) write(name, text string) {
	p.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.Fatal(err)
	}
}

// start returns when every site answers the phone.
func (p *soakProxy) start() {
	p.Helper()
	cmd := exec.Command(p.bin, "run", "--config", p.dir+"/Caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir+"/config", "XDG_DATA_HOME="+p.dir+"/data")
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	p.pid.Store(int64(cmd.Process.Pid))
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	deadline := time.Now().Add(30 * time.Second)
	for _, name := range []string{"erp", "api", "moved", "people", "admin"} {
		for {
			conn, err := net.Dial("unix", p.dir+"/"+name+".sock")
			if err == nil {
				conn.Close()
				break
			}
			if p.ended() || time.Now().After(deadline) {
				p.Fatalf("it doesn't start: %v\n%s", err, p.logTail(20))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// ended tells that the process isn't there any more.
func (p *soakProxy) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// stop ends the process and waits for its end.
func (p *soakProxy) stop(sig syscall.Signal) {
	p.Helper()
	if p.cmd == nil || p.ended() {
		return
	}
	if sig == syscall.SIGKILL {
		p.kills = append(p.kills, time.Now())
	}
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second): // drain and grace_period are 15 s together
		p.Errorf("it didn't end within 30 s of %v", sig)
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	if code := p.cmd.ProcessState.ExitCode(); sig == syscall.SIGTERM && code != 0 {
		p.Errorf("exit code %d after SIGTERM\n%s", code, p.logTail(20))
	}
}

// reload puts a configuration in force, also if it is the same.
func (p *soakProxy) reload(config string) {
	p.Helper()
	req, _ := http.NewRequest("POST", "http://127.0.0.1/load", strings.NewReader(config))
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate")
	res, err := p.admin.Do(req)
	if err != nil {
		p.Errorf("reloading: %v", err)
		return
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); res.StatusCode != 200 {
		p.Errorf("reloading: %d %s", res.StatusCode, text)
	}
}

// login gets a user's refresh token at the server, as another integration
// would, and moves it here.
func (p *soakProxy) login(account, user, password, as string) {
	p.Helper()
	res, err := http.PostForm(p.graceful.tokenURL(), url.Values{
		"grant_type": {"password"}, "username": {as}, "password": {password},
		"client_id": {"sandbox-client"}, "client_secret": {"sandbox-secret"},
	})
	if err != nil {
		p.Fatal(err)
	}
	defer res.Body.Close()
	var tokens struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&tokens); err != nil {
		p.Fatal(err)
	}
	body, _ := json.Marshal(map[string]string{"account": account, "user": user, "refresh_token": tokens.RefreshToken})
	in, err := p.admin.Post("http://127.0.0.1/bearer/import", "application/json", bytes.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	defer in.Body.Close()
	if text, _ := io.ReadAll(in.Body); in.StatusCode != 200 {
		p.Fatalf("import: %d %s", in.StatusCode, text)
	}
}

// unixClient calls over a socket; with keep it keeps its connections.
func unixClient(socket string, keep bool) *http.Client {
	return &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: !keep,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

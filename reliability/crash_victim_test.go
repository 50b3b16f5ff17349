//go:build linux

package reliability

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait: long enough for a machine that is busy.
const patience = 20 * time.Second

// crashBinary builds the program that operators run, with its points.
var crashBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		return "", err
	}
	atEnd = append(atEnd, func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "caddy")
	out, err := exec.Command("go", "build", "-race=false", "-tags", "failpoint", "-o", bin, "../cmd/caddy").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return bin, nil
})

// A victim is the program as a sidecar, in a directory of its own, to be
// started and killed over and over.
type victim struct {
	bin, dir, site string
	admin          *http.Client
	caller         *http.Client

	process *exec.Cmd
	dead    chan struct{} // closed when the process has ended
	ending  syscall.WaitStatus
}

// addresses gives each victim a loopback address of its own: on 127.0.0.1 an
// outgoing connection could take the port while the victim is down.
var addresses atomic.Int32

const crashKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" // of 32 bytes

// crashCaddyfile is as short as it can be: it is read thousands of times.
const crashCaddyfile = `{
	admin unix/DIR/admin.sock
	persist_config off
	auto_https off
	grace_period 5s
	log {
		level ERROR
	}
	bearer {
		store bbolt {
			path DIR/data/tokens.db
			key {file.DIR/store.key}
		}
		account erp {
			client_id sandbox-client
			client_secret {file.DIR/client_secret}
			token_endpoint AUTHORITY/oauth/v2/oauth-token
			upstream API
			grant GRANT
		}
	}
}

http://SITE {
	bind HOST
	bearer_proxy erp API
}
`

func newVictim(t *testing.T, a *authority, grant string) *victim {
	t.Helper()
	bin, err := crashBinary()
	if err != nil {
		t.Fatal(err)
	}
	n := addresses.Add(1)
	v := &victim{bin: bin, dir: t.TempDir(), site: fmt.Sprintf("127.%d.%d.%d:8080", os.Getpid()%200+20, n/200, n%200+2)}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", v.dir+"/admin.sock")
	}
	v.admin = &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: patience}
	v.caller = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	v.write(t, "client_secret", "sandbox-secret")
	v.write(t, "password", "sandbox-password")
	v.write(t, "store.key", crashKey)
	v.write(t, "point", "")
	if grant == "password" {
		grant = "password {\n\t\t\t\tusername sandbox-user\n\t\t\t\tpassword {file." + v.dir + "/password}\n\t\t\t}"
	}
	host, _, _ := strings.Cut(v.site, ":")
	v.write(t, "Caddyfile", strings.NewReplacer("DIR", v.dir, "SITE", v.site, "HOST", host, "GRANT", grant,
		"AUTHORITY", a.url, "API", a.api).Replace(crashCaddyfile))
	t.Cleanup(func() { _ = v.kill(syscall.SIGKILL) })
	return v
}

func (v *victim) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(v.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// arm names the point to die at; "" is none.
func (v *victim) arm(point string) error {
	return os.WriteFile(filepath.Join(v.dir, "point"), []byte(point), 0o600)
}

// start starts a process and doesn't wait for it.
func (v *victim) start() error {
	log, err := os.Create(filepath.Join(v.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(v.bin, "run", "--config", v.dir+"/Caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+v.dir, "XDG_CONFIG_HOME="+v.dir+"/config", "XDG_DATA_HOME="+v.dir+"/data",
		"CADDY_BEARER_FAILPOINT="+v.dir+"/point", "GOGC=off", "GOMEMLIMIT=200MiB")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	dead := make(chan struct{})
	v.process, v.dead = cmd, dead
	go func() {
		_ = cmd.Wait()
		v.ending = cmd.ProcessState.Sys().(syscall.WaitStatus)
		close(dead)
	}()
	return nil
}

// kill sends a signal and waits for the end of the process.
func (v *victim) kill(sig syscall.Signal) error {
	if v.process == nil {
		return nil
	}
	_ = v.process.Process.Signal(sig)
	return v.ended(patience)
}

// ended waits until the process is dead.
func (v *victim) ended(timeout time.Duration) error {
	select {
	case <-v.dead:
		return nil
	case <-time.After(timeout):
		return fmt.Errorf("the process lives on")
	}
}

// died is ended for a death by SIGKILL, or by a SIGTERM that came before Caddy
// listened to signals, which kills as well.
func (v *victim) died(timeout time.Duration) error {
	if err := v.ended(timeout); err != nil {
		return err
	}
	if !v.ending.Signaled() || v.ending.Signal() != syscall.SIGKILL && v.ending.Signal() != syscall.SIGTERM {
		return fmt.Errorf("the process ended by itself: %v\n%s", v.process.ProcessState, v.log())
	}
	return nil
}

func (v *victim) log() []byte {
	text, _ := os.ReadFile(filepath.Join(v.dir, "log"))
	return text
}

// A reply is what a request to the victim came to.
type reply struct {
	status int
	code   string // Caddy-Bearer-Error
	text   string
}

func (r reply) lost() bool {
	return r.code == "login_required" || strings.Contains(r.text, "login_required")
}

func read(res *http.Response, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header.Get("Caddy-Bearer-Error"), string(text)}, err
}

// call calls the API through the proxy.
func (v *victim) call() (reply, error) { return read(v.caller.Get("http://" + v.site + "/echo")) }

// post asks the admin endpoint.
func (v *victim) post(path, body string) (reply, error) {
	return read(v.admin.Post("http://127.0.0.1"+path, "application/json", strings.NewReader(body)))
}

func (v *victim) refresh() (reply, error) { return v.post("/bearer/refresh", `{"account":"erp"}`) }

// answer calls the API until there is an answer that stands: the upstream's, or
// that a person has to log in.
func (v *victim) answer() (reply, error) {
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		r, err := v.call()
		if err == nil && (r.status == 200 || r.status == 401 || r.lost()) {
			return r, nil
		}
		select {
		case <-v.dead:
			return r, fmt.Errorf("the process ended: %v\n%s", v.process.ProcessState, v.log())
		default:
		}
		if time.Now().After(end) {
			return r, fmt.Errorf("no answer: %v %v\n%s", r, err, v.log())
		}
	}
}

// works spends the refresh token until it is clear whether there is a good one.
func (v *victim) works() (bool, error) {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		r, err := v.refresh()
		switch {
		case err == nil && r.status == 200:
			return true, nil
		case err == nil && r.lost():
			return false, nil
		case time.Now().After(end):
			return false, errors.Join(fmt.Errorf("a refresh brings nothing: %v\n%s", r, v.log()), err)
		}
	}
}

// spend imports a refresh token from elsewhere.
func (v *victim) spend(token string) error {
	r, err := v.post("/bearer/import", fmt.Sprintf(`{"account":"erp","refresh_token":%q}`, token))
	if err == nil && r.status != 200 {
		err = fmt.Errorf("importing a refresh token: %v", r)
	}
	return err
}

// reload puts the configuration in force once more.
func (v *victim) reload() error {
	text, err := os.ReadFile(v.dir + "/Caddyfile")
	if err != nil {
		return err
	}
	req, err := http.NewRequest("POST", "http://127.0.0.1/load", strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate")
	r, err := read(v.admin.Do(req))
	if err == nil && r.status != 200 {
		err = fmt.Errorf("reloading: %v", r)
	}
	return err
}

// files returns the contents of the store's directory by name.
func (v *victim) files() (map[string][]byte, error) {
	files := map[string][]byte{}
	entries, err := os.ReadDir(v.dir + "/data")
	if errors.Is(err, os.ErrNotExist) {
		return files, nil
	}
	for _, e := range entries {
		if e.Type().IsRegular() && err == nil {
			files[e.Name()], err = os.ReadFile(filepath.Join(v.dir, "data", e.Name()))
		}
	}
	return files, err
}

package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A process is a running caddy. It ends with the test.
type process struct {
	*testing.T
	dir string
	cmd *exec.Cmd
	out output
	end chan error
}

// An output is what a process has said so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// run starts caddy with files in a directory of its own.
func run(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	binary, err := buildCaddy()
	if err != nil {
		t.Fatal(err)
	}
	// Not with the test's context: it ends when we say so.
	p := &process{T: t, dir: dir, cmd: exec.Command(binary, args...), end: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir, "XDG_CONFIG_HOME="+dir+"/config", "XDG_DATA_HOME="+dir+"/data")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.end <- p.cmd.Wait() }()
	t.Cleanup(p.stop)
	return p
}

// await waits until the process says something of this form, and returns the
// parts.
func (p *process) await(form string) []string {
	p.Helper()
	re := regexp.MustCompile(form)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(glance) {
		if found := re.FindStringSubmatch(p.out.String()); found != nil {
			return found
		}
		select {
		case err := <-p.end:
			p.end <- err
			p.Fatalf("caddy has ended: %v\n%s", err, &p.out)
		default:
		}
	}
	p.Fatalf("caddy doesn't say %s:\n%s", form, &p.out)
	return nil
}

// stop ends the process as an operator does, and then looks at its log.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.end:
	case <-time.After(patience):
		p.Errorf("caddy doesn't end within %s", patience)
		_ = p.cmd.Process.Kill()
		<-p.end
	}
	for _, bad := range []string{"panic", "DATA RACE", "answering at the portal"} {
		if strings.Contains(p.out.String(), bad) {
			p.Errorf("%q is in the log", bad)
		}
	}
	if p.Failed() {
		p.Logf("%s", &p.out)
	}
}

// keepsQuiet fails the test if the log has one of these secrets.
func (p *process) keepsQuiet(secrets ...string) {
	p.Helper()
	for _, secret := range secrets {
		if secret == "" || strings.Contains(p.out.String(), secret) {
			p.Errorf("a secret is in the log, or there is none: %q", secret)
		}
	}
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

// A sandbox is `caddy bearer sandbox`: an authorization server, an API and a
// proxy with the portal.
type sandbox struct {
	*process
	proxy, server, api string // host and port
}

const (
	user, password = "sandbox-user", "sandbox-password"
	authorizePath  = "/oauth/v2/oauth-authorize"
	devicePath     = "/oauth/v2/oauth-device-verification"
	callPath       = "/document/v1/documents"
)

func newSandbox(t *testing.T, grant string) *sandbox {
	t.Helper()
	address := freeAddress(t)
	p := run(t, t.TempDir(), "bearer", "sandbox", "--grant", grant, "--listen", address, "--token-lifetime", "5m")
	p.await(`Ctrl-C ends it`)
	find := func(what string) string { return p.await(what + ` +http://(\S+) `)[1] }
	return &sandbox{p, address, find("authorization server"), find("API")}
}

// open is a person's browser for this sandbox.
func (s *sandbox) open(screen screen) *tab {
	s.Helper()
	return open(s.T, screen, s.proxy, s.server)
}

// url is an address at the proxy.
func (s *sandbox) url(path string) string { return "http://" + s.proxy + path }

// play lets the authorization server or the API misbehave at its next request.
func (s *sandbox) play(fault string) {
	s.Helper()
	fetchURL(s.T, "POST", "http://"+s.server+"/sandbox/faults?"+url.Values{"name": {fault}, "times": {"1"}}.Encode(), nil)
}

// tokenRequests counts those that the authorization server had.
func (s *sandbox) tokenRequests() (n int) {
	s.Helper()
	_, _, body := fetchURL(s.T, "GET", "http://"+s.server+"/sandbox/events", nil)
	var events []struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(body, &events); err != nil {
		s.Fatal(err)
	}
	for _, e := range events {
		if e.Kind == "token" {
			n++
		}
	}
	return n
}

// calls fails the test unless an application that calls the API gets this
// status, and this code if the proxy itself answers.
func calls(t *testing.T, address string, header http.Header, status int, code string) {
	t.Helper()
	got, h, _ := fetchURL(t, "GET", address, header)
	if gotCode := h.Get("Caddy-Bearer-Error"); got != status || gotCode != code {
		t.Errorf("a call gets %d %q, want %d %q", got, gotCode, status, code)
	}
}

// fetchURL is what an application does.
func fetchURL(t *testing.T, method, address string, header http.Header) (status int, h http.Header, body []byte) {
	t.Helper()
	return send(t, method, address, header, nil)
}

// postForm is what a browser does with a form; it returns the answer's status.
func postForm(t *testing.T, address string, header http.Header, form url.Values) (status int) {
	t.Helper()
	header = header.Clone()
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, _, _ = send(t, "POST", address, header, strings.NewReader(form.Encode()))
	return status
}

func send(t *testing.T, method, address string, header http.Header, content io.Reader) (status int, h http.Header, body []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, content)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	res, err := application.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, body
}

// application has no cookies, and goes nowhere else by itself.
var application = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

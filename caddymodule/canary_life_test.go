package caddymodule

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A canaryRig is the binary that operators run, in front of four authorization
// servers behind a tap: one for codes, devices, passwords and refresh tokens,
// one for assertions, one for certificates and one for Aidbox's secure code.
type canaryRig struct {
	*portalRig
	*canaryTap
	bin, admin, machines string // the latter two: a socket and the address of the site of machines
	servers              map[string]string
	collector            string // of traces
	storeKey, oldKey     string // lines of the store
	scope                string // of the account given
	process              *exec.Cmd
	output               string // standard output and error of all processes

	seen   sync.Mutex
	places map[string]place
	pages  int
}

const (
	canaryClientSecret = `C4nary/client+secret "ü&<%~x9`
	canaryPassword     = `C4nary;pass=word 'é|\q7`
	canaryPassword2    = `C4nary-second-password-Zt5`
	canaryCallerKey    = "C4nary-caller-key-8Hf2mQx0"
)

func newCanaryRig(t *testing.T) *canaryRig {
	t.Helper()
	r := &canaryRig{canaryTap: newCanaryTap(t), places: map[string]place{}, servers: map[string]string{}}
	r.portalRig = newPortalRig(t, sandbox.Config{Provider: "oidc", ClientSecret: canaryClientSecret, Password: canaryPassword, AlwaysRefreshToken: true, DeviceInterval: time.Second})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwt := sandbox.New(sandbox.Config{ClientKey: &key.PublicKey})
	box := sandbox.New(sandbox.Config{Provider: "aidbox", ClientSecret: canaryClientSecret, Password: canaryPassword, SecureCode: "https://box.test/cb"})
	mtls := sandbox.New(sandbox.Config{})
	apis := map[string]http.Handler{"": r.sandbox.API(), "jwt": jwt.API(), "box": box.API(), "mtls": mtls.API()}
	r.rig.servers.AuthorizationServerURL = r.serverBehind(r.sandbox.AuthorizationServer())
	r.api = r.apiBehind(apis)
	r.servers["jwt"] = r.serverBehind(jwt.AuthorizationServer())
	r.servers["box"] = r.serverBehind(box.AuthorizationServer())
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.keep("traces", slices.Concat(fmt.Append(nil, req.Header), body))
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(collector.Close)
	r.collector = collector.URL
	secure, err := mtls.ListenTLS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(secure.Close)
	r.servers["mtls"] = secure.AuthorizationServerURL

	r.bin, r.admin, r.machines, r.output = filepath.Join(r.dir, "caddy"), filepath.Join(r.dir, "admin.sock"), freeAddress(t), filepath.Join(r.dir, "output")
	r.storeKey, r.scope = "store.key", "all"
	r.run(exec.Command("go", "build", "-o", r.bin, "../cmd/caddy"))
	for _, dir := range []string{"secrets", "tmp", "data"} {
		if err := os.Mkdir(filepath.Join(r.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	clientCert, clientKey, err := mtls.NewClientCertificate()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]struct{ kind, text string }{
		"client_secret": {"client secret", canaryClientSecret}, "password": {"password", canaryPassword}, "caller_key": {"caller key", canaryCallerKey},
		"store.key": {"store key", newStoreKey()}, "store.key2": {"store key", newStoreKey()},
		"jwt.pem":  {"private key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))},
		"mtls.pem": {"TLS client key", string(clientKey)}, "mtls.crt": {"", string(clientCert)}, "ca.crt": {"", string(secure.CAPEM)},
	} {
		r.secret("secrets/"+name, s.text)
		switch {
		case strings.HasSuffix(s.kind, " key") && strings.HasPrefix(s.text, "-----"):
			lines := strings.Split(s.text, "\n")
			r.note(s.kind, lines[1]) // the third is of the public half
			r.note(s.kind, lines[2])
		case s.kind == "store key":
			raw, _ := base64.StdEncoding.DecodeString(s.text)
			r.note(s.kind, string(raw))
		case s.kind != "":
			r.note(s.kind, s.text)
		}
	}
	return r
}

// newStoreKey is what `openssl rand -base64 32` prints.
func newStoreKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

// caddyfile has everything on that writes something down: debug level, traces of
// handlers, access logs, metrics. Secrets are where systemd puts credentials.
func (r *canaryRig) caddyfile() string {
	_, portal, _ := net.SplitHostPort(r.address)
	_, machines, _ := net.SplitHostPort(r.machines)
	tokens := r.rig.servers.AuthorizationServerURL
	file := func(name string) string { return "{file.{$CREDENTIALS_DIRECTORY}/" + name + "}" }
	client := "client_id sandbox-client\n\t\t\tclient_secret " + file("client_secret") + "\n\t\t\tupstream " + r.api
	password := "grant password {\n\t\t\t\tusername sandbox-user\n\t\t\t\tpassword " + file("password") + "\n\t\t\t"
	account := func(name string, lines ...string) string {
		return "\t\taccount " + name + " {\n\t\t\t" + strings.Join(lines, "\n\t\t\t") + "\n\t\t}\n"
	}
	endpoints := strings.Replace(r.endpoints(), "{file."+r.dir+"/client_secret}", file("client_secret"), 1)
	accounts := account("erp", endpoints, "scope openid", "grant authorization_code") +
		account("tv", endpoints, "grant device_code") +
		account("robot", client, "token_endpoint "+tokens+"/token", "revoke_endpoint "+tokens+"/revoke", password+"}", "token_timeout 2s") +
		account("machine", client, "token_endpoint "+tokens+"/token", "client_auth post", "grant client_credentials") +
		account("given", client, "token_endpoint "+tokens+"/token", "grant refresh_token", "scope "+r.scope) +
		account("jwt", "client_id sandbox-client", "upstream "+r.api, "token_endpoint "+r.servers["jwt"]+"/oauth/v2/oauth-token",
			"client_auth private_key_jwt {$CREDENTIALS_DIRECTORY}/jwt.pem", "grant client_credentials") +
		account("mtls", "client_id sandbox-client", "upstream "+r.api, "token_endpoint "+r.servers["mtls"]+"/oauth/v2/oauth-token",
			"client_auth tls {$CREDENTIALS_DIRECTORY}/mtls.crt {$CREDENTIALS_DIRECTORY}/mtls.pem", "tls {\n\t\t\t\tca {$CREDENTIALS_DIRECTORY}/ca.crt\n\t\t\t}", "grant client_credentials") +
		account("box", client, "provider aidbox "+r.servers["box"], password+"\tsecure_code https://box.test/cb\n\t\t\t}")
	sites := ""
	for _, name := range []string{"robot", "machine", "given", "jwt", "mtls", "box"} {
		sites += "\tbearer_proxy /echo/" + name + "* " + name + " " + r.api + " {\n\t\tcaller_key caller " + file("caller_key") + "\n\t}\n"
	}
	old := ""
	if r.oldKey != "" {
		old = "old_key " + file(r.oldKey)
	}
	return fmt.Sprintf(`{
	admin unix/%[1]s
	debug
	grace_period 5s
	auto_https disable_redirects
	metrics
	servers {
		trace
	}
	bearer {
		portal %[2]s/bearer
		store bbolt {
			path %[3]s/data/tokens.db
			key %[4]s
			%[5]s
		}
%[6]s	}
}

http://:%[7]s {
	bind 127.0.0.1
	log
	tracing
	%[8]s
	bearer_portal {
		user {http.auth.user.id}
		admins root
	}
	bearer_proxy /echo/tv tv/{http.auth.user.id} %[9]s
	bearer_proxy erp/{http.auth.user.id} %[9]s
}

http://:%[10]s {
	bind 127.0.0.1
	log
	tracing
%[11]s}
`, r.admin, r.origin(), r.dir, file(r.storeKey), old, accounts, portal, basicAuth, r.api, machines, sites)
}

// command is the binary with its files below the rig's directory.
func (r *canaryRig) command(args ...string) *exec.Cmd {
	cmd := exec.Command(r.bin, args...)
	cmd.Dir = r.dir
	cmd.Env = []string{
		"HOME=" + r.dir, "XDG_CONFIG_HOME=" + r.dir + "/config", "XDG_DATA_HOME=" + r.dir + "/data", "TMPDIR=" + r.dir + "/tmp",
		"CREDENTIALS_DIRECTORY=" + r.dir + "/secrets", "PATH=" + os.Getenv("PATH"),
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT=" + r.collector, "OTEL_BSP_SCHEDULE_DELAY=100",
	}
	return cmd
}

// run runs a command and keeps what it says.
func (r *canaryRig) run(cmd *exec.Cmd, may ...string) string {
	r.Helper()
	out, err := cmd.CombinedOutput()
	r.keep("output of "+strings.Join(cmd.Args[1:], " "), out, may...)
	if err != nil {
		r.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// keep adds to a place.
func (r *canaryRig) keep(name string, data []byte, may ...string) {
	r.seen.Lock()
	defer r.seen.Unlock()
	r.places[name] = place{slices.Concat(r.places[name].data, data), append(r.places[name].may, may...)}
}

// begin starts the server, and keeps what others can see of the process.
func (r *canaryRig) begin() {
	r.Helper()
	r.secret("Caddyfile", r.caddyfile())
	log, err := os.OpenFile(r.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.Fatal(err)
	}
	defer log.Close()
	r.process = r.command("run", "--config", "Caddyfile")
	r.process.Stdout, r.process.Stderr = log, log
	if err := r.process.Start(); err != nil {
		r.Fatal(err)
	}
	r.settled()
	for _, file := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", r.process.Process.Pid, file))
		if err == nil { // else nobody else can read it either, or there is no /proc
			r.keep(file+" of the process", text)
		}
	}
}

// end ends the server.
func (r *canaryRig) end(sig syscall.Signal) {
	if r.process != nil && r.process.ProcessState == nil {
		_ = r.process.Process.Signal(sig)
		late := time.AfterFunc(20*time.Second, func() { _ = r.process.Process.Kill() })
		_ = r.process.Wait()
		late.Stop()
	}
}

// ask makes a request of the admin endpoint, and keeps the answer.
func (r *canaryRig) ask(method, path, media, body string, may ...string) (int, string) {
	r.Helper()
	c := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.admin)
	}}}
	var res *http.Response
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequestWithContext(r.Context(), method, "http://localhost"+path, strings.NewReader(body))
		if err != nil {
			r.Fatal(err)
		}
		req.Header.Set("Content-Type", media)
		if res, err = c.Do(req); err == nil {
			break
		}
		// After a reload, what the listener before hadn't accepted is reset.
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(deadline) {
			r.Fatal(err)
		}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	r.keep("answer of "+method+" "+path, slices.Concat(fmt.Append(nil, res.Header), text), may...)
	return res.StatusCode, string(text)
}

// acts is ask for an action that works.
func (r *canaryRig) acts(path, body string, may ...string) string {
	r.Helper()
	status, text := r.ask("POST", path, "application/json", body, may...)
	if status != 200 {
		r.Errorf("POST %s %s: %d %s", path, body, status, text)
	}
	return text
}

// call asks the API as a machine. What we answer is kept, what the API answers
// isn't: it is the API's.
func (r *canaryRig) call(path string, header ...string) int {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), "GET", "http://"+r.machines+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	req.SetBasicAuth("anybody", canaryCallerKey)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body) // may be cut
	if res.Header.Get(errorHeader) != "" {
		var b bytes.Buffer
		_ = res.Header.Write(&b)
		r.keep("problems", append(b.Bytes(), text...))
	}
	return res.StatusCode
}

// person is a browser whose pages are kept. What a page is for may be in it:
// the link with the state, the code to enter, the form's own value.
func (r *canaryRig) person(user string) *browser {
	b := r.browser(user)
	b.client.Transport = recordingTransport{b.client.Transport, func(req *http.Request, text []byte) {
		if strings.HasPrefix(req.URL.Path, "/bearer") {
			r.seen.Lock()
			r.pages++
			name := fmt.Sprintf("page %d, %s", r.pages, req.URL.Path)
			r.seen.Unlock()
			r.keep(name, text, "state", "nonce", "user code", "portal cookie", "CSRF value")
		}
	}}
	return b
}

// everything is all that is kept and all files, but those of the secrets.
func (r *canaryRig) everything() map[string]place {
	r.Helper()
	places := map[string]place{}
	r.seen.Lock()
	maps.Copy(places, r.places)
	r.seen.Unlock()
	err := filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil || path == r.bin:
			return err
		case d.IsDir() && d.Name() == "secrets":
			return filepath.SkipDir
		case d.Type().IsRegular():
			places[strings.TrimPrefix(path, r.dir)] = place{data: []byte(read(r.T, path))}
		}
		return nil
	})
	if err != nil {
		r.Fatal(err)
	}
	return places
}

// signsIn is the whole way of a person by code; it plants what passes.
func (r *canaryRig) signsIn(b *browser, other *browser) {
	r.Helper()
	link := b.begin("erp/" + b.user)
	for kind, name := range map[string]string{"state": "state", "nonce": "nonce"} {
		r.note(kind, parameter(r, link, name))
	}
	callback := b.approve(link)
	r.note("code", parameter(r, callback, "code"))
	other.finish(callback) // foreign
	if came := b.finish(callback); came != "signed_in" {
		r.Errorf("signing in: %s", came)
	}
	b.finish(callback) // used
	b.open(callback+"&"+url.Values{"code": {"twice"}}.Encode(), "Cookie", "")
}

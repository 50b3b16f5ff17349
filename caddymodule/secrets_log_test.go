package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// No text of a caller, of the authorization server or of the API forges a line
// of the log or steers a terminal: every line of the log is one object, and
// those of ours are without characters of control or direction. (TM-30)
func TestLogLinesAreWhole(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	log := r.logFile()
	r.site = "log"
	r.start()
	r.get("/echo")
	forged := "\r\n" + `{"level":"error","msg":"FORGED"}` + "\r\n\x1b[2J\x1b]0;FORGED\x07\u2028\u202eFORGED\x7f\u0085"
	raw := func(request string) {
		t.Helper()
		conn, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, request)
		_, _ = io.Copy(io.Discard, conn)
	}
	end := " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
	for _, escaped := range []string{url.PathEscape(forged), url.QueryEscape(forged), "%0d%0a%7b%22msg%22:%22FORGED%22%7d"} {
		raw("GET /echo/" + escaped + "?x=" + escaped + end + "\r\n")
		raw("GET http://evil.example/" + escaped + end + "\r\n")
	}
	for _, value := range []string{"\x1b[2JFORGED", "a\u2028b\u202eFORGED", "\x7f\x80\x9b2JFORGED", "{\"msg\":\"FORGED\"}"} {
		raw("GET /echo/" + strings.ReplaceAll(value, "\x1b", "") + end + "\r\n")
		raw("GET /echo" + end + "X-Test: " + value + "\r\nUser-Agent: " + value + "\r\nReferer: " + value + "\r\n\r\n")
		raw("GET /echo" + end + "Origin: " + value + "\r\n\r\n")
		raw("GET /echo HTTP/1.1\r\nHost: " + value + "\r\nConnection: close\r\n\r\n")
		raw("GET /echo" + end + "Upgrade: " + value + "\r\n\r\n")
	}
	for _, fault := range []sandbox.Fault{sandbox.InvalidClient, sandbox.HTML, sandbox.BadGateway, sandbox.Dead400InvalidRequest} {
		r.sandbox.Play(fault, 1)
		_ = r.session().Refresh(context.Background())
	}
	r.stop()
	text := read(t, log)
	if err := r.load(r.caddyfile()); err != nil { // for the end of the rig
		t.Fatal(err)
	}
	control := regexp.MustCompile("[\x00-\x09\x0b-\x1f]")
	steering := regexp.MustCompile("[\x7f\u0080-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	ours := 0
	for _, line := range lines {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil || object["msg"] == "FORGED" || object["logger"] == nil && object["msg"] == nil {
			t.Errorf("a line that isn't one: %v: %.300q", err, line)
		}
		if control.MatchString(line) {
			t.Errorf("control bytes in a line: %.300q", line)
		}
		if logger, _ := object["logger"].(string); strings.Contains(logger, "bearer") {
			ours++
			if steering.MatchString(line) {
				t.Errorf("characters that steer in a line of ours: %.300q", line)
			}
		}
	}
	if ours < 5 || !strings.Contains(text, "FORGED") {
		t.Errorf("only %d of %d lines are ours", ours, len(lines))
	}
}

// A panicking handler panics with all that it has in its hands.
type panickingHandler struct{}

func init() {
	caddy.RegisterModule(new(panickingHandler))
	httpcaddyfile.RegisterHandlerDirective("panic_for_a_test", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return new(panickingHandler), nil
	})
}

func (*panickingHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.panic_for_a_test", New: func() caddy.Module { return new(panickingHandler) }}
}

func (*panickingHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	app, err := running()
	if err != nil {
		return err
	}
	switch r.URL.Query().Get("with") {
	case "the app":
		panic(fmt.Sprintf("%+v %#v", app.lease.accounts, app.lease.accounts))
	case "the session":
		s := app.shared.sessions.All()["erp"]
		panic(fmt.Sprintf("%+v %#v %+v", s.Current(), s.Current(), s.Account())) // what never changes: more would be a race
	case "the request":
		panic(fmt.Sprintf("%+v %v", r, r.Context()))
	case "an error":
		panic(errors.New("boom"))
	case "behind":
		defer panic("behind")
	}
	return next.ServeHTTP(w, r)
}

// A panic in a handler before, behind and within ours says no secret: neither in
// the log, with its stack, nor in the answer. (TM-26)
func TestPanicShowsNoSecret(t *testing.T) {
	r := newRig(t, sandbox.Config{ClientSecret: canaryClientSecret, Password: canaryPassword})
	r.secret("client_secret", canaryClientSecret)
	r.secret("password", canaryPassword)
	r.secret("caller_key", canaryCallerKey)
	log := r.logFile()
	r.global += "\n\torder panic_for_a_test before reverse_proxy"
	r.handler = "caller_key erp {file." + r.dir + "/caller_key}\n\t\thandle_response {\n\t\t\tpanic_for_a_test\n\t\t\tcopy_response\n\t\t}"
	r.site = "log\n\troute /before* {\n\t\tpanic_for_a_test\n\t}"
	r.start()
	scanner := newCanaryScanner()
	for kind, secret := range map[string]string{"client secret": canaryClientSecret, "password": canaryPassword, "caller key": canaryCallerKey} {
		scanner.plant(t, kind, secret)
	}
	basic := []string{"Authorization", "Basic YTpDNG5hcnktY2FsbGVyLWtleS04SGYybVF4MA=="} // a:canaryCallerKey
	if res, text := r.do("GET", "/echo", nil, basic...); res.StatusCode != 200 {
		t.Fatal(res.StatusCode, text)
	}
	scanner.plant(t, "access token", strings.TrimPrefix(r.session().Current().Authorization()[0], "Bearer "))
	answers := ""
	panics := 0
	for _, path := range []string{"/echo", "/before"} {
		for _, with := range []string{"the app", "the session", "the request", "an error", "behind"} {
			if path == "/before" && with == "the request" {
				continue // that is the caller's own, of which Caddy's log is told elsewhere
			}
			panics++
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+r.address+path+"?with="+url.QueryEscape(with), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(basic[0], basic[1])
			if res, err := client.Do(req); err == nil {
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				answers += fmt.Sprint(res.Header, string(body))
			}
		}
	}
	r.stop()
	text := read(t, log)
	if err := r.load(r.caddyfile()); err != nil { // for the end of the rig
		t.Fatal(err)
	}
	if n := strings.Count(text, "panic"); n < panics {
		t.Errorf("%d panics are in the log, want %d", n, panics)
	}
	scanner.check(t, map[string]place{"log": {data: []byte(text)}, "answers": {data: []byte(answers)}})
}

// A caller's key as password of Basic authentication is in no log. In the field
// X-API-Key, which Caddy doesn't know, the access log shows it unless the site's
// log deletes it as docs/security.md says.
func TestCallerKeyInTheAccessLog(t *testing.T) {
	filter := regexp.MustCompile("(?s)```caddyfile\n(log \\{.*?\n\\})\n```").FindStringSubmatch(read(t, "../docs/security.md"))
	if filter == nil {
		t.Fatal("docs/security.md has no log directive")
	}
	r := newRig(t, sandbox.Config{})
	r.secret("caller_key", canaryCallerKey)
	access := filepath.Join(r.dir, "access.log")
	r.handler = "caller_key erp {file." + r.dir + "/caller_key}"
	r.site = strings.Replace(filter[1], "log {", "log {\n output file "+access, 1)
	r.global = "servers {\n\t\ttrace\n\t}"
	r.start()
	scanner := newCanaryScanner()
	scanner.plant(t, "caller key", canaryCallerKey)
	for _, header := range [][]string{{"X-API-Key", canaryCallerKey}, {"Authorization", "Basic YTpDNG5hcnktY2FsbGVyLWtleS04SGYybVF4MA=="}} {
		if res, text := r.do("GET", "/echo", nil, header...); res.StatusCode != 200 {
			t.Error(res.StatusCode, text)
		}
	}
	r.stop()
	text := read(t, access)
	if err := r.load(r.caddyfile()); err != nil { // for the end of the rig
		t.Fatal(err)
	}
	if n := strings.Count(text, "handled request"); n != 2 {
		t.Errorf("%d requests are in the log", n)
	}
	scanner.check(t, map[string]place{"access log": {data: []byte(text)}})
}

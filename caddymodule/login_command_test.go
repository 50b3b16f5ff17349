package caddymodule

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A commandRun is a subcommand of `caddy bearer` on its way, with its own
// standard input and output.
type commandRun struct {
	t             testing.TB
	in            *os.File    // to type on
	stdin, stdout *os.File    // of the process
	lines         chan string // of standard output
	done          chan struct{}
	output        strings.Builder // once done
	code          int
	err           error
}

// runCommand starts a command as a person at a terminal does. Standard input
// and output are the process's: one command at a time.
func (r *portalRig) runCommand(cmd *cobra.Command, args ...string) *commandRun {
	r.Helper()
	for _, name := range []string{"DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"} {
		r.Setenv(name, "")
	}
	return r.runOnScreen(cmd, args...)
}

func (r *portalRig) runOnScreen(cmd *cobra.Command, args ...string) *commandRun {
	r.Helper()
	out, w, err := os.Pipe()
	if err != nil {
		r.Fatal(err)
	}
	in, typed, err := os.Pipe()
	if err != nil {
		r.Fatal(err)
	}
	c := &commandRun{t: r, in: typed, stdin: os.Stdin, stdout: os.Stdout, lines: make(chan string, 1000), done: make(chan struct{})}
	os.Stdin, os.Stdout = in, w
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.output.WriteString(s.Text() + "\n")
			c.lines <- s.Text()
		}
	}()
	cmd.SetArgs(append(args, "--address", r.admin))
	cmd.SetErr(io.Discard)
	cmd.SetOut(io.Discard)
	go func() {
		err := cmd.Execute()
		w.Close()
		<-read
		out.Close()
		in.Close()
		c.code, c.err = exitCode(err)
		close(c.done)
	}()
	return c
}

// types gives the command a text and ends its standard input.
func (c *commandRun) types(text string) *commandRun {
	_, _ = io.WriteString(c.in, text)
	c.in.Close()
	return c
}

// exitCode is what Caddy's command ends the process with.
func exitCode(err error) (int, error) {
	if err == nil {
		return 0, nil
	}
	if v := reflect.Indirect(reflect.ValueOf(err)); v.Kind() == reflect.Struct && v.FieldByName("ExitCode").IsValid() {
		why, _ := v.FieldByName("Err").Interface().(error)
		return int(v.FieldByName("ExitCode").Int()), why
	}
	return 1, err
}

// says waits for a line that begins so.
func (c *commandRun) says(prefix string) string {
	c.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line := <-c.lines:
			if strings.HasPrefix(line, prefix) {
				return line
			}
		case <-c.done:
			c.leave()
			c.t.Fatalf("the command ended with %d, %v; it said %s", c.code, c.err, c.output.String())
		case <-timeout:
			c.leave()
			c.t.Fatalf("it didn't say %q", prefix)
		}
	}
}

// leave gives the process its input and output back.
func (c *commandRun) leave() {
	os.Stdin, os.Stdout = c.stdin, c.stdout
	c.in.Close()
}

// ends waits for the end and checks exit code, output and error.
func (c *commandRun) ends(code int, wants ...string) {
	c.t.Helper()
	defer c.leave()
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		c.t.Fatal("the command doesn't end")
	}
	text := c.output.String() + fmt.Sprint(c.err)
	if c.code != code || !contains(text, wants...) {
		c.t.Errorf("exit code %d, want %d and %q; it said %s", c.code, code, wants, text)
	}
}

// newCommandRig is a rig with an admin endpoint, whose account is logged in on
// the command line.
func newCommandRig(t *testing.T, c sandbox.Config) *portalRig {
	t.Helper()
	r := newPortalRig(t, c)
	r.admin = freeAddress(t)
	r.grant = "redirect_uri http://127.0.0.1/cb"
	return r
}

// The command listens for the answer on a loopback address of its own, takes
// the one that it waits for and no other, and says what came of it.
func TestLoginCommandListens(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{RequirePKCE: true})
	r.start()
	c := r.runCommand(loginCommand(), "erp/ada")
	link := c.says("http")
	back := mustParse(t, parameter(t, link, "redirect_uri"))
	if back.Hostname() != "127.0.0.1" || back.Port() == "" || back.Path != "/cb" {
		t.Errorf("redirect_uri is %s", back)
	}
	checkListens(t, back)
	callback, err := r.sandbox.Approve(link, "ada@sandbox")
	if err != nil {
		t.Fatal(err)
	}
	state := parameter(t, link, "state")
	r.harmless("bogus answers", func() {
		for _, b := range []struct{ method, path, query, host string }{
			{"GET", "/cb", "code=x&state=" + strings.Repeat("A", 43), ""},
			{"GET", "/cb", "code=x&state=" + state[:42], ""},
			{"GET", "/cb", "error=access_denied&state=x", ""},
			{"GET", "/cb", "code=x&code=y&state=" + state, ""},
			{"GET", "/cb", "code=x&error=y&state=" + state, ""},
			{"GET", "/cb", "code=x", ""},
			{"GET", "/cb", "", ""},
			{"GET", "/", mustParse(t, callback).RawQuery, ""},
			{"GET", "/cb/", mustParse(t, callback).RawQuery, ""},
			{"GET", "/cb/done/x", "", ""},
			{"POST", "/cb", mustParse(t, callback).RawQuery, ""},
			{"HEAD", "/cb", mustParse(t, callback).RawQuery, ""},
			{"GET", "/cb", mustParse(t, callback).RawQuery, "evil.example:" + back.Port()},
			{"GET", "/cb", mustParse(t, callback).RawQuery, "localhost:" + back.Port()},
			{"GET", "/cb", mustParse(t, callback).RawQuery, "127.0.0.1"},
		} {
			if a := terminalRequest(t, b.method, back.Host, b.path+"?"+b.query, b.host); a.StatusCode/100 != 4 || strings.Contains(a.text, "x&") {
				t.Errorf("%+v: %d %s", b, a.StatusCode, a.text)
			}
		}
	})
	answerTerminal(t, callback)
	c.ends(0, "erp/ada is logged in\n", "access token: for ", "refresh token: yes", "stored in: ")
	for _, name := range []string{"code", "state"} {
		if n := strings.Count(c.output.String(), parameter(t, callback, name)); n > 1 || n == 1 && name == "code" {
			t.Errorf("the %s is in the output", name)
		}
	}
	if conn, err := net.Dial("tcp", back.Host); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
	if got := r.browser("ada").whose(); got != "ada@sandbox" {
		t.Errorf("requests carry the token of %q", got)
	}
}

// checkListens checks that only this machine reaches the command, and nobody
// else can take its port.
func checkListens(t testing.TB, back *url.URL) {
	t.Helper()
	interfaces, _ := net.InterfaceAddrs()
	for _, address := range interfaces {
		ip := address.(*net.IPNet).IP
		if ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		if conn, err := net.DialTimeout("tcp", net.JoinHostPort(ip.String(), back.Port()), time.Second); err == nil {
			conn.Close()
			t.Errorf("it listens on %s", ip)
		}
	}
	if l, err := net.Listen("tcp", back.Host); err == nil {
		l.Close()
		t.Error("somebody else can listen there, too")
	}
}

func terminalRequest(t testing.TB, method, address, target, host string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return answer{res, string(text)}
}

// answerTerminal is the browser that comes back to a terminal: its page has an
// address without the code.
func answerTerminal(t testing.TB, callback string) {
	t.Helper()
	u := mustParse(t, callback)
	a := terminalRequest(t, "GET", u.Host, u.RequestURI(), "")
	if a.StatusCode != 303 || a.Header.Get("Location") != "/cb/done" || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("the answer: %d %v %s", a.StatusCode, a.Header, a.text)
	}
	a = terminalRequest(t, "GET", u.Host, "/cb/done", "")
	if a.StatusCode != 200 || a.Header.Get("Content-Security-Policy") != "default-src 'none'; frame-ancestors 'none'" || !strings.Contains(a.text, "close this page") {
		t.Errorf("the last page: %d %v %s", a.StatusCode, a.Header, a.text)
	}
}

// What ends the login in the terminal: a refusal, another issuer, a code that
// the server doesn't take.
func TestLoginCommandFails(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.start()
	for want, change := range map[string]func(string) string{
		"access_denied":    func(u string) string { return changed(t, u, "code", "", "error", "access_denied") },
		"https://e.evil":   func(u string) string { return changed(t, u, "iss", "https://e.evil") },
		"the login failed": func(u string) string { return changed(t, u, "code", "of-nobody") },
	} {
		c := r.runCommand(loginCommand(), "erp/ada")
		link := c.says("http")
		callback, err := r.sandbox.Approve(link, "ada@sandbox")
		if err != nil {
			t.Fatal(err)
		}
		answerTerminal(t, change(callback))
		c.ends(1, want)
		if st := r.status("erp/ada"); st.State != oauth.StateLoginRequired {
			t.Errorf("%s: the session is %s", want, st.State)
		}
	}
	r.runCommand(loginCommand(), "erp/ada", "--timeout", "200ms").ends(1, "no answer came in time")
	r.runCommand(loginCommand(), "erp").ends(1, "one session per user")
	r.runCommand(loginCommand(), "nobody/ada").ends(1, "nobody")
	r.runCommand(loginCommand()).ends(2, "wrong number of arguments")
	r.runCommand(loginCommand(), "erp/ada", "extra").ends(2, "wrong number of arguments")
	r.admin = freeAddress(t)
	r.runCommand(loginCommand(), "erp/ada").ends(1, "is the server running")
}

// A port that the redirect URI names is the one that is listened on; if it is
// taken, the command says what to do.
func TestLoginCommandPort(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	address := freeAddress(t)
	r.grant = "redirect_uri http://" + address + "/cb"
	r.start()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r.runCommand(loginCommand(), "erp/ada").ends(1, "listening for the answer", "--paste")
	l.Close()
	c := r.runCommand(loginCommand(), "erp/ada")
	callback, err := r.sandbox.Approve(c.says("http"), "ada@sandbox")
	if err != nil || !strings.HasPrefix(callback, "http://"+address+"/cb?") {
		t.Fatal(callback, err)
	}
	answerTerminal(t, callback)
	c.ends(0, "erp/ada is logged in")
}

// Over SSH the address is pasted: the whole of it, or its query.
func TestLoginCommandPaste(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.start()
	for name, form := range map[string]func(string) string{
		"whole":      func(u string) string { return u + "\n" },
		"query":      func(u string) string { return mustParse(t, u).RawQuery },
		"with frame": func(u string) string { return "  " + u + "#top \r\n" },
	} {
		c := r.runCommand(loginCommand(), "erp/ada", "--paste")
		callback, err := r.sandbox.Approve(c.says("http"), "ada@sandbox")
		if err != nil {
			t.Fatal(err)
		}
		before := r.status("erp/ada").Generation
		c.types(form(callback)).ends(0, "erp/ada is logged in")
		if st := r.status("erp/ada"); st.State != oauth.StateReady || st.Generation == before {
			t.Errorf("%s: %s, generation %d after %d", name, st.State, st.Generation, before)
		}
	}
	r.harmless("what can't be", func() {
		for text, want := range map[string]string{
			"": "no address was pasted", "\n": "malformed", "https://proxy.example.com/\n": "malformed", "code=x&state=y\n": "no such login",
			"code=x&state=" + strings.Repeat("A", 43): "no such login",
		} {
			r.runCommand(loginCommand(), "erp/ada", "--paste").types(text).ends(1, want)
		}
	})
}

// A login that was begun in a terminal for a redirect URI on the portal: the
// page there says what to do, spends nothing, and leaves the answer to the
// terminal. Nobody else can use it.
func TestLoginCommandPasteFromPortal(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.grant = ""
	r.start()
	ada := r.browser("ada")
	ada.page("")
	c := r.runCommand(loginCommand(), "erp/ada", "--paste")
	callback := ada.approve(c.says("http"))
	r.harmless("the browser", func() {
		a := ada.open(callback)
		if checkHeaders(t, "terminal", a); a.StatusCode != 200 || !strings.Contains(a.text, "finished there") || strings.Contains(a.text, parameter(t, callback, "code")) {
			t.Errorf("%d %v %s", a.StatusCode, a.Header, a.text)
		}
	})
	c.types(callback+"\n").ends(0, "erp/ada is logged in")
	if got := ada.whose(); got != "ada@sandbox" {
		t.Errorf("the token of %q", got)
	}
	r.harmless("a portal's callback in a terminal", func() {
		own := ada.approve(ada.begin("erp/ada"))
		r.runCommand(loginCommand(), "erp/ada", "--paste").types(own+"\n").ends(1, "somebody else")
		if a := ada.open(callback); a.Header.Get("Location") != "/bearer/result?problem=login_unknown" {
			t.Errorf("the spent callback: %d %v", a.StatusCode, a.Header)
		}
	})
}

// With a redirect URI on the portal, the command waits until somebody has
// logged in there.
func TestLoginCommandPortal(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.grant = ""
	r.start()
	ada := r.browser("ada")
	ada.signIn("erp/ada") // before: that isn't what is waited for
	c := r.runCommand(loginCommand(), "erp/ada")
	if link := c.says("http"); link != r.origin()+"/bearer" {
		t.Errorf("the portal is at %s", link)
	}
	select {
	case <-c.done:
		t.Fatal("it didn't wait")
	case <-time.After(1200 * time.Millisecond):
	}
	ada.signIn("erp/ada")
	c.ends(0, "Sign in on the portal", "erp/ada is logged in")
	r.runCommand(loginCommand(), "erp/ada", "--timeout", "100ms").ends(1, "nobody logged in on the portal in time")
}

// The browser that is opened gets the address as one argument of its own.
func TestLoginCommandOpens(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.start()
	record := filepath.Join(r.dir, "opened")
	script := "#!/bin/sh\nprintf '%s\\n' \"$#\" \"$@\" > " + record + ".new && mv " + record + ".new " + record + "\n"
	if err := os.WriteFile(filepath.Join(r.dir, "xdg-open"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", r.dir+":"+os.Getenv("PATH"))
	t.Setenv("DISPLAY", ":99")
	t.Setenv("SSH_CONNECTION", "")
	c := r.runOnScreen(loginCommand(), "erp/ada")
	link := c.says("http")
	r.eventually("opened", func() bool { _, err := os.Stat(record); return err == nil })
	if got := read(t, record); got != "1\n"+link+"\n" {
		t.Errorf("the browser got %q, want %s", got, link)
	}
	callback, err := r.sandbox.Approve(link, "ada@sandbox")
	if err != nil {
		t.Fatal(err)
	}
	answerTerminal(t, callback)
	c.ends(0)
	// None is opened over SSH.
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_CONNECTION", "192.0.2.1 1 192.0.2.2 22")
	r.runOnScreen(loginCommand(), "erp/ada", "--timeout", "300ms").ends(1)
	if _, err := os.Stat(record); err == nil {
		t.Error("a browser was opened over SSH")
	}
}

// A code that is entered elsewhere, and a grant that needs nobody.
func TestLoginCommandDirect(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{DeviceInterval: time.Second})
	r.accounts = "account tv {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant device_code\n\t\t}\n\t\t" +
		"account robot {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant client_credentials\n\t\t}\n\t\t" +
		"account given {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant refresh_token\n\t\t}"
	r.start()
	c := r.runCommand(loginCommand(), "tv")
	line := c.says("Open this address")
	code := strings.TrimSuffix(line[strings.LastIndexByte(line, ' ')+1:], ":")
	if err := r.sandbox.ApproveDevice(code, "ada@sandbox"); err != nil {
		t.Fatal(line, err)
	}
	c.ends(0, "tv is logged in")
	c = r.runCommand(loginCommand(), "tv")
	line = c.says("Open this address")
	if err := r.sandbox.DenyDevice(strings.TrimSuffix(line[strings.LastIndexByte(line, ' ')+1:], ":")); err != nil {
		t.Fatal(err)
	}
	c.ends(1, "access_denied")
	if st := r.status("tv"); st.State != oauth.StateReady {
		t.Errorf("after a login that was denied: %s", st.State)
	}
	r.runCommand(loginCommand(), "robot").ends(0, "robot is logged in", "refresh token: none")
	r.runCommand(loginCommand(), "given").ends(1, "can't sign in by itself")
}

// Status and logout of a user: exit codes, and both facts of a logout.
func TestLogoutCommand(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.grant = ""
	r.start()
	ada := r.browser("ada")
	r.runCommand(statusCommand(), "erp/ada").ends(3, "erp/ada", "login_required", "can't serve: erp/ada")
	r.runCommand(statusCommand()).ends(0, "erp/…", "0 users")
	r.runCommand(logoutCommand(), "erp/ada").ends(0, "stays out until it is logged in", "nothing to revoke")
	ada.signIn("erp/ada")
	r.runCommand(statusCommand(), "erp/ada").ends(0, "erp/ada", "ready")
	r.runCommand(statusCommand(), "erp/ada", "--json").ends(0, `"user": "ada"`, `"state": "ready"`)
	r.runCommand(statusCommand()).ends(0, "erp/…", "1 users")
	r.runCommand(statusCommand(), "nobody").ends(1, "nobody")
	r.runCommand(statusCommand(), "a", "b").ends(2)
	before := r.revocations()
	r.runCommand(logoutCommand(), "erp/ada").ends(0, "erp/ada has no tokens here any more", "the server has revoked them")
	if n := r.revocations() - before; n != 1 {
		t.Errorf("%d revocations", n)
	}
	r.runCommand(statusCommand(), "erp/ada").ends(3, "login_required")
	if got := ada.whose(); got != "" {
		t.Errorf("after the logout: the token of %q", got)
	}
	ada.signIn("erp/ada")
	r.sandbox.Play(sandbox.RevokeAway, 1)
	r.runCommand(logoutCommand(), "erp/ada").ends(1, "erp/ada has no tokens here any more", "has NOT revoked them", "503")
	if st := r.status("erp/ada"); st.State != oauth.StateLoginRequired || st.HasRefreshToken {
		t.Errorf("after a logout that the server didn't hear: %s", st.State)
	}
	r.runCommand(logoutCommand(), "erp").ends(1, "one session per user")
	r.runCommand(logoutCommand()).ends(2)
	if n := r.sandbox.TokenRequests("refresh_token"); n != 0 {
		t.Errorf("%d refreshes", n)
	}
}

// An account with users has no condition of its own, and no login that would
// help.
func TestStatusCommandPerUser(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.start()
	r.runCommand(statusCommand(), "erp").ends(1, "one session per user; name it as erp/<user>")
}

// A login that was begun at the admin endpoint without anything that binds it
// can't be finished by whoever has no cookie.
func TestLoginAdminUnbound(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.grant, r.auth, r.portal, r.proxy, r.sessions = "", "", "", "bearer_proxy erp "+r.api, []string{"erp"}
	r.start()
	for _, body := range []string{`{"account":"erp"}`, `{"account":"erp","browser":""}`} {
		res, err := http.Post("http://"+r.admin+"/bearer/login", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var began beganJSON
		err = json.NewDecoder(res.Body).Decode(&began)
		res.Body.Close()
		if res.StatusCode != 200 {
			continue // refused at once
		}
		if err != nil {
			t.Fatal(err)
		}
		callback, err := r.sandbox.Approve(began.URL, "alan@sandbox")
		if err != nil {
			t.Fatal(err)
		}
		r.harmless(body, func() {
			if a := r.browser("").open(callback); a.StatusCode == 303 && strings.Contains(a.Header.Get("Location"), "signed_in") {
				t.Errorf("%s: a browser without a cookie has signed in", body)
			}
		})
	}
}

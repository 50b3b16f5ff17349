package caddymodule

import (
	"errors"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

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
	r.runCommand(loginCommand(), "erp/ada", "--timeout", "200ms").ends(1, "no answer came in time; if the browser is on another machine, use --paste")
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

// The browser that is opened gets one argument of its own: a page that leads on
// and is gone at the end.
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
	t.Setenv("XDG_CACHE_HOME", filepath.Join(r.dir, "cache"))
	t.Setenv("SSH_CONNECTION", "")
	c := r.runOnScreen(loginCommand(), "erp/ada")
	link := c.says("http")
	r.eventually("opened", func() bool { _, err := os.Stat(record); return err == nil })
	page, ok := strings.CutPrefix(strings.TrimSpace(read(t, record)), "1\nfile://")
	if !ok || !strings.Contains(read(t, page), html.EscapeString(link)) {
		t.Errorf("the browser got %q, want a page that leads to %s", page, link)
	}
	callback, err := r.sandbox.Approve(link, "ada@sandbox")
	if err != nil {
		t.Fatal(err)
	}
	answerTerminal(t, callback)
	c.ends(0)
	if _, err := os.Stat(page); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the page is still there: %v", err)
	}
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

// The last page has a path on this machine, whatever the redirect URI.
func TestDonePath(t *testing.T) {
	t.Parallel()
	for redirectURI, want := range map[string]string{
		"http://127.0.0.1":        "/done",
		"http://127.0.0.1/":       "/done",
		"http://127.0.0.1//evil/": "/evil/done",
		"http://127.0.0.1/cb":     "/cb/done",
	} {
		if got := donePath(mustParse(t, redirectURI)); got != want {
			t.Errorf("%s: %s, want %s", redirectURI, got, want)
		}
	}
}

// Other users of the machine see the arguments of programs: what the browser is
// started with says nothing of the login, and the page that does is private and
// goes away.
func TestBrowsePrivately(t *testing.T) {
	dir := t.TempDir()
	seen := filepath.Join(dir, "seen")
	opener := "#!/bin/sh\necho \"$1\" > " + seen + ".new && cat \"${1#file://}\" >> " + seen + ".new && stat -c %a \"${1#file://}\" >> " + seen + ".new && mv " + seen + ".new " + seen + "\n"
	for _, name := range []string{"xdg-open", "open"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(opener), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("DISPLAY", ":9")
	t.Setenv("SSH_CONNECTION", "")
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	done := browsePrivately("https://login.example.com/authorize?state=planted&x=%22")
	var text []byte
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if text, err = os.ReadFile(seen); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no browser was opened")
		}
	}
	argument, page, _ := strings.Cut(string(text), "\n")
	if strings.Contains(argument, "planted") || !strings.HasPrefix(argument, "file:///") {
		t.Errorf("the browser is started with %s", argument)
	}
	if !strings.Contains(page, "https://login.example.com/authorize?state=planted&amp;x=%22") || !strings.HasSuffix(page, "600\n") {
		t.Errorf("the page: %s", page)
	}
	done()
	if _, err := os.Stat(strings.TrimPrefix(argument, "file://")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the page is still there: %v", err)
	}
}

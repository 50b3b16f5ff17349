package interop

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// knowsLogin finds out, once, whether the binary has the command.
var knowsLogin = sync.OnceValues(func() (bool, error) {
	if err := buildCaddy(); err != nil {
		return false, err
	}
	out, err := exec.Command(binary, "bearer", "login", "--help").CombinedOutput()
	return err == nil && bytes.Contains(out, []byte("caddy bearer login")), err
})

// needsLogin skips a test if the binary can't log a person in. The script run
// takes no skipped test for an answer.
func needsLogin(t *testing.T) {
	t.Helper()
	known, err := knowsLogin()
	if err != nil {
		t.Fatal(err)
	}
	if !known {
		t.Skip("this binary has no command bearer login")
	}
}

// newLoginProxy writes the files of a proxy whose account needs a person; lines,
// if any, take the place of the client and its authentication.
func newLoginProxy(r *rig, lines ...string) *proxy {
	r.Helper()
	p := makeProxy(r)
	p.write("client_secret", r.ClientSecret)
	if len(lines) == 0 {
		lines = []string{"client_auth basic", "client_id " + r.ClientID, "client_secret {file." + p.dir + "/client_secret}"}
	}
	lines = append(lines, "scope openid "+ScopeAPI+" "+r.offline)
	redirectURI := r.RedirectURI // the command listens on any port (RFC 8252 §7.3)
	if r.discovery {
		lines = append(lines, "provider oidc "+r.url)
	} else {
		redirectURI = "http://" + freeAddress(r.T) + "/callback"
		lines = append(lines, "authorize_endpoint "+r.url+r.paths.authorize,
			"token_endpoint "+r.url+r.paths.token, "revoke_endpoint "+r.url+r.paths.revoke)
	}
	lines = append(lines, "grant authorization_code {", "redirect_uri "+redirectURI)
	if r.prompt != "" {
		lines = append(lines, "prompt "+r.prompt)
	}
	p.account = append(lines, "}")
	p.configure()
	return p
}

// An outcome is that of a command caddy bearer login.
type outcome struct {
	url  string // that it told the person to visit
	out  string // all that it printed
	exit error
	page int   // status of what the person got to see at the end
	trip error // why the person got nowhere
}

// login runs the command and, beside it, the person, who goes where it says.
func (p *proxy) login(account string, who *person) (o outcome) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	cmd := p.command(ctx, "bearer", "login", account)
	cmd.Env = append(cmd.Env, "SSH_CONNECTION=none of ours") // it must open no real browser
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	exit := make(chan error, 1)
	go func() {
		exit <- cmd.Wait()
		w.Close()
	}()
	var trip sync.WaitGroup
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		o.out += line + "\n"
		if o.url == "" && (strings.HasPrefix(line, "http://") || strings.HasPrefix(line, "https://")) {
			o.url = line
			trip.Go(func() { o.page, o.trip = who.travel(line) })
		}
	}
	o.exit = <-exit
	trip.Wait()
	if o.url == "" {
		p.Fatalf("bearer login names no URL: %v\n%s", o.exit, o.out)
	}
	p.holdsNoSecret("what bearer login prints", []byte(o.out))
	return o
}

// travel signs in, goes back to the client, and returns the status of the page
// that the browser ends at.
func (p *person) travel(authorizeURL string) (status int, err error) {
	callback, err := p.visit(authorizeURL)
	if err != nil {
		return 0, err
	}
	res, err := (&http.Client{Jar: p.browser.Jar, Timeout: patience}).Get(callback)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, nil
}

// loggedIn logs the rig's user in or ends the test.
func (p *proxy) loggedIn() {
	p.Helper()
	o := p.login("erp", newPerson(p.rig.Username, p.rig.Password))
	if o.exit != nil || o.trip != nil || o.page != http.StatusOK {
		p.Fatalf("logging in: %v; the person: %v, status %d\n%s", o.exit, o.trip, o.page, o.out)
	}
}

// needsPerson fails the test unless the application is told that a person has
// to log in, and the operator too.
func (p *proxy) needsPerson() {
	p.Helper()
	if status, code, err := p.call(application, ""); status != http.StatusServiceUnavailable || code != "login_required" || err != nil {
		p.Errorf("%d %s %v, want 503 login_required", status, code, err)
	}
	out, err := p.bearer("status")
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		p.Errorf("bearer status: %v, want exit status 3\n%s", err, out)
	}
}

// onLogins runs a test against both servers, with the binary.
func onLogins(t *testing.T, lifetime time.Duration, test func(r *rig)) {
	t.Parallel()
	needsLogin(t)
	for _, tt := range servers {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			test(tt.rig(t, withLifetime(lifetime), nil))
		})
	}
}

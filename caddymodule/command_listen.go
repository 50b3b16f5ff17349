package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is how the command line takes the answer of a browser.

// pasted parts a pasted address into where the browser arrived and its query; a
// query alone is taken, too.
func pasted(line string) (at, query string) {
	line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
	at, query, ok := strings.Cut(line, "?")
	if !ok {
		return "", line
	}
	return at, query
}

// listen takes the callback on the loopback address of redirectURI, on any port
// if it has none (RFC 8252 §7.3), and only while it waits.
func (t *terminalLogin) listen(redirectURI string) (*accountStatus, error) {
	u, err := url.Parse(redirectURI)
	if err != nil {
		return nil, err
	}
	host := u.Hostname()
	if host == "localhost" {
		host = "127.0.0.1" // never a name: who knows where it leads
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, or(u.Port(), "0")))
	if err != nil {
		return nil, fmt.Errorf("listening for the answer: %w; is another login under way? or use --paste", err)
	}
	if u.Port() == "" {
		_, port, _ := net.SplitHostPort(l.Addr().String())
		u.Host = net.JoinHostPort(u.Hostname(), port)
		redirectURI = u.String()
	}
	began, err := t.begin(redirectURI)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	fmt.Printf("Sign in with a browser on this machine:\n\n%s\n\nWaiting for the answer at %s. (Over SSH: --paste)\n", began.URL, u.Host)
	defer browsePrivately(began.URL)()
	return t.serve(l, u)
}

// serve answers the browser until the login is done.
func (t *terminalLogin) serve(l net.Listener, u *url.URL) (*accountStatus, error) {
	type result struct {
		status *accountStatus
		err    error
	}
	done := donePath(u)
	results, shown := make(chan result, 1), make(chan struct{})
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		switch {
		case r.Host != u.Host || r.Method != http.MethodGet:
			http.Error(w, "This is not what the login waits for.", http.StatusForbidden)
		case r.URL.Path == done:
			fmt.Fprintln(w, "The answer has arrived. The terminal says what came of it; you can close this page.")
			select { // once there is a result, somebody waits for it
			case shown <- struct{}{}:
			default:
			}
		case or(r.URL.Path, "/") == or(u.Path, "/") && isCallback(r):
			st, err := t.finish(u.String(), r.URL.RawQuery)
			if err != nil && isLoginCode(err, oauth.ErrLoginUnknown, oauth.ErrLoginForeign, oauth.ErrCallbackMalformed) {
				http.Error(w, "This is not the answer that the login waits for.", http.StatusBadRequest)
				return
			}
			// A redirect, so that no code stays in the address bar.
			http.Redirect(w, r, done, http.StatusSeeOther)
			select {
			case results <- result{st, err}:
			default:
			}
		default:
			http.NotFound(w, r)
		}
	})}
	go func() { _ = server.Serve(l) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) // for the last page
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
	}()
	select {
	case r := <-results:
		select { // the browser follows the redirect
		case <-shown:
		case <-time.After(2 * time.Second):
		}
		return r.status, r.err
	case <-t.ctx.Done():
		return nil, errors.New("no answer came in time; if the browser is on another machine, use --paste")
	}
}

// donePath is where the browser is left: a path here, never //host.
func donePath(redirectURI *url.URL) string {
	return "/" + strings.TrimLeft(strings.TrimRight(redirectURI.Path, "/")+"/done", "/")
}

// isLoginCode reports errors of the server that say that a callback is not for
// this login.
func isLoginCode(err error, kinds ...error) bool {
	for _, k := range kinds {
		if strings.HasPrefix(err.Error(), k.Error()+": ") {
			return true
		}
	}
	return false
}

// browse opens a browser at an address that anybody may know.
func browse(link string) {
	if checkLink(link) == nil {
		open(link)
	}
}

// loginPage leads a browser on; the address that it opens first says nothing.
var loginPage = template.Must(template.New("login").Parse(
	`<!doctype html><title>Login</title><meta http-equiv="refresh" content="0;url={{.}}"><a href="{{.}}">Continue</a>`))

// browsePrivately opens a browser at an address that other users of the machine
// must not see, as they see the arguments of programs: by a page in a file that
// only this user can read. done removes it.
func browsePrivately(link string) (done func()) {
	done = func() {}
	cache, err := os.UserCacheDir()
	if err != nil || checkLink(link) != nil || os.MkdirAll(cache, 0o700) != nil {
		return done
	}
	dir, err := os.MkdirTemp(cache, "caddy-bearer-login")
	if err != nil {
		return done
	}
	done = func() { _ = os.RemoveAll(dir) }
	file, err := os.OpenFile(filepath.Join(dir, "login.html"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return done
	}
	err = loginPage.Execute(file, link)
	if closeErr := file.Close(); err == nil && closeErr == nil {
		open((&url.URL{Scheme: "file", Path: filepath.ToSlash(file.Name())}).String())
	}
	return done
}

// open opens a browser where there is one. What it opens is one argument of a
// program, never part of a command line.
func open(link string) {
	if os.Getenv("SSH_CONNECTION") != "" {
		return
	}
	name, args := "xdg-open", []string{link}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", link}
	default:
		if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
			return
		}
	}
	if cmd := exec.Command(name, args...); cmd.Start() == nil {
		go func() { _ = cmd.Wait() }()
	}
}

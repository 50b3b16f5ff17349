package browser

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A sign-in that was begun on the command line, with --paste: the portal's page
// says what to do with its address, and the command takes it.
func TestTerminal(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "authorization_code")
		b := s.open(screen)
		admin := s.await(`--address (unix\S+)`)[1]
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		binary, err := buildCaddy()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(ctx, binary, "bearer", "login", "sandbox", "--paste", "--address", admin)
		cmd.Env = append(os.Environ(), "HOME="+s.dir, "SSH_CONNECTION=none of ours") // it must open no browser
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		r, w := io.Pipe()
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exit := make(chan error, 1)
		go func() {
			exit <- cmd.Wait()
			w.Close()
		}()
		said := ""
		for lines := bufio.NewScanner(r); lines.Scan(); {
			line := strings.TrimSpace(lines.Text())
			said += line + "\n"
			if !strings.HasPrefix(line, "http://"+s.server) {
				continue
			}
			b.visit(line)
			b.arrives(authorizePath, "Log in")
			b.signsIn(user, password)
			b.arrives("/bearer/callback", "Almost done")
			b.says("Copy the whole address of this page")
			b.look("terminal")
			if _, err := io.WriteString(in, b.location()+"\n"); err != nil {
				t.Error(err)
			}
		}
		if err := <-exit; err != nil {
			t.Fatalf("bearer login: %v\n%s", err, said)
		}
		calls(t, s.url(callPath), nil, http.StatusOK, "")
		b.visit(s.url("/bearer"))
		b.says("sandbox State: Ready")
	})
}

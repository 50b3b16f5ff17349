package caddymodule

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

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
	in, typed, err := os.Pipe()
	if err != nil {
		r.Fatal(err)
	}
	return r.runOn(in, typed, cmd, args...)
}

// runOn starts a command with a standard input, and closes that at the end.
func (r *portalRig) runOn(in, typed *os.File, cmd *cobra.Command, args ...string) *commandRun {
	r.Helper()
	out, w, err := os.Pipe()
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

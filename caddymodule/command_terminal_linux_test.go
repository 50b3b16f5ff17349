package caddymodule

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// echoes reports whether a terminal shows what is typed.
func echoes(t *testing.T, screen *os.File) bool {
	t.Helper()
	var state syscall.Termios
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&state))); e != 0 {
		t.Fatal(e)
	}
	return state.Lflag&syscall.ECHO != 0
}

// Colours are for terminals whose users want them.
func TestColoured(t *testing.T) {
	_, screen := terminal(t)
	defer screen.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, tt := range []struct {
		f             *os.File
		noColor, term string
		want          bool
	}{
		{screen, "", "xterm", true}, {screen, "", "", true}, {screen, "1", "xterm", false}, {screen, "", "dumb", false}, {file, "", "xterm", false},
	} {
		t.Setenv("NO_COLOR", tt.noColor)
		t.Setenv("TERM", tt.term)
		if got := coloured(tt.f); got != tt.want {
			t.Errorf("%s, NO_COLOR=%s, TERM=%s: %v", tt.f.Name(), tt.noColor, tt.term, got)
		}
	}
}

// A secret that is typed isn't shown, and Ctrl-C in the middle of it leaves a
// terminal that shows what is typed.
func TestSecretIsTypedUnseen(t *testing.T) {
	if os.Getenv("TYPE_A_SECRET") != "" {
		fmt.Println(readSecret(os.Stdin, ""))
		return
	}
	t.Parallel()
	for typed, want := range map[string]string{"sesame\n": "sesame <nil>", "ses\x03": ""} {
		keyboard, screen := terminal(t)
		defer screen.Close()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestSecretIsTypedUnseen$")
		cmd.Env = append(os.Environ(), "TYPE_A_SECRET=1")
		cmd.Stdin = screen
		var out strings.Builder
		cmd.Stdout = &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); echoes(t, screen); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				_ = cmd.Process.Kill()
				t.Fatal("the terminal shows what is typed")
			}
		}
		if _, err := keyboard.WriteString(typed); err != nil {
			t.Error(err)
		}
		err := cmd.Wait()
		if interrupted := want == ""; interrupted != (err != nil) || !strings.Contains(out.String(), want) || !echoes(t, screen) {
			t.Errorf("%q: %v, it shows what is typed: %v\n%s", typed, err, echoes(t, screen), out.String())
		}
	}
}

//go:build failpoint && unix

package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReached(t *testing.T) {
	for _, tt := range []struct {
		armed, hits string // the hits, and what they return
		want        string
	}{
		{"a", "a", "1"},
		{"a", "bca", "001"},
		{"", "ab", "00"},
		{"a#3", "aaaa", "0010"},
		{"a#3", "babaa", "00001"},
		{"a#x", "aaa", "000"},
		{"ab", "a", "0"},
	} {
		count.armed, count.hits = "", 0
		got := ""
		for _, name := range tt.hits {
			if reached(string(name), tt.armed) {
				got += "1"
			} else {
				got += "0"
			}
		}
		if got != tt.want {
			t.Errorf("armed with %q, %s gave %s, want %s", tt.armed, tt.hits, got, tt.want)
		}
	}
	count.armed, count.hits = "", 0
	reached("a", "a#2")
	reached("a", "")
	if reached("a", "a#2") {
		t.Error("hits before the arming count")
	}
}

// A child reads a text whose point kills it, in the middle.
func TestKill(t *testing.T) {
	if os.Getenv(variable) != "" {
		_, _ = os.Stdout.WriteString("before ")
		_, _ = Reader("here", strings.NewReader("text")).Read(make([]byte, 2))
		_, _ = os.Stdout.WriteString("after")
		return
	}
	file := filepath.Join(t.TempDir(), "point")
	for point, dies := range map[string]bool{"here\n": true, "there": false, "": false} {
		if err := os.WriteFile(file, []byte(point), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), variable+"="+file)
		out, err := cmd.Output()
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if killed != dies || strings.Contains(string(out), "after") == dies || !strings.Contains(string(out), "before") {
			t.Errorf("armed with %q: %v\n%s", point, err, out)
		}
	}
}

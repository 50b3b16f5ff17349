package caddymodule

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// terminal opens a pseudo-terminal: what is typed on one end is read at the
// other.
func terminal(t *testing.T) (typed, in *os.File) {
	t.Helper()
	typed, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there is no terminal to be had:", err)
	}
	t.Cleanup(func() { typed.Close() })
	var number, unlock uint32
	for request, value := range map[uintptr]*uint32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &unlock} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, typed.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	if in, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Skip("there is no terminal to be had:", err)
	}
	return typed, in
}

// On a terminal it is asked, and only yes means yes.
func TestAdoptOnATerminal(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.only = []string{"code"}
	r.begin()
	second := r.newHost()
	r.put(r.backup(), second.db())
	r.put(r.at.key(), second.key())
	r.stop()
	r.start(second)
	for _, answer := range []string{"\n", "n\n", "no\n", "yeah\n", "code\n", "\x04", "Y\n"} {
		typed, in := terminal(t)
		c := r.runOn(in, typed, adoptCommand(), "code")
		c.says("next request spends the token.")
		if _, err := io.WriteString(typed, answer); err != nil {
			t.Fatal(err)
		}
		if answer == "Y\n" {
			c.ends(0, "Take over what is listed? [y/N] ", "adopted: 1")
			continue
		}
		c.ends(1, "Take over what is listed? [y/N] ", "nothing was adopted")
		r.waits("code")
	}
	r.asked(0, 0, func() { r.serves("code") })
}

// While the database can't be written, what is new is in the spill: accounts
// serve and refresh, the status says what is wrong, there is no backup that
// would lack something; and when it can be written again, all is well by itself.
func TestDegradedStoreIsTold(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	r.breakFile(r.at.db())
	r.runCommand(refreshCommand(), "code").ends(0)
	r.serves(storeAccounts...)
	st := r.condition()
	if !contains(st.StoreProblem, "the database can't be written", "kept in "+r.at.spill()) {
		t.Errorf("the problem is %q", st.StoreProblem)
	}
	for _, a := range st.Accounts {
		if a.State != "ready" || a.Unsaved {
			t.Errorf("%s is %s", a.Account, a.State)
		}
	}
	r.runCommand(statusCommand()).ends(0, "store: DEGRADED: the database can't be written")
	file := filepath.Join(t.TempDir(), "backup")
	r.runCommand(backupCommand(), file).ends(1, "would lack the newest tokens")
	if status, _ := r.post("/bearer/backup", "{}"); status != 503 {
		t.Errorf("a backup: %d", status)
	}
	r.runCommand(rekeyCommand()).ends(1, "both keys are kept")
	r.serves(storeAccounts...)

	r.remove(r.at.db())
	if err := os.Rename(r.at.db()+".away", r.at.db()); err != nil {
		t.Fatal(err)
	}
	r.eventually("well", func() bool { return r.condition().StoreProblem == "" })
	r.runCommand(backupCommand(), file).ends(0)
	r.runCommand(rekeyCommand()).ends(0, "6 entries are sealed with a new key")
	r.asked(0, 0, func() {
		r.restart()
		r.serves(storeAccounts...)
	})
}

// breakFile takes an open file from under the process: no write works, and it
// can't be opened again.
func (r *storeRig) breakFile(path string) {
	r.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		r.Fatal(err)
	}
	broken := 0
	for _, name := range fds {
		if target, err := os.Readlink(name); err != nil || target != path {
			continue
		}
		var fd int
		if _, err := fmt.Sscan(strings.TrimPrefix(name, "/proc/self/fd/"), &fd); err != nil {
			r.Fatal(err)
		}
		readOnly, err := os.Open(path)
		if err != nil {
			r.Fatal(err)
		}
		if err := syscall.Dup3(int(readOnly.Fd()), fd, syscall.O_CLOEXEC); err != nil {
			r.Fatal(err)
		}
		readOnly.Close()
		broken++
	}
	if broken == 0 {
		r.Fatal("it isn't open")
	}
	if err := os.Rename(path, path+".away"); err != nil {
		r.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		r.Fatal(err)
	}
}

//go:build linux

package reliability

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// damages are what can happen to a database file. was is its content.
var damages = []struct {
	name string
	do   func(path string, was []byte) error
}{
	{"a write of which half arrived", func(path string, was []byte) error {
		half := bytes.Clone(was)
		clear(half[2*4096+100 : min(len(half), 6*4096)])
		return os.WriteFile(path, half, 0o600)
	}},
	{"0 bytes", func(path string, _ []byte) error { return os.Truncate(path, 0) }},
	{"100 bytes", func(path string, _ []byte) error { return os.Truncate(path, 100) }},
	{"1 page", func(path string, _ []byte) error { return os.Truncate(path, 4096) }},
	{"2 pages", func(path string, _ []byte) error { return os.Truncate(path, 2*4096) }},
	{"half", func(path string, was []byte) error {
		used := len(bytes.TrimRight(was, "\x00")) // the rest was never written
		return os.Truncate(path, int64(used/2))
	}},
	{"zeros", func(path string, was []byte) error { return os.WriteFile(path, make([]byte, len(was)), 0o600) }},
	{"garbage", func(path string, was []byte) error {
		b := make([]byte, len(was))
		_, _ = rand.Read(b)
		return os.WriteFile(path, b, 0o600)
	}},
	{"deleted", func(path string, _ []byte) error { return os.Remove(path) }},
	{"a directory in its place", func(path string, _ []byte) error {
		return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
	}},
}

// TestF11DamagedDatabase damages the database: the program sets it aside, says
// so, and goes on with the tokens of the spill.
func TestF11DamagedDatabase(t *testing.T) {
	t.Parallel()
	t.Run("while it is stopped", testDamagedAtStart)
	t.Run("while it runs", testDamagedAtWork)
	if !t.Failed() {
		t.Logf("F11: severity 0; %d kinds of damage at a start and 3 under the running program: healed from the spill, no refresh token lost or used twice", len(damages))
	}
}

func testDamagedAtStart(t *testing.T) {
	p := newDiskProxy(t, time.Minute, "", "")
	p.start()
	if err := errors.Join(p.login("erp"), p.refresh()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range damages {
		t.Run(tt.name, func(t *testing.T) {
			outer := p.T
			p.T = t
			defer func() { p.T = outer }()
			if p.cmd == nil {
				p.start() // the one before failed
			}
			for range 3 {
				if err := p.refresh(); err != nil {
					t.Fatal(err)
				}
			}
			p.stop(syscall.SIGKILL)
			was, err := os.ReadFile(p.database)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.do(p.database, was); err != nil {
				t.Fatal(err)
			}
			damaged, _ := os.ReadFile(p.database)
			before := p.aside()
			p.start()
			if err := errors.Join(p.call(), p.refresh()); err != nil {
				t.Error(err)
			}
			p.refreshes()
			if st := p.status(); len(st.Mended) == 0 || !strings.Contains(strings.Join(st.Mended, " "), p.database) {
				t.Errorf("the status doesn't tell of it: %+v", st)
			}
			if !p.says("was damaged") && !p.says("was missing") {
				t.Error("the log doesn't tell of it")
			}
			if tt.name == "deleted" {
				return
			}
			kept := p.aside()
			if len(kept) != len(before)+1 {
				t.Fatalf("what was damaged isn't there any more: before %q, now %q", before, kept)
			}
			if now, _ := os.ReadFile(kept[len(kept)-1]); !bytes.Equal(now, damaged) {
				t.Errorf("what was set aside as %s isn't what it was", kept[len(kept)-1])
			}
		})
	}
}

// aside are the files that were given another name, oldest first.
func (p *diskProxy) aside() []string {
	names, _ := filepath.Glob(p.database + ".damaged-*")
	slices.SortStableFunc(names, func(a, b string) int {
		one, _ := os.Lstat(a)
		other, _ := os.Lstat(b)
		return one.ModTime().Compare(other.ModTime())
	})
	return names
}

// testDamagedAtWork takes the database's content away under the running program,
// whose mapping of it then has nothing behind it: every page is a bus error.
func testDamagedAtWork(t *testing.T) {
	p := newDiskProxy(t, time.Minute, "", "")
	p.start()
	if err := p.login("erp"); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{2 * 4096, 100, 0} {
		if err := os.Truncate(p.database, size); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := errors.Join(p.refresh(), p.call()); err != nil {
				t.Error(err)
			}
		}
		p.alive()
		p.eventually(10*time.Second, "recovered", func() bool { return !p.status().degraded() })
	}
	if n := len(p.aside()); n != 3 {
		t.Errorf("%d files were set aside, want 3", n)
	}
	p.restarted()
}

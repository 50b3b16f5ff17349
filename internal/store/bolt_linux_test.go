package store

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// TestBoltFailedWrite makes the writes of an open store fail: the old value
// stays, and the next call works again on the file opened anew.
func TestBoltFailedWrite(t *testing.T) {
	t.Parallel()
	b := newBolt(t)
	mustSave(t, b, testKey, 1, "one")
	for g := uint64(2); g < 5; g++ {
		readOnly, err := os.Open(b.Path())
		do(t, err)
		do(t, syscall.Dup3(int(readOnly.Fd()), int(b.file.os.Fd()), syscall.O_CLOEXEC))
		do(t, readOnly.Close())
		value := bytes.Repeat([]byte("x"), int(g)*10_000)
		if err := b.Save(t.Context(), testKey, oauth.Entry{Generation: g, Value: value}); err == nil {
			t.Fatal("Save to a file that can't be written gave no error")
		}
		e, err := b.Load(t.Context(), testKey)
		if err != nil || e.Generation != g-1 {
			t.Fatalf("after the failed Save of generation %d: generation %d, %v", g, e.Generation, err)
		}
		mustSave(t, b, testKey, g, string(value))
	}
	mustClose(t, b)
	reopen(t, b.Path()) // looks into every page
}

func TestBoltRefusesPipe(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	do(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "pipe")
	do(t, syscall.Mkfifo(path, 0o600))
	if _, err := OpenBolt(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("OpenBolt of a pipe: %v", err)
	}
}

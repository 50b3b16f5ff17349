package store

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestKill kills a process that saves, again and again: every generation that
// it has acknowledged must be there, with the value that belongs to it.
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data", "tokens.db")
	sealKey := NewKey()
	stored := uint64(0)
	for round := range 20 {
		cmd := child(t, "save", path, keyEnv+"="+sealKey.Text())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := uint64(0)
		lines := bufio.NewScanner(out)
		if lines.Scan() {
			acknowledged = parseLine(t, lines.Text())
			delay := time.Duration(rand.IntN(int(30 * time.Millisecond)))
			time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
		}
		for lines.Scan() { // what was written before the kill is still in the pipe
			acknowledged = parseLine(t, lines.Text())
		}
		_ = cmd.Wait() // killed
		if acknowledged <= stored {
			t.Fatalf("round %d: the process acknowledged generation %d after %d", round, acknowledged, stored)
		}
		stored = checkKilled(t, path, sealKey, acknowledged)
	}
	t.Logf("%d generations saved", stored)
}

func parseLine(t *testing.T, line string) uint64 {
	t.Helper()
	g, err := strconv.ParseUint(line, 10, 64)
	if err != nil {
		t.Fatalf("the process wrote %q", line)
	}
	return g
}

func checkKilled(t *testing.T, path string, sealKey Key, acknowledged uint64) uint64 {
	t.Helper()
	d, err := Open(Place{Database: path})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.UseKeys(t.Context(), Keys{Current: sealKey}); err != nil {
		t.Fatal(err)
	}
	e, err := d.Load(t.Context(), killedKey)
	if err != nil {
		t.Fatal(err)
	}
	// One save may have been durable and not yet acknowledged.
	if e.Generation != acknowledged && e.Generation != acknowledged+1 {
		t.Fatalf("generation %d is stored, %d was acknowledged", e.Generation, acknowledged)
	}
	if !bytes.Equal(e.Value, savedValue(e.Generation)) {
		t.Fatalf("generation %d has another one's value", e.Generation)
	}
	return e.Generation
}

func TestSecondOpenerInAnotherProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data", "tokens.db")
	cmd := child(t, "hold", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = nil
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the other process wrote %q, %v", line, err)
	}
	_, err = openBolt(path, 200*time.Millisecond)
	wantInUse(t, err, path)

	// With the other gone it opens, also for one who waits already.
	time.AfterFunc(100*time.Millisecond, func() { _ = in.Close() })
	b, err := OpenBolt(path)
	if err != nil {
		t.Fatalf("OpenBolt after the other process let go: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// The test binary runs itself again as another process that has a store open.
const (
	childEnv = "STORE_TEST_CHILD" // what to do: hold or save
	pathEnv  = "STORE_TEST_PATH"
	keyEnv   = "STORE_TEST_KEY"
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "hold":
		err = childHold(os.Getenv(pathEnv))
	case "save":
		err = childSave(os.Getenv(pathEnv), os.Getenv(keyEnv))
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// childHold opens a store, says so, and keeps it until standard input ends.
func childHold(path string) error {
	b, err := OpenBolt(path)
	if err != nil {
		return err
	}
	fmt.Println("open")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return errors.Join(b.Close(), errors.New("done"))
}

var killedKey = oauth.Key{Account: "a", User: "killed"}

// savedValue is the value of a generation; its length changes all the time.
func savedValue(generation uint64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "generation %d;", generation), int(generation*7%300)+1)
}

// childSave saves one generation after the other, and writes its number to
// standard output only once Save has returned.
func childSave(path, keyText string) error {
	sealKey, err := ParseKey(keyText)
	if err != nil {
		return err
	}
	s, err := Open(Place{Database: path})
	if err != nil {
		return err
	}
	if err := s.UseKeys(context.Background(), Keys{Current: sealKey}); err != nil {
		return err
	}
	e, err := s.Load(context.Background(), killedKey)
	if err != nil && !errors.Is(err, oauth.ErrNotFound) {
		return err
	}
	for g := e.Generation + 1; ; g++ {
		if err := s.Save(context.Background(), killedKey, oauth.Entry{Generation: g, Value: savedValue(g)}); err != nil {
			return err
		}
		fmt.Println(g)
	}
}

func child(t *testing.T, what, path string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), append(env, childEnv+"="+what, pathEnv+"="+path)...)
	cmd.Stderr = os.Stderr
	return cmd
}

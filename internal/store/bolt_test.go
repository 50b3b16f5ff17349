package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

var testKey = oauth.Key{Account: "pagero", User: "alice"}

// newBolt opens a new store, to be closed with the test.
func newBolt(t testing.TB) *Bolt {
	t.Helper()
	return reopen(t, filepath.Join(t.TempDir(), "data", "tokens.db"))
}

func reopen(t testing.TB, path string) *Bolt {
	t.Helper()
	b, err := OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func mustSave(t testing.TB, s oauth.Store, key oauth.Key, generation uint64, value string) {
	t.Helper()
	if err := s.Save(t.Context(), key, oauth.Entry{Generation: generation, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, s oauth.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func wantValue(t testing.TB, s oauth.Store, key oauth.Key, generation uint64, value string) {
	t.Helper()
	e, err := s.Load(t.Context(), key)
	if err != nil || e.Generation != generation || string(e.Value) != value {
		t.Fatalf("Load(%q) = generation %d, %.40q, %v; want %d, %.40q", key, e.Generation, e.Value, err, generation, value)
	}
}

func wantInUse(t *testing.T, err error, path string) {
	t.Helper()
	if !errors.Is(err, oauth.ErrStoreInUse) {
		t.Fatalf("error %v, want one that wraps ErrStoreInUse", err)
	}
	for _, want := range []string{path, "only one process", "`caddy bearer` commands"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q doesn't speak of %q", err, want)
		}
	}
}

func TestBoltIsDurable(t *testing.T) {
	t.Parallel()
	b := newBolt(t)
	path := b.Path()
	gone := oauth.Key{Account: "pagero", User: "gone"}
	mustSave(t, b, testKey, 1, "one")
	mustSave(t, b, testKey, 2, "two")
	mustSave(t, b, gone, 1, "x")
	if err := b.Delete(t.Context(), gone, 1); err != nil {
		t.Fatal(err)
	}
	mustClose(t, b)

	b = reopen(t, path)
	wantValue(t, b, testKey, 2, "two")
	if _, err := b.Load(t.Context(), gone); !errors.Is(err, oauth.ErrNotFound) {
		t.Errorf("Load of what was deleted: %v", err)
	}
	mustSave(t, b, testKey, 3, "three")
}

func TestBoltSecondOpenerInThisProcess(t *testing.T) {
	t.Parallel()
	b := newBolt(t)
	mustSave(t, b, testKey, 1, "one")
	start := time.Now()
	_, err := OpenBolt(b.Path())
	wantInUse(t, err, b.Path())
	if took := time.Since(start); took < openTimeout/2 || took > openTimeout+10*time.Second {
		t.Errorf("the second opener waited %v", took)
	}
	wantValue(t, b, testKey, 1, "one")
	mustSave(t, b, testKey, 2, "two")
}

func TestBoltFirstOpenersRace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data", "tokens.db")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			b, err := OpenBolt(path)
			if err != nil {
				t.Error(err) // each lets go at once, so that nobody waits for long
				return
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

func TestBoltModes(t *testing.T) {
	t.Parallel()
	if !hasModes {
		t.Skip("no modes here")
	}
	path := filepath.Join(t.TempDir(), "new", "deep", "tokens.db")
	b := reopen(t, path)
	mustSave(t, b, testKey, 1, "one")
	for p, want := range map[string]fs.FileMode{
		path:                             0o600,
		filepath.Dir(path):               0o700 | fs.ModeDir,
		filepath.Dir(filepath.Dir(path)): 0o700 | fs.ModeDir,
	} {
		if info, err := os.Lstat(p); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v; want %v", p, info.Mode(), err, want)
		}
	}
}

func TestBoltPathIsAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir) // not parallel
	b := reopen(t, filepath.Join("data", "x", "..", "tokens.db"))
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(wd, "data", "tokens.db"); b.Path() != want {
		t.Errorf("Path() = %q, want %q", b.Path(), want)
	}
	if _, err := OpenBolt(""); err == nil {
		t.Error("an empty path was accepted")
	}
}

func TestBoltRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		say     string
		modes   bool // needs a system with modes
	}{
		{"directory", func(t *testing.T, path string) { do(t, os.Remove(path)); do(t, os.Mkdir(path, 0o700)) }, "not a regular file", false},
		{"symlink", func(t *testing.T, path string) {
			do(t, os.Rename(path, path+".real"))
			do(t, os.Symlink(path+".real", path))
		}, "symbolic link", true},
		{"dangling symlink", func(t *testing.T, path string) {
			do(t, os.Remove(path))
			do(t, os.Symlink(path+".nowhere", path))
		}, "symbolic link", true},
		{"group may read", func(t *testing.T, path string) { do(t, os.Chmod(path, 0o640)) }, "chmod 600 ", true},
		{"others may write", func(t *testing.T, path string) { do(t, os.Chmod(path, 0o602)) }, "chmod 600 ", true},
		{"group may write to directory", func(t *testing.T, path string) { do(t, os.Chmod(filepath.Dir(path), 0o770)) }, "chmod go-w ", true},
		{"others may write to directory", func(t *testing.T, path string) { do(t, os.Chmod(filepath.Dir(path), 0o1777)) }, "chmod go-w ", true},
		{"empty", func(t *testing.T, path string) { do(t, os.Truncate(path, 0)) }, "it is empty", false},
		{"another owner", func(t *testing.T, path string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			do(t, os.Chown(path, 12345, -1))
		}, "user id 12345", true},
		{"another owner of the directory", func(t *testing.T, path string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			do(t, os.Chown(filepath.Dir(path), 12345, -1))
		}, "its directory belongs to user id 12345", true},
		{"text file", func(t *testing.T, path string) {
			do(t, os.WriteFile(path, bytes.Repeat([]byte("not a database\n"), 4000), 0o600))
		}, "damaged or not a store", false},
		{"short text file", func(t *testing.T, path string) { do(t, os.WriteFile(path, []byte("hello"), 0o600)) }, "damaged or not a store", false},
		{"another program's database", func(t *testing.T, path string) {
			edit(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket(metaBucket) })
		}, "another program", false},
		{"no version", func(t *testing.T, path string) {
			edit(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(versionKey) })
		}, "another program", false},
		{"newer version", func(t *testing.T, path string) {
			edit(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(versionKey, []byte("2")) })
		}, `version "2"`, false},
		{"sessions gone", func(t *testing.T, path string) {
			edit(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket(sessionsBucket) })
		}, "damaged", false},
		{"foreign key", func(t *testing.T, path string) {
			edit(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(sessionsBucket).Put([]byte("a/b"), []byte("x")) })
		}, "damaged", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.modes && !hasModes {
				t.Skip("no modes here")
			}
			b := newBolt(t)
			mustSave(t, b, testKey, 1, "one")
			mustClose(t, b)
			test.prepare(t, b.Path())
			before := content(b.Path())
			again, err := OpenBolt(b.Path())
			if err == nil {
				mustClose(t, again)
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), test.say) || !strings.Contains(err.Error(), b.Path()) {
				t.Errorf("error %q doesn't say %q and the path", err, test.say)
			}
			if after := content(b.Path()); after != before {
				t.Errorf("the refused file was changed")
			}
		})
	}
}

func TestReadOwn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(path string) error
		says    string // empty: it is read
	}{
		"as it was made": {func(string) error { return nil }, ""},
		"read-only":      {func(path string) error { return os.Chmod(path, 0o400) }, ""},
		"for a group":    {func(path string) error { return os.Chmod(path, 0o640) }, "chmod 600 "},
		"another owner":  {func(path string) error { return os.Chown(path, 12345, -1) }, "user id 12345"},
		"link":           {func(path string) error { return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)) }, "symbolic link"},
		"directory":      {func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "not a regular file"},
		"none":           {os.Remove, "no such file"},
	} {
		if !hasModes && name != "directory" || name == "another owner" && os.Geteuid() != 0 {
			continue
		}
		path := filepath.Join(t.TempDir(), "key")
		do(t, os.WriteFile(path, []byte("key"), 0o600))
		do(t, c.prepare(path))
		text, err := ReadOwn(path)
		switch {
		case c.says == "" && (err != nil || string(text) != "key"):
			t.Errorf("%s: %q, %v", name, text, err)
		case c.says != "" && (err == nil || text != nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %q, %v; want %q", name, text, err, c.says)
		}
		if errors.Is(err, fs.ErrNotExist) != (name == "none") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// errRollback ends an edit that was only a look.
var errRollback = errors.New("roll back")

// edit changes a database behind the store's back.
func edit(t *testing.T, path string, change func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, boltOptions(time.Second))
	do(t, err)
	if err := db.Update(change); !errors.Is(err, errRollback) {
		do(t, err)
	}
	do(t, db.Close())
}

// content is what there is at a path: kind, mode, time and bytes.
func content(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	data, err := os.ReadFile(path)
	return fmt.Sprint(info.Mode(), info.ModTime(), err, string(data))
}

func TestBoltSymlinkedDirectory(t *testing.T) {
	t.Parallel()
	b := newBolt(t)
	mustSave(t, b, testKey, 1, "one")
	mustClose(t, b)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Dir(b.Path()), link); err != nil {
		t.Skip(err)
	}
	wantValue(t, reopen(t, filepath.Join(link, "tokens.db")), testKey, 1, "one")
}

func TestBoltSaveTooLong(t *testing.T) {
	t.Parallel()
	b := newBolt(t)
	mustSave(t, b, testKey, 1, "one")
	long := oauth.Key{Account: strings.Repeat("\x00", longestDBKey/2)}
	if err := b.Save(t.Context(), long, oauth.Entry{Generation: 1}); err == nil {
		t.Error("a key that is too long was saved")
	}
	big := make([]byte, longestRecord-generationSize+1)
	if err := b.Save(t.Context(), testKey, oauth.Entry{Generation: 2, Value: big}); err == nil {
		t.Error("a value that is too long was saved")
	}
	mustSave(t, b, testKey, 2, string(big[1:]))
	wantValue(t, b, testKey, 2, string(big[1:]))
	long.Account = long.Account[1:]
	mustSave(t, b, long, 1, "fits")
	wantValue(t, b, long, 1, "fits")
}

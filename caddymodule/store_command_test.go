package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// Without a confirmation nothing is adopted, and who asks is told what would
// be; of an account with users, of all that are stored.
func TestAdoptAsksFirst(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.only = []string{"code", "given"}
	r.begin()
	r.runCommand(adoptCommand(), "code", "--yes").ends(1, "nothing to adopt")
	r.runCommand(adoptCommand(), "erp", "--yes").ends(1, "nothing to adopt")
	second := r.newHost()
	r.put(r.backup(), second.db())
	r.put(r.at.key(), second.key())
	r.stop()
	r.start(second)
	r.asked(0, 0, func() {
		r.runCommand(adoptCommand(), "code").types("y\n").ends(2, "code: got ", " ago (20", "stored by another installation", "works once", "is in use elsewhere", "--yes")
		r.waits("code")
		for body, wants := range map[string]struct {
			status int
			text   string
		}{
			`{"account":"code"}`:                               {200, `{"sessions":[{"account":"code","foreign":true,"refreshed":"20`},
			`{"account":"code","confirm":false}`:               {200, `"adopted":0}`},
			`{"account":"erp"}`:                                {200, `{"sessions":[{"account":"erp","user":"ada","foreign":true,`},
			`{"account":"erp","user":"alan"}`:                  {200, `{"sessions":[{"account":"erp","user":"alan","foreign":true,`},
			`{"account":"erp","user":"nobody"}`:                {422, "nothing to adopt"},
			`{"account":"erp","user":"nobody","confirm":true}`: {422, "nothing to adopt"},
			`{"account":"code","user":"ada"}`:                  {404, "no sessions per user"},
			`{"account":"none"}`:                               {404, "caddy bearer status"},
			`{}`:                                               {404, "no such account"},
			`{"account":"code","yes":true}`:                    {400, "the body must be"},
			`code`:                                             {400, "the body must be"},
		} {
			if status, text := r.post("/bearer/adopt", body); status != wants.status || !strings.Contains(text, wants.text) {
				t.Errorf("%s: %d %s; want %d, %s", body, status, text, wants.status, wants.text)
			}
		}
		r.waits("code", "given")
		if status, text := r.post("/bearer/adopt", `{"account":"erp","confirm":true}`); status != 200 || !contains(text, `"user":"ada"`, `"user":"alan"`, `"adopted":2}`) {
			t.Errorf("%d %s", status, text)
		}
		if status, text := r.post("/bearer/adopt", `{"account":"erp","confirm":true}`); status != 422 {
			t.Errorf("a second time: %d %s", status, text)
		}
		r.waits("code", "given")
	})
	for _, args := range [][]string{{}, {"a", "b"}} {
		r.runCommand(adoptCommand(), args...).ends(2)
	}
	r.runCommand(adoptCommand(), "none", "--yes").ends(1, "no such account")
	if res, err := http.Post("http://"+r.admin+"/bearer/adopt", "text/plain", strings.NewReader(`{"account":"code","confirm":true}`)); err != nil || res.StatusCode != 400 {
		t.Errorf("a web page can ask: %v %v", res, err)
	} else {
		res.Body.Close()
	}
}

// The tokens of another identity are taken over, if somebody says so.
func TestAdoptAnotherIdentity(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.only = []string{"given"}
	r.begin()
	config := r.caddyfile()
	moved := strings.Replace(config, "grant refresh_token", "grant refresh_token\nscope read", 1)
	if err := r.load(moved); err != nil {
		t.Fatal(err)
	}
	r.settled()
	r.asked(0, 0, func() {
		if res, _ := r.call("given"); res.Header.Get(errorHeader) != "login_required" {
			t.Errorf("%s", res.Status)
		}
		r.runCommand(adoptCommand(), "given", "--yes").ends(0, "issued for client sandbox-client, server 127.0.0.1:", "which isn't what is configured now", "adopted: 1")
		r.serves("given")
	})
}

func TestAdoptionText(t *testing.T) {
	t.Parallel()
	for want, a := range map[string]adoptionJSON{
		"erp: got 1 h 0 min ago (2026-03-01T11:00:00Z), stored by another installation or before the store was restored": {
			Account: "erp", Foreign: true, Refreshed: statusNow.Add(-time.Hour)},
		"erp/ada: got at a time that isn't known, issued for client c, user u, scope a b, server h:1, which isn't what is configured now": {
			Account: "erp", User: "ada", ClientID: "c", Username: "u", Scope: "a b", Host: "h:1"},
		`"erp/\x1b[2Ja\nb": got at a time that isn't known`: {Account: "erp", User: "\x1b[2Ja\nb"},
	} {
		if got := a.describe(statusNow); got != want {
			t.Errorf("it is\n%s\nwant\n%s", got, want)
		}
	}
}

// A backup is a file of its own, for its owner, and holds no secret in clear.
func TestBackupCommand(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	dir := t.TempDir()
	file := filepath.Join(dir, "tokens.db")
	r.asked(0, 0, func() {
		r.runCommand(backupCommand(), file).ends(0, file+": a copy of the token store, ", " bytes, for its owner only",
			"copied from: "+r.at.db()+", sealed with the key in "+r.at.key(), "The key isn't in it")
	})
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 || info.Size() < 8192 {
		t.Errorf("%v %v", info, err)
	}
	before := read(t, file)
	for _, secret := range []string{"sandbox-password", "sandbox-secret", strings.TrimSpace(read(t, r.at.key()))} {
		if strings.Contains(before, secret) {
			t.Errorf("%s is in the backup", secret)
		}
	}
	r.runCommand(backupCommand(), file).ends(2, file+" is there already")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), link); err != nil {
		t.Fatal(err)
	}
	r.runCommand(backupCommand(), link).ends(2, "is there already")
	r.runCommand(backupCommand(), filepath.Join(dir, "none", "tokens.db")).ends(1, "/none/tokens.db: no such file or directory; name a file in a directory that is there")
	for _, args := range [][]string{{}, {"a", "b"}} {
		r.runCommand(backupCommand(), args...).ends(2)
	}
	if read(t, file) != before {
		t.Error("a backup was replaced")
	}
	for _, body := range []string{`[]`, `{"account":"x"}`, ``} {
		if status, text := r.post("/bearer/backup", body); status != 400 {
			t.Errorf("%q: %d %.100s", body, status, text)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Error("left behind:", left, err)
	}
	left, err = filepath.Glob(filepath.Join(os.TempDir(), "caddy-bearer-backup-*"))
	if err != nil || len(left) > 0 {
		t.Error("left behind:", left, err)
	}
}

// Who fetches a backup slowly, or not at all, holds nothing up.
func TestBackupSlowReader(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.only = []string{"robot"}
	r.begin()
	w := &stuckWriter{header: http.Header{}, written: make(chan int, 1), going: make(chan struct{})}
	req := httptest.NewRequest("POST", "/bearer/backup", strings.NewReader("{}"))
	req.Header.Set("Content-Type", "application/json")
	done := make(chan error, 1)
	go func() { done <- serveBackup(w, req) }()
	select {
	case <-w.written: // and it stays in that call
	case err := <-done:
		t.Fatal(err)
	}
	r.runCommand(refreshCommand(), "robot").ends(0)
	r.backup()
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "caddy-bearer-backup-*")); err != nil || len(left) > 0 {
		t.Error("it can be found meanwhile:", left, err)
	}
	close(w.going)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n, err := strconv.Atoi(w.header.Get("Content-Length")); err != nil || n < 8192 || n != w.n || w.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d bytes, %v", w.n, w.header)
	}
}

// A stuckWriter is an answer that nobody fetches for a while.
type stuckWriter struct {
	header  http.Header
	written chan int // gets the size of the first write
	going   chan struct{}
	n       int
}

func (w *stuckWriter) Header() http.Header { return w.header }
func (w *stuckWriter) WriteHeader(int)     {}
func (w *stuckWriter) Write(b []byte) (int, error) {
	if w.n == 0 {
		w.written <- len(b)
		<-w.going
	}
	w.n += len(b)
	return len(b), nil
}

// A copy that breaks off, or for whose name there is something by then, leaves
// what was there.
func TestWriteNew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "backup")
	broken := io.MultiReader(strings.NewReader("half"), errorReader{})
	if _, err := writeNew(file, broken); err == nil {
		t.Error("a copy that broke off is no error")
	}
	if n, err := writeNew(file, strings.NewReader("first")); err != nil || n != 5 {
		t.Error(n, err)
	}
	if _, err := writeNew(file, strings.NewReader("second")); !errors.Is(err, os.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 || read(t, file) != "first" {
		t.Error(info, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Error(entries, err)
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A plainStore is what another module may bring: no more than a Store has to be.
type plainStore struct{}

func init() { caddy.RegisterModule(&plainStore{}) }

func (*plainStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "bearer.stores.plain", New: func() caddy.Module { return new(plainStore) }}
}
func (*plainStore) PoolKey() string                        { return "plain" }
func (*plainStore) Open(context.Context) (Store, error)    { return store.NewMemory(), nil }
func (*plainStore) Configure(context.Context, Store) error { return nil }
func (*plainStore) Describe() string                       { return "a store of another module" }
func (*plainStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

// A store that can do no more than it must refuses backup and rekey, and says
// so; what can't be offered isn't half done.
func TestStoreCommandsRefused(t *testing.T) {
	for name, says := range map[string]string{"memory": "memory; the tokens are gone when the process ends", "plain": "a store of another module"} {
		t.Run(name, func(t *testing.T) {
			r := newStoreRig(t, sandbox.Config{})
			r.only = []string{"robot"}
			config := r.caddyfile()
			a := strings.Index(config, "store bbolt {")
			b := a + strings.Index(config[a:], "}") + 1
			if err := r.load(config[:a] + "store " + name + config[b:]); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.stop)
			r.settled()
			r.serves("robot")
			file := filepath.Join(t.TempDir(), "backup")
			r.runCommand(backupCommand(), file).ends(1, "not with this store: it can't copy itself ("+says+")")
			if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a file was made: %v", err)
			}
			r.runCommand(rekeyCommand()).ends(1, "not with this store: it has no key that could be changed here ("+says+")")
			r.runCommand(adoptCommand(), "robot", "--yes").ends(1, "nothing to adopt")
			for _, uri := range []string{"/bearer/backup", "/bearer/rekey"} {
				if status, text := r.post(uri, "{}"); status != 422 || !strings.Contains(text, says) {
					t.Errorf("%s: %d %s", uri, status, text)
				}
			}
			if st := r.condition(); st.StoreProblem != "" || st.StoreMended != nil {
				t.Errorf("%+v", st)
			}
		})
	}
}

// Without a bearer app there is nothing to do, and it is said.
func TestStoreCommandsWithoutApp(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	if err := r.load("{\n admin " + r.admin + "\n persist_config off\n}\nhttp://" + r.address + " {\n respond 200\n}\n"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.settled()
	for _, c := range []*commandRun{
		r.runCommand(adoptCommand(), "erp", "--yes"), r.runCommand(backupCommand(), filepath.Join(t.TempDir(), "b")), r.runCommand(rekeyCommand()),
	} {
		c.ends(1, "there is no bearer app in the configuration")
	}
}

func TestRekeyCommandUse(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.runCommand(rekeyCommand(), "erp").ends(2, "wrong number of arguments")
	r.runCommand(rekeyCommand()).ends(1, "is the server running")
}

// What is wrong with the store, and what was mended, is in the status, as text
// and as JSON; where nothing is, nothing is said of it.
func TestStatusOfStore(t *testing.T) {
	t.Parallel()
	st := statusJSON{Store: "tokens.db", StoreProblem: "the disk is full", StoreMended: []string{"this", "that"}, Accounts: []accountStatus{}}
	var out strings.Builder
	if err := writeStatus(&out, st, statusNow, false); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "\nstore: tokens.db\nstore: DEGRADED: the disk is full\nstore: mended: this\nstore: mended: that\n") {
		t.Errorf("it is\n%s", &out)
	}
	for want, st := range map[string]statusJSON{
		`{"store":"tokens.db","store_problem":"the disk is full","store_mended":["this","that"],"accounts":[]}`: st,
		`{"store":"tokens.db","accounts":[]}`: {Store: "tokens.db", Accounts: []accountStatus{}},
	} {
		if got, err := json.Marshal(st); err != nil || !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s %v, want %s", got, err, want)
		}
	}
}

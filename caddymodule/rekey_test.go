package caddymodule

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// F49: rekey interrupted. Expected: both keys still read. Best: 0. Each state
// of the key file and of the entries that an end at any moment can leave is
// played by hand; then a cut after each single step.
func TestF49RekeyInterrupted(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	if text := read(t, r.at.key()); strings.Count(text, "\n") != 1 {
		t.Fatalf("the key file has %d lines", strings.Count(text, "\n"))
	}
	states := 0
	for _, state := range []struct {
		name     string
		oldAlone bool // the key file doesn't have the new key yet
		newAlone bool // nor any more the old one
		resealed int  // entries; -1: all
	}{
		{name: "the new key isn't kept", oldAlone: true},
		{name: "the new key is kept"},
		{name: "one entry is sealed with it", resealed: 1},
		{name: "half of the entries are", resealed: 3},
		{name: "all entries are", resealed: -1},
		{name: "the former key is dropped", resealed: -1, newAlone: true},
	} {
		for _, rekeyed := range []bool{false, true} {
			r.stop()
			former, next := r.playRekey(state.resealed)
			lines := append([]string{next}, former...)
			if state.oldAlone {
				lines = former
			}
			if state.newAlone {
				lines = lines[:1]
			}
			r.keep(lines...)
			r.asked(0, 0, func() {
				r.start(r.at)
				r.serves(storeAccounts...)
				if !rekeyed {
					return
				}
				r.runCommand(rekeyCommand()).ends(0, "entries are sealed with a new key, which is in "+r.at.key())
				r.serves(storeAccounts...)
				kept := strings.Fields(read(t, r.at.key()))
				if len(kept) != 1 || slices.Contains(former, kept[0]) || (kept[0] == next) != (len(lines) > 1) {
					t.Errorf("%s: after a rekey of %d keys there are %d; a former one: %v, that of the rekey before: %v",
						state.name, len(lines), len(kept), slices.Contains(former, kept[0]), kept[0] == next)
				}
				r.restart()
				r.serves(storeAccounts...)
			})
			r.asked(0, 1, func() { r.runCommand(refreshCommand(), "once").ends(0) }) // what is saved now can be read, too
			states++
		}
	}
	cuts := rekeyCuts(t)
	measured(t, 49, 0, "%d states of key file and entries: all accounts serve after a start, 0 token requests, another rekey finishes; %d cuts after single steps: every entry can be read", states, cuts)
}

// playRekey seals entries of the store, which isn't open, with a new key as a
// rekey does, and returns the keys from before and the new one.
func (r *storeRig) playRekey(resealed int) (former []string, next string) {
	r.Helper()
	kept, err := parseKeys(read(r.T, r.at.key()))
	if err != nil {
		r.Fatal(err)
	}
	keys := store.Keys{Current: store.NewKey(), Old: append([]store.Key{kept.Current}, kept.Old...)}
	d := r.open(keys)
	for left := 0; resealed != 0; left++ {
		n, err := d.Reseal(&countdown{Context: r.Context(), left: left})
		if n == resealed || resealed < 0 && err == nil {
			break
		}
		if n > resealed && resealed > 0 {
			r.Fatalf("%d entries are sealed anew, want %d", n, resealed)
		}
	}
	if err := d.Close(); err != nil {
		r.Fatal(err)
	}
	return strings.Fields(read(r.T, r.at.key())), keys.Current.Text()
}

func (r *storeRig) open(keys store.Keys) *store.Durable {
	r.Helper()
	d, err := store.Open(store.Place{Database: r.at.db(), Instance: filepath.Dir(r.at.key())})
	if err == nil {
		err = d.UseKeys(r.Context(), keys)
	}
	if err != nil {
		r.Fatal(err)
	}
	return d
}

// keep writes the key file.
func (r *storeRig) keep(lines ...string) {
	r.Helper()
	if err := os.WriteFile(r.at.key(), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		r.Fatal(err)
	}
}

// A countdown is a context that ends when it was asked so often.
type countdown struct {
	context.Context
	mu   sync.Mutex
	left int
}

func (c *countdown) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return context.Canceled
	}
	c.left--
	return nil
}

// rekeyCuts breaks a rekey off at its first step, its second and so on until
// one succeeds, each time with the same process going on, with a start after
// it, and with another rekey, and returns how many there were.
func rekeyCuts(t *testing.T) (cuts int) {
	t.Helper()
	for left := 0; ; left++ {
		t.Setenv("XDG_CONFIG_HOME", t.TempDir())
		b := &BoltStore{place: store.Place{Database: filepath.Join(t.TempDir(), "s", "tokens.db"), Instance: t.TempDir()}, log: slog.New(slog.DiscardHandler)}
		b.place.Spill = b.place.Database + ".spill"
		s, err := b.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := map[oauth.Key]string{}
		for _, user := range []string{"", "ada", "alan", "root"} {
			key := oauth.Key{Account: "erp", User: user}
			for g := uint64(1); g <= 2; g++ {
				if err := s.Save(t.Context(), key, oauth.Entry{Generation: g, Value: []byte("tokens of " + user)}); err != nil {
					t.Fatal(err)
				}
			}
			want[key] = "tokens of " + user
		}
		_, cut := b.Rekey(&countdown{Context: t.Context(), left: left}, s)
		if cut != nil && !errors.Is(cut, context.Canceled) {
			t.Fatal(cut)
		}
		reads := func(when string) {
			t.Helper()
			for key, value := range want {
				if e, err := s.Load(t.Context(), key); err != nil || string(e.Value) != value || e.Generation != 2 {
					t.Errorf("a cut at step %d, %s: %s: %q, generation %d, %v", left, when, key, e.Value, e.Generation, err)
				}
			}
		}
		reads("at once")
		for _, again := range []bool{false, true} {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = b.Open(t.Context()); err != nil {
				t.Fatalf("a cut at step %d: %v", left, err)
			}
			reads("after a start")
			if !again {
				if _, err := b.Rekey(t.Context(), s); err != nil {
					t.Fatalf("after a cut at step %d: %v", left, err)
				}
			}
		}
		if text := read(t, keyFile()); strings.Count(text, "\n") != 1 {
			t.Errorf("a cut at step %d leaves %d keys after another rekey", left, strings.Count(text, "\n"))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if cut == nil {
			return left
		}
	}
}

// Neither a rekey nor anything that is saved meanwhile is lost where both run
// at the same time, nor is a reload in between.
func TestRekeyWhileSaving(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	app, err := running()
	if err != nil {
		t.Fatal(err)
	}
	s, err := app.shared.sessions.Session(t.Context(), oauth.Key{Account: "robot"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			if err := s.Refresh(context.Background()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	config := r.caddyfile()
	work.Go(func() {
		for ctx.Err() == nil {
			if err := r.load(config + "\n# again\n"); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 3 { // at the same time: they come one after the other
		work.Go(func() {
			for range 4 {
				if _, err := app.shared.rekey(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	keys := map[string]bool{}
	for len(keys) < 3 && ctx.Err() == nil {
		if text, err := os.ReadFile(r.at.key()); err == nil {
			keys[strings.TrimSpace(string(text))] = true
		} else if errors.Is(err, fs.ErrNotExist) {
			t.Error("there was no key file for a moment")
			break
		}
	}
	cancel()
	work.Wait()
	if text := read(t, r.at.key()); strings.Count(text, "\n") != 1 {
		t.Errorf("the key file has %d lines", strings.Count(text, "\n"))
	}
	r.stop()
	r.asked(0, 0, func() {
		r.start(r.at)
		r.serves(storeAccounts...)
	})
}

// A store with a configured key is sealed with that; then old_key can go.
func TestRekeyConfiguredKey(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	kept := strings.TrimSpace(read(t, r.at.key()))
	next := store.NewKey().Text()
	r.secret("old", kept)
	r.secret("new", next)
	plain := r.caddyfile()
	with := func(lines string) string {
		return strings.Replace(plain, "path "+r.at.db(), "path "+r.at.db()+"\n"+strings.ReplaceAll(lines, "DIR", r.dir), 1)
	}
	if err := r.load(with("key {file.DIR/new}\nold_key {file.DIR/old}")); err != nil {
		t.Fatal(err)
	}
	r.settled()
	if err := r.load(with("key {file.DIR/new}")); err == nil {
		t.Error("old_key could go before anything was sealed anew")
	}
	r.asked(0, 0, func() {
		r.runCommand(rekeyCommand()).ends(0, "6 entries are sealed with the configured key; old_key isn't needed any more")
		if err := r.load(with("key {file.DIR/new}")); err != nil {
			t.Error(err)
		}
		r.settled()
		r.serves(storeAccounts...)
	})
	if got := strings.TrimSpace(read(t, r.at.key())); got != kept {
		t.Error("the kept key was changed")
	}
}

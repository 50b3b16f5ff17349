package caddymodule

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// The database alone is restored, the spill stays: what is newer there heals
// the database, and nothing has to be adopted.
func TestRestoreBesideTheSpill(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	old := r.backup()
	for _, name := range []string{"code", "given", "once", "robot", "erp/ada"} {
		r.runCommand(refreshCommand(), name).ends(0)
	}
	r.stop()
	r.remove(r.at.db())
	r.put(old, r.at.db())
	r.start(r.at)
	r.asked(0, 5, func() {
		r.serves(storeAccounts...)
		for _, name := range []string{"code", "given", "once", "robot", "erp/ada"} {
			r.runCommand(refreshCommand(), name).ends(0)
		}
	})
	if m := strings.Join(r.condition().StoreMended, "\n"); !contains(m, "restored from the spill") {
		t.Errorf("the operator is told %q", m)
	}
}

// A container whose configuration directory isn't kept: the key is gone with
// the marker, and nothing is started, changed or lost.
func TestConfigurationDirectoryLost(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	kept := r.at
	r.stop()
	before := read(t, kept.db())
	lost := host{r.TempDir(), kept.data}
	r.Setenv("XDG_CONFIG_HOME", lost.config)
	r.at = lost
	if err := r.load(r.caddyfile()); err == nil || !contains(err.Error(), lost.key(), "is gone", "spill") {
		t.Errorf("without the key: %v", err)
	}
	if read(t, kept.db()) != before {
		t.Error("a refused start changed the store")
	}
	r.asked(0, 0, func() {
		r.start(kept)
		r.serves(storeAccounts...)
	})
}

// A store that moves with its marker and its key is where it was: nothing is
// asked, nothing has to be adopted.
func TestMovedStore(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	first, second := r.at, r.newHost()
	r.stop()
	r.put(first.db(), second.db())
	r.put(first.spill(), second.spill())
	files, err := filepath.Glob(filepath.Join(filepath.Dir(first.key()), "*"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		r.put(file, filepath.Join(filepath.Dir(second.key()), filepath.Base(file)))
	}
	r.asked(0, 1, func() {
		r.start(second)
		r.serves(storeAccounts...)
		r.runCommand(refreshCommand(), "code").ends(0)
		if st := r.condition(); st.StoreMended != nil || st.StoreProblem != "" {
			t.Errorf("%+v", st)
		}
	})
}

// Without database and spill it is a new store; without one of them, it is the
// old one.
func TestStartAnew(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	for _, file := range []string{r.at.db(), r.at.spill()} {
		r.stop()
		r.remove(file)
		r.asked(0, 0, func() {
			r.start(r.at)
			r.serves(storeAccounts...)
		})
	}
	r.stop()
	r.remove(r.at.db(), r.at.spill())
	r.asked(2, 0, func() { // robot and once
		r.start(r.at)
		r.serves("robot", "once")
		r.runCommand(statusCommand(), "code").ends(3, "nobody has logged in yet")
	})
}

// The files are where the configuration says, and a reload doesn't move them.
func TestStorePlaces(t *testing.T) {
	t.Setenv("VALIDATE_USERNAME", "someone")
	validateAll(t, validateConfig, []validation{
		{name: "all", caddyfile: []string{"store memory", "store bbolt {\n path DIR/tokens.db\n spill DIR/other/tokens\n instance DIR\n allow_network_fs\n}"}},
		{name: "placeholder", caddyfile: []string{"store memory", "store bbolt {\n spill {env.VALIDATE_USERNAME}/spill\n}"}},
		{name: "spill is the database", caddyfile: []string{"store memory", "store bbolt {\n path DIR/tokens.db\n spill DIR/sub/../tokens.db\n}"},
			wants: []string{"store spill: it is the database", "a path of its own"}},
		{name: "no such variable", caddyfile: []string{"store memory", "store bbolt {\n spill {env.NOT_THERE}/spill\n}"}, wants: []string{"store spill: ", "NOT_THERE"}},
		{name: "no such placeholder", caddyfile: []string{"store memory", "store bbolt {\n instance {nothing}\n}"}, wants: []string{"store instance: ", "nothing"}},
	}, map[string]string{"client_secret": "x-secret", "password": "x-password"})

	r := newStoreRig(t, sandbox.Config{})
	r.only = []string{"robot"}
	dir, instance := t.TempDir(), t.TempDir()
	config := strings.Replace(r.caddyfile(), "path "+r.at.db(), "path "+r.at.db()+"\nspill "+dir+"/sub/spill\ninstance "+instance, 1)
	r.Setenv("XDG_CONFIG_HOME", r.at.config)
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.settled()
	r.serves("robot")
	for _, pattern := range []string{dir + "/sub/spill", instance + "/*.instance"} {
		if files, err := filepath.Glob(pattern); err != nil || len(files) != 1 {
			t.Errorf("%s: %q %v", pattern, files, err)
		}
	}
	for _, changed := range []string{strings.Replace(config, dir+"/sub/spill", dir+"/spill", 1), strings.Replace(config, "instance "+instance, "", 1)} {
		if err := r.load(changed); err == nil || !contains(err.Error(), dir+"/sub/spill", instance, "a reload can't change them") {
			t.Errorf("a reload with other files: %v", err)
		}
	}
	r.settled()
	r.asked(0, 0, func() { r.serves("robot") })
}

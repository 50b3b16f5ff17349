package caddymodule

import (
	"context"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// F14: store restored from an old backup. Expected: the mismatch is noticed;
// one consented probe; otherwise a new login; no loops. Best: 2 with a
// password, 3 without.
func TestF14StoreRestoredFromOldBackup(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	old := r.backup()
	for _, name := range []string{"code", "once", "robot", "erp/ada"} { // not given: its token in the backup is still the last
		r.runCommand(refreshCommand(), name).ends(0, name+" has a new token")
	}
	r.stop()
	r.remove(r.at.db(), r.at.spill())
	r.put(old, r.at.db())

	r.asked(1, 0, func() { // robot's, and nothing else whoever calls
		r.start(r.at)
		for range 20 {
			r.serves("robot")
			r.waits("code", "given", "once")
		}
		if got := r.browser("ada").whose(); got != "" {
			t.Errorf("the copy serves %q", got)
		}
		if m := strings.Join(r.condition().StoreMended, "\n"); !contains(m, "older than what was written here last", "caddy bearer adopt") {
			t.Errorf("the operator is told %q", m)
		}
		r.restart() // the second start knows it still
		r.waits("code", "given", "once")
		r.runCommand(adoptCommand(), "robot", "--yes").ends(1, "nothing to adopt") // it has its own by now
	})
	for _, name := range []string{"code", "once", "erp/ada"} {
		r.asked(0, 0, func() { r.runCommand(adoptCommand(), name, "--yes").ends(0, "adopted: 1") })
		r.asked(0, 1, func() {
			r.runCommand(refreshCommand(), name).ends(3, "login_required")
			for range 20 {
				if r.sites[name] == "" {
					break
				}
				// The refusal ended the stored access token as well, at the server.
				if res, _ := r.call(name); res.StatusCode != 401 && res.StatusCode != 503 {
					t.Errorf("%s: %s", name, res.Status)
				}
			}
		})
		r.runCommand(adoptCommand(), name, "--yes").ends(1, "nothing to adopt")
	}
	r.asked(0, 0, func() { r.runCommand(adoptCommand(), "given", "--yes").ends(0, "adopted: 1") })
	r.asked(0, 1, func() {
		r.runCommand(refreshCommand(), "given").ends(0)
		r.serves("given")
	})
	measured(t, 14, 3, "0 token requests before adopt, 1 probe each after it; password: 1 login by itself (severity 2); "+
		"a token that was not spent since: works on after adopt; the others: login_required, no loop")
}

// restart keeps the host.
func (r *storeRig) restart() {
	r.Helper()
	r.stop()
	r.start(r.at)
}

// F16: store copied to a second host. Expected: the marker, which is outside of
// the store, differs; nothing is used until `adopt`. Best: 0.
func TestF16StoreCopiedToSecondHost(t *testing.T) {
	for name, carry := range map[string]func(r *storeRig, to host){
		"files of a stopped server": func(r *storeRig, to host) {
			r.stop()
			r.put(r.at.db(), to.db())
			r.put(r.at.spill(), to.spill())
		},
		"backup": func(r *storeRig, to host) {
			r.put(r.backup(), to.db())
			r.stop()
		},
		"spill alone": func(r *storeRig, to host) {
			r.stop()
			r.put(r.at.spill(), to.spill())
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newStoreRig(t, sandbox.Config{})
			r.only = []string{"code", "given", "once"}
			r.begin()
			first, second := r.at, r.newHost()
			carry(r, second)
			r.put(first.key(), second.key())

			r.asked(0, 0, func() {
				r.start(second)
				for range 5 {
					r.waits(r.only...)
				}
				if m := strings.Join(r.condition().StoreMended, "\n"); !contains(m, "another installation", "caddy bearer adopt") {
					t.Errorf("the operator is told %q", m)
				}
				r.runCommand(statusCommand()).ends(3, "store: mended: ", "another installation", "caddy bearer adopt")
				r.restart()
				r.waits(r.only...)
				r.runCommand(refreshCommand(), "once").ends(3, "caddy bearer adopt")
				r.stop()
			})
			r.start(first)
			r.asked(0, 3, func() { // the first host's tokens are as good as ever
				r.serves(r.only...)
				for _, name := range []string{"once", "given", "erp/ada"} {
					r.runCommand(refreshCommand(), name).ends(0)
				}
				r.serves(r.only...)
			})
			r.stop()

			r.start(second) // now it moves for good, or so its operator believes
			r.asked(0, 0, func() {
				r.runCommand(adoptCommand(), "code", "--yes").ends(0, "adopted: 1")
				r.runCommand(adoptCommand(), "once", "--yes").ends(0, "adopted: 1")
				r.waits("given") // each on its own
			})
			r.asked(0, 1, func() { r.runCommand(refreshCommand(), "code").ends(0) })
			r.asked(0, 1, func() { r.runCommand(refreshCommand(), "once").ends(3) })
			r.asked(0, 0, func() { r.serves("code"); r.restart(); r.serves("code") })
		})
	}
	measured(t, 16, 0, "copied as files, as a backup and as the spill alone: 0 token requests by the copy until adopt, then exactly 1 each; 3 of 3 accounts of the first host refresh on")
}

// An account that can sign in alone does so once on the second host, and leaves
// the first one's tokens alone.
func TestCopiedStoreSignsIn(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.only = []string{"robot"}
	r.begin()
	first, second := r.at, r.newHost()
	r.put(r.backup(), second.db())
	r.put(first.key(), second.key())
	r.stop()
	r.asked(1, 0, func() {
		r.start(second)
		r.serves("robot", "robot")
		r.restart()
		r.serves("robot")
		r.stop()
	})
	r.start(first)
	r.asked(0, 1, func() {
		r.serves("robot")
		r.runCommand(refreshCommand(), "robot").ends(0)
	})
}

// Backups that are made while the store is written are whole: each opens
// elsewhere, asks nobody until somebody adopts, and then serves.
func TestBackupWhileSaving(t *testing.T) {
	r := newStoreRig(t, sandbox.Config{})
	r.begin()
	robot, err := running()
	if err != nil {
		t.Fatal(err)
	}
	s, err := robot.shared.sessions.Session(t.Context(), oauth.Key{Account: "robot"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	saved, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		defer close(saved)
		for ctx.Err() == nil {
			if err := s.Refresh(context.Background()); err != nil {
				t.Error(err)
				return
			}
			select {
			case saved <- struct{}{}:
			default:
			}
		}
	}()
	var files []string
	for range 5 {
		<-saved // one more save for each, however slow the machine is
		files = append(files, r.backup())
	}
	cancel()
	<-done
	first := r.at
	r.stop()
	for i, file := range files {
		h := r.newHost()
		r.put(file, h.db())
		r.put(first.key(), h.key())
		r.asked(1, 0, func() {
			r.start(h)
			r.serves("robot") // alone it signs in
			r.waits("code", "given", "once")
		})
		if i < len(files)-1 {
			r.stop()
			continue
		}
		r.asked(0, 3, func() {
			for _, name := range []string{"code", "given", "once"} {
				r.runCommand(adoptCommand(), name, "--yes").ends(0, "adopted: 1")
				r.runCommand(refreshCommand(), name).ends(0)
				r.serves(name)
			}
		})
		r.asked(0, 2, func() {
			r.runCommand(adoptCommand(), "erp", "--yes").ends(0, "erp/ada: got ", "erp/alan: got ", "adopted: 2")
			for _, user := range []string{"ada", "alan"} {
				r.runCommand(refreshCommand(), "erp/"+user).ends(0)
				if got := r.browser(user).whose(); got != idpUser(user) {
					t.Errorf("%s has the token of %q", user, got)
				}
			}
		})
	}
}

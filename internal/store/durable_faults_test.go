package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// damageNewestMeta makes bbolt step back by one transaction at its next opening.
func damageNewestMeta(t *testing.T, path string, newest int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(make([]byte, 64), int64(newest%2)*int64(os.Getpagesize())+16)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func newestTx(t *testing.T, db *bbolt.DB) (txid int) {
	t.Helper()
	if err := db.View(func(tx *bbolt.Tx) error { txid = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return txid
}

// A deleted session doesn't come back by the meta page before the last.
func TestDeletedStaysDeletedAfterAStepBack(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	key, newest := fiveKeys()[2], 0
	r.with(func(d *Durable) {
		r.fill(d)
		do(t, d.Delete(t.Context(), key, 3))
		newest = newestTx(t, d.bolt.file.db)
	})
	damageNewestMeta(t, r.place.Database, newest)
	r.with(func(d *Durable) {
		if e, err := d.Load(t.Context(), key); !errors.Is(err, oauth.ErrNotFound) {
			t.Errorf("generation %d is back: %v", e.Generation, err)
		}
	})
}

// bbolt steps back while the store is open: the spent generation isn't loaded.
func TestStepBackWhileOpen(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	d := r.open()
	defer d.Close()
	r.fill(d)
	key := fiveKeys()[4] // saved last
	damageNewestMeta(t, r.place.Database, newestTx(t, d.bolt.file.db))
	d.bolt.doubt.raise(0) // as after any error of bbolt
	r.want(d, key, 3, valueOf(key, 3))
	mustSave(t, d, key, 4, "next")
}

// A login after a logout begins with generation 1 again; it is newer than what
// an older copy of either file has, however high the generation there.
func TestNewLoginWinsOverAnOlderFile(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]func(Place) string{
		"database": func(p Place) string { return p.Database },
		"spill":    func(p Place) string { return p.Spill },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newDurableRig(t)
			key := fiveKeys()[2]
			r.with(r.fill)
			older := mustRead(t, path(r.place))
			r.with(func(d *Durable) {
				do(t, d.Delete(t.Context(), key, 3))
				mustSave(t, d, key, 1, "new login")
			})
			r.write(path(r.place), older)
			for range 2 {
				r.with(func(d *Durable) { r.want(d, key, 1, "new login") })
			}
		})
	}
}

// The spill's disk is away at a start, and back later.
func TestSpillAwayAtTheStart(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	r.with(r.fill)
	away := filepath.Join(t.TempDir(), "away")
	r.write(away, nil)
	good := r.place.Spill
	r.place.Spill = filepath.Join(away, "spill") // below a file: not a directory
	d := r.open()
	defer d.Close()
	r.wantFull(d)
	if r.problem() == "" {
		t.Error("nobody is told")
	}
	mustSave(t, d, fiveKeys()[0], 4, "next")
	d.mu.Lock()
	d.place.Spill = good
	d.mu.Unlock()
	d.mendLater()
	if r.problem() != "" {
		t.Errorf("problem %q", r.problem())
	}
	r.want(d, fiveKeys()[0], 4, "next")
}

// What retries waits for the keys.
func TestMendingBeforeTheKeys(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	r.with(r.fill)
	good := r.place.Spill
	do(t, os.Remove(good))
	r.place.Spill = "/proc/nothing/spill"
	d, err := Open(r.place)
	do(t, err)
	defer d.Close()
	if d.health.timer != nil {
		t.Error("it mends before it has keys")
	}
	d.place.Spill = good
	do(t, d.UseKeys(t.Context(), r.keys))
	r.wantFull(d)
}

// The spill is removed while the store is open.
func TestSpillGoneWhileOpen(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	d := r.open()
	defer d.Close()
	r.fill(d)
	do(t, os.Remove(r.place.Spill))
	d.spill.mu.Lock()
	d.spill.doubt = true // as after any error
	d.spill.mu.Unlock()
	mustSave(t, d, fiveKeys()[0], 4, "next")
	d.mendLater()
	if r.problem() != "" {
		t.Errorf("problem %q", r.problem())
	}
	if n := len(d.spill.keys()); n != 5 {
		t.Errorf("the new spill has %d sessions", n)
	}
}

// The database is damaged while open and can't be made anew at once: a file is
// in the way of its directory. It goes on with the spill and recovers alone.
func TestRepairThatFailsAtFirst(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	r.place.Spill = filepath.Join(t.TempDir(), "other", "spill")
	d := r.open()
	defer d.Close()
	r.fill(d)
	dir := filepath.Dir(r.place.Database)
	do(t, os.Truncate(r.place.Database, 0))
	do(t, os.Rename(dir, dir+".away"))
	r.write(dir, []byte("in the way"))
	d.bolt.doubt.raise(0)
	for range 2 {
		mustSave(t, d, fiveKeys()[0], d.spill.images(fiveKeys()[0])[0].generation+1, "next")
		d.mendLater()
	}
	if r.problem() == "" {
		t.Error("nobody is told")
	}
	do(t, os.Remove(dir))
	do(t, os.Rename(dir+".away", dir))
	d.mendLater()
	if r.problem() != "" {
		t.Errorf("problem %q", r.problem())
	}
	if _, err := d.Load(t.Context(), oauth.Key{Account: "new"}); !errors.Is(err, oauth.ErrNotFound) {
		t.Errorf("a new session: %v", err)
	}
	r.want(d, fiveKeys()[0], 5, "next")
}

// A disk that fails isn't a conflict, whatever the other file says.
func TestBrokenDiskIsNoConflict(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	d := r.open()
	defer d.Close()
	key := fiveKeys()[0]
	mustSave(t, d, key, 1, "one")
	do(t, d.spill.save(image{key: key, generation: 1 << 60, sequence: 99, value: []byte("planted")}))
	do(t, os.Truncate(r.place.Database, 0))
	d.bolt.doubt.raise(0)
	if err := d.Save(t.Context(), key, oauth.Entry{Generation: 2, Value: []byte("two")}); err == nil || errors.Is(err, oauth.ErrConflict) {
		t.Errorf("Save: %v", err)
	}
}

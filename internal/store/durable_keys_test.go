package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// wantRefused checks that keys don't fit a store, and what is said of that.
func (r *durableRig) wantRefused(d *Durable, keys Keys, say ...string) {
	r.Helper()
	err := d.UseKeys(r.Context(), keys)
	if !errors.Is(err, oauth.ErrUnreadable) {
		r.Fatalf("UseKeys: %v; want an error that wraps ErrUnreadable", err)
	}
	for _, want := range say {
		if !strings.Contains(err.Error(), want) {
			r.Errorf("error %q doesn't say %q", err, want)
		}
	}
}

func TestKeysChangeWhileOpen(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	d := r.open()
	defer d.Close()
	other := oauth.Key{Account: "other"}
	oldKey, newKey := r.keys.Current, NewKey()
	mustSave(t, d, testKey, 1, "one")
	mustSave(t, d, other, 1, "o")

	r.wantRefused(d, Keys{Current: newKey}, "2 of 2", "sealed with another key (id "+oldKey.ID()+")", "old_key")
	r.want(d, testKey, 1, "one") // with the keys from before
	mustSave(t, d, testKey, 2, "two")

	do(t, d.UseKeys(t.Context(), Keys{Current: newKey, Old: []Key{NewKey(), oldKey}}))
	r.want(d, testKey, 2, "two")
	mustSave(t, d, testKey, 3, "three") // with the new key
	r.want(d, testKey, 3, "three")
	r.wantRefused(d, Keys{Current: newKey}, "1 of 2", oldKey.ID())

	do(t, d.Delete(t.Context(), other, 1))
	do(t, d.UseKeys(t.Context(), Keys{Current: newKey}))
	r.want(d, testKey, 3, "three")
}

func TestNoKey(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	d, err := Open(r.place)
	do(t, err)
	defer d.Close()
	if _, err := d.Load(t.Context(), testKey); err == nil || errors.Is(err, oauth.ErrNotFound) {
		t.Errorf("Load before UseKeys: %v", err)
	}
	for range 2 { // before UseKeys, and with no key
		if err := d.Save(t.Context(), testKey, oauth.Entry{Generation: 1, Value: []byte("x")}); err == nil {
			t.Fatal("Save without a key gave no error")
		}
		if empty, err := d.Empty(t.Context()); err != nil || !empty {
			t.Error("Save without a key saved")
		}
		do(t, d.UseKeys(t.Context(), Keys{}))
	}
	do(t, d.UseKeys(t.Context(), r.keys))
	mustSave(t, d, testKey, 1, "x")
	r.wantRefused(d, Keys{}, "1 of 1", r.keys.Current.ID())
	r.want(d, testKey, 1, "x")
}

// Entries that the key fits, and that can't be read nevertheless: they stay as
// they are until somebody deletes them. Only what no key fits keeps the store
// from being opened.
func TestUnreadableEntries(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	r.with(r.fill)
	keys := fiveKeys()
	bad := map[oauth.Key]uint64{keys[0]: 3, keys[1]: 3, keys[2]: 4, keys[3]: 3} // generations as they are told
	inBolt(t, r.place.Database, func(b *bbolt.Bucket) error {
		records := make([][]byte, len(keys))
		for i, key := range keys {
			records[i] = bytes.Clone(b.Get(encodeKey(key)))
		}
		copy(records[1], records[4])                          // another session's
		records[0][len(records[0])-1] ^= 1                    // a bit
		records[2][generationSize-1] = 4                      // another generation
		records[3] = records[3][:generationSize+headerSize+3] // cut
		var errs []error
		for i, key := range keys {
			errs = append(errs, b.Put(encodeKey(key), records[i]))
		}
		return errors.Join(errs...)
	})
	before := records(t, r.place.Database)
	do(t, os.Remove(r.place.Spill)) // it has them all
	r.with(func(d *Durable) {
		for _, key := range keys[:4] {
			if e, err := d.Load(t.Context(), key); !errors.Is(err, oauth.ErrUnreadable) || e.Value != nil || e.Generation != bad[key] {
				t.Errorf("%q: Load gave generation %d, %q, %v", key, e.Generation, e.Value, err)
			}
		}
		r.want(d, keys[4], 3, valueOf(keys[4], 3))
	})
	if after := records(t, r.place.Database); !slices.Equal(after, before) {
		t.Error("entries that can't be read were changed")
	}

	plant(t, r.place.Database, oauth.Key{Account: "half"}, "\x01"+string(make([]byte, 100)))
	plant(t, r.place.Database, oauth.Key{Account: "clear"}, "never sealed: s3cret")
	d, err := Open(r.place)
	do(t, err)
	do(t, d.UseKeys(t.Context(), r.keys))
	_, err = d.Load(t.Context(), oauth.Key{Account: "clear"})
	if !errors.Is(err, oauth.ErrUnreadable) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("an entry that isn't sealed: %v", err)
	}
	if n, err := d.Reseal(t.Context()); n != 1 || err != nil {
		t.Errorf("Reseal among damaged entries: %d, %v", n, err)
	}
	mustClose(t, d)
	plant(t, r.place.Database, oauth.Key{Account: "clear"}, "\x02of a release to come")
	d, err = Open(r.place)
	do(t, err)
	r.wantRefused(d, r.keys, "1 of 7", "newer release")
	mustClose(t, d)

	inBolt(t, r.place.Database, func(b *bbolt.Bucket) error { return b.Delete(encodeKey(oauth.Key{Account: "clear"})) })
	r.with(func(d *Durable) {
		for _, key := range keys[:4] {
			if err := d.Delete(t.Context(), key, bad[key]-1); !errors.Is(err, oauth.ErrConflict) {
				t.Errorf("%q: Delete of another generation: %v", key, err)
			}
			do(t, d.Delete(t.Context(), key, bad[key]))
			mustSave(t, d, key, 1, "anew")
			r.want(d, key, 1, "anew")
		}
	})
}

// plant puts a value into a database as generation 1.
func plant(t *testing.T, path string, key oauth.Key, value string) {
	t.Helper()
	inBolt(t, path, func(b *bbolt.Bucket) error {
		return b.Put(encodeKey(key), append([]byte{0, 0, 0, 0, 0, 0, 0, 1}, value...))
	})
}

// records are all records of a database, as text.
func records(t *testing.T, path string) (list []string) {
	t.Helper()
	inBolt(t, path, func(b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error { list = append(list, fmt.Sprintf("%q: %x", k, v)); return nil })
	})
	return list
}

// Only a store that is empty may get a new key.
func TestEmpty(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	r.with(func(d *Durable) {
		r.wantEmpty(d, true)
		mustSave(t, d, testKey, 1, "x")
		r.wantEmpty(d, false)
		do(t, d.Delete(t.Context(), testKey, 1))
		r.wantEmpty(d, true)
		mustSave(t, d, testKey, 1, "x")
	})
	unkeyed := func() {
		t.Helper()
		d, err := Open(r.place)
		do(t, err)
		r.wantEmpty(d, false)
		mustClose(t, d)
		if err := d.UseKeys(t.Context(), r.keys); !errors.Is(err, oauth.ErrStoreClosed) {
			t.Errorf("UseKeys after Close: %v", err)
		}
		if empty, err := d.Empty(t.Context()); !errors.Is(err, oauth.ErrStoreClosed) || empty {
			t.Errorf("Empty after Close: %v, %v", empty, err)
		}
	}
	unkeyed()
	do(t, os.Remove(r.place.Database))
	unkeyed() // the spill has it
	r.with(func(d *Durable) { r.want(d, testKey, 1, "x") })
	do(t, os.Remove(r.place.Spill))
	plant(t, r.place.Database, testKey, "not sealed")
	unkeyed() // it counts, readable or not
}

func (r *durableRig) wantEmpty(d *Durable, want bool) {
	r.Helper()
	if empty, err := d.Empty(r.Context()); err != nil || empty != want {
		r.Errorf("Empty() = %v, %v; want %v", empty, err, want)
	}
}

// TestKeysInUse is for the race detector, and checks that no call sees half of
// a change.
func TestKeysInUse(t *testing.T) {
	t.Parallel()
	r := newDurableRig(t)
	a, b := r.keys.Current, NewKey()
	r.keys.Old = []Key{b}
	d := r.open()
	defer d.Close()
	done := make(chan struct{})
	var swaps sync.WaitGroup
	swaps.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				err := d.UseKeys(t.Context(), Keys{Current: b, Old: []Key{a}})
				if err = errors.Join(err, d.UseKeys(t.Context(), Keys{Current: a, Old: []Key{b}})); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	var users sync.WaitGroup
	for i := range 4 {
		users.Go(func() {
			key := oauth.Key{Account: "a", User: fmt.Sprint(i)}
			for g := uint64(1); g <= 20; g++ {
				if err := d.Save(t.Context(), key, oauth.Entry{Generation: g, Value: []byte("v")}); err != nil {
					t.Error(err)
				}
				for range 10 {
					r.want(d, key, g, "v")
				}
			}
		})
	}
	users.Wait()
	close(done)
	swaps.Wait()
}

package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// grown returns the path and the bytes of a closed store with a tree of
// several pages, and free ones.
func grown(t *testing.T) (path string, data []byte) {
	t.Helper()
	b := newBolt(t)
	for i := range 60 {
		mustSave(t, b, oauth.Key{Account: "a", User: fmt.Sprint(i)}, 1, string(bytes.Repeat([]byte{'v'}, 300)))
	}
	for i := range 20 {
		do(t, b.Delete(t.Context(), oauth.Key{Account: "a", User: fmt.Sprint(i)}, 1))
	}
	mustClose(t, b)
	data, err := os.ReadFile(b.Path())
	do(t, err)
	return b.Path(), data
}

// TestBoltDamagedPages destroys one page at a time: the process must survive,
// and the store must either refuse or have lost nothing that it doesn't
// report.
func TestBoltDamagedPages(t *testing.T) {
	t.Parallel()
	path, data := grown(t)
	page := os.Getpagesize()
	refused := 0
	for at := 0; at < len(data); at += page {
		for _, fill := range []byte{0, 0xff} {
			bad := bytes.Clone(data)
			for i := at; i < at+page; i++ {
				bad[i] = fill
			}
			do(t, os.WriteFile(path, bad, 0o600))
			b, err := openBolt(path, time.Second)
			if errors.Is(err, oauth.ErrStoreInUse) {
				t.Fatalf("page %d: the refused opening before this one kept the file locked", at/page)
			}
			if err != nil {
				refused++
				if left, _ := os.ReadFile(path); !bytes.Equal(left, bad) {
					t.Errorf("page %d: the refused file was changed", at/page)
				}
				continue
			}
			// A free page, or one of the two headers, of which the other holds.
			keys, err := b.List(t.Context(), "a")
			if err != nil || len(keys) < 40 || len(keys) > 41 {
				t.Errorf("page %d with %#x: List gave %d keys, %v", at/page, fill, len(keys), err)
			}
			mustClose(t, b)
		}
	}
	if refused < 8 {
		t.Errorf("only %d damaged files were refused", refused)
	}
}

func TestBoltTruncated(t *testing.T) {
	t.Parallel()
	path, data := grown(t)
	for _, size := range []int{1, 100, 4095, 4096, 8192, 4 * 4096, 5 * 4096, 7*4096 + 1} {
		do(t, os.WriteFile(path, data[:size], 0o600))
		b, err := openBolt(path, time.Second)
		if err == nil {
			mustClose(t, b)
			t.Errorf("a file cut to %d of %d bytes was opened", size, len(data))
		} else if !errors.Is(err, errDamaged) {
			t.Errorf("a file cut to %d bytes: %v", size, err)
		}
	}
	// The last page may be a free one, which nothing else would miss.
	do(t, os.WriteFile(path, data[:usedSize(t, path, data)-1], 0o600))
	if _, err := openBolt(path, time.Second); err == nil || !strings.Contains(err.Error(), ": 1 bytes are missing") {
		t.Errorf("a file that lacks a byte: %v", err)
	}
	do(t, os.WriteFile(path, data, 0o600))
	if keys, err := reopen(t, path).List(t.Context(), ""); err != nil || len(keys) != 40 {
		t.Errorf("the restored file has %d keys, %v", len(keys), err)
	}
}

// usedSize is how much of a file its header says is in use.
func usedSize(t *testing.T, path string, data []byte) (n int64) {
	t.Helper()
	do(t, os.WriteFile(path, data, 0o600))
	edit(t, path, func(tx *bbolt.Tx) error {
		n = tx.Size()
		return errRollback
	})
	return n
}

// TestBoltDamagedFreeList has a page in use among the free ones: the next saves
// would overwrite it, though all can be read now.
func TestBoltDamagedFreeList(t *testing.T) {
	t.Parallel()
	path, data := grown(t)
	list, leaf := 0, 0
	edit(t, path, func(tx *bbolt.Tx) error {
		for id := 2; ; id++ {
			page, err := tx.Page(id)
			do(t, err)
			switch {
			case page == nil:
				return errRollback
			case page.Type == "freelist":
				list = id
			case page.Type == "leaf":
				leaf = id
			}
		}
	})
	// A page has a header of 16 bytes; the list is numbers of 8.
	first := data[list*os.Getpagesize()+16:][:8]
	binary.NativeEndian.PutUint64(first, uint64(leaf))
	do(t, os.WriteFile(path, data, 0o600))
	if _, err := openBolt(path, time.Second); !errors.Is(err, errDamaged) {
		t.Errorf("page %d is in use and free: %v", leaf, err)
	}
}

// TestBoltOutOfOrder changes a key under an open store, to the one before it.
func TestBoltOutOfOrder(t *testing.T) {
	t.Parallel()
	path, data := grown(t)
	b := reopen(t, path)
	key, before := encodeKey(oauth.Key{Account: "a", User: "41"}), encodeKey(oauth.Key{Account: "a", User: "40"})
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	do(t, err)
	defer f.Close()
	for at := range len(data) - len(key) {
		if bytes.HasPrefix(data[at:], key) {
			_, err := f.WriteAt(before, int64(at))
			do(t, err)
		}
	}
	if keys, err := b.List(t.Context(), "a"); !errors.Is(err, errDamaged) {
		t.Errorf("a key that is there twice: %d keys, %v", len(keys), err)
	}
}

// TestBoltRootLost has a page of sessions where the root was: what a disk leaves
// that lied about writes. It is no other program's database.
func TestBoltRootLost(t *testing.T) {
	t.Parallel()
	path, data := grown(t)
	page := os.Getpagesize()
	leaf := 0
	edit(t, path, func(tx *bbolt.Tx) error {
		for id := 2; ; id++ {
			switch p, err := tx.Page(id); {
			case err != nil || p == nil:
				do(t, err)
				return errRollback
			case p.Type == "leaf" && p.Count > 2 && p.OverflowCount == 0:
				leaf = id
			}
		}
	})
	for meta := range 2 { // the number of the root's page, behind two headers of 16 bytes
		root := int(binary.NativeEndian.Uint64(data[meta*page+32:]))
		copy(data[root*page+8:(root+1)*page], data[leaf*page+8:]) // all but the page's number
	}
	do(t, os.WriteFile(path, data, 0o600))
	if _, err := openBolt(path, time.Second); !errors.Is(err, errDamaged) || errors.Is(err, errForeign) {
		t.Errorf("a root of sessions: %v", err)
	}
}

// TestLooksLikeBolt: what surely is somebody else's stays where it is.
func TestLooksLikeBolt(t *testing.T) {
	t.Parallel()
	_, data := grown(t)
	headers := 2 * os.Getpagesize()
	noHeaders := bytes.Clone(data)
	clear(noHeaders[:headers])
	for name, test := range map[string]struct {
		data []byte
		want bool
	}{
		"ours":             {data, true},
		"its first page":   {data[:os.Getpagesize()], true},
		"empty":            {nil, true},
		"zeros":            {make([]byte, 100), true},
		"headers lost":     {noHeaders, true},
		"text":             {[]byte("hello"), false},
		"text behind them": {append(make([]byte, headers-1), 'x'), false},
		"garbage":          {bytes.Repeat([]byte{0xa5}, len(data)), false},
	} {
		path := filepath.Join(t.TempDir(), "tokens.db")
		do(t, os.WriteFile(path, test.data, 0o600))
		if got := looksLikeBolt(path); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	if dir := t.TempDir(); looksLikeBolt(dir) || looksLikeBolt(filepath.Join(dir, "none")) {
		t.Error("a directory or nothing looks like a database")
	}
}

// TestBoltTruncatedWhileOpen takes the file away under an open store.
func TestBoltTruncatedWhileOpen(t *testing.T) {
	t.Parallel()
	if !hasModes {
		t.Skip("the system doesn't let a mapped file be cut")
	}
	path, data := grown(t)
	b := reopen(t, path)
	do(t, os.Truncate(path, 0))
	for range 3 {
		if _, err := b.List(t.Context(), ""); err == nil {
			t.Error("List of a file that is gone gave no error")
		}
		if err := b.Save(t.Context(), testKey, oauth.Entry{Generation: 1}); err == nil {
			t.Error("Save in a file that is gone gave no error")
		}
	}
	// Restored, it heals without a restart.
	do(t, os.WriteFile(path, data, 0o600))
	if keys, err := b.List(t.Context(), ""); err != nil || len(keys) != 40 {
		t.Errorf("the restored file has %d keys, %v", len(keys), err)
	}
	mustSave(t, b, testKey, 1, "one")
	mustClose(t, b)
	wantValue(t, reopen(t, path), testKey, 1, "one")
}

func TestBoltDamagedRecord(t *testing.T) {
	t.Parallel()
	for name, record := range map[string]string{"short": "1234567", "generation 0": "\x00\x00\x00\x00\x00\x00\x00\x00v"} {
		b := newBolt(t)
		mustClose(t, b)
		edit(t, b.Path(), func(tx *bbolt.Tx) error {
			return tx.Bucket(sessionsBucket).Put(encodeKey(testKey), []byte(record))
		})
		b = reopen(t, b.Path())
		_, err := b.Load(t.Context(), testKey)
		for call, err := range map[string]error{
			"Load":   err,
			"Save":   b.Save(t.Context(), testKey, oauth.Entry{Generation: 1}),
			"Delete": b.Delete(t.Context(), testKey, 0),
		} {
			if !errors.Is(err, oauth.ErrUnreadable) {
				t.Errorf("%s record: %s gave %v", name, call, err)
			}
		}
		mustClose(t, b)
		edit(t, b.Path(), func(tx *bbolt.Tx) error {
			if got := tx.Bucket(sessionsBucket).Get(encodeKey(testKey)); string(got) != record {
				t.Errorf("%s record was changed to %q", name, got)
			}
			return nil
		})
	}
}

// TestBoltDoubtfulCommit stands in for a failed sync of the last write of a
// commit: what can be seen must be committed once more before it is shown.
func TestBoltDoubtfulCommit(t *testing.T) {
	t.Parallel()
	b := newBolt(t)
	mustSave(t, b, testKey, 1, "one")
	lastTx := func() (id int) {
		do(t, b.file.db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil }))
		return id
	}
	committed, old := lastTx(), b.file

	b.doubt.raise(committed)
	wantValue(t, b, testKey, 1, "one")
	if b.file == old || lastTx() != committed+1 {
		t.Errorf("transaction %d after a doubtful one of %d; reopened: %v", lastTx(), committed, b.file != old)
	}
	wantValue(t, b, testKey, 1, "one")
	if lastTx() != committed+1 {
		t.Error("the doubt wasn't laid to rest")
	}

	// A transaction that can't be seen leaves nothing to be done.
	b.doubt.raise(committed + 2)
	wantValue(t, b, testKey, 1, "one")
	if lastTx() != committed+1 {
		t.Error("a commit was made for a transaction that had failed entirely")
	}
	mustSave(t, b, testKey, 2, "two")
}

func TestBoltReopeningRefused(t *testing.T) {
	t.Parallel()
	b := newBolt(t)
	mustSave(t, b, testKey, 1, "one")
	if !hasModes {
		t.Skip("an open file can't be moved here")
	}
	away := filepath.Join(t.TempDir(), "away")
	do(t, os.Rename(b.Path(), away))
	b.doubt.raise(1)
	if _, err := b.Load(t.Context(), testKey); err == nil || errors.Is(err, oauth.ErrNotFound) {
		t.Errorf("Load without the file: %v", err)
	}
	if _, err := os.Lstat(b.Path()); err == nil {
		t.Fatal("reopening created a new file")
	}
	do(t, os.Rename(away, b.Path()))
	wantValue(t, b, testKey, 1, "one")

	do(t, os.Rename(b.Path(), away))
	b.doubt.raise(1)
	if err := b.Save(t.Context(), testKey, oauth.Entry{Generation: 2}); err == nil {
		t.Error("Save without the file gave no error")
	}
	mustClose(t, b)
	if _, err := b.Load(t.Context(), testKey); !errors.Is(err, oauth.ErrStoreClosed) {
		t.Errorf("Load after Close: %v", err)
	}
}

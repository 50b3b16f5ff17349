package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// errDamaged is for a database file that bbolt stumbles over.
var errDamaged = errors.New("the file is damaged or not a store, and was left as it is; " +
	"restore a backup, or move it and its spill away to start with an empty store")

// errForeign is for a database that has nothing of ours, where it could.
var errForeign = errors.New("it is a database of another program; give the path of a file that only this store uses")

// damaged marks an error as one about the content of the file, unless it comes
// from the system. It returns nil for nil.
func damaged(err error) error {
	var errno syscall.Errno
	if err == nil || errors.Is(err, errDamaged) || errors.As(err, &errno) {
		return err
	}
	return fmt.Errorf("%w: %w", errDamaged, err)
}

func isTimeout(err error) bool { return errors.Is(err, berrors.ErrTimeout) }

// guard calls bbolt. On a damaged file bbolt panics, or reads past the end of
// the mapped file, which is a fault; both come back as errors.
func guard(call func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return call()
}

// boltFile is an open database and the file under it.
type boltFile struct {
	db *bbolt.DB
	os *os.File
}

// close closes the database. After a panic bbolt may hold one of its own locks
// for ever; then the file is let go without it.
func (f *boltFile) close() error {
	done := make(chan error, 1)
	go func() { done <- guard(f.db.Close) }()
	select {
	case err := <-done:
		if err != nil {
			f.abandon()
		}
		return err
	case <-time.After(2 * time.Second):
		f.abandon()
		return errors.New("bbolt doesn't let go of the file after an earlier failure")
	}
}

// abandon gives up the lock on the file and closes it, not minding what bbolt
// thinks; the mapping stays for the rest of the process.
func (f *boltFile) abandon() {
	unlockFile(f.os)
	_ = f.os.Close()
}

// verify reads all of the file before anything relies on it: that it is ours,
// that the tree can be walked and searched, and that no page is used twice.
// Values aren't looked into.
func (f *boltFile) verify() error {
	return guard(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			info, err := f.os.Stat()
			if err != nil {
				return err
			}
			if info.Size() < tx.Size() {
				return damaged(fmt.Errorf("%d bytes are missing at its end", tx.Size()-info.Size()))
			}
			if err := checkSchema(tx); err != nil {
				return err
			}
			if err := checkTree(tx.Bucket(sessionsBucket)); err != nil {
				return damaged(err)
			}
			return damaged(checkPages(tx))
		})
	})
}

func checkSchema(tx *bbolt.Tx) error {
	meta := tx.Bucket(metaBucket)
	if meta == nil || meta.Get(versionKey) == nil {
		return checkRoot(tx)
	}
	if v := meta.Get(versionKey); string(v) != schemaVersion {
		if _, err := strconv.Atoi(string(v)); err != nil {
			return fmt.Errorf("%w: its version isn't one", errDamaged)
		}
		return fmt.Errorf("it has version %.20q, this program knows version %s; it was left as it is; "+
			"use the release that wrote it, or a newer one", v, schemaVersion)
	}
	return nil
}

// checkRoot tells a database of another program from one of ours whose root was
// lost: any has buckets there, and nothing else.
func checkRoot(tx *bbolt.Tx) error {
	var last []byte
	c := tx.Cursor()
	for name, value := c.First(); name != nil; name, value = c.Next() {
		if value != nil || last != nil && bytes.Compare(last, name) >= 0 {
			return fmt.Errorf("%w: its root isn't one", errDamaged)
		}
		last = name
	}
	if last == nil {
		return fmt.Errorf("%w: it has nothing in it", errDamaged)
	}
	return errForeign
}

var errOutOfOrder = errors.New("its keys are out of order")

// checkTree walks the sessions and looks each of them up again.
func checkTree(sessions *bbolt.Bucket) error {
	if sessions == nil {
		return errors.New("it has no sessions bucket")
	}
	walk, search := sessions.Cursor(), sessions.Cursor()
	var last []byte
	for k, v := walk.First(); k != nil; k, v = walk.Next() {
		if len(k) > longestDBKey || last != nil && bytes.Compare(last, k) >= 0 {
			return errOutOfOrder
		}
		if _, err := decodeKey(k); err != nil {
			return err
		}
		if found, w := search.Seek(k); !bytes.Equal(found, k) || len(w) != len(v) {
			return errors.New("one of its keys can't be found again")
		}
		last = k
	}
	return nil
}

// checkPages has bbolt compare the list of free pages with the tree. That runs
// in a goroutine of bbolt's, out of reach of guard; so the numbers that could
// lead it astray are looked at before.
func checkPages(tx *bbolt.Tx) error {
	var problem error
	for id, next := 0, 0; ; id++ {
		page, err := tx.Page(id)
		if err != nil {
			return err
		}
		if page == nil {
			break // behind the last page
		}
		if id < next || page.Type == "free" {
			continue
		}
		next = id + 1 + page.OverflowCount
		if int64(next) > tx.Size()/int64(tx.DB().Info().PageSize) {
			return fmt.Errorf("page %d has no end", id)
		}
	}
	for err := range tx.Check() { // must be read to the end
		if problem == nil {
			problem = err
		}
	}
	return problem
}

// doubt remembers that a call failed in a way that leaves it open what bbolt or
// the disk made of it.
type doubt struct {
	mu     sync.Mutex
	raised bool
	txid   int // the transaction whose commit failed, 0 if none did
}

func (d *doubt) raise(txid int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.raised = true
	d.txid = max(d.txid, txid)
}

func (d *doubt) state() (raised bool, txid int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.raised, d.txid
}

func (d *doubt) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.raised, d.txid = false, 0
}

// settle makes sure that what can be read now is durable.
func (b *Bolt) settle() error {
	if raised, _ := b.doubt.state(); !raised {
		return nil
	}
	b.write.Lock()
	defer b.write.Unlock()
	return b.settleLocked()
}

// settleLocked is settle with b.write held. The file is opened anew. If the
// transaction that failed can be seen in it, its data had been synced and only
// the last step, the meta page, had not; a further commit makes that good. If
// it can't be seen, what is there was durable before.
func (b *Bolt) settleLocked() error {
	raised, failed := b.doubt.state()
	if !raised {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return oauth.ErrStoreClosed
	}
	if b.file != nil {
		_ = b.file.close() // it is given up whatever it says
		b.file = nil
	}
	failpoint.Hit("doubt-closed")
	// Our own lock was just released; nobody is worth waiting for.
	file, err := openFile(b.path, 100*time.Millisecond)
	if err != nil {
		return fmt.Errorf("opening %s again after a failure: %w", b.path, err)
	}
	err = guard(func() error {
		seen := 0
		if err := file.db.View(func(tx *bbolt.Tx) error { seen = tx.ID(); return checkSchema(tx) }); err != nil {
			return err
		}
		if failed == 0 || seen < failed {
			return nil
		}
		return file.db.Update(func(*bbolt.Tx) error { return nil })
	})
	if err != nil {
		_ = file.close()
		return fmt.Errorf("making %s durable after a failure: %w", b.path, err)
	}
	failpoint.Hit("doubt-settled")
	b.file = file
	b.doubt.clear()
	return nil
}

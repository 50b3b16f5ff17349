package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Bolt is a store in one bbolt file, which one process at a time has open. It
// keeps values as they are given; [Durable] seals them.
//
// A write that fails leaves it open whether it took effect. The file is then
// opened anew before the next call, so that a Load after a failed Save tells
// what is durable; as long as that fails, calls say why.
type Bolt struct {
	path     string
	locks    *keyLocks
	id       storeID
	sequence uint64 // as it was when the file was opened

	// write is held over a write and over a reopening; it comes before mu.
	write sync.Mutex
	// mu is held for reading over each use of file, for writing to change it.
	mu     sync.RWMutex
	file   *boltFile // nil while it can't be reopened
	closed bool
	doubt  doubt
}

var _ oauth.Store = (*Bolt)(nil)

var (
	metaBucket     = []byte("meta")
	versionKey     = []byte("version")
	idKey          = []byte("id")
	sessionsBucket = []byte("sessions") // its sequence is the store's
)

// A storeID tells one store from another; its copies have the same.
type storeID [16]byte

func newStoreID() (id storeID) {
	_, _ = rand.Read(id[:]) // never fails: it ends the program first
	return id
}

// encode appends a checksum: with a flipped bit it is no id, and not another
// store's.
func (id storeID) encode() []byte {
	return binary.BigEndian.AppendUint32(id[:], crc32.ChecksumIEEE(id[:]))
}

func decodeID(b []byte) (id storeID, ok bool) {
	ok = copy(id[:], b) == len(id) && bytes.Equal(id.encode(), b)
	return id, ok
}

// Path returns the absolute path of the file.
func (b *Bolt) Path() string { return b.path }

// Load implements [oauth.Store].
func (b *Bolt) Load(ctx context.Context, key oauth.Key) (oauth.Entry, error) {
	var e oauth.Entry
	err := b.view(ctx, func(sessions *bbolt.Bucket) error {
		record := sessions.Get(encodeKey(key))
		if record == nil {
			return oauth.ErrNotFound
		}
		generation, value, err := splitRecord(record)
		if err != nil {
			return err
		}
		// What bbolt returns is the mapped file, gone with the transaction.
		e = oauth.Entry{Generation: generation, Value: bytes.Clone(value)}
		return nil
	})
	if err != nil {
		return oauth.Entry{}, fmt.Errorf("loading %q: %w", key, err)
	}
	return e, nil
}

// Save implements [oauth.Store]. A key may have up to 32 KiB, a value 16 MiB.
func (b *Bolt) Save(ctx context.Context, key oauth.Key, e oauth.Entry) error {
	return b.put(ctx, key, e, 0, false)
}

// put saves e; if forced, whatever is there. With it the store's sequence
// becomes at least the given one.
func (b *Bolt) put(ctx context.Context, key oauth.Key, e oauth.Entry, sequence uint64, forced bool) error {
	k := encodeKey(key)
	if len(k) > longestDBKey || len(e.Value) > longestRecord-generationSize {
		return fmt.Errorf("saving a key of %d and a value of %d bytes: too long", len(k), len(e.Value))
	}
	record := make([]byte, 0, generationSize+len(e.Value))
	record = binary.BigEndian.AppendUint64(record, e.Generation)
	record = append(record, e.Value...)
	err := b.update(ctx, func(sessions *bbolt.Bucket) error {
		if !forced {
			stored, err := generationOf(sessions.Get(k))
			if err != nil {
				return err
			}
			if err := mayFollow(stored, e.Generation); err != nil {
				return err
			}
		}
		if sequence > sessions.Sequence() {
			if err := sessions.SetSequence(sequence); err != nil {
				return err
			}
		}
		failpoint.Hit("record-unput")
		return sessions.Put(k, record)
	})
	if err != nil {
		return fmt.Errorf("saving %q: %w", key, err)
	}
	return nil
}

// Delete implements [oauth.Store]. The bytes of the value stay in the file
// until bbolt uses their page for something else.
func (b *Bolt) Delete(ctx context.Context, key oauth.Key, generation uint64) error {
	return b.remove(ctx, key, func(stored uint64) error { return mayDelete(stored, generation) })
}

// remove deletes an entry if may agrees to its generation.
func (b *Bolt) remove(ctx context.Context, key oauth.Key, may func(stored uint64) error) error {
	k := encodeKey(key)
	err := b.update(ctx, func(sessions *bbolt.Bucket) error {
		stored, err := generationOf(sessions.Get(k))
		if err != nil {
			return err
		}
		if err := may(stored); err != nil {
			return err
		}
		return sessions.Delete(k)
	})
	if err != nil {
		return fmt.Errorf("deleting %q: %w", key, err)
	}
	return nil
}

// List implements [oauth.Store].
func (b *Bolt) List(ctx context.Context, account string) ([]oauth.Key, error) {
	var prefix []byte
	if account != "" {
		prefix = accountPrefix(account)
	}
	var keys []oauth.Key
	err := b.view(ctx, func(sessions *bbolt.Bucket) error {
		c := sessions.Cursor()
		var last []byte
		for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			if last != nil && bytes.Compare(last, k) >= 0 {
				return damaged(errOutOfOrder) // since it was opened
			}
			last = k
			key, err := decodeKey(k)
			if err != nil {
				return err
			}
			keys = append(keys, key)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the store: %w", err)
	}
	return keys, nil
}

// Lock implements [oauth.Store]: other holders in this process are kept out by
// a lock of the key, other processes by that of the file. Close sends those
// away who wait.
func (b *Bolt) Lock(ctx context.Context, key oauth.Key) (unlock func(), err error) {
	return b.locks.lock(ctx, key)
}

// Close waits for the calls under way and releases the file. It doesn't wait
// for the holders of locks.
func (b *Bolt) Close() error {
	b.locks.close()
	b.write.Lock()
	defer b.write.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("closing store %s: %w", b.path, oauth.ErrStoreClosed)
	}
	b.closed = true
	if b.file == nil {
		return nil
	}
	failpoint.Hit("database-closing")
	if err := b.file.close(); err != nil {
		return fmt.Errorf("closing store %s: %w", b.path, err)
	}
	return nil
}

// view runs fn in a read transaction of its own.
func (b *Bolt) view(ctx context.Context, fn func(sessions *bbolt.Bucket) error) error {
	if err := b.settle(); err != nil {
		return err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if err := b.usable(ctx); err != nil {
		return err
	}
	err := guard(func() error {
		return b.file.db.View(func(tx *bbolt.Tx) error { return inSessions(tx, fn) })
	})
	if errors.Is(err, errDamaged) {
		// After a panic nobody knows which of its locks bbolt still holds.
		b.doubt.raise(0)
	}
	return err
}

// update runs fn in a write transaction of its own and commits it with fsync,
// unless fn returns an error.
func (b *Bolt) update(ctx context.Context, fn func(sessions *bbolt.Bucket) error) error {
	b.write.Lock()
	defer b.write.Unlock()
	if err := b.settleLocked(); err != nil {
		return err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if err := b.usable(ctx); err != nil {
		return err
	}
	var refused error
	txid := 0
	failpoint.Hit("transaction-due")
	err := guard(func() error {
		return b.file.db.Update(func(tx *bbolt.Tx) error {
			txid = tx.ID()
			failpoint.Hit("transaction-begun")
			tx.OnCommit(func() { failpoint.Hit("transaction-committed") })
			refused = inSessions(tx, fn)
			failpoint.Hit("transaction-ending")
			return refused
		})
	})
	failpoint.Hit("transaction-ended")
	if err != nil && refused == nil {
		b.doubt.raise(txid)
	}
	return err
}

// copyTo writes the database as it is at one moment.
func (b *Bolt) copyTo(ctx context.Context, w io.Writer) error {
	return b.view(ctx, func(sessions *bbolt.Bucket) error {
		_, err := sessions.Tx().WriteTo(w)
		return err
	})
}

func inSessions(tx *bbolt.Tx, fn func(sessions *bbolt.Bucket) error) error {
	sessions := tx.Bucket(sessionsBucket)
	if sessions == nil {
		return fmt.Errorf("%w: its sessions are gone", errDamaged)
	}
	return fn(sessions)
}

// usable says why a call can't go ahead, if it can't. b.mu is held.
func (b *Bolt) usable(ctx context.Context) error {
	if b.closed {
		return oauth.ErrStoreClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.file == nil { // somebody else's reopening failed in between
		return errors.New("the database file could not be opened again after a failure")
	}
	return nil
}

// A record is the generation, big-endian, and the value.
const generationSize = 8

// generationOf returns that of a record, 0 if there is none.
func generationOf(record []byte) (uint64, error) {
	if record == nil {
		return 0, nil
	}
	generation, _, err := splitRecord(record)
	return generation, err
}

func splitRecord(record []byte) (generation uint64, value []byte, err error) {
	// The upper bound keeps a damaged length from taking all memory.
	if len(record) < generationSize || len(record) > longestRecord {
		return 0, nil, fmt.Errorf("%w: it is damaged: a record of %d bytes", oauth.ErrUnreadable, len(record))
	}
	generation = binary.BigEndian.Uint64(record)
	if generation == 0 {
		return 0, nil, fmt.Errorf("%w: it is damaged: generation 0", oauth.ErrUnreadable)
	}
	return generation, record[generationSize:], nil
}

package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Durable is the store that loses nothing which can be kept: a bbolt database,
// beside it the spill, a file with the newest entries once more, and a marker
// that tells this installation from others. Values are sealed with AES-256-GCM.
//
// A save is durable as soon as one of the two files has it. While the other
// can't be written, the store goes on with one, says so, and tries again every
// few seconds; what is missing is made good then. Of two entries of a key that
// open under the sealing key the one that was saved later counts.
type Durable struct {
	place      Place
	spillNamed bool // the operator gave its path
	locks      *keyLocks
	ring       atomic.Pointer[ring] // nil before the first UseKeys

	// mu is held for reading by Load, for writing by what changes anything; a
	// refresh under way doesn't hold it.
	mu       sync.RWMutex
	bolt     *Bolt
	spill    *spill  // nil while it can't be opened
	marker   *marker // nil if none can be kept
	sequence uint64  // of the newest save
	// differ has the keys of which one of the files may lack the newest entry.
	differ map[oauth.Key]struct{}
	closed bool
	health health
}

var _ oauth.WatchedStore = (*Durable)(nil)

// Load implements [oauth.Store].
func (d *Durable) Load(ctx context.Context, key oauth.Key) (oauth.Entry, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, err := d.load(ctx, key)
	if err != nil {
		return oauth.Entry{Generation: e.Generation}, fmt.Errorf("loading %q: %w", key, err)
	}
	return e.Entry, nil
}

// load returns the newest entry of a key, opened. d.mu is held.
func (d *Durable) load(ctx context.Context, key oauth.Key) (numbered, error) {
	if err := d.usable(ctx); err != nil {
		return numbered{}, err
	}
	if d.ring.Load() == nil {
		return numbered{}, errNoKeys
	}
	e, err := d.inDatabase(ctx, key)
	_, differs := d.differ[key]
	newer := d.spill != nil && d.spill.newest(key) > e.sequence // bbolt stepped back while it was open
	if !differs && !newer && (err == nil || errors.Is(err, oauth.ErrNotFound)) {
		return e, err
	}
	if spilled, ok := d.inSpill(key); ok && (err != nil || spilled.sequence > e.sequence) {
		return spilled, nil
	}
	return e, err
}

var errNoKeys = errors.New("the store has no keys yet")

// A numbered entry knows the number of its save, counted over all keys. It
// decides which of two is the newer one: generations begin anew when a session
// was deleted.
type numbered struct {
	oauth.Entry
	sequence uint64
}

// The number is sealed with the value, behind a byte that no value of earlier
// releases began with.
const (
	numberMark = 1
	numberSize = 1 + 8
)

func (d *Durable) seal(key oauth.Key, e numbered) (oauth.Entry, error) {
	value := binary.BigEndian.AppendUint64([]byte{numberMark}, e.sequence)
	sealed, err := d.ring.Load().seal(key, oauth.Entry{Generation: e.Generation, Value: append(value, e.Value...)})
	return oauth.Entry{Generation: e.Generation, Value: sealed}, err
}

// open is the inverse of seal. The generation is set even if it fails.
func (d *Durable) open(key oauth.Key, sealed oauth.Entry) (numbered, error) {
	e := numbered{Entry: oauth.Entry{Generation: sealed.Generation}}
	value, err := d.ring.Load().open(key, sealed)
	if err != nil {
		return e, err
	}
	if e.Value = value; len(value) >= numberSize && value[0] == numberMark {
		e.sequence, e.Value = binary.BigEndian.Uint64(value[1:]), value[numberSize:]
	}
	return e, nil
}

// inDatabase returns the entry that the database has, opened.
func (d *Durable) inDatabase(ctx context.Context, key oauth.Key) (numbered, error) {
	e, err := d.bolt.Load(ctx, key)
	if err != nil {
		return numbered{}, err
	}
	return d.open(key, e)
}

// inSpill returns the newest entry of the spill that can be opened.
func (d *Durable) inSpill(key oauth.Key) (numbered, bool) {
	if d.spill == nil {
		return numbered{}, false
	}
	for _, img := range d.spill.images(key) {
		if e, err := d.open(key, oauth.Entry{Generation: img.generation, Value: img.value}); err == nil {
			return e, true
		}
	}
	return numbered{}, false
}

// Save implements [oauth.Store].
func (d *Durable) Save(ctx context.Context, key oauth.Key, e oauth.Entry) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.save(ctx, key, e); err != nil {
		return fmt.Errorf("saving %q: %w", key, err)
	}
	return nil
}

func (d *Durable) save(ctx context.Context, key oauth.Key, e oauth.Entry) error {
	failpoint.Hit("save-begun")
	stored, err := d.load(ctx, key)
	switch {
	case err == nil, errors.Is(err, oauth.ErrNotFound), errors.Is(err, oauth.ErrUnreadable):
		if err := mayFollow(stored.Generation, e.Generation); err != nil {
			return err
		}
	case d.usable(ctx) != nil || d.spill == nil || err == errNoKeys:
		return err
	}
	// Otherwise the database can't be asked and the spill has nothing: it is new.
	return d.write(key, e)
}

// write puts an entry into both files; one is enough. It can't be broken off:
// half of it would have to be mended.
func (d *Durable) write(key oauth.Key, e oauth.Entry) error {
	d.sequence++
	sealed, err := d.seal(key, numbered{e, d.sequence})
	if err != nil {
		return err
	}
	failpoint.Hit("entry-sealed")
	spillErr := d.toSpill(key, sealed, d.sequence)
	failpoint.Hit("spill-saved")
	boltErr := d.toDatabase(key, sealed, d.sequence)
	failpoint.Hit("database-saved")
	if spillErr == nil && boltErr == nil {
		delete(d.differ, key)
	} else {
		d.differ[key] = struct{}{}
	}
	d.suffer(boltErr, spillErr)
	if spillErr != nil && boltErr != nil {
		return fmt.Errorf("%w\n%v", boltErr, spillErr) // the spill's conflict isn't the caller's
	}
	if d.marker != nil {
		failpoint.Hit("marker-behind")
		d.marker.note(d.sequence)
		failpoint.Hit("marker-noted")
	}
	return nil
}

func (d *Durable) toSpill(key oauth.Key, sealed oauth.Entry, sequence uint64) error {
	if d.spill == nil {
		return errNoSpill
	}
	return d.spill.save(image{key: key, generation: sealed.Generation, sequence: sequence, value: sealed.Value})
}

// toDatabase saves whatever is there: what may follow what is decided before.
func (d *Durable) toDatabase(key oauth.Key, sealed oauth.Entry, sequence uint64) error {
	return d.bolt.put(context.Background(), key, sealed, sequence, true)
}

// Delete implements [oauth.Store]. The spill is emptied first: what is deleted
// must never come back from there.
func (d *Durable) Delete(ctx context.Context, key oauth.Key, generation uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.delete(ctx, key, generation); err != nil {
		return fmt.Errorf("deleting %q: %w", key, err)
	}
	return nil
}

func (d *Durable) delete(ctx context.Context, key oauth.Key, generation uint64) error {
	stored, err := d.load(ctx, key)
	if err != nil && !errors.Is(err, oauth.ErrNotFound) && !errors.Is(err, oauth.ErrUnreadable) {
		return err
	}
	if err := mayDelete(stored.Generation, generation); err != nil {
		return err
	}
	if d.spill == nil {
		return errNoSpill
	}
	if err := d.spill.remove(key); err != nil {
		d.differ[key] = struct{}{}
		d.suffer(nil, err)
		return err
	}
	err = d.bolt.remove(context.Background(), key, func(uint64) error { return nil })
	if err == nil { // once more, so that neither of bbolt's two meta pages leads back to it
		err = d.bolt.update(context.Background(), func(*bbolt.Bucket) error { return nil })
	}
	if err != nil {
		d.differ[key] = struct{}{}
		d.suffer(err, nil)
		return err
	}
	delete(d.differ, key)
	return nil
}

// List implements [oauth.Store].
func (d *Durable) List(ctx context.Context, account string) ([]oauth.Key, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.usable(ctx); err != nil {
		return nil, fmt.Errorf("listing the store: %w", err)
	}
	keys, err := d.bolt.List(ctx, account)
	if d.spill == nil || err == nil && len(d.differ) == 0 {
		return keys, err
	}
	for _, key := range d.spill.keys() {
		if _, differs := d.differ[key]; (differs || err != nil) && (account == "" || key.Account == account) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	return slices.Compact(keys), nil
}

// Lock implements [oauth.Store]: as [Bolt.Lock].
func (d *Durable) Lock(ctx context.Context, key oauth.Key) (unlock func(), err error) {
	return d.locks.lock(ctx, key)
}

// Instance implements [oauth.WatchedStore]. It is empty if no marker can be
// kept.
func (d *Durable) Instance() string {
	if d.marker == nil {
		return ""
	}
	return d.marker.instance
}

// Place tells where the files are, with all paths absolute and no default left
// open.
func (d *Durable) Place() Place { return d.place }

// Close tries once more to mend what is missing, waits for the calls under way
// and releases the files. It doesn't wait for the holders of locks.
func (d *Durable) Close() error {
	d.locks.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("closing store %s: %w", d.place.Database, oauth.ErrStoreClosed)
	}
	if len(d.differ) > 0 {
		d.mend()
	}
	d.closed = true
	failpoint.Hit("store-closing")
	d.health.stop()
	var errs []error
	if d.marker != nil {
		errs = append(errs, d.marker.close())
	}
	if d.spill != nil {
		errs = append(errs, d.spill.close())
	}
	return errors.Join(append(errs, d.bolt.Close())...)
}

// Backup writes a copy of the database as it is at one moment. What is sealed in
// it stays sealed: the copy is of use only with the key.
func (d *Durable) Backup(ctx context.Context, w io.Writer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return err
	}
	if len(d.differ) > 0 {
		d.mend()
	}
	if d.health.behind {
		return fmt.Errorf("a backup now would lack the newest tokens: %s", d.health.notice.Problem)
	}
	return d.bolt.copyTo(ctx, w)
}

// usable says why a call can't go ahead, if it can't. d.mu is held.
func (d *Durable) usable(ctx context.Context) error {
	if d.closed {
		return oauth.ErrStoreClosed
	}
	return ctx.Err()
}

// again is the pause between attempts to mend.
const again = 5 * time.Second

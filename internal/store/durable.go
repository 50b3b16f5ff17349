package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Durable is the store that loses nothing which can be kept: a bbolt database,
// beside it the spill, a file with the newest entries once more, and a marker
// that tells this installation from others. Values are sealed with AES-256-GCM.
//
// A save is durable as soon as one of the two files has it. While the other
// can't be written, the store goes on with one, says so, and tries again every
// few seconds; what is missing is made good then. Of two entries of a key the
// one with the higher generation counts that opens under the key.
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
	return e, nil
}

// load returns the newest entry of a key, opened. d.mu is held.
func (d *Durable) load(ctx context.Context, key oauth.Key) (oauth.Entry, error) {
	if err := d.usable(ctx); err != nil {
		return oauth.Entry{}, err
	}
	if d.ring.Load() == nil {
		return oauth.Entry{}, errors.New("the store has no keys yet")
	}
	e, err := d.inDatabase(ctx, key)
	if _, differs := d.differ[key]; !differs && (err == nil || errors.Is(err, oauth.ErrNotFound)) {
		return e, err
	}
	if spilled, ok := d.inSpill(key); ok && (err != nil || spilled.Generation > e.Generation) {
		return spilled, nil
	}
	return e, err
}

// inDatabase returns the entry that the database has, opened. If it can't be
// opened the generation is set nevertheless.
func (d *Durable) inDatabase(ctx context.Context, key oauth.Key) (oauth.Entry, error) {
	e, err := d.bolt.Load(ctx, key)
	if err != nil {
		return oauth.Entry{}, err
	}
	e.Value, err = d.ring.Load().open(key, e)
	return e, err
}

// inSpill returns the newest entry of the spill that can be opened.
func (d *Durable) inSpill(key oauth.Key) (oauth.Entry, bool) {
	if d.spill == nil {
		return oauth.Entry{}, false
	}
	for _, img := range d.spill.images(key) {
		e := oauth.Entry{Generation: img.generation, Value: img.value}
		if value, err := d.ring.Load().open(key, e); err == nil {
			return oauth.Entry{Generation: e.Generation, Value: value}, true
		}
	}
	return oauth.Entry{}, false
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
	case d.usable(ctx) != nil || d.spill == nil:
		return err
	}
	// Otherwise the database can't be asked and the spill has nothing: it is new.
	sealed, err := d.ring.Load().seal(key, e)
	if err != nil {
		return err
	}
	failpoint.Hit("entry-sealed")
	return d.write(key, oauth.Entry{Generation: e.Generation, Value: sealed})
}

// write puts a sealed entry into both files; one is enough. It can't be broken
// off: half of it would have to be mended.
func (d *Durable) write(key oauth.Key, sealed oauth.Entry) error {
	d.sequence++
	spillErr := d.toSpill(key, sealed)
	failpoint.Hit("spill-saved")
	boltErr := d.toDatabase(key, sealed)
	failpoint.Hit("database-saved")
	if spillErr == nil && boltErr == nil {
		delete(d.differ, key)
	} else {
		d.differ[key] = struct{}{}
	}
	d.suffer(boltErr, spillErr)
	if spillErr != nil && boltErr != nil {
		return errors.Join(boltErr, spillErr)
	}
	if d.marker != nil {
		failpoint.Hit("marker-behind")
		d.marker.note(d.sequence)
		failpoint.Hit("marker-noted")
	}
	return nil
}

func (d *Durable) toSpill(key oauth.Key, sealed oauth.Entry) error {
	if d.spill == nil {
		return errNoSpill
	}
	return d.spill.save(image{key: key, generation: sealed.Generation, sequence: d.sequence, value: sealed.Value})
}

// toDatabase saves whatever is there: what may follow what is decided before.
func (d *Durable) toDatabase(key oauth.Key, sealed oauth.Entry) error {
	return d.bolt.put(context.Background(), key, sealed, d.sequence, true)
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
	if err := d.bolt.remove(context.Background(), key, func(uint64) error { return nil }); err != nil {
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

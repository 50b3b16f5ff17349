package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// Place says where the files of a [Durable] are.
type Place struct {
	// Database is the path of the bbolt file.
	Database string
	// Spill is the path of the spill; best on another file system. Default: that
	// of the database with ".spill" behind it.
	Spill string
	// Instance is the directory of the marker that tells this installation from
	// others; it must not be copied along with the store. Without one nobody
	// notices a copy.
	Instance string
	// NetworkFS allows a file system that is shared over a network, where locks
	// may not hold.
	NetworkFS bool
}

// Open opens the store, or makes one if there is none: modes are 0600 and
// 0700. A file that is damaged is given another name and made anew from the
// other one. What looks unsafe or foreign is refused and left as it is, with an
// error that says what to do. An error wraps [oauth.ErrStoreInUse] if somebody
// else still has the store open after 3 seconds.
//
// The store can be used after the first [Durable.UseKeys].
func Open(p Place) (*Durable, error) {
	d, err := open(p)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", p.Database, err)
	}
	return d, nil
}

func open(p Place) (d *Durable, err error) {
	if p.Database == "" {
		return nil, errors.New("no path is given")
	}
	p.Spill = cmp.Or(p.Spill, p.Database+".spill")
	named := p.Spill != p.Database+".spill"
	for _, path := range []*string{&p.Database, &p.Spill} {
		if *path, err = filepath.Abs(*path); err != nil { // must outlive a change of directory
			return nil, err
		}
		var errno syscall.Errno // the store can do without one of the files
		if err := checkFS(*path); err != nil && !p.NetworkFS && !errors.As(err, &errno) {
			return nil, err
		}
	}
	if sameFile(p.Database, p.Spill) {
		return nil, fmt.Errorf("the spill %s is the database itself; give it another path", p.Spill)
	}
	d = &Durable{place: p, spillNamed: named, differ: map[oauth.Key]struct{}{}}
	if err := d.openFiles(); err != nil {
		return nil, errors.Join(err, d.closeFiles())
	}
	d.locks = newKeyLocks() // not the database's, which end with it
	d.sequence = d.bolt.sequence
	if d.spill != nil {
		d.sequence = max(d.sequence, d.spill.sequence())
	}
	failpoint.Hit("marker-opening")
	if err := d.openMarker(); err != nil {
		return nil, errors.Join(err, d.closeFiles())
	}
	return d, nil
}

// openFiles opens spill and database, in this order: the spill knows what a
// database that is gone was.
func (d *Durable) openFiles() error {
	_, statErr := os.Lstat(d.place.Spill)
	hadSpill := statErr == nil
	id := newStoreID()
	failpoint.Hit("spill-opening")
	s, notes, spillErr := d.openOrRenewSpill(storeID{})
	var errno syscall.Errno
	if spillErr != nil && !errors.As(spillErr, &errno) {
		return spillErr // ours to refuse, or in use
	}
	d.spill, d.health.notice.Mended = s, notes
	failpoint.Hit("spill-opened")
	if s != nil && s.id() != (storeID{}) {
		id = s.id()
	}
	_, statErr = os.Lstat(d.place.Database)
	isNew := errors.Is(statErr, fs.ErrNotExist)
	bolt, err := openBoltAs(id, d.place.Database, openTimeout)
	ours := s != nil && s.id() != storeID{}                                                           // what was there was a store, then
	lost := errors.Is(err, errForeign) || errors.Is(err, errDirectory) || errors.Is(err, syscall.EIO) // or a bad sector
	if errors.Is(err, errDamaged) && (hadSpill || looksLikeBolt(d.place.Database)) || lost && ours {
		if spillErr != nil {
			return fmt.Errorf("%w; and the spill that could restore it can't be read: %w", err, spillErr)
		}
		var note string
		bolt, note, err = renewDatabase(d.place.Database, id)
		d.health.mended("%s", note)
	}
	if err != nil {
		return err
	}
	d.bolt = bolt
	failpoint.Hit("files-opened")
	if isNew && s != nil && len(s.keys()) > 0 {
		d.health.mended("the database %s was missing; it is made anew from the spill", d.place.Database)
	}
	if s == nil {
		return nil // UseKeys tries once more, and tells
	}
	return d.pair()
}

// pair makes sure that the spill belongs to the database.
func (d *Durable) pair() error {
	switch d.spill.id() {
	case d.bolt.id:
		return nil
	case storeID{}:
		return d.spill.setID(d.bolt.id)
	}
	if err := d.spill.close(); err != nil {
		return err
	}
	name, err := setAside(d.place.Spill, "foreign")
	if err != nil {
		return err
	}
	if d.spill, err = openSpill(d.place.Spill); err != nil {
		return err
	}
	d.health.mended("the spill %s belongs to another store; it is %s now, and a new one was made", d.place.Spill, name)
	return d.spill.setID(d.bolt.id)
}

// openMarker finds out whether the store is where it was, and as it was left.
func (d *Durable) openMarker() error {
	if d.place.Instance == "" {
		return nil
	}
	m, isNew, err := openMarker(d.place.Instance, d.bolt.id, openTimeout)
	if errors.Is(err, oauth.ErrStoreInUse) {
		return fmt.Errorf("a copy of this store is open: %w", err)
	}
	if err != nil {
		d.health.mended("no marker can be kept (%v): if this store is copied or restored, nobody will notice", err)
		return nil
	}
	d.marker = m
	if m.sequence > d.sequence {
		d.health.mended("the store is older than what was written here last (%d saves are missing); "+
			"its refresh tokens may be spent and aren't used until `caddy bearer adopt <account>`", m.sequence-d.sequence)
		if err := m.renew(); err != nil {
			d.health.mended("the marker can't be written (%v): this is found again at the next start", err)
		}
		return nil
	}
	if isNew && d.sequence > 0 {
		d.health.mended("the store was written by another installation, or the marker in %s was lost; "+
			"refresh tokens in it are not used until `caddy bearer adopt <account>`", d.place.Instance)
	}
	return nil
}

func (d *Durable) closeFiles() error {
	var errs []error
	if d.marker != nil {
		errs = append(errs, d.marker.close())
	}
	if d.spill != nil {
		errs = append(errs, d.spill.close())
	}
	if d.bolt != nil {
		errs = append(errs, d.bolt.Close())
	}
	d.closed = true
	d.health.stop()
	return errors.Join(errs...)
}

// openOrRenewSpill opens the spill; one that is damaged is set aside first,
// unless it was given by name and looks like something else. The given id, if
// any, is what it must have.
func (d *Durable) openOrRenewSpill(id storeID) (s *spill, notes []string, err error) {
	path := d.place.Spill
	s, err = openSpill(path)
	if errors.Is(err, errDamaged) && (!d.spillNamed || looksLikeSpill(path)) {
		name, asideErr := setAside(path, "damaged")
		if asideErr != nil {
			return nil, nil, asideErr
		}
		notes = append(notes, fmt.Sprintf("the spill %s was damaged; it is %s now, and a new one is made from the database", path, name))
		s, err = openSpill(path)
	}
	if err != nil {
		return nil, nil, err
	}
	if n := s.damagedSlots(); n > 0 {
		notes = append(notes, fmt.Sprintf("%d places of the spill %s were damaged and are not used", n, path))
	}
	if id != (storeID{}) {
		if s.id() == (storeID{}) {
			err = s.setID(id)
		} else if s.id() != id {
			err = fmt.Errorf("the spill %s belongs to another store", path)
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return s, notes, nil
}

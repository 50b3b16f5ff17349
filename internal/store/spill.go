package store

import (
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// spill is a small file beside the database, best on another file system, that
// keeps the newest image of every session and the one before it. What it keeps
// can be read without the database, and a save of a session that it knows needs
// no more of the disk than it has: a full disk doesn't stop it where blocks are
// overwritten in place, which a copy-on-write file system (btrfs, ZFS) doesn't
// do. It takes values as they are; they come sealed.
//
// One process has it open. It is safe for concurrent use.
//
// A write that fails leaves it open whether it took effect, and what the kernel
// still holds of it may never reach the disk. The file is then opened anew
// before the next call, so that it tells what is durable; as long as that
// fails, settle and all calls with an error say why, and the others return
// nothing.
type spill struct {
	path string

	mu     sync.Mutex
	file   *spillFile // nil while it can't be reopened
	closed bool
	doubt  bool
	// unsynced is what was written since the last sync that succeeded.
	unsynced []run
	header   spillHeader
	highest  uint64 // sequence
	damaged  int
	layout   *layout
	// unreadable runs are left alone until a remove.
	unreadable []run

	// trace, if a test sets it, is told of every write, and with nil of every
	// sync that succeeded.
	trace func(b []byte, start int64)
}

// openSpill opens the spill file at path; if there is none, it is created with
// mode 0600, its directory with 0700. It refuses what OpenBolt refuses. An error
// wraps errDamaged if the content can't be that of a spill file, or no longer;
// damage to single slots is no error, but takes the images in them away.
func openSpill(path string) (*spill, error) {
	return openSpillFor(path, openTimeout)
}

func openSpillFor(path string, timeout time.Duration) (*spill, error) {
	abs, err := filepath.Abs(path) // must outlive a change of directory
	if err != nil {
		return nil, fmt.Errorf("opening spill file %s: %w", path, err)
	}
	s := &spill{path: abs}
	err = createSpill(abs)
	if err == nil {
		err = s.open(timeout)
	}
	if err != nil {
		return nil, fmt.Errorf("opening spill file %s: %w", abs, err)
	}
	return s, nil
}

// settle makes sure that what can be read now is durable. Without doubt about
// that it does nothing.
func (s *spill) settle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settleLocked()
}

// id returns the id of the store that the file belongs to, zero in a new one.
func (s *spill) id() storeID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.header.id
}

// setID is durable when it returns.
func (s *spill) setID(id storeID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.settleLocked(); err != nil {
		return err
	}
	h := s.header
	h.id, h.count = id, h.count+1
	for i := range spillHeaderAt { // a torn write must not hit both
		if err := s.writeHeader(&h, i); err != nil {
			return err
		}
		failpoint.Hit("spill-header-unsynced")
		if err := s.sync(); err != nil {
			return err
		}
	}
	s.header = h
	return nil
}

// damagedSlots returns how many slots could not be used because of their
// content or because they can't be read, counted since the file was opened. A
// power cut during a save can leave one without any loss.
func (s *spill) damagedSlots() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damaged
}

// images returns the images of a key, the newest first, at most two. The caller
// owns them.
func (s *spill) images(key oauth.Key) []image {
	s.mu.Lock()
	defer s.mu.Unlock()
	for attempt := 0; ; attempt++ {
		if s.settleLocked() != nil {
			return nil
		}
		images, ok := s.read(key)
		if ok || attempt == 1 {
			return images
		}
		s.doubt = true // the file changed under us; see what is left of it
	}
}

// read is images without a second look; ok means that none is damaged.
func (s *spill) read(key oauth.Key) (images []image, ok bool) {
	e := s.layout.entries[key]
	ok = true
	for _, at := range []slot{e.newest, e.second} {
		if at.blocks == 0 {
			continue
		}
		im := s.file.readImage(at, s.header.salt)
		if im == nil || im.key != key || im.generation != at.generation || im.sequence != at.sequence {
			ok = false
			continue
		}
		images = append(images, *im)
	}
	return images, ok
}

// keys returns the keys that have images, ordered by account, then by user.
func (s *spill) keys() []oauth.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settleLocked() != nil {
		return nil
	}
	return s.layout.keys()
}

// sequence returns the highest sequence seen, of removed images, too. It
// doesn't become lower while the file is in order.
func (s *spill) sequence() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.settleLocked() // what was seen before is an answer, too
	return s.highest
}

// close releases the file.
func (s *spill) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("closing spill file %s: %w", s.path, oauth.ErrStoreClosed)
	}
	s.closed = true
	if s.file == nil {
		return nil
	}
	if err := s.file.close(); err != nil {
		return fmt.Errorf("closing spill file %s: %w", s.path, err)
	}
	return nil
}

// newest tells the sequence of a key's newest image, 0 if there is none; it
// doesn't look into the file.
func (s *spill) newest(key oauth.Key) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layout == nil {
		return 0
	}
	return s.layout.entries[key].newest.sequence
}

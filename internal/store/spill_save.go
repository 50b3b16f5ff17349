package store

import (
	"errors"
	"fmt"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// save stores the next image of a key, durably before it returns, and leaves the
// newest one as it is. An image that is older than that, by generation and then
// by sequence, changes nothing and gives an error that wraps oauth.ErrConflict;
// a generation may be left out or come again. It doesn't keep the value.
func (s *spill) save(im image) error {
	if k := len(encodeKey(im.key)); k > longestDBKey || len(im.value) > longestRecord-generationSize {
		return fmt.Errorf("saving a key of %d and a value of %d bytes: too long", k, len(im.value))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.saveLocked(&im); err != nil {
		return fmt.Errorf("saving %q in spill file %s: %w", im.key, s.path, err)
	}
	return nil
}

func (s *spill) saveLocked(im *image) error {
	if err := s.settleLocked(); err != nil {
		return err
	}
	newest := s.layout.entries[im.key].newest
	if im.generation == 0 || newest.newer(slot{generation: im.generation, sequence: im.sequence}) > 0 {
		return fmt.Errorf("%w: generation %d can't follow %d", oauth.ErrConflict, im.generation, newest.generation)
	}
	p, missing := s.layout.place(im)
	if missing > 0 {
		if err := s.grow(missing); err == nil {
			p, _ = s.layout.place(im)
		} else if s.doubt || p.at.blocks == 0 {
			return err
		}
	}
	b := encodeImage(im, p.at, s.header.salt)
	failpoint.Hit("spill-unwritten")
	if err := s.write(b, p.at.start); err != nil {
		return err
	}
	failpoint.Hit("spill-unsynced")
	if err := s.sync(); err != nil {
		return err
	}
	failpoint.Hit("spill-synced")
	s.layout.placed(im.key, p)
	s.highest = max(s.highest, im.sequence)
	// The image is durable; what fails from here on, raises doubt at most.
	for _, r := range p.freed {
		if s.zero(r) == nil {
			s.layout.release(r)
		}
	}
	if p.fresh.blocks > 0 && !s.doubt && !s.layout.roomy() {
		_ = s.grow(spillExtent) // as long as there is room on the disk
	}
	return nil
}

// remove removes every image of a key, durably before it returns. A key that has
// none is no error. If it is cut short, the newest image is there or none.
func (s *spill) remove(key oauth.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.removeLocked(key); err != nil {
		return fmt.Errorf("removing %q from spill file %s: %w", key, s.path, err)
	}
	return nil
}

func (s *spill) removeLocked(key oauth.Key) error {
	if err := s.settleLocked(); err != nil {
		return err
	}
	e, ok := s.layout.entries[key]
	if !ok && len(s.unreadable) == 0 && len(s.unsynced) == 0 {
		return nil
	}
	h := s.header
	if s.highest > h.sequence {
		h.sequence, h.count = s.highest, h.count+1
	}
	// What can't be read may be an image of this key that can be read one day.
	first := append([]slot{e.second}, slotsOf(s.unreadable)...)
	for i, slots := range [][]slot{first, {e.newest}} {
		err := s.writeHeader(&h, i)
		for _, at := range slots {
			if at.blocks > 0 {
				err = errors.Join(err, s.zero(at.run))
			}
		}
		if err != nil {
			return err
		}
		if err := s.sync(); err != nil {
			return err
		}
	}
	s.header = h
	delete(s.layout.entries, key)
	for _, at := range append(first, e.newest, e.spare) {
		if at.blocks > 0 {
			s.layout.release(at.run)
		}
	}
	s.unreadable = nil
	return nil
}

func slotsOf(runs []run) []slot {
	var slots []slot
	for _, r := range runs {
		slots = append(slots, slot{run: r})
	}
	return slots
}

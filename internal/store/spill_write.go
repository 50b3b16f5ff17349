package store

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// settleLocked is settle with s.mu held.
func (s *spill) settleLocked() error {
	if s.closed {
		return oauth.ErrStoreClosed
	}
	if s.file != nil && !s.doubt {
		return nil
	}
	if s.file != nil {
		_ = s.file.close() // it is given up whatever it says
		s.file = nil
	}
	// Our own lock was just released; nobody is worth waiting for.
	if err := s.open(100 * time.Millisecond); err != nil {
		return fmt.Errorf("opening spill file %s again after a failure: %w", s.path, err)
	}
	return nil
}

// open opens the file and finds out what is in it.
func (s *spill) open(timeout time.Duration) error {
	file, err := openSpillFile(s.path, timeout)
	if err != nil {
		return err
	}
	s.file = file
	if err := s.load(); err != nil {
		_ = file.close()
		s.file = nil
		return err
	}
	s.doubt = false
	return nil
}

// load reads the file and puts it in order. What isn't used afterwards is zero,
// so that no image that was dropped shows up again.
func (s *spill) load() error {
	h, at, err := s.file.readHeaders()
	if err != nil {
		return err
	}
	if s.header.count > 0 && h.salt != s.header.salt {
		return errors.New("it was replaced by another one")
	}
	blocks, err := s.file.wholeLength()
	if err != nil {
		return err
	}
	own := s.unsynced
	// The kernel may show what it could not write, and take it for written.
	for _, r := range slices.Clone(own) {
		if err := s.rewrite(r); err != nil {
			return err
		}
	}
	if err := s.sync(); err != nil { // never both headers at a time
		return err
	}
	if at >= 0 {
		if err := errors.Join(s.writeHeader(h, 1-at), s.sync()); err != nil {
			return err
		}
	}
	failpoint.Hit("spill-unscanned")
	scan := scanSpill(s.file, blocks, h.salt)
	for _, r := range scan.damaged {
		if !slices.ContainsFunc(own, r.overlaps) {
			s.damaged++ // else it is a write of ours that failed
		}
	}
	for _, r := range scan.unreadable {
		if !slices.Contains(s.unreadable, r) {
			s.damaged++
		}
	}
	layout, stale := arrange(blocks, scan.images, scan.unreadable)
	s.highest = max(s.highest, h.sequence)
	for _, im := range scan.images {
		s.highest = max(s.highest, im.sequence)
	}
	if s.highest > max(h.sequence, layout.sequence()) { // it is of an image that won't stay
		h.sequence, h.count = s.highest, h.count+1
		if err := errors.Join(s.writeHeader(h, 0), s.sync()); err != nil {
			return err
		}
	}
	for _, r := range slices.Concat(stale, scan.damaged) {
		if err := s.zero(r); err != nil {
			return err
		}
	}
	if err := s.sync(); err != nil {
		return err
	}
	failpoint.Hit("spill-arranged")
	s.header, s.layout, s.unreadable = *h, layout, scan.unreadable
	return nil
}

// rewrite writes what can be read of a run once more.
func (s *spill) rewrite(r run) error {
	b := make([]byte, r.blocks*spillBlock)
	if err := readBlocks(s.file, b, r.start); err != nil {
		return nil // the scan says the rest
	}
	return s.write(b, r.start)
}

// grow makes the file longer by at least so many blocks.
func (s *spill) grow(missing int64) error {
	blocks := (missing + spillExtent - 1) / spillExtent * spillExtent
	err := extend(s.file.File, s.layout.blocks, blocks)
	if err == nil {
		s.layout.grown(blocks)
		return nil
	}
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		s.doubt = true
	}
	return fmt.Errorf("making it longer: %w", err)
}

func (s *spill) writeHeader(h *spillHeader, i int) error {
	return s.write(h.encode(), spillHeaderAt[i])
}

func (s *spill) zero(r run) error {
	zeros := make([]byte, min(r.blocks, spillChunk)*spillBlock)
	for done := int64(0); done < r.blocks; done += spillChunk {
		part := zeros[:min(r.blocks-done, spillChunk)*spillBlock]
		if err := s.write(part, r.start+done); err != nil {
			return err
		}
	}
	return nil
}

// write writes whole blocks, which aren't durable before the next sync.
func (s *spill) write(b []byte, start int64) error {
	r := run{start, int64(len(b)) / spillBlock}
	if !slices.Contains(s.unsynced, r) {
		s.unsynced = append(s.unsynced, r)
	}
	if s.trace != nil {
		s.trace(b, start)
	}
	if _, err := s.file.WriteAt(b, start*spillBlock); err != nil {
		s.doubt = true
		return err
	}
	return nil
}

// sync makes durable what was written.
func (s *spill) sync() error {
	if len(s.unsynced) == 0 {
		return nil
	}
	if err := syncData(s.file.File); err != nil {
		// The next sync would succeed without having written anything.
		s.doubt = true
		return fmt.Errorf("syncing: %w", err)
	}
	if s.trace != nil {
		s.trace(nil, 0)
	}
	s.unsynced = nil
	return nil
}

package store

import (
	"bytes"
	"errors"
	"io"
	"slices"
)

// spillScan reads all of a spill file.
type spillScan struct {
	file   io.ReaderAt
	blocks int64
	salt   [16]byte

	images     []found
	damaged    []run // neither zero nor part of an image
	unreadable []run

	chunk      []byte // blocks from chunkStart on
	chunkStart int64
	big        []byte // for images that aren't in the chunk
}

const spillChunk = 256 // blocks that are read at once

var zeroBlock [spillBlock]byte

// scanSpill goes through the file image by image, and block by block where
// there is none. What can't be read is no error: the rest counts.
func scanSpill(file io.ReaderAt, blocks int64, salt [16]byte) *spillScan {
	s := &spillScan{file: file, blocks: blocks, salt: salt}
	for i := int64(0); i < blocks; {
		if slices.Contains(spillHeaderAt[:], i) {
			i++
			continue
		}
		b, err := s.block(i)
		if err != nil {
			s.unreadable = addBlock(s.unreadable, i, false)
			i++
			continue
		}
		if im, ok := s.image(i, b); ok {
			s.images = append(s.images, im)
			i = im.end()
			continue
		}
		if !bytes.Equal(b, zeroBlock[:]) {
			s.damaged = addBlock(s.damaged, i, bytes.HasPrefix(b, []byte(spillImageMagic)))
		}
		i++
	}
	return s
}

// addBlock adds a block to the run that ends before it, or to a new one.
func addBlock(runs []run, i int64, begins bool) []run {
	if n := len(runs); n > 0 && runs[n-1].end() == i && !begins {
		runs[n-1].blocks++
		return runs
	}
	return append(runs, run{i, 1})
}

func (s *spillScan) block(i int64) ([]byte, error) {
	if n := int64(len(s.chunk)) / spillBlock; i < s.chunkStart || i >= s.chunkStart+n {
		n = min(spillChunk, s.blocks-i)
		if s.chunk == nil {
			s.chunk = make([]byte, n*spillBlock)
		}
		s.chunk, s.chunkStart = s.chunk[:n*spillBlock], i
		if readBlocks(s.file, s.chunk, i) != nil {
			s.chunk = s.chunk[:spillBlock] // one of them; find out which
			if err := readBlocks(s.file, s.chunk, i); err != nil {
				s.chunk = s.chunk[:0]
				return nil, err
			}
		}
		return s.chunk[:spillBlock], nil
	}
	return s.chunk[(i-s.chunkStart)*spillBlock:][:spillBlock], nil
}

// readBlocks fills b from a block on. The file may end before.
func readBlocks(file io.ReaderAt, b []byte, start int64) error {
	n, err := file.ReadAt(b, start*spillBlock)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(b[n:])
	return nil
}

// image returns the image that begins in block i, if it is whole.
func (s *spillScan) image(i int64, b []byte) (found, bool) {
	at, length, ok := imageLength(b, i, s.salt)
	if !ok || at.end() > s.blocks || i < spillHeaderAt[1] && at.end() > spillHeaderAt[1] {
		return found{}, false
	}
	if in := s.chunk[(i-s.chunkStart)*spillBlock:]; int64(len(in)) >= length {
		b = in[:length]
	} else {
		s.big = slices.Grow(s.big[:0], int(length))[:length]
		b = s.big
		if readBlocks(s.file, b, i) != nil {
			return found{}, false
		}
	}
	im := decodeImage(b)
	if im == nil {
		return found{}, false
	}
	return found{at, im.key}, true
}

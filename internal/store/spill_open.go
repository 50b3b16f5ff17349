package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
)

// createSpill makes an empty spill file if there is none at path, in the way of
// createFile: a crash or a power cut leaves all or nothing.
func createSpill(path string) error {
	dir, base := filepath.Split(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("creating the directory: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err // nil if there is something
	}
	tmp, err := os.CreateTemp(dir, "."+base+".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("creating the file: %w", err)
	}
	defer os.Remove(tmp.Name())
	failpoint.Hit("spill-unfilled")
	err = fillSpill(tmp)
	failpoint.Hit("spill-unnamed")
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = nameFile(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("creating the file: %w", err)
	}
	// The directory may be new, too.
	return SyncDirs(dir)
}

func fillSpill(file *os.File) error {
	if err := extend(file, 0, spillInitial); err != nil {
		return err
	}
	h := spillHeader{count: 1}
	rand.Read(h.salt[:])
	for _, at := range spillHeaderAt {
		if _, err := file.WriteAt(h.encode(), at*spillBlock); err != nil {
			return err
		}
	}
	return file.Sync()
}

// extend makes the file longer by a number of blocks, which the disk has set
// aside when it returns, or leaves it as it was as well as it can.
func extend(file *os.File, from, blocks int64) error {
	// Says early that there is no room. Zeros are written nevertheless: to
	// overwrite them later changes nothing but data, so that a sync is cheap and
	// needs no room for the file system's own notes.
	err := allocate(file, from*spillBlock, blocks*spillBlock)
	zeros := make([]byte, min(blocks, spillChunk)*spillBlock)
	for done := int64(0); err == nil && done < blocks; done += spillChunk {
		part := zeros[:min(blocks-done, spillChunk)*spillBlock]
		_, err = file.WriteAt(part, (from+done)*spillBlock)
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		err = errors.Join(err, file.Truncate(from*spillBlock))
	}
	return err
}

// spillFile is the open file, locked.
type spillFile struct{ *os.File }

// openSpillFile opens a file that exists, and waits until timeout for another
// process to let go of it.
func openSpillFile(path string, timeout time.Duration) (*spillFile, error) {
	f, err := openChecked(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	file := &spillFile{f}
	if err := lockFile(f, timeout); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking it: %w", err)
	}
	// Whoever had it may have moved it away.
	named, err := os.Lstat(path)
	if err == nil {
		var opened fs.FileInfo
		if opened, err = f.Stat(); err == nil && !os.SameFile(named, opened) {
			err = errors.New("the file was replaced while it was being opened")
		}
	}
	if err != nil {
		_ = file.close()
		return nil, err
	}
	return file, nil
}

func (f *spillFile) close() error {
	unlockFile(f.File)
	return f.Close()
}

// readHeaders returns the newer one of the two headers, and which of them that
// is if the other isn't the same, else -1.
func (f *spillFile) readHeaders() (h *spillHeader, at int, err error) {
	var one [2]*spillHeader
	var errs [2]error
	for i, at := range spillHeaderAt {
		b := make([]byte, spillBlock)
		if errs[i] = readBlocks(f, b, at); errs[i] == nil {
			one[i], errs[i] = decodeSpillHeader(b)
		}
	}
	switch {
	case one[0] != nil && one[1] != nil && *one[0] == *one[1]:
		return one[0], -1, nil
	case one[0] != nil && (one[1] == nil || one[1].count <= one[0].count):
		return one[0], 0, nil
	case one[1] != nil:
		return one[1], 1, nil
	case errors.Is(errs[0], errSpillHeader) && errors.Is(errs[1], errSpillHeader):
		return nil, 0, fmt.Errorf("%w: %w", errDamaged, errSpillHeader)
	default:
		return nil, 0, errors.Join(errs[:]...)
	}
}

// wholeLength returns the length of the file in blocks. A file that was cut off
// is made a number of extents long again.
func (f *spillFile) wholeLength() (blocks int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	if size > longestSpill {
		return 0, fmt.Errorf("%w: it can't be %d bytes long", errDamaged, size)
	}
	blocks = (size + spillBlock - 1) / spillBlock
	if size%spillBlock != 0 {
		if err := f.Truncate(blocks * spillBlock); err != nil {
			return 0, err
		}
	}
	if rest := blocks % spillExtent; rest != 0 {
		if err = extend(f.File, blocks, spillExtent-rest); err == nil {
			blocks += spillExtent - rest
		}
	}
	if blocks < spillExtent {
		return 0, err // no room for the second header
	}
	return blocks, nil
}

func (f *spillFile) readImage(at slot, salt [16]byte) *image {
	b := make([]byte, at.blocks*spillBlock)
	if readBlocks(f, b, at.start) != nil {
		return nil
	}
	found, length, ok := imageLength(b, at.start, salt)
	if !ok || found != at {
		return nil
	}
	return decodeImage(b[:length])
}

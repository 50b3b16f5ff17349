package store

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
)

// A marker is a small file outside of the store that says which installation
// writes it, and how far it has come: a store that was copied to another
// machine finds none there, one that was restored from a backup finds that it
// is behind. It is one line of text,
//
//	caddy-bearer instance <32 hex digits> <20 digits> <8 hex digits>
//
// the instance, the store's sequence and a checksum of what is before it.
type marker struct {
	file     *os.File
	instance string
	sequence uint64
}

const (
	markerForm = "caddy-bearer instance %s %020d"
	markerSize = len("caddy-bearer instance ") + 32 + 1 + 20 + 1 + 8 + 1
)

// openMarker opens the marker of a store in a directory. If there is none, or
// it can't be read, a new one is made, with a new instance: then isNew is set.
func openMarker(dir string, store storeID, timeout time.Duration) (m *marker, isNew bool, err error) {
	path := filepath.Join(dir, hex.EncodeToString(store[:])+".instance")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, false, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|noFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createMarker(path); err != nil {
			return nil, false, fmt.Errorf("creating %s: %w", path, err)
		}
		isNew = true
		f, err = os.OpenFile(path, os.O_RDWR|noFollow, 0)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) { // what it says counts all the same
		f, err = os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	}
	if err != nil {
		return nil, false, err
	}
	m = &marker{file: f}
	if err = lockFile(f, timeout); err == nil {
		if err = m.read(); err != nil {
			isNew, err = true, m.renew() // damaged
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, false, fmt.Errorf("using %s: %w", path, err)
	}
	return m, isNew, nil
}

// createMarker makes a marker that is there whole or not at all.
func createMarker(path string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".instance-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	m := &marker{file: tmp}
	if err := errors.Join(m.renew(), tmp.Close()); err != nil {
		return err
	}
	failpoint.Hit("marker-unnamed")
	if err := nameFile(tmp.Name(), path); err != nil {
		return err
	}
	failpoint.Hit("marker-named")
	return SyncDirs(filepath.Dir(path))
}

var errMarker = errors.New("the marker can't be read")

func (m *marker) read() error {
	line := make([]byte, markerSize)
	if _, err := m.file.ReadAt(line, 0); err != nil {
		return err
	}
	got := &marker{}
	if _, err := fmt.Sscanf(string(line), markerForm, &got.instance, &got.sequence); err != nil || !bytes.Equal(got.line(), line) {
		return errMarker
	}
	m.instance, m.sequence = got.instance, got.sequence
	return nil
}

func (m *marker) line() []byte {
	line := fmt.Appendf(nil, markerForm, m.instance, m.sequence)
	return fmt.Appendf(line, " %08x\n", crc32.ChecksumIEEE(line))
}

// renew makes it the marker of a new instance.
func (m *marker) renew() error {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	m.instance, m.sequence = hex.EncodeToString(id[:]), 0
	if _, err := m.file.WriteAt(m.line(), 0); err != nil {
		return err
	}
	return m.file.Sync()
}

// note takes down how far the store has come. It isn't synced: after a power
// cut the marker may be behind the store, never before it.
func (m *marker) note(sequence uint64) {
	m.sequence = sequence
	_, _ = m.file.WriteAt(m.line(), 0) // without it only less is noticed
}

// close gives the marker up.
func (m *marker) close() error {
	unlockFile(m.file)
	return m.file.Close()
}

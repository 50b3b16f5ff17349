package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/failpoint"
)

// This file sets damaged files aside; nothing is ever thrown away.

// renewDatabase sets a damaged database aside and makes an empty one.
func renewDatabase(path string, id storeID) (*Bolt, string, error) {
	name, err := setAside(path, "damaged")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // an attempt before this one came so far
		return nil, "", err
	}
	b, err := openBoltAs(id, path, openTimeout)
	failpoint.Hit("database-renewed")
	return b, fmt.Sprintf("the database %s was damaged; it is %s now, and a new one is made from the spill", path, name), err
}

// setAside gives a file a name that tells what it is and since when, and
// returns it.
func setAside(path, what string) (string, error) {
	base := path + "." + what + "-" + time.Now().UTC().Format("20060102T150405Z")
	name := base
	for i := 2; ; i++ {
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			break
		}
		name = fmt.Sprintf("%s.%d", base, i)
	}
	failpoint.Hit("aside-due")
	if err := os.Rename(path, name); err != nil {
		return "", fmt.Errorf("setting aside: %w", err)
	}
	failpoint.Hit("aside-done")
	return name, syncDir(filepath.Dir(path))
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return a == b
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// looksLikeSpill reports whether a file may have been a spill.
func looksLikeSpill(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, at := range spillHeaderAt {
		magic := make([]byte, len(spillHeaderMagic))
		if _, err := f.ReadAt(magic, at*spillBlock); err == nil && string(magic) == spillHeaderMagic {
			return true
		}
	}
	info, err := f.Stat()
	return err == nil && info.Size() == 0
}

// looksLikeBolt reports whether a file may have been a database of ours: what
// surely never was must not be moved about.
func looksLikeBolt(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return false
	}
	headers := make([]byte, 2*os.Getpagesize())
	if n, _ := f.ReadAt(headers, 0); len(bytes.Trim(headers[:n], "\x00")) == 0 {
		return true // it is empty, or the disk has lost both, though not all that came after
	}
	for _, page := range []int64{0, 4096, 8192, 16384, 65536} {
		magic := make([]byte, 4)
		if _, err := f.ReadAt(magic, page+16); err == nil && string(magic) == "\xed\xda\x0c\xed" {
			return true
		}
	}
	return false
}

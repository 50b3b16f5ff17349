package store

import (
	"errors"
	"os"
	"syscall"
)

// allocate has the file system set blocks aside for a part of a file, if it can
// do that; the file becomes longer then.
func allocate(f *os.File, from, length int64) error {
	err := retry(func() error { return syscall.Fallocate(int(f.Fd()), 0, from, length) })
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// syncData makes the content of a file durable whose length doesn't change.
func syncData(f *os.File) error {
	return retry(func() error { return syscall.Fdatasync(int(f.Fd())) })
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

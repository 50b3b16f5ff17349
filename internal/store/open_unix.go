//go:build unix && !aix && !solaris

package store

import (
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// noFollow makes an open fail on a symbolic link.
const noFollow = syscall.O_NOFOLLOW

// hasModes says whether the mode bits of files mean anything here.
const hasModes = true

// hasLocks says whether [lockFile] does something.
const hasLocks = true

// Owner returns the ids of the user and the group whose file it is, and ok if the
// system has such.
func Owner(info fs.FileInfo) (uid, gid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}

// lockFile takes the file's lock, which is one process's until it closes the
// file, or returns [oauth.ErrStoreInUse] if another one has it until timeout.
func lockFile(f *os.File, timeout time.Duration) error {
	for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EWOULDBLOCK {
			return err
		}
		if !time.Now().Before(end) {
			return oauth.ErrStoreInUse
		}
	}
}

// unlockFile gives up the lock that bbolt took. Closing the file isn't enough
// while it is still mapped.
func unlockFile(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

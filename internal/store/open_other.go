//go:build !unix || aix || solaris

package store

import (
	"io/fs"
	"os"
	"runtime"
	"time"
)

const (
	noFollow = 0
	hasLocks = false
	hasModes = runtime.GOOS != "windows"
)

// Owner can't tell here.
func Owner(fs.FileInfo) (uid, gid int, ok bool) { return 0, 0, false }

func lockFile(*os.File, time.Duration) error { return nil }

func unlockFile(*os.File) {}

func syncDir(string) error { return nil }

//go:build !unix || aix || solaris

package store

import (
	"io/fs"
	"os"
	"runtime"
)

const (
	noFollow = 0
	hasModes = runtime.GOOS != "windows"
)

func owner(fs.FileInfo) (uid int, ok bool) { return 0, false }

func unlockFile(*os.File) {}

func syncDir(string) error { return nil }

//go:build linux && !failpoint

package main

import "syscall"

// hideMemory keeps secrets in memory from other processes of the same user, and
// from core dumps: nobody but root may trace this process then, or read its
// memory and environment under /proc. A kernel that refuses leaves it as it was.
func hideMemory() {
	_, _, _ = syscall.Syscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0)
}

//go:build !failpoint || !unix

package failpoint

import "io"

// Hit does nothing without the build tag failpoint.
func Hit(name string) {}

// Reader returns r without the build tag failpoint.
func Reader(name string, r io.Reader) io.Reader { return r }

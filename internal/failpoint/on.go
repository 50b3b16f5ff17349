//go:build failpoint && unix

package failpoint

import (
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// variable names the file that holds the name of the armed point.
const variable = "CADDY_BEARER_FAILPOINT"

// count tells how often the armed point was reached since it was armed.
var count struct {
	sync.Mutex
	armed string
	hits  int
}

// Hit kills the process with SIGKILL if the point is armed, and doesn't return
// then.
func Hit(name string) {
	file := os.Getenv(variable)
	if file == "" {
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if reached(name, strings.TrimSpace(string(text))) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// reached counts a hit and reports whether it is the one that is armed.
func reached(name, armed string) bool {
	count.Lock()
	defer count.Unlock()
	if armed != count.armed {
		count.armed, count.hits = armed, 0
	}
	point, nth, numbered := strings.Cut(armed, "#")
	if point != name {
		return false
	}
	count.hits++
	n := 1
	if numbered {
		n, _ = strconv.Atoi(nth) // nonsense is never reached
	}
	return count.hits == n
}

// Reader returns r with a point after each of its reads that brought bytes, but
// not the end.
func Reader(name string, r io.Reader) io.Reader { return reader{r, name} }

type reader struct {
	io.Reader
	name string
}

func (r reader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if n > 0 && err == nil {
		Hit(r.name)
	}
	return n, err
}

package reliability

import (
	"flag"
	"os"
	"testing"
)

// atEnd are what the tests of this package leave for its end, such as a binary
// that all of them run.
var atEnd []func()

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	for _, f := range atEnd {
		f()
	}
	os.Exit(code)
}

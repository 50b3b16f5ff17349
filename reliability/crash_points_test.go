//go:build linux

package reliability

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A window is a part of one refresh, by what is true when the process dies
// there.
type window string

const (
	beforeSend window = "W0" // nothing has left for the server
	sent       window = "W1" // something has, and the server has not acted
	acted      window = "W2" // the server rotated, and its answer is not here
	inMemory   window = "W3" // the answer is here, and nowhere durable
	durable    window = "W4" // the answer is durable, and nobody was told
	done       window = "W5" // somebody was told
	starting   window = "start"
	reloaded   window = "reload"
	stopping   window = "stop"
	anywhere   window = "any"
)

// losing reports the windows in which the only copy of a token may be lost, and
// no client could do better.
func (w window) losing() bool { return w == acted || w == inMemory }

// A crash is one way to die: at a point in the source, or by the harness's hand
// when the server has come to a stage.
type crash struct {
	point  string // a name in the source, with #n for the nth time; or what the harness calls it
	window window

	// outside: the harness kills when the server has come to hold.
	outside bool
	// hold is where the server waits until the process is dead, and acts
	// whether it goes on then.
	hold sandbox.Stage
	acts bool

	// after is a crash before the one meant: a point of a start is reached
	// with what that one left behind.
	after string
	// finds is what else the start finds.
	finds string
	// signin: the server has revoked the refresh token before, so that the
	// password is needed anyhow.
	signin bool
	// never says why no run reaches the point.
	never string
}

// What a start finds, apart from what a crash left.
const (
	noStore         = "no store"
	noDatabase      = "no database"
	noSpill         = "no spill"
	damagedDatabase = "a damaged database"
	damagedSpill    = "a damaged spill"
)

// crashes are all of them, in the order in which a refresh comes by.
var crashes = []crash{
	{point: "flight-started", window: beforeSend},
	{point: "flight-locked", window: beforeSend},
	{point: "records-loaded", window: beforeSend},
	{point: "move-decided", window: beforeSend},
	{point: "intent-unsaved", window: beforeSend},
	// The intent is saved in the way of the result, see below.
	{point: "records-encoded", window: beforeSend},
	{point: "save-begun", window: beforeSend},
	{point: "entry-sealed", window: beforeSend},
	{point: "spill-unwritten", window: beforeSend},
	{point: "spill-unsynced", window: beforeSend},
	{point: "spill-synced", window: beforeSend},
	{point: "spill-saved", window: beforeSend},
	{point: "transaction-due", window: beforeSend},
	{point: "transaction-begun", window: beforeSend},
	{point: "record-unput", window: beforeSend},
	{point: "transaction-ending", window: beforeSend},
	{point: "transaction-committed", window: beforeSend},
	{point: "transaction-ended", window: beforeSend},
	{point: "database-saved", window: beforeSend},
	{point: "marker-behind", window: beforeSend},
	{point: "marker-noted", window: beforeSend},
	{point: "records-committed", window: beforeSend},
	{point: "records-settled", window: beforeSend},
	{point: "intent-saved", window: beforeSend},
	{point: "endpoint-resolved", window: beforeSend},
	{point: "refresh-begun", window: beforeSend},
	{point: "request-prepared", window: beforeSend},
	{point: "connection-got", window: beforeSend},
	{point: "headers-written", window: beforeSend},
	{point: "request-written", window: beforeSend}, // into the buffer of the connection

	{point: "the server has the request", window: sent, outside: true, hold: sandbox.Received},
	{point: "the server has the request and acts later", window: acted, outside: true, hold: sandbox.Received, acts: true},
	{point: "the server acted", window: acted, outside: true, hold: sandbox.Committed},
	{point: "half of the answer is out", window: acted, outside: true, hold: sandbox.HalfSent},
	{point: "answer-begun", window: acted},
	{point: "answer-headers-read", window: acted},
	{point: "answer-half-read", window: acted, hold: sandbox.HalfSent},

	{point: "answer-body-read", window: inMemory},
	{point: "exchange-done", window: inMemory},
	{point: "request-answered", window: inMemory},
	{point: "answer-judged", window: inMemory},
	{point: "records-encoded#2", window: inMemory},
	{point: "save-begun#2", window: inMemory},
	{point: "entry-sealed#2", window: inMemory},
	{point: "spill-unwritten#2", window: inMemory},

	{point: "spill-unsynced#2", window: durable}, // against a kill: the kernel has it
	{point: "spill-synced#2", window: durable},
	{point: "spill-saved#2", window: durable},
	{point: "transaction-due#2", window: durable},
	{point: "transaction-begun#2", window: durable},
	{point: "record-unput#2", window: durable},
	{point: "transaction-ending#2", window: durable},
	{point: "transaction-committed#2", window: durable},
	{point: "transaction-ended#2", window: durable},
	{point: "database-saved#2", window: durable},
	{point: "marker-behind#2", window: durable},
	{point: "marker-noted#2", window: durable},
	{point: "records-committed#2", window: durable},
	{point: "records-settled#2", window: durable},
	{point: "result-saved", window: durable},
	{point: "token-published", window: durable},
	{point: "flight-landing", window: durable},
	{point: "flight-done", window: done},
	{point: "flight-unlocked", window: done},

	{point: "spill-opening", window: starting},
	{point: "spill-unscanned", window: starting},
	{point: "spill-arranged", window: starting},
	{point: "spill-opened", window: starting},
	{point: "database-opening", window: starting},
	{point: "database-opened", window: starting},
	{point: "files-opened", window: starting},
	{point: "marker-opening", window: starting},
	{point: "keys-unchecked", window: starting},
	{point: "keys-checked", window: starting},
	{point: "mend-begun", window: starting},
	{point: "mend-ended", window: starting},
	{point: "sessions-opened", window: starting},
	{point: "session-loaded", window: starting},
	{point: "sessions-configured", window: starting},

	{point: "database-opening", window: starting, after: "intent-saved"},
	{point: "session-loaded", window: starting, after: "transaction-ended#2"},
	{point: "sessions-configured", window: starting, after: "answer-judged"},
	{point: "intent-saved", window: starting, after: "request-prepared"},

	// Healing: the spill is ahead of the database, or there is only one of them.
	{point: "spill-arranged", window: starting, after: "spill-unsynced#2"},
	{point: "heal-database-due", window: starting, after: "spill-saved#2"},
	{point: "transaction-begun", window: starting, after: "spill-saved#2"},
	{point: "transaction-committed", window: starting, after: "spill-saved#2"},
	{point: "heal-database-done", window: starting, after: "spill-saved#2"},
	{point: "mend-ended", window: starting, after: "spill-saved#2"},
	{point: "heal-spill-due", window: starting, finds: noSpill},
	{point: "spill-unwritten", window: starting, finds: noSpill},
	{point: "spill-unsynced", window: starting, finds: noSpill},
	{point: "spill-synced", window: starting, finds: noSpill},
	{point: "heal-spill-done", window: starting, finds: noSpill},
	{point: "database-unidentified", window: starting, finds: noDatabase},
	{point: "heal-database-due", window: starting, finds: noDatabase},
	{point: "heal-database-done", window: starting, finds: noDatabase},

	// Quarantine.
	{point: "aside-due", window: starting, finds: damagedDatabase},
	{point: "aside-done", window: starting, finds: damagedDatabase},
	{point: "database-creating", window: starting, finds: damagedDatabase},
	{point: "database-renewed", window: starting, finds: damagedDatabase},
	{point: "mend-begun", window: starting, finds: damagedDatabase},
	{point: "heal-database-due", window: starting, finds: damagedDatabase},
	{point: "aside-due", window: starting, finds: damagedSpill},
	{point: "aside-done", window: starting, finds: damagedSpill},
	{point: "spill-unfilled", window: starting, finds: damagedSpill},
	{point: "spill-header-unsynced", window: starting, finds: damagedSpill},
	{point: "spill-header-unsynced#2", window: starting, finds: damagedSpill},
	{point: "heal-spill-due", window: starting, finds: damagedSpill},

	{point: "spill-unfilled", window: starting, finds: noStore},
	{point: "spill-unnamed", window: starting, finds: noStore},
	{point: "database-creating", window: starting, finds: noStore},
	{point: "database-unnamed", window: starting, finds: noStore},
	{point: "database-named", window: starting, finds: noStore},
	{point: "database-unidentified", window: starting, finds: noStore},
	{point: "spill-header-unsynced", window: starting, finds: noStore},
	{point: "marker-opening", window: starting, finds: noStore},
	{point: "marker-unnamed", window: starting, finds: noStore},
	{point: "marker-named", window: starting, finds: noStore},
	{point: "keys-checked", window: starting, finds: noStore},

	{point: "sessions-configured", window: reloaded},

	{point: "drain-begun", window: stopping},
	{point: "drain-landed", window: stopping},
	{point: "store-closing", window: stopping},
	{point: "database-closing", window: stopping},

	{point: "a random moment", window: anywhere, outside: true},

	{point: "records-encoded#3", window: beforeSend, signin: true},
	{point: "spill-unwritten#4", window: inMemory, signin: true},
	{point: "spill-saved#4", window: durable, signin: true},
	{point: "transaction-ended#4", window: durable, signin: true},

	{point: "save-doubted", never: "only after an error of the store"},
	{point: "doubt-closed", never: "only after an error of the disk"},
	{point: "doubt-settled", never: "only after an error of the disk"},
}

// name is what reports call a crash.
func (c crash) name() string {
	name := c.point
	switch {
	case c.window == reloaded:
		name += " at a reload"
	case c.after != "":
		name += " after " + c.after
	case c.finds != "":
		name += " with " + c.finds
	case c.signin:
		name += " of a refused refresh"
	}
	return name
}

// crashAt returns the crash of a refresh at a point.
func crashAt(point string) crash {
	i := slices.IndexFunc(crashes, func(c crash) bool { return c.point == point && c.window != starting })
	return crashes[i]
}

var hit = regexp.MustCompile(`failpoint\.(?:Hit|Reader)\("([^"]*)"`)

// The list has the points of the source, and those only.
func TestPoints(t *testing.T) {
	t.Parallel()
	source := map[string]int{}
	for _, dir := range []string{"../internal/oauth", "../internal/store", "../caddymodule", "../cmd/caddy"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range hit.FindAllSubmatch(text, -1) {
				source[string(m[1])]++
			}
		}
	}
	listed := map[string]bool{}
	seen := map[string]bool{}
	for _, c := range crashes {
		if seen[c.name()] {
			t.Errorf("%s is listed twice", c.name())
		}
		seen[c.name()] = true
		point, _, _ := strings.Cut(c.point, "#")
		if c.outside {
			continue
		}
		listed[point] = true
		if source[point] == 0 {
			t.Errorf("%s is listed and not in the source", point)
		}
	}
	for point, n := range source {
		if !listed[point] {
			t.Errorf("%s is in the source and not listed", point)
		}
		if n != 1 {
			t.Errorf("%s is in the source %d times", point, n)
		}
	}
	if len(source) < 40 {
		t.Errorf("only %d points", len(source))
	}
}

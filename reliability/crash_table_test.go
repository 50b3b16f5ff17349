//go:build linux

package reliability

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// anew is where a run counts whose start finds no store at all: what was in it
// is not the program's loss.
const anew window = "start without a store"

// table is the result of a goal. Unavoidable are the runs after which the
// server's current refresh token was in no file.
func table(name string, all []outcome, failures int, took time.Duration) (string, tableRow) {
	type row = tableRow
	windows := map[window]*row{}
	sum := &row{}
	points := map[string]bool{}
	for _, out := range all {
		in := out.crash.window
		if out.crash.finds == noStore {
			in = anew
		}
		w := windows[in]
		if w == nil {
			w = &row{}
			windows[in] = w
		}
		points[out.crash.point] = true
		for _, r := range []*row{w, sum} {
			r.runs++
			r.kills += out.kills
			r.logins += out.logins
			if out.landed {
				r.landed++
			}
			if out.crash.signin {
				r.revoked++
			}
			if out.lost && out.crash.finds != noStore {
				r.lost++
			}
			if out.last && out.crash.finds != noStore {
				r.unavoidable++
			}
		}
	}
	var s strings.Builder
	fmt.Fprintf(&s, "### %s\n\n%d runs at %d points, %d failures, %.2f s each.\n\n", name, sum.runs, len(points), failures, took.Seconds()/float64(max(sum.runs, 1)))
	fmt.Fprintln(&s, "| window | runs | landed | kills | revoked before | logins | lost | unavoidable |")
	fmt.Fprintln(&s, "|---|---|---|---|---|---|---|---|")
	for _, w := range []window{beforeSend, sent, acted, inMemory, durable, done, starting, anew, reloaded, stopping, anywhere} {
		if r := windows[w]; r != nil {
			fmt.Fprintf(&s, "| %s | %d | %d | %d | %d | %d | %d | %d |\n", w, r.runs, r.landed, r.kills, r.revoked, r.logins, r.lost, r.unavoidable)
		}
	}
	fmt.Fprintf(&s, "| all | %d | %d | %d | %d | %d | %d | %d |\n", sum.runs, sum.landed, sum.kills, sum.revoked, sum.logins, sum.lost, sum.unavoidable)
	fmt.Fprintln(&s)
	for _, c := range crashes {
		if c.never != "" {
			fmt.Fprintf(&s, "- not reached: %s, %s\n", c.point, c.never)
		}
	}
	if w := windows[anew]; w != nil {
		sum.anew = w.logins
	}
	return s.String(), *sum
}

// tableRow counts the runs of a window, or all.
type tableRow struct {
	runs, kills, landed, revoked, logins, lost, unavoidable int
	anew                                                    int // logins of starts without a store
}

// keepTable appends to the file of results, which the first goal begins anew.
func keepTable(t *testing.T, text string) {
	tableOnce.Do(func() { _ = os.Remove(*crashTable) })
	f, err := os.OpenFile(*crashTable, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, text); err != nil {
		t.Fatal(err)
	}
}

var tableOnce sync.Once

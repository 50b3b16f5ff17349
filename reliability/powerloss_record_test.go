//go:build linux

package reliability

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A syscall is one line of strace's, or the two of a call that others came
// between: it begins at one place in the log and ends at another. What isn't
// ended yet, or ends with the process, has no end.
type tracedCall struct {
	name       string
	args       string
	ret        int64
	begin, end int
}

const never = int(^uint(0) >> 1)

// traced are the calls that can change a file, and those that would go past
// the replay: it stops at them and says so.
const traced = "openat,open,creat,close,dup,dup2,dup3,read,lseek,write,pwrite64,writev,pwritev,pwritev2,truncate,ftruncate,fallocate," +
	"fsync,fdatasync,sync,syncfs,sync_file_range,msync,rename,renameat,renameat2,link,linkat,symlinkat,unlink,unlinkat," +
	"mkdir,mkdirat,rmdir,copy_file_range,sendfile,splice,mmap,fchmod,fchmodat"

// needStrace skips a test where strace is missing or may not trace.
func needStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed; run: apt-get install strace")
	}
	if out, err := exec.Command("strace", "-o", os.DevNull, "-e", "trace=none", "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here (ptrace is forbidden?): %v %s", err, out)
	}
}

// record runs a life of the child under strace, on the files below root, and
// returns what it did. With dies, it is killed at the first call of a thread that
// has so many of those that change or sync files behind it.
func record(t *testing.T, root string, dies int, env ...string) []tracedCall {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	go func() { _, _ = io.Copy(io.Discard, r) }()
	args := []string{"-f", "--seccomp-bpf", "-qq", "-xx", "-s", "4000000", "-o", log, "-e", "trace=" + traced}
	if dies > 0 {
		args = append(args, "-e", fmt.Sprintf("inject=pwrite64,fsync,fdatasync,linkat,unlinkat,renameat:signal=KILL:when=%d", dies))
	}
	cmd := exec.CommandContext(t.Context(), "strace", append(args, self)...)
	cmd.Env = append(append(os.Environ(), childRoot+"="+root), env...)
	cmd.ExtraFiles = []*os.File{w}
	if out, err := cmd.CombinedOutput(); err != nil && dies == 0 {
		t.Fatalf("the process whose power is cut failed by itself: %v\n%s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	calls, err := parseStrace(text)
	if err != nil {
		t.Fatal(err)
	}
	return calls
}

// parseStrace reads a log of strace -f -xx. A line is one of
//
//	<thread> <name>(<arguments>) = <result>
//	<thread> <name>(<arguments> <unfinished ...>
//	<thread> <... <name> resumed><arguments>) = <result>
//
// or tells of a signal or of an end. Lines are long: no regular expressions.
func parseStrace(text []byte) ([]tracedCall, error) {
	var calls []tracedCall
	open := map[string]int{} // by thread
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		thread, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		rest = strings.TrimLeft(rest, " ")
		if strings.HasPrefix(rest, "--- ") || strings.HasPrefix(rest, "+++ ") {
			continue
		}
		if strings.Contains(rest, `"...`) {
			return nil, fmt.Errorf("line %d of the strace log was cut short", n)
		}
		if name, begun := strings.CutPrefix(rest, "<... "); begun {
			name, rest, _ := strings.Cut(name, " resumed>")
			i, ok := open[thread]
			args, ret, whole := result(rest)
			if !ok || !whole || calls[i].name != name {
				return nil, fmt.Errorf("line %d of the strace log ends a call that didn't begin: %.200s", n, line)
			}
			delete(open, thread)
			calls[i].args += args
			calls[i].ret, calls[i].end = ret, n
			continue
		}
		name, rest, ok := strings.Cut(rest, "(")
		if name == "???" && strings.HasSuffix(rest, "<detached ...>") {
			continue // the kill came before strace could see which call it was: it wasn't made
		}
		c := tracedCall{name: name, ret: -1, begin: n, end: n}
		var unfinished, whole bool
		if c.args, unfinished = strings.CutSuffix(rest, " <unfinished ...>"); unfinished {
			open[thread] = len(calls)
			c.end = never
		} else {
			c.args, c.ret, whole = result(rest)
		}
		if strings.HasSuffix(rest, " = ?") {
			c.end = never
		}
		if !ok || !unfinished && !whole {
			return nil, fmt.Errorf("line %d of the strace log isn't understood: %.200s", n, line)
		}
		calls = append(calls, c)
	}
	return calls, nil
}

// result splits what comes after the parenthesis of a call.
func result(text string) (args string, ret int64, ok bool) {
	i := strings.LastIndex(text, " = ")
	if i < 0 {
		return "", 0, false
	}
	args, ok = strings.CutSuffix(strings.TrimRight(text[:i], " "), ")")
	value, _, _ := strings.Cut(text[i+3:], " ")
	return args, number(value), ok
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		return -1 // "?": the process ended in it
	}
	return n
}

// fields splits arguments; no text has a comma in it, because of -xx.
func (c tracedCall) fields() []string { return strings.Split(c.args, ", ") }

// number returns an argument that is one.
func (c tracedCall) number(i int) int64 { return number(c.fields()[i]) }

// text returns an argument that is text.
func (c tracedCall) text(i int) []byte {
	quoted := c.fields()[i]
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Trim(quoted, `"`), `\x`, ""))
	if err != nil {
		panic(fmt.Sprintf("%s(%.200s): %v", c.name, c.args, err))
	}
	return b
}

func TestParseStrace(t *testing.T) {
	t.Parallel()
	calls, err := parseStrace([]byte(`10 openat(AT_FDCWD, "\x2f\x61", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5
10 pwrite64(5, "\x61\x62", 2, 4096 <unfinished ...>
11 fdatasync(5)                      = 0
10 <... pwrite64 resumed>)           = 2
11 --- SIGURG {si_signo=SIGURG} ---
11 close(9)                          = -1 EBADF (Bad file descriptor)
10 fsync(5 <unfinished ...>
12 ???( <detached ...>
10 +++ killed by SIGKILL +++
`))
	want := []tracedCall{
		{"openat", `AT_FDCWD, "\x2f\x61", O_RDWR|O_CREAT|O_CLOEXEC, 0600`, 5, 1, 1},
		{"pwrite64", `5, "\x61\x62", 2, 4096`, 2, 2, 4},
		{"fdatasync", "5", 0, 3, 3},
		{"close", "9", -1, 6, 6},
		{"fsync", "5", -1, 7, never},
	}
	if err != nil || fmt.Sprint(calls) != fmt.Sprint(want) {
		t.Fatalf("got %v\n%v, want\n%v", err, calls, want)
	}
	if text := string(calls[1].text(1)); text != "ab" || calls[1].number(3) != 4096 {
		t.Errorf("text %q, offset %d", text, calls[1].number(3))
	}
	for _, bad := range []string{"10 write(5, \"\\x61\"..., 9) = 9\n", "nonsense\n", "10 <... write resumed>) = 1\n"} {
		if _, err := parseStrace([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

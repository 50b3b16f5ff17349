//go:build linux

package reliability

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk mounts a file system of its own, of so many bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount; run: sudo reliability/nightly")
	}
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=700,size="+strconv.Itoa(size)); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skipf("mounting is forbidden here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the room that a disk has; removing the file gives it back.
func fill(t *testing.T, disk string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return ballast
}

// injection is a strace that makes system calls on files of a process fail.
type injection struct {
	cmd *exec.Cmd
	log string
}

// writes are the calls by which a store changes a file.
const writes = "pwrite64,write,fsync,fdatasync,ftruncate,fallocate"

// inject makes calls fail from now on, on the given files alone; when is a
// strace expression such as "2" or "1+", which each thread counts by itself.
func (p *diskProxy) inject(calls, errno, when string, paths ...string) *injection {
	p.Helper()
	i := &injection{log: filepath.Join(p.TempDir(), "strace")}
	args := []string{"-f", "-p", strconv.Itoa(p.cmd.Process.Pid), "-o", i.log,
		"-e", "trace=" + calls, "-e", "inject=" + calls + ":error=" + errno + ":when=" + when}
	for _, path := range paths {
		args = append(args, "-P", path)
	}
	var out bytes.Buffer
	i.cmd = exec.Command("strace", args...)
	i.cmd.Stderr = &out
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := i.cmd.Start(); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(i.end)
	tracer := regexp.MustCompile(`(?m)^TracerPid:\s+([1-9]\d*)$`)
	for deadline := time.Now().Add(10 * time.Second); !p.traced(tracer); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.Fatalf("strace doesn't get hold of the process: %s", out.String())
		}
	}
	return i
}

// traced reports whether all threads are under strace.
func (p *diskProxy) traced(tracer *regexp.Regexp) bool {
	all, _ := filepath.Glob("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/task/*/status")
	for _, status := range all {
		if text, err := os.ReadFile(status); err == nil && !tracer.Match(text) {
			return false
		}
	}
	return len(all) > 0
}

// end lets the process go.
func (i *injection) end() {
	if i.cmd.ProcessState == nil {
		_ = i.cmd.Process.Signal(syscall.SIGINT)
		done := time.AfterFunc(10*time.Second, func() { _ = i.cmd.Process.Kill() })
		_ = i.cmd.Wait()
		done.Stop()
	}
}

// commits counts the syncs that failed where bbolt's alone are traced: a commit
// syncs its data and, if that went well, its meta page.
func (i *injection) commits() (data, meta int) {
	text, _ := os.ReadFile(i.log)
	isMeta := false
	for line := range strings.Lines(string(text)) {
		failed := strings.Contains(line, "(INJECTED)")
		switch {
		case !strings.Contains(line, "fdatasync(") || strings.Contains(line, "unfinished"):
			continue
		case failed && isMeta:
			meta++
		case failed:
			data++
		}
		isMeta = !isMeta && !failed
	}
	return data, meta
}

// failed counts the calls that were made fail so far.
func (i *injection) failed() int {
	text, _ := os.ReadFile(i.log)
	return strings.Count(string(text), "(INJECTED)")
}

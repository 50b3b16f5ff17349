package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Another process of the same user, the legacy application for instance, can
// read neither the environment nor the memory of the server; which itself does
// its work nevertheless. (TM-27)
func TestMemoryIsHidden(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "hidden")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // nobody has to get there
		t.Fatal(err)
	}
	as := func(cmd *exec.Cmd) *exec.Cmd { return cmd }
	if os.Getuid() == 0 { // who may read everything
		const nobody = 65534
		as = func(cmd *exec.Cmd) *exec.Cmd {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			return cmd
		}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	bin := buildCaddy(t)
	address := freeAddress(t)
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, []byte("{\n\tadmin off\n}\nhttp://"+address+" {\n\trespond /metrics 404\n\tmetrics\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	server := as(exec.Command(bin, "run", "--config", config))
	server.Env = []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "SECRET_OF_THE_ENVIRONMENT=x"}
	var out strings.Builder
	server.Stdout, server.Stderr = &out, &out
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	proc := "/proc/" + strconv.Itoa(server.Process.Pid) + "/"
	for _, file := range []string{"environ", "mem", "maps", "auxv"} {
		text, err := as(exec.Command("cat", proc+file)).CombinedOutput()
		var failed *exec.ExitError
		if !errors.As(err, &failed) || !strings.Contains(string(text), "denied") {
			t.Errorf("%s can be read by the same user: %v, %d bytes", file, err, len(text))
		}
	}
	if text, err := as(exec.Command("cat", proc+"cmdline")).CombinedOutput(); err != nil || !strings.Contains(string(text), "run") {
		t.Errorf("what everybody may see isn't there: %v %q", err, text)
	}
}

package deploy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

var testImage = flag.Bool("image", false, "TestImage: follow the Dockerfile by hand and run what comes of it; as root, some minutes")

// user is the image's.
const user = 65532

// TestImage does what the Dockerfile says, without Docker, and runs what comes
// of it as Docker and Kubernetes do: as its user, in a root that can't be
// written to and holds nothing else, with the volumes of either.
func TestImage(t *testing.T) {
	if !*testImage {
		t.Skip("with -image, as root: builds the image by hand and runs it")
	}
	if os.Geteuid() != 0 {
		t.Fatal("-image needs root, for chroot and mounts")
	}
	root, env := buildImage(t)
	for _, caddyfile := range []string{"container", "kubernetes"} {
		t.Run(caddyfile, func(t *testing.T) {
			sb := sandbox.New(sandbox.Config{})
			servers, err := sb.Listen()
			if err != nil {
				t.Fatal(err)
			}
			defer servers.Close()
			im := prepare(t, root, env, caddyfile, servers)
			im.lives(t, sb)
			im.restarts(t, sb)
			im.mends(t, sb)
			im.tellsCopy(t, sb)
			if caddyfile == "kubernetes" {
				im.refusesGroup(t)
			}
		})
	}
}

func (im *image) lives(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	t.Logf("started and called in %s", im.answers(t).Round(time.Millisecond))
	im.healthy(t)
	if out, code := im.exec("/usr/bin/caddy", "bearer", "status"); code != 0 || !strings.Contains(out, "ready") {
		t.Errorf("status: exit %d\n%s", code, out)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", im.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`Uid:(\t65532){4}\n`, `Gid:(\t65532){4}\n`, `NoNewPrivs:\t1`, `CapEff:\t0{16}`, `CapPrm:\t0{16}`, `NSpid:\t\d+\t1\n`} {
		if !regexp.MustCompile(want).Match(status) {
			t.Errorf("no %s in\n%s", want, status)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", im.pid()))
	if err != nil || !regexp.MustCompile(`(?m) / / ro[, ].* overlay `).Match(mounts) {
		t.Errorf("its root can be written to: %v\n%s", err, mounts)
	}
	if strings.Contains(read(t, filepath.Join(im.dir, "Caddyfile")), "bearer_ready") {
		for path, want := range map[string]int{"/live": 200, "/ready": 200} {
			if status, text := im.call(im.live, path); status != want {
				t.Errorf("%s: %d %s", path, status, text)
			}
		}
	}
	if n := sb.TokenRequests("password"); n != 1 {
		t.Errorf("%d sign-ins", n)
	}
	for file, where := range map[string]string{"tokens.db": "data/bearer", "tokens.db.spill": "config/bearer"} {
		info, err := os.Stat(filepath.Join(im.dir, where, file))
		if err != nil || info.Mode() != 0o600 || info.Sys().(*syscall.Stat_t).Uid != user {
			t.Errorf("%s: %v %v", file, info, err)
		}
	}
}

// restarts: a stop and a start, and a kill and a start, cost no sign-in and need
// nobody.
func (im *image) restarts(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		begin := time.Now()
		im.stop(t, sig)
		took := time.Since(begin)
		if sig == syscall.SIGTERM && im.cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("it ended with %v", im.cmd.ProcessState)
		}
		t.Logf("%v: ended in %s, called again in %s", sig, took.Round(time.Millisecond), im.answers(t).Round(time.Millisecond))
		im.healthy(t)
	}
	if n := sb.TokenRequests(""); n != 1 {
		t.Errorf("%d token requests", n)
	}
}

// mends: without the volume of the data, the other one restores it.
func (im *image) mends(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	im.stop(t, syscall.SIGTERM)
	if err := os.RemoveAll(filepath.Join(im.dir, "data/bearer")); err != nil {
		t.Fatal(err)
	}
	im.answers(t)
	if out, _ := im.exec("/usr/bin/caddy", "bearer", "status"); !strings.Contains(out, "made anew from the spill") {
		t.Errorf("status:\n%s", out)
	}
	if n := sb.TokenRequests(""); n != 1 {
		t.Errorf("%d token requests", n)
	}
}

// tellsCopy: the volume of the data alone, on another machine, doesn't spend the
// refresh token that the first one still uses.
func (im *image) tellsCopy(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	im.stop(t, syscall.SIGTERM)
	if err := os.RemoveAll(filepath.Join(im.dir, "config/bearer")); err != nil {
		t.Fatal(err)
	}
	im.answers(t)
	if out, _ := im.exec("/usr/bin/caddy", "bearer", "status"); !strings.Contains(out, "another installation") {
		t.Errorf("status:\n%s", out)
	}
	if refreshed, signedIn := sb.TokenRequests("refresh_token"), sb.TokenRequests("password"); refreshed != 0 || signedIn != 2 {
		t.Errorf("%d refreshes, %d sign-ins", refreshed, signedIn)
	}
}

// refusesGroup shows why fsGroupChangePolicy is OnRootMismatch: what Always does
// at each start.
func (im *image) refusesGroup(t *testing.T) {
	t.Helper()
	im.stop(t, syscall.SIGTERM)
	if err := os.Chmod(filepath.Join(im.dir, "data/bearer/tokens.db"), 0o660); err != nil {
		t.Fatal(err)
	}
	im.start(t)
	if err := im.cmd.Wait(); err == nil {
		t.Error("it started")
	}
	if text := read(t, im.log.Name()); !strings.Contains(text, "chmod 600 /data/bearer/tokens.db") {
		t.Error("it doesn't say what to do")
	}
}

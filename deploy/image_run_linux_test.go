package deploy

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// An image is its root, and a container of it.
type image struct {
	root, dir  string // dir: caddyfile, secrets and volumes
	env        []string
	port, live string
	cmd        *exec.Cmd
	log        *os.File
}

// prepare makes what is mounted into a container, as Docker does or, with group
// rights and links, the kubelet. The Caddyfile is the one that lies here, but
// for the addresses.
func prepare(t *testing.T, root string, env []string, caddyfile string, servers *sandbox.Servers) *image {
	t.Helper()
	im := &image{root: root, dir: t.TempDir(), port: freePort(t), live: freePort(t)}
	im.env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PAGERO_CLIENT_ID=sandbox-client", "PAGERO_USERNAME=sandbox-user")
	if err := os.Chmod(im.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("provider pagero", "token_endpoint "+servers.AuthorizationServerURL+"/oauth/v2/oauth-token\nupstream "+strings.TrimPrefix(servers.APIURL, "http://"),
		"bearer_proxy pagero", "bearer_proxy pagero "+servers.APIURL, ":8080", ":"+im.port, ":9090", ":"+im.live).Replace(read(t, caddyfile+"/Caddyfile"))
	owner, volumeMode, secretMode, secrets := user, fs.FileMode(0o700), fs.FileMode(0o400), "secrets"
	if caddyfile == "kubernetes" { // see fsGroup in deployment.yaml
		owner, volumeMode, secretMode, secrets = 0, 0o770|fs.ModeSetgid, 0o440, "secrets/..data"
	}
	for _, name := range []string{"data", "config", "away", secrets} {
		if err := os.MkdirAll(filepath.Join(im.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, secret := range map[string]string{"client_secret": "sandbox-secret", "password": "sandbox-password", "bearer_key": "canary+canary+canary+canary+canary+canary+0=\n"} {
		file := filepath.Join(im.dir, secrets, name)
		if err := os.WriteFile(file, []byte(secret), secretMode); err != nil {
			t.Fatal(err)
		}
		if secrets != "secrets" {
			if err := os.Symlink("..data/"+name, filepath.Join(im.dir, "secrets", name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(file, owner, user); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"data", "config"} {
		volume := filepath.Join(im.dir, name)
		if err := os.Chown(volume, owner, user); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(volume, volumeMode); err != nil {
			t.Fatal(err)
		}
	}
	err := os.WriteFile(filepath.Join(im.dir, "Caddyfile"), []byte(text), 0o644)
	if err == nil {
		im.log, err = os.Create(filepath.Join(im.dir, "log"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		im.stop(t, syscall.SIGKILL)
		if t.Failed() {
			text, _ := os.ReadFile(im.log.Name())
			t.Logf("%s", text)
		}
		im.log.Close()
	})
	return im
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// run is what a container runtime does. The mount points are made beforehand, in
// a copy that covers the root.
const run = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$2"/away
mkdir "$2"/away/upper "$2"/away/work
mount -t overlay -o lowerdir="$1",upperdir="$2"/away/upper,workdir="$2"/away/work overlay "$1"
cd "$1"
mkdir -p proc dev run/secrets
mount --bind "$2"/data data
mount --bind "$2"/config config
mount --bind "$2"/Caddyfile etc/caddy/Caddyfile
mount --bind -o ro "$2"/secrets run/secrets
mount -t tmpfs -o uid=65532,gid=65532,mode=0700,size=1m,noexec,nosuid,nodev tmpfs run/caddy
mount -t proc proc proc
mount -o remount,ro "$1"
shift 2
exec setpriv --no-new-privs --bounding-set -all,+sys_chroot,+setuid,+setgid chroot --userspec=65532:65532 --groups=65532 . "$@"
`

// start starts the container with the image's own command.
func (im *image) start(t *testing.T) {
	t.Helper()
	_, s := stages(t)
	var entrypoint, command []string
	if json.Unmarshal([]byte(all(s[1], "ENTRYPOINT")[0]), &entrypoint) != nil || json.Unmarshal([]byte(all(s[1], "CMD")[0]), &command) != nil {
		t.Fatal("what is the command?")
	}
	args := append([]string{"--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-c", run, "sh", im.root, im.dir}, append(entrypoint, command...)...)
	im.cmd = exec.Command("unshare", args...)
	im.cmd.Env = im.env
	im.cmd.Stdout, im.cmd.Stderr = im.log, im.log
	if err := im.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// pid is the process of the container, seen from here; 0 if there is none.
func (im *image) pid() int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", im.cmd.Process.Pid))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

func (im *image) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if im.cmd == nil || im.cmd.ProcessState != nil {
		return
	}
	if pid := im.pid(); pid > 0 {
		_ = syscall.Kill(pid, sig)
	} else {
		_ = im.cmd.Process.Kill()
	}
	_ = im.cmd.Wait()
}

// exec is what `docker exec` does: with the image's environment and user.
func (im *image) exec(args ...string) (string, int) {
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(im.pid()), "-m", "-p", "-r", "-S", strconv.Itoa(user), "-G", strconv.Itoa(user)}, args...)...)
	cmd.Env = im.env
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

// call makes a request as the application beside it does.
func (im *image) call(port, path string) (int, string) {
	res, err := http.Get("http://127.0.0.1:" + port + path)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// answers waits for the first good answer, and says how long that took.
func (im *image) answers(t *testing.T) time.Duration {
	t.Helper()
	begin := time.Now()
	im.start(t)
	for {
		status, text := im.call(im.port, "/document/v1/documents")
		if took := time.Since(begin); status == 200 {
			return took
		} else if took > 30*time.Second || took > time.Second && im.pid() == 0 {
			t.Fatal(status, text)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// healthy asks as the HEALTHCHECK does.
func (im *image) healthy(t *testing.T) {
	t.Helper()
	out, code := im.exec("/usr/bin/caddy", "bearer", "wait", "--timeout", "0")
	if code != 0 {
		t.Errorf("it isn't healthy: exit %d\n%s", code, out)
	}
}

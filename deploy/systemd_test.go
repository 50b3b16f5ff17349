package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const unitFile = "systemd/caddy-bearer.service"

// A unit is what a unit file sets: all values of each name, in order.
type unit map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	u := unit{}
	for _, line := range strings.Split(read(t, name), "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if value == "" {
			u[key] = nil // takes back what was set before
		}
		u[key] = append(u[key], value)
	}
	return u
}

// one is the value of what is set once.
func (u unit) one(t *testing.T, key string) string {
	t.Helper()
	if len(u[key]) != 1 {
		t.Fatalf("%s is set %d times", key, len(u[key]))
	}
	return u[key][0]
}

// credentials are the names of the secrets, by where they come from.
func (u unit) credentials(t *testing.T, key string) map[string]string {
	t.Helper()
	from := map[string]string{}
	for _, value := range u[key] {
		name, path, ok := strings.Cut(value, ":")
		if value == "" {
			continue
		}
		if !ok || !filepath.IsAbs(path) || from[name] != "" {
			t.Errorf("%s=%s", key, value)
		}
		from[name] = path
	}
	return from
}

func unitPlace(t *testing.T) place {
	u := readUnit(t, unitFile)
	stop, err := time.ParseDuration(u.one(t, "TimeoutStopSec"))
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir: "systemd", secrets: "/run/credentials/caddy-bearer.service", stop: stop, volumes: map[string]string{}}
	p.given = names(u.credentials(t, "LoadCredential"))
	for _, line := range strings.Split(read(t, "systemd/environment"), "\n") {
		if name, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			p.env = append(p.env, name)
		}
	}
	for _, name := range strings.Fields(u.one(t, "StateDirectory")) {
		p.volumes["/var/lib/"+name] = name
	}
	p.volumes["/run/"+u.one(t, "RuntimeDirectory")] = "run"
	return p
}

// The unit runs one user's own program, which can write only where it must, and
// gets its secrets from files that only root can read.
func TestUnit(t *testing.T) {
	u := readUnit(t, unitFile)
	for key, want := range map[string]string{
		"Type": "notify", "User": "caddy-bearer", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes",
		"MemoryDenyWriteExecute": "yes", "LimitCORE": "0", "MemorySwapMax": "0", "CapabilityBoundingSet": "", "UMask": "0077",
		"StateDirectoryMode": "0700", "RuntimeDirectoryMode": "0700", "Restart": "on-failure", "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
		"SystemCallArchitectures": "native", "EnvironmentFile": "/etc/caddy-bearer/environment",
	} {
		if got := u.one(t, key); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	const binary = "/usr/local/bin/caddy-bearer "
	for key, command := range map[string]string{"ExecStartPre": "validate", "ExecStart": "run", "ExecReload": "reload"} {
		want := binary + command + " --config /etc/caddy-bearer/Caddyfile"
		if got := strings.TrimSuffix(u.one(t, key), " --force"); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	if !strings.HasPrefix(u.one(t, "ExecPaths"), binary) || u.one(t, "NoExecPaths") != "/" {
		t.Error("it may run other programs")
	}
	for name, path := range u.credentials(t, "LoadCredential") {
		if path != "/etc/caddy-bearer/credentials/"+name {
			t.Errorf("%s comes from %s", name, path)
		}
	}
	if text := read(t, unitFile); regexp.MustCompile(`(?mi)^(Set|Environment=.*)(credential|secret|password=)`).MatchString(text) {
		t.Error("a secret is set in the unit, where every user can read it")
	}
	if !strings.Contains(read(t, "systemd/sysusers.conf"), "u "+u.one(t, "User")+" - ") {
		t.Error("its user is not made")
	}
}

// The drop-in gives the same secrets by the same names, and takes the plain ones
// back.
func TestUnitEncrypted(t *testing.T) {
	plain, dropIn := readUnit(t, unitFile), readUnit(t, "systemd/caddy-bearer.service.d/encrypted.conf")
	if !slices.Equal(dropIn["LoadCredential"], []string{""}) {
		t.Error("the plain credentials stay")
	}
	encrypted := dropIn.credentials(t, "LoadCredentialEncrypted")
	sameNames(t, "credentials", names(encrypted), names(plain.credentials(t, "LoadCredential")))
	for name, path := range encrypted {
		if path != "/etc/credstore.encrypted/caddy-bearer."+name {
			t.Errorf("%s comes from %s", name, path)
		}
	}
}

// systemd takes the unit, and gives it the mark that its comment says.
func TestUnitAnalyzed(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, unitFile)
	file := filepath.Join(t.TempDir(), "caddy-bearer.service")
	installed := regexp.MustCompile(`(?m)^(Exec\w+=)/usr/local/bin/caddy-bearer`).ReplaceAllString(text, "${1}"+self)
	if err := os.WriteFile(file, []byte(installed), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+) OK`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("%s", out)
	}
	version, _ := exec.Command(analyze, "--version").Output() // each has other marks
	says := regexp.MustCompile(`says: (\S+) OK\n# \(systemd (\d+)\)`).FindStringSubmatch(text)
	if mark, err := strconv.ParseFloat(string(m[1]), 64); err != nil || mark > 1.5 || says == nil ||
		strings.HasPrefix(string(version), "systemd "+says[2]+" ") && says[1] != string(m[1]) {
		t.Errorf("the comment says %q, but\n%s", says, out)
	}
}

package caddymodule

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A namespace is a second machine, as far as the network goes: it has an own
// loopback, and one link to us.
type namespace struct {
	*testing.T
	name   string
	ours   string    // our address on the link
	theirs [2]string // its addresses
}

// newNamespace makes one; addresses are of the range for benchmarks (RFC 2544).
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a network namespace can be made by root only: run as root, or by `unshare -rn go test`")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("there is no `ip`: install iproute2")
	}
	id := os.Getpid() % 1000000
	n := &namespace{T: t, name: fmt.Sprintf("bearer%d", id), ours: fmt.Sprintf("198.18.%d.1", id%250)}
	prefix := strings.TrimSuffix(n.ours, "1")
	n.theirs = [2]string{prefix + "2", prefix + "3"}
	link := fmt.Sprintf("cb%d", id)
	if out, err := exec.Command("ip", "netns", "add", n.name).CombinedOutput(); err != nil {
		t.Skipf("a network namespace can't be made here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		_ = exec.Command("ip", "link", "del", link).Run()
		_ = exec.Command("ip", "netns", "del", n.name).Run()
	})
	for _, command := range []string{
		"link add " + link + " type veth peer name eth0 netns " + n.name,
		"addr add " + n.ours + "/24 dev " + link,
		"link set " + link + " up",
		"-n " + n.name + " addr add " + n.theirs[0] + "/24 dev eth0",
		"-n " + n.name + " addr add " + n.theirs[1] + "/24 dev eth0",
		"-n " + n.name + " link set eth0 up",
		"-n " + n.name + " link set lo up",
		"-n " + n.name + " route add default via " + n.ours,
	} {
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v: %s", command, err, out)
		}
	}
	return n
}

// A probe is a request from the namespace; its answer is filled in there.
type probe struct {
	From, Network, Address string
	Header                 map[string]string
	Status                 int
	Code, Error            string
}

func (p probe) String() string {
	return fmt.Sprintf("%s %s from %s with %v: %d %s%s", p.Network, p.Address, p.From, p.Header, p.Status, p.Code, p.Error)
}

const probesEnv = "CADDY_BEARER_TEST_PROBES"

// ask makes the probes in the namespace, by this very test binary.
func (n *namespace) ask(probes ...probe) []probe {
	n.Helper()
	file := filepath.Join(n.TempDir(), "probes")
	text, err := json.Marshal(probes)
	if err != nil {
		n.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		n.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		n.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", n.name, self, "-test.run", "^TestProbesInNamespace$", "-test.count", "1")
	cmd.Env = append(os.Environ(), probesEnv+"="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.Fatalf("asking from the namespace: %v\n%s", err, out)
	}
	if text, err = os.ReadFile(file); err != nil {
		n.Fatal(err)
	}
	var answers []probe
	if err := json.Unmarshal(text, &answers); err != nil {
		n.Fatal(err)
	}
	return answers
}

// TestProbesInNamespace is no test, but what the others run in a namespace.
func TestProbesInNamespace(t *testing.T) {
	file := os.Getenv(probesEnv)
	if file == "" {
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var probes []probe
	if err := json.Unmarshal(text, &probes); err != nil {
		t.Fatal(err)
	}
	done := make(chan int)
	for i := range probes {
		go func() {
			probes[i].make()
			done <- i
		}()
	}
	for range probes {
		<-done
	}
	if text, err = json.Marshal(probes); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *probe) make() {
	dialer := &net.Dialer{Timeout: 700 * time.Millisecond}
	if p.From != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(p.From)}
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
	req, err := http.NewRequest("GET", "http://"+p.Address+"/echo", nil)
	if err != nil {
		p.Error = err.Error()
		return
	}
	req.Host = "localhost"
	for name, value := range p.Header {
		req.Header.Set(name, value)
	}
	res, err := client.Do(req)
	if err != nil {
		p.Error = err.Error()
		return
	}
	defer res.Body.Close()
	p.Status, p.Code = res.StatusCode, res.Header.Get(errorHeader)
}

// listeners are the TCP ports on which this process listens.
func listeners(t *testing.T) (ports []string) {
	t.Helper()
	inodes := map[string]bool{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			inodes[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // no IPv6
		}
		for _, line := range strings.Split(string(text), "\n")[1:] {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" || !inodes[f[9]] {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			var port int
			if _, err := fmt.Sscanf(hex, "%x", &port); err == nil {
				ports = append(ports, fmt.Sprint(port))
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// TM-1, TM-8 and CVE-2020-11710 (Kong): from another machine nothing answers of
// a server that is set up as the example is: the site on loopback, and the
// admin endpoint on a socket.
func TestNothingAnswersFromAnotherMachine(t *testing.T) {
	n := newNamespace(t)
	r := newRig(t, sandbox.Config{})
	config := r.caddyfile()
	config = strings.Replace(config, "admin off", "admin unix/"+r.dir+"/admin.sock|0600", 1)
	config = strings.Replace(config, "\tbearer {", "\tbearer {\n\t\tportal http://localhost:"+freePort(t)+"/bearer", 1)
	config += "http://localhost:" + freePort(t) + " {\n\tbind 127.0.0.1 [::1]\n\tbearer_portal {\n\t\tunprotected\n\t}\n}\n"
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.get("/echo")
	all, err := net.Listen("tcp", ":0") // what answers, so that the others could
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	go func() { _ = http.Serve(all, http.NotFoundHandler()) }()
	_, open, _ := net.SplitHostPort(all.Addr().String())
	ports := listeners(t)
	if len(ports) < 3 || !slices.Contains(ports, open) { // site, portal, the one that answers
		t.Fatalf("we listen on %v only, or %s is not among them", ports, open)
	}
	var probes []probe
	for _, port := range ports {
		probes = append(probes, probe{Network: "tcp", Address: n.ours + ":" + port}, probe{Network: "tcp", Address: "127.0.0.1:" + port})
	}
	for _, p := range n.ask(probes...) {
		answered := p.Error == ""
		if should := p.Address == n.ours+":"+open; answered != should {
			t.Errorf("%s: it answers %v, want %v", p, answered, should)
		}
	}
	t.Logf("ports asked: %v", ports)
}

// TM-1, TM-4: a site that is exposed on purpose answers whom it is told to.
func TestExposedSiteAnswersItsCallers(t *testing.T) {
	n := newNamespace(t)
	for _, c := range []struct {
		name, options string
		want          []string // of these, in their order
	}{
		{"callers", "callers " + n.theirs[0], []string{"200", "403 caller_refused", "403 caller_refused", "403 caller_refused", "200"}},
		{"key", "caller_key erp " + legacyKey, []string{"401 key_refused", "401 key_refused", "200", "401 key_refused", "401 key_refused"}},
		{"both", "callers " + n.theirs[1] + "\n\t\tcaller_key erp " + legacyKey, []string{"403 caller_refused", "401 key_refused", "200", "401 key_refused", "403 caller_refused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, sandbox.Config{})
			r.handler = c.options
			_, port, _ := net.SplitHostPort(r.address)
			if err := r.load(strings.Replace(r.caddyfile(), "bind 127.0.0.1", "bind "+n.ours, 1)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.stop)
			key := map[string]string{"X-API-Key": legacyKey}
			at := n.ours + ":" + port
			probes := []probe{
				{From: n.theirs[0], Address: at},
				{From: n.theirs[1], Address: at},
				{From: n.theirs[1], Address: at, Header: key},
				{From: n.theirs[1], Address: at, Header: map[string]string{"X-Forwarded-For": n.theirs[0], "Forwarded": "for=127.0.0.1", "X-Real-IP": "127.0.0.1"}},
				{From: n.theirs[0], Address: at, Header: map[string]string{"X-Forwarded-For": n.theirs[1]}},
			}
			for i, p := range n.ask(probes...) {
				if got := strings.TrimSpace(fmt.Sprint(p.Status) + " " + p.Code); got != c.want[i] {
					t.Errorf("%s; want %s", p, c.want[i])
				}
			}
		})
	}
}

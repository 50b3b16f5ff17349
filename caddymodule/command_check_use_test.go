package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// Where a sign-in comes back to.
func TestCheckRedirectURI(t *testing.T) {
	for _, tt := range []struct{ grant, bearer, sites, want string }{
		{"grant authorization_code", "", "", "ok erp redirect_uri: http://127.0.0.1/callback is answered by `caddy bearer login`, on any port…register it"},
		{"grant authorization_code {\n redirect_uri http://127.0.0.1:4711/cb\n}", "", "", "ok erp redirect_uri: http://127.0.0.1:4711/cb is answered by `caddy bearer login`; register"},
		{"grant authorization_code {\n redirect_uri https://other.example/cb\n}", "", "", "warn erp redirect_uri: --paste…add a portal"},
		{"grant authorization_code", "portal http://127.0.0.1:18082/bearer", "http://:18082 {\n bind 127.0.0.1\n bearer_portal\n}", "ok erp redirect_uri: http://127.0.0.1:18082/bearer/callback is on the portal…register it"},
		{"grant authorization_code {\n redirect_uri https://other.example/cb\n}", "portal http://127.0.0.1:18082/bearer", "http://:18082 {\n bind 127.0.0.1\n bearer_portal\n}", "warn erp redirect_uri: --paste…redirect_uri http://127.0.0.1:18082/bearer/callback"},
		{"grant authorization_code {\n redirect_uri http://127.0.0.1/cb\n}", "portal https://proxy.example/bearer", "", "warn - redirect_uri: no site with bearer_portal"},
	} {
		r := newCheckRig(t, sandbox.Config{})
		r.callers, r.grant, r.sites = "bind 127.0.0.1", tt.grant, tt.sites
		r.bearer += "\n" + tt.bearer
		r.finds(tt.want, "ok erp endpoint: authorize_endpoint")
	}
}

// The command: what it prints, and its exit codes.
func TestCheckCommand(t *testing.T) {
	r := newCheckRig(t, sandbox.Config{})
	r.callers = "bind 127.0.0.1"
	p := &portalRig{rig: &rig{T: t}}
	r.write("Caddyfile", r.caddyfile())
	file := filepath.Join(r.dir, "Caddyfile")
	p.runCheck("--config", file).ends(0, "ok    erp  token_endpoint at 127.0.0.1:", "\nwarn  -    this binary", "\n           to do: build it", " failed\n")
	t.Chdir(r.dir)
	c := p.runCheck("--json")
	c.ends(0, `"level": "ok"`)
	var answer checkJSON
	if err := json.Unmarshal([]byte(c.output.String()), &answer); err != nil || answer.Failed != 0 || len(answer.Findings) < 10 {
		t.Errorf("%v %+v", err, answer)
	}
	r.sandbox.SetClientSecret("another")
	p.runCheck().ends(1, "fail  erp  the revocation endpoint refuses the client", ", 1 failed")
	p.runCheck("--config", r.dir+"/none").ends(2, "no such file")
	p.runCheck("--adapter", "caddyfile").ends(2, "--adapter without --config")
	p.runCheck("--config", file, "--adapter", "yaml").ends(2, "there is no adapter yaml")
	p.runCheck("more").ends(2, "wrong number of arguments")
	r.write("Caddyfile", "{\n\tbearer {\n\t\tbogus\n\t}\n}\n")
	p.runCheck().ends(1, "fail  -  adapting the configuration", "Caddyfile:3", "bogus")
	r.write("Caddyfile", "http://:18080 {\n\trespond x\n}\n")
	p.runCheck().ends(1, "there is no bearer app")
	r.write("Caddyfile", "{\n\tadmin off\n\tbearer {\n\t\tstore memory\n\t\taccount erp {\n\t\t\tclient_id x\n\t\t\tclient_auth none\n\t\t\ttoken_endpoint http://127.0.0.1:1/\n"+
		"\t\t\tauthorize_endpoint http://127.0.0.1:1/\n\t\t\tupstream 127.0.0.1:1\n\t\t\tgrant authorization_code\n\t\t}\n\t}\n}\n")
	p.runCheck().ends(1, "no site uses an account", "fail  erp  token_endpoint, authorize_endpoint at 127.0.0.1:1: dial: connect: connection refused")
	r.write("x.json", "[]")
	p.runCheck("--config", "x.json").ends(1, "is it the right file?")
	if err := os.Remove("Caddyfile"); err != nil {
		t.Fatal(err)
	}
	p.runCheck().ends(2, "which configuration?")
	if _, err := os.Stat(r.dir + "/store"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the store's directory: %v", err)
	}
}

// runCheck runs the command, which has no --address.
func (r *portalRig) runCheck(args ...string) *commandRun {
	r.Helper()
	cmd := checkCommand()
	cmd.Flags().String("address", "", "")
	return r.runCommand(cmd, args...)
}

func TestCheckPrints(t *testing.T) {
	t.Parallel()
	var c checkJSON
	c.add([]finding{{oauth.LevelOK, "", "store", "fine", ""}, {oauth.LevelWarn, "ä-long", "file", "open", "chmod"}, {oauth.LevelFail, "erp", "clock", "wrong", "set it"}})
	var out bytes.Buffer
	if err := c.print(&out, false); err != nil {
		t.Fatal(err)
	}
	const want = "ok    -       fine\nwarn  ä-long  open\n              to do: chmod\nfail  erp     wrong\n              to do: set it\n\n1 ok, 1 to look at, 1 failed\n"
	if out.String() != want {
		t.Errorf("it is\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	if err := c.print(&out, true); err != nil || !contains(out.String(), red+"fail"+plain, yellow+"warn"+plain, green+"ok  "+plain) {
		t.Errorf("%v %q", err, out.String())
	}
	if err := c.print(brokenWriter{}, false); err == nil {
		t.Error("a broken pipe isn't told")
	}
}

// A secret that root lets the server's group read is in order; anything more is
// not, nor is root's own group.
func TestHandedOver(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		uid, gid, own int
		mode          fs.FileMode
		want          bool
	}{
		{0, 65532, 65532, 0o440, true}, {0, 65532, 65532, 0o640, true},
		{0, 65532, 65532, 0o444, false}, {0, 65532, 65532, 0o660, false}, {0, 65532, 65532, 0o450, false}, {0, 65532, 65532, 0o400, false},
		{0, 65532, 65533, 0o440, false}, {1000, 65532, 65532, 0o440, false}, {0, 0, 0, 0o440, false},
	} {
		if got := handedOver(tt.uid, tt.gid, tt.own, tt.mode); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// A file of the server's own is as safe as the owner of its directory: root, or
// whose it is.
func TestCheckDirectoryOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, tt := range []struct {
		directory, file int
		want            oauth.Level
	}{
		{0, 0, oauth.LevelOK}, {0, 12345, oauth.LevelOK}, {12345, 12345, oauth.LevelOK}, {12345, 0, oauth.LevelFail}, {12345, 12346, oauth.LevelFail},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "tokens.db")
		err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chown(file, tt.file, -1), os.Chmod(dir, 0o700), os.Chown(dir, tt.directory, -1))
		if err != nil {
			t.Fatal(err)
		}
		got := checkFile("", "the store", file, oauth.LevelFail)
		if len(got) != 1 || got[0].Level != tt.want || (tt.want == oauth.LevelFail) != contains(got[0].What, "user 12345", dir) {
			t.Errorf("%+v: %+v", tt, got)
		}
	}
}

// In a container that can write to nothing but memory.
func TestCheckWithoutTemporaryFiles(t *testing.T) {
	if _, err := os.Stat("/dev/shm"); err != nil {
		t.Skip("there is no /dev/shm")
	}
	r := newCheckRig(t, sandbox.Config{})
	t.Setenv("TMPDIR", filepath.Join(r.dir, "none"))
	r.callers = "bind 127.0.0.1"
	r.finds("ok - config: can be loaded")
}

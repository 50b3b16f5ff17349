package caddymodule

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// bearerCommand is the command as `caddy` has it.
func bearerCommand() *cobra.Command {
	root := &cobra.Command{Use: "caddy"}
	cmd := &cobra.Command{Use: "bearer"}
	setUp(cmd)
	root.AddCommand(cmd)
	return root
}

// try runs a command line, and returns its exit code and what it said.
func try(args ...string) (int, string) {
	root, out := bearerCommand(), new(bytes.Buffer)
	root.SetArgs(append([]string{"bearer"}, args...))
	root.SetOut(out)
	root.SetErr(out)
	code, _ := exitCode(root.Execute())
	return code, out.String()
}

// Exit codes: every command, used wrongly in every way, and without a server.
func TestExitCodes(t *testing.T) {
	t.Chdir(t.TempDir())
	const nowhere = "--address=unix//nowhere/at/all"
	backupFile := filepath.Join(t.TempDir(), "backup")
	for _, tt := range []struct {
		args string
		exit int
		says string
	}{
		{"", 0, "check"},
		{"--help", 0, "Exit codes: 0 fine, 1 it failed, 2 wrong use, 3 a person has to log in."},
		{"statsu", 2, "there is no subcommand statsu (did you mean status?); see caddy bearer --help"},
		{"chekc --json", 2, ""}, // the flag comes to the wrong command
		{"xyzzy", 2, "there is no subcommand xyzzy; see"},
		{"--bogus", 2, "unknown flag: --bogus"},
		{"sandbox more", 2, "usage: caddy bearer sandbox"},
		{"sandbox --listen 0.0.0.0:8080", 2, "it must be a loopback address"},
		{"sandbox --grant x", 2, "--grant x"},
		{"sandbox --fault x", 2, "unknown fault"},
		{"sandbox --token-lifetime 0s", 2, "above 0"},
		{"sandbox --token-lifetime x", 2, "invalid argument"},
		{"status --limit x", 2, "invalid argument"},
		{"status --limit -1", 2, "--limit -1"},
		{"status --after x", 2, "name it: caddy bearer status <account>"},
		{"status --limit 5", 2, "name it: caddy bearer status <account>"},
		{"import erp --address 192.0.2.1:2019", 1, "is on another machine, and the secret would go there in the clear"},
		{"import erp --address gateway:2019", 1, "is on another machine"},
		{"wait --timeout x", 2, "invalid argument"},
		{"wait --timeout 0 " + nowhere, 1, "is not ready at unix//nowhere"},
		{"wait --timeout 10s --address :1-5", 2, ":1-5 is no address of an admin endpoint"},
		{"check", 2, "which configuration?"},
		{"check --config none", 2, "no such file"},
		{"check --address x", 2, "unknown flag"},
		{"import", 2, "usage:"},
		{"rekey more", 2, "usage:"},
	} {
		checkExit(t, tt.args, tt.exit, tt.says)
	}
	for _, name := range []string{"status", "wait", "login", "logout", "refresh", "forget", "adopt", "rekey", "backup"} {
		args := map[string]string{"login": " erp", "logout": " erp", "refresh": " erp", "forget": " erp", "adopt": " erp", "backup": " " + backupFile}[name]
		checkExit(t, name+" --bogus"+args, 2, "unknown flag: --bogus; see caddy bearer "+name+" --help")
		checkExit(t, name+args+" --config none", 2, "no such file")
		checkExit(t, name+args+" --adapter caddyfile", 2, "--adapter without --config")
		checkExit(t, name+args+" --help", 0, "Examples:")
		if name != "wait" {
			checkExit(t, name+args+" "+nowhere, 1, "is the server running")
			checkExit(t, name+" a b "+nowhere, 2, "wrong number of arguments; usage: caddy bearer "+name)
		}
		if args != "" {
			checkExit(t, name+" "+nowhere, 2, "wrong number of arguments")
		}
	}
}

func checkExit(t *testing.T, args string, exit int, says string) {
	t.Helper()
	if code, said := try(strings.Fields(args)...); code != exit || !strings.Contains(said, says) || strings.Contains(said, "Error:") {
		t.Errorf("%s: exit %d, want %d and %q in\n%s", args, code, exit, says, said)
	}
}

// Every command has a help that says what it is for, with an example.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, cmd := range bearerCommand().Commands()[0].Commands() {
		if cmd.Short == "" || cmd.Long == "" || !strings.Contains(cmd.Example, "caddy bearer "+cmd.Name()) {
			t.Errorf("%s: no short or long text, or no example", cmd.Name())
		}
		for _, text := range []string{cmd.Long, cmd.Example} {
			for _, line := range strings.Split(text, "\n") {
				if len(line) > 90 && cmd.Name() != "sandbox" {
					t.Errorf("%s: a line is too long for a terminal: %s", cmd.Name(), line)
				}
			}
		}
	}
}

// Caddy's main function knows the exit code, and the error has its text.
func TestExitErrorIsCaddys(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	cmd := &cobra.Command{Use: "x"}
	cmd.SetErr(new(bytes.Buffer))
	for code := range 4 {
		err := finish(cmd, code, why)
		want := caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
		if code == 0 && err != nil || code > 0 && err.Error() != "why" || code > 1 && errors.Unwrap(err).Error() != want.Error() {
			t.Errorf("%d: %v, want %v", code, err, want)
		}
	}
}

// The admin endpoint is the one of --address, of --config, of the Caddyfile
// here, or Caddy's own.
func TestAdminAddress(t *testing.T) {
	t.Setenv("ADMIN_HERE", "unix//from/env.sock")
	for _, tt := range []struct {
		caddyfile, config, args string
		want                    string // or a part of the error
	}{
		{"", "", "", "localhost:2019"},
		{"{\n\tadmin unix//here.sock\n}\n", "", "", "unix//here.sock"},
		{"{\n\tadmin unix//here.sock\n}\n", "{\n\tadmin 127.0.0.1:1234\n}\n", "--config other.caddyfile", "127.0.0.1:1234"},
		{"{\n\tadmin unix//here.sock\n}\n", "", "--address unix//there.sock", "unix//there.sock"},
		{"{\n\tadmin {env.ADMIN_HERE}\n}\n", "", "", "unix//from/env.sock"},
		{"http://:8080 {\n\trespond x\n}\n", "", "", "localhost:2019"},
		{"{\n\tadmin off\n}\n", "", "", "in place of `admin off` write `admin unix//run/caddy/admin.sock`"},
		{"{\n\tbogus\n}\n", "", "", "Caddyfile:2"},
		{"", `{"admin": {"listen": "unix//json.sock"}}`, "--config x.json", "unix//json.sock"},
		{"", `{`, "--config x.json", "it is no JSON"},
		{"", "{\n\tadmin unix//a.sock\n}\n", "--config plain --adapter caddyfile", "unix//a.sock"},
		{"", "{\n\tadmin unix//a.sock\n}\n", "--config plain", "add: --adapter caddyfile"},
	} {
		t.Chdir(t.TempDir())
		cmd := statusCommand()
		if err := cmd.ParseFlags(strings.Fields(tt.args)); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"Caddyfile": tt.caddyfile, cmd.Flag("config").Value.String(): tt.config} {
			if text != "" {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, err := adminAddress(caddycmd.Flags{FlagSet: cmd.Flags()})
		if err != nil {
			got = err.Error()
		}
		if got != tt.want && (err == nil || !strings.Contains(got, tt.want)) {
			t.Errorf("%q %s: %s, want %s", tt.caddyfile, tt.args, got, tt.want)
		}
	}
}

// A second `caddy run` is refused only where it would take the socket away.
func TestSecondRun(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	socket := filepath.Join(dir, "admin.sock")
	const app = "\tbearer {\n\t\taccount erp {\n\t\t\tprovider pagero\n\t\t\tclient_id x\n\t\t\tclient_secret y\n\t\t\tgrant client_credentials\n\t\t}\n\t}\n"
	for name, text := range map[string]string{
		"Caddyfile": "{\n\tadmin unix/" + socket + "|0200\n" + app + "}\n", "tcp.caddyfile": "{\n" + app + "}\n",
		"other.caddyfile": "{\n\tadmin unix/" + socket + "\n}\n", "off.caddyfile": "{\n\tadmin off\n" + app + "}\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := secondRun([]string{"caddy", "run"}); got != "" {
		t.Errorf("nobody is there: %s", got)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	for args, refused := range map[string]bool{
		"run": true, "run --config Caddyfile": true, "run -c Caddyfile -a caddyfile": true, "run --config=Caddyfile --watch --pidfile x": true,
		"run --environ -c Caddyfile": true, "run --config tcp.caddyfile": false, "run --config other.caddyfile": false, "run --config off.caddyfile": false,
		"run --config none": false, "run --config -": false, "run --resume": false, "run --help": false, "reload": false, "adapt": false, "": false,
	} {
		if got := secondRun(append([]string{"caddy"}, strings.Fields(args)...)); (got != "") != refused {
			t.Errorf("%s: %q", args, got)
		}
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as after a crash: the file is there, nobody answers
	if got := secondRun([]string{"caddy", "run"}); got != "" {
		t.Errorf("a dead socket: %s", got)
	}
}

// Shells complete the accounts of the running server, and nothing if it isn't
// there.
func TestCompletion(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.accounts = "account robot {\n" + r.endpoints() + "\ngrant client_credentials\n}"
	complete := func(args ...string) string {
		root, out := bearerCommand(), new(bytes.Buffer)
		root.SetArgs(append([]string{"__complete", "bearer"}, args...))
		root.SetOut(out)
		root.SetErr(new(bytes.Buffer))
		if err := root.Execute(); err != nil {
			t.Error(err)
		}
		return out.String()
	}
	if got := complete("refresh", "--address", r.admin, ""); got != ":4\n" {
		t.Errorf("without a server: %q", got)
	}
	r.start()
	r.eventually("signed in", func() bool { return strings.Contains(complete("status", "--address", r.admin, ""), "robot\tready") })
	for args, want := range map[string]string{
		"refresh": "erp/\tready\nrobot\tready\n:6\n", "status": "erp\tready\nrobot\tready\n:4\n", "wait": "erp\tready\nrobot\tready\n:4\n",
		"wait robot": "erp\tready\nrobot\tready\n:4\n", "status robot": ":4\n", "login": "erp/\tready\nrobot\tready\n:6\n",
	} {
		line := append(strings.Fields(args), "--address", r.admin, "")
		if got := complete(line...); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	got := complete("")
	for _, name := range []string{"status", "wait", "check", "login", "logout", "refresh", "forget", "import", "adopt", "backup", "rekey", "sandbox"} {
		if !strings.Contains(got, name+"\t") {
			t.Errorf("%s isn't completed: %q", name, got)
		}
	}
	if got := complete("sandbox", "--grant", ""); !strings.Contains(got, "device_code") {
		t.Errorf("grants: %q", got)
	}
	if got := complete("sandbox", "--fault", "lost"); !strings.Contains(got, "lost-reply\t") {
		t.Errorf("faults: %q", got)
	}
}

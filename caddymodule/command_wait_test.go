package caddymodule

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// What starts after the server waits for what it needs: a server that isn't
// there yet, accounts that can't serve yet, those of them that are named.
func TestWaitCommand(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.proxy = "bearer_proxy erp/{http.auth.user.id} " + r.api
	password := "grant password {\n username sandbox-user\n password {file." + r.dir + "/password}\n}"
	r.accounts = "account robot {\n" + r.endpoints() + "\n" + password + "\n}\n" +
		"account code {\n" + r.endpoints() + "\ngrant authorization_code {\n redirect_uri http://127.0.0.1/cb2\n}\n}"
	r.runCommand(waitCommand(), "--timeout", "0").ends(1, "the server is not ready at "+r.admin)
	began := time.Now()
	r.runCommand(waitCommand(), "--timeout", "600ms").ends(1, "is not ready")
	if took := time.Since(began); took < 600*time.Millisecond || took > 3*time.Second {
		t.Errorf("it waited %v", took)
	}
	c := r.runCommand(waitCommand(), "robot", "--timeout", "20s") // the server comes up meanwhile
	time.Sleep(300 * time.Millisecond)
	r.start()
	c.ends(0)
	if c.output.Len() > 0 {
		t.Errorf("it isn't silent: %s", c.output.String())
	}
	r.runCommand(waitCommand(), "--timeout", "0").ends(3, "code: login_required: ", "caddy bearer login code", "can't serve: 1 of")
	r.runCommand(waitCommand(), "robot", "erp", "--timeout", "0").ends(0)
	r.runCommand(waitCommand(), "erp/ada", "--timeout", "0").ends(3, "erp/ada: login_required")
	r.runCommand(waitCommand(), "robot", "nobody", "--timeout", "20s").ends(1, `account "nobody"`)
	r.runCommand(waitCommand(), "robot/ada", "--timeout", "20s").ends(1, "has no sessions per user")
	r.runCommand(waitCommand(), "--timeout", "-1s").ends(2, "must not be negative")
	c = r.runCommand(waitCommand(), "erp/ada", "--timeout", "20s")
	r.finishLogin("erp/ada", "ada")
	c.ends(0)
}

// finishLogin logs a session in at the command line's endpoint of the server.
func (r *portalRig) finishLogin(name, user string) {
	r.Helper()
	var began beganJSON
	body := loginJSON{actionJSON: bodyOf(name), Browser: strings.Repeat("b", 32), RedirectURI: "http://127.0.0.1/cb"}
	r.post("/bearer/login", body, &began)
	callback, err := r.sandbox.Approve(began.URL, idpUser(user))
	if err != nil {
		r.Fatal(err)
	}
	at, query := pasted(callback)
	r.post("/bearer/login/finish", loginJSON{Browser: body.Browser, At: at, Query: query}, &began)
}

func (r *portalRig) post(uri string, body, answer any) {
	r.Helper()
	fl := statusCommand().Flags()
	_ = fl.Set("address", r.admin)
	if err := ask(r.Context(), caddycmd.Flags{FlagSet: fl}, http.MethodPost, uri, body, answer); err != nil {
		r.Fatal(uri, err)
	}
}

// A server whose provider is away comes up, says so and recovers; one that
// takes connections and answers nothing holds nobody longer than they wait.
func TestWaitCommandAway(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.proxy = "bearer_proxy robot " + r.api
	r.accounts = "account robot {\n" + r.endpoints() + "\ngrant client_credentials\n}"
	r.sandbox.Play(sandbox.Unavailable, -1)
	r.start()
	r.runCommand(waitCommand(), "robot", "--timeout", "1s").ends(1, "robot: ", "can't serve: 1 of")
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "mute"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	r.admin = "unix/" + l.Addr().String()
	r.runCommand(waitCommand(), "--timeout", "500ms").ends(1, "is not ready at unix//")
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it waited %v", took)
	}
}

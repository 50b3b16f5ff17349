package caddymodule

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A reload that fails elsewhere leaves all as it was, keys and accounts too.
func TestFailedReload(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.start()
	r.get("/echo")
	good := r.caddyfile()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for name, bad := range map[string]string{
		"provisioning": strings.Replace(good, "bearer_proxy erp", "reverse_proxy {\n\t\ttransport fastcgi {\n\t\t\troot {{\n\t\t}\n\t}\n\ttls_bogus\n\tbearer_proxy erp", 1),
		"key":          strings.Replace(good, "tokens.db", "tokens.db\n\t\t\tkey AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", 1),
		"starting":     strings.Replace(good, "account erp", "account other {\n\t\t\tclient_id x\n\t\t\tclient_secret y\n\t\t\ttoken_endpoint http://127.0.0.1:1/\n\t\t\tupstream localhost\n\t\t\tgrant password {\n\t\t\t\tusername u\n\t\t\t\tpassword p\n\t\t\t}\n\t\t}\n\t\taccount erp", 1) + "\nhttp://:" + port + " {\n\tbind 127.0.0.1\n}\n",
	} {
		if err := r.load(bad); err == nil {
			t.Errorf("%s: the reload did not fail", name)
		}
		r.get("/echo")
		if _, err := r.session().Token(context.Background()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		app, _ := running()
		if n := len(app.shared.sessions.All()); n != 1 {
			t.Errorf("%s: %d accounts are in force, want the one from before", name, n)
		}
	}
	if err := r.load(good); err != nil {
		t.Error(err)
	}
	r.get("/echo")
	r.requests(1, 0)
}

func TestRestartKeepsTokens(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.start()
	r.get("/echo")
	r.restart()
	r.get("/echo")
	r.requests(1, 0)
}

// One attempt with a wrong password over 20 restarts; the corrected file is
// seen without one.
func TestWrongPassword(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.secret("password", "wrong")
	r.start()
	r.fails(503, "credentials_rejected")
	for range 20 {
		r.restart()
		if res := r.fails(503, "credentials_rejected"); res.Header.Get("Retry-After") != "" {
			t.Error("Retry-After where waiting doesn't help")
		}
	}
	r.requests(1, 0)
	r.secret("password", "sandbox-password")
	start := time.Now()
	r.ready()
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("signed in after %s, want 15 s at most", took)
	}
	r.get("/echo")
	r.requests(2, 0)
}

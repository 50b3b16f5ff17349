package caddymodule

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A checkRig is a configuration in front of a sandbox over TLS, which is
// checked and never started.
type checkRig struct {
	*testing.T
	sandbox *sandbox.Sandbox
	servers *sandbox.Servers
	dir     string
	// What the Caddyfile is made of.
	global, account, grant, accounts, bearer, sites, callers string
}

func newCheckRig(t *testing.T, c sandbox.Config) *checkRig {
	t.Helper()
	r := &checkRig{T: t, sandbox: sandbox.New(c), dir: t.TempDir()}
	var err error
	if r.servers, err = r.sandbox.ListenTLS(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.sandbox.Close(); r.servers.Close() })
	if err := os.Chmod(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.write("client_secret", "sandbox-secret")
	r.write("password", "sandbox-password")
	r.write("ca.pem", string(r.servers.CAPEM))
	r.global = "admin unix/" + r.dir + "/admin.sock"
	r.grant = "grant password {\n username sandbox-user\n password {file." + r.dir + "/password}\n}"
	r.bearer = "store bbolt {\n path " + r.dir + "/store/tokens.db\n}"
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(r.dir, "config"))
	t.Setenv("XDG_DATA_HOME", filepath.Join(r.dir, "data"))
	return r
}

func (r *checkRig) write(name, text string) {
	r.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
}

func (r *checkRig) caddyfile() string {
	return strings.NewReplacer("GLOBAL", r.global, "BEARER", r.bearer, "ACCOUNTS", r.accounts, "ACCOUNT", r.account, "GRANT", r.grant,
		"SITES", r.sites, "CALLERS", r.callers, "DIR", r.dir, "SERVER", r.servers.AuthorizationServerURL, "API", r.servers.APIURL).Replace(`{
	GLOBAL
	bearer {
		BEARER
		account erp {
			client_id sandbox-client
			client_secret {file.DIR/client_secret}
			token_endpoint SERVER/oauth/v2/oauth-token
			revoke_endpoint SERVER/oauth/v2/oauth-revoke
			authorize_endpoint SERVER/oauth/v2/oauth-authorize
			upstream API
			tls {
				ca DIR/ca.pem
			}
			GRANT
			ACCOUNT
		}
		ACCOUNTS
	}
}

http://:18080 {
	CALLERS
	bearer_proxy erp API {
		transport http {
			tls_trust_pool file DIR/ca.pem
		}
	}
}
SITES
`)
}

// finds checks the configuration. Each want is "level account check: parts of
// the text, divided by …"; what else isn't ok is an error. Nothing may be spent
// and nothing made.
func (r *checkRig) finds(wants ...string) []finding {
	r.Helper()
	before := r.files()
	r.write("Caddyfile", r.caddyfile())
	config, _, err := readConfig(filepath.Join(r.dir, "Caddyfile"), "")
	if err != nil {
		r.Fatal(err)
	}
	found := examine(r.Context(), config)
	unmet := map[string]bool{}
	for _, w := range append(wants, "warn - toolchain: ") {
		unmet[w] = true
	}
	if !oldToolchain(runtime.Version()) {
		delete(unmet, "warn - toolchain: ")
	}
	for _, f := range found {
		matched := false
		for _, w := range append(wants, "warn - toolchain: ") {
			head, text, _ := strings.Cut(w, ": ")
			if head == string(f.Level)+" "+or(f.Account, "-")+" "+f.Check && contains(f.What+" | "+f.Fix, strings.Split(text, "…")...) {
				matched = true
				delete(unmet, w)
			}
		}
		if !matched && f.Level != oauth.LevelOK {
			r.Errorf("not expected: %+v", f)
		}
		if contains(f.What+f.Fix, "sandbox-secret") || contains(f.What+f.Fix, "sandbox-password") {
			r.Errorf("a secret is shown: %+v", f)
		}
	}
	for w := range unmet {
		r.Errorf("not found: %s in\n%+v", w, found)
	}
	if n := r.sandbox.TokenRequests(""); n != 0 {
		r.Errorf("%d token requests", n)
	}
	for _, e := range r.sandbox.Events() {
		if e.Committed || e.Kind == sandbox.KindAPI || e.Kind == sandbox.KindDevice {
			r.Errorf("something was done: %+v", e)
		}
	}
	if after := r.files(); before != "" && strings.Replace(after, "Caddyfile\n", "", 1) != strings.Replace(before, "Caddyfile\n", "", 1) {
		r.Errorf("files before\n%s\nand after\n%s", before, after)
	}
	return found
}

func (r *checkRig) files() string {
	var names []string
	_ = filepath.WalkDir(r.dir, func(path string, _ fs.DirEntry, _ error) error {
		names = append(names, strings.TrimPrefix(path, r.dir+"/"))
		return nil
	})
	return strings.Join(names, "\n") + "\n"
}

func TestCheckConfiguration(t *testing.T) {
	r := newCheckRig(t, sandbox.Config{})
	r.callers = "bind 127.0.0.1"
	r.finds("ok - config: can be loaded", "ok - admin: Unix socket", "ok - store: /store/tokens.db, sealed with a key that is made",
		"ok - listener: 127.0.0.1:18080 can be reached by this machine alone; accounts serve callers on this machine",
		"ok erp endpoint: token_endpoint", "ok erp endpoint: revoke_endpoint", "ok erp certificate: TLS 1.3", "ok erp clock: agrees",
		"ok erp client_auth: `client_auth basic`", "ok erp upstream: can be connected to",
		"ok erp file: client_secret…is its owner's alone", "ok erp file: password")
}

// Each thing that may be wrong, with what to do.
func TestCheckFinds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*checkRig)
		wants  []string
	}{
		{"admin over TCP", func(r *checkRig) { r.global = "" }, []string{"warn - admin: open to every user…admin unix//run/caddy/admin.sock"}},
		{"admin for all", func(r *checkRig) { r.global = "admin 0.0.0.0:2019" }, []string{"fail - admin: open to other machines"}},
		{"admin off", func(r *checkRig) { r.global = "admin off" }, []string{"warn - admin: is off"}},
		{"admin socket for all", func(r *checkRig) { r.global = "admin unix/" + r.dir + "/a.sock|0222" }, []string{"warn - admin: mode 0222"}},
		{"memory", func(r *checkRig) { r.bearer = "store memory" }, []string{"warn - store: in memory only"}},
		{"configured key", func(r *checkRig) {
			r.write("key", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
			_ = os.Chmod(r.dir+"/key", 0o644)
			r.bearer = "store bbolt {\n path " + r.dir + "/store/tokens.db\n key {file." + r.dir + "/key}\n}"
		}, []string{"ok - store: the configured key", "warn - file: key " + "…can be read by others (mode 0644)…chmod 600"}},
		{"open files", func(r *checkRig) {
			_ = os.Chmod(r.dir+"/password", 0o640)
			_ = os.Mkdir(r.dir+"/open", 0o700)
			_ = os.Chmod(r.dir+"/open", 0o777)
			r.write("open/secret", "sandbox-secret")
			r.accounts = strings.Replace(second(r, "two"), "/client_secret}", "/open/secret}", 1)
			_ = os.Mkdir(r.dir+"/store", 0o700)
			r.write("store/tokens.db", "x")
			_ = os.Chmod(r.dir+"/store/tokens.db", 0o604)
		}, []string{"warn erp file: password…mode 0640", "warn two file: client_secret…can be replaced by others…chmod go-w", "fail - store: tokens.db can be read by others (mode 0604)", "ok two client_auth: accepts"}},
		{"literal secrets", func(r *checkRig) {
			r.accounts = strings.Replace(second(r, "two"), "{file."+r.dir+"/client_secret}", "sandbox-secret", 1)
		}, []string{"warn two secret: client_secret is written into the configuration…client_secret {file./run/credentials/client_secret}", "ok two client_auth: accepts"}},
		{"a webhook", func(r *checkRig) {
			r.write("hook", "https://127.0.0.1:1/secret")
			_ = os.Chmod(r.dir+"/hook", 0o644)
			r.global += "\n\tevents {\n\t\ton bearer.login_required bearer_webhook {file." + r.dir + "/hook} {\n\t\t\theader Authorization \"Bearer sesame\"\n\t\t}\n\t}"
		}, []string{"warn - file: webhook " + "…/hook can be read by others", "warn - secret: webhook header Authorization is written into the configuration"}},
		{"an account that is wrong", func(r *checkRig) {
			r.accounts = strings.Replace(second(r, "two"), "/client_secret}", "/nowhere}", 1)
		}, []string{"fail two config: client_secret: open " + "…/nowhere: no such file…write the file", "ok erp client_auth: accepts"}},
		{"another thing that is wrong", func(r *checkRig) {
			r.sites = "http://:18081 {\n bind 127.0.0.1\n bearer_proxy erp https://elsewhere.example\n}"
		},
			[]string{"fail - config: elsewhere.example", "fail erp upstream: elsewhere.example"}},
		{"open listener", func(r *checkRig) { r.callers, r.sites = "", "" }, []string{"fail - config: nothing says who may call", "ok - listener: :18080 can be reached by other machines"}},
		{"everybody", func(r *checkRig) {
			r.sites = "http://:18081 {\n bearer_proxy erp API {\n callers 0.0.0.0/0 10.0.0.0/8\n transport http {\n tls_trust_pool file DIR/ca.pem\n }\n }\n}"
		}, []string{"warn - listener: :18081 can be reached by other machines; accounts serve callers at 0.0.0.0/0 10.0.0.0/8…callers <address or CIDR>"}},
		{"some callers", func(r *checkRig) {
			r.sites = "http://:18081 {\n bearer_proxy erp API {\n callers 10.0.0.0/8\n transport http {\n tls_trust_pool file DIR/ca.pem\n }\n }\n}"
		}, []string{"ok - listener: accounts serve callers at 10.0.0.0/8"}},
		{"unguarded", func(r *checkRig) {
			r.sites = "http://:18081 {\n bind 127.0.0.1\n reverse_proxy API {\n transport bearer erp {\n unguarded\n tls_trust_pool file DIR/ca.pem\n }\n }\n}"
		}, []string{"warn erp listener: is unguarded"}},
		{"an unprotected portal", func(r *checkRig) {
			r.bearer += "\nportal http://127.0.0.1:18081/bearer"
			r.sites = "http://:18081 {\n bind 127.0.0.1\n bearer_portal {\n unprotected\n }\n}"
		}, []string{"warn - listener: every user and program of this machine that reaches 127.0.0.1:18081 may use the portal…basic_auth"}},
		{"an API behind a proxy", func(r *checkRig) {
			r.accounts = strings.Replace(second(r, "two"), "upstream "+r.servers.APIURL, "upstream https://api.invalid", 1)
			r.sites = "http://:18081 {\n bind 127.0.0.1\n bearer_proxy two https://api.invalid {\n transport http {\n network_proxy url http://127.0.0.1:1\n }\n }\n}"
		}, []string{"ok two upstream: api.invalid:443 is reached through a proxy"}},
		{"unknown authority", func(r *checkRig) {
			r.accounts = strings.Replace(second(r, "two"), "ca "+r.dir+"/ca.pem", "ca "+r.dir+"/other.pem", 1)
			other, _, err := sandbox.NewForeignCertificate("x")
			if err != nil {
				r.Fatal(err)
			}
			r.write("other.pem", string(other))
		}, []string{"fail two endpoint: certificate was not accepted…tls { ca"}},
		{"the wrong way to authenticate", func(r *checkRig) { r.sandbox.SetClientSecret("another") }, []string{"fail erp client_auth: refuses the client…tried: basic, post"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newCheckRig(t, sandbox.Config{})
			r.callers = "bind 127.0.0.1"
			tt.change(r)
			r.sites = strings.NewReplacer("API", r.servers.APIURL, "DIR", r.dir).Replace(r.sites)
			r.finds(tt.wants...)
		})
	}
}

// second is one more account of the sandbox.
func second(r *checkRig, name string) string {
	return strings.NewReplacer("NAME", name, "DIR", r.dir, "SERVER", r.servers.AuthorizationServerURL, "API", r.servers.APIURL).Replace(`account NAME {
			client_id sandbox-client
			client_secret {file.DIR/client_secret}
			token_endpoint SERVER/oauth/v2/oauth-token
			revoke_endpoint SERVER/oauth/v2/oauth-revoke
			upstream API
			tls {
				ca DIR/ca.pem
			}
			grant client_credentials
		}`)
}

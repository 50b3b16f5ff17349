package caddymodule

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A storeRig is a rig whose accounts get their first tokens in every way, and
// whose store can be carried from host to host.
type storeRig struct {
	*portalRig
	at    host
	sites map[string]string // account to address
	only  []string          // accounts that are configured besides erp; nil: all
}

// A host is what a machine keeps: Caddy's configuration directory, with the
// store's key and the marker, and the directory of the store.
type host struct{ config, data string }

// Accounts of a storeRig, besides erp with the users ada and alan: robot signs
// in with a password whenever it has to, once only the first time, code wants a
// person, given has a refresh token from elsewhere.
var storeAccounts = []string{"code", "given", "once", "robot"}

func newStoreRig(t *testing.T, c sandbox.Config) *storeRig {
	t.Helper()
	r := &storeRig{portalRig: newCommandRig(t, c), sites: map[string]string{}}
	r.grant = ""
	for _, name := range storeAccounts {
		r.sites[name] = freeAddress(t)
	}
	r.at = r.newHost()
	return r
}

func (r *storeRig) newHost() host {
	r.Helper()
	h := host{r.TempDir(), filepath.Join(r.TempDir(), "store")}
	if err := os.Mkdir(h.data, 0o700); err != nil {
		r.Fatal(err)
	}
	return h
}

func (h host) db() string    { return filepath.Join(h.data, "tokens.db") }
func (h host) spill() string { return h.db() + ".spill" }
func (h host) key() string   { return filepath.Join(h.config, "caddy", "bearer", "store.key") }

func (r *storeRig) caddyfile() string {
	grants := map[string]string{
		"robot": "grant password {\n username sandbox-user\n password {file." + r.dir + "/password}\n}",
		"once":  "grant password {\n username sandbox-user\n password {file." + r.dir + "/password}\n relogin off\n}",
		"code":  "grant authorization_code {\n redirect_uri http://127.0.0.1/cb\n}",
		"given": "grant refresh_token",
	}
	r.accounts, r.extra = "", ""
	for _, name := range storeAccounts {
		if r.only != nil && !slices.Contains(r.only, name) {
			continue
		}
		_, port, _ := net.SplitHostPort(r.sites[name])
		r.accounts += fmt.Sprintf("account %s {\n%s\n%s\n}\n", name, r.endpoints(), grants[name])
		r.extra += fmt.Sprintf("http://:%s {\n bind 127.0.0.1\n bearer_proxy %s %s\n}\n", port, name, r.api)
	}
	return strings.ReplaceAll(r.portalRig.caddyfile(), r.dir+"/store/tokens.db", r.at.db())
}

// start starts Caddy on a host, stop ends it there.
func (r *storeRig) start(h host) {
	r.Helper()
	r.at = h
	r.Setenv("XDG_CONFIG_HOME", h.config)
	if err := r.load(r.caddyfile()); err != nil {
		r.Fatal(err)
	}
	for _, b := range r.browsers {
		b.client.CloseIdleConnections()
	}
	r.settled()
}

// begin starts Caddy on its first host, for the rest of the test, and gets
// every account its tokens.
func (r *storeRig) begin() {
	r.Helper()
	r.start(r.at)
	r.Cleanup(r.stop)
	for _, user := range []string{"ada", "alan"} {
		r.browser(user).signIn("erp/" + user)
	}
	for _, name := range storeAccounts {
		if r.only != nil && !slices.Contains(r.only, name) {
			continue
		}
		switch name {
		case "code":
			c := r.runCommand(loginCommand(), name, "--paste")
			callback, err := r.sandbox.Approve(c.says("http"), "ada@sandbox")
			if err != nil {
				r.Fatal(err)
			}
			c.types(callback+"\n").ends(0, "code is logged in")
		case "given":
			r.runCommand(importCommand(), name).types(r.refreshToken() + "\n").ends(0)
		}
		r.serves(name)
	}
}

// refreshToken gets one at the server, as an integration elsewhere does.
func (r *storeRig) refreshToken() string {
	r.Helper()
	return refreshTokenOf(r, r.sandbox.Endpoints(r.servers.AuthorizationServerURL).Token, "alan@sandbox", "alan", "sandbox-secret")
}

// refreshTokenOf signs a user in by password, as another integration would.
func refreshTokenOf(t testing.TB, endpoint, username, password, clientSecret string) string {
	t.Helper()
	res, err := http.PostForm(endpoint, url.Values{
		"grant_type": {"password"}, "username": {username}, "password": {password}, "client_id": {"sandbox-client"}, "client_secret": {clientSecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.RefreshToken == "" {
		t.Fatal(res.Status, err)
	}
	return answer.RefreshToken
}

// refreshCommand is `caddy bearer refresh`.
func refreshCommand() *cobra.Command {
	return actionCommand("refresh", "", "/bearer/refresh", "has a new token")
}

// call asks the API as an account.
func (r *storeRig) call(account string) (*http.Response, string) {
	r.Helper()
	res, err := client.Get("http://" + r.sites[account] + "/echo")
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	return res, string(text)
}

func (r *storeRig) serves(accounts ...string) {
	r.Helper()
	for _, name := range accounts {
		if res, text := r.call(name); res.StatusCode != 200 {
			r.Errorf("%s: %d %s", name, res.StatusCode, text)
		}
	}
}

// waits checks that an account has no token until somebody adopts the stored
// ones, and that callers and operators are told so.
func (r *storeRig) waits(accounts ...string) {
	r.Helper()
	for _, name := range accounts {
		res, text := r.call(name)
		if res.StatusCode != 503 || res.Header.Get(errorHeader) != "login_required" || !strings.Contains(text, "caddy bearer adopt") {
			r.Errorf("%s: %d %s", name, res.StatusCode, text)
		}
		if st := r.status(name); st.State != "login_required" || !strings.Contains(st.Detail, "caddy bearer adopt") || st.HasRefreshToken {
			r.Errorf("%s: %s, %s", name, st.State, st.Detail)
		}
	}
}

// asked checks how many token requests of each grant the server gets while
// something is done.
func (r *storeRig) asked(password, refresh int, do func()) {
	r.Helper()
	all, p, f := r.sandbox.TokenRequests(""), r.sandbox.TokenRequests("password"), r.sandbox.TokenRequests("refresh_token")
	do()
	all, p, f = r.sandbox.TokenRequests("")-all, r.sandbox.TokenRequests("password")-p, r.sandbox.TokenRequests("refresh_token")-f
	if p != password || f != refresh || all != p+f {
		r.Errorf("%d token requests, %d by password, %d by refresh token; want %d and %d", all, p, f, password, refresh)
	}
}

// post asks the admin endpoint and returns the answer's body.
func (r *storeRig) post(uri, body string) (int, string) {
	r.Helper()
	res, err := http.Post("http://"+r.admin+uri, "application/json", strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// condition is the answer of GET /bearer/status.
func (r *storeRig) condition() (st statusJSON) {
	r.Helper()
	res, err := http.Get("http://" + r.admin + "/bearer/status")
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&st); err != nil {
		r.Fatal(err)
	}
	return st
}

// backup runs the command and returns the file.
func (r *storeRig) backup() string {
	r.Helper()
	file := filepath.Join(r.TempDir(), "tokens.db.backup")
	r.runCommand(backupCommand(), file).ends(0, file+": a copy of the token store", "The key isn't in it")
	return file
}

// put copies a file, for its owner only.
func (r *storeRig) put(from, to string) {
	r.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(to, []byte(read(r.T, from)), 0o600); err != nil {
		r.Fatal(err)
	}
}

func (r *storeRig) remove(files ...string) {
	r.Helper()
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			r.Fatal(err)
		}
	}
}

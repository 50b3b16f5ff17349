package caddymodule

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// insideServers runs Caddy with these sites, and returns their servers, to be
// called without sockets: Caddy does all that it does with a request, and the
// test says where the request comes from.
func insideServers(t testing.TB, api string, sites ...string) []*caddyhttp.Server {
	t.Helper()
	box := sandbox.New(sandbox.Config{})
	servers, err := box.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		box.Close()
		servers.Close()
	})
	dir, err := os.MkdirTemp("", "guard")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, text := range map[string]string{"client_secret": "sandbox-secret", "password": "sandbox-password"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	grace_period 1s
	log {
		output discard
		level ERROR
	}
	bearer {
		store memory
		account erp {
			client_id sandbox-client
			client_secret {file.%[1]s/client_secret}
			token_endpoint %[2]s/oauth/v2/oauth-token
			upstream %[3]s
			grant password {
				username sandbox-user
				password {file.%[1]s/password}
			}
		}
	}
}
`, dir, servers.AuthorizationServerURL, api)
	var ports []string
	for _, site := range sites {
		port := freePort(t)
		ports = append(ports, port)
		config += "http://:" + port + " {\n\tbind 127.0.0.1\n" + site + "\n}\n"
	}
	json, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(json, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	return runningServers(t, ports)
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// runningServers finds the servers of the running Caddy by their ports.
func runningServers(t testing.TB, ports []string) []*caddyhttp.Server {
	t.Helper()
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		t.Fatal(err)
	}
	found := make([]*caddyhttp.Server, len(ports))
	for _, s := range app.(*caddyhttp.App).Servers {
		for _, l := range s.Listen {
			if i := slices.IndexFunc(ports, func(p string) bool { return strings.HasSuffix(l, ":"+p) }); i >= 0 {
				found[i] = s
			}
		}
	}
	for i, s := range found {
		if s == nil {
			t.Fatalf("no server listens on port %s", ports[i])
		}
	}
	return found
}

// guardedSite is a site whose guard has these options, and that says so when a
// request has passed it.
func guardedSite(options string) string {
	return "\tbearer_guard {\n\t\t" + options + "\n\t}\n\trespond passed 200"
}

// askInside puts a request to a server. It is false if Go's server would not
// have let it come that far.
func askInside(s *caddyhttp.Server, a attempt) (got wireAnswer, ok bool) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(a.text())))
	if err != nil {
		return wireAnswer{}, false
	}
	r.RemoteAddr = a.peer
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, r)
	return wireAnswer{status: rec.Code, code: rec.Header().Get(errorHeader), header: rec.Header(), body: rec.Body.String()}, true
}

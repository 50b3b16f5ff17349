package caddymodule

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A token endpoint with a certificate of a private authority is asked only if
// that authority is configured.
func TestPrivateAuthority(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	as := httptest.NewTLSServer(r.sandbox.AuthorizationServer())
	defer as.Close()
	r.secret("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: as.Certificate().Raw})))
	r.secret("empty.pem", "nothing\n")
	config := func(lines string) string {
		r.account = lines
		return strings.ReplaceAll(r.caddyfile(), r.servers.AuthorizationServerURL, as.URL)
	}
	r.Cleanup(r.stop)
	if err := r.load(config("")); err != nil {
		t.Fatal(err)
	}
	r.fails(503, "authorization_server_unavailable")
	r.requests(0, 0)
	for _, file := range []string{"empty.pem", "missing.pem"} {
		if err := r.load(config("tls {\n\t\t\t\tca " + r.dir + "/" + file + "\n\t\t\t}")); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
	// The name written as a placeholder: what the file holds may be a key, too.
	r.secret("combined.pem", "-----BEGIN PRIVATE KEY-----\nC4nary\n-----END PRIVATE KEY-----\n")
	if err := r.load(config("tls {\n\t\t\t\tca {file." + r.dir + "/combined.pem}\n\t\t\t}")); err == nil ||
		strings.Contains(err.Error(), "C4nary") || !contains(err.Error(), "tls ca: ", "name the file itself") {
		t.Errorf("what a placeholder holds: %v", err)
	}
	r.stop()
	if err := r.load(config("tls {\n\t\t\t\tca " + r.dir + "/ca.pem\n\t\t\t}")); err != nil {
		t.Fatal(err)
	}
	r.get("/echo")
	r.requests(1, 0)
}

// The proxy is used for the token endpoint, and for that only.
func TestTokenProxy(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		if req.URL.Host != "localhost:1" {
			t.Errorf("the proxy is asked for %s", req.URL)
		}
		r.sandbox.AuthorizationServer().ServeHTTP(w, req)
	}))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	r.account = "http_proxy " + proxy.URL
	if err := r.load(strings.ReplaceAll(r.caddyfile(), r.servers.AuthorizationServerURL, "http://localhost:1")); err != nil {
		t.Fatal(err)
	}
	r.Cleanup(r.stop)
	r.get("/echo")
	r.requests(1, 0)
	if asked.Load() != 1 {
		t.Errorf("the proxy was asked %d times, want 1", asked.Load())
	}
}

package caddymodule

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

// withKeys is the Caddyfile with configured keys.
func (r *rig) withKeys(key, old string) string {
	r.Helper()
	lines := "tokens.db"
	for name, value := range map[string]string{"key": key, "old_key": old} {
		if value != "" {
			r.secret(name, value+"\n")
			lines += "\n\t\t\t" + name + " {file." + r.dir + "/" + name + "}"
		}
	}
	return strings.Replace(r.caddyfile(), "tokens.db", lines, 1)
}

// The store's key is changed by a reload, with the old one still readable; a
// missing or wrong key stops a start and leaves the store as it is.
func TestStoreKeys(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	a, b := store.NewKey().Text(), store.NewKey().Text()
	if err := r.load(r.withKeys(a, "")); err != nil {
		t.Fatal(err)
	}
	r.Cleanup(r.stop)
	r.get("/echo")
	if err := r.load(r.withKeys(b, "")); err == nil || !strings.Contains(err.Error(), "old_key") {
		t.Errorf("another key without old_key: %v", err)
	}
	if err := r.load(r.withKeys(b, a)); err != nil {
		t.Fatal(err)
	}
	r.get("/echo")
	r.stop()
	db := filepath.Join(r.dir, "store", "tokens.db")
	before := read(t, db)
	for _, config := range []string{r.withKeys(b, ""), r.caddyfile()} {
		if err := r.load(config); err == nil {
			t.Error("a start with the wrong key, or none, did not fail")
		} else {
			t.Log(err)
		}
	}
	if read(t, db) != before {
		t.Error("a refused start changed the store")
	}
	if err := r.load(r.withKeys(b, a)); err != nil {
		t.Fatal(err)
	}
	r.get("/echo")
	r.requests(1, 0)
}

// A key that nobody configured is made once, away from the data, for its owner
// only.
func TestKeptKey(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	_ = os.Remove(keyFile())
	r.start()
	r.get("/echo")
	info, err := os.Stat(keyFile())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	key := read(t, keyFile())
	r.stop()
	if err := os.Remove(keyFile()); err != nil {
		t.Fatal(err)
	}
	if err := r.load(r.caddyfile()); err == nil || !strings.Contains(err.Error(), keyFile()) {
		t.Errorf("a start without the key: %v", err)
	}
	if err := os.WriteFile(keyFile(), []byte(key), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.load(r.caddyfile()); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a start with a key that others can read: %v", err)
	}
	if err := os.Chmod(keyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.load(r.caddyfile()); err != nil {
		t.Fatal(err)
	}
	r.get("/echo")
	r.requests(1, 0)
}

// Over TLS the API is asked by HTTP/2, by its own name.
func TestHTTPSUpstream(t *testing.T) {
	var seen atomic.Pointer[http.Request]
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.Store(r) }))
	api.EnableHTTP2 = true
	api.StartTLS()
	defer api.Close()
	r := newRig(t, sandbox.Config{})
	r.api = api.URL
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	r.secret("ca.pem", string(ca))
	r.handler = "transport http {\n\t\t\ttls_trust_pool file " + r.dir + "/ca.pem\n\t\t}"
	r.start()
	if res, text := r.do("GET", "/", nil); res.StatusCode != 200 {
		t.Fatal(res.StatusCode, text)
	}
	if req := seen.Load(); req.ProtoMajor != 2 || "https://"+req.Host != api.URL || !strings.HasPrefix(req.Header.Get("Authorization"), "Bearer ") {
		t.Errorf("%s %s", req.Proto, req.Host)
	}
}

package caddymodule

import (
	"encoding/pem"
	"maps"
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

// F48: the master key is missing or wrong. Expected: it refuses, the store is
// untouched. Best: the same. (With the old key still readable, a reload changes
// the key.)
func TestF48MasterKeyMissingOrWrong(t *testing.T) {
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
	r.settled()
	r.get("/echo")
	r.stop()
	before := map[string]string{}
	files(t, before, filepath.Join(r.dir, "store"))
	refused := 0
	for name, keys := range map[string][2]string{
		"the new one without the old one": {b}, "none": {}, "another": {store.NewKey().Text()}, "too short": {"AAECAwQ="}, "no base64": {"not a key"},
		"two others": {store.NewKey().Text(), store.NewKey().Text()}, "a good one and a short old_key": {b, "AAECAwQ="},
	} {
		if err := r.load(r.withKeys(keys[0], keys[1])); err == nil {
			t.Errorf("a start with the key %s did not fail", name)
			r.stop()
		} else {
			t.Logf("%s: %v", name, err)
			refused++
		}
	}
	after := map[string]string{}
	files(t, after, filepath.Join(r.dir, "store"))
	if !maps.Equal(before, after) || before[filepath.Join(r.dir, "store", "tokens.db")] == "" {
		t.Error("a refused start changed the store")
	}
	if err := r.load(r.withKeys(b, a)); err != nil {
		t.Fatal(err)
	}
	r.settled()
	r.get("/echo")
	r.requests(1, 0)
	measured(t, 48, 0, "%d starts with a wrong key or none: refused with what to do, not a byte of the store changed, 0 token requests; the right key then needs none either", refused)
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
	if os.Geteuid() == 0 {
		if err := os.Chown(keyFile(), 12345, -1); err != nil {
			t.Fatal(err)
		}
		if err := r.load(r.caddyfile()); err == nil || !contains(err.Error(), keyFile(), "user id 12345") {
			t.Errorf("a start with another user's key: %v", err)
		}
		if err := os.Chown(keyFile(), 0, -1); err != nil {
			t.Fatal(err)
		}
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

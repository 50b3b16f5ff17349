package caddymodule

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	scannerKey = "scanner-key-0123456789"
	printerKey = "printer-key-0123456789"
)

func keyedGuard(t *testing.T, keys ...CallerKey) *Guard {
	t.Helper()
	g := &Guard{CallerKeys: keys}
	for _, k := range keys {
		if err := g.keys.add(k, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func TestCallerKeys(t *testing.T) {
	t.Parallel()
	g := keyedGuard(t, CallerKey{"scanner", scannerKey}, CallerKey{"printer", printerKey}, CallerKey{"printer", "printer-key-of-tomorrow"})
	basic := func(user, password string) string {
		r := guardRequest("GET", "localhost")
		r.SetBasicAuth(user, password)
		return r.Header.Get("Authorization")
	}
	for _, c := range []struct {
		name   string
		header []string
		owner  string
	}{
		{"field", []string{"X-Api-Key", scannerKey}, "scanner"},
		{"field of another", []string{"X-Api-Key", printerKey}, "printer"},
		{"the next key", []string{"X-Api-Key", "printer-key-of-tomorrow"}, "printer"},
		{"password", []string{"Authorization", basic("", scannerKey)}, "scanner"},
		{"password beside the API's own key", []string{"X-Api-Key", "of the API", "Authorization", basic("", scannerKey)}, "scanner"},
		{"password with any user", []string{"Authorization", basic("printer", scannerKey)}, "scanner"},

		{"none", nil, ""},
		{"empty", []string{"X-Api-Key", ""}, ""},
		{"wrong", []string{"X-Api-Key", scannerKey + "x"}, ""},
		{"a part", []string{"X-Api-Key", scannerKey[:20]}, ""},
		{"two", []string{"X-Api-Key", scannerKey, "X-Api-Key", printerKey}, ""},
		{"the user, not the password", []string{"Authorization", basic(scannerKey, "")}, ""},
		{"a token", []string{"Authorization", "Bearer " + scannerKey}, ""},
		{"both wrong", []string{"X-Api-Key", "wrong", "Authorization", basic("", "wrong")}, ""},
	} {
		r := guardRequest("GET", "localhost", c.header...)
		r.RemoteAddr = "192.0.2.9:1" // with keys, callers may be anywhere
		code := refusedFor(g, r)
		if want := map[bool]string{true: "key_refused"}[c.owner == ""]; code != want {
			t.Errorf("%s: %q, want %q", c.name, code, want)
		}
		for _, key := range []string{scannerKey, basic("", scannerKey), basic("printer", scannerKey)} {
			if c.owner != "" && (r.Header.Get("X-Api-Key") == key || r.Header.Get("Authorization") == key) {
				t.Errorf("%s: the key goes on: %v", c.name, r.Header)
			}
		}
		r = guardRequest("GET", "localhost", c.header...)
		if name, ok := g.keys.owner(r); name != c.owner || ok != (c.owner != "") {
			t.Errorf("%s: %q %v", c.name, name, ok)
		}
	}
}

func TestCallerKeyRefusal(t *testing.T) {
	t.Parallel()
	p := refusal("key_refused", "")
	if p.header.Get("Www-Authenticate") != `Basic realm="caddy-bearer", charset="UTF-8"` {
		t.Errorf("%v", p.header)
	}
	if problems["key_refused"].header != nil {
		t.Error("the template was written to")
	}
}

// callers and caller_key together: both must fit.
func TestCallerKeysAndCallers(t *testing.T) {
	t.Parallel()
	g := keyedGuard(t, CallerKey{"scanner", scannerKey})
	g.callers = guardFor("192.0.2.0/24").callers
	for _, c := range []struct{ client, key, code string }{
		{"192.0.2.7", scannerKey, ""},
		{"192.0.2.7", "", "key_refused"},
		{"198.51.100.1", scannerKey, "caller_refused"},
	} {
		if code := refusedFor(g, clientIP(guardRequest("GET", "localhost", "X-Api-Key", c.key), c.client)); code != c.code {
			t.Errorf("%+v: %q", c, code)
		}
	}
}

func TestCallerKeyErrors(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	for _, c := range []struct {
		keys []CallerKey
		want string
	}{
		{[]CallerKey{{"", scannerKey}}, `caller_key "": the name must be visible ASCII`},
		{[]CallerKey{{"a b", scannerKey}}, `caller_key "a b": the name`},
		{[]CallerKey{{"a{b}", scannerKey}}, `caller_key "a{b}": the name`},
		{[]CallerKey{{"a", "short"}}, "caller_key a: the key must have 16 bytes or more; make one with `openssl rand -hex 24`"},
		{[]CallerKey{{"a", scannerKey}, {"b", scannerKey}}, "caller_key b: a has the same key; give each its own"},
		{[]CallerKey{{"a", "{file." + file + "}"}}, "caller_key a: "},
	} {
		g := new(Guard)
		var err error
		for _, k := range c.keys {
			if err == nil {
				err = g.keys.add(k, slog.New(slog.DiscardHandler))
			}
		}
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), scannerKey) {
			t.Errorf("%v: %v, want %q", c.keys, err, c.want)
		}
	}
}

// A key that was exchanged in its file works at once, the one before it no
// longer than 10 s; wrong keys don't make us read the file all the time.
func TestCallerKeyRotation(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	write := func(key string) {
		if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(scannerKey)
	synctest.Test(t, func(t *testing.T) {
		g := keyedGuard(t, CallerKey{"scanner", "{file." + file + "}"})
		works := func(key string) bool {
			_, ok := g.keys.owner(&http.Request{Header: http.Header{"X-Api-Key": {key}}})
			return ok
		}
		if !works(scannerKey) {
			t.Fatal("the first key")
		}
		time.Sleep(2 * time.Second)
		write(printerKey)
		if !works(scannerKey) || !works(printerKey) {
			t.Error("the new key doesn't work at once")
		}
		if works(scannerKey) {
			t.Error("the former key works although the file was read again")
		}
		write(scannerKey)
		if works(scannerKey) {
			t.Error("the file was read twice within a second")
		}
		time.Sleep(rereadMiss)
		if !works(scannerKey) {
			t.Error("the file wasn't read again after a second")
		}
		write(printerKey)
		time.Sleep(rereadKeys)
		if works(scannerKey) {
			t.Error("a key that is no more works after 10 s")
		}
	})
}

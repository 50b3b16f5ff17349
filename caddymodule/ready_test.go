package caddymodule

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

const ready = `{"ready":true}`

// probe asks a rig whose site has bearer_ready at /ready.
func (r *rig) probe() (status int, body string) {
	r.Helper()
	res, text := r.do("GET", "/ready", nil)
	if res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Content-Type") != "application/json" {
		r.Errorf("%v", res.Header)
	}
	return res.StatusCode, strings.TrimSpace(text)
}

// A server whose provider is away at boot lives, isn't ready, says why, and
// recovers by itself.
func TestReadyRecovers(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.site = "bearer_ready /ready\n\trespond /live live"
	r.sandbox.Play(sandbox.Unavailable, -1)
	r.start()
	r.get("/live")
	const away = `{"ready":false,"accounts":[{"account":"erp","state":"away","code":"authorization_server_unavailable"}]}`
	r.eventually("away", func() bool { _, body := r.probe(); return body == away })
	if status, _ := r.probe(); status != 503 {
		t.Errorf("%d", status)
	}
	res, body := r.do("HEAD", "/ready", nil)
	if res.StatusCode != 503 || body != "" {
		t.Errorf("HEAD: %d %q", res.StatusCode, body)
	}
	r.fails(503, "authorization_server_unavailable")
	r.sandbox.Clear()
	r.eventually("ready", func() bool { status, _ := r.probe(); return status == 200 })
	if _, body := r.probe(); body != ready {
		t.Error(body)
	}
	r.get("/echo")
	if res, _ := r.do("HEAD", "/ready", nil); res.StatusCode != 200 {
		t.Errorf("HEAD: %d", res.StatusCode)
	}
	if res, _ := r.do("POST", "/ready", nil); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d", res.StatusCode)
	}
}

// All accounts count unless some are named; those with sessions per user
// never.
func TestReadyAccounts(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.site = "bearer_ready /ready\n\tbearer_ready /erp erp\n\tbearer_ready /crm crm\n\tbearer_ready /both crm erp\n\tbearer_ready /users users"
	erp := r.caddyfile()
	person := func(name string) string {
		return "account " + name + " {\n\t\t\tclient_id x\n\t\t\tclient_secret {file." + r.dir + "/client_secret}\n\t\t\ttoken_endpoint http://127.0.0.1:1/\n" +
			"\t\t\tupstream localhost\n\t\t\tgrant refresh_token\n\t\t}\n\t\t"
	}
	users := strings.NewReplacer("grant refresh_token", "grant authorization_code", "token_endpoint http://127.0.0.1:1/",
		"token_endpoint http://127.0.0.1:1/\n\t\t\tauthorize_endpoint http://127.0.0.1:1/").Replace(person("users"))
	config := strings.Replace(erp, "account erp", person("crm")+users+"account erp", 1)
	host := freeAddress(t)
	config += "\nhttp://" + host + " {\n\tbind 127.0.0.1\n\tbearer_proxy users/{http.auth.user.id} http://localhost\n}\n"
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.ready()
	const crm = `{"ready":false,"accounts":[{"account":"crm","state":"login_required","code":"login_required"}]}`
	for path, want := range map[string]string{"/ready": crm, "/crm": crm, "/both": crm, "/erp": ready, "/users": ready} {
		res, body := r.do("GET", path, nil)
		status := 503
		if want == ready {
			status = 200
		}
		if res.StatusCode != status || strings.TrimSpace(body) != want {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
}

// In a Caddyfile that is told with its line; in JSON there is none.
func TestReadyUnknownAccount(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.site = "bearer_ready /ready erp"
	json, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(r.caddyfile()), nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Replace(json, []byte(`{"accounts":["erp"],"handler":"bearer_ready"}`), []byte(`{"accounts":["crm"],"handler":"bearer_ready"}`), 1)
	if bytes.Equal(bad, json) {
		t.Fatal("nothing was replaced")
	}
	const want = "bearer_ready: account crm is not configured; add `account crm { … }` to the global option bearer"
	if err := caddy.Load(bad, true); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

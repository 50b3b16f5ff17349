package caddymodule

import (
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The canary run: the binary that operators run lives through everything that
// it can, at debug level, and nothing secret is in a byte of what left it, but
// to the authorization servers and the API, or of what it left on the disk.
func TestCanaryLife(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it ends the process by signals, and looks into /proc")
	}
	r := newCanaryRig(t)
	t.Cleanup(func() {
		r.end(syscall.SIGKILL)
		if t.Failed() {
			out := read(t, r.output)
			t.Logf("%s", out[max(0, len(out)-4000):])
		}
	})
	r.begin()
	r.canaryMachines()
	r.canaryPeople()
	r.canaryConfigs()
	r.canaryOperators()
	r.canaryEnds()

	for _, kind := range []string{
		"client secret", "password", "caller key", "store key", "private key", "TLS client key", "assertion", "access token", "refresh token", "id token",
		"code", "state", "nonce", "code verifier", "device code", "user code", "revoked token", "imported token", "portal cookie", "CSRF value",
	} {
		if r.noted[kind] == 0 {
			t.Errorf("no %s was seen, so it wasn't looked for", kind)
		}
	}
	places := r.everything()
	output := string(places["/output"].data)
	for _, part := range []string{
		"got a token", "handled request", "upstream roundtrip", "a person logged in", "refused a callback", "logged out", "http.log.trace",
		"goroutine ", "SIGABRT", "load complete", "aborting with incomplete response",
	} {
		if !strings.Contains(output, part) {
			t.Errorf("%q isn't in the output", part)
		}
	}
	for _, must := range []string{"/data/tokens.db", "/data/tokens.db.spill", "/config/caddy/autosave.json", "/backup", "traces", "cmdline of the process", "answer of GET /metrics"} {
		if len(places[must].data) == 0 {
			t.Errorf("%s isn't there", must)
		}
	}
	size := r.check(t, places)
	if t.Failed() {
		return
	}
	t.Logf("G15: %d secrets of %d kinds, looked for in %d spellings in %d places, %d KiB: 0 hits", len(r.kinds), len(r.noted), len(spellings(canaryPassword)), len(places), size>>10)
}

// canaryMachines are accounts that need nobody, and what can go wrong with
// them.
func (r *canaryRig) canaryMachines() {
	r.Helper()
	for _, name := range []string{"robot", "machine", "jwt", "mtls", "box"} {
		if status := r.call("/echo/" + name); status != 200 {
			r.Errorf("%s: %d", name, status)
		}
	}
	r.acts("/bearer/refresh", `{"account": "robot"}`)
	r.sandbox.RevokeAccessTokens()
	r.call("/echo/robot") // refused, refreshed, replayed
	r.call("/echo/robot/cut")
	r.call("/echo/robot/leak")
	r.call("/echo/robot", "Host", "evil.example")
	r.call("/echo/robot?access_token=mine", "Authorization", "Bearer mine", "X-Forwarded-For", "10.0.0.1")
	r.talks(true) // errors that repeat the request
	r.ask("POST", "/bearer/refresh", "application/json", `{"account": "robot"}`)
	r.ask("POST", "/bearer/refresh", "application/json", `{"account": "machine"}`)
	r.sandbox.RevokeAccessTokens()
	r.call("/echo/robot")
	r.talks(false)
	r.acts("/bearer/login", `{"account": "robot"}`)
	imported := r.refreshToken()
	r.note("imported token", imported)
	r.ask("POST", "/bearer/import", "application/json", `{"account": "given", "refresh_token": "`+imported+`x"}`)
	r.ask("POST", "/bearer/import", "application/json", `{"account": "given", "refresh": "`+imported+`"}`)
	r.ask("POST", "/bearer/import", "text/plain", `{"account": "given", "refresh_token": "`+imported+`"}`)
	cmd := r.command("bearer", "import", "given", "--address", "unix/"+r.admin)
	cmd.Stdin = strings.NewReader(imported + "\n")
	r.run(cmd)
	r.call("/echo/given")
}

// talks lets the authorization servers repeat in errors what they are sent.
func (r *canaryRig) talks(talk bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.talk = talk
}

// refreshToken gets one as an integration elsewhere does.
func (r *canaryRig) refreshToken() string {
	r.Helper()
	return refreshTokenOf(r, r.rig.servers.AuthorizationServerURL+"/token", "sandbox-user", canaryPassword, canaryClientSecret)
}

// canaryPeople are sign-ins with a browser.
func (r *canaryRig) canaryPeople() {
	r.Helper()
	ada, alan := r.person("ada"), r.person("alan")
	alan.page("")
	r.signsIn(ada, alan)
	ada.whose()
	r.talks(true)
	r.signsInBadly(ada)
	r.talks(false)
	r.signsIn(ada, alan)
	device := ada.redirected(ada.press("login", "tv/ada"))
	page := ada.open(device)
	userCode := regexp.MustCompile(`[B-Z]{4}-[B-Z]{4}`).FindString(page.text)
	if err := r.sandbox.ApproveDevice(userCode, "ada@sandbox"); err != nil {
		r.Errorf("the code %q of the page: %v", userCode, err)
	}
	r.eventually("signed in by a device", func() bool {
		_, text := r.ask("GET", "/bearer/status?account=tv&user=ada", "", "")
		return strings.Contains(text, `"ready"`)
	})
	ada.press("logout", "tv/ada")
	for _, b := range []*browser{ada, alan} {
		r.note("portal cookie", b.cookie())
		r.note("CSRF value", csrf(b.cookie()))
	}
}

// signsInBadly is a sign-in whose code can't be exchanged.
func (r *canaryRig) signsInBadly(b *browser) {
	r.Helper()
	link := b.begin("erp/" + b.user)
	callback := b.approve(link)
	r.note("state", parameter(r, link, "state"))
	r.note("code", parameter(r, callback, "code"))
	if came := b.finish(callback); came == "signed_in" {
		r.Error("signed in with a server that refuses")
	}
}

// canaryConfigs are reloads that work and that don't. An option may by mistake
// hold another secret than it should.
func (r *canaryRig) canaryConfigs() {
	r.Helper()
	load := func(config string) (int, string) { return r.ask("POST", "/load", "text/caddyfile", config) }
	// Over the admin endpoint, the placeholders of the environment are filled in here.
	good := func() string { return strings.ReplaceAll(r.caddyfile(), "{$CREDENTIALS_DIRECTORY}", r.dir+"/secrets") }
	for _, wrong := range [][2]string{
		{"/secrets/jwt.pem", "/secrets/password"}, {"/secrets/mtls.crt", "/secrets/mtls.pem"}, {"/secrets/ca.crt", "/secrets/client_secret"},
		{"/secrets/jwt.pem", "/secrets/absent"}, {"key {file." + r.dir + "/secrets/store.key}", "key {file." + r.dir + "/secrets/password}"},
		{"client_auth private_key_jwt " + r.dir + "/secrets/jwt.pem", "client_auth private_key_jwt {file." + r.dir + "/secrets/caller_key}"},
		{"/secrets/password}", "/secrets/absent}"}, {"grant device_code", "grant device_code {file." + r.dir + "/secrets/password}"},
		{"key {file." + r.dir + "/secrets/store.key}", "key {file." + r.dir + "/secrets/store.key2}"},
		{"client_auth post", "client_auth {file." + r.dir + "/secrets/password}"},
		{"token_timeout 2s", "token_timeout {file." + r.dir + "/secrets/password}"},
		{"token_timeout 2s", "http_proxy {file." + r.dir + "/secrets/password}"},
		{"token_timeout 2s", "token_param audience {file." + r.dir + "/secrets/password}\n issuer {file." + r.dir + "/secrets/password}"},
		{"portal " + r.origin(), "portal {file." + r.dir + "/secrets/password}"},
	} {
		config := strings.Replace(good(), wrong[0], wrong[1], 1)
		if config == good() {
			r.Errorf("%q isn't in the Caddyfile", wrong[0])
		}
		if status, text := load(config); status == 200 && !strings.Contains(wrong[1], "param") {
			r.Errorf("%s: taken: %s", wrong[1], text)
		}
	}
	if status, text := load(good()); status != 200 {
		r.Fatalf("reloading: %d %s", status, text)
	}
	r.settled()
	r.run(r.command("adapt", "--config", "Caddyfile"))
	r.run(r.command("validate", "--config", "Caddyfile"))
	// Rotated files are used without a reload.
	r.secret("secrets/password", canaryPassword2)
	r.note("password", canaryPassword2)
	r.sandbox.SetPassword(canaryPassword2)
	r.acts("/bearer/forget", `{"account": "robot"}`)
	r.call("/echo/robot")
	// The store is sealed with another key.
	r.storeKey, r.oldKey = "store.key2", "store.key"
	if status, text := load(good()); status != 200 {
		r.Errorf("reloading with another key: %d %s", status, text)
	}
	r.settled()
	r.acts("/bearer/rekey", `{}`)
	// Another scope is another identity, whose tokens are taken over.
	r.scope = "less"
	if status, text := load(good()); status != 200 {
		r.Errorf("reloading with another scope: %d %s", status, text)
	}
	r.settled()
	r.call("/echo/given")
	r.ask("POST", "/bearer/adopt", "application/json", `{"account": "given"}`)
	r.ask("POST", "/bearer/adopt", "application/json", `{"account": "given", "confirm": true}`)
	r.call("/echo/given")
}

// canaryOperators is what operators ask.
func (r *canaryRig) canaryOperators() {
	r.Helper()
	for _, path := range []string{
		"/config/", "/bearer/status", "/metrics", "/reverse_proxy/upstreams", "/pki/ca/local", "/debug/vars", "/debug/pprof/goroutine?debug=2", "/debug/pprof/goroutine",
		"/debug/pprof/heap", "/debug/pprof/heap?debug=1", "/debug/pprof/allocs", "/debug/pprof/cmdline", "/debug/pprof/threadcreate?debug=1",
	} {
		r.ask("GET", path, "", "")
	}
	at := []string{"--address", "unix/" + r.admin}
	r.run(r.command(slices.Concat([]string{"bearer", "status", "--json"}, at)...))
	r.run(r.command(slices.Concat([]string{"bearer", "backup", "backup"}, at)...))
	answer := r.acts("/bearer/login", `{"account": "erp", "user": "ada", "browser": "of-a-terminal-0123456789abcdef", "redirect_uri": "http://127.0.0.1:1/cb"}`, "state", "nonce")
	if m := regexp.MustCompile(`state=([A-Za-z0-9_-]+)`).FindStringSubmatch(answer); m != nil {
		r.note("state", m[1])
	} else {
		r.Errorf("no state in the URL of a login: %s", answer)
	}
	r.ask("POST", "/bearer/login/finish", "application/json", `{"query": "code=c4nary-code-0123456789&state=c4nary-state-0123456789", "at": "http://127.0.0.1:1/cb", "browser": "x"}`)
	r.note("code", "c4nary-code-0123456789")
	r.note("state", "c4nary-state-0123456789")
	r.acts("/bearer/logout", `{"account": "robot"}`)
	r.acts("/bearer/logout", `{"account": "erp", "user": "ada"}`)
	r.acts("/bearer/login", `{"account": "robot"}`)
	if status := r.call("/echo/robot"); status != http.StatusOK {
		r.Errorf("robot: %d", status)
	}
}

// canaryEnds are all ends of a process: killed, quit at once, with a dump of all
// goroutines, and in order.
func (r *canaryRig) canaryEnds() {
	r.Helper()
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGTERM} {
		stop := make(chan bool)
		done := make(chan bool)
		go func() { // requests are under way
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if res, err := http.Get("http://" + r.machines + "/echo/robot"); err == nil {
					res.Body.Close()
				}
			}
		}()
		time.Sleep(50 * time.Millisecond)
		r.end(sig)
		close(stop)
		<-done
		if sig != syscall.SIGTERM {
			r.begin()
			r.call("/echo/robot")
			r.call("/echo/jwt")
		}
	}
}

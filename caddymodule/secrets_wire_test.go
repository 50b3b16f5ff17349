package caddymodule

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// What a caller or the authorization server writes in the form of a placeholder
// is text, wherever it comes: never the environment, never a file (GO-2026-5730,
// CVE-2026-30852).
func TestPlaceholdersOfCallersAreText(t *testing.T) {
	const value = "C4nary-of-the-environment"
	t.Setenv("CANARY_OF_A_PLACEHOLDER", value)
	r := newPortalRig(t, sandbox.Config{})
	r.secret("canary", value)
	log := r.logFile()
	r.site = "log"
	var mu sync.Mutex
	var seen strings.Builder
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(&seen, req.Method, req.RequestURI, req.Header, string(body))
		w.Header().Set("X-Of-The-API", "{env.CANARY_OF_A_PLACEHOLDER}")
		_, _ = io.WriteString(w, "{env.CANARY_OF_A_PLACEHOLDER}")
	}))
	t.Cleanup(api.Close)
	r.api = api.URL
	r.proxy = "bearer_proxy erp/{http.auth.user.id} " + r.api
	r.start()
	ada := r.browser("ada")
	ada.signIn("erp/ada")
	texts := []string{"{env.CANARY_OF_A_PLACEHOLDER}", "{file." + r.dir + "/canary}", "{http.request.header.X-Again}", "{{env \"CANARY_OF_A_PLACEHOLDER\"}}", "{$CANARY_OF_A_PLACEHOLDER}"}
	var answers strings.Builder
	note := func(a answer) { fmt.Fprintln(&answers, a.StatusCode, a.Header, a.text) }
	for _, text := range texts {
		escaped := url.PathEscape(text)
		note(ada.send("POST", "/a/"+escaped+"?q="+url.QueryEscape(text), text, "X-Test", text, "X-Again", texts[0], "User-Agent", text, "Content-Type", "text/plain", "Sec-Fetch-Mode", ""))
		note(ada.open("/a", "Host", text, "Sec-Fetch-Mode", ""))
		note(ada.open("/a", "Origin", text, "Sec-Fetch-Mode", ""))
		note(ada.open("/bearer/"+escaped, "X-Again", texts[0]))
		note(ada.open("/bearer/result?" + url.Values{"problem": {text}, "message": {text}, "account": {text}}.Encode()))
		note(ada.open("/bearer/callback?" + url.Values{"state": {text}, "code": {text}, "iss": {text}}.Encode()))
		note(ada.post("/login", url.Values{"account": {text}, "user": {text}, "csrf": {text}}))
		link := ada.begin("erp/ada")
		note(ada.open("/bearer/callback?" + url.Values{"state": {parameter(t, link, "state")}, "error": {text}, "error_description": {text}, "error_uri": {text}}.Encode()))
	}
	r.stop()
	all := answers.String() + read(t, log)
	mu.Lock()
	all += seen.String()
	mu.Unlock()
	r.reload() // for the end of the rig
	if n := strings.Count(all, value); n > 0 {
		i := strings.Index(all, value)
		t.Errorf("a placeholder was filled in, %d times: %s", n, all[max(0, i-400):i])
	}
	for _, text := range texts {
		if !strings.Contains(seen.String(), url.PathEscape(text)) || strings.Count(seen.String(), text) < 2 {
			t.Errorf("%s didn't reach the API as it was", text)
		}
	}
}

// Files of secrets that are exchanged are used without a restart or a reload,
// those of systemd's credentials, too: the next token request has the new ones.
func TestRotatedFilesAreUsed(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	t.Setenv("CREDENTIALS_DIRECTORY", r.dir)
	log := r.logFile()
	config := strings.ReplaceAll(r.caddyfile(), "{file."+r.dir+"/", "{file.{$CREDENTIALS_DIRECTORY}/")
	if !strings.Contains(config, "{file.{$CREDENTIALS_DIRECTORY}/password}") {
		t.Fatal(config)
	}
	if err := r.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.get("/echo")
	rotate := func(name, value string) { // as systemd and others do: a new file in the place of the old one
		r.secret(name+".new", value)
		if err := os.Rename(filepath.Join(r.dir, name+".new"), filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r.sandbox.SetClientSecret("the-second-client-secret")
	rotate("client_secret", "the-second-client-secret\n")
	if err := r.session().Refresh(context.Background()); err != nil {
		t.Error("refreshing with the second client secret:", err)
	}
	r.requests(1, 1)
	r.sandbox.SetPassword("the-second-password")
	rotate("password", "the-second-password\n")
	r.sandbox.RevokeRefreshTokens()
	if err := r.session().Refresh(context.Background()); err != nil {
		t.Error("signing in with the second password:", err)
	}
	r.requests(2, 2)
	// One that can't be read leaves the last good one in use, and is told.
	if err := os.Remove(filepath.Join(r.dir, "client_secret")); err != nil {
		t.Fatal(err)
	}
	if err := r.session().Refresh(context.Background()); err != nil {
		t.Error("refreshing while the file is away:", err)
	}
	r.requests(2, 3)
	if text := read(t, log); !contains(text, "its last value stays in use", "client_secret") || strings.Contains(text, "the-second") {
		t.Error("the absent file isn't told, or a secret is")
	}
}

// What names a secret, a key or an authority that can't be read or is empty,
// doesn't start, and leaves what runs as it is: no check is left out because its
// file is away (CVE-2026-27586).
func TestUnreadableFilesFailTheStart(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	r.secret("caller_key", "a-caller-key-of-twenty-bytes")
	r.secret("ca.pem", "C4nary")
	r.secret("empty", "")
	r.start()
	r.get("/echo")
	good := r.caddyfile()
	line := func(line string) string {
		return strings.Replace(good, "grant password", line+"\n\t\t\tgrant password", 1)
	}
	for name, config := range map[string]func(file string) string{
		"client_secret": func(f string) string {
			return strings.Replace(good, "{file."+r.dir+"/client_secret}", "{file."+f+"}", 1)
		},
		"password": func(f string) string { return strings.Replace(good, "{file."+r.dir+"/password}", "{file."+f+"}", 1) },
		"store key": func(f string) string {
			return strings.Replace(good, "store bbolt {", "store bbolt {\n\t\t\tkey {file."+f+"}", 1)
		},
		"authority": func(f string) string { return line("tls {\n\t\t\t\tca " + f + "\n\t\t\t}") },
		"client key": func(f string) string {
			return strings.Replace(line("client_auth private_key_jwt "+f), "client_secret {file."+r.dir+"/client_secret}", "", 1)
		},
		"client certificate": func(f string) string {
			return strings.Replace(line("client_auth tls "+f+" "+f), "client_secret {file."+r.dir+"/client_secret}", "", 1)
		},
		"caller key": func(f string) string {
			return strings.Replace(good, "bearer_proxy erp "+r.api+" {", "bearer_proxy erp "+r.api+" {\n\t\tcaller_key erp {file."+f+"}", 1)
		},
	} {
		for _, file := range []string{"absent", "empty", "store", "ca.pem"} { // the third is a directory; the fourth is nothing of that kind
			if file == "ca.pem" && (name == "client_secret" || name == "password") {
				continue
			}
			text := config(filepath.Join(r.dir, file))
			if text == good {
				t.Fatalf("%s isn't in the Caddyfile", name)
			}
			if err := r.load(text); err == nil {
				t.Errorf("%s in %s: it starts", name, file)
				_ = r.load(good)
			} else if strings.Contains(err.Error(), "C4nary") {
				t.Errorf("%s in %s: the error quotes the file: %v", name, file, err)
			}
		}
	}
	r.settled()
	r.get("/echo")
}

// The admin endpoint does nothing for what a web page can send without asking
// first: another media type than application/json, a foreign name, a foreign
// origin (CVE-2026-27589).
func TestAdminRefusesWebPages(t *testing.T) {
	r := newRig(t, sandbox.Config{})
	admin := freeAddress(t)
	if err := r.load(strings.Replace(r.caddyfile(), "admin off", "admin "+admin, 1)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	r.get("/echo")
	generation := func() uint64 { return r.session().Status().Generation }
	before, requests := generation(), r.sandbox.TokenRequests("")
	send := func(path, body string, header ...string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+admin+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			if req.Header.Set(header[i], header[i+1]); header[i] == "Host" {
				req.Host = header[i+1]
			}
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	routes := 0
	for _, route := range new(Admin).Routes() {
		path, isPost := strings.CutPrefix(route.Pattern, "POST ")
		if !isPost {
			continue
		}
		routes++
		for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain; application/json", "application/jsonp", "text/json"} {
			for _, body := range []string{`{"account": "erp"}`, `{}`} {
				if status := send(path, body, "Content-Type", media); status != 400 {
					t.Errorf("%s as %q: %d", path, media, status)
				}
			}
		}
		for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Host", "evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Mode", "no-cors"}} {
			if status := send(path, `{"account": "erp"}`, append(header, "Content-Type", "application/json")...); status != 403 && status != 400 {
				t.Errorf("%s with %s: %d", path, header, status)
			}
		}
	}
	if now := generation(); routes < 9 || now != before || r.sandbox.TokenRequests("") != requests {
		t.Errorf("%d routes; generation %d, was %d; %d requests, were %d", routes, now, before, r.sandbox.TokenRequests(""), requests)
	}
	if status := send("/bearer/refresh", `{"account": "erp"}`, "Content-Type", "application/json; charset=utf-8"); status != 200 || generation() == before {
		t.Errorf("a request as it should be: %d", status)
	}
}

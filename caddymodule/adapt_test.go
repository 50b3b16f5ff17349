package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-bearer/caddy-bearer/internal/store"
)

var update = flag.Bool("update", false, "write what is adapted into testdata/adapt")

// The parts of a golden file: cases, and in each a Caddyfile and what becomes
// of it, as JSON or as an error.
const (
	caseLine   = "==========\n"
	resultLine = "----------\n"
)

// placed is the place that each refusal must name.
var placed = regexp.MustCompile(`(at |^|: )Caddyfile:\d+`)

func TestAdapt(t *testing.T) {
	// {$NAME} is filled in by Caddy before anything is parsed.
	t.Setenv("ADAPT_CLIENT_ID", "client-from-env")
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) { adaptFile(t, file) })
	}
}

func adaptFile(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cases := strings.Split(string(text), caseLine)
	for i, c := range cases {
		input, want, ok := strings.Cut(c, resultLine)
		if !ok {
			t.Fatalf("case %d: no line %q", i+1, resultLine)
		}
		got, failed := adaptText(input)
		// An error stays an error: what is expected to be refused isn't
		// updated to what was swallowed.
		if *update && (failed || !strings.HasPrefix(t.Name(), "TestAdapt/errors_")) {
			cases[i] = input + resultLine + got
			continue
		}
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			switch {
			case failed && !strings.Contains(got, strings.TrimSpace(want)), !failed && got != want:
				t.Errorf("the Caddyfile\n%s\nbecame\n%s\nwant\n%s", input, got, want)
			case failed && !placed.MatchString(want):
				t.Errorf("the error names no line: %s", want)
			case !failed && string(caddyfile.Format([]byte(input))) != input:
				t.Errorf("the Caddyfile isn't formatted")
			}
		})
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(cases, caseLine)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// adaptText adapts a Caddyfile to indented JSON, or to the error.
func adaptText(input string) (result string, failed bool) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err.Error() + "\n", true
	}
	var out bytes.Buffer
	if err := json.Indent(&out, config, "", "\t"); err != nil {
		return err.Error(), true
	}
	return out.String() + "\n", false
}

// Caddy's parser knows only the absence of compression, and ours is off unless
// told.
func TestAdaptCompression(t *testing.T) {
	t.Parallel()
	for block, want := range map[string]bool{"": false, "{\n compression off\n}": false, "{\n compression on\n}": true} {
		tr := new(Transport)
		if err := tr.UnmarshalCaddyfile(caddyfile.NewTestDispenser("bearer pagero " + block)); err != nil {
			t.Fatal(err)
		}
		tr.defaults()
		if got := tr.Compression == nil || *tr.Compression; got != want {
			t.Errorf("%q: %v", block, got)
		}
	}
}

// validateConfig is a configuration that passes; the tests spoil it. DIR, AS
// and API stand for a directory, an authorization server and an API.
const validateConfig = `{
	admin off
	log {
		output discard
	}
	bearer {
		store memory
		account pagero {
			client_id id
			client_secret {file.DIR/client_secret}
			grant password {
				username {env.VALIDATE_USERNAME}
				password {file.DIR/password}
			}
			token_endpoint http://AS/token
			upstream API
		}
	}
}

http://:18080 {
	bind 127.0.0.1
	bearer_proxy pagero http://API
}
`

// A validation spoils the Caddyfile, or the JSON made of it, and tells what the
// error must say. Without wants, there must be none.
type validation struct {
	name            string
	caddyfile, json []string // texts and what to put in their place
	wants           []string
}

var validations = []validation{
	{name: "good"},
	{name: "good bbolt", caddyfile: []string{"store memory", "store bbolt {\n path DIR/sub/tokens.db\n key {file.DIR/key}\n old_key {file.DIR/key}\n}"}},
	{name: "good bbolt without key", caddyfile: []string{"store memory", "store bbolt {\n path DIR/sub/tokens.db\n}"}},
	{name: "good default store", caddyfile: []string{"store memory", ""}},
	{name: "good callers", caddyfile: []string{"bind 127.0.0.1", "bind 0.0.0.0", "http://API", "http://API {\n callers 10.0.0.0/8\n}"}},
	{name: "good unix socket", caddyfile: []string{"bind 127.0.0.1", "bind unix/DIR/site.sock"}},
	{name: "good https", caddyfile: []string{"upstream API", "upstream api.example.com", "http://API", "https://api.example.com"}},

	{"empty secret", []string{"DIR/client_secret", "DIR/empty"}, nil, []string{"account pagero: client_secret: ", "empty"}},
	{"unset env", []string{"VALIDATE_USERNAME", "VALIDATE_UNSET"}, nil, []string{"account pagero: username: ", "env.VALIDATE_UNSET", "empty"}},
	{"missing file", []string{"DIR/password", "DIR/absent"}, nil, []string{"account pagero: password: ", "/absent"}},
	{"no secret", []string{"client_secret {file.DIR/client_secret}", ""}, nil, []string{"account pagero: client_secret is missing; add `client_secret {file./run/credentials/client_secret}`, or `client_auth none` if the client is public, at Caddyfile:"}},
	{"no secret of a confidential provider", []string{"client_secret {file.DIR/client_secret}", "provider pagero"}, nil, []string{"account pagero: client_secret is missing; add `client_secret {file./run/credentials/client_secret}`, at Caddyfile:"}},
	{"no secret in JSON", nil, []string{`"client_secret":"{file.DIR/client_secret}",`, ""}, []string{"account pagero: client_secret is missing; add `client_secret {file./run/credentials/client_secret}`, or `client_auth none` if the client is public"}},
	{"no client_id", []string{"client_id id", ""}, nil, []string{"account pagero: client_id"}},

	{"plain token endpoint", []string{"http://AS/token", "http://login.example.com/token"}, nil, []string{"token_endpoint: plain http is accepted on loopback only; use https"}},
	{"no token endpoint", []string{"token_endpoint http://AS/token", ""}, nil, []string{"token_endpoint: it is missing; set it, or a provider that has one"}},
	{"relative token endpoint", []string{"http://AS/token", "login.example.com/token"}, nil, []string{"token_endpoint: it must be an absolute URL"}},
	{"no upstream", []string{"upstream API", ""}, nil, []string{"name the hosts that its token may go to: upstream api.example.com"}},
	{"plain upstream", []string{"upstream API", "upstream api.example.com:80", "http://API", "http://api.example.com"}, nil,
		[]string{"the token would go to api.example.com:80 in clear; use https://"}},
	{"plain upstream in JSON", []string{"upstream API", "upstream api.example.com", "http://API", "https://api.example.com"}, []string{`,"tls":{}`, ""},
		[]string{"the token would go to api.example.com:443 in clear", `"tls": {}`}},
	{"other upstream", []string{"http://API", "http://127.0.0.1:1"}, nil,
		[]string{"the upstream 127.0.0.1:1 is not among the hosts", "add `upstream 127.0.0.1:1` to the account"}},
	{"other upstream in JSON", nil, []string{`"dial":"API"`, `"dial":"127.0.0.1:1"`}, []string{"add `upstream 127.0.0.1:1` to the account"}},
	{"other upstream of several", []string{"http://API", "http://API http://127.0.0.1:1"}, nil, []string{"add `upstream 127.0.0.1:1` to the account"}},
	{"upstream with a path", []string{"upstream API", "upstream https://api.example.com/v1"}, nil, []string{"it must be a host, host:port or URL without path"}},

	{"all interfaces", []string{"bind 127.0.0.1", ""}, nil, []string{"add `bind 127.0.0.1 [::1]` to the site, or `callers <address or CIDR>...`"}},
	{"any IPv4", []string{"bind 127.0.0.1", "bind 0.0.0.0"}, nil, []string{"add `bind 127.0.0.1 [::1]`"}},
	{"any IPv6", []string{"bind 127.0.0.1", "bind [::]"}, nil, []string{"add `bind 127.0.0.1 [::1]`"}},
	{"one more interface", []string{"bind 127.0.0.1", "bind 127.0.0.1 192.0.2.1"}, nil, []string{"the site listens on 192.0.2.1:18080"}},
	{"a host name doesn't bind", []string{"http://:18080", "http://localhost:18080", "bind 127.0.0.1", ""}, nil, []string{"add `bind 127.0.0.1 [::1]`"}},
	{"guard on all interfaces", []string{"bind 127.0.0.1", "bearer_guard", "bearer_proxy pagero http://API", ""}, nil, []string{"bearer_guard"}},

	{"unknown account in the guard", nil, []string{`{"account":"pagero","handler":"bearer_guard"}`, `{"account":"other","handler":"bearer_guard"}`},
		[]string{"account other is not configured; add `account other { … }`"}},
	{"unknown account in the transport", nil, []string{`{"account":"pagero","protocol":"bearer"}`, `{"account":"other","protocol":"bearer"}`},
		[]string{"account other is not configured; add `account other { … }`"}},
	{"no account in the transport", nil, []string{`{"account":"pagero","protocol":"bearer"}`, `{"protocol":"bearer"}`}, []string{"write `transport bearer <account>`"}},
	{"no app", []string{validateConfig, "http://127.0.0.1:18080 {\n bearer_guard\n}"}, nil, []string{"add `bearer { … }` to the global options"}},
	{"no accounts", []string{validateConfig, "{\n bearer {\n store memory\n }\n}"}, nil, []string{"no account is configured; add `account <name> { … }`"}},
	{"negative replay_body", nil, []string{`"protocol":"bearer"`, `"protocol":"bearer","replay_body":-1`}, []string{"replay_body must not be negative; 0 turns replays off"}},
	{"bad callers", nil, []string{`"handler":"bearer_guard"`, `"handler":"bearer_guard","callers":["x"]`}, []string{"callers x: it must be an IP address or CIDR"}},
	{"bad hosts", nil, []string{`"handler":"bearer_guard"`, `"handler":"bearer_guard","hosts":["*.example.com"]`}, []string{`"*.example.com"`, "must be a name or name:port, without wildcard"}},
	{"unknown option", nil, []string{`"handler":"bearer_guard"`, `"handler":"bearer_guard","host":["a"]`}, []string{"host"}},

	{"login without relogin", []string{"grant password {", "on_lost_reply login\n grant password {\n relogin off"}, nil, []string{"grant password with relogin on"}},
	{"unknown on_lost_reply", nil, []string{`"client_id"`, `"on_lost_reply":"retry","client_id"`}, []string{"on_lost_reply: retry: it must be replay, login or stop"}},
	{"unknown provider", nil, []string{`"client_id"`, `"provider":"keycloak","client_id"`}, []string{"there are pagero, pagero_legacy"}},
	{"client_auth not of the provider", []string{"client_id id", "provider pagero_legacy\n client_auth post\n client_id id"}, nil, []string{"account pagero: client_auth post: provider pagero_legacy takes basic, basic_raw, at Caddyfile:19"}},
	{"unknown client_auth", nil, []string{`"client_id"`, `"client_auth":"digest","client_id"`}, []string{"account pagero: client_auth digest: provider none takes basic, basic_raw, post, private_key_jwt, tls, none"}},
	{"unknown grant", nil, []string{`"type":"password"`, `"type":"implicit"`}, []string{"unknown grant implicit; there are password, client_credentials, authorization_code, device_code, refresh_token"}},
	{"refresh_ahead", nil, []string{`"client_id"`, `"refresh_ahead":0.6,"client_id"`}, []string{"refresh_ahead must be above 0 % and at most 50 %"}},
	{"negative duration", nil, []string{`"client_id"`, `"keep_alive":-1,"client_id"`}, []string{"must not be negative"}},
	{"reject_status", nil, []string{`"client_id"`, `"reject_status":[500],"client_id"`}, []string{"reject_status 500: it must be between 400 and 499"}},
	{"reserved token_param", nil, []string{`"client_id"`, `"token_params":{"grant_type":["x"]},"client_id"`}, []string{"token_param: the grant sets grant_type itself"}},

	{"short key", []string{"store memory", "store bbolt {\n key {file.DIR/short}\n}"}, nil, []string{"store key: the key must be 32 bytes in base64", "openssl rand -base64 32"}},
	{"missing key", []string{"store memory", "store bbolt {\n key {file.DIR/absent}\n}"}, nil, []string{"store key: "}},
	{"short old_key", []string{"store memory", "store bbolt {\n key {file.DIR/key}\n old_key {file.DIR/short}\n}"}, nil, []string{"store old_key: the key must be 32 bytes in base64"}},
	{"old_key without key", []string{"store memory", "store bbolt {\n old_key {file.DIR/key}\n}"}, nil, []string{"old_key without key"}},
}

func TestValidate(t *testing.T) {
	t.Setenv("VALIDATE_USERNAME", "someone")
	validateAll(t, validateConfig, validations, map[string]string{"client_secret": "s3cret-of-the-client", "password": "s3cret-of-the-user",
		"empty": "\n", "key": store.NewKey().Text(), "short": "c2hvcnQtczNjcmV0"})
}

// validateAll also checks that a validation leaves nothing behind and asks nobody,
// and that no error holds a secret. The secrets are files in DIR.
func validateAll(t *testing.T, config string, validations []validation, secrets map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range secrets {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer server.Close()
	places := strings.NewReplacer("DIR", dir, "AS", server.Listener.Addr().String(), "API", server.Listener.Addr().String())
	before := snapshot(t, dir, caddy.AppConfigDir(), caddy.AppDataDir())
	for _, v := range validations {
		t.Run(v.name, func(t *testing.T) {
			err := v.run(t, config, places)
			if err == nil && v.wants != nil {
				t.Fatalf("it passed; want an error with %q", v.wants)
			} else if err != nil && v.wants == nil {
				t.Fatal(err)
			}
			for _, want := range v.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error\n%v\nsays nothing of\n%s", err, want)
				}
			}
			for name, text := range secrets {
				if err != nil && strings.TrimSpace(text) != "" && strings.Contains(err.Error(), text) {
					t.Errorf("the error shows %s: %v", name, err)
				}
			}
			if n, _ := pool.References("memory"); n != 0 {
				t.Errorf("%d references to the pooled state are left", n)
			}
		})
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests were made", n)
	}
	if after := snapshot(t, dir, caddy.AppConfigDir(), caddy.AppDataDir()); after != before {
		t.Errorf("the files were\n%s\nand are\n%s", before, after)
	}
}

func (v validation) run(t *testing.T, config string, places *strings.Replacer) error {
	t.Helper()
	config = places.Replace(spoil(t, config, v.caddyfile))
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	var pairs []string
	for _, text := range v.json {
		pairs = append(pairs, places.Replace(text))
	}
	var c caddy.Config
	if err := json.Unmarshal([]byte(spoil(t, string(adapted), pairs)), &c); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(&c)
}

// spoil replaces texts, each of which must be there.
func spoil(t *testing.T, text string, pairs []string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("nothing to replace: %s\nin %s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// snapshot lists the files of directories.
func snapshot(t *testing.T, dirs ...string) string {
	t.Helper()
	var list []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			list = append(list, path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(list, "\n")
}

// TestExampleAdapts holds the example to what it shows: it is formatted, it
// holds no secret, and Caddy takes it.
func TestExampleAdapts(t *testing.T) {
	text, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	if formatted := caddyfile.Format(text); !bytes.Equal(formatted, text) {
		t.Errorf("it isn't formatted; want\n%s", formatted)
	}
	if result, failed := adaptText(string(text)); failed {
		t.Error(result)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) > 1 && slices.Contains([]string{"client_id", "client_secret", "username", "password", "key", "old_key"}, words[0]) &&
			!strings.HasPrefix(words[1], "{env.") && !strings.HasPrefix(words[1], "{file./") {
			t.Errorf("a literal: %s", line)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"client_id", "client_secret", "username", "password"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bearer.key"), []byte(store.NewKey().Text()), 0o600); err != nil {
		t.Fatal(err)
	}
	config := strings.ReplaceAll(string(text), "/run/credentials/caddy.service", dir)
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), nil)
	if err != nil {
		t.Fatal(err)
	}
	var c caddy.Config
	if err := json.Unmarshal(adapted, &c); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&c); err != nil {
		t.Error(err)
	}
}

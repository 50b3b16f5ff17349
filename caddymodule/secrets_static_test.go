package caddymodule

import (
	"bytes"
	"fmt"
	"go/ast"
	goparser "go/parser"
	"go/printer"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// shippedSources are the files that are part of the product, by their path from
// the root: not the tests, and not the sandbox.
func shippedSources(t *testing.T) (map[string]*ast.File, *token.FileSet) {
	t.Helper()
	s, err := parsedSources()
	if err != nil {
		t.Fatal(err)
	}
	return s.files, s.set
}

type sources struct {
	files map[string]*ast.File
	set   *token.FileSet
}

var parsedSources = sync.OnceValues(func() (sources, error) {
	files, set := map[string]*ast.File{}, token.NewFileSet()
	for _, dir := range []string{"caddymodule", "internal/oauth", "internal/store", "cmd/caddy"} {
		names, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil || len(names) == 0 {
			return sources{}, fmt.Errorf("no files in %s: %w", dir, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := goparser.ParseFile(set, name, nil, goparser.SkipObjectResolution)
			if err != nil {
				return sources{}, err
			}
			files[dir+"/"+filepath.Base(name)] = file
		}
	}
	return sources{files, set}, nil
})

// source is an expression as it is written.
func source(set *token.FileSet, n ast.Node) string {
	var b bytes.Buffer
	_ = printer.Fprint(&b, set, n)
	return b.String()
}

// secretField is the name of a field that may hold a secret.
var secretField = regexp.MustCompile(`(?i)secret|password|token|verifier|nonce|cookie|csrf|browser|query|value|body|header|key$`)

// textType is a type that holds text as it is.
var textType = regexp.MustCompile(`^[*\[\]]*(string|byte|http\.Header|url\.Values|map\[string\](\[\])?string)$`)

// textFields are fields of type string or []byte with such a name, and why they
// aren't an [oauth.Secret].
var textFields = map[string]string{
	// No secrets.
	"oauth.Client.TokenEndpoint": "a URL", "oauth.Provider.TokenEndpoint": "a URL", "oauth.Metadata.TokenEndpoint": "a URL", "caddymodule.Account.TokenEndpoint": "a URL",
	"oauth.latch.Key": "a keyed hash", "oauth.members.tokenType": "a type", "oauth.Client.TokenParams": "audience, resource and the like: the README says not to put secrets there",
	"caddymodule.Account.TokenParams": "likewise", "caddymodule.Account.TokenBody": "form or json", "caddymodule.App.key": "the path of the store",
	"caddymodule.problem.header": "fields of our own answer", "caddymodule.Guard.UserFromHeader": "a name", "caddymodule.Portal.UserFromHeader": "a name", "caddymodule.Transport.UserFromHeader": "a name",
	"caddymodule.Guard.PassHeaders": "names", "caddymodule.Transport.PassHeaders": "names", "caddymodule.Transport.PassResponseHeaders": "names",
	// Masked by a method: TestExportedTypesPrintNoSecret.
	"oauth.Entry.Value": "masked", "oauth.LoginFinish.Query": "masked", "oauth.Token.header": "masked: the prebuilt value of Authorization",
	// On their way between wire, disk and an oauth.Secret: not exported, never printed.
	"oauth.storedRecord.AccessToken": "sealed by the store", "oauth.storedRecord.RefreshToken": "sealed by the store", "store.image.value": "sealed",
	"oauth.members.accessToken": "an answer while it is read", "oauth.members.refreshToken": "likewise", "oauth.members.idToken": "likewise",
	"oauth.exchange.body": "likewise", "oauth.idTokenRules.Nonce": "while an id_token is checked", "store.spill.header": "sizes and places",
	"caddymodule.actionJSON.RefreshToken": "the body of POST /bearer/import", "caddymodule.loginJSON.Browser": "the body of POST /bearer/login", "caddymodule.loginJSON.Query": "likewise",
	"caddymodule.terminalLogin.browser": "of `caddy bearer login`", "caddymodule.accountsPage.CSRF": "for the form of a page",
	"caddymodule.notification.body": "an event: nothing secret is in one",
	// What the configuration says: a placeholder, or a literal that Caddy's own dump shows, too. See docs/security.md.
	"caddymodule.Account.ClientSecret": "configuration", "caddymodule.Account.ClientKey": "configuration", "caddymodule.Grant.Password": "configuration",
	"caddymodule.BoltStore.Key": "configuration", "caddymodule.BoltStore.OldKey": "configuration", "caddymodule.CallerKey.Secret": "configuration", "caddymodule.Webhook.Headers": "configuration",
	"caddymodule.configuredSecret.value": "configuration",
}

// A new field that by its name may hold a secret is an oauth.Secret, which has
// no printable form, or was looked at.
func TestSecretFieldsAreReviewed(t *testing.T) {
	t.Parallel()
	files, set := shippedSources(t)
	seen := map[string]bool{}
	for path, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, _ := n.(*ast.TypeSpec)
			if spec == nil {
				return true
			}
			of, _ := spec.Type.(*ast.StructType)
			if of == nil {
				return true
			}
			for _, f := range of.Fields.List {
				if !textType.MatchString(source(set, f.Type)) {
					continue
				}
				for _, name := range f.Names {
					field := file.Name.Name + "." + spec.Name.Name + "." + name.Name
					if seen[field] = true; secretField.MatchString(name.Name) && textFields[field] == "" {
						t.Errorf("%s: %s is text: make it an oauth.Secret if it can hold one, or say in textFields why it can't", path, field)
					}
				}
			}
			return true
		})
	}
	if len(seen) < 100 {
		t.Errorf("only %d fields were seen", len(seen))
	}
}

// equalities of texts that aren't ones with a secret that somebody sent, and so
// needn't take the same time whatever they are.
var equalities = map[string]string{
	"internal/oauth/judge.go":        "both are refresh tokens of ours, as stored",
	"internal/oauth/history.go":      "times",
	"internal/oauth/observe.go":      "times",
	"internal/oauth/freshness.go":    "times",
	"internal/oauth/object.go":       "members of one answer",
	"internal/oauth/answer.go":       "members of one answer",
	"internal/oauth/records.go":      "what was sealed and what was read again",
	"internal/store/bolt.go":         "numbers of keys",
	"internal/store/bolt_damage.go":  "bytes of a database and of its copy",
	"internal/store/marker.go":       "a line of a file of ours",
	"internal/store/spill_format.go": "checksums against accidents; seals are checked by AES-GCM",
	"internal/store/spill_scan.go":   "zeros",
	"caddymodule/guard_key.go":       "two keys of the configuration; callers' keys by their digests",
	"caddymodule/transport_send.go":  "pointers to tokens of ours",
	"caddymodule/command_login.go":   "a grant's name",
	"internal/oauth/session.go":      "pointers to tokens of ours",
	"internal/oauth/secret.go":       "Secret.Equal, which says that it isn't for what a caller sent",
	"internal/oauth/check_client.go": "two forms of the same secret of ours",
}

// compared are names of what a caller may send to guess at.
var compared = regexp.MustCompile(`(?i)secret|password|token($|[^e])|nonce|csrf|c\.Value|verifier|apikey|Reveal\(\)`)

// What a caller may guess at is compared in constant time (TM-31): callers'
// keys, state, nonce, cookie and form value.
func TestSecretsComparedInConstantTime(t *testing.T) {
	t.Parallel()
	files, set := shippedSources(t)
	constant := 0
	for path, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if n.Op != token.EQL && n.Op != token.NEQ {
					break
				}
				x, y := source(set, n.X), source(set, n.Y)
				if equalities[path] != "" || harmless(x) || harmless(y) || !compared.MatchString(x) && !compared.MatchString(y) {
					break
				}
				t.Errorf("%s: %s: use crypto/subtle", set.Position(n.Pos()), source(set, n))
			case *ast.CallExpr:
				switch called := source(set, n.Fun); {
				case called == "subtle.ConstantTimeCompare" || called == "hmac.Equal":
					constant++
				case (strings.HasSuffix(called, ".Equal") || called == "strings.EqualFold" || called == "slices.Contains" || called == "strings.Compare") && compared.MatchString(source(set, n)),
					called == "bytes.Equal":
					if equalities[path] == "" {
						t.Errorf("%s: %s: use crypto/subtle, or say in equalities why not", set.Position(n.Pos()), source(set, n))
					}
				}
			}
			return true
		})
	}
	if constant < 5 {
		t.Errorf("only %d comparisons in constant time were found", constant)
	}
}

// harmless are sides of a comparison that tell nothing.
func harmless(x string) bool {
	return x == "nil" || x == `""` || harmlessSide.MatchString(x)
}

var harmlessSide = regexp.MustCompile(`^-?\d+$|^(len|errors|time)\b|^[a-z.]*(err|Err)$|^"[^"]*"$|^(oauth\.)?[A-Z]\w+$`)

// Secrets, states, verifiers, nonces, cookies and keys are from crypto/rand:
// nothing else of the product may import another source, but for the jitter of
// a pause (CVE-2024-21495).
func TestRandomIsCryptographic(t *testing.T) {
	t.Parallel()
	files, set := shippedSources(t)
	crypto := 0
	for path, file := range files {
		for _, i := range file.Imports {
			switch i.Path.Value {
			case `"crypto/rand"`:
				crypto++
			case `"math/rand"`, `"math/rand/v2"`, `"hash/maphash"`:
				if path != "internal/oauth/refresh.go" {
					t.Errorf("%s imports %s", path, i.Path.Value)
				}
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if c, _ := n.(*ast.CallExpr); c != nil && path == "internal/oauth/refresh.go" {
				if called := source(set, c.Fun); strings.HasPrefix(called, "rand.") && called != "rand.Float64" {
					t.Errorf("%s: %s of math/rand", set.Position(c.Pos()), called)
				}
			}
			return true
		})
	}
	if crypto < 4 {
		t.Errorf("only %d files import crypto/rand", crypto)
	}
}

// Placeholders are filled in where values of the configuration are read, and
// nowhere else: a text of a caller or of a server never is (GO-2026-5730).
func TestPlaceholdersOfTheConfigurationOnly(t *testing.T) {
	t.Parallel()
	may := map[string]string{
		"caddymodule/secrets.go":              "values of the configuration",
		"caddymodule/stores.go":               "paths of the configuration",
		"caddymodule/app.go":                  "account and user as configured: what they stand for is not read again",
		"caddymodule/users.go":                "likewise",
		"caddymodule/guard_key.go":            "sets {http.auth.user.id}",
		"caddymodule/guard_log.go":            "reads {http.auth.user.id}",
		"caddymodule/command_ask.go":          "the admin address of the configuration",
		"caddymodule/command_check_config.go": "listeners of the configuration",
	}
	files, set := shippedSources(t)
	found := map[string]bool{}
	for path, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			s, _ := n.(*ast.SelectorExpr)
			if s == nil || !slices.Contains([]string{"ReplaceOrErr", "ReplaceKnown", "ReplaceFunc", "NewReplacer", "ReplacerCtxKey"}, s.Sel.Name) {
				return true
			}
			if source(set, s.X) == "strings" {
				return true
			}
			if found[path] = true; may[path] == "" {
				t.Errorf("%s: %s: whose text is it?", set.Position(s.Pos()), source(set, s))
			}
			return true
		})
	}
	if !found["caddymodule/secrets.go"] || len(found) < 3 {
		t.Errorf("only %v were found", slices.Collect(maps.Keys(found)))
	}
}

// Nothing reads a request's body through a placeholder, which would keep it
// whole in memory (CVE-2026-92284).
func TestNoBodyPlaceholder(t *testing.T) {
	t.Parallel()
	files, _ := shippedSources(t)
	for path := range files {
		text, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "http.request.body") {
			t.Errorf("%s reads {http.request.body}", path)
		}
	}
}

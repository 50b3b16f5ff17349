package caddymodule

import (
	"go/ast"
	"go/token"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

const referencePage = "docs/reference.md"

// referenceOptions says which section has the options that a function parses.
// A function that isn't here fails the test: its options would have no place.
var referenceOptions = map[string]string{
	"parseApp":                     "global-option-bearer",
	"BoltStore.UnmarshalCaddyfile": "store-bbolt",
	"App.parseAccount":             "account",
	"Account.parseTLS":             "account",
	"Account.parseGrant":           "grants",
	"Guard.parsers":                "guard-options",
	"proxyParts.splitBlock":        "options-of-bearer_proxy-and-transport-bearer",
	"Transport.UnmarshalCaddyfile": "options-of-bearer_proxy-and-transport-bearer",
	"parsePortal":                  "bearer_portal-options",
	"Webhook.UnmarshalCaddyfile":   "bearer_webhook-options",
}

// sharedOptions are those of the transport that the guard has as well, and
// whose lines are there.
var sharedOptions = []string{"user_from_header", "pass_headers", "max_waiters"}

var quoted = regexp.MustCompile("`([^`]*)`")

// referenceRows are the table rows of a section, each as its cells.
func referenceRows(t *testing.T, section string) (rows [][]string) {
	t.Helper()
	text, err := linked(t, referencePage, "#"+section)
	if err != nil {
		t.Fatalf("%s: %s: %v", referencePage, section, err)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "| `") {
			rows = append(rows, strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|"))
		}
	}
	return rows
}

// firstNames are what is quoted in the first cells of a section, if it begins
// with a prefix.
func firstNames(t *testing.T, section, prefix string) (names []string) {
	t.Helper()
	for _, row := range referenceRows(t, section) {
		if name := quoted.FindStringSubmatch(row[0]); name != nil && strings.HasPrefix(name[1], prefix) {
			names = append(names, name[1])
		}
	}
	return names
}

// Every option that a parser knows has its line, and no other has.
func TestReferenceOptions(t *testing.T) {
	t.Parallel()
	want := map[string][]string{}
	found := sourceOptions(t)
	for function, names := range found {
		section := referenceOptions[function]
		if section == "" {
			t.Errorf("%s parses options (%s): which section of %s has them?", function, strings.Join(names, ", "), referencePage)
		}
		for _, name := range names {
			if function == "Transport.UnmarshalCaddyfile" && slices.Contains(sharedOptions, name) || slices.Contains(want[section], name) {
				continue
			}
			want[section] = append(want[section], name)
		}
	}
	for function, section := range referenceOptions {
		if found[function] == nil {
			t.Errorf("%s parses no options", function)
		}
		sameNames(t, section, firstNames(t, section, ""), want[section])
	}
}

// Every line with a link is explained where it leads: the name is there.
func TestReferenceExplained(t *testing.T) {
	t.Parallel()
	sections := []string{"directives-and-modules", "values", "commands"}
	sections = append(sections, slices.Collect(maps.Values(referenceOptions))...)
	for _, section := range sections {
		for _, row := range referenceRows(t, section) {
			link := docLink.FindStringSubmatch(row[len(row)-1])
			if link == nil {
				t.Errorf("%s: where is %s explained?", section, row[0])
				continue
			}
			text, err := linked(t, referencePage, link[1])
			names := quoted.FindAllStringSubmatch(row[0], -1)
			if section == "values" {
				names = quoted.FindAllStringSubmatch(row[1], -1)
			}
			for _, name := range names {
				word := regexp.MustCompile(`(^|[^\w-])` + regexp.QuoteMeta(name[1]) + `($|[^\w-])`)
				if err != nil || !word.MatchString(text) {
					t.Errorf("%s: %s doesn't explain %s (%v)", section, link[1], name[1], err)
				}
			}
		}
	}
}

// ourModules are the types of this package's modules, by their IDs.
func ourModules(t *testing.T) map[string]string {
	t.Helper()
	ours, declared := map[string]string{}, map[string]bool{} // tests have modules, too
	for _, f := range parsed(t, ".") {
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
				for _, spec := range g.Specs {
					declared[spec.(*ast.TypeSpec).Name.Name] = true
				}
			}
		}
	}
	for _, id := range caddy.Modules() {
		info, err := caddy.GetModule(id)
		if err != nil {
			continue
		}
		of := reflect.TypeOf(info.New())
		if of.Kind() == reflect.Pointer && of.Elem().PkgPath() == reflect.TypeFor[Guard]().PkgPath() && declared[of.Elem().Name()] {
			ours[id] = of.Elem().Name()
		}
	}
	return ours
}

// Every directive and module of ours is there.
func TestReferenceDirectives(t *testing.T) {
	t.Parallel()
	var names, modules []string
	for _, row := range referenceRows(t, "directives-and-modules") {
		names = append(names, quoted.FindStringSubmatch(row[0])[1])
		if m := quoted.FindStringSubmatch(row[2]); m != nil {
			modules = append(modules, m[1])
		}
	}
	ours := slices.Collect(maps.Keys(ourModules(t)))
	sameNames(t, "modules", modules, ours)
	directives := []string{appName, "transport bearer", "store bbolt", "store memory", "bearer_webhook", "caddy bearer"} // modules without a directive
	eachFunction(t, func(_ string, f *ast.FuncDecl) {
		ast.Inspect(f.Body, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if method, ok := call.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(method.Sel.Name, "Register") && strings.HasSuffix(method.Sel.Name, "Directive") {
				name, _ := literalText(call.Args[0])
				directives = append(directives, name)
			}
			return true
		})
	})
	sameNames(t, "directives", names, directives)
}

// The values of options are those of the source.
func TestReferenceValues(t *testing.T) {
	t.Parallel()
	documented := map[string][]string{}
	for line := range strings.Lines(must(linked(t, referencePage, "#values"))) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, m := range quoted.FindAllStringSubmatch(cells[2], -1) {
				of := strings.Trim(cells[1], " `")
				documented[of] = append(documented[of], m[1])
			}
		}
	}
	want := map[string][]string{"grant": {"password", "client_credentials", "authorization_code", "device_code", "refresh_token"}}
	for _, p := range oauth.Providers {
		want["provider"] = append(want["provider"], p.Name)
	}
	for _, a := range oauth.AllClientAuths {
		want["client_auth"] = append(want["client_auth"], string(a))
	}
	for _, s := range states {
		want["state"] = append(want["state"], string(s))
	}
	want["on_lost_reply"] = []string{string(oauth.LostReplay), string(oauth.LostLogin), string(oauth.LostStop)}
	for _, g := range want["grant"] {
		if err := (&Grant{Type: g, Username: "x", Password: "x"}).check(); err != nil && strings.Contains(err.Error(), "must be one of") {
			t.Errorf("grant %s: %v", g, err)
		}
	}
	for of, names := range want {
		sameNames(t, of, documented[of], names)
	}
}

// must is the text of a section that other tests have found.
func must(text string, err error) string {
	if err != nil {
		return strconv.Quote(err.Error())
	}
	return text
}

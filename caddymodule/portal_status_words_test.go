package caddymodule

import (
	"go/ast"
	goparser "go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// constants are the values of a type's constants, as the source has them.
func constants(t *testing.T, file, typeName string) (values []string) {
	t.Helper()
	f, err := goparser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == typeName {
			for _, v := range spec.Values {
				text, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, text)
			}
		}
		return true
	})
	if len(values) < 7 {
		t.Fatalf("%d constants of type %s in %s", len(values), typeName, file)
	}
	return values
}

// Each state and each happening there is has words of its own; a state says
// what it means and, unless all is well, what to do.
func TestStatusWords(t *testing.T) {
	t.Parallel()
	words := map[string]bool{}
	for _, state := range constants(t, "../internal/oauth/status.go", "State") {
		text, ok := stateTexts[oauth.State(state)]
		if !ok || text.Word == "" || text.Means == "" || words[text.Word] || words[text.Means] || !slices.Contains(stateOrder, oauth.State(state)) {
			t.Errorf("%s: %+v", state, text)
		}
		words[text.Word], words[text.Means] = true, true
		for _, grant := range []string{"authorization_code", "device_code", "password", "client_credentials", "refresh_token"} {
			r := rowOf(session("erp", "", oauth.State(state), grant))
			_, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, r))
			said := root.one(t, "article").text
			if !strings.Contains(said, text.Means) || (r.Do() == "") != (state == "ready") || r.Do() != "" && !strings.Contains(said, "What to do: "+r.Do()) {
				t.Errorf("%s, %s: %s", state, grant, said)
			}
			for _, caption := range []string{"Sign in", "Sign in again", "Try again"} {
				if strings.Contains(r.Do(), "“"+caption+"”") && r.Button() != caption {
					t.Errorf("%s, %s: it says to press %q, the button is %q", state, grant, caption, r.Button())
				}
			}
			if strings.Contains(said, "BUTTON") {
				t.Errorf("%s, %s: %s", state, grant, said)
			}
		}
	}
	if len(stateTexts) != len(stateOrder) {
		t.Error("there are words for what is no state")
	}
	seen := map[string]bool{}
	for _, kind := range constants(t, "../internal/oauth/observe.go", "EventKind") {
		word := happeningTexts[oauth.EventKind(kind)]
		if word == "" || seen[word] {
			t.Errorf("%s is called %q", kind, word)
		}
		seen[word] = true
	}
}

// A token that lives may be the last one, and a store that can't be read is no
// account that nobody has asked for: the page says so, and what to do.
func TestStatusSaysWhatStands(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state oauth.State
		grant string
		err   error
		means string
		do    string // a part; empty: nothing
		needs bool
	}{
		{oauth.StateReady, "password", oauth.ErrUnavailable, stateTexts[oauth.StateReady].Means, "", false},
		{oauth.StateReady, "authorization_code", oauth.ErrLoginRequired, endsText, "Press “Sign in again”", true},
		{oauth.StateReady, "password", oauth.ErrLoginRequired, endsText, "Press “Try again”", true},
		{oauth.StateReady, "client_credentials", oauth.ErrCredentialsRejected, endsText, "“Try again” tries it at once.", true},
		{oauth.StateReady, "refresh_token", oauth.ErrMisconfigured, endsText, refusedText, true},
		{oauth.StateUnknown, "password", oauth.ErrStoreUnavailable, unreadableText, storeText, true},
		{oauth.StateUnknown, "password", nil, stateTexts[oauth.StateUnknown].Means, "the first request asks", false},
	} {
		r := rowOf(session("erp", "", c.state, c.grant))
		r.Err = c.err
		other := rowOf(session("a", "", oauth.StateAway, "password"))
		_, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, other, r))
		articles := root.all("article")
		at := 0
		if !c.needs {
			at = slices.IndexFunc(articles, func(n *element) bool { return strings.Contains(n.text, "erp") })
		}
		said := articles[at].text
		if !strings.Contains(said, "erp") || !strings.Contains(said, c.means) || !strings.Contains(said, stateTexts[c.state].Word) {
			t.Errorf("%s, %v: %s", c.state, c.err, said)
		}
		if r.needs() != c.needs || (r.Do() == "") != (c.do == "") || !strings.Contains(said, c.do) {
			t.Errorf("%s, %v: to do %q", c.state, c.err, r.Do())
		}
	}
}

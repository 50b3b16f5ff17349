package caddymodule

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// The users of an account, page by page.
func TestStatusCommandUsers(t *testing.T) {
	r := newCommandRig(t, sandbox.Config{})
	r.start()
	app, err := running()
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"root", "ada", "it's me"} {
		key := oauth.Key{Account: "erp", User: user}
		if err := app.shared.store.Save(t.Context(), key, oauth.Entry{Generation: 1, Value: []byte(`{"version":1}`)}); err != nil {
			t.Fatal(err)
		}
	}
	r.finishLogin("erp/ada", "ada")
	r.runCommand(statusCommand(), "erp").ends(3, "erp/ada      ready", "erp/it's me  login_required", "erp/root     login_required", "\nusers: 3\n", "can't serve: erp/it's me, erp/root")
	r.runCommand(statusCommand(), "erp", "--limit", "1").ends(0, "erp/ada", "users: 3, of which 1 are shown", "caddy bearer status erp --after ada\n")
	r.runCommand(statusCommand(), "erp", "--limit", "1", "--after", "ada").ends(3, "erp/it's me", `caddy bearer status erp --after 'it'\''s me'`)
	c := r.runCommand(statusCommand(), "erp", "--limit", "2", "--after", "b", "--json")
	c.ends(3, `"total": 3`)
	if strings.Contains(c.output.String(), `"next"`) {
		t.Errorf("a page comes after the last one: %s", c.output.String())
	}
	var st statusJSON
	if err := json.Unmarshal([]byte(c.output.String()), &st); err != nil || len(st.Accounts) != 2 || st.Accounts[0].User != "it's me" {
		t.Errorf("%v %+v", err, st)
	}
	r.runCommand(statusCommand(), "erp", "--limit", "0").ends(0, "users: 3, of which 0 are shown")
	r.runCommand(statusCommand(), "erp", "--limit", "1001").ends(2, "from 0 to 1000")
	r.runCommand(waitCommand(), "--timeout", "0").ends(0)
}

func TestUsersPage(t *testing.T) {
	t.Parallel()
	users := []string{"c", "a", "d", "b"}
	for _, tt := range []struct {
		after string
		limit int
		want  string
	}{
		{"", 10, "[a b c d] "}, {"", 4, "[a b c d] "}, {"", 2, "[a b] b"}, {"b", 2, "[c d] "}, {"bb", 1, "[c] c"}, {"d", 2, "[] "}, {"z", 2, "[] "}, {"", 0, "[] "},
	} {
		keys, next := page("erp", slices.Clone(users), tt.after, tt.limit)
		names := []string{}
		for _, k := range keys {
			names = append(names, k.User)
		}
		if got := fmt.Sprint(names, " ", next); got != tt.want {
			t.Errorf("%d after %q: %s, want %s", tt.limit, tt.after, got, tt.want)
		}
	}
}

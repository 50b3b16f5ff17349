package caddymodule

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// newStatusRig has accounts for admins and one for users, who are ada, alan and
// whoever is named.
func newStatusRig(t *testing.T) *portalRig {
	r := newPortalRig(t, sandbox.Config{})
	for _, name := range []string{"shared-one", "shared-two", "shared-3", "shared-4", "shared-5", "shared-6"} {
		r.accounts += "account " + name + " {\n\t\t\t" + r.endpoints() + "\n\t\t\tgrant authorization_code\n\t\t}\n"
	}
	r.start()
	return r
}

// Whatever somebody asks for, the page holds nothing of others.
func TestStatusOwnOnly(t *testing.T) {
	r := newStatusRig(t)
	ada, alan, root := r.browser("ada"), r.browser("alan"), r.browser("root")
	alan.signIn("erp/alan")
	ada.signIn("erp/ada")
	for _, query := range []string{
		"", "q=shared", "q=alan", "q=e", "state=ready", "state=attention", "state=login_required", "page=2", "account=shared-one", "account=erp", "account=erp&user=alan",
		"account=erp&user=al", "account=erp&user=", "user=alan", "still=user&account=erp", "still=q", "account=erp/alan", "account=erp&account=shared-one", "q=%25", "admin=1&admins=ada",
	} {
		main := ada.page("?"+query).one(t, "main")
		_, searched, _ := strings.Cut(query, "q=") // what one asked for comes back
		said := main.text
		if searched != "e" && searched != "" {
			said = strings.ReplaceAll(said, searched, "")
		}
		for _, bad := range []string{"shared", "alan", "1 user", "users", "token store"} {
			if strings.Contains(said, bad) {
				t.Errorf("%s: ada sees %q: %s", query, bad, main.text)
			}
		}
		for _, form := range main.all("form") {
			if f := fieldsOf(form); form.attr["method"] == "post" && (f["account"] != "erp" || f["user"] != "ada") {
				t.Errorf("%s: ada can send %v", query, f)
			}
		}
		for _, a := range main.all("article") {
			if !strings.HasPrefix(strings.TrimSpace(a.text), "erp for ada") {
				t.Errorf("%s: ada sees %s", query, a.text)
			}
		}
	}
	// What there is to see, an admin sees.
	if text := root.page("?q=alan").one(t, "main").text; !strings.Contains(text, "2 users are signed in. The search fits 1 of them.") {
		t.Errorf("root finds nobody: %s", text)
	}
	page := root.page("?account=erp&user=alan")
	if _, ok := root.form(page, "logout", "erp/alan"); !ok || strings.Contains(page.one(t, "main").text, "ada") {
		t.Errorf("root sees of alan: %s", page.text)
	}
	if text := root.page("?q=shared-one").one(t, "main").text; !strings.Contains(text, "Found by shared-one: 1.") || strings.Contains(text, "shared-two") {
		t.Errorf("root finds %s", text)
	}
}

// After signing out one is where one was; what a form says of that leads
// nowhere else.
func TestStatusReturn(t *testing.T) {
	r := newStatusRig(t)
	root := r.browser("root")
	root.signIn("shared-two")
	fields, ok := root.form(root.page("?q=shared&still&state=ready&page=1"), "logout", "shared-two")
	if !ok {
		t.Fatal("no button")
	}
	if got := root.redirected(root.post("/logout", fields)); got != "/bearer/?message=signed_out&q=shared&state=ready&still=" {
		t.Errorf("signing out led to %s", got)
	}
	if text := root.page("?message=signed_out&q=shared&state=ready&still=").text; !strings.Contains(text, "You are signed out") || !strings.Contains(text, "Found by shared: 0.") {
		t.Errorf("there is %s", text)
	}
	for _, evil := range append([]string{"%zz", "message=signed_in&next=//evil.example", "q=%0d%0aSet-Cookie:+x=1", "page=-5&state=%3Cscript%3E", strings.Repeat("q=x&", 3000)}, evilTargets...) {
		fields.Set("view", evil)
		a := root.post("/logout", fields)
		if a.StatusCode != http.StatusSeeOther {
			continue // more than a form may have
		}
		q := mustParse(t, root.redirected(a)).Query()
		if q.Get("message") != "signed_out" || len(q["message"]) != 1 || q.Has("next") || len(a.Header.Values("Set-Cookie")) > 1 {
			t.Errorf("%.40q led to %s", evil, a.Header.Get("Location"))
		}
	}
}

// What happened is told from the real session, and nothing that is secret is.
func TestStatusTells(t *testing.T) {
	r := newStatusRig(t)
	ada, root := r.browser("ada"), r.browser("root")
	ada.signIn("erp/ada")
	root.signIn("shared-one")
	ada.whose()
	main := ada.page("").one(t, "main")
	for _, text := range []string{"Nobody is needed.", "Ready", "Requests get a token.", "Last 24 hours: 1 token, 0 failed attempts", "Got a token", "from now)"} {
		if !strings.Contains(main.text, text) {
			t.Errorf("the page doesn't tell %q: %s", text, main.text)
		}
	}
	if n := len(main.all("path")); n != 2 {
		t.Errorf("%d paths", n)
	}
	secrets := map[string]string{r.tokenOf("erp/ada"): "ada's token", r.tokenOf("shared-one"): "a token", ada.cookie(): "ada's cookie", root.cookie(): "root's cookie"}
	for _, query := range []string{"", "?still=q", "?account=erp", "?account=erp&user=ada", "?state=ready", "?message=signed_in"} {
		for _, b := range []*browser{ada, root} {
			a := b.open("/bearer" + query)
			for secret, what := range secrets {
				if secret == "" || strings.Contains(a.text, secret) || strings.Contains(a.text, secret[:len(secret)/2]) {
					t.Errorf("%s, %s: %s is on the page", b.user, query, what)
				}
			}
			checkHeaders(t, query, a)
		}
	}
}

// What is wrong with the store, or was, is for admins.
func TestStatusStore(t *testing.T) {
	r := newStatusRig(t)
	r.browser("ada").signIn("erp/ada")
	r.stop()
	if err := os.Remove(filepath.Join(r.dir, "store", "tokens.db")); err != nil {
		t.Fatal(err)
	}
	r.reload()
	for user, sees := range map[string]bool{"ada": false, "root": true} {
		text := r.browser(user).page("").one(t, "main").text
		if got := strings.Contains(text, "The token store was mended") && strings.Contains(text, "tokens.db was missing"); got != sees || !sees && strings.Contains(text, "tokens.db") {
			t.Errorf("%s sees %s", user, text)
		}
	}
	_, root := written(t, accountsOf(accountsPage{Now: portalNow, CSRF: "x", Store: oauth.StoreNotice{Problem: "the disk is full"}}))
	if section := root.one(t, "section"); section.attr["class"] != "notice bad" || !strings.Contains(section.text, "The token store has a problem") || !strings.Contains(section.text, "the disk is full") {
		t.Errorf("a problem is told as %s", section.text)
	}
}

// Hostile queries make pages like any other.
func TestStatusHostileQuery(t *testing.T) {
	r := newStatusRig(t)
	root := r.browser("root")
	for _, evil := range append([]string{`"><script>alert(1)</script>`, "' onfocus='alert(1)", "{{.CSRF}}", "\x00\xff", "\u202e", "%", strings.Repeat("x", 5000)}, evilTargets...) {
		for _, name := range []string{"q", "state", "page", "still", "account", "user", "message"} {
			q := url.Values{name: {evil}}
			if name == "user" {
				q.Set("account", "erp")
			}
			a := root.open("/bearer?" + q.Encode())
			if a.StatusCode != 200 {
				t.Fatalf("%s=%.30q: %d", name, evil, a.StatusCode)
			}
			checkHeaders(t, name, a)
			auditPage(t, readPage(t, a.text))
			if strings.Contains(a.text, "<script") || len(a.text) > 200_000 {
				t.Errorf("%s=%.30q: %d bytes, %.300s", name, evil, len(a.text), a.text)
			}
		}
	}
}

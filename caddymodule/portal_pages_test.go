package caddymodule

import (
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

type portalWriter interface {
	write(http.ResponseWriter) error
}

var portalNow = time.Date(2026, 11, 3, 9, 30, 0, 0, time.UTC)

// written is a page as it comes to the browser, read and audited.
func written(t testing.TB, p portalWriter) (*httptest.ResponseRecorder, *element) {
	t.Helper()
	rec := httptest.NewRecorder()
	if err := p.write(rec); err != nil {
		t.Fatal(err)
	}
	root := readPage(t, rec.Body.String())
	auditPage(t, root)
	return rec, root
}

// An element of a page.
type element struct {
	name     string
	attr     map[string]string
	children []*element
	text     string // its own and that of what is in it
	parent   *element
}

func (e *element) all(name string) (found []*element) {
	for _, c := range e.children {
		if c.name == name {
			found = append(found, c)
		}
		found = append(found, c.all(name)...)
	}
	return found
}

// one is the only element of a name.
func (e *element) one(t testing.TB, name string) *element {
	t.Helper()
	found := e.all(name)
	if len(found) != 1 {
		t.Fatalf("%d elements %s, want 1", len(found), name)
	}
	return found[0]
}

var (
	voidElement  = regexp.MustCompile(`<(meta|link|input|wbr)( [^<>]*)?>`)
	unreadable   = regexp.MustCompile(`[\x00-\x08\x0b\x0c\x0e-\x1f\x{fffe}\x{ffff}]`)
	allowedNames = strings.Fields("html head meta title link body header main nav section article div p h1 h2 h3 h4 a strong span bdi code dl dt dd time form input label button ul li wbr svg desc path rect")
	allowedAttrs = strings.Fields("lang charset name content http-equiv rel href class id role aria-labelledby for method action type value required autocomplete autocapitalize spellcheck datetime rel maxlength autofocus aria-label aria-current aria-hidden aria-describedby viewBox preserveAspectRatio x y d width height")
)

// readPage reads a page more strictly than browsers do: everything is closed
// and quoted, so that there is one way only to read it.
func readPage(t testing.TB, page string) *element {
	t.Helper()
	rest, ok := strings.CutPrefix(page, "<!doctype html>\n")
	if !ok {
		t.Fatalf("no doctype: %.40q", page)
	}
	rest = unreadable.ReplaceAllString(strings.ToValidUTF8(rest, "\ufffd"), "\ufffd")
	dec := xml.NewDecoder(strings.NewReader(voidElement.ReplaceAllString(rest, "<$1$2/>")))
	root := &element{}
	at := root
	for {
		token, err := dec.Token()
		if err == io.EOF {
			return root
		}
		if err != nil {
			t.Fatalf("reading the page: %v\n%s", err, page)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := &element{name: token.Name.Local, attr: map[string]string{}, parent: at}
			for _, a := range token.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			at.children = append(at.children, e)
			at = e
		case xml.EndElement:
			at = at.parent
		case xml.CharData:
			for e := at; e != nil; e = e.parent {
				e.text += string(token)
			}
		default:
			t.Fatalf("%T in the page", token)
		}
	}
}

// auditPage checks what holds for every page: nothing that runs or is loaded,
// and what a screen reader needs.
func auditPage(t testing.TB, root *element) {
	t.Helper()
	if root.one(t, "html").attr["lang"] != "en" || strings.TrimSpace(root.one(t, "head").one(t, "title").text) == "" || root.one(t, "main").one(t, "h1").text == "" {
		t.Error("lang, title or h1 is missing")
	}
	ids, labels, level := map[string]bool{}, map[string]bool{}, 0
	var walk func(*element, func(*element))
	walk = func(e *element, do func(*element)) {
		for _, c := range e.children {
			do(c)
			walk(c, do)
		}
	}
	walk(root, func(e *element) {
		if id, ok := e.attr["id"]; ok && ids[id] {
			t.Errorf("id %s twice", id)
		}
		ids[e.attr["id"]] = true
		labels[e.attr["for"]] = true
		if len(e.name) == 2 && e.name[0] == 'h' {
			l := int(e.name[1] - '0')
			if l > level+1 {
				t.Errorf("%s follows a heading of level %d", e.name, level)
			}
			level = l
		}
	})
	walk(root, func(e *element) {
		if !slices.Contains(allowedNames, e.name) {
			t.Errorf("element %s", e.name)
		}
		for name, value := range e.attr {
			switch {
			case !slices.Contains(allowedAttrs, name):
				t.Errorf("attribute %s of %s", name, e.name)
			case name == "href" && checkLink(value) != nil, name == "action":
				if !strings.HasPrefix(value, "/") || strings.HasPrefix(value, "//") {
					t.Errorf("%s of %s leads to %q", name, e.name, value)
				}
			case name == "for" || name == "aria-labelledby" || name == "aria-describedby":
				if !ids[value] {
					t.Errorf("%s=%q of %s leads nowhere", name, value, e.name)
				}
			case name == "http-equiv" && value != "refresh":
				t.Errorf("http-equiv %s", value)
			case name == "class":
				for class := range strings.FieldsSeq(value) {
					if !strings.Contains(string(portalStyle), "."+class) {
						t.Errorf("class %s has no style", class)
					}
				}
			}
		}
		switch {
		case e.name == "input" && e.attr["type"] != "hidden" && !labels[e.attr["id"]]:
			t.Errorf("input %s has no label", e.attr["name"])
		case (e.name == "button" || e.name == "a") && strings.TrimSpace(e.text) == "":
			t.Errorf("%s without a name", e.name)
		case e.name == "form" && e.attr["method"] == "post" && fieldsOf(e)["csrf"] == "":
			t.Error("form without csrf")
		}
	})
}

func fieldsOf(form *element) map[string]string {
	fields := map[string]string{}
	for _, i := range form.all("input") {
		fields[i.attr["name"]] = i.attr["value"]
	}
	return fields
}

func session(account, user string, state oauth.State, grant string) oauth.Status {
	return oauth.Status{Key: oauth.Key{Account: account, User: user}, State: state, Grant: grant}
}

func rowOf(s oauth.Status) accountRow { return accountRow{sessionView: sessionView{Status: s}} }

// accountsOf is the page of these rows.
func accountsOf(p accountsPage, rows ...accountRow) *accountsPage {
	p.take(rows)
	for _, r := range p.Rows {
		if r.Users != nil {
			r.Users.take(p.Asked, func(name string) accountRow {
				return rowOf(session(r.Users.Account, name, oauth.StateReady, "authorization_code"))
			})
		}
	}
	return &p
}

// usersOf is the page of the account that p asks for, and its users.
func usersOf(p accountsPage, names []string, row func(string) accountRow) *accountsPage {
	users := &accountUsers{Account: p.Asked.Account, names: names}
	p.take([]accountRow{{Users: users}})
	users.take(p.Asked, row)
	return &p
}

// Every text of every page may be hostile: it shows up as text, whatever it is.
func TestPortalHostileStrings(t *testing.T) {
	t.Parallel()
	for _, evil := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' autofocus onfocus='alert(1)`, `javascript:alert(1)`,
		`</title><script>alert(1)</script>`, `--><b>`, `{{.CSRF}}`, "`; rm -rf /", "a\u202enimda", "\u2066x\u2069\u200b", "\x00\xff\r\n<b>", `&quot;&#x22;`, strings.Repeat("x", 5000),
	} {
		common := portalPage{Base: "/bearer", User: evil}
		s := session(evil, evil, oauth.StateRefused, evil)
		s.Detail, s.HasRefreshToken = evil, true
		imported := session(evil, evil, oauth.StateLoginRequired, "refresh_token")
		for _, p := range []portalWriter{
			accountsOf(accountsPage{portalPage: common, CSRF: evil, Message: evil, Now: portalNow, Store: oauth.StoreNotice{Problem: evil, Mended: []string{evil}}, Asked: readListing(url.Values{"q": {evil}, "still": {""}})},
				accountRow{sessionView: sessionView{s, hostilePast(evil)}}, rowOf(imported), accountRow{Users: &accountUsers{Account: evil, names: []string{evil}}}),
			usersOf(accountsPage{portalPage: common, CSRF: evil, Now: portalNow, Asked: readListing(url.Values{"account": {evil}, "user": {evil}})}, []string{evil + "x"}, func(string) accountRow { return rowOf(s) }),
			devicePage{portalPage: common, Key: s.Key, UserCode: evil, VerificationURI: evil, VerificationURIComplete: evil, Now: portalNow, Check: "/bearer/device?login=x"},
			devicePage{portalPage: common, Key: s.Key, Over: deviceFailed, Reason: evil},
			devicePage{portalPage: common, Over: evil, Check: evil},
			problemPage{common, "login_denied", evil, evil},
			problemPage{common, evil, evil, evil},
		} {
			rec, root := written(t, p)
			shown := root.one(t, "body").text
			if i := strings.IndexFunc(shown, func(c rune) bool {
				return c < ' ' && c != '\n' || c >= 0x200b && c <= 0x2069 && !strings.ContainsRune("–…“”", c)
			}); i >= 0 {
				t.Errorf("%q shows a character without a shape: %q", evil, shown[i:min(len(shown), i+10)])
			}
			if want := visible(evil); !strings.Contains(shown, want) {
				t.Errorf("%T doesn't show %q", p, want)
			}
			if rec.Body.Len() > 150_000 {
				t.Errorf("%T of %d bytes", p, rec.Body.Len())
			}
		}
	}
}

func hostilePast(evil string) *oauth.History {
	h := new(oauth.History)
	h.Hours[23].Failures = 1
	h.Recent = []oauth.Happening{{At: portalNow, Kind: oauth.EventKind(evil), Detail: evil}, {At: portalNow, Kind: oauth.EventDegraded, Detail: evil}}
	return h
}

func TestPortalHeaders(t *testing.T) {
	t.Parallel()
	common := portalPage{Base: "/bearer"}
	for _, p := range []portalWriter{
		&accountsPage{portalPage: common}, continuePage{common, "https://sso.example.com/"},
		devicePage{portalPage: common, Check: "/bearer/device"}, problemPage{portalPage: common, Code: "internal"},
	} {
		rec, _ := written(t, p)
		for name, want := range map[string]string{
			"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff", "Cross-Origin-Opener-Policy": "same-origin", "X-Frame-Options": "DENY",
			"Permissions-Policy": "camera=(), geolocation=(), microphone=()", "Content-Length": strconv.Itoa(rec.Body.Len()),
		} {
			if got := rec.Header().Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%T: %s: %q, want %q", p, name, got, want)
			}
		}
	}
}

// What a session says and offers, by state and grant.
func TestPortalSession(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state   oauth.State
		grant   string
		refresh bool // there is a refresh token
		word    string
		buttons string
	}{
		{oauth.StateReady, "authorization_code", true, "Ready", "Sign in again, Sign out"},
		{oauth.StateReady, "password", true, "Ready", "Sign out"},
		{oauth.StateReady, "refresh_token", true, "Ready", "Sign out"},
		{oauth.StateRefreshing, "client_credentials", false, "Getting a token", "Sign out"},
		{oauth.StateDegraded, "device_code", true, "Working, but not saved", "Sign in again, Sign out"},
		{oauth.StateAway, "password", false, "Server can't be reached", "Try again"},
		{oauth.StateAway, "password", true, "Server can't be reached", "Try again, Sign out"},
		{oauth.StateRefused, "client_credentials", false, "Refused by the server", "Try again"},
		{oauth.StateLoginRequired, "authorization_code", false, "Sign-in needed", "Sign in"},
		{oauth.StateLoginRequired, "authorization_code", true, "Sign-in needed", "Sign in again, Sign out"},
		{oauth.StateLoginRequired, "refresh_token", false, "Sign-in needed", ""},
		{oauth.StateUnknown, "device_code", false, "Not known yet", "Sign in"},
		{"another", "another", false, "Not known yet", "Try again"},
	} {
		s := session("erp", "alice", c.state, c.grant)
		s.HasRefreshToken = c.refresh
		_, root := written(t, accountsOf(accountsPage{portalPage: portalPage{Base: "/b"}, CSRF: "proof", Now: portalNow}, rowOf(s)))
		var buttons []string
		for _, f := range root.all("form") {
			caption, account, _ := strings.Cut(f.one(t, "button").text, ": ")
			buttons = append(buttons, caption)
			action := "/b/login"
			if caption == "Sign out" {
				action = "/b/logout"
			}
			if want := map[string]string{"account": "erp", "user": "alice", "csrf": "proof"}; f.attr["action"] != action || !maps.Equal(fieldsOf(f), want) {
				t.Errorf("%s goes to %s with %v", caption, f.attr["action"], fieldsOf(f))
			}
			if account != "erp/alice" {
				t.Errorf("%s doesn't say of what: %q", caption, account)
			}
		}
		if got := strings.Join(buttons, ", "); got != c.buttons {
			t.Errorf("%s, %s, refresh token %t: buttons %q, want %q", c.state, c.grant, c.refresh, got, c.buttons)
		}
		article := root.one(t, "article").text
		if !strings.Contains(article, "State: "+c.word+"\n") {
			t.Errorf("%s isn't called %s: %s", c.state, c.word, article)
		}
		if got, want := strings.Contains(article, "caddy bearer import erp/alice"), c.grant == "refresh_token"; got != want {
			t.Errorf("%s: hint to import: %t", c.grant, got)
		}
	}
	for _, evil := range []string{"a b", "a;b", "$(b)", "'", "a\nb", "-x", "é"} {
		if got := (sessionView{Status: session(evil, "", oauth.StateUnknown, "refresh_token")}).Import(); got != "caddy bearer import <account>" {
			t.Errorf("a shell is given %q", got)
		}
	}
}

// When tokens end is told in UTC, for people and machines, and in distance.
func TestPortalTimes(t *testing.T) {
	t.Parallel()
	s := session("erp", "", oauth.StateAway, "password")
	s.Detail = "why it is so"
	s.HasRefreshToken = true
	s.Expires = portalNow.Add(9 * time.Minute).In(time.FixedZone("", 7200))
	s.RefreshExpires = portalNow.AddDate(3, 0, 0)
	s.RetryAt = portalNow.Add(40 * time.Second)
	_, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, rowOf(s)))
	var got []string
	for _, e := range root.all("time") {
		got = append(got, e.attr["datetime"]+" "+e.text)
	}
	want := []string{
		"2026-11-03T09:30:00Z 09:30:00 UTC", // now
		"2026-11-03T09:39:00Z 09:39:00 UTC", "2029-11-03T09:30:00Z 3 November 2029, 09:30:00 UTC", "2026-11-03T09:30:40Z 09:30:40 UTC",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, text := range []string{"why it is so", "(9 minutes from now)", "(40 seconds from now)"} {
		if !strings.Contains(root.text, text) {
			t.Errorf("no %q", text)
		}
	}
	s.Expires, s.RefreshExpires = time.Time{}, time.Time{}
	if _, root := written(t, accountsOf(accountsPage{CSRF: "x", Now: portalNow}, rowOf(s))); len(root.all("time")) != 2 || !strings.Contains(root.text, "Refresh tokenits end isn't known") {
		t.Error("unknown times are told")
	}
}

func TestPortalAccounts(t *testing.T) {
	t.Parallel()
	names := make([]string, 150)
	for i := range names {
		names[i] = fmt.Sprintf("user-%03d", i)
	}
	page := accountsPage{portalPage: portalPage{User: "alice"}, CSRF: "x", Now: portalNow, Asked: listing{Account: "pagero", User: "zoe", Still: true}}
	signedOut := func(name string) accountRow {
		return rowOf(session("pagero", name, oauth.StateLoginRequired, "authorization_code"))
	}
	_, root := written(t, usersOf(page, names, signedOut))
	if !strings.Contains(root.text, "150 users are signed in") || !strings.Contains(root.text, "There is no session of zoe yet") {
		t.Errorf("it isn't said who is signed in: %s", root.text)
	}
	lookup := root.all("form")[0]
	if lookup.attr["method"] != "get" || lookup.attr["action"] != "/" || fieldsOf(lookup)["account"] != "pagero" || fieldsOf(lookup)["user"] != "zoe" {
		t.Errorf("look-up: %v %v", lookup.attr, fieldsOf(lookup))
	}
	if h := root.all("h3"); len(h) != 1 || h[0].text != "zoe" || len(root.all("form")) != 2 {
		t.Error("the user that was looked up isn't shown, or can't be signed in")
	}
	if !strings.Contains(root.one(t, "header").text, "Signed in at the proxy as alice") {
		t.Error("it isn't said who is here")
	}
	page.Asked.User = "user-149"
	_, root = written(t, usersOf(page, names, signedOut))
	if h := root.all("h3"); len(h) != 1 || h[0].text != "user-149" || strings.Contains(root.text, "There is no session") {
		t.Error("a known user isn't shown as one")
	}
	_, root = written(t, accountsOf(accountsPage{portalPage: portalPage{Unprotected: true}}))
	if !strings.Contains(root.text, "Nothing here for you") || !strings.Contains(root.one(t, "header").text, "nobody, this portal asks for no name") {
		t.Error("an empty, unprotected portal doesn't say so")
	}
}

func TestPortalMessages(t *testing.T) {
	t.Parallel()
	for code, role := range map[string]string{"signed_in": "status", "signed_out": "status", "signed_out_not_revoked": "alert", "attempt_ok": "status", "": "", "no such": ""} {
		_, root := written(t, accountsOf(accountsPage{Message: code, CSRF: "x"}, rowOf(oauth.Status{State: oauth.StateReady})))
		var got string
		for _, p := range root.all("p") {
			if p.attr["role"] != "" {
				got = p.attr["role"]
				if want := portalMessages[code].Text; p.text != want || !strings.HasPrefix(root.one(t, "head").one(t, "title").text, want) {
					t.Errorf("%s: %q", code, p.text)
				}
			}
		}
		if got != role {
			t.Errorf("message %q has the role %q, want %q", code, got, role)
		}
	}
	// Its address may be an old one.
	if accountsOf(accountsPage{Message: "signed_in"}, rowOf(oauth.Status{State: oauth.StateLoginRequired})).Notice() != nil {
		t.Error("the page says that somebody is signed in where nobody is")
	}
}

func TestPortalContinue(t *testing.T) {
	t.Parallel()
	const link = "https://sso.example.com:8443/authorize?response_type=code&redirect_uri=http%3A%2F%2F127.0.0.1%2Fcb&scope=a+b;c"
	_, root := written(t, continuePage{portalPage{}, link})
	if !strings.Contains(root.one(t, "h1").text, "taken to sso.example.com:8443 to sign in") {
		t.Errorf("h1: %s", root.one(t, "h1").text)
	}
	if got := refreshOf(root); got != "0;url="+link {
		t.Errorf("it goes to %q", got)
	}
	if !slices.ContainsFunc(root.all("a"), func(a *element) bool { return a.attr["href"] == link }) {
		t.Error("no link")
	}

	rec := httptest.NewRecorder()
	const evil = "javascript:alert(document.cookie)"
	if err := (continuePage{portalPage{}, evil}).write(rec); err == nil || rec.Code != http.StatusInternalServerError || strings.Contains(rec.Body.String(), "cookie)") {
		t.Errorf("%s: %d %v", evil, rec.Code, err)
	}
}

// refreshOf is where a page goes by itself; empty if it stays.
func refreshOf(root *element) string {
	for _, m := range root.all("meta") {
		if m.attr["http-equiv"] == "refresh" {
			return m.attr["content"]
		}
	}
	return ""
}

func TestPortalLinks(t *testing.T) {
	t.Parallel()
	for link, ok := range map[string]bool{
		"https://sso.example.com/a?b=c#d": true, "HTTPS://sso.example.com": true, "http://127.0.0.1:8080/x": true, "http://[::1]/": true, "http://localhost/": true,
		"http://sso.example.com/": false, "http://127.0.0.1.example.com/": false, "http://localhost.example.com/": false,
		"": false, "/x": false, "//sso.example.com": false, "https:": false, "https:sso.example.com": false, "https:///x": false, "https://:443/": false,
		"javascript:alert(1)": false, "JavaScript:alert(1)": false, "data:text/html,x": false, "file:///etc/passwd": false, "vbscript:x": false,
		"https://known.example@evil.example/": false, "https://known.example\\@evil.example/": false, "https:\\\\evil.example": false,
		" https://x.example": false, "https://x.example/\n": false, "java\tscript:x": false, "https://x.example/\"onclick": false, "https://x.example/'": false,
		"https://x\u202e.example/": false, "https://ex\u0430mple.com/": false, "https://x.example/%zz": false,
	} {
		if err := checkLink(link); (err == nil) != ok {
			t.Errorf("%q: %v", link, err)
		}
	}
}

func TestPortalDevice(t *testing.T) {
	t.Parallel()
	page := devicePage{
		portalPage: portalPage{Base: "/b"}, Key: oauth.Key{Account: "scanner"}, UserCode: "WDJB-MJHT", VerificationURI: "https://sso.example.com/device",
		VerificationURIComplete: "https://sso.example.com/device?user_code=WDJB-MJHT", Expires: portalNow.Add(10 * time.Minute), Now: portalNow, Check: "/b/device?login=x",
	}
	_, root := written(t, page)
	for _, text := range []string{"WDJB-MJHT", "https://sso.example.com/device", "scanner", "10 minutes from now", "Waiting"} {
		if !strings.Contains(root.text, text) {
			t.Errorf("no %q", text)
		}
	}
	if got := refreshOf(root); got != "5;url=/b/device?login=x" {
		t.Errorf("it goes to %q", got)
	}
	hrefs := func(root *element) (list []string) {
		for _, a := range root.one(t, "main").all("a") {
			list = append(list, a.attr["href"])
		}
		return list
	}
	if got, want := hrefs(root), []string{page.VerificationURI, page.VerificationURIComplete, "/b/device?login=x&still", "/b"}; !slices.Equal(got, want) {
		t.Errorf("links %q, want %q", got, want)
	}

	page.Still = true
	if _, root := written(t, page); refreshOf(root) != "" || !slices.Contains(hrefs(root), page.StillURL()) {
		t.Error("the page that stays goes, or can't be checked")
	}
	for over, text := range map[string]string{deviceExpired: "The code has expired", deviceFailed: "it was denied"} {
		_, root := written(t, devicePage{Over: over, Reason: "it was denied"})
		if refreshOf(root) != "" || !strings.Contains(root.text, text) || !slices.Equal(hrefs(root), []string{"/"}) {
			t.Errorf("%s: %s", over, root.text)
		}
	}
	page.VerificationURI, page.VerificationURIComplete = "http://sso.example.com/", "javascript:alert(1)"
	if _, root := written(t, page); len(hrefs(root)) != 2 || strings.Contains(root.text, "sso.example.com") {
		t.Error("an address that isn't https is shown")
	}
	for _, check := range []string{"", "/b", "/other", "//evil.example", "/b//evil.example", `/b/\evil.example`, "https://evil.example/b/", "/b/x y"} {
		page.Check = check
		if rec := httptest.NewRecorder(); page.write(rec) == nil || rec.Code != http.StatusInternalServerError {
			t.Errorf("the page goes to %q", check)
		}
	}
}

func TestPortalProblems(t *testing.T) {
	t.Parallel()
	titles := map[string]bool{}
	for code, want := range map[string]int{
		"callback_malformed": 400, "login_unknown": 400, "login_foreign": 403, "issuer_mismatch": 400, "login_denied": 403, "login_failed": 502, "login_changed": 409,
		"form_refused": 403, "host_refused": 421, "not_allowed": 403, "no_user": 403, "unknown_account": 404, "terminal": 200,
		"no_login": 400, "no_portal_login": 400, "attempt_failed": 502, "logout_failed": 503, "unavailable": 503, "not_found": 404, "method_refused": 405, "internal": 500, "no such code": 500,
	} {
		rec, root := written(t, problemPage{portalPage{Base: "/b"}, code, "erp", "access_denied"})
		if code == "no such code" {
			code = "internal"
		} else if title := root.one(t, "h1").text; titles[title] {
			t.Errorf("%q twice", title)
		} else {
			titles[title] = true
		}
		p := portalProblems[code]
		if rec.Code != want {
			t.Errorf("%s: status %d, want %d", code, rec.Code, want)
		}
		for _, text := range []string{p.Title, p.What, p.Do, "Account: erp", "In detail: access_denied"} {
			if text == "" || !strings.Contains(root.one(t, "main").text, text) {
				t.Errorf("%s doesn't say %q", code, text)
			}
		}
		header, links, waits := code, 1, code == "unavailable"
		if code == "terminal" {
			header, links = "", 0
		}
		if rec.Header().Get(errorHeader) != header || len(root.one(t, "main").all("a")) != links || (rec.Header().Get("Retry-After") != "") != waits {
			t.Errorf("%s: %v", code, rec.Header())
		}
	}
	if len(titles) != len(portalProblems) {
		t.Errorf("%d problems tested of %d", len(titles), len(portalProblems))
	}
}

// A page that can't be rendered is a 500, and nothing of it is sent.
func TestPortalFault(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"device": "The portal has a fault</h1>", "problem": "The portal has a fault;"} {
		rec := httptest.NewRecorder()
		err := writePage(rec, http.StatusOK, name, struct{ Base, Home, User string }{User: "alice"}, portalPage{})
		if err == nil || rec.Code != http.StatusInternalServerError || !strings.Contains(rec.Body.String(), want) || strings.Contains(rec.Body.String(), "alice") {
			t.Errorf("%s: %d %v %s", name, rec.Code, err, rec.Body)
		}
	}
}

func TestPortalStyle(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodGet, "/b/style.css", nil)
	rec := httptest.NewRecorder()
	serveStyle(rec, r)
	if rec.Code != http.StatusOK || rec.Header().Get("Content-Type") != "text/css; charset=utf-8" || rec.Header().Get("Cache-Control") != "no-cache" || rec.Body.Len() < 1000 {
		t.Errorf("%d %v", rec.Code, rec.Header())
	}
	if css := rec.Body.String(); strings.Contains(css, "url(") || strings.Contains(css, "@import") || !strings.Contains(css, ":focus-visible") {
		t.Error("the style sheet loads something, or hides the focus")
	}
	r.Header.Set("If-None-Match", rec.Header().Get("ETag"))
	rec = httptest.NewRecorder()
	if serveStyle(rec, r); rec.Code != http.StatusNotModified || rec.Body.Len() != 0 {
		t.Errorf("again: %d", rec.Code)
	}
}

// Contrast is that of WCAG 2.2 AA (1.4.3, 1.4.11), in both palettes.
func TestPortalContrast(t *testing.T) {
	t.Parallel()
	light, dark, ok := strings.Cut(string(portalStyle), "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("no dark palette")
	}
	variable := regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`)
	for scheme, css := range map[string]string{"light": light, "dark": dark} {
		colour := map[string]string{}
		for _, m := range variable.FindAllStringSubmatch(css, -1) {
			colour[m[1]] = m[2]
		}
		for _, c := range []struct {
			front, back string
			least       float64
		}{
			{"text", "ground", 4.5}, {"text", "card", 4.5}, {"quiet", "card", 4.5}, {"quiet", "ground", 4.5}, {"link", "card", 4.5}, {"link", "ground", 3},
			{"on-first", "first", 4.5}, {"first", "card", 3}, {"edge", "card", 3}, {"warn", "card", 4.5}, {"bad", "ground", 4.5}, {"bad", "card", 3}, {"ok", "line", 3},
			{"ok", "ok-ground", 4.5}, {"warn", "warn-ground", 4.5}, {"bad", "bad-ground", 4.5}, {"idle", "idle-ground", 4.5},
		} {
			a, b := luminance(t, colour[c.front]), luminance(t, colour[c.back])
			if got := (max(a, b) + 0.05) / (min(a, b) + 0.05); got < c.least {
				t.Errorf("%s: %s on %s is %.2f, want %.1f", scheme, c.front, c.back, got, c.least)
			}
		}
	}
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, hex string) (sum float64) {
	t.Helper()
	if hex == "" {
		t.Fatal("a colour is missing")
	}
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, _ := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		v := float64(n) / 255
		if v <= 0.04045 {
			sum += weight * v / 12.92
		} else {
			sum += weight * math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return sum
}

// What a server answers to a device request makes no page that does anything
// but tell it.
func FuzzPortalDevice(f *testing.F) {
	f.Add("WDJB-MJHT", "https://sso.example.com/device?x=<y>")
	f.Add("\u202e<script>", "javascript:alert(1)")
	f.Add("\xff\x00", "https://a@b\\c/")
	f.Fuzz(func(t *testing.T, code, link string) {
		_, root := written(t, devicePage{UserCode: code, VerificationURI: link, Now: portalNow, Check: "/device"})
		if got := root.one(t, "main").all("a")[0].attr["href"]; checkLink(link) == nil && !strings.HasPrefix(strings.ToLower(got), "http") {
			t.Errorf("%q leads to %q", link, got)
		}
	})
}

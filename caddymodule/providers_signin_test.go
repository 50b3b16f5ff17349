package caddymodule

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file is how the tests of the providers sign in.

// signIn signs in as the account's grant wants it. Until a person has, callers
// are told.
func (r *providerRig) signIn() {
	r.Helper()
	if selfSufficient(r.table.grant) {
		r.signedIn()
		return
	}
	r.fails(503, "login_required")
	r.sent(nil, "a start without a person", true)
	switch {
	case r.table.grant == "refresh_token":
		r.importToken()
	case r.table.grant == "device_code":
		r.enterCode(func(code string) error { return r.sandbox.ApproveDevice(code, "sandbox-user") }, "message=signed_in")
	case r.status().Terminal:
		r.paste()
	default:
		r.visit(r.approved, "message=signed_in")
	}
}

// signedIn waits until the account has a token.
func (r *providerRig) signedIn() {
	r.Helper()
	r.eventually("signed in", func() bool { return r.status().State == oauth.StateReady })
}

func (r *providerRig) status() accountStatus {
	r.Helper()
	app, err := running()
	if err != nil {
		r.Fatal(err)
	}
	one, err := app.describeOne(r.Context(), oauth.Key{Account: r.row.account})
	if err != nil {
		r.Fatal(err)
	}
	return one
}

// admin posts to the admin endpoint, as the commands do.
func (r *providerRig) admin(path string, body, into any) (err error) {
	r.Helper()
	text, jsonErr := json.Marshal(body)
	if jsonErr != nil {
		r.Fatal(jsonErr)
	}
	mux := http.NewServeMux()
	for _, route := range (*Admin)(nil).Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, req *http.Request) { err = route.Handler.ServeHTTP(w, req) })
	}
	req := httptest.NewRequest("POST", path, bytes.NewReader(text)).WithContext(r.Context())
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, req)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
		r.Fatalf("%s answers %s: %v", path, rec.Body, err)
	}
	return nil
}

// importToken gives the account a refresh token that somebody else got.
func (r *providerRig) importToken() {
	r.Helper()
	form := url.Values{"grant_type": {"password"}, "username": {"sandbox-user"}, "password": {"sandbox-password"}}
	req := httptest.NewRequest("POST", r.sandbox.Endpoints(r.server.URL).Token, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("sandbox-client", "sandbox-secret")
	rec := httptest.NewRecorder()
	r.sandbox.AuthorizationServer().ServeHTTP(rec, req)
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || answer.RefreshToken == "" {
		r.Fatalf("no refresh token: %d %s", rec.Code, rec.Body)
	}
	if err := r.admin("/bearer/import", actionJSON{Account: r.row.account, RefreshToken: answer.RefreshToken}, new(accountStatus)); err != nil {
		r.Fatal(err)
	}
}

// paste logs in as `caddy bearer login --paste` does.
func (r *providerRig) paste() {
	r.Helper()
	if err := r.pasteCallback(r.approved); err != nil {
		r.Fatal(err)
	}
	r.signedIn()
}

// pasteCallback hands over the address where the browser ends; decide is what
// the person does at the server.
func (r *providerRig) pasteCallback(decide func(authorizeURL string) (callback string)) error {
	r.Helper()
	start := loginJSON{actionJSON: actionJSON{Account: r.row.account}, Browser: "a terminal"}
	var began, done beganJSON
	if err := r.admin("/bearer/login", start, &began); err != nil {
		return err
	}
	at, query := pasted(decide(began.URL) + "\n")
	return r.admin("/bearer/login/finish", loginJSON{Browser: "a terminal", At: at, Query: query}, &done)
}

// approved is where the browser of a person who says yes is sent to.
func (r *providerRig) approved(authorizeURL string) string {
	r.Helper()
	callback, err := r.sandbox.Approve(r.authorization(authorizeURL), "sandbox-user")
	if err != nil {
		r.Fatal(err)
	}
	return callback
}

// authorization checks an authorization request, and returns it as one for the
// sandbox.
func (r *providerRig) authorization(authorizeURL string) string {
	r.Helper()
	u, err := url.Parse(authorizeURL)
	if err != nil || !strings.HasPrefix(authorizeURL, r.server.URL) {
		r.Fatalf("the browser is sent to %q: %v", authorizeURL, err)
	}
	if got := "GET " + u.Path + ":" + r.parameters(u.Query()); got != r.row.authorize {
		r.Errorf("the browser is sent to\n%s\nwant\n%s", got, r.row.authorize)
	}
	u.Path = or(r.row.paths[u.Path], u.Path)
	return u.String()
}

// A browser has cookies and follows nothing by itself.
func newBrowser() *http.Client {
	jar, _ := cookiejar.New(nil)
	return &http.Client{Timeout: 30 * time.Second, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// open loads a page, by GET or with a form, and returns where it leads and
// what is on it.
func (r *providerRig) open(b *http.Client, link string, form url.Values) (location string, page *element) {
	r.Helper()
	res, err := b.Get(link)
	if form != nil {
		res, err = b.PostForm(link, form)
	}
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	if location = res.Header.Get("Location"); location != "" {
		u, err := res.Location()
		if err != nil {
			r.Fatal(err)
		}
		return u.String(), nil
	}
	return "", readPage(r.T, string(text))
}

// pressSignIn presses the account's button on the portal.
func (r *providerRig) pressSignIn(b *http.Client) (location string, page *element) {
	r.Helper()
	_, home := r.open(b, r.portal+"/bearer", nil)
	for _, form := range home.all("form") {
		if fields := fieldsOf(form); form.attr["action"] == "/bearer/login" && fields["account"] == r.row.account {
			values := url.Values{}
			for name, value := range fields {
				values.Set(name, value)
			}
			return r.open(b, r.portal+form.attr["action"], values)
		}
	}
	r.Fatal("the portal has no button for the account")
	return "", nil
}

// visit signs in on the portal; decide is what the person does at the server.
// The browser ends at a page whose address holds end, and no code.
func (r *providerRig) visit(decide func(authorizeURL string) (callback string), end string) *element {
	r.Helper()
	b := newBrowser()
	_, page := r.pressSignIn(b)
	callback := ""
	for _, a := range page.all("a") {
		if a.attr["class"] == "button first" {
			callback = decide(a.attr["href"])
		}
	}
	if !strings.HasPrefix(callback, strings.Replace(or(r.row.redirect, "?"), "https://proxy.example.com", r.portal, 1)) {
		r.Fatalf("the browser is sent back to %q", callback)
	}
	location, _ := r.open(b, callback, nil)
	if !strings.Contains(location, end) || strings.Contains(location, "code=") {
		_, page := r.open(b, or(location, r.portal), nil)
		r.Fatalf("the browser ends at %q, want %s: %s", location, end, page.text)
	}
	_, page = r.open(b, location, nil)
	return page
}

// enterCode signs in with a device; decide is what the person does.
func (r *providerRig) enterCode(decide func(code string) error, end string) *element {
	r.Helper()
	b := newBrowser()
	wait, _ := r.pressSignIn(b)
	location, page := r.open(b, wait, nil)
	for _, p := range page.all("p") {
		if p.attr["class"] == "code" {
			if err := decide(strings.TrimSpace(p.text)); err != nil {
				r.Fatal(err)
			}
		}
	}
	r.eventually("done with the device", func() bool {
		location, page = r.open(b, wait, nil)
		return location != "" || page.one(r, "h1").text != "Enter this code to sign in"
	})
	if !strings.Contains(location, end) {
		r.Fatalf("the browser ends at %q, want %s", location, end)
	}
	return page
}

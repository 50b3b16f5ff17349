package caddymodule

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// A browser is one person's. It keeps cookies, sends what browsers send, and
// follows no redirect by itself.
type browser struct {
	*portalRig
	client *http.Client
	user   string   // of basic_auth; empty: none
	person string   // at the authorization server
	name   string   // of the portal's host, as this browser knows it; empty: the right one
	header []string // that a proxy in front adds
}

func (r *portalRig) browser(user string) *browser {
	r.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.Fatal(err)
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, r.address)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // Caddy's own authority, made for this test
	}
	r.Cleanup(transport.CloseIdleConnections)
	b := &browser{portalRig: r, user: user, person: idpUser(user), client: &http.Client{
		Jar: jar, Transport: transport, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	r.browsers = append(r.browsers, b)
	return b
}

// An answer is what a browser got.
type answer struct {
	*http.Response
	text string
}

// send makes a request; target is a URL, or a path of the portal's site. A
// header Host is the request's; one without a value is not sent. A header
// Cookie takes the place of what the browser has.
func (b *browser) send(method, target, body string, header ...string) answer {
	b.Helper()
	if !strings.HasPrefix(target, "http") {
		target = b.origin() + target
	}
	req, err := http.NewRequestWithContext(context.Background(), method, target, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	if b.user != "" {
		req.SetBasicAuth(b.user, b.user+"-password")
	}
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	if b.name != "" {
		req.Host = b.name // cookies are this name's, too
	}
	header = append(b.header[:len(b.header):len(b.header)], header...)
	seen := map[string]bool{}
	for i := 0; i+1 < len(header); i += 2 {
		name, value := http.CanonicalHeaderKey(header[i]), header[i+1]
		switch {
		case name == "Host":
			req.Host = value
		case value == "":
			req.Header.Del(name)
		case seen[name]:
			req.Header.Add(name, value)
		default:
			req.Header.Set(name, value)
		}
		seen[name] = true
	}
	client := *b.client
	if seen["Cookie"] {
		client.Jar = nil
	}
	res, err := client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return answer{res, string(text)}
}

// open follows a link.
func (b *browser) open(target string, header ...string) answer {
	b.Helper()
	return b.send("GET", target, "", header...)
}

// page opens a page of the portal and reads it.
func (b *browser) page(path string) *element {
	b.Helper()
	a := b.open(b.base + path)
	if a.StatusCode != 200 {
		b.Fatalf("%s: %d %s", path, a.StatusCode, a.text)
	}
	root := readPage(b, a.text)
	auditPage(b, root)
	return root
}

// form finds the form of a button on a page: action is login or logout, of a
// session "account" or "account/user".
func (b *browser) form(page *element, action, session string) (url.Values, bool) {
	b.Helper()
	for _, form := range page.all("form") {
		fields := fieldsOf(form)
		name := oauth.Key{Account: fields["account"], User: fields["user"]}.String()
		if form.attr["action"] != b.base+"/"+action || name != session {
			continue
		}
		values := url.Values{}
		for name, value := range fields {
			values.Set(name, value)
		}
		return values, true
	}
	return nil, false
}

// post sends a form as a browser does from a page without a referrer.
func (b *browser) post(path string, fields url.Values, header ...string) answer {
	b.Helper()
	own := []string{"Content-Type", "application/x-www-form-urlencoded", "Origin", "null", "Sec-Fetch-Site", "same-origin"}
	return b.send("POST", b.base+path, fields.Encode(), override(own, header)...)
}

// override is header fields with others in their place.
func override(fields, by []string) []string {
	var all []string
	for i := 0; i < len(fields); i += 2 {
		replaced := false
		for j := 0; j < len(by); j += 2 {
			replaced = replaced || http.CanonicalHeaderKey(by[j]) == fields[i]
		}
		if !replaced {
			all = append(all, fields[i], fields[i+1])
		}
	}
	return append(all, by...)
}

// press presses the button of a session on the home page.
func (b *browser) press(action, session string) answer {
	b.Helper()
	fields, ok := b.form(b.page(""), action, session)
	if !ok {
		b.Fatalf("%s sees no button %s of %s", b.user, action, session)
	}
	return b.post("/"+action, fields)
}

// begin presses "Sign in" and returns the link of the page that follows.
func (b *browser) begin(session string) string {
	b.Helper()
	a := b.press("login", session)
	if a.StatusCode != 200 {
		b.Fatalf("signing in: %d %s %s", a.StatusCode, a.Header.Get("Location"), a.text)
	}
	root := readPage(b, a.text)
	auditPage(b, root)
	for _, link := range root.all("a") {
		if link.attr["class"] == "button first" {
			return link.attr["href"]
		}
	}
	b.Fatalf("no link to the authorization server: %s", a.text)
	return ""
}

// approve plays the person at the authorization server, and returns the URL
// that the browser comes back with.
func (b *browser) approve(link string) string {
	b.Helper()
	callback, err := b.sandbox.Approve(link, b.person)
	if err != nil {
		b.Fatal(err)
	}
	return callback
}

// finish opens a callback and the page behind it. It returns what that page
// tells: a message, or the code of a problem.
func (b *browser) finish(callback string, header ...string) string {
	b.Helper()
	a := b.open(callback, header...)
	location := b.redirected(a)
	for name, values := range mustParse(b, callback).Query() {
		for _, v := range values {
			if (name == "code" || name == "state") && v != "" && (strings.Contains(location, v) || strings.Contains(a.text, v)) {
				b.Errorf("the %s is in the answer to the callback", name)
			}
		}
	}
	page := b.open(location)
	if code := page.Header.Get(errorHeader); code != "" {
		return code
	}
	if page.StatusCode != 200 {
		b.Fatalf("%s: %d %s", location, page.StatusCode, page.text)
	}
	return mustParse(b, location).Query().Get("message")
}

// redirected checks a redirect of the portal: to a path of its own, not kept,
// without anything for others to read.
func (b *browser) redirected(a answer) (location string) {
	b.Helper()
	location = a.Header.Get("Location")
	if a.StatusCode != 303 || a.text != "" || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" {
		b.Fatalf("it is no redirect of the portal: %d %v %s", a.StatusCode, a.Header, a.text)
	}
	if !ownPath(b.base, location) {
		b.Fatalf("a redirect to %q", location)
	}
	return location
}

// ownPath reports whether a Location leads to the portal, whoever reads it.
func ownPath(base, location string) bool {
	rest, ok := strings.CutPrefix(location, base+"/")
	if !ok || !plainURL(location) {
		return false
	}
	return rest == "" || rest[0] != '/'
}

func mustParse(t testing.TB, link string) *url.URL {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// signIn goes the whole way.
func (b *browser) signIn(session string) {
	b.Helper()
	if came := b.finish(b.approve(b.begin(session))); came != "signed_in" {
		b.Fatalf("signing %s in: %s", session, came)
	}
}

// cookie is the value of the portal's cookie in this browser; empty: none.
func (b *browser) cookie() string {
	for _, c := range b.client.Jar.Cookies(mustParse(b, b.origin()+"/")) {
		if strings.HasSuffix(c.Name, "caddy-bearer") {
			return c.Value
		}
	}
	return ""
}

// changed is a callback with other parameters; an empty value takes one away.
func changed(t testing.TB, callback string, pairs ...string) string {
	t.Helper()
	u := mustParse(t, callback)
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		if q.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			q.Del(pairs[i])
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// parameter is one of a URL's query.
func parameter(t testing.TB, link, name string) string {
	t.Helper()
	return mustParse(t, link).Query().Get(name)
}

// whose tells whose token a request of a browser's user carried; empty if it
// was answered by us.
func (b *browser) whose() string {
	b.Helper()
	a := b.open("/echo", "Sec-Fetch-Mode", "")
	if a.StatusCode != 200 {
		return ""
	}
	return tokenUser(b, a.text)
}

package interop

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// A person has a browser: cookies, redirects and forms, no scripts.
type person struct {
	name, password string
	refuses        bool // clicks on Cancel where there is one
	browser        *http.Client
}

func newPerson(name, password string) *person {
	jar, _ := cookiejar.New(nil) // never fails
	return &person{name: name, password: password, browser: &http.Client{
		Jar:     jar,
		Timeout: patience,
		// Each redirect is looked at: the last one is not the server's.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// signIn signs in at the authorization server, says yes to everything, and
// returns where the browser is sent then, at the client's.
func signIn(t *testing.T, authorizeURL, user, password string) (callbackURL string) {
	t.Helper()
	callback, err := newPerson(user, password).visit(authorizeURL)
	if err != nil {
		t.Fatal(err)
	}
	return callback
}

// visit does what the pages at an authorization request ask for, until a
// redirect leads away from the server, and returns its target. It is an error
// if that never happens, or is not the request's redirect_uri.
func (p *person) visit(authorizeURL string) (callbackURL string, err error) {
	start, err := url.Parse(authorizeURL)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequest("GET", authorizeURL, nil)
	if err != nil {
		return "", err
	}
	for range 20 {
		res, err := p.browser.Do(req)
		if err != nil {
			return "", fmt.Errorf("visiting %s: %w", req.URL.Path, err)
		}
		page, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		res.Body.Close()
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", req.URL.Path, err)
		}
		if target, err := res.Location(); err == nil {
			if target.Host != start.Host {
				return arrive(target, start.Query().Get("redirect_uri"))
			}
			// 303 and, as all browsers do, 302 are followed with GET.
			if req, err = http.NewRequest("GET", target.String(), nil); err != nil {
				return "", err
			}
			continue
		}
		if req, err = p.next(res.Request.URL, res.StatusCode, page); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("signing in as %s: there is always one more page", p.name)
}

// arrive checks that a redirect leads to the redirect URI, plus a query or a
// fragment.
func arrive(target *url.URL, redirectURI string) (string, error) {
	base := target.String()
	if end := strings.IndexAny(base, "?#"); end >= 0 {
		base = base[:end]
	}
	if redirectURI != "" && base != redirectURI {
		return "", fmt.Errorf("following redirects: the last one leads to %s, not to %s", base, redirectURI)
	}
	return target.String(), nil
}

// next is the request that the person makes on a page: the form, filled in, or
// the link Cancel.
func (p *person) next(at *url.URL, status int, page []byte) (*http.Request, error) {
	root, err := html.Parse(strings.NewReader(string(page)))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", at.Path, err)
	}
	var forms, cancels []*html.Node
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "form" {
			forms = append(forms, n)
		}
		if n.Type == html.ElementNode && n.Data == "a" && strings.Contains(text(n), "Cancel") {
			cancels = append(cancels, n)
		}
	}
	if p.refuses && len(cancels) == 1 {
		target, err := at.Parse(attribute(cancels[0], "href"))
		if err != nil {
			return nil, err
		}
		return http.NewRequest("GET", target.String(), nil)
	}
	if len(forms) != 1 {
		return nil, fmt.Errorf("reading %s: status %d and %d forms: %s", at.Path, status, len(forms), strings.Join(strings.Fields(text(root)), " "))
	}
	if problem := find(root, "p"); problem != nil {
		return nil, fmt.Errorf("signing in: %s", text(problem))
	}
	return p.submit(at, forms[0])
}

// submit fills a form in: hidden fields stay, and the button goes along.
func (p *person) submit(at *url.URL, form *html.Node) (*http.Request, error) {
	target, err := at.Parse(attribute(form, "action"))
	if err != nil {
		return nil, err
	}
	fields, clicked := url.Values{}, false
	for n := range form.Descendants() {
		if n.Type != html.ElementNode || n.Data != "input" && n.Data != "button" {
			continue
		}
		value := attribute(n, "value")
		switch kind := attribute(n, "type"); {
		case n.Data == "button" || kind == "submit":
			if clicked {
				continue
			}
			clicked = true
		case kind == "password":
			value = p.password
		case kind == "" || kind == "text" || kind == "email":
			value = p.name
		case kind != "hidden":
			return nil, fmt.Errorf("filling in the form of %s: a field of type %s", at.Path, kind)
		}
		if name := attribute(n, "name"); name != "" {
			fields.Add(name, value)
		}
	}
	if !clicked || !strings.EqualFold(attribute(form, "method"), "post") {
		return nil, fmt.Errorf("filling in the form of %s: it has no button or isn't sent by POST", at.Path)
	}
	req, err := http.NewRequest("POST", target.String(), strings.NewReader(fields.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req, nil
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode && d.Parent.Data != "style" {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

func find(root *html.Node, tag string) *html.Node {
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == tag {
			return n
		}
	}
	return nil
}

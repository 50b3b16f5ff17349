package caddymodule

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// The pages of bearer_portal. Each is a struct with what the page tells, and a
// method write that answers with it. They hold no script and load nothing but
// the style sheet. Any string in them may be hostile.
//
// An error of write is for the log only: the visitor has been answered.

// maxListed is how many users of an account are listed.
const maxListed = 100

// portalPage is what every page tells.
type portalPage struct {
	// Base is the portal's path without a slash at its end; empty at the root.
	Base string
	// User is who is here, as the proxy says; empty: nobody.
	User string
	// Unprotected: the operator let the portal be open to whoever reaches it.
	Unprotected bool
}

// Home is the path of the accounts page.
func (p portalPage) Home() string {
	if p.Base == "" {
		return "/"
	}
	return p.Base
}

// accountsPage tells what there is, in what condition, and what to do.
type accountsPage struct {
	portalPage
	// CSRF goes into each form, as the field csrf.
	CSRF string
	// Message is a key of [portalMessages]; others are not shown, as it may
	// come from a query.
	Message string
	// Now is what times are compared with.
	Now time.Time
	// Sessions that the visitor may see and act for, without those in Users.
	Sessions []oauth.Status
	// Users are, for admins, the accounts with a session per user.
	Users []accountUsers
}

// accountUsers is what an admin sees of an account with a session per user.
type accountUsers struct {
	Account  string
	SignedIn int
	// Asked is the user that was looked up; Found is that user's session, nil
	// if there is none.
	Asked string
	Found *oauth.Status
	// List are the first users; no more than maxListed are shown.
	List []oauth.Status
}

// Listed is the part of List that is shown.
func (u accountUsers) Listed() []oauth.Status { return u.List[:min(len(u.List), maxListed)] }

// sessionCard is a session on the accounts page.
type sessionCard struct {
	sessionView
	Page accountsPage
	// ID is unique on the page; Level is that of the heading, 2 or 3.
	ID    string
	Level int
}

// Card is what the template of a session takes.
func (p accountsPage) Card(s oauth.Status, level int, id ...any) sessionCard {
	return sessionCard{sessionView{s}, p, fmt.Sprint(append([]any{"s"}, id...)...), level}
}

// Notice is the message in words; nil for none.
func (p accountsPage) Notice() *portalMessage {
	if m, ok := portalMessages[p.Message]; ok {
		return &m
	}
	return nil
}

// write answers with status 200.
func (p accountsPage) write(w http.ResponseWriter) error {
	return writePage(w, http.StatusOK, "accounts", p, p.portalPage)
}

// continuePage takes the visitor to the authorization server. It is a page
// because form-action stops a form's redirect to another host.
type continuePage struct {
	portalPage
	// URL is that of the authorization request.
	URL string
}

// Host is where the visitor is being taken.
func (p continuePage) Host() string { return linkHost(p.URL) }

// Labels are the parts of Host, between which a narrow page breaks the line.
func (p continuePage) Labels() []string { return strings.SplitAfter(p.Host(), ".") }

// write answers with status 200; with 500 and an error if the URL is not one
// that a browser may be sent to.
func (p continuePage) write(w http.ResponseWriter) error {
	if err := checkLink(p.URL); err != nil {
		_ = problemPage{portalPage: p.portalPage, Code: "internal"}.write(w)
		return fmt.Errorf("sending a browser to the authorization server: %w", err)
	}
	return writePage(w, http.StatusOK, "continue", p, p.portalPage)
}

// devicePage tells the code of a device grant (RFC 8628 §3.3) and waits.
type devicePage struct {
	portalPage
	Key oauth.Key
	// What the server answered. Both addresses are checked before they are
	// shown; Expires and VerificationURIComplete may be empty.
	UserCode, VerificationURI, VerificationURIComplete string
	Expires, Now                                       time.Time
	// Check is the path and query of this page, below Base. It loads itself
	// again every 5 s, unless it is asked for with the parameter "still" too
	// (WCAG 2.2.2): then set Still.
	Check string
	Still bool
	// Over ends the waiting: deviceExpired or deviceFailed; empty while it
	// lasts. Then Check and the code may be empty.
	Over string
	// Reason says why it failed; may be empty.
	Reason string
}

const (
	deviceExpired = "expired"
	deviceFailed  = "failed"
)

// StillURL is the page that doesn't load itself again.
func (p devicePage) StillURL() string {
	if strings.Contains(p.Check, "?") {
		return p.Check + "&still"
	}
	return p.Check + "?still"
}

// Link is where the visitor enters the code, Complete the same with the code in
// it. Empty if a browser may not be sent there.
func (p devicePage) Link() string     { return checkedLink(p.VerificationURI) }
func (p devicePage) Complete() string { return checkedLink(p.VerificationURIComplete) }

// write answers with status 200; with 500 and an error if Check isn't a path
// below Base.
func (p devicePage) write(w http.ResponseWriter) error {
	if p.Over == "" {
		if rest, ok := strings.CutPrefix(p.Check, p.Base+"/"); !ok || strings.ContainsAny(rest[:min(1, len(rest))], `/\`) || !plainURL(p.Check) {
			_ = problemPage{portalPage: p.portalPage, Code: "internal"}.write(w)
			return fmt.Errorf("showing a device code: %q is no page of the portal", p.Check)
		}
	}
	return writePage(w, http.StatusOK, "device", p, p.portalPage)
}

// problemPage tells why a request was refused. Its status is that of its code.
type problemPage struct {
	portalPage
	// Code is a key of [portalProblems]; others are answered as "internal".
	Code string
	// Account, Detail (a checked error code of the server, or what the log
	// would say) may be empty.
	Account, Detail string
}

// Problem is the code's text.
func (p problemPage) Problem() portalProblem { return portalProblems[p.Code] }

// write answers with the code's status.
func (p problemPage) write(w http.ResponseWriter) error {
	if _, ok := portalProblems[p.Code]; !ok {
		p.Code = "internal"
	}
	t := p.Problem()
	if t.Status >= http.StatusBadRequest {
		w.Header().Set(errorHeader, p.Code)
	}
	if t.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(t.RetryAfter.Seconds())))
	}
	return writePage(w, t.Status, "problem", p, p.portalPage)
}

//go:embed templates
var portalFiles embed.FS

var portalTemplates = map[string]*template.Template{
	"accounts": parsePage("accounts.html", "session.html"),
	"continue": parsePage("continue.html"),
	"device":   parsePage("device.html"),
	"problem":  parsePage("problem.html"),
}

func parsePage(files ...string) *template.Template {
	t := template.New("layout.html").Funcs(template.FuncMap{"visible": visible, "when": when})
	for _, f := range append([]string{"layout.html"}, files...) {
		t = template.Must(t.ParseFS(portalFiles, "templates/"+f))
	}
	return t
}

// portalHeaders go with every page. Nothing in a page may run, be loaded from
// elsewhere, be kept, or be shown in a frame.
var portalHeaders = map[string]string{
	"Content-Type":               "text/html; charset=utf-8",
	"Cache-Control":              "no-store",
	"Referrer-Policy":            "no-referrer",
	"Content-Security-Policy":    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	"X-Content-Type-Options":     "nosniff",
	"Cross-Origin-Opener-Policy": "same-origin",
	"X-Frame-Options":            "DENY",
	"Permissions-Policy":         "camera=(), geolocation=(), microphone=()",
}

// writePage renders a page whole before anything of it is sent, so that an
// error gives a 500 and not half a page.
func writePage(w http.ResponseWriter, status int, name string, page any, common portalPage) error {
	var b bytes.Buffer
	if err := portalTemplates[name].Execute(&b, page); err != nil {
		err = fmt.Errorf("rendering the page %s: %w", name, err)
		if name == "problem" { // not again
			http.Error(w, "The portal has a fault; the server's log says more.", http.StatusInternalServerError)
			return err
		}
		_ = problemPage{portalPage: common, Code: "internal"}.write(w)
		return err
	}
	for field, value := range portalHeaders {
		w.Header().Set(field, value)
	}
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
	return nil
}

var (
	portalStyle, _  = portalFiles.ReadFile("templates/style.css")
	portalStyleETag = func() string {
		sum := sha256.Sum256(portalStyle)
		return `"` + hex.EncodeToString(sum[:8]) + `"`
	}()
)

// serveStyle answers GET {base}/style.css. It may be kept, but is asked for
// each time: after an update no page meets the style sheet of another version.
func serveStyle(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/css; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", portalStyleETag)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	http.ServeContent(w, r, "style.css", time.Time{}, bytes.NewReader(portalStyle))
}

// checkLink refuses a URL that a browser must not be sent to: any that isn't
// https, or http to this machine by its very name (security by TLS as in RFC
// 6749 §3.1), and any that browsers might read otherwise than we do.
func checkLink(link string) error {
	if !plainURL(link) {
		return errors.New("the URL has characters that don't belong there")
	}
	u, err := url.Parse(link)
	switch {
	case err != nil:
		return errors.New("the URL can't be read")
	case u.Host == "" || u.Hostname() == "":
		return errors.New("the URL has no host")
	case u.User != nil: // https://known.example@elsewhere.example
		return errors.New("the URL has a user name in it")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return errors.New("the URL must be https, or http on loopback")
	}
	return nil
}

// plainURL reports whether a URL consists of characters of RFC 3986 §2 only.
// Backslashes, quotes, spaces and line breaks are what browsers mend.
func plainURL(link string) bool {
	for _, c := range []byte(link) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"'\\<>^`{|}", c) >= 0 {
			return false
		}
	}
	return true
}

// checkedLink is the URL, or empty if a browser may not be sent to it.
func checkedLink(link string) string {
	if checkLink(link) != nil {
		return ""
	}
	return link
}

func linkHost(link string) string {
	u, err := url.Parse(link)
	if err != nil {
		return ""
	}
	return u.Host
}

package caddymodule

// This file is how the portal's pages are written.

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
)

//go:embed templates
var portalFiles embed.FS

var portalTemplates = map[string]*template.Template{
	"accounts": parsePage("accounts.html", "users.html", "session.html"),
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

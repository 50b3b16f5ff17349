package caddymodule

import (
	"fmt"
	"net/http"
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

// portalPage is what every page tells.
type portalPage struct {
	// Base is the portal's path without a slash at its end; empty at the root.
	Base string
	// User is who is here, as the proxy says; empty: nobody.
	User string
	// Elsewhere is the portal's URL for who has come by another name.
	Elsewhere string
	// Unprotected: the operator let the portal be open to whoever reaches it.
	Unprotected bool
}

// Home is the path of the accounts page.
func (p portalPage) Home() string {
	if p.Elsewhere != "" {
		return p.Elsewhere
	}
	if p.Base == "" {
		return "/"
	}
	return p.Base
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

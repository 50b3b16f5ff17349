package browser

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// The person says no at the server, and afterwards comes with callbacks that
// nobody waits for.
func TestRefusal(t *testing.T) {
	onScreens(t, allScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "authorization_code")
		b := s.open(screen)
		b.visit(s.url("/bearer"))
		b.press(signIn)
		b.arrives(authorizePath, "Log in")
		b.press(deny)
		b.arrives("/bearer/result", "The server did not grant access")
		b.shows(http.StatusForbidden)
		b.says("Account: sandbox", "access_denied", "Code: login_denied")
		b.look("login-denied")
		b.do("reloading", chromedp.Reload())
		b.arrives("/bearer/result", "The server did not grant access")
		calls(t, s.url(callPath), nil, http.StatusServiceUnavailable, "login_required")

		// The same callback again: what came of it is over.
		denied := b.watch.asked(isCallback)[0].url.String()
		b.visit(denied)
		b.arrives("/bearer/result", "This sign-in is over")
		b.shows(http.StatusBadRequest)
		b.look("login-unknown")

		b.press(first)
		b.arrives("/bearer", "Accounts")
		b.press(signIn)
		b.arrives(authorizePath, "Log in")
		b.signsIn(user, password)
		b.arrives("/bearer/", "Accounts")
		b.says("You are signed in.")
		all := b.watch.asked(isCallback)
		granted, before := all[len(all)-1].url.String(), s.tokenRequests()
		for _, callback := range []string{
			granted, // double
			strings.Replace(granted, "state=", "state=x", 1), // unknown
			strings.Replace(granted, "code=", "code=x", 1),   // a code of somebody else's
		} {
			b.visit(callback)
			b.arrives("/bearer/result", "This sign-in is over")
			b.shows(http.StatusBadRequest)
		}
		if got := s.tokenRequests(); got != before {
			t.Errorf("old callbacks cost %d token requests", got-before)
		}
		b.visit(s.url("/bearer"))
		b.says("sandbox State: Ready")
		calls(t, s.url(callPath), nil, http.StatusOK, "")

		// No again: the session that there is goes on.
		b.do("forgetting the server's session", command(network.DeleteCookies, network.DeleteCookiesParams{Name: "sandbox_login", URL: "http://" + s.server}))
		b.press(signIn)
		b.arrives(authorizePath, "Log in")
		b.press(deny)
		b.arrives("/bearer/result", "The server did not grant access")
		calls(t, s.url(callPath), nil, http.StatusOK, "")
		s.keepsQuiet(secrets(b)...)
	})
}

// A callback that is brought by another browser than began the sign-in is
// refused there, and good where it began.
func TestElsewhere(t *testing.T) {
	onScreens(t, allScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "authorization_code")
		victim, attacker := s.open(screen), s.open(screen)
		attacker.visit(s.url("/bearer"))
		attacker.press(signIn)
		attacker.arrives(authorizePath, "Log in")
		attacker.hold(s.url("/bearer/callback*"))
		attacker.signsIn(user, password)
		h := attacker.holds()
		attacker.stop(h)

		victim.visit(h.url.String())
		victim.arrives("/bearer/result", "This sign-in was begun elsewhere")
		victim.shows(http.StatusForbidden)
		victim.look("login-foreign")
		// Also where there is a cookie, and another sign-in under way.
		victim.press(first)
		victim.arrives("/bearer", "Accounts")
		victim.press(signIn)
		victim.arrives(authorizePath, "Log in")
		victim.visit(h.url.String())
		victim.arrives("/bearer/result", "This sign-in was begun elsewhere")
		if n := s.tokenRequests(); n != 0 {
			t.Errorf("there are %d token requests", n)
		}
		calls(t, s.url(callPath), nil, http.StatusServiceUnavailable, "login_required")

		attacker.visit(h.url.String())
		attacker.arrives("/bearer/", "Accounts")
		attacker.says("You are signed in.")
		victim.visit(h.url.String())
		victim.arrives("/bearer/result", "This sign-in is over")
	})
}

// Everything else that the server can do to a sign-in.
func TestFaults(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "authorization_code")
		b := s.open(screen)
		for _, tt := range []struct {
			fault, heading, code string
			status               int64
		}{
			{"wrong-iss", "The answer came from an unexpected server", "issuer_mismatch", http.StatusBadRequest},
			{"code-and-error", "The answer could not be read", "callback_malformed", http.StatusBadRequest},
			{"5xx", "The sign-in could not be completed", "login_failed", http.StatusBadGateway},
			{"hostile-description", "The server did not grant access", "login_denied", http.StatusForbidden},
		} {
			s.play(tt.fault)
			b.visit(s.url("/bearer"))
			b.press(signIn)
			b.await("the server's page or its answer", `location.pathname === "`+authorizePath+`" || location.pathname === "/bearer/result"`)
			if strings.Contains(b.location(), authorizePath) {
				b.arrives(authorizePath, "Log in")
				b.signsIn(user, password)
			}
			b.arrives("/bearer/result", tt.heading)
			b.shows(tt.status)
			b.says("Code: " + tt.code)
			b.look(strings.ReplaceAll(tt.code, "_", "-") + "-" + tt.fault)
			calls(t, s.url(callPath), nil, http.StatusServiceUnavailable, "login_required")
		}
	})
}

// Pages of the portal that nobody should get to see.
func TestStrayPages(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "authorization_code")
		b := s.open(screen)
		for _, tt := range []struct {
			path, heading, code string
			status              int64
		}{
			{"/bearer/nowhere", "No such page", "not_found", http.StatusNotFound},
			{"/bearer/login", "Not in this way", "method_refused", http.StatusMethodNotAllowed},
			{"/bearer/callback", "The answer could not be read", "callback_malformed", http.StatusBadRequest},
			{"/bearer/device?login=x", "This sign-in is over", "login_unknown", http.StatusBadRequest},
		} {
			b.visit(s.url(tt.path))
			path, _, _ := strings.Cut(tt.path, "?")
			b.arrives(path, tt.heading)
			b.shows(tt.status)
			b.says("Code: " + tt.code)
			b.look(strings.ReplaceAll(tt.code, "_", "-"))
		}
		// The cookie is gone between the page and the button.
		b.visit(s.url("/bearer"))
		b.do("deleting cookies", command(network.DeleteCookies, network.DeleteCookiesParams{Name: "caddy-bearer", URL: s.url("/")}))
		b.press(signIn)
		b.arrives("/bearer/login", "The form was not accepted")
		b.shows(http.StatusForbidden)
		b.look("form-refused")
	})
}

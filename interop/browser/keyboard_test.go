package browser

import (
	"net/http"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// A person without a mouse signs in, refuses, and signs out.
func TestKeyboard(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "authorization_code")
		b := s.open(screen)
		b.visit(s.url("/bearer"))
		b.arrives("/bearer", "Accounts")
		b.tabsTo("caddy-bearer", "Stop updating", "Sign in: sandbox")
		b.shoot("focus-sign-in")
		b.enter()
		b.arrives(authorizePath, "Log in")
		b.typesIn()
		b.keys(kb.Tab) // from its button to the other
		b.enter()
		b.arrives("/bearer/result", "The server did not grant access")
		b.tabsTo("caddy-bearer", "Back to the portal")
		b.shoot("focus-back")
		b.enter()
		b.arrives("/bearer", "Accounts")
		b.tabsTo("caddy-bearer", "Stop updating", "Sign in: sandbox")
		b.leave()
		b.keys(" ")
		b.arrives(authorizePath, "Log in")
		b.typesIn()
		b.enter()
		b.arrives("/bearer/", "Accounts")
		b.says("You are signed in.")
		calls(t, s.url(callPath), nil, http.StatusOK, "")
		b.tabsTo("caddy-bearer", "Stop updating", "Sign in again: sandbox", "Sign out: sandbox")
		b.enter()
		b.arrives("/bearer/", "Accounts")
		b.says("You are signed out, and the server has been told.")
		calls(t, s.url(callPath), nil, http.StatusServiceUnavailable, "login_required")
	})
}

// typesIn fills in the server's form, which takes the focus, and goes to its
// first button.
func (b *tab) typesIn() {
	b.Helper()
	for _, field := range []struct{ name, text string }{{"username", user}, {"password", password}} {
		b.await("the focus on "+field.name, `document.activeElement.name === "`+field.name+`"`)
		b.keys(field.text + kb.Tab)
	}
}

// tabsTo presses the tabulator: the focus has to go through all these, and to be
// seen each time.
func (b *tab) tabsTo(names ...string) {
	b.Helper()
	for _, want := range names {
		b.keys(kb.Tab)
		b.await("the focus", `document.activeElement !== document.body && document.activeElement !== null`)
		focus := read[struct {
			Name, Style, Colour, Behind string
			Width                       float64
		}](b, `(e => {
			const style = getComputedStyle(e);
			return {
				name: e.textContent.trim().replace(/\s+/g, " "), style: style.outlineStyle, colour: style.outlineColor,
				behind: getComputedStyle(e.closest(".card, header") ?? document.body).backgroundColor, width: parseFloat(style.outlineWidth),
			};
		})(document.activeElement)`)
		if focus.Name != want {
			b.Errorf("the focus is on %q, want %q", focus.Name, want)
		}
		if focus.Style != "solid" || focus.Width < 2 || focus.Colour == focus.Behind {
			b.Errorf("the focus on %q can't be seen: %+v", focus.Name, focus)
		}
	}
}

// enter presses Enter, and a new page has to come of it.
func (b *tab) enter() {
	b.Helper()
	b.leave()
	b.keys(kb.Enter)
}

package browser

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// This file is what a person does in a browser.

// ask evaluates an expression in the page. Between two pages it may fail.
func ask[T any](b *tab, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.EvaluateAsDevTools[T](expression))
}

// read evaluates an expression or ends the test.
func read[T any](b *tab, expression string) T {
	b.Helper()
	v, err := ask[T](b, expression)
	if err != nil {
		b.Fatalf("evaluating %s: %v", expression, err)
	}
	return v
}

// await waits until an expression is true.
func (b *tab) await(what, expression string) {
	b.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(glance) {
		var done bool
		if done, err = ask[bool](b, expression); done {
			return
		}
		if b.ctx.Err() != nil {
			break
		}
	}
	b.shoot("failed")
	text, _ := ask[string](b, `document.body.innerText`)
	b.Fatalf("waiting for %s: %v\nat %s\n%s", what, err, b.location(), text)
}

// until waits for something outside of the page.
func (b *tab) until(what string, done func() bool) {
	b.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(glance) {
		if time.Now().After(end) {
			b.Fatalf("waiting for %s\nat %s\n%s", what, b.location(), b.text())
		}
	}
}

// arrives waits for a new page with this path and heading, whole.
func (b *tab) arrives(path, heading string) {
	b.Helper()
	b.await(fmt.Sprintf("the page %s %q", path, heading), fmt.Sprintf(
		`!document.left && document.readyState === "complete" && location.pathname === %q && document.querySelector("h1")?.innerText === %q`, path, heading))
}

// leave marks the page that is about to be left, lest arrives take it for the
// next one.
func (b *tab) leave() {
	b.Helper()
	read[bool](b, `document.left = true`)
}

func (b *tab) visit(address string) {
	b.Helper()
	b.do("visiting "+address, chromedp.Navigate(address))
}

// press presses the only thing that fits a selector: with a finger or a mouse.
func (b *tab) press(selector string) {
	b.Helper()
	if n := read[int](b, fmt.Sprintf(`document.querySelectorAll(%q).length`, selector)); n != 1 {
		b.Fatalf("there are %d of %s at %s\n%s", n, selector, b.location(), b.text())
	}
	b.leave()
	if b.screen.touch {
		b.do("tapping on "+selector, chromedp.Tap(chromedp.CSS(selector)))
		return
	}
	b.do("clicking on "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// keys types with the keyboard, wherever the focus is.
func (b *tab) keys(keys string) {
	b.Helper()
	b.do("typing", chromedp.KeyEvent(keys))
}

// fill types into an empty field.
func (b *tab) fill(field, text string) {
	b.Helper()
	b.do("filling "+field, chromedp.SendKeys(chromedp.CSS(`input:not([type=hidden])[name="`+field+`"]`), text))
}

// The buttons of a page, by their captions' form.
const (
	signIn  = `form[action$="/login"] button`
	signOut = `form[action$="/logout"] button`
	first   = `a.button.first`
	deny    = `button[name="deny"]` // at the server
)

// signsIn fills in the authorization server's form.
func (b *tab) signsIn(user, password string) {
	b.Helper()
	b.fill("username", user)
	b.fill("password", password)
	b.press(`button:not([name])`)
}

func (b *tab) text() string {
	b.Helper()
	return read[string](b, `document.body.innerText`)
}

// says fails the test unless the page has all these texts.
func (b *tab) says(texts ...string) {
	b.Helper()
	got := strings.Join(strings.Fields(b.text()), " ")
	for _, text := range texts {
		if !strings.Contains(got, text) {
			b.Errorf("%s doesn't say %q: %s", b.location(), text, got)
		}
	}
}

// location is the address bar.
func (b *tab) location() string {
	text, err := ask[string](b, `location.href`)
	if err != nil {
		return err.Error()
	}
	return text
}

// shows fails the test unless the page came with this status, and its address
// and the history hold neither a code nor a state for the portal.
func (b *tab) shows(status int64) {
	b.Helper()
	at := b.location()
	if got := b.watch.status(at); got != status {
		b.Errorf("%s came with status %d, want %d", at, got, status)
	}
	for _, entry := range b.history().Entries {
		u, err := url.Parse(entry.URL)
		if err != nil || u.Host == b.watch.servers[0] && (u.Query().Has("code") || u.Query().Has("state")) || u.Query().Has("code") {
			b.Errorf("the history holds %s", entry.URL)
		}
	}
}

func (b *tab) history() page.GetNavigationHistoryResult {
	b.Helper()
	h, err := b.entries()
	if err != nil {
		b.Fatalf("reading the history: %v", err)
	}
	return h
}

// entries is the history; between two pages it may fail.
func (b *tab) entries() (page.GetNavigationHistoryResult, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.NavigationEntries())
}

// back goes back by one page. What comes then may be no page of any server, but
// the browser's word that it would have to send a form again; or a page as it was
// left, which the browser has kept in memory.
func (b *tab) back() {
	b.Helper()
	h := b.history()
	b.do("going back", command(page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: h.Entries[h.CurrentIndex-1].ID}))
	b.until("the page before", func() bool {
		now, err := b.entries()
		return err == nil && now.CurrentIndex == h.CurrentIndex-1
	})
	b.await("the whole page", `document.readyState === "complete"`)
	read[bool](b, `document.left = false; true`)
}

package browser

import (
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
)

// The page of the accounts updates by itself and stays where it is; it stops
// when it is told to.
func TestUpdates(t *testing.T) {
	onScreens(t, someScreens, func(t *testing.T, screen screen) {
		s := newSandbox(t, "authorization_code")
		b := s.open(screen)
		b.visit(s.url("/bearer?q=sand"))
		b.arrives("/bearer", "Accounts")
		b.resize(320) // so that there is something to scroll
		read[bool](b, `scrollTo(0, 120); true`)
		at := read[float64](b, `scrollY`)
		if at == 0 {
			t.Fatal("the page can't be scrolled")
		}
		b.leave()
		b.arrives("/bearer", "Accounts") // within the patience
		if got := read[string](b, `location.search`); got != "?q=sand" {
			t.Errorf("the page went to %s", got)
		}
		b.await("the place where it was", `scrollY === 120`)
		b.keys(kb.Tab)
		b.keys(kb.Tab)
		b.enter()
		b.arrives("/bearer", "Accounts")
		b.says("This page doesn't update by itself.")
		b.look("still")
		b.leave()
		time.Sleep(17 * time.Second)
		if !read[bool](b, `document.left === true`) {
			t.Error("the page updates although it was told not to")
		}
	})
}

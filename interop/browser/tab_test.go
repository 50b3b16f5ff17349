package browser

import (
	"context"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// A screen is what a person looks at.
type screen struct {
	name          string
	width, height int64
	touch         bool
	scheme        string // light or dark
}

var (
	phone   = screen{"phone", 390, 844, true, "light"}
	desktop = screen{"desktop", 1280, 800, false, "light"}
)

// in is the screen with another colour scheme.
func (s screen) in(scheme string) screen {
	s.scheme = scheme
	return s
}

var (
	allScreens = []screen{phone, desktop, phone.in("dark"), desktop.in("dark")}
	// someScreens are for pages that differ from others by their words only.
	someScreens = []screen{phone.in("dark"), desktop}
)

// onScreens runs a test once for each screen. For pictures it takes all of them.
func onScreens(t *testing.T, screens []screen, test func(*testing.T, screen)) {
	t.Parallel()
	if *shots != "" {
		screens = allScreens
	}
	for _, s := range screens {
		t.Run(s.name+"-"+s.scheme, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// A tab is a person's browser: one tab in a profile of its own. What goes wrong
// in it fails the test at the end: see watch.
type tab struct {
	*testing.T
	ctx    context.Context
	screen screen
	watch  *watch
	held   chan held
}

// open starts with an empty profile. Only these servers may be asked for
// anything; the first one has the portal.
func open(t *testing.T, s screen, servers ...string) *tab {
	t.Helper()
	b := openUnwatched(t, s, servers...)
	t.Cleanup(func() {
		b.close()
		for _, complaint := range b.watch.complaints() {
			t.Errorf("the browser (%s, %s): %s", s.name, s.scheme, complaint)
		}
	})
	return b
}

func openUnwatched(t *testing.T, s screen, servers ...string) *tab {
	t.Helper()
	chromium, err := startChromium()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	b := &tab{T: t, ctx: ctx, screen: s, watch: &watch{servers: servers, statuses: map[string]int64{}, icons: map[string]bool{}}, held: make(chan held, 16)}
	t.Cleanup(cancel)
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatalf("opening a tab: %v", err)
	}
	b.do("enabling audits", command(audits.Enable, cdp.Empty{}))
	b.resize(s.width)
	b.do("choosing colours", command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: s.scheme}},
	}))
	return b
}

func (b *tab) close() {
	if err := chromedp.Cancel(b.ctx); err != nil {
		b.Logf("closing a tab: %v", err)
	}
}

// command is an action that sends one command and needs no answer.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// do acts, or ends the test.
func (b *tab) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}

// resize changes the width of the page.
func (b *tab) resize(width int64) {
	b.Helper()
	var options []chromedp.EmulateViewportOption
	if b.screen.touch {
		options = append(options, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulateScale(2))
	}
	b.do("setting the size", chromedp.EmulateViewport(width, b.screen.height, options...))
}

// A held is a navigation that waits for our word.
type held struct {
	id  fetch.RequestID
	url *url.URL
}

// hold makes navigations to addresses that fit a pattern wait; see holds.
func (b *tab) hold(pattern string) {
	b.Helper()
	b.do("holding "+pattern, command(fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: pattern}}}))
}

// holds waits until a navigation is held.
func (b *tab) holds() held {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	select {
	case h := <-b.held:
		return h
	case <-ctx.Done():
		b.Fatalf("no navigation is held; the browser is at %s", b.location())
		return held{}
	}
}

// stop drops a navigation, and holds no other: the server never hears of it, and
// the page stays.
func (b *tab) stop(h held) {
	b.Helper()
	b.drop(h)
	b.do("holding nothing", command(fetch.Disable, cdp.Empty{}))
}

// drop drops a navigation.
func (b *tab) drop(h held) {
	b.Helper()
	b.do("dropping a navigation", command(fetch.FailRequest,
		fetch.FailRequestParams{RequestID: h.id, ErrorReason: network.ErrorReasonAborted}))
}

// A request is one that the browser made.
type request struct {
	url      *url.URL
	document bool // a page, nothing that a page loads
}

// A watch notes what a tab asks for and what its browser complains of.
type watch struct {
	mu       sync.Mutex
	servers  []string
	requests []request
	statuses map[string]int64 // of pages, by URL
	icons    map[string]bool  // URLs of icons of pages that aren't the portal's
	failures []string
	entries  []*log.Entry
}

// asked lists the requests that fit.
func (w *watch) asked(fits func(request) bool) []request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.requests), func(r request) bool { return !fits(r) })
}

// status is that of the page last loaded from an address; 0: none was.
func (w *watch) status(address string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.statuses[address]
}

package caddymodule

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// A scene has ada, who is signed in, and alan, who isn't.
type scene struct {
	*portalRig
	ada, alan *browser
}

func newScene(t *testing.T, c sandbox.Config, set ...func(*portalRig)) *scene {
	t.Helper()
	r := newPortalRig(t, c)
	for _, f := range set {
		f(r)
	}
	r.start()
	s := &scene{r, r.browser("ada"), r.browser("alan")}
	s.ada.signIn("erp/ada")
	s.alan.page("") // has a cookie of its own
	return s
}

// unharmed checks in the end that ada's token is still hers.
func (s *scene) unharmed() {
	s.Helper()
	if got := s.ada.whose(); got != "ada@sandbox" {
		s.Errorf("ada's requests carry the token of %q", got)
	}
	if got := s.alan.whose(); got != "" {
		s.Errorf("alan's requests carry the token of %q", got)
	}
}

// F53: redirects, `iss` and `state` attacks at the callback. Expected: B.6 to
// B.12. Best: the same. Callbacks that are not what the login waits for: none
// makes a token request (RFC 6749 §10.12, §4.1.2; RFC 9207 §2.4). Where the
// state is the login's, it is used up.
func TestF53AttacksAtTheCallback(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	attacks := 0
	for name, c := range map[string]struct {
		change func(callback string) string
		want   string
		spent  bool // the right callback comes too late
	}{
		"wrong state":      {func(u string) string { return changed(t, u, "state", strings.Repeat("A", 43)) }, "login_unknown", false},
		"short state":      {func(u string) string { return changed(t, u, "state", parameter(t, u, "state")[:42]) }, "login_unknown", false},
		"longer state":     {func(u string) string { return changed(t, u, "state", parameter(t, u, "state")+"A") }, "login_unknown", false},
		"state in capital": {func(u string) string { return changed(t, u, "state", strings.ToUpper(parameter(t, u, "state"))) }, "login_unknown", false},
		"empty state":      {func(u string) string { return changed(t, u, "state", "") + "&state=" }, "callback_malformed", false},
		"code and error":   {func(u string) string { return u + "&error=access_denied" }, "callback_malformed", false},
		"code twice":       {func(u string) string { return u + "&code=x" }, "callback_malformed", false},
		"same code twice":  {func(u string) string { return u + "&code=" + parameter(t, u, "code") }, "callback_malformed", false},
		"state twice":      {func(u string) string { return u + "&state=x" }, "callback_malformed", false},
		"iss twice":        {func(u string) string { return u + "&iss=" + url.QueryEscape(parameter(t, u, "iss")) }, "callback_malformed", false},
		"encoded name":     {func(u string) string { return u + "&c%6Fde=x" }, "callback_malformed", false},
		"empty code":       {func(u string) string { return changed(t, u, "code", "") + "&code=" }, "callback_malformed", false},
		"bad escape":       {func(u string) string { return u + "&x=%zz" }, "callback_malformed", false},
		"code of controls": {func(u string) string { return changed(t, u, "code", "a\r\nX-Evil: 1\x00") }, "callback_malformed", false},
		"too long":         {func(u string) string { return u + "&x=" + strings.Repeat("x", 16<<10) }, "callback_malformed", false},
		"wrong iss":        {func(u string) string { return changed(t, u, "iss", "https://evil.example") }, "issuer_mismatch", true},
		"iss with a slash": {func(u string) string { return changed(t, u, "iss", parameter(t, u, "iss")+"/") }, "issuer_mismatch", true},
		"iss in capitals":  {func(u string) string { return changed(t, u, "iss", strings.ToUpper(parameter(t, u, "iss"))) }, "issuer_mismatch", true},
		"no iss":           {func(u string) string { return changed(t, u, "iss", "") }, "issuer_mismatch", true},
		"empty iss":        {func(u string) string { return changed(t, u, "iss", "") + "&iss=" }, "issuer_mismatch", true},
		"error, wrong iss": {func(u string) string {
			return changed(t, u, "code", "", "error", "access_denied", "iss", "https://evil.example")
		}, "issuer_mismatch", true},
		"denied":                   {func(u string) string { return changed(t, u, "code", "", "error", "access_denied") }, "login_denied", true},
		"an error nobody knows":    {func(u string) string { return changed(t, u, "code", "", "error", "\"><b>\x1b[31m") }, "login_denied", true},
		"error, state of nobody's": {func(u string) string { return changed(t, u, "code", "", "error", "x", "state", "y") }, "login_unknown", false},
	} {
		callback := s.ada.approve(s.ada.begin("erp/ada"))
		s.harmless(name, func() {
			attacks++
			if came := s.ada.finish(c.change(callback)); came != c.want {
				t.Errorf("%s: %s, want %s", name, came, c.want)
			}
			if !c.spent {
				return
			}
			if came := s.ada.finish(callback); came != "login_unknown" {
				t.Errorf("%s, then the right callback: %s", name, came)
			}
		})
		if c.spent {
			continue
		}
		if came := s.ada.finish(callback); came != "signed_in" {
			t.Errorf("%s, then the right callback: %s", name, came)
		}
	}

	// Used again (B.6), brought by another browser (B.6), a code whose answer is
	// lost (B.12).
	callback := s.ada.approve(s.ada.begin("erp/ada"))
	s.harmless("another browser", func() {
		attacks++
		if came := s.alan.finish(callback); came != "login_foreign" {
			t.Errorf("another browser: %s", came)
		}
	})
	before := s.sandbox.TokenRequests("")
	s.sandbox.Play(sandbox.LostReply, 1)
	if came := s.ada.finish(callback); came != "login_failed" || s.sandbox.TokenRequests("") != before+1 {
		t.Errorf("a code whose answer is lost: %s, %d token requests", came, s.sandbox.TokenRequests("")-before)
	}
	s.harmless("again", func() {
		attacks++
		if came := s.ada.finish(callback); came != "login_unknown" {
			t.Errorf("again: %s", came)
		}
	})
	s.unharmed()
	measured(t, 53, 0, "%d attacks: 0 token requests, 0 sessions changed, no redirect to anywhere but the portal; the right callback then works where its state was not used up", attacks)
}

// What has no state, or is no GET, isn't read as a callback at all.
func TestPortalCallbackMalformed(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	callback := s.ada.approve(s.ada.begin("erp/ada"))
	query := mustParse(t, callback).RawQuery
	s.harmless("no callback", func() {
		for name, a := range map[string]answer{
			"no state":     s.ada.open(changed(t, callback, "state", "")),
			"no code":      s.ada.open(changed(t, callback, "code", "")),
			"nothing":      s.ada.open("/bearer/callback"),
			"POST":         s.ada.send("POST", callback, ""),
			"form_post":    s.ada.send("POST", "/bearer/callback", query, "Content-Type", "application/x-www-form-urlencoded", "Origin", "https://idp.example", "Sec-Fetch-Site", "cross-site"),
			"PUT":          s.ada.send("PUT", callback, ""),
			"in a cookie":  s.ada.open("/bearer/callback", "Cookie", "code=x; state=y"),
			"in fragments": s.ada.open("/bearer/callback#" + query),
		} {
			if a.StatusCode != 400 || a.Header.Get(errorHeader) != "callback_malformed" {
				t.Errorf("%s: %d %v", name, a.StatusCode, a.Header)
			}
			checkHeaders(t, name, a)
			if code := parameter(t, callback, "code"); strings.Contains(a.text, code) {
				t.Errorf("%s: the code is on the page", name)
			}
		}
		// HEAD asks for what GET would get, and must not spend anything.
		if a := s.ada.send("HEAD", callback, ""); a.StatusCode != 400 {
			t.Errorf("HEAD: %d", a.StatusCode)
		}
	})
	if came := s.ada.finish(callback); came != "signed_in" {
		t.Errorf("the callback itself: %s", came)
	}
}

// A callback works once; what the first one brought stays.
func TestPortalCallbackOnce(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	callback := s.ada.approve(s.ada.begin("erp/ada"))
	if came := s.ada.finish(callback); came != "signed_in" {
		t.Fatal(came)
	}
	s.harmless("again", func() {
		for range 3 {
			if came := s.ada.finish(callback); came != "login_unknown" {
				t.Errorf("again: %s", came)
			}
		}
		if came := s.alan.finish(callback); came != "login_unknown" {
			t.Errorf("in another browser: %s", came)
		}
	})
	s.unharmed()
}

// Many of the same callback at a time: one token request.
func TestPortalCallbackAtOnce(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	callback := s.ada.approve(s.ada.begin("erp/ada"))
	before := s.sandbox.TokenRequests("")
	came := make(chan string)
	const n = 16
	for range n {
		go func() {
			a := s.ada.open(callback)
			came <- a.Header.Get("Location")
		}()
	}
	done := 0
	for range n {
		if strings.HasSuffix(<-came, "message=signed_in") {
			done++
		}
	}
	if got := s.sandbox.TokenRequests("") - before; got != 1 || done != 1 {
		t.Errorf("%d token requests, %d of %d signed in", got, done, n)
	}
	s.unharmed()
}

// The code of a login whose answer was lost isn't sent again (RFC 6749
// §4.1.2), and what was there stays.
func TestPortalCodeLost(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	for _, fault := range []sandbox.Fault{sandbox.LostReply, sandbox.ServerError, sandbox.HTML, sandbox.Truncated, sandbox.BadAccessToken, sandbox.Redirect} {
		callback := s.ada.approve(s.ada.begin("erp/ada"))
		s.sandbox.Play(fault, 1)
		before := s.sandbox.TokenRequests("")
		came := s.ada.finish(callback)
		if n := s.sandbox.TokenRequests("") - before; n != 1 || came != "login_failed" {
			t.Errorf("%s: %s after %d token requests", fault, came, n)
		}
		s.harmless(string(fault)+", the callback again", func() {
			if came := s.ada.finish(callback); came != "login_unknown" {
				t.Errorf("%s, again: %s", fault, came)
			}
		})
		s.unharmed()
	}
}

// Login CSRF and session swapping: a callback is worth nothing in another
// browser, or with another user of the proxy, and stays good for the right one.
func TestPortalCallbackForeign(t *testing.T) {
	s := newScene(t, sandbox.Config{})
	s.alan.signIn("erp/alan")
	stranger, twin := s.browser("ada"), s.browser("alan")
	twin.client.Jar.SetCookies(mustParse(t, s.origin()), []*http.Cookie{{Name: "caddy-bearer", Value: s.ada.cookie(), Path: "/"}})
	stranger.page("")
	noCookie := s.browser("ada")
	mallory := s.alan.approve(s.alan.begin("erp/alan")) // in whose name the victim would work
	own := s.ada.approve(s.ada.begin("erp/ada"))
	s.harmless("foreign callbacks", func() {
		for _, c := range []struct {
			name     string
			browser  *browser
			callback string
		}{
			{"the attacker's in the victim's browser", s.ada, mallory},
			{"the victim's in the attacker's browser", s.alan, own},
			{"the victim's in another browser of the victim's", stranger, own},
			{"the victim's in a browser without cookies", noCookie, own},
			{"the victim's with the victim's cookie, by another user", twin, own},
		} {
			if came := c.browser.finish(c.callback); came != "login_foreign" {
				t.Errorf("%s: %s", c.name, came)
			}
		}
		for name, value := range map[string]string{
			"empty": "", "half": s.ada.cookie()[:26], "another": strings.Repeat("A", 52), "longer": s.ada.cookie() + "A",
		} {
			if came := noCookie.finish(own, "Cookie", "caddy-bearer="+value); came != "login_foreign" {
				t.Errorf("the cookie %s: %s", name, came)
			}
		}
	})
	if a, b := s.ada.finish(own), s.alan.finish(mallory); a != "signed_in" || b != "signed_in" {
		t.Errorf("the right ones afterwards: %s, %s", a, b)
	}
	if a, b := s.ada.whose(), s.alan.whose(); a != "ada@sandbox" || b != "alan@sandbox" {
		t.Errorf("the tokens of %q and %q", a, b)
	}
}

// A stolen code in a callback of one's own (RFC 9700 §4.5): the server sees
// that the verifier is another's. The victim's session stays.
func TestPortalCodeInjection(t *testing.T) {
	s := newScene(t, sandbox.Config{RequirePKCE: true})
	stolen := s.ada.approve(s.ada.begin("erp/ada"))
	own := s.alan.approve(s.alan.begin("erp/alan"))
	if came := s.alan.finish(changed(t, own, "code", parameter(t, stolen, "code"))); came != "login_failed" {
		t.Errorf("ada's code in alan's callback: %s", came)
	}
	if st := s.status("erp/alan"); st.State != oauth.StateLoginRequired {
		t.Errorf("alan is %s", st.State)
	}
	s.unharmed()
}

// Callbacks by the thousand with states of nobody's: no request goes out, and
// nothing is kept.
func TestPortalCallbackFlood(t *testing.T) {
	s := newScene(t, sandbox.Config{}, func(r *portalRig) { r.global = "log {\n\t\toutput discard\n\t}" })
	callback := s.ada.approve(s.ada.begin("erp/ada"))
	s.harmless("the flood", func() {
		flood(s, 1000)
		before, begun := liveHeap(), time.Now()
		flood(s, 4000)
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("it took %s", took)
		}
		if after := liveHeap(); after > before+1<<20 {
			t.Errorf("4,000 callbacks left %d KiB behind", (after-before)>>10)
		}
	})
	if came := s.ada.finish(callback); came != "signed_in" {
		t.Errorf("a login that was under way: %s", came)
	}
	s.unharmed()
}

// flood sends callbacks, from four browsers.
func flood(s *scene, n int) {
	var wg sync.WaitGroup
	for range 4 {
		b := s.browser("ada")
		wg.Go(func() {
			defer b.client.CloseIdleConnections()
			for range n / 4 {
				a := b.open("/bearer/callback?code=" + rand.Text() + "&state=" + rand.Text() + rand.Text()[:17])
				if a.StatusCode != 303 || a.Header.Get("Location") != "/bearer/result?problem=login_unknown" {
					s.Errorf("%d %v", a.StatusCode, a.Header)
					return
				}
			}
		})
	}
	wg.Wait()
}

// liveHeap is what is in use, after what is left of connections has gone.
func liveHeap() uint64 {
	var m runtime.MemStats
	for range 3 {
		time.Sleep(50 * time.Millisecond)
		runtime.GC()
		runtime.ReadMemStats(&m)
	}
	return m.HeapAlloc
}

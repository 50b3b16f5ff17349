package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/chromedp"
)

// hostile is a page that does all that a page can do to make its visitor's
// browser call TARGET. Each way asks for a path of its own, under /attack/, and
// goes on whatever became of the others.
const hostile = `<!doctype html><meta charset="utf-8"><title>hostile</title><link rel="icon" href="data:,">
<body><script>
"use strict";
const target = "TARGET", at = way => target + "/attack/" + way;
const ways = {
	"fetch": () => fetch(at("fetch")),
	"fetch-cors-credentials": () => fetch(at("fetch-cors-credentials"), {credentials: "include"}),
	"fetch-no-cors": () => fetch(at("fetch-no-cors"), {mode: "no-cors"}),
	"fetch-no-cors-credentials": () => fetch(at("fetch-no-cors-credentials"), {mode: "no-cors", credentials: "include"}),
	"fetch-no-referrer": () => fetch(at("fetch-no-referrer"), {mode: "no-cors", referrerPolicy: "no-referrer"}),
	"fetch-post-text": () => fetch(at("fetch-post-text"), {method: "POST", mode: "no-cors", body: "x", headers: {"Content-Type": "text/plain"}}),
	"fetch-post-form": () => fetch(at("fetch-post-form"), {method: "POST", mode: "no-cors", body: new URLSearchParams({a: "b"})}),
	"fetch-preflight": () => fetch(at("fetch-preflight"), {method: "PUT", body: "{}", headers: {"Content-Type": "application/json", "X-Custom": "x"}}),
	"fetch-delete": () => fetch(at("fetch-delete"), {method: "DELETE"}),
	"fetch-keepalive": () => fetch(at("fetch-keepalive"), {method: "POST", mode: "no-cors", keepalive: true, body: "x"}),
	"fetch-redirected": () => fetch(location.origin + "/redirect?to=" + encodeURIComponent(at("fetch-redirected")), {mode: "no-cors"}),
	"xhr": () => { const x = new XMLHttpRequest(); x.open("POST", at("xhr")); x.withCredentials = true; x.send("x"); },
	"image": () => { new Image().src = at("image"); },
	"image-no-referrer": () => { const i = new Image(); i.referrerPolicy = "no-referrer"; i.src = at("image-no-referrer"); },
	"image-anonymous": () => { const i = new Image(); i.crossOrigin = "anonymous"; i.src = at("image-anonymous"); },
	"script": () => add("script", {src: at("script")}),
	"module": () => add("script", {type: "module", src: at("module")}),
	"style": () => add("link", {rel: "stylesheet", href: at("style")}),
	"background": () => add("div", {style: "background: url(" + at("background") + ")", textContent: "x"}),
	"font": () => { const f = new FontFace("x", "url(" + at("font") + ")"); return f.load(); },
	"video": () => add("video", {src: at("video"), preload: "auto"}),
	"object": () => add("object", {data: at("object"), type: "text/html"}),
	"embed": () => add("embed", {src: at("embed"), type: "text/html"}),
	"iframe": () => add("iframe", {src: at("iframe")}),
	"iframe-sandboxed": () => add("iframe", {sandbox: "allow-scripts", srcdoc: "<script>fetch('" + at("iframe-sandboxed") + "', {mode: 'no-cors'})<" + "/script>"}),
	"form-get": () => form("form-get", "get", "application/x-www-form-urlencoded"),
	"form-post": () => form("form-post", "post", "application/x-www-form-urlencoded"),
	"form-post-text": () => form("form-post-text", "post", "text/plain"),
	"form-post-multipart": () => form("form-post-multipart", "post", "multipart/form-data"),
	"websocket": () => { new WebSocket(at("websocket").replace("http", "ws")); },
	"eventsource": () => { new EventSource(at("eventsource")); },
	"eventsource-credentials": () => { new EventSource(at("eventsource-credentials"), {withCredentials: true}); },
	"beacon": () => { if (!navigator.sendBeacon(at("beacon"), "x")) throw "no beacon"; },
	"beacon-form": () => { if (!navigator.sendBeacon(at("beacon-form"), new FormData())) throw "no beacon"; },
	"ping": () => { const a = add("a", {href: "#x", ping: at("ping"), textContent: "x"}); a.click(); },
	"worker": () => { const w = new Worker(URL.createObjectURL(new Blob(["fetch('" + at("worker") + "', {mode: 'no-cors'})"]))); window.w = w; },
	"worker-import": () => { const w = new Worker(URL.createObjectURL(new Blob(["try { importScripts('" + at("worker-import") + "') } catch (e) {}"]))); window.v = w; },
	"prefetch": () => add("link", {rel: "prefetch", href: at("prefetch")}),
	"preload": () => add("link", {rel: "preload", as: "fetch", href: at("preload")}),
	"refresh": () => add("iframe", {srcdoc: "<meta http-equiv=refresh content='0;url=" + at("refresh") + "'>"}),
	"frame-location": () => { const f = add("iframe", {src: "about:blank"}); f.contentWindow.location = at("frame-location"); },
	"dav": () => fetch(at("dav"), {method: "PROPFIND"}),
};
function add(tag, properties) {
	const e = document.createElement(tag);
	for (const [name, value] of Object.entries(properties)) name in e && name !== "style" ? e[name] = value : e.setAttribute(name, value);
	document.body.append(e);
	return e;
}
function form(way, method, enctype) {
	const frame = add("iframe", {name: way}), f = add("form", {action: at(way), method, target: way});
	f.enctype = enctype;
	const i = document.createElement("input");
	i.name = "a"; i.value = "b";
	f.append(i);
	f.submit();
}
window.read = [];
for (const [way, go] of Object.entries(ways)) {
	Promise.resolve().then(go).then(async r => { if (r && r.text && r.type !== "opaque") { await r.text(); window.read.push(way); } }).catch(() => {});
}
window.ways = Object.keys(ways);
</script>`

// leaving is a page that leads its visitor to TARGET, in the way WAY: the browser
// shows what it finds there.
const leaving = `<!doctype html><meta charset="utf-8"><title>leaving</title><link rel="icon" href="data:,">
<body><script>
"use strict";
const to = "TARGET/attack/WAY", ways = {
	"location": () => { location.href = to; },
	"replace": () => { location.replace(to); },
	"link": () => link({}),
	"link-no-referrer": () => link({rel: "noreferrer"}),
	"form-get-top": () => form("get"),
	"form-post-top": () => form("post"),
	"refresh-top": () => { const m = document.createElement("meta"); m.httpEquiv = "refresh"; m.content = "0;url=" + to; document.head.append(m); },
	"open": () => { open(to, "_self"); },
	"redirect": () => { location.href = location.origin + "/redirect?to=" + encodeURIComponent(to); },
};
function link(properties) {
	const a = Object.assign(document.createElement("a"), {href: to, textContent: "x"}, properties);
	document.body.append(a);
	a.click();
}
function form(method) {
	const f = Object.assign(document.createElement("form"), {action: to, method});
	document.body.append(f);
	f.submit();
}
setTimeout(ways["WAY"], 50);
</script>`

var leavingWays = []string{"location", "replace", "link", "link-no-referrer", "form-get-top", "form-post-top", "refresh-top", "open", "redirect"}

// attackChromium is a browser of its own, in which some names lead here.
var attackChromium = sync.OnceValues(func() (context.Context, error) {
	path, err := findChromium()
	if err != nil {
		return nil, err
	}
	if err := makeScratch(); err != nil {
		return nil, err
	}
	home := filepath.Join(scratch, "attack-home")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.Flag("headless", "new"),
		chromedp.UserDataDir(filepath.Join(scratch, "attack-profile")),
		chromedp.Env("HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP evil.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
		chromedp.Flag("disable-component-update", true),
		// The newest browsers ask people before a page of the Internet may call
		// their own machine. Others don't, and people say yes.
		chromedp.Flag("disable-features", "LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets,BlockInsecurePrivateNetworkRequests,PrivateNetworkAccessChecks"),
		chromedp.NoSandbox,
	)
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	before := endChromium
	endChromium = func() {
		gently, expire := context.WithTimeout(ctx, patience)
		defer expire()
		_ = chromedp.Cancel(gently)
		cancel()
		end()
		if before != nil {
			before()
		}
	}
	if err := chromedp.Do(ctx); err != nil {
		return nil, fmt.Errorf("starting Chromium: %w", err)
	}
	return ctx, nil
})

// A seen is the ways that have brought a request somewhere.
type seen struct {
	mu   sync.Mutex
	ways map[string]string // by way: method and what the browser says of it
}

func (s *seen) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, way, _ := strings.Cut(r.URL.Path, "/attack/")
	s.mu.Lock()
	s.ways[way] += fmt.Sprintf("%s %s %s %s; ", r.Method, r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Fetch-Mode"))
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
}

func (s *seen) missing(ways []string) (missing []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, way := range ways {
		if s.ways[way] == "" {
			missing = append(missing, way)
		}
	}
	slices.Sort(missing)
	return missing
}

// attackTab opens a tab in which all pages of this address are the attacker's,
// whatever server the address is of: no server is asked for them.
func attackTab(t *testing.T, page, content string) *tab {
	t.Helper()
	chromium, err := attackChromium()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	b := &tab{T: t, ctx: ctx, screen: desktop, watch: &watch{statuses: map[string]int64{}, icons: map[string]bool{}}}
	err = chromedp.Listen(ctx, func(event any) {
		if e, ok := event.(*fetch.EventRequestPaused); ok {
			go func() { _ = chromedp.Do(ctx, command(fetch.FulfillRequest, attackersAnswer(e, content))) }()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.do("answering for the attacker", command(fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{
		{URLPattern: page + "/attacker"}, {URLPattern: page + "/redirect*"},
	}}))
	return b
}

func attackersAnswer(e *fetch.EventRequestPaused, content string) fetch.FulfillRequestParams {
	if u, err := url.Parse(e.Request.URL); err == nil && u.Path == "/redirect" {
		return fetch.FulfillRequestParams{RequestID: e.RequestID, ResponseCode: 307,
			ResponseHeaders: []*fetch.HeaderEntry{{Name: "Location", Value: u.Query().Get("to")}}}
	}
	return fetch.FulfillRequestParams{RequestID: e.RequestID, ResponseCode: 200, Body: []byte(content),
		ResponseHeaders: []*fetch.HeaderEntry{{Name: "Content-Type", Value: "text/html"}}}
}

// attack lets a page of this address call the target in all its ways, until
// done. It returns the ways, and those whose answers the page could read.
func attack(t *testing.T, page, target string, done func(ways []string) bool) (ways, answered []string) {
	t.Helper()
	b := attackTab(t, page, strings.ReplaceAll(hostile, "TARGET", target))
	defer b.close()
	b.visit(page + "/attacker")
	b.await("the attack", `window.ways && document.title === "hostile"`)
	ways = read[[]string](b, `window.ways`)
	waitFor(func() bool { return done(ways) })
	return ways, read[[]string](b, `window.read`)
}

// leave lets a page of this address lead its visitor to the target, until done.
func leave(t *testing.T, page, target, way string, done func() bool) {
	t.Helper()
	b := attackTab(t, page, strings.NewReplacer("TARGET", target, "WAY", way).Replace(leaving))
	defer b.close()
	b.visit(page + "/attacker")
	waitFor(done)
}

// waitFor waits for what should happen soon; whether it has is for the caller.
func waitFor(done func() bool) {
	for end := time.Now().Add(patience / 3); time.Now().Before(end) && !done(); time.Sleep(glance) {
	}
}

// A tap is a wire to the proxy that counts the refusals that come back.
type tap struct {
	address string
	mu      sync.Mutex
	refused int
}

var refusalLine = regexp.MustCompile(`(?i)Caddy-Bearer-Error: (origin|host|upgrade|method)_refused\r\n`)

func newTap(t *testing.T, proxy string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p := &tap{address: l.Addr().String()}
	go func() {
		for {
			browser, err := l.Accept()
			if err != nil {
				return
			}
			go p.connect(browser, proxy)
		}
	}()
	return p
}

func (p *tap) connect(browser net.Conn, proxy string) {
	defer browser.Close()
	conn, err := net.Dial("tcp", proxy)
	if err != nil {
		return
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, browser)
		_ = conn.Close()
	}()
	var seen bytes.Buffer
	_, _ = io.Copy(io.MultiWriter(browser, &seen), conn)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused += len(refusalLine.FindAllIndex(seen.Bytes(), -1))
}

func (p *tap) refusals() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// attackers are where the hostile page is from; PORT is the target's.
var attackers = []struct{ name, page, target string }{
	{"another site", "http://evil.example:1080", "http://127.0.0.1:PORT"},
	{"another site, by name", "http://evil.example:1080", "http://localhost:PORT"},
	{"another port of this machine", "http://127.0.0.1:1080", "http://127.0.0.1:PORT"},
	{"another port of localhost", "http://localhost:1080", "http://localhost:PORT"},
	{"another name of this machine", "http://localhost:1080", "http://127.0.0.1:PORT"},
	{"DNS rebinding", "http://evil.example:PORT", "http://evil.example:PORT"},
	{"DNS rebinding, from another port", "http://evil.example:1080", "http://evil.example:PORT"},
}

// TM-2, TM-3 and CVE-2025-66414, CVE-2026-34742, CVE-2026-11624: whatever a web
// page does, its visitor's browser can't use the proxy. The same page reaches a
// plain reverse proxy in every way, so that the attack is one.
func TestAttackFromPages(t *testing.T) {
	s := newSandbox(t, "password")
	calls(t, s.url(callPath), nil, http.StatusOK, "")
	before := s.apiRequests()
	for _, a := range attackers {
		t.Run(a.name, func(t *testing.T) {
			reached := &seen{ways: map[string]string{}}
			plain := plainProxy(t, reached)
			_, plainPort, _ := net.SplitHostPort(plain)
			at := strings.NewReplacer("PORT", plainPort)
			ways, _ := attack(t, at.Replace(a.page), at.Replace(a.target), func(ways []string) bool { return len(reached.missing(ways)) == 0 })
			if missing := reached.missing(ways); len(missing) > 0 || len(ways) < 40 {
				t.Errorf("of %d ways, %d don't reach a plain proxy, so that they prove nothing: %q", len(ways), len(missing), missing)
			}

			wire := newTap(t, s.proxy)
			_, port, _ := net.SplitHostPort(wire.address)
			at = strings.NewReplacer("PORT", port)
			_, answered := attack(t, at.Replace(a.page), at.Replace(a.target), func(ways []string) bool { return wire.refusals() >= len(ways) })
			if n := wire.refusals(); n < len(ways) {
				t.Errorf("of %d ways, %d were refused", len(ways), n)
			}
			if got := s.apiRequests(); len(got) > len(before) {
				t.Errorf("these reached the API: %q", got[len(before):])
				before = got
			}
			if len(answered) > 0 && a.page != a.target {
				t.Errorf("the page could read the answers to %q", answered)
			}
			t.Logf("%d ways, %d refusals", len(ways), wire.refusals())
		})
	}
	calls(t, s.url(callPath), nil, http.StatusOK, "")
}

// The same when the page sends its visitor there: what comes back is shown, but
// nothing was called.
func TestAttackByNavigation(t *testing.T) {
	s := newSandbox(t, "password")
	calls(t, s.url(callPath), nil, http.StatusOK, "")
	before := len(s.apiRequests())
	for _, i := range []int{0, 2, 5} {
		a := attackers[i]
		t.Run(a.name, func(t *testing.T) {
			reached := &seen{ways: map[string]string{}}
			_, plainPort, _ := net.SplitHostPort(plainProxy(t, reached))
			wire := newTap(t, s.proxy)
			_, port, _ := net.SplitHostPort(wire.address)
			for i, way := range leavingWays {
				at := strings.NewReplacer("PORT", plainPort)
				leave(t, at.Replace(a.page), at.Replace(a.target), way, func() bool { return len(reached.missing([]string{way})) == 0 })
				if len(reached.missing([]string{way})) > 0 {
					t.Errorf("%s doesn't reach a plain proxy, so that it proves nothing", way)
				}
				at = strings.NewReplacer("PORT", port)
				leave(t, at.Replace(a.page), at.Replace(a.target), way, func() bool { return wire.refusals() > i })
				if n := wire.refusals(); n <= i {
					t.Errorf("%s was not refused", way)
				}
			}
			if got := s.apiRequests(); len(got) > before {
				t.Errorf("these reached the API: %q", got[before:])
				before = len(got)
			}
		})
	}
}

// What a person asks for, by typing or from a bookmark, is served. So is what an
// address leads on to that a person has typed: the browser says the same of it.
// It is a GET, and no page can read what comes back.
func TestTypedAddressIsServed(t *testing.T) {
	s := newSandbox(t, "password")
	b := attackTab(t, "http://evil.example:1080", "")
	before := len(s.apiRequests())
	b.visit(s.url(callPath))
	if got := s.apiRequests(); !slices.Contains(got[before:], "GET "+callPath) {
		t.Errorf("the API got %q", got[before:])
	}
	before = len(s.apiRequests())
	b.visit("http://evil.example:1080/redirect?to=" + url.QueryEscape(s.url(callPath+"?redirected")))
	t.Logf("after a redirect of what was typed, the API got %q", s.apiRequests()[before:])
}

// plainProxy is a reverse proxy as one writes it without a guard.
func plainProxy(t *testing.T, api http.Handler) (address string) {
	t.Helper()
	upstream := httptest.NewServer(api)
	t.Cleanup(upstream.Close)
	to, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }})
	t.Cleanup(proxy.Close)
	return strings.TrimPrefix(proxy.URL, "http://")
}

// apiRequests lists what the API was asked for.
func (s *sandbox) apiRequests() (requests []string) {
	s.Helper()
	_, _, body := fetchURL(s.T, "GET", "http://"+s.server+"/sandbox/events", nil)
	var events []struct{ Kind, Method, Path string }
	if err := json.Unmarshal(body, &events); err != nil {
		s.Fatal(err)
	}
	for _, e := range events {
		if e.Kind == "api" {
			requests = append(requests, e.Method+" "+e.Path)
		}
	}
	return requests
}

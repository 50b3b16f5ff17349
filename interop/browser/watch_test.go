package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
)

// hear takes the events of a tab, in their order. It must not wait.
func (b *tab) hear(event any) {
	w := b.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		w.request(e)
	case *network.EventResponseReceived:
		if e.Type == network.ResourceTypeDocument || w.icons[e.Response.URL] {
			w.statuses[e.Response.URL] = e.Response.Status
		} else if e.Response.Status >= 400 {
			w.fail("%s has status %d", e.Response.URL, e.Response.Status)
		}
	case *network.EventLoadingFailed:
		if e.Type != network.ResourceTypeDocument {
			w.fail("a %s could not be loaded: %s %s", e.Type, e.ErrorText, e.BlockedReason)
		}
	case *runtime.EventConsoleAPICalled:
		w.fail("the console was written to: %s", e.Type)
	case *runtime.EventExceptionThrown:
		w.fail("an exception: %s", e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		w.entries = append(w.entries, e.Entry)
	case *audits.EventIssueAdded:
		details, _ := json.Marshal(e.Issue.Details) // it was JSON before
		w.fail("an issue: %s %s", e.Issue.Code, details)
	case *fetch.EventRequestPaused:
		if u, err := url.Parse(e.Request.URL); err == nil {
			b.held <- held{e.RequestID, u}
		}
	}
}

// request notes a request; w.mu is held.
func (w *watch) request(e *network.EventRequestWillBeSent) {
	if strings.HasPrefix(e.DocumentURL, "chrome-error:") {
		return // the browser's own page
	}
	u, err := url.Parse(e.Request.URL)
	if err != nil || u.Scheme != "http" || !slices.Contains(w.servers, u.Host) {
		w.fail("it asks for %.100s, which is none of the servers %q", e.Request.URL, w.servers)
		return
	}
	// For the API's own answers Chromium looks for an icon, at the API.
	if on, err := url.Parse(e.DocumentURL); err == nil && u.Path == "/favicon.ico" && !strings.HasPrefix(on.Path, "/bearer") {
		w.icons[e.Request.URL] = true
	}
	w.requests = append(w.requests, request{u, e.Type == network.ResourceTypeDocument})
}

func (w *watch) fail(format string, args ...any) {
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
}

// complaints is what went wrong. That a page has an error status is none: the
// walks check the status.
func (w *watch) complaints() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Clone(w.failures)
	for _, e := range w.entries {
		if e.Level != log.EntryLevelWarning && e.Level != log.EntryLevelError {
			continue
		}
		if e.Source == log.EntrySourceNetwork && w.statuses[e.URL] >= 400 && strings.HasPrefix(e.Text, "Failed to load resource: the server responded") {
			continue
		}
		all = append(all, fmt.Sprintf("%s %s: %s %s", e.Source, e.Level, e.Text, e.URL))
	}
	return all
}

// A watch that never complained would prove nothing.
func TestWatch(t *testing.T) {
	t.Parallel()
	const head = `<!doctype html><title>x</title><link rel="icon" href="data:,">`
	for name, tt := range map[string]struct{ policy, page, want string }{
		"fine":       {"", head, ""},
		"script":     {"script-src 'none'", head + `<script>alert(1)</script>`, "Content Security Policy"},
		"style":      {"style-src 'none'", head + `<p style="color: red">x</p>`, "Content Security Policy"},
		"other host": {"", head + `<img alt="" src="http://other.example/x.png">`, "none of the servers"},
		"other port": {"", head + `<img alt="" src="http://127.0.0.1:9/x.png">`, "none of the servers"},
		"missing":    {"", head + `<img alt="" src="/missing">`, "has status 404"},
		"console":    {"", head + `<script>console.log("x")</script>`, "the console was written to"},
		"exception":  {"", head + `<script>throw 1</script>`, "an exception"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/missing" {
					http.NotFound(w, r)
					return
				}
				if tt.policy != "" {
					w.Header().Set("Content-Security-Policy", tt.policy)
				}
				_, _ = w.Write([]byte(tt.page))
			}))
			defer server.Close()
			b := openUnwatched(t, desktop, strings.TrimPrefix(server.URL, "http://"))
			b.visit(server.URL + "/")
			got := b.watch.complaints()
			if tt.want == "" && len(got) > 0 || !strings.Contains(strings.Join(got, "\n"), tt.want) {
				t.Errorf("the complaints are %q, want %q", got, tt.want)
			}
		})
	}
}

package caddymodule

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-bearer/caddy-bearer/internal/sandbox"
)

// The filter that docs/caddyfile.md shows keeps a caller's key out of Caddy's
// access log and error log; without it the key is in both, as the page says.
func TestDocsKeysInTheLog(t *testing.T) {
	const key = "a-key-that-the-log-must-not-show"
	var filter string
	for _, f := range pageFences(t, "docs/caddyfile.md", "caddyfile") {
		if f.heading == "Callers' keys in Caddy's log" {
			filter = regexp.MustCompile(`(?s)format filter \{.*?\n\t\t\}`).FindString(f.text)
		}
	}
	if filter == "" {
		t.Fatal("docs/caddyfile.md shows no filter")
	}
	for name, format := range map[string]string{"filtered": filter, "as Caddy does": "format json"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, sandbox.Config{})
			r.secret("caller_key", key)
			file := filepath.Join(r.dir, "caddy.log")
			r.global = "log default {\noutput file " + file + "\n" + format + "\n}"
			r.site, r.api = "log", "http://"+freeAddress(t) // nobody answers there, so both logs have the request
			r.handler = "caller_key erp {file." + r.dir + "/caller_key}"
			r.start()
			if res, text := r.do("GET", "/echo", nil, "X-API-Key", key); res.StatusCode != 502 {
				t.Errorf("%d %s", res.StatusCode, text)
			}
			shown := map[string]bool{}
			r.eventually("logged", func() bool {
				for line := range strings.Lines(read(t, file)) {
					for _, logger := range []string{"http.log.access", "http.log.error"} {
						if strings.Contains(line, `"logger":"`+logger) {
							shown[logger] = shown[logger] || strings.Contains(line, key)
						}
					}
				}
				return len(shown) == 2
			})
			for logger, is := range shown {
				if want := name != "filtered"; is != want {
					t.Errorf("%s: shows the key: %v, want %v", logger, is, want)
				}
			}
		})
	}
}

// Every question is answered, and its answer leads somewhere.
func TestDocsQuestions(t *testing.T) {
	t.Parallel()
	rows := regexp.MustCompile(`(?m)^\| ([^|]+) \| (.*) \|$`).FindAllStringSubmatch(read(t, "../docs/faq.md"), -1)
	asked := 0
	for _, row := range rows {
		if row[1] == "question" {
			continue
		}
		asked++
		if !docLink.MatchString(row[2]) {
			t.Errorf("%s: the answer leads nowhere", row[1])
		}
	}
	if asked < 40 {
		t.Errorf("%d questions", asked)
	}
}

package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
)

// docPages are the pages beside the README.
func docPages(t *testing.T) (pages []string) {
	t.Helper()
	files, err := filepath.Glob("../docs/*.md")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d pages in docs, %v", len(files), err)
	}
	for _, file := range append(files, "../deploy/README.md") {
		pages = append(pages, strings.TrimPrefix(filepath.ToSlash(file), "../"))
	}
	return pages
}

// Every Caddyfile block of docs/ is formatted, and Caddy takes it, as those of
// the README.
func TestDocsCaddyfiles(t *testing.T) {
	dir := t.TempDir()
	setUpReadme(t, dir)
	for _, page := range docPages(t) {
		fences := pageFences(t, page, "caddyfile")
		setUpFences(t, dir, fences)
		checkCaddyfiles(t, dir, fences)
	}
}

// Every JSON block of the README and of docs/ is what it looks like: a
// configuration that Caddy takes, an answer of ours with the members that we
// have, a line of the log whose message is in the source.
func TestDocsJSON(t *testing.T) {
	texts, blocks := sourceTexts(t), 0
	for _, page := range append(docPages(t), "README.md") {
		for _, f := range pageFences(t, page, "json") {
			dec := json.NewDecoder(strings.NewReader(f.text))
			for {
				var raw json.RawMessage
				err := dec.Decode(&raw)
				if errors.Is(err, io.EOF) {
					break
				}
				if err == nil {
					err = checkValue(raw, texts)
				}
				if err != nil {
					t.Errorf("%s: %v", f.at(), err)
					break
				}
				blocks++
			}
		}
	}
	if blocks < 10 {
		t.Errorf("%d JSON values in all", blocks)
	}
}

func checkValue(raw []byte, texts map[string]bool) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return err
	}
	has := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(name string) bool { return members[name] == nil })
	}
	switch {
	case has("status", "code", "title"):
		return checkProblemJSON(raw)
	case has("logger", "msg"):
		return checkLogJSON(raw, texts)
	case has("ready"):
		return strictly(raw, new(readyJSON))
	case has("specversion", "data"):
		return strictly(raw, new(struct {
			caddy.CloudEvent
			Text string `json:"text"`
		}))
	case has("findings"):
		return strictly(raw, new(checkJSON))
	case has("accounts"):
		return strictly(raw, new(statusJSON))
	case has("apps"):
		var c caddy.Config
		if err := strictly(raw, &c); err != nil {
			return err
		}
		return caddy.Validate(&c)
	}
	return errors.New("what is it? this test knows problems, logs, answers, events and configurations")
}

func strictly(raw []byte, to any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode(to)
}

// checkProblemJSON compares a problem with the one of its code.
func checkProblemJSON(raw []byte) error {
	var p problem
	if err := strictly(raw, &p); err != nil {
		return err
	}
	want, ok := allProblems()[p.Code]
	if !ok || p.Status != want.Status || p.Title != want.Title {
		return errors.New("there is no such problem: " + string(raw))
	}
	return nil
}

// checkLogJSON looks for what a line of ours says in the source.
func checkLogJSON(raw []byte, texts map[string]bool) error {
	var line struct {
		Logger, Msg, Code, Error string
	}
	if err := json.Unmarshal(raw, &line); err != nil {
		return err
	}
	if strings.HasPrefix(line.Logger, "http.log") {
		return nil // Caddy's own
	}
	for _, text := range []string{line.Msg, line.Code, line.Error} {
		if text != "" && !texts[text] {
			return errors.New("nothing in the source says: " + text)
		}
	}
	return nil
}

// Every code that callers can get has a heading in the page that says what to
// do, and every heading there is a code; the metric of requests has them all.
func TestDocsCodes(t *testing.T) {
	codes := slices.Collect(maps.Keys(allProblems()))
	codes = append(codes, "upstream_unreachable") // Caddy's own answer, with our field
	_, part, ok := strings.Cut(read(t, "../docs/troubleshooting.md"), "\n## By code\n")
	part, _, ok2 := strings.Cut(part, "\n## ")
	if !ok || !ok2 {
		t.Fatal("troubleshooting.md has no section By code")
	}
	var headings []string
	for _, m := range regexp.MustCompile("(?m)^### `([a-z_]+)`$").FindAllStringSubmatch(part, -1) {
		headings = append(headings, m[1])
	}
	sameNames(t, "codes in troubleshooting.md", headings, codes)
	sameNames(t, "outcomes of requests", requestOutcomes[:], append(codes, outcomePassed, outcomeRejected, "other"))
}

var (
	docLink     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docCommand  = regexp.MustCompile("caddy(?:-bearer)? bearer ([a-z]+)([^`\n|;&#]*)")
	docFlag     = regexp.MustCompile(`--[a-z-]+`)
	docPageLink = regexp.MustCompile(`(?:\.md|^)(?:#|$)`)
)

// Every link between the pages leads to a page and a heading, or to a file; and
// every page is linked to from the README.
func TestDocsLinks(t *testing.T) {
	readme := read(t, "../README.md")
	for _, page := range append(docPages(t), "README.md") {
		if page != "README.md" && !strings.Contains(readme, "]("+page+")") {
			t.Errorf("the README has no link to %s", page)
		}
		for _, m := range docLink.FindAllStringSubmatch(read(t, "../"+page), -1) {
			var err error
			switch {
			case strings.Contains(m[1], "://"):
			case docPageLink.MatchString(m[1]):
				_, err = linked(t, page, m[1])
			default:
				_, err = os.Stat(filepath.Join("..", filepath.Dir(page), m[1]))
			}
			if err != nil {
				t.Errorf("%s: %s: %v", page, m[1], err)
			}
		}
	}
}

var (
	docMetric = regexp.MustCompile(`\bcaddy_bearer_[a-z_]+`)
	docEvent  = regexp.MustCompile("(?:`|on )(bearer\\.[a-z_]+)")
)

// Every metric and event that a page names is there.
func TestDocsNames(t *testing.T) {
	metrics, events := firstNames(t, "probes-metrics-events", "caddy_"), firstNames(t, "probes-metrics-events", "bearer.")
	found := 0
	for _, page := range append(docPages(t), "README.md") {
		text := read(t, "../"+page)
		for _, name := range docMetric.FindAllString(text, -1) {
			if found++; !slices.Contains(metrics, name) && name != "caddy_bearer_" {
				t.Errorf("%s: there is no metric %s", page, name)
			}
		}
		for _, m := range docEvent.FindAllStringSubmatch(text, -1) {
			if found++; !slices.Contains(append(events, "bearer.stores", "bearer.token"), m[1]) {
				t.Errorf("%s: there is no event %s", page, m[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("%d names: this test doesn't find them any more", found)
	}
}

// Every `caddy bearer …` that a page shows is a command with such flags.
func TestDocsCommands(t *testing.T) {
	root := new(cobra.Command)
	setUp(root)
	for _, page := range append(docPages(t), "README.md") {
		for _, m := range docCommand.FindAllStringSubmatch(read(t, "../"+page), -1) {
			cmd, _, err := root.Find([]string{m[1]})
			if err != nil || cmd == root {
				t.Errorf("%s: there is no command %q", page, m[0])
				continue
			}
			for _, flag := range docFlag.FindAllString(m[2], -1) {
				if cmd.Flags().Lookup(flag[2:]) == nil && flag != "--help" {
					t.Errorf("%s: %q has no %s", page, m[0], flag)
				}
			}
		}
	}
}

// sameNames compares two lists of names, in whatever order.
func sameNames(t *testing.T, what string, got, want []string) {
	t.Helper()
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("%s: %s is missing", what, name)
		}
	}
	for i, name := range got {
		if !slices.Contains(want, name) {
			t.Errorf("%s: there is no %s", what, name)
		}
		if slices.Contains(got[:i], name) {
			t.Errorf("%s: %s is there twice", what, name)
		}
	}
}

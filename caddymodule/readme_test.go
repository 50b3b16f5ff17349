package caddymodule

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// A fence is a block of a page between ```caddyfile, or another language, and
// ```.
type fence struct {
	page    string // its path from the root, such as README.md
	heading string // the nearest one above, without its #
	line    int    // of the block's first line
	text    string
}

// account is the name of the account that the whole block is, or empty.
func (f fence) account() string {
	words := strings.Fields(f.text)
	if len(words) > 1 && words[0] == "account" {
		return words[1]
	}
	return ""
}

// at is where the block is.
func (f fence) at() string { return fmt.Sprintf("%s:%d", f.page, f.line) }

// providersPage has a block for each provider and grant.
const providersPage = "docs/providers.md"

// readmeFences are all Caddyfile blocks of the README and of the page of its
// providers.
func readmeFences(t *testing.T) []fence {
	t.Helper()
	readme, providers := pageFences(t, "README.md", "caddyfile"), pageFences(t, providersPage, "caddyfile")
	if len(readme) == 0 || len(providers) == 0 {
		t.Fatal("no Caddyfile block")
	}
	return append(readme, providers...)
}

// pageFences are all blocks of a page in a language.
func pageFences(t *testing.T, page, wanted string) (fences []fence) {
	t.Helper()
	var heading, language string
	var f *fence
	for i, line := range strings.Split(read(t, "../"+page), "\n") {
		mark, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && language == "":
			if language = mark; mark == "" {
				t.Fatalf("%s:%d: a fence without language", page, i+1)
			}
			if mark == wanted {
				f = &fence{page: page, heading: heading, line: i + 2}
			}
		case isFence:
			if f != nil {
				fences = append(fences, *f)
			}
			language, f = "", nil
		case f != nil:
			f.text += line + "\n"
		case language == "" && strings.HasPrefix(line, "#"):
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	if language != "" {
		t.Fatalf("%s: an open fence (%q)", page, language)
	}
	return fences
}

// A tableRow is one of the table of providers.
type tableRow struct{ provider, grant, account string }

var tableLine = regexp.MustCompile("(?m)^\\| (?:`([a-z_]+)`|none) \\| `([a-z_]+)` \\| `([a-z-]+)` \\|")

func readmeTable(t *testing.T) (rows []tableRow) {
	t.Helper()
	section, _, _ := strings.Cut(read(t, "../"+providersPage), "\n## ")
	for _, m := range tableLine.FindAllStringSubmatch(section, -1) {
		rows = append(rows, tableRow{m[1], m[2], m[3]})
	}
	if lines := strings.Count(section, "\n| "); len(rows) == 0 || lines != len(rows)+1 { // and the heading
		t.Fatalf("%d of %d lines of the table can be read", len(rows), lines)
	}
	return rows
}

// providerBlocks are the account blocks of the page of providers, by name. It checks that blocks, table and tests are the same accounts.
func providerBlocks(t *testing.T) map[string]string {
	t.Helper()
	blocks := map[string]string{}
	for _, f := range readmeFences(t) {
		if name := f.account(); f.page == providersPage && name != "" {
			if blocks[name] != "" {
				t.Errorf("%s: account %s is there twice", f.at(), name)
			}
			blocks[name] = f.text
		}
	}
	left := maps.Clone(blocks)
	for _, row := range readmeTable(t) {
		block, ok := blocks[row.account]
		if !ok {
			t.Errorf("account %s of the table has no block", row.account)
		}
		delete(left, row.account)
		provider := regexp.MustCompile(`(?m)^\tprovider +` + or(row.provider, `\w`) + `\b`)
		grant := regexp.MustCompile(`(?m)^\tgrant ` + row.grant + `\b`)
		if provider.MatchString(block) != (row.provider != "") || !grant.MatchString(block) {
			t.Errorf("the table says %s, %s of account %s; its block:\n%s", or(row.provider, "none"), row.grant, row.account, block)
		}
	}
	for name := range left {
		t.Errorf("account %s is not in the table", name)
	}
	for _, row := range providerRows {
		if blocks[row.account] == "" {
			t.Errorf("there is a test of account %s, but no block", row.account)
		}
	}
	return blocks
}

// readmeAccount is the account that blocks use which are a part of a Caddyfile.
const readmeAccount = "account erp {\nprovider pagero\nclient_id x\nclient_secret {env.README_SECRET}\ngrant authorization_code\n}\n"

func globalOption(text string) string {
	return "{\nbearer {\nportal https://proxy.example.com/bearer\n" + text + "\n}\n}\n"
}

// siteAddress is what a block begins with that is a site of its own.
var siteAddress = regexp.MustCompile(`^https?://`)

// wrapped makes a whole Caddyfile of a block that is a part of one.
func (f fence) wrapped() string {
	switch {
	case f.account() != "":
		return globalOption(f.text)
	case strings.HasPrefix(f.text, "bearer {"):
		return "{\n" + f.text + "}\n"
	case !strings.HasPrefix(f.text, "{") && !siteAddress.MatchString(f.text):
		return globalOption(readmeAccount) + "\nhttp://127.0.0.1:8080 {\nbind 127.0.0.1\n" + f.text + "}\n"
	case !strings.HasPrefix(f.text, "{"):
		return globalOption(readmeAccount) + "\n" + f.text
	}
	return f.text
}

// Every Caddyfile block of the README and of the page of its providers is
// formatted, and Caddy takes it, also when the files are there that it names. Of an overview with <values> each
// option is taken with a value, and each alternative too.
func TestReadmeCaddyfiles(t *testing.T) {
	dir := t.TempDir()
	setUpReadme(t, dir)
	fences := readmeFences(t)
	setUpFences(t, dir, fences)
	checkCaddyfiles(t, dir, fences)
}

func checkCaddyfiles(t *testing.T, dir string, fences []fence) {
	t.Helper()
	for _, f := range fences {
		overview := strings.Contains(f.text, "<")
		if formatted := string(caddyfile.Format([]byte(f.text))); !overview && formatted != alignment.ReplaceAllString(f.text, "$1 ") {
			t.Errorf("%s: it isn't formatted; want\n%s", f.at(), formatted)
		}
		for _, text := range f.instances(t) {
			if got, failed := adaptText(text); failed {
				t.Errorf("%s: %s\n%s", f.at(), got, text)
			}
		}
		if overview {
			continue
		}
		if err := validateCaddyfile(t, readmeFiles(dir).Replace(f.wrapped())); err != nil {
			t.Errorf("%s: %v", f.at(), err)
		}
	}
}

// alignment finds the spaces that put values one below the other, which `caddy
// fmt` doesn't do.
var alignment = regexp.MustCompile(`(\S)[ ]{2,}`)

var (
	overviewComment     = regexp.MustCompile(`(?m)(^|\s)#.*$`)
	overviewChoice      = regexp.MustCompile(`(\S+)( \| \S+)+`)
	overviewOptional    = regexp.MustCompile(`\[[^\]]*\]`)
	overviewValue       = regexp.MustCompile(`<[^>]*>`)
	overviewAlternative = regexp.MustCompile(`(?m)# or: ([^\n{]*\{(?:\n\s*#  .*)+|.*)$`)
)

// overviewValues stand for those of the overviews.
var overviewValues = map[string]string{
	"<url>": "https://login.example.com/x", "<redirect uri>": "https://proxy.example.com/x", "<file>": "/x", "<directory>": "/x", "<base64>": "eA==", "<name>": "x",
	"<id>": "x", "<secret>": "x", "<way>": "basic", "<certificate file>": "/x", "<key file>": "/x", "<values...>": "x y", "<value>": "x",
	"<words...>": "login consent", "<host[:port]...>": "api.example.com api.example.org:8443", "<cidr...|private_ranges>": "private_ranges", "<name...>": "x.example.com y.example.com",
	"<origin...>": "https://app.example.com", "<key>": "0123456789abcdef", "<field...>": "Cookie X-Forwarded-*",
	"<field>": "Remote-User", "<account>": "erp", "<account>[/<user>]": "erp/{http.auth.user.id}", "[<upstreams...>]": "https://api.example.com",
}

// instances are whole Caddyfiles of a block; of an overview, one with all that
// it shows and one of each alternative.
func (f fence) instances(t *testing.T) (texts []string) {
	t.Helper()
	if !strings.Contains(f.text, "<") {
		return []string{f.wrapped()}
	}
	for _, text := range f.choices(t, f.text) {
		whole := f
		whole.text = text
		texts = append(texts, whole.wrapped())
	}
	for _, m := range overviewAlternative.FindAllStringSubmatch(f.text, -1) {
		for _, text := range f.choices(t, overviewMark.ReplaceAllString(m[1], "")) {
			if strings.HasPrefix(text, "grant ") {
				text = strings.Replace(readmeAccount, "grant authorization_code\n", text+"\n", 1)
			}
			texts = append(texts, globalOption(text))
		}
	}
	return texts
}

// choices gives an overview values, and each `a | b` once each of its words:
// the others their first.
func (f fence) choices(t *testing.T, text string) (texts []string) {
	t.Helper()
	text = overviewComment.ReplaceAllString(text, "")
	text = strings.Replace(text, "provider       <name>", "provider pagero", 1)
	for _, known := range []string{"<account>[/<user>]", "[<upstreams...>]", "<host[:port]...>"} {
		text = strings.ReplaceAll(text, known, overviewValues[known])
	}
	text = overviewValue.ReplaceAllStringFunc(overviewOptional.ReplaceAllString(text, ""), func(v string) string {
		if overviewValues[v] == "" {
			t.Errorf("%s: what is %s?", f.at(), v)
		}
		return overviewValues[v]
	})
	texts = append(texts, overviewChoice.ReplaceAllString(text, "$1"))
	for _, at := range overviewChoice.FindAllStringIndex(text, -1) {
		for _, word := range strings.Split(text[at[0]:at[1]], " | ")[1:] {
			texts = append(texts, overviewChoice.ReplaceAllString(text[:at[0]]+word+text[at[1]:], "$1"))
		}
	}
	return texts
}

var overviewMark = regexp.MustCompile(`(?m)^\s*#`)

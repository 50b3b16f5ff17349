package caddymodule

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// tableNames are what is quoted in the first cells of a table of a page, which
// begins with a line.
func tableNames(t *testing.T, page, head string) (names []string) {
	t.Helper()
	_, table, ok := strings.Cut(read(t, "../"+page), "\n"+head+"\n")
	if !ok {
		t.Fatalf("%s has no table %s", page, head)
	}
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		for _, m := range quoted.FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// The README's tables have every code, outcome, metric and command, and no
// other.
func TestReadmeTables(t *testing.T) {
	codes := []string{"upstream_unreachable"} // Caddy's own answer, with our field
	for code := range allProblems() {
		codes = append(codes, code)
	}
	sameNames(t, "codes", tableNames(t, "README.md", "| `code` | status | what it means, what to do |"), codes)
	var outcomes []string
	for o := oauth.Granted; o <= oauth.Lost; o++ {
		outcomes = append(outcomes, o.String())
	}
	sameNames(t, "outcomes", tableNames(t, "README.md", "| outcome of a token request | the authorization server |"), outcomes)
	sameNames(t, "metrics", tableNames(t, "README.md", "| metric | what |"), firstNames(t, "probes-metrics-events", "caddy_"))
	root, commands := new(cobra.Command), []string{}
	setUp(root)
	for _, cmd := range root.Commands() {
		commands = append(commands, cmd.Name())
	}
	var got []string
	for _, usage := range tableNames(t, "README.md", "| command | what it does | admin endpoint |") {
		got = append(got, strings.Fields(usage)[2])
	}
	sameNames(t, "commands", got, commands)
	text := read(t, "../README.md")
	for _, event := range firstNames(t, "probes-metrics-events", "bearer.") {
		if !strings.Contains(text, "`"+event+"`") {
			t.Errorf("the README doesn't name the event %s", event)
		}
	}
}

// Every alert is told of in deploy/, and what to do about it.
func TestDocsAlerts(t *testing.T) {
	var alerts []string
	for _, m := range regexp.MustCompile(`(?m)- alert: (\w+)$`).FindAllStringSubmatch(read(t, alertsFile), -1) {
		alerts = append(alerts, m[1])
	}
	sameNames(t, "alerts", tableNames(t, "deploy/README.md", "| alert | means | do |"), alerts)
	for _, page := range append(docPages(t), "README.md") {
		for _, name := range regexp.MustCompile(`\bCaddyBearer\w+`).FindAllString(read(t, "../"+page), -1) {
			if !slices.Contains(alerts, name) {
				t.Errorf("%s: there is no alert %s", page, name)
			}
		}
	}
}

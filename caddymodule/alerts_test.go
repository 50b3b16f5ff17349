package caddymodule

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	alertsFile    = "../deploy/prometheus/alerts.yml"
	alertsTest    = "../deploy/prometheus/alerts.test.yml"
	dashboardFile = "../deploy/grafana/dashboard.json"
)

var (
	metricName = regexp.MustCompile(`\b(caddy_bearer_\w+)\b`)
	// selector is a metric with its labels.
	selector = regexp.MustCompile(`\b(caddy_bearer_\w+)\{([^{}]*)\}`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
)

// checkExpression checks that an expression names metrics and labels, and of
// states and outcomes values, that there are.
func checkExpression(t *testing.T, of, expr string) {
	t.Helper()
	names := metricName.FindAllString(expr, -1)
	if len(names) == 0 {
		t.Errorf("%s: %s names none of our metrics", of, expr)
	}
	for _, name := range names {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, suffix)
		}
		if _, ok := metricLabels[name]; !ok {
			t.Errorf("%s: there is no metric %s", of, name)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			checkLabel(t, of, s[1], m[1], m[2])
		}
	}
}

func checkLabel(t *testing.T, of, metric, label, value string) {
	t.Helper()
	if label == "job" || label == "instance" { // Prometheus adds them
		return
	}
	if !slices.Contains(strings.Split(metricLabels[metric], ","), label) {
		t.Errorf("%s: %s has no label %s", of, metric, label)
	}
	var known []string
	switch {
	case label == "state":
		for _, s := range states {
			known = append(known, string(s))
		}
	case label == "outcome" && metric == "caddy_bearer_requests_total":
		known = requestOutcomes[:]
		if strings.HasSuffix(of, "alert") { // see requestOutcomes
			known = requestOutcomes[:shownFromTheBeginning]
		}
	case label == "outcome":
		known = []string{"granted", "unusable", "dead", "refused", "probably_dead", "away", "not_tried", "lost"}
	default:
		return
	}
	for v := range strings.SplitSeq(value, "|") {
		if !slices.Contains(known, v) {
			t.Errorf("%s: %s %s is never %q", of, metric, label, v)
		}
	}
}

func TestAlertRules(t *testing.T) {
	t.Parallel()
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	d := yaml.NewDecoder(strings.NewReader(read(t, alertsFile)))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	alerts := map[string]bool{}
	for _, g := range file.Groups {
		for _, rule := range g.Rules {
			checkExpression(t, rule.Alert+", alert", rule.Expr)
			if alerts[rule.Alert] || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s is there twice or lacks a text", rule.Alert)
			}
			alerts[rule.Alert] = true
		}
	}
	if len(alerts) != 9 {
		t.Errorf("%d alerts", len(alerts))
	}
	tested := read(t, alertsTest)
	for name := range alerts {
		if !strings.Contains(tested, name) {
			t.Errorf("alert %s isn't tested", name)
		}
	}
}

// Where Prometheus's own checker is, it has the last word.
func TestAlertRulesByPromtool(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool")
	}
	for _, args := range [][]string{{"check", "rules", alertsFile}, {"test", "rules", alertsTest}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	var dashboard struct {
		Title, UID string
		Panels     []struct {
			ID          int
			Type, Title string
			Targets     []struct{ Expr string }
			GridPos     struct{ X, Y, W, H int }
			Datasource  struct{ UID string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	text := read(t, dashboardFile)
	if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q is there twice or has no place", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && (len(p.Targets) == 0 || p.Datasource.UID != "${datasource}") {
			t.Errorf("panel %s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			checkExpression(t, p.Title, target.Expr)
		}
	}
	for _, v := range dashboard.Templating.List {
		if v.Definition != "" {
			checkExpression(t, "variable "+v.Name, v.Definition)
		}
	}
	for name := range metricLabels {
		if !strings.Contains(text, name) {
			t.Errorf("%s is not shown", name)
		}
	}
}

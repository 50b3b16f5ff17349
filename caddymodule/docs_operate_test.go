package caddymodule

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// This file holds the reference's sections for operators complete.

// Every command and every flag of it is there, and every exit code.
func TestReferenceCommands(t *testing.T) {
	t.Parallel()
	root := new(cobra.Command)
	setUp(root)
	var commands, flags, documented []string
	for _, cmd := range root.Commands() {
		commands = append(commands, cmd.Name())
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !f.Hidden {
				flags = append(flags, cmd.Name()+" --"+f.Name)
			}
		})
	}
	sameNames(t, "commands", firstNames(t, "commands", ""), commands)
	for _, row := range referenceRows(t, "flags") {
		for _, of := range quoted.FindAllStringSubmatch(row[1], -1) {
			documented = append(documented, of[1]+" "+quoted.FindStringSubmatch(row[0])[1])
		}
	}
	sameNames(t, "flags", documented, flags)
	var codes []string
	for _, f := range parsed(t, ".") {
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "exit") && len(v.Values) == 1 {
				if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.INT {
					codes = append(codes, lit.Value)
				}
			}
			return true
		})
	}
	sameNames(t, "exit codes", firstNames(t, "exit-codes", ""), codes)
}

// Every route of the admin endpoint is there.
func TestReferenceRoutes(t *testing.T) {
	t.Parallel()
	var routes []string
	for _, r := range new(Admin).Routes() {
		routes = append(routes, r.Pattern)
	}
	sameNames(t, "admin routes", firstNames(t, "admin-routes", ""), routes)
}

// Every metric is there with its labels, and the outcomes of token requests.
func TestReferenceMetrics(t *testing.T) {
	t.Parallel()
	descs := make(chan *prometheus.Desc, 100)
	collector{}.Describe(descs)
	close(descs)
	fqName, variable := regexp.MustCompile(`fqName: "([^"]*)"`), regexp.MustCompile(`variableLabels: \{([^}]*)\}`)
	var want, got []string
	for d := range descs {
		want = append(want, fmt.Sprint(fqName.FindStringSubmatch(d.String())[1], " ", variable.FindStringSubmatch(d.String())[1]))
	}
	for _, row := range referenceRows(t, "probes-metrics-events") {
		name := quoted.FindStringSubmatch(row[0])[1]
		if !strings.HasPrefix(name, "caddy_") {
			continue
		}
		var labels []string
		for _, m := range quoted.FindAllStringSubmatch(row[1], -1) {
			labels = append(labels, m[1])
		}
		got = append(got, name+" "+strings.Join(labels, ","))
		if name == "caddy_bearer_token_requests_total" {
			for o := oauth.Granted; o <= oauth.Lost; o++ {
				if !strings.Contains(row[2], "`"+o.String()+"`") {
					t.Errorf("the outcome %s of token requests is missing", o)
				}
			}
		}
	}
	sameNames(t, "metrics", got, want)
}

// Every event is there, and what handlers of it are told.
func TestReferenceEvents(t *testing.T) {
	t.Parallel()
	var want []string
	data := map[string]bool{}
	for _, f := range parsed(t, "../internal/oauth") {
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || fmt.Sprint(v.Type) != "EventKind" {
				return true
			}
			kind, _ := literalText(v.Values[0])
			if kind != string(oauth.EventTokenRequest) { // it is counted only
				want = append(want, eventName(oauth.EventKind(kind)))
				for name := range eventData(oauth.Event{Kind: oauth.EventKind(kind), At: time.Now()}) {
					data[name] = true
				}
			}
			return true
		})
	}
	sameNames(t, "events", firstNames(t, "probes-metrics-events", "bearer."), want)
	_, text, _ := strings.Cut(must(linked(t, referencePage, "#probes-metrics-events")), "\nTheir data")
	for name := range data {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("what is %s in the data of events?", name)
		}
	}
}

// Every logger and every placeholder of ours is there.
func TestReferenceLogs(t *testing.T) {
	t.Parallel()
	ids := map[string]string{} // by the name of the type
	for id, of := range ourModules(t) {
		ids[of] = id
	}
	var loggers, placeholders []string
	eachFunction(t, func(name string, f *ast.FuncDecl) {
		id := ids[strings.TrimSuffix(name, ".Provision")]
		ast.Inspect(f.Body, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, _ := call.Fun.(*ast.SelectorExpr)
			switch {
			case method == nil:
			case method.Sel.Name == "Slogger" && id != "" && !slices.Contains(loggers, id):
				loggers = append(loggers, id)
			case method.Sel.Name == "Named" && id != "":
				text, _ := literalText(call.Args[0])
				loggers = append(loggers, id+"."+text)
			case method.Sel.Name == "Set" && fmt.Sprint(method.X) == "repl":
				text, _ := literalText(call.Args[0])
				placeholders = append(placeholders, "{"+text+"}")
			}
			return true
		})
	})
	sameNames(t, "loggers", firstNames(t, "logs", ""), loggers)
	for _, p := range placeholders {
		if !slices.Contains(firstNames(t, "placeholders", ""), p) {
			t.Errorf("the placeholder %s is missing", p)
		}
	}
	if len(placeholders) == 0 {
		t.Error("no placeholder is set: this test doesn't find them any more")
	}
}

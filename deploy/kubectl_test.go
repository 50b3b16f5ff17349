package deploy

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// kubectl knows every field: what it takes into its own types and writes out
// again is what went in.
func TestKubectl(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("there is no kubectl")
	}
	run := func(stdin string, args ...string) string {
		cmd := exec.Command(kubectl, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return string(out)
	}
	whole := run("", "kustomize", "kubernetes")
	for _, doc := range strings.Split(whole, "\n---\n") {
		if !strings.Contains(doc, "kind: Deployment") {
			continue
		}
		if !strings.Contains(doc, "registry.example.com/caddy-bearer:change-me") || !strings.Contains(doc, "name: caddy-bearer-environment-") {
			t.Errorf("images and maps aren't put in:\n%s", doc)
		}
		out := run(doc, "set", "serviceaccount", "--local", "-o", "json", "-f", "-", "default")
		var got, want map[string]any
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		into(t, yaml(t, doc), &want)
		lost(t, "", want, got)
		return
	}
	t.Errorf("no Deployment in\n%s", whole)
}

// lost tells what of want isn't in got.
func lost(t *testing.T, at string, want, got any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for key, value := range want {
			lost(t, at+"."+key, value, g[key])
		}
	case []any:
		g, _ := got.([]any)
		for i, value := range want {
			if i < len(g) {
				lost(t, at+"[]", value, g[i])
			} else {
				t.Errorf("%s: kubectl drops %v", at, value)
			}
		}
	default:
		if want != got {
			t.Errorf("%s: %v became %v", at, want, got)
		}
	}
}

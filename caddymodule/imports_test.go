package caddymodule

import (
	"os/exec"
	"strings"
	"testing"
)

const modulePath = "github.com/caddy-bearer/caddy-bearer/"

// Imports run one way: cmd → caddymodule → store → oauth; the sandbox imports
// nothing of ours, and only one package each imports bbolt and x/oauth2.
func TestImports(t *testing.T) {
	for _, tt := range []struct {
		pkg       string
		forbidden []string
	}{
		{"internal/oauth", []string{"github.com/caddyserver/", "go.uber.org/zap", "github.com/spf13/", "github.com/prometheus/", "go.etcd.io/bbolt", modulePath + "internal/s", modulePath + "caddymodule"}},
		{"internal/store", []string{"github.com/caddyserver/", "go.uber.org/zap", "github.com/spf13/", "github.com/prometheus/", modulePath + "internal/sandbox", modulePath + "caddymodule"}},
		{"internal/sandbox", []string{"github.com/", "golang.org/x/", "go.etcd.io/", modulePath + "internal/oauth", modulePath + "internal/store"}},
	} {
		out, err := exec.Command("go", "list", "-deps", modulePath+tt.pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.Lines(string(out)) {
			dep = strings.TrimSpace(dep)
			for _, f := range tt.forbidden {
				if strings.HasPrefix(dep, f) && dep != modulePath+tt.pkg {
					t.Errorf("%s imports %s", tt.pkg, dep)
				}
			}
		}
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}: {{join .Imports " "}}`, modulePath+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		for dep, owner := range map[string]string{"go.etcd.io/bbolt": "internal/store:", "golang.org/x/oauth2": "internal/oauth:"} {
			if strings.Contains(line, " "+dep) && !strings.HasPrefix(line, modulePath+owner) {
				t.Errorf("%s is imported by %s", dep, line)
			}
		}
	}
}

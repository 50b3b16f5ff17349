package interop

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What only tests need is not in the binary, and not in the module that it is
// built from.
func TestBinaryHoldsNoTests(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("go", "list", "-deps", "./cmd/caddy")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing the binary's packages: %v", err)
	}
	packages := strings.Fields(string(out))
	if !slices.Contains(packages, "github.com/caddyserver/caddy/v2") {
		t.Fatal("the list is not of the binary's packages")
	}
	for _, name := range packages {
		if name == "testing" || strings.HasPrefix(name, "testing/") || name == "net/http/httptest" ||
			strings.HasPrefix(name, "github.com/ory/") || strings.Contains(name, "/interop") {
			t.Errorf("the binary holds %s", name)
		}
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mod), "ory/") || strings.Contains(string(mod), "/interop") {
		t.Error("the module requires what only these tests need")
	}
}

//go:build !failpoint || !unix

package failpoint_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The program that operators run has no trace of a point.
func TestNothingIsLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the program")
	}
	t.Parallel()
	var names [][]byte
	hit := regexp.MustCompile(`failpoint\.(?:Hit|Reader)\("([a-z-]+)"`)
	for _, dir := range []string{"../oauth", "../store", "../../caddymodule"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range hit.FindAllSubmatch(text, -1) {
				names = append(names, m[1])
			}
		}
	}
	if len(names) < 40 {
		t.Fatalf("only %d points found in the source", len(names))
	}
	binary := filepath.Join(t.TempDir(), "caddy")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/caddy").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	symbols, err := exec.Command("go", "tool", "nm", binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(symbols, []byte("internal/oauth.(*Session).fly")) || bytes.Contains(symbols, []byte("internal/failpoint")) {
		t.Error("the symbols of the program name the package")
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, []byte("CADDY_BEARER_FAILPOINT"), []byte("internal/failpoint")) {
		if bytes.Contains(program, name) {
			t.Errorf("the program holds %q", name)
		}
	}
}

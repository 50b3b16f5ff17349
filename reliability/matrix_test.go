package reliability

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// notBuilt are the rows without a test: F4, the spare grant, which depends on
// the server permitting two grants per user and client.
var notBuilt = map[int]bool{4: true}

const lastRow = 54

var rowTest = regexp.MustCompile(`(?m)^func (TestF(\d\d)[A-Z]\w*)\(t \*testing\.T\)`)

// TestMatrixIsWhole: each row of the fault matrix has exactly one test, named
// after it, and docs/reliability.md names each row and its test.
func TestMatrixIsWhole(t *testing.T) {
	t.Parallel()
	tests := map[int][]string{}
	where := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range rowTest.FindAllStringSubmatch(string(text), -1) {
			var row int
			_, _ = fmt.Sscanf(m[2], "%d", &row)
			tests[row] = append(tests[row], m[1])
			where[m[1]] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for row := 1; row <= lastRow; row++ {
		switch n := len(tests[row]); {
		case notBuilt[row] && n > 0:
			t.Errorf("F%02d has a test, %s, and counts as not built", row, tests[row])
		case !notBuilt[row] && n != 1:
			t.Errorf("F%02d has %d tests, want one: %s", row, n, tests[row])
		}
		delete(tests, row)
	}
	for row, names := range tests {
		t.Errorf("there is no row F%02d in the matrix: %s", row, names)
	}
	checkDocument(t, where)
}

// checkDocument checks that docs/reliability.md names each row, and each test.
func checkDocument(t *testing.T, where map[string]string) {
	t.Helper()
	const document = "../docs/reliability.md"
	text, err := os.ReadFile(document)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s isn't written yet; it has to name each row and its test", document)
	}
	if err != nil {
		t.Fatal(err)
	}
	for row := 1; row <= lastRow; row++ {
		if !regexp.MustCompile(fmt.Sprintf(`\bF0?%d\b`, row)).Match(text) {
			t.Errorf("%s doesn't name F%d", document, row)
		}
	}
	for name, path := range where {
		if !strings.Contains(string(text), name) {
			t.Errorf("%s doesn't name %s (%s)", document, name, filepath.ToSlash(path))
		}
	}
}

package deploy

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// buildImage follows the Dockerfile, with the Go that is at hand.
func buildImage(t *testing.T) (root string, env []string) {
	t.Helper()
	_, s := stages(t)
	dir := t.TempDir()
	src, out := filepath.Join(dir, "src"), filepath.Join(dir, "out")
	root = filepath.Join(dir, "root")
	for _, d := range []string{src, root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	buildEnv := append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH)
	for _, i := range s[0][1:] {
		words := strings.Fields(i.args)
		switch i.name {
		case "ENV":
			buildEnv = append(append(buildEnv, words...), "GOTOOLCHAIN=local")
		case "COPY":
			for _, name := range words[:len(words)-1] {
				copyFiles(t, filepath.Join("..", name), filepath.Join(src, words[len(words)-1], mayBe(words[len(words)-1] == "./", name)), -1)
			}
		case "RUN":
			cmd := exec.Command("nice", "-n", "15", "sh", "-c", strings.ReplaceAll(i.args, "/out", out))
			cmd.Dir, cmd.Env = src, buildEnv
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("RUN %s: %v\n%s", i.args, err, text)
			}
		}
	}
	for _, i := range s[1] {
		words := strings.Fields(i.args)
		switch i.name {
		case "ENV":
			env = append(env, words...)
		case "COPY":
			from, owner := "..", 0
			for ; strings.HasPrefix(words[0], "--"); words = words[1:] {
				switch words[0] {
				case "--from=build":
					from = "/"
				case "--chown=65532:65532":
					owner = user
				default:
					t.Fatalf("COPY %s", i.args)
				}
			}
			to := words[len(words)-1]
			for _, name := range words[:len(words)-1] {
				source := strings.Replace(filepath.Join(from, name), "/out/", out+"/", 1)
				copyFiles(t, source, filepath.Join(root, to, mayBe(strings.HasSuffix(to, "/"), filepath.Base(name))), owner)
			}
		}
	}
	logSize(t, root)
	return root, env
}

// logSize tells how large the image and its files are.
func logSize(t *testing.T, root string) {
	t.Helper()
	var size int64
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
			t.Logf("%8.1f KiB %s", float64(info.Size())/1024, strings.TrimPrefix(path, root))
		}
		return nil
	})
	t.Logf("the image holds %.1f MiB", float64(size)/(1<<20))
}

func mayBe(yes bool, text string) string {
	if yes {
		return text
	}
	return ""
}

// copyFiles copies what .dockerignore lets in, and gives it an owner from 0 on.
func copyFiles(t *testing.T, from, to string, owner int) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "testdata" && d.IsDir() {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		name := filepath.Join(to, strings.TrimPrefix(path, from))
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			err = os.Mkdir(name, info.Mode().Perm())
		} else {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			var text []byte
			if text, err = os.ReadFile(path); err == nil {
				err = os.WriteFile(name, text, info.Mode().Perm())
			}
		}
		if err == nil && owner >= 0 {
			err = os.Chown(name, owner, owner)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

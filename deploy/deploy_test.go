// Package deploy holds what is needed to run caddy-bearer somewhere, and the
// tests of it.
package deploy

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/templates"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-bearer/caddy-bearer/caddymodule"
)

// TestMain keeps Caddy's own files out of the home directory.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "deploy")
	if err != nil {
		panic(err)
	}
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_DATA_HOME"} {
		if err := os.Setenv(name, dir); err != nil {
			panic(err)
		}
	}
	caddy.ConfigAutosavePath = filepath.Join(dir, "autosave.json")
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// A place is one of the ways to run it: what its Caddyfile may count on.
type place struct {
	dir     string
	secrets string            // the directory that secrets are in, as the Caddyfile names it
	given   []string          // names of the secrets there
	env     []string          // names of the variables
	volumes map[string]string // directories that can be written to, and what each is called
	stop    time.Duration     // how long a stop may take
}

func places(t *testing.T) map[string]place {
	t.Helper()
	return map[string]place{"container": composePlace(t), "systemd": unitPlace(t), "kubernetes": kubernetesPlace(t)}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every Caddyfile that lies here belongs to a place.
func TestCaddyfilesKnown(t *testing.T) {
	found, err := filepath.Glob("*/Caddyfile*")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, p := range places(t) {
		want = append(want, p.dir+"/Caddyfile")
	}
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("there are %v, tested are %v", found, want)
	}
}

// adapted is a Caddyfile as JSON, its warnings being errors.
func adapted(t *testing.T, text string) []byte {
	t.Helper()
	out, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	return out
}

// configuration is what the tests want to know of one.
type configuration struct {
	Admin struct{ Listen string }
	Apps  struct {
		HTTP struct {
			GracePeriod caddy.Duration `json:"grace_period"`
			Servers     map[string]struct{ Listen []string }
		}
		Bearer struct {
			Store struct{ Path, Key, Spill, Instance string }
		}
	}
}

var (
	secretOption = regexp.MustCompile(`"(?:key|old_key|client_secret|password)":"([^"]*)"`)
	envOption    = regexp.MustCompile(`\{env\.([A-Z_]+)\}`)
	fileOption   = regexp.MustCompile(`^\{file\.(.*)/([^/]+)\}$`)
)

// A Caddyfile holds no secret and names only what its place has: the secrets,
// the variables, and directories that it can write to and that last.
func TestCaddyfiles(t *testing.T) {
	for name, p := range places(t) {
		t.Run(name, func(t *testing.T) {
			text := read(t, p.dir+"/Caddyfile")
			if formatted := string(caddyfile.Format([]byte(text))); formatted != text {
				t.Errorf("it isn't formatted; want\n%s", formatted)
			}
			out := adapted(t, text)
			var named []string
			for _, m := range secretOption.FindAllStringSubmatch(string(out), -1) {
				file := fileOption.FindStringSubmatch(m[1])
				if file == nil || file[1] != p.secrets {
					t.Errorf("%s is no file in %s", m[0], p.secrets)
					continue
				}
				named = append(named, file[2])
			}
			sameNames(t, "secrets", named, p.given)
			var env []string
			for _, m := range envOption.FindAllStringSubmatch(string(out), -1) {
				env = append(env, m[1])
			}
			sameNames(t, "variables", env, p.env)

			var c configuration
			if err := json.Unmarshal(out, &c); err != nil {
				t.Fatal(err)
			}
			store := c.Apps.Bearer.Store
			on := map[string]string{}
			for what, path := range map[string]string{"path": store.Path, "spill": store.Spill, "instance": store.Instance,
				"admin": strings.TrimSuffix(strings.TrimPrefix(c.Admin.Listen, "unix/"), "|0600")} {
				on[what] = p.volume(path)
				if on[what] == "" {
					t.Errorf("%s %q is not on one of %v", what, path, p.volumes)
				}
			}
			if on["path"] == on["instance"] || on["path"] == on["spill"] || on["path"] == on["admin"] || !strings.HasSuffix(c.Admin.Listen, "|0600") {
				t.Errorf("the volumes are %v, the admin socket is %s", on, c.Admin.Listen)
			}
			// Requests, a refresh (10 s) and the admin endpoint (10 s) end one after
			// the other.
			if least := time.Duration(c.Apps.HTTP.GracePeriod) + 20*time.Second; p.stop < least || c.Apps.HTTP.GracePeriod == 0 {
				t.Errorf("a stop may take %s, but needs %s", p.stop, least)
			}
			for _, s := range c.Apps.HTTP.Servers {
				if port, local := strings.CutPrefix(s.Listen[0], "127.0.0.1:"); port != "8080" && (local || port != ":9090") {
					t.Errorf("it listens on %v", s.Listen)
				}
			}
		})
	}
}

// volume is what a path is on; empty if that can't be written to.
func (p place) volume(path string) string {
	for dir, name := range p.volumes {
		if strings.HasPrefix(path, dir+"/") || path == dir {
			return name
		}
	}
	return ""
}

func sameNames(t *testing.T, what string, named, given []string) {
	t.Helper()
	slices.Sort(named)
	named = slices.Compact(named)
	given = slices.Sorted(slices.Values(given))
	if !slices.Equal(named, given) || len(given) == 0 {
		t.Errorf("%s: the Caddyfile names %q, given are %q", what, named, given)
	}
}

// Caddy takes every Caddyfile once the secrets are there, and says which one is
// missing. None of them gets into what `caddy adapt` prints.
func TestCaddyfilesValidate(t *testing.T) {
	for name, p := range places(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, env := range p.env {
				t.Setenv(env, "x")
			}
			t.Setenv("CREDENTIALS_DIRECTORY", dir)
			for _, secret := range p.given {
				canary(t, dir, secret)
			}
			text := regexp.MustCompile(`admin unix\S+`).ReplaceAllString(read(t, p.dir+"/Caddyfile"), "admin off")
			text = strings.ReplaceAll(text, p.secrets+"/", dir+"/")
			for volume := range p.volumes {
				text = regexp.MustCompile(`(?m)^(\s*(?:path|spill|instance) )`+regexp.QuoteMeta(volume)).ReplaceAllString(text, "${1}"+dir+volume)
			}
			out := adapted(t, text)
			if strings.Contains(string(out), "canary") || !strings.Contains(string(out), "{file."+dir+"/") {
				t.Errorf("a secret, or none of the files, is in\n%s", out)
			}
			if err := validate(t, out); err != nil {
				t.Error(err)
			}
			for _, secret := range p.given {
				if err := os.Remove(filepath.Join(dir, secret)); err != nil {
					t.Fatal(err)
				}
				if err := validate(t, out); err == nil || !strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "canary") {
					t.Errorf("without %s: %v", secret, err)
				}
				canary(t, dir, secret)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != len(p.given) {
				t.Errorf("validating left %v", entries)
			}
		})
	}
}

// canary writes a secret that can be told wherever it turns up.
func canary(t *testing.T, dir, name string) {
	t.Helper()
	text := "canary-" + name
	if strings.HasSuffix(name, "key") {
		text = "canary+canary+canary+canary+canary+canary+0=" // 32 bytes in base64
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o400); err != nil {
		t.Fatal(err)
	}
}

// validate does what `caddy validate` does.
func validate(t *testing.T, config []byte) error {
	t.Helper()
	var c caddy.Config
	if err := json.Unmarshal(config, &c); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(&c)
}

// documents are the YAML documents of a file.
func documents(t *testing.T, name string) (docs []map[string]any) {
	t.Helper()
	for _, doc := range strings.Split(read(t, name), "\n---\n") {
		docs = append(docs, yaml(t, doc))
	}
	return docs
}

// yaml reads a document by Caddy's own parser of front matter.
func yaml(t *testing.T, doc string) (values map[string]any) {
	t.Helper()
	parse, err := new(templates.TemplateContext).NewTemplate("").Parse(`{{(splitFrontMatter .).Meta | toJson}}`)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := parse.Execute(&out, "---\n"+doc+"\n---\n"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out.String()), &values); err != nil || len(values) == 0 {
		t.Fatalf("%v: %s", err, doc)
	}
	return values
}

// into puts a value of a document into a Go value.
func into(t *testing.T, from any, to any) {
	t.Helper()
	text, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// names are the keys of a map, in order.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

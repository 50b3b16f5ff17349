package deploy

import (
	"encoding/json"
	"go/version"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	dockerfile  = "container/Dockerfile"
	composeFile = "container/compose.yaml"
)

// An instruction is one of the Dockerfile, without its line ends.
type instruction struct{ name, args string }

// stages are the instructions from one FROM to the next; those before the
// first are ahead of them.
func stages(t *testing.T) (ahead []instruction, stages [][]instruction) {
	t.Helper()
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(read(t, dockerfile), "")
	text = regexp.MustCompile(`\s*\\\n\s*`).ReplaceAllString(text, " ")
	for _, line := range strings.Split(text, "\n") {
		name, args, ok := strings.Cut(line, " ")
		switch i := (instruction{name, args}); {
		case line == "":
		case !ok || strings.ToUpper(name) != name:
			t.Fatalf("%s: what is %q?", dockerfile, line)
		case name == "FROM":
			stages = append(stages, []instruction{i})
		case len(stages) == 0:
			ahead = append(ahead, i)
		default:
			stages[len(stages)-1] = append(stages[len(stages)-1], i)
		}
	}
	if len(stages) != 2 {
		t.Fatalf("%s has %d stages, want build and result", dockerfile, len(stages))
	}
	return ahead, stages
}

// all are the arguments of a stage's instructions of one name.
func all(stage []instruction, name string) (args []string) {
	for _, i := range stage {
		if i.name == name {
			args = append(args, i.args)
		}
	}
	return args
}

// goVersion is the version of Go that the image is built with.
func goVersion(t *testing.T) string {
	ahead, _ := stages(t)
	v, ok := strings.CutPrefix(strings.Join(all(ahead, "ARG"), " "), "GO=")
	if !ok {
		t.Fatalf("%s: %v", dockerfile, ahead)
	}
	return "go" + v
}

// Image and xcaddy.sh are built with one Go, which has no CVE-2026-56866, and
// with the Caddy of go.mod.
func TestToolchain(t *testing.T) {
	v := goVersion(t)
	if !version.IsValid(v) || version.Compare(v, "go1.26.9") < 0 {
		t.Errorf("the image is built with %s", v)
	}
	_, s := stages(t)
	if env := strings.Join(all(s[0], "ENV"), " "); !strings.Contains(env, "GOTOOLCHAIN=go${GO}") || !strings.Contains(env, "CGO_ENABLED=0") {
		t.Errorf("ENV %s", env)
	}
	script := read(t, "../xcaddy.sh")
	if !strings.Contains(script, `GOTOOLCHAIN="${GOTOOLCHAIN:-`+v+`}"`) {
		t.Errorf("xcaddy.sh is built with another Go than %s", v)
	}
	caddy := regexp.MustCompile(`github.com/caddyserver/caddy/v2 (v\S+)`).FindStringSubmatch(read(t, "../go.mod"))
	if caddy == nil || !strings.Contains(script, "xcaddy build "+caddy[1]+" ") {
		t.Errorf("xcaddy.sh builds another Caddy than %v", caddy)
	}
}

// The image holds what it needs, for a user without rights and without a shell.
func TestDockerfile(t *testing.T) {
	_, s := stages(t)
	build, result := s[0], s[1]
	if from := result[0].args; from != "scratch" || len(all(result, "RUN")) > 0 {
		t.Errorf("FROM %s, RUN %v", from, all(result, "RUN"))
	}
	if user := all(result, "USER"); !slices.Equal(user, []string{"65532:65532"}) {
		t.Errorf("USER %v", user)
	}
	if v := all(result, "VOLUME"); len(v) > 0 {
		t.Errorf("VOLUME %v: an anonymous volume is lost with the container", v)
	}
	run := strings.Join(all(build, "RUN"), "\n")
	for _, flag := range []string{"-trimpath", "-ldflags='-s -w -buildid='", "GOOS=$TARGETOS GOARCH=$TARGETARCH"} {
		if !strings.Contains(run, flag) {
			t.Errorf("RUN without %s:\n%s", flag, run)
		}
	}
	check, ok := strings.CutPrefix(regexp.MustCompile(`^(--\S+ )*`).ReplaceAllString(strings.Join(all(result, "HEALTHCHECK"), ""), ""), "CMD ")
	if !ok {
		t.Errorf("HEALTHCHECK %v", all(result, "HEALTHCHECK"))
	}
	for form, want := range map[string][]string{
		check: {"/usr/bin/caddy", "bearer", "wait", "--timeout", "0"},
		strings.Join(all(result, "ENTRYPOINT"), ""): {"/usr/bin/caddy"},
		strings.Join(all(result, "CMD"), ""):        {"run", "--config", "/etc/caddy/Caddyfile"},
	} {
		var got []string
		if err := json.Unmarshal([]byte(form), &got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %q: there is no shell", form, err, want)
		}
	}
	if env := strings.Join(all(result, "ENV"), " "); !strings.Contains(env, "CADDY_ADMIN=unix//run/caddy/admin.sock") {
		t.Errorf("ENV %s: the commands don't find the server", env)
	}
}

// Nothing gets into the build but what the Dockerfile copies, and that is there.
func TestDockerignore(t *testing.T) {
	var lines, let []string
	for _, line := range strings.Split(read(t, "../.dockerignore"), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		lines = append(lines, line)
		if name, ok := strings.CutPrefix(line, "!"); ok {
			let = append(let, name)
		}
	}
	if lines[0] != "*" || slices.Contains(let, "**") {
		t.Errorf("not all is left out first: %v", lines)
	}
	_, s := stages(t)
	var copied []string
	for _, stage := range s {
		for _, args := range all(stage, "COPY") {
			if words := strings.Fields(args); !strings.HasPrefix(args, "--from=") {
				copied = append(copied, words[:len(words)-1]...)
			}
		}
	}
	sameNames(t, "sources", copied, let)
	for _, name := range copied {
		if _, err := os.Stat(filepath.Join("..", name)); err != nil {
			t.Error(err)
		}
	}
}

// service is what compose knows of one.
type service struct {
	Image              string
	Build              struct{ Context, Dockerfile string }
	Environment        []string
	Secrets            []string
	Volumes, Tmpfs     []string
	Ports, Profiles    []string
	ReadOnly           bool     `json:"read_only"`
	CapDrop            []string `json:"cap_drop"`
	SecurityOpt        []string `json:"security_opt"`
	NetworkMode        string   `json:"network_mode"`
	StopGracePeriod    string   `json:"stop_grace_period"`
	Ulimits            struct{ Core *int }
	DependsOn          map[string]struct{ Condition string } `json:"depends_on"`
	MemoryLimit        string                                `json:"mem_limit"`
	MemoryAndSwapLimit string                                `json:"memswap_limit"`
}

type compose struct {
	Services map[string]service
	Volumes  map[string]any
	Secrets  map[string]struct{ File string }
}

func readCompose(t *testing.T) (c compose) {
	t.Helper()
	into(t, documents(t, composeFile)[0], &c)
	return c
}

func composePlace(t *testing.T) place {
	s := readCompose(t).Services["bearer"]
	stop, err := time.ParseDuration(s.StopGracePeriod)
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir: "container", secrets: "/run/secrets", given: s.Secrets, env: s.Environment, stop: stop, volumes: map[string]string{}}
	for _, v := range s.Volumes {
		name, dir, _ := strings.Cut(v, ":")
		p.volumes[dir] = name
	}
	for _, v := range s.Tmpfs {
		dir, _, _ := strings.Cut(v, ":")
		p.volumes[dir] = "tmpfs"
	}
	return p
}

// Every container is locked up, the applications share the proxy's network, and
// no port of it is published.
func TestCompose(t *testing.T) {
	c := readCompose(t)
	if got := names(c.Services); !slices.Equal(got, []string{"bearer", "erp", "sandbox", "try"}) {
		t.Fatal(got)
	}
	for name, s := range c.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("%s: read_only %v, cap_drop %v, security_opt %v", name, s.ReadOnly, s.CapDrop, s.SecurityOpt)
		}
		if s.Ulimits.Core == nil || *s.Ulimits.Core != 0 || s.MemoryLimit == "" || s.MemoryLimit != s.MemoryAndSwapLimit {
			t.Errorf("%s: core %v, memory %q, with swap %q", name, s.Ulimits.Core, s.MemoryLimit, s.MemoryAndSwapLimit)
		}
		if len(s.Ports) > 0 {
			t.Errorf("%s publishes %v", name, s.Ports)
		}
		if tried := name == "sandbox" || name == "try"; tried != slices.Equal(s.Profiles, []string{"sandbox"}) {
			t.Errorf("%s is in the profiles %v", name, s.Profiles)
		}
		if ours := s.Build.Dockerfile != ""; ours && (s.Build.Dockerfile != "deploy/"+dockerfile || filepath.Join("container", s.Build.Context) != "..") {
			t.Errorf("%s is built from %v", name, s.Build)
		}
	}
	for client, proxy := range map[string]string{"erp": "bearer", "try": "sandbox"} {
		if s := c.Services[client]; s.NetworkMode != "service:"+proxy || len(s.DependsOn) != 1 || s.DependsOn[proxy].Condition == "" || len(s.Secrets) > 0 || len(s.Volumes) > 0 {
			t.Errorf("%s: %+v", client, s)
		}
	}
	if c.Services["erp"].DependsOn["bearer"].Condition != "service_healthy" {
		t.Error("the application doesn't wait")
	}
	bearer := c.Services["bearer"]
	sameNames(t, "secrets", bearer.Secrets, names(c.Secrets))
	for name, s := range c.Secrets {
		if s.File != "secrets/"+name {
			t.Errorf("secret %s is in %s", name, s.File)
		}
	}
	// What compose passes on without a value comes from outside of the file.
	if text := read(t, composeFile); regexp.MustCompile(`(?m)^\s*- [A-Z_]+=`).MatchString(text) {
		t.Error("a variable has a value")
	}
	if _, s := stages(t); !slices.Equal(all(s[1], "USER"), []string{"65532:65532"}) || !strings.Contains(bearer.Tmpfs[0], "uid=65532,gid=65532,mode=0700") {
		t.Errorf("the admin socket's directory is %v", bearer.Tmpfs)
	}
}

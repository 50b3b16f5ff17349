package deploy

import (
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

type probe struct {
	HTTPGet struct{ Path, Port string }
}

type container struct {
	Name, Image, RestartPolicy string
	Args                       []string
	EnvFrom                    []struct{ ConfigMapRef struct{ Name string } }
	Ports                      []struct {
		Name          string
		ContainerPort int
	}
	StartupProbe, LivenessProbe, ReadinessProbe *probe
	Resources                                   struct{ Requests, Limits map[string]string }
	SecurityContext                             struct {
		AllowPrivilegeEscalation *bool
		ReadOnlyRootFilesystem   bool
		Capabilities             struct{ Drop, Add []string }
		RunAsUser                *int
	}
	VolumeMounts []struct {
		Name, MountPath string
		ReadOnly        bool
	}
}

type deployment struct {
	Spec struct {
		Replicas int
		Strategy struct{ Type string }
		Template struct {
			Spec struct {
				AutomountServiceAccountToken  *bool
				TerminationGracePeriodSeconds int
				SecurityContext               struct {
					RunAsNonRoot          bool
					RunAsUser, RunAsGroup int
					FSGroup               int
					FSGroupChangePolicy   string
					SeccompProfile        struct{ Type string }
				}
				HostNetwork, HostPID, HostIPC bool
				ShareProcessNamespace         bool
				InitContainers, Containers    []container
				Volumes                       []volume
			}
		}
	}
}

type volume struct {
	Name      string
	ConfigMap struct{ Name string }
	Projected *struct {
		DefaultMode int
		Sources     []struct {
			Secret struct {
				Name  string
				Items []struct{ Key, Path string }
			}
		}
	}
	PersistentVolumeClaim struct{ ClaimName string }
	EmptyDir              *struct{ Medium string }
}

type kustomization struct {
	Resources          []string
	ConfigMapGenerator []struct {
		Name            string
		Files, Literals []string
	}
	Images []struct{ Name string }
}

func readDeployment(t *testing.T) (d deployment) {
	t.Helper()
	into(t, documents(t, "kubernetes/deployment.yaml")[0], &d)
	if spec := d.Spec.Template.Spec; len(spec.InitContainers) != 2 || spec.InitContainers[0].Name != "caddy-bearer" {
		t.Fatalf("the sidecar isn't first: %+v", spec.InitContainers)
	}
	return d
}

func readKustomization(t *testing.T) (k kustomization) {
	t.Helper()
	into(t, documents(t, "kubernetes/kustomization.yaml")[0], &k)
	return k
}

func kubernetesPlace(t *testing.T) place {
	spec := readDeployment(t).Spec.Template.Spec
	sidecar := spec.InitContainers[0]
	p := place{dir: "kubernetes", volumes: map[string]string{}}
	// The application has ended by then, but what it took is gone.
	p.stop = time.Duration(spec.TerminationGracePeriodSeconds)*time.Second - 30*time.Second
	for _, m := range sidecar.VolumeMounts {
		if !m.ReadOnly {
			p.volumes[m.MountPath] = m.Name
		}
		if m.Name == "secrets" {
			p.secrets = m.MountPath
		}
	}
	for _, v := range spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			for _, item := range source.Secret.Items {
				p.given = append(p.given, item.Path)
			}
		}
	}
	for _, g := range readKustomization(t).ConfigMapGenerator {
		for _, literal := range g.Literals {
			name, _, _ := strings.Cut(literal, "=")
			p.env = append(p.env, name)
		}
	}
	return p
}

// One pod at a time, which is what the restricted profile of the pod security
// standards wants, with files that the store doesn't refuse.
func TestDeployment(t *testing.T) {
	d := readDeployment(t)
	if d.Spec.Replicas != 1 || d.Spec.Strategy.Type != "Recreate" {
		t.Errorf("%d replicas, strategy %s: one active node per store", d.Spec.Replicas, d.Spec.Strategy.Type)
	}
	spec := d.Spec.Template.Spec
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Error("the pod gets a token of the cluster's API")
	}
	if spec.HostNetwork || spec.HostPID || spec.HostIPC || spec.ShareProcessNamespace {
		t.Error("it shares with others what keeps them apart")
	}
	sc := spec.SecurityContext
	if !sc.RunAsNonRoot || sc.RunAsUser != 65532 || sc.RunAsGroup != 65532 || sc.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("%+v", sc)
	}
	// Always would give the group the right to write to the store's files.
	if sc.FSGroup != 65532 || sc.FSGroupChangePolicy != "OnRootMismatch" {
		t.Errorf("fsGroup %d, %s", sc.FSGroup, sc.FSGroupChangePolicy)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		cc := c.SecurityContext
		if cc.AllowPrivilegeEscalation == nil || *cc.AllowPrivilegeEscalation || !cc.ReadOnlyRootFilesystem ||
			!slices.Equal(cc.Capabilities.Drop, []string{"ALL"}) || len(cc.Capabilities.Add) > 0 || cc.RunAsUser != nil && *cc.RunAsUser == 0 {
			t.Errorf("%s: %+v", c.Name, cc)
		}
		if m := c.Resources; m.Limits["memory"] == "" || m.Limits["memory"] != m.Requests["memory"] || m.Requests["cpu"] == "" || m.Limits["cpu"] != "" {
			t.Errorf("%s: %+v", c.Name, m)
		}
		for _, m := range c.VolumeMounts {
			if m.Name == "admin" && c.Image != "caddy-bearer" || m.Name == "secrets" && c.Name != "caddy-bearer" {
				t.Errorf("%s mounts %s", c.Name, m.Name)
			}
		}
	}
}

// The kubelet asks whether it lives, which is not whether it has tokens, where
// the Caddyfile answers.
func TestProbes(t *testing.T) {
	spec := readDeployment(t).Spec.Template.Spec
	sidecar, wait := spec.InitContainers[0], spec.InitContainers[1]
	if sidecar.RestartPolicy != "Always" || !slices.Equal(sidecar.Args, []string{"run", "--config", "/etc/caddy/Caddyfile"}) {
		t.Errorf("%+v", sidecar)
	}
	if wait.RestartPolicy != "" || len(wait.Args) < 2 || !slices.Equal(wait.Args[:2], []string{"bearer", "wait"}) {
		t.Errorf("%+v", wait)
	}
	out := string(adapted(t, read(t, "kubernetes/Caddyfile")))
	for _, p := range []struct {
		probe *probe
		path  string
	}{{sidecar.StartupProbe, "/live"}, {sidecar.LivenessProbe, "/live"}, {sidecar.ReadinessProbe, "/ready"}} {
		if p.probe == nil || p.probe.HTTPGet.Path != p.path || p.probe.HTTPGet.Port != "probes" {
			t.Errorf("want %s, got %+v", p.path, p.probe)
		}
		handler := map[string]string{"/live": "static_response", "/ready": "bearer_ready"}[p.path]
		if !strings.Contains(out, `"handler":"`+handler+`"`) || !strings.Contains(out, `"path":["`+p.path+`"]`) {
			t.Errorf("nothing answers %s in\n%s", p.path, out)
		}
	}
	if len(sidecar.Ports) != 1 || sidecar.Ports[0].Name != "probes" || sidecar.Ports[0].ContainerPort != 9090 {
		t.Errorf("ports %+v", sidecar.Ports)
	}
}

// What the pod names is there: claims, generated maps and files; and the
// secrets only root and the group can read.
func TestVolumes(t *testing.T) {
	var claims []string
	for _, doc := range documents(t, "kubernetes/volumes.yaml") {
		var pvc struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     struct{ AccessModes []string }
		}
		into(t, doc, &pvc)
		if pvc.Kind != "PersistentVolumeClaim" || !slices.Equal(pvc.Spec.AccessModes, []string{"ReadWriteOncePod"}) {
			t.Errorf("%+v", pvc)
		}
		claims = append(claims, pvc.Metadata.Name)
	}
	k := readKustomization(t)
	maps := map[string][]string{}
	for _, g := range k.ConfigMapGenerator {
		maps[g.Name] = append(g.Files, g.Literals...)
	}
	spec := readDeployment(t).Spec.Template.Spec
	var claimed []string
	for _, v := range spec.Volumes {
		switch {
		case v.Projected != nil:
			if v.Projected.DefaultMode != 0o400 {
				t.Errorf("mode %o", v.Projected.DefaultMode)
			}
		case v.EmptyDir != nil:
			if v.EmptyDir.Medium != "Memory" {
				t.Errorf("%s is on a disk", v.Name)
			}
		case v.ConfigMap.Name != "":
			if !slices.Equal(maps[v.ConfigMap.Name], []string{"Caddyfile"}) {
				t.Errorf("%s is %v", v.ConfigMap.Name, maps[v.ConfigMap.Name])
			}
		default:
			claimed = append(claimed, v.PersistentVolumeClaim.ClaimName)
		}
	}
	sameNames(t, "claims", claimed, claims)
	for _, from := range spec.InitContainers[0].EnvFrom {
		if len(maps[from.ConfigMapRef.Name]) == 0 {
			t.Errorf("there is no ConfigMap %s", from.ConfigMapRef.Name)
		}
	}
	for _, name := range k.Resources {
		documents(t, path.Join("kubernetes", name))
	}
}

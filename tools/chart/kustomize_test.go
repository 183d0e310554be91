package chart

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

func build(t *testing.T, helm, dir string) objects {
	t.Helper()
	manifests, err := run(kustomize(), "build", "--enable-helm", "--helm-command", helms[helm](), dir)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, manifests)
}

// TestKustomize builds every overlay of the repository.
func TestKustomize(t *testing.T) {
	want := map[string][]string{
		"dev": {"Deployment/roster", "Namespace/roster", "NetworkPolicy/roster", "PersistentVolumeClaim/roster",
			"Service/roster", "ServiceAccount/roster"},
		"production": {
			"ConfigMap/roster-dashboard", "Deployment/roster", "HorizontalPodAutoscaler/roster", "Ingress/roster",
			"Namespace/roster",
			"NetworkPolicy/default-deny", "NetworkPolicy/roster", "PodDisruptionBudget/roster", "PriorityClass/roster",
			"PrometheusRule/roster",
			"Service/roster", "Service/roster-metrics", "ServiceAccount/roster", "ServiceMonitor/roster",
		},
	}
	overlays, err := os.ReadDir(root + "/kustomize/overlays")
	if err != nil {
		t.Fatal(err)
	}
	for _, overlay := range overlays {
		for helm := range helms {
			t.Run(overlay.Name()+" "+helm, func(t *testing.T) {
				found := build(t, helm, root+"/kustomize/overlays/"+overlay.Name())
				if diff := cmp.Diff(want[overlay.Name()], slices.Sorted(maps.Keys(found))); diff != "" {
					t.Errorf("objects (-want +got):\n%s", diff)
				}
				for key, o := range found {
					clusterWide := key == "Namespace/roster" || key == "PriorityClass/roster"
					if ns := o.GetNamespace(); !clusterWide && ns != "roster" {
						t.Errorf("%s is in namespace %q", key, ns)
					}
				}
				if overlay.Name() == "production" {
					checkPods(t, found)
					checkMonitoring(t, found)
				}
			})
		}
	}
	copies, err := filepath.Glob(root + "/kustomize/*/*/charts")
	if err != nil || len(copies) > 0 {
		t.Errorf("the chart was copied to %v (%v)", copies, err)
	}
}

// examples returns the YAML blocks of kustomize/README.md.
func examples(t *testing.T) (blocks []string) {
	t.Helper()
	readme, err := os.ReadFile(root + "/kustomize/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(readme), "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		blocks = append(blocks, block)
	}
	if len(blocks) != 4 {
		t.Fatalf("%d YAML blocks", len(blocks))
	}
	return blocks
}

func TestOwnRepository(t *testing.T) {
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	published, patched := t.TempDir(), t.TempDir()
	// Kustomize pulls no chart that this directory has.
	charts := filepath.Join(published, "charts/roster-1.0.0")
	production := abs + "/kustomize/overlays/production/"
	dev, err := filepath.Rel(patched, abs+"/kustomize/overlays/dev")
	if err != nil {
		t.Fatal(err)
	}
	local := strings.Replace(examples(t)[1], "https://github.com/OWNER/roster//kustomize/overlays/dev?ref=v1.0.0", dev,
		1)
	for _, err := range []error{
		os.MkdirAll(charts, 0o700),
		os.Symlink(abs+"/chart", charts+"/roster"),
		os.WriteFile(published+"/kustomization.yaml", []byte(examples(t)[0]), 0o600),
		os.WriteFile(published+"/values.yaml", readFile(t, "../kustomize/overlays/production/values.yaml"), 0o600),
		os.WriteFile(published+"/namespace.yaml", readFile(t, "../kustomize/namespace/namespace.yaml"), 0o600),
		os.WriteFile(patched+"/kustomization.yaml", []byte(local), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := build(t, "helm4", production)
	for _, key := range []string{"NetworkPolicy/default-deny", "PriorityClass/roster"} {
		delete(want, key)
	}
	if diff := cmp.Diff(want, build(t, "helm4", published)); diff != "" {
		t.Errorf("published chart (-overlay +example):\n%s", diff)
	}
	deployment := get[*appsv1.Deployment](t, build(t, "helm4", patched))
	if image := deployment.Spec.Template.Spec.Containers[0].Image; image != "registry.example.com/roster:1.0.0" {
		t.Errorf("patched overlay: image %s", image)
	}
}

// TestGitOps renders the values of the examples for Argo CD and Flux.
func TestGitOps(t *testing.T) {
	var application struct {
		Spec struct {
			Source struct{ Helm struct{ ValuesObject any } }
		}
	}
	var release struct{ Spec struct{ Values any } }
	_, helmRelease, _ := strings.Cut(examples(t)[3], "---\n")
	if err := yaml.Unmarshal([]byte(examples(t)[2]), &application); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(helmRelease), &release); err != nil {
		t.Fatal(err)
	}
	own := get[*appsv1.Deployment](t, render(t, "helm4", awsValues)).Spec.Template.Spec.Containers[0].Image
	for name, values := range map[string]any{"Argo CD": application.Spec.Source.Helm.ValuesObject,
		"Flux": release.Spec.Values} {
		text, err := yaml.Marshal(values)
		if err != nil {
			t.Fatal(err)
		}
		found := render(t, "helm4", string(text))
		if found["HorizontalPodAutoscaler/rel-roster"] == nil {
			t.Errorf("%s: objects %v", name, slices.Sorted(maps.Keys(found)))
		}
		// Chart and image are upgraded together.
		if image := get[*appsv1.Deployment](t, found).Spec.Template.Spec.Containers[0].Image; image != own {
			t.Errorf("%s: image %s, want the chart's own, %s", name, image, own)
		}
	}
}

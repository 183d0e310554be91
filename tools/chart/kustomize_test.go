package chart

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKustomize builds every overlay of the repository.
func TestKustomize(t *testing.T) {
	want := map[string][]string{
		"dev": {"Deployment/roster", "Namespace/roster", "NetworkPolicy/roster", "PersistentVolumeClaim/roster", "Service/roster", "ServiceAccount/roster"},
		"production": {
			"ConfigMap/roster-dashboard", "Deployment/roster", "HorizontalPodAutoscaler/roster", "Ingress/roster", "Namespace/roster",
			"NetworkPolicy/default-deny", "NetworkPolicy/roster", "PodDisruptionBudget/roster", "PriorityClass/roster", "PrometheusRule/roster",
			"Service/roster", "Service/roster-metrics", "ServiceAccount/roster", "ServiceMonitor/roster",
		},
	}
	overlays, err := os.ReadDir(root + "/kustomize/overlays")
	if err != nil {
		t.Fatal(err)
	}
	for _, overlay := range overlays {
		for helm, path := range helms {
			t.Run(overlay.Name()+" "+helm, func(t *testing.T) {
				manifests, err := run(kustomize(), "build", "--enable-helm", "--helm-command", path(), root+"/kustomize/overlays/"+overlay.Name())
				if err != nil {
					t.Fatal(err)
				}
				found := decode(t, manifests)
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

// Package chart tests the Helm chart and the Kustomize overlays. The real programs render them, and the tests decode
// the
// manifests strictly into the types of the Kubernetes API.
package chart

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

const (
	root      = "../.."
	chartDir  = root + "/chart"
	release   = "rel"
	namespace = "space"

	// A Helm that was built without its release flags assumes v1.20.
	kubeVersion = "--kube-version=v1.34.0"
)

// program returns the path of a tool that a Go module beside this one pins.
func program(module string) func() string {
	return sync.OnceValue(func() string {
		out, err := exec.Command("../tool", module).Output() // #nosec G204 -- constant arguments
		if err != nil {
			panic(fmt.Sprintf("../tool %s: %v", module, err))
		}
		return strings.TrimSpace(string(out))
	})
}

// The chart supports both major versions of Helm.
var helms = map[string]func() string{"helm3": program("helm3"), "helm4": program("helm4")}

var kustomize = program("kustomize")

func run(name string, args ...string) (stdout string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...) // #nosec G204 -- the programs above
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

func valuesFile(t *testing.T, values string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func template(t *testing.T, helm, values string) (string, error) {
	t.Helper()
	return run(helms[helm](), "template", release, chartDir, kubeVersion, "--namespace", namespace, "--values",
		valuesFile(t, values))
}

// render renders the chart and decodes it.
func render(t *testing.T, helm, values string) objects {
	t.Helper()
	manifests, err := template(t, helm, values)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, manifests)
}

// objects by kind and name.
type objects map[string]metav1.Object

// kinds are the allowed types of objects.
var kinds = map[string]func() metav1.Object{
	"apps/v1 Deployment":                      func() metav1.Object { return new(appsv1.Deployment) },
	"autoscaling/v2 HorizontalPodAutoscaler":  func() metav1.Object { return new(autoscalingv2.HorizontalPodAutoscaler) },
	"gateway.networking.k8s.io/v1 HTTPRoute":  func() metav1.Object { return new(gatewayv1.HTTPRoute) },
	"monitoring.coreos.com/v1 PrometheusRule": func() metav1.Object { return new(monitoringv1.PrometheusRule) },
	"monitoring.coreos.com/v1 ServiceMonitor": func() metav1.Object { return new(monitoringv1.ServiceMonitor) },
	"networking.k8s.io/v1 Ingress":            func() metav1.Object { return new(networkingv1.Ingress) },
	"networking.k8s.io/v1 NetworkPolicy":      func() metav1.Object { return new(networkingv1.NetworkPolicy) },
	"policy/v1 PodDisruptionBudget":           func() metav1.Object { return new(policyv1.PodDisruptionBudget) },
	"scheduling.k8s.io/v1 PriorityClass":      func() metav1.Object { return new(schedulingv1.PriorityClass) },
	"v1 ConfigMap":                            func() metav1.Object { return new(corev1.ConfigMap) },
	"v1 Namespace":                            func() metav1.Object { return new(corev1.Namespace) },
	"v1 PersistentVolumeClaim":                func() metav1.Object { return new(corev1.PersistentVolumeClaim) },
	"v1 Pod":                                  func() metav1.Object { return new(corev1.Pod) },
	"v1 Service":                              func() metav1.Object { return new(corev1.Service) },
	"v1 ServiceAccount":                       func() metav1.Object { return new(corev1.ServiceAccount) },
}

// decode fails on unknown fields, duplicate fields and duplicate objects.
func decode(t *testing.T, manifests string) objects {
	t.Helper()
	found := objects{}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifests)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal(document, &meta); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		if meta.Kind == "" { // comments only
			continue
		}
		make, ok := kinds[meta.APIVersion+" "+meta.Kind]
		if !ok {
			t.Fatalf("unknown kind: %v", meta)
		}
		o := make()
		if err := yaml.UnmarshalStrict(document, o); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		key := meta.Kind + "/" + o.GetName()
		if found[key] != nil {
			t.Fatalf("%s is defined twice", key)
		}
		found[key] = o
	}
}

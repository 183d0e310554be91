package chart

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// albIdleTimeout is the default of Application Load Balancers.
const albIdleTimeout = 60 * time.Second

// TestIdleTimeout checks that every load balancer closes an idle connection before the server does. A request on a
// connection that the server is closing gets 502.
func TestIdleTimeout(t *testing.T) {
	server := serverIdleTimeout(t)
	if albIdleTimeout >= server {
		t.Errorf("the server closes idle connections after %v, a load balancer after %v", server, albIdleTimeout)
	}
	// As an annotation, and as an item of loadBalancerAttributes.
	attribute := regexp.MustCompile(`idle_timeout\.timeout_seconds\W+(?:value\W+)?(\d+)`)
	files := 0
	for _, dir := range []string{"chart", "docs", "kustomize", "terraform"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.Contains(path, ".terraform") {
				return err
			}
			files++
			text, err := os.ReadFile(path) // #nosec G304 -- a file of the repository
			for _, match := range attribute.FindAllStringSubmatch(string(text), -1) {
				seconds, _ := strconv.Atoi(match[1])
				if timeout := time.Duration(seconds) * time.Second; timeout >= server {
					t.Errorf("%s: the load balancer closes idle connections after %v, the server after %v", path,
						timeout, server)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 50 {
		t.Errorf("found only %d files", files)
	}
}

// serverIdleTimeout reads http.Server.IdleTimeout from the service's source.
func serverIdleTimeout(t *testing.T) time.Duration {
	t.Helper()
	sources, err := filepath.Glob(root + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if match := regexp.MustCompile(`IdleTimeout: +(\d+) \* time\.Minute,`).FindSubmatch(text); match != nil {
			minutes, _ := strconv.Atoi(string(match[1]))
			return time.Duration(minutes) * time.Minute
		}
	}
	t.Fatal("no IdleTimeout in minutes")
	return 0
}

// TestClusterYAML checks that claims without a class bind, and that the one namespace that may create load balancers
// has the labels for readiness gates.
func TestClusterYAML(t *testing.T) {
	namespace := build(t, "helm4", root+"/kustomize/namespace")["Namespace/roster"]
	for _, label := range []string{"eks.amazonaws.com/pod-readiness-gate-inject",
		"elbv2.k8s.aws/pod-readiness-gate-inject"} {
		if got := namespace.GetLabels()[label]; got != "enabled" {
			t.Errorf("label %s of the namespace: %q, want enabled", label, got)
		}
	}
	text, err := os.ReadFile(root + "/terraform/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]clusterObject{}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var o clusterObject
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			t.Fatal(err)
		}
		kinds[o.Kind] = o
	}
	class := kinds["StorageClass"]
	if class.Provisioner != "ebs.csi.eks.amazonaws.com" ||
		class.Metadata.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" {
		t.Errorf("default StorageClass of Auto Mode: %+v", class)
	}
	params := kinds["IngressClassParams"].Spec
	if got := params.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]; got != namespace.GetName() {
		t.Errorf("namespace that may create load balancers: %q, want %q", got, namespace.GetName())
	}
}

// clusterObject has the fields of the objects in cluster.yaml that the test reads.
type clusterObject struct {
	Kind        string
	Provisioner string
	Metadata    struct{ Annotations map[string]string }
	Spec        struct {
		NamespaceSelector struct{ MatchLabels map[string]string }
	}
}

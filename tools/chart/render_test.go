package chart

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

const (
	awsValues      = "aws: {region: eu-west-1, dynamodbTable: users, s3Bucket: avatars}\n"
	embeddedValues = "embedded: {enabled: true}\n"

	// As printed by Terraform's output helm_values.
	terraformValues = `"aws":
  "dynamodbTable": "roster-users"
  "region": "eu-west-1"
  "s3Bucket": "roster-avatars-111122223333"
"image":
  "repository": "111122223333.dkr.ecr.eu-west-1.amazonaws.com/roster"
  "tag": "1.2.3"
"nodeSpread": "DoNotSchedule"
"serviceAccount":
  "name": "roster"
`
)

// matrix has typical values and the objects that they create.
var matrix = []struct {
	name, values string
	want         []string
}{
	{
		"aws", awsValues,
		[]string{"Deployment/rel-roster", "HorizontalPodAutoscaler/rel-roster", "NetworkPolicy/rel-roster",
			"Pod/rel-roster-test", "PodDisruptionBudget/rel-roster", "Service/rel-roster", "ServiceAccount/rel-roster"},
	},
	{
		"embedded", embeddedValues,
		[]string{"Deployment/rel-roster", "NetworkPolicy/rel-roster", "PersistentVolumeClaim/rel-roster",
			"Pod/rel-roster-test", "Service/rel-roster", "ServiceAccount/rel-roster"},
	},
	{
		"terraform", terraformValues,
		[]string{"Deployment/rel-roster", "HorizontalPodAutoscaler/rel-roster", "NetworkPolicy/rel-roster",
			"Pod/rel-roster-test", "PodDisruptionBudget/rel-roster", "Service/rel-roster", "ServiceAccount/roster"},
	},
	{
		"irsa", awsValues + `
serviceAccount:
  name: roster
  annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::111122223333:role/roster"}
`,
		[]string{"Deployment/rel-roster", "HorizontalPodAutoscaler/rel-roster", "NetworkPolicy/rel-roster",
			"Pod/rel-roster-test", "PodDisruptionBudget/rel-roster", "Service/rel-roster", "ServiceAccount/roster"},
	},
	{
		"emulator", `
aws: {region: eu-west-1, dynamodbTable: users, s3Bucket: avatars, endpointUrl: "http://emulator:8000", s3EndpointUrl: "http://s3.local:7070/", existingSecret: credentials}
serviceAccount: {create: false, name: there-already}
autoscaling: {enabled: false}
networkPolicy: {enabled: false}
`,
		[]string{"Deployment/rel-roster", "Pod/rel-roster-test", "PodDisruptionBudget/rel-roster",
			"Service/rel-roster"},
	},
	{
		"everything", awsValues + `
fullnameOverride: people
image: {repository: "registry.example:5000/team/roster", tag: "1.2.3@sha256:` + strings.Repeat("0", 64) + `", pullSecrets: [one, two]}
auth: {existingSecret: tokens, avatarsPublic: true}
publicUrl: https://people.example.com
maxAvatarBytes: 67108864
logLevel: debug
resources: {requests: {cpu: 1, memory: 1Gi, ephemeral-storage: 1Gi}, limits: {cpu: 2.5, memory: 2G}}
shutdown: {delaySeconds: 40, timeoutSeconds: 60}
podAnnotations: {a: b}
podLabels: {team: people}
priorityClassName: high
affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: a, operator: Exists}]}}]}}
nodeSelector: {kubernetes.io/arch: arm64}
tolerations: [{key: spot, operator: Exists, effect: NoSchedule}]
service: {type: LoadBalancer, port: 8000, annotations: {c: d}, trafficDistribution: PreferClose}
ingress: {enabled: true, className: alb, annotations: {e: f}, host: people.example.com, tlsSecret: certificate}
httpRoute: {enabled: true, parentRefs: [{name: gateway, namespace: infra, sectionName: https}], hostnames: [people.example.com, "*.example.org"]}
networkPolicy: {ingressFrom: [{ipBlock: {cidr: 10.0.0.0/16}}], metricsFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}, podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}}]}
monitoring: {labels: {release: prometheus}, serviceMonitor: true, prometheusRule: true, dashboard: true}
`,
		[]string{"ConfigMap/people-dashboard", "Deployment/people", "HTTPRoute/people",
			"HorizontalPodAutoscaler/people",
			"Ingress/people", "NetworkPolicy/people", "Pod/people-test", "PodDisruptionBudget/people",
			"PrometheusRule/people",
			"Service/people", "Service/people-metrics", "ServiceAccount/people", "ServiceMonitor/people"},
	},
	{
		"embedded with everything", `
embedded: {enabled: true, size: 500G, storageClassName: gp3}
auth: {existingSecret: tokens}
monitoring: {serviceMonitor: true, prometheusRule: true, dashboard: true}
ingress: {enabled: true}
httpRoute: {enabled: true, parentRefs: [{name: gateway}]}
`,
		[]string{"ConfigMap/rel-roster-dashboard", "Deployment/rel-roster", "HTTPRoute/rel-roster",
			"Ingress/rel-roster", "NetworkPolicy/rel-roster", "PersistentVolumeClaim/rel-roster", "Pod/rel-roster-test",
			"PrometheusRule/rel-roster",
			"Service/rel-roster", "Service/rel-roster-metrics", "ServiceAccount/rel-roster",
			"ServiceMonitor/rel-roster"},
	},
}

func TestRender(t *testing.T) {
	for _, test := range matrix {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			found := render(t, "helm4", test.values)
			if diff := cmp.Diff(test.want, slices.Sorted(maps.Keys(found))); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
			for key, o := range found {
				if o.GetNamespace() != namespace {
					t.Errorf("%s is in namespace %q", key, o.GetNamespace())
				}
			}
			checkPods(t, found)
			checkReferences(t, found)
			checkMonitoring(t, found)
			if diff := cmp.Diff(render(t, "helm3", test.values), found); diff != "" {
				t.Errorf("helm3 and helm4 differ (-3 +4):\n%s", diff)
			}
		})
	}
}

func TestLint(t *testing.T) {
	for helm, path := range helms {
		for _, test := range matrix {
			t.Run(helm+" "+test.name, func(t *testing.T) {
				t.Parallel()
				values := valuesFile(t, test.values)
				if out, err := run(path(), "lint", "--strict", kubeVersion, "--values", values, chartDir); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}

// get returns the only object of a type, or nil.
func get[T metav1.Object](t *testing.T, found objects) (only T) {
	t.Helper()
	n := 0
	for _, o := range found {
		if o, ok := o.(T); ok {
			only, n = o, n+1
		}
	}
	if n > 1 {
		t.Fatalf("%d objects of type %T", n, only)
	}
	return only
}

// checkPods checks the properties of all pods, independent of the values.
func checkPods(t *testing.T, found objects) {
	t.Helper()
	standard, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	deployment := get[*appsv1.Deployment](t, found)
	templates := map[string]corev1.PodTemplateSpec{"deployment": deployment.Spec.Template}
	for key, o := range found {
		if pod, ok := o.(*corev1.Pod); ok {
			templates[key] = corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}
		}
	}
	for name, pod := range templates {
		level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
		if result := policy.AggregateCheckResults(standard.EvaluatePod(level, &pod.ObjectMeta,
			&pod.Spec)); !result.Allowed {
			t.Errorf("%s does not meet the restricted standard: %s", name, result.ForbiddenDetail())
		}
		if token := pod.Spec.AutomountServiceAccountToken; token == nil || *token {
			t.Errorf("%s gets a service account token", name)
		}
		if links := pod.Spec.EnableServiceLinks; links == nil || *links {
			t.Errorf("%s gets variables of Services", name)
		}
		for _, c := range pod.Spec.Containers {
			if readOnly := c.SecurityContext.ReadOnlyRootFilesystem; readOnly == nil || !*readOnly {
				t.Errorf("%s: the root file system can be written", name)
			}
			if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() ||
				c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: resources %v", name, c.Resources)
			}
			if c.ImagePullPolicy != corev1.PullIfNotPresent || strings.HasSuffix(c.Image, ":latest") ||
				!strings.Contains(c.Image, ":") {
				t.Errorf("%s: image %s, pulled %s", name, c.Image, c.ImagePullPolicy)
			}
		}
	}

	pod := deployment.Spec.Template.Spec
	container := pod.Containers[0]
	env := environment(t, container)
	delay, err1 := time.ParseDuration(env["SHUTDOWN_DELAY"])
	timeout, err2 := time.ParseDuration(env["SHUTDOWN_TIMEOUT"])
	grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
	if err1 != nil || err2 != nil || grace < delay+timeout+5*time.Second {
		t.Errorf("a grace period of %v is too short for SHUTDOWN_DELAY=%s and SHUTDOWN_TIMEOUT=%s", grace,
			env["SHUTDOWN_DELAY"], env["SHUTDOWN_TIMEOUT"])
	}
	embedded := env["DATA_DIR"] != ""
	// The readiness probe must fail before the delay ends.
	probe := container.ReadinessProbe
	unready := time.Duration(probe.PeriodSeconds*probe.FailureThreshold+probe.TimeoutSeconds) * time.Second
	if !embedded && delay < unready {
		t.Errorf("SHUTDOWN_DELAY=%v ends before the readiness probe has failed (%v)", delay, unready)
	}
	if container.LivenessProbe.HTTPGet.Path != "/livez" || container.StartupProbe.HTTPGet.Path != "/livez" ||
		probe.HTTPGet.Path != "/readyz" {
		t.Errorf("probes request %s, %s, %s", container.StartupProbe.HTTPGet.Path, probe.HTTPGet.Path,
			container.LivenessProbe.HTTPGet.Path)
	}
	if embedded && delay != time.Second {
		t.Errorf("SHUTDOWN_DELAY=%v with the embedded store, want 1s", delay)
	}
	started := container.StartupProbe.PeriodSeconds * container.StartupProbe.FailureThreshold
	if *deployment.Spec.ProgressDeadlineSeconds <= started {
		t.Error("the progress deadline is shorter than the startup probe")
	}
	strategy := deployment.Spec.Strategy
	if embedded {
		if strategy.Type != appsv1.RecreateDeploymentStrategyType || *deployment.Spec.Replicas != 1 {
			t.Errorf("the embedded store has %d replicas and strategy %s", *deployment.Spec.Replicas, strategy.Type)
		}
		return
	}
	if strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
		t.Errorf("a rollout takes pods away before it has others: %v", strategy.RollingUpdate)
	}
	checkSpread(t, pod.TopologySpreadConstraints)
}

// checkSpread checks that the spread over zones is a preference. The one over nodes is a preference too, or requires
// two
// nodes that pods can use.
func checkSpread(t *testing.T, constraints []corev1.TopologySpreadConstraint) {
	t.Helper()
	if len(constraints) != 2 {
		t.Fatalf("%d spread constraints, want 2", len(constraints))
	}
	zone, node := constraints[0], constraints[1]
	if zone.TopologyKey != corev1.LabelTopologyZone || zone.WhenUnsatisfiable != corev1.ScheduleAnyway {
		t.Errorf("spread over zones: %s by %s", zone.WhenUnsatisfiable, zone.TopologyKey)
	}
	if node.TopologyKey != corev1.LabelHostname || node.MaxSkew != 1 {
		t.Errorf("spread over nodes: skew %d by %s", node.MaxSkew, node.TopologyKey)
	}
	if node.WhenUnsatisfiable == corev1.ScheduleAnyway {
		return
	}
	if node.MinDomains == nil || *node.MinDomains != 2 {
		t.Errorf("required spread over nodes: minDomains %v, want 2", node.MinDomains)
	}
	if node.NodeTaintsPolicy == nil || *node.NodeTaintsPolicy != corev1.NodeInclusionPolicyHonor {
		t.Errorf("required spread over nodes: nodeTaintsPolicy %v, want Honor", node.NodeTaintsPolicy)
	}
}

// TestNodeSpread checks what requires two nodes: the values of Terraform and the production overlay.
func TestNodeSpread(t *testing.T) {
	for name, test := range map[string]struct {
		found objects
		want  corev1.UnsatisfiableConstraintAction
	}{
		"defaults":   {render(t, "helm4", awsValues), corev1.ScheduleAnyway},
		"terraform":  {render(t, "helm4", terraformValues), corev1.DoNotSchedule},
		"production": {build(t, "helm4", root+"/kustomize/overlays/production"), corev1.DoNotSchedule},
	} {
		spread := get[*appsv1.Deployment](t, test.found).Spec.Template.Spec.TopologySpreadConstraints
		if got := spread[1].WhenUnsatisfiable; got != test.want {
			t.Errorf("%s: spread over nodes %s, want %s", name, got, test.want)
		}
	}
}

// environment returns a container's variables and reports duplicates.
func environment(t *testing.T, c corev1.Container) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, v := range c.Env {
		if _, twice := env[v.Name]; twice {
			t.Errorf("%s is set twice", v.Name)
		}
		env[v.Name] = v.Value
	}
	return env
}

// checkReferences checks that names and selectors match their objects.
func checkReferences(t *testing.T, found objects) {
	t.Helper()
	deployment := get[*appsv1.Deployment](t, found)
	pod := deployment.Spec.Template
	selects := func(what string, selector map[string]string, o map[string]string, want bool) {
		t.Helper()
		if len(selector) == 0 || labels.SelectorFromSet(selector).Matches(labels.Set(o)) != want {
			t.Errorf("%s selects %v: %v", what, o, !want)
		}
	}
	selects("the Deployment", deployment.Spec.Selector.MatchLabels, pod.Labels, true)
	for _, c := range pod.Spec.TopologySpreadConstraints {
		selects("the spread", c.LabelSelector.MatchLabels, pod.Labels, true)
	}
	portOf := func(name string) (number int32) {
		for _, p := range pod.Spec.Containers[0].Ports {
			if p.Name == name {
				number = p.ContainerPort
			}
		}
		return number
	}
	for key, o := range found {
		switch o := o.(type) {
		case *corev1.Service:
			selects(key, o.Spec.Selector, pod.Labels, true)
			for _, p := range o.Spec.Ports {
				if portOf(p.TargetPort.StrVal) == 0 {
					t.Errorf("%s has target port %v", key, p.TargetPort)
				}
			}
			if o.Spec.Type != "" && len(o.Spec.Ports) != 1 {
				t.Errorf("%s publishes more than the API: %v", key, o.Spec.Ports)
			}
		case *corev1.Pod:
			for _, s := range found {
				if s, ok := s.(*corev1.Service); ok {
					selects(s.Name, s.Spec.Selector, o.Labels, false)
				}
			}
		case *policyv1.PodDisruptionBudget:
			selects(key, o.Spec.Selector.MatchLabels, pod.Labels, true)
		case *networkingv1.NetworkPolicy:
			selects(key, o.Spec.PodSelector.MatchLabels, pod.Labels, true)
			if o.Spec.Ingress[0].Ports[0].Port.IntVal != portOf("http") ||
				o.Spec.Ingress[1].Ports[0].Port.IntVal != portOf("metrics") {
				t.Errorf("%s opens %v", key, o.Spec.Ingress)
			}
			if len(o.Spec.PolicyTypes) != 2 {
				t.Errorf("%s has the types %v", key, o.Spec.PolicyTypes)
			}
			if peers := o.Spec.Ingress[0].From; len(peers) > 0 {
				test := found[strings.Replace(key, "NetworkPolicy", "Pod", 1)+"-test"]
				selects(key, peers[len(peers)-1].PodSelector.MatchLabels, test.GetLabels(), true)
			}
		case *autoscalingv2.HorizontalPodAutoscaler:
			if o.Spec.ScaleTargetRef.Name != deployment.Name || deployment.Spec.Replicas != nil {
				t.Errorf("%s scales %s, whose replicas are set to %v", key, o.Spec.ScaleTargetRef.Name,
					deployment.Spec.Replicas)
			}
		case *monitoringv1.ServiceMonitor:
			n := 0
			for _, s := range found {
				if s, ok := s.(*corev1.Service); ok && labels.SelectorFromSet(o.Spec.Selector.MatchLabels).Matches(labels.Set(s.Labels)) {
					n++
					if s.Spec.Ports[0].Name != o.Spec.Endpoints[0].Port {
						t.Errorf("%s looks for port %s of %s", key, o.Spec.Endpoints[0].Port, s.Name)
					}
				}
			}
			if n != 1 {
				t.Errorf("%s selects %d Services", key, n)
			}
		}
	}
	account := pod.Spec.ServiceAccountName
	if a := get[*corev1.ServiceAccount](t, found); a != nil && a.Name != account {
		t.Errorf("pods run as %s, and there is %s", account, a.Name)
	}
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
		if c := v.PersistentVolumeClaim; c != nil && found["PersistentVolumeClaim/"+c.ClaimName] == nil {
			t.Errorf("there is no claim %s", c.ClaimName)
		}
	}
	for _, m := range pod.Spec.Containers[0].VolumeMounts {
		if !volumes[m.Name] || m.SubPath != "" {
			t.Errorf("mount %v", m)
		}
	}
}

// checkMonitoring checks that Helm did not evaluate the templates in the alerts and the dashboard.
func checkMonitoring(t *testing.T, found objects) {
	t.Helper()
	if rule := get[*monitoringv1.PrometheusRule](t, found); rule != nil {
		var want monitoringv1.PrometheusRuleSpec
		if err := yaml.UnmarshalStrict(readFile(t, "files/alerts.yaml"), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, rule.Spec); diff != "" || len(want.Groups) == 0 {
			t.Errorf("alerts (-file +rendered):\n%s", diff)
		}
	}
	if dashboard := get[*corev1.ConfigMap](t, found); dashboard != nil {
		for name, got := range dashboard.Data {
			want := strings.TrimSpace(string(readFile(t, "files/dashboard.json")))
			if diff := cmp.Diff(want, strings.TrimSpace(got)); diff != "" || got == "" {
				t.Errorf("%s (-file +rendered):\n%s", name, diff)
			}
		}
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(chartDir, name)) // #nosec G304 -- a file of the chart
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRunbookURL(t *testing.T) {
	const url = "https://wiki.example/roster"
	rule := get[*monitoringv1.PrometheusRule](t, render(t, "helm4",
		awsValues+"monitoring: {prometheusRule: true, runbookUrl: '"+url+"'}"))
	alerts := 0
	for _, group := range rule.Spec.Groups {
		for _, r := range group.Rules {
			if r.Alert == "" {
				continue
			}
			alerts++
			if got, want := r.Annotations["runbook_url"], url+"#"+strings.ToLower(r.Alert); got != want {
				t.Errorf("%s: runbook_url %s, want %s", r.Alert, got, want)
			}
		}
	}
	if alerts == 0 {
		t.Error("no alerts")
	}
}

// TestKubeVersion checks the oldest supported version, also as EKS reports it.
func TestKubeVersion(t *testing.T) {
	for helm, path := range helms {
		for version, want := range map[string]bool{"v1.30.14": false, "v1.31.0": true, "v1.31.2-eks-7f9249a": true,
			"v1.36.1": true} {
			_, err := run(path(), "template", release, chartDir, "--kube-version", version, "--set",
				"embedded.enabled=true")
			if got := err == nil; got != want {
				t.Errorf("%s, Kubernetes %s: %v", helm, version, err)
			}
		}
	}
}

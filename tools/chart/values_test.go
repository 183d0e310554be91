package chart

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

// changes has a different setting for each value, and the values it depends on.
var changes = map[string]struct{ values, change string }{
	"fullnameOverride":          {awsValues, `fullnameOverride: people`},
	"image.repository":          {awsValues, `image: {repository: registry.example/roster}`},
	"image.tag":                 {awsValues, `image: {tag: 1.2.3}`},
	"image.pullSecrets":         {awsValues, `image: {pullSecrets: [registry]}`},
	"aws.region":                {awsValues, `aws: {region: eu-central-1}`},
	"aws.dynamodbTable":         {awsValues, `aws: {dynamodbTable: other}`},
	"aws.s3Bucket":              {awsValues, `aws: {s3Bucket: other}`},
	"aws.endpointUrl":           {awsValues, `aws: {endpointUrl: "http://emulator:4566"}`},
	"aws.s3EndpointUrl":         {awsValues, `aws: {s3EndpointUrl: "http://emulator:4566"}`},
	"aws.existingSecret":        {awsValues, `aws: {existingSecret: credentials}`},
	"embedded.enabled":          {"", `embedded: {enabled: true}`},
	"embedded.size":             {embeddedValues, `embedded: {size: 2Gi}`},
	"embedded.storageClassName": {embeddedValues, `embedded: {storageClassName: gp3}`},
	"auth.existingSecret":       {awsValues, `auth: {existingSecret: tokens}`},
	"auth.avatarsPublic": {awsValues + "auth: {existingSecret: tokens}",
		`auth: {avatarsPublic: true}`},
	"publicUrl":      {awsValues, `publicUrl: https://roster.example.com`},
	"maxAvatarBytes": {awsValues, `maxAvatarBytes: 1000000`},
	"logLevel":       {awsValues, `logLevel: warn`},
	"serviceAccount.create": {awsValues + "serviceAccount: {name: roster}",
		`serviceAccount: {create: false}`},
	"serviceAccount.name": {awsValues, `serviceAccount: {name: roster}`},
	"serviceAccount.annotations": {awsValues,
		`serviceAccount: {annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::111122223333:role/roster"}}`},
	"resources.requests.cpu":                     {awsValues, `resources: {requests: {cpu: 1}}`},
	"resources.requests.memory":                  {awsValues, `resources: {requests: {memory: 1Gi}}`},
	"resources.limits.memory":                    {awsValues, `resources: {limits: {memory: 2Gi}}`},
	"autoscaling.enabled":                        {awsValues, `autoscaling: {enabled: false}`},
	"autoscaling.minReplicas":                    {awsValues, `autoscaling: {minReplicas: 3}`},
	"autoscaling.maxReplicas":                    {awsValues, `autoscaling: {maxReplicas: 3}`},
	"autoscaling.targetCPUUtilizationPercentage": {awsValues, `autoscaling: {targetCPUUtilizationPercentage: 50}`},
	"autoscaling.scaleDownStabilizationSeconds":  {awsValues, `autoscaling: {scaleDownStabilizationSeconds: 0}`},
	"shutdown.delaySeconds":                      {awsValues, `shutdown: {delaySeconds: 30}`},
	"shutdown.timeoutSeconds":                    {awsValues, `shutdown: {timeoutSeconds: 10}`},
	"podAnnotations":                             {awsValues, `podAnnotations: {a: b}`},
	"podLabels":                                  {awsValues, `podLabels: {a: b}`},
	"priorityClassName":                          {awsValues, `priorityClassName: high`},
	"affinity":                                   {awsValues, `affinity: {podAntiAffinity: {}}`},
	"nodeSpread":                                 {awsValues, `nodeSpread: DoNotSchedule`},
	"nodeSelector":                               {awsValues, `nodeSelector: {kubernetes.io/arch: arm64}`},
	"tolerations":                                {awsValues, `tolerations: [{operator: Exists}]`},
	"service.type":                               {awsValues, `service: {type: NodePort}`},
	"service.port":                               {awsValues, `service: {port: 8080}`},
	"service.annotations":                        {awsValues, `service: {annotations: {a: b}}`},
	"service.trafficDistribution":                {awsValues, `service: {trafficDistribution: PreferClose}`},
	"ingress.enabled":                            {awsValues, `ingress: {enabled: true}`},
	"ingress.className":                          {awsValues + "ingress: {enabled: true}", `ingress: {className: alb}`},
	"ingress.annotations": {awsValues + "ingress: {enabled: true}",
		`ingress: {annotations: {a: b}}`},
	"ingress.host": {awsValues + "ingress: {enabled: true}",
		`ingress: {host: roster.example.com}`},
	"ingress.tlsSecret": {awsValues + "ingress: {enabled: true, host: roster.example.com}",
		`ingress: {tlsSecret: certificate}`},
	"httpRoute.enabled": {awsValues + "httpRoute: {parentRefs: [{name: a}]}",
		`httpRoute: {enabled: true}`},
	"httpRoute.parentRefs": {awsValues + "httpRoute: {enabled: true, parentRefs: [{name: a}]}",
		`httpRoute: {parentRefs: [{name: b}]}`},
	"httpRoute.hostnames": {awsValues + "httpRoute: {enabled: true, parentRefs: [{name: a}]}",
		`httpRoute: {hostnames: [roster.example.com]}`},
	"networkPolicy.enabled":     {awsValues, `networkPolicy: {enabled: false}`},
	"networkPolicy.ingressFrom": {awsValues, `networkPolicy: {ingressFrom: [{namespaceSelector: {}}]}`},
	"networkPolicy.metricsFrom": {awsValues, `networkPolicy: {metricsFrom: []}`},
	"monitoring.labels": {awsValues + "monitoring: {prometheusRule: true}",
		`monitoring: {labels: {release: prometheus}}`},
	"monitoring.serviceMonitor": {awsValues, `monitoring: {serviceMonitor: true}`},
	"monitoring.prometheusRule": {awsValues, `monitoring: {prometheusRule: true}`},
	"monitoring.runbookUrl": {awsValues + "monitoring: {prometheusRule: true}",
		`monitoring: {runbookUrl: "https://wiki.example/roster"}`},
	"monitoring.dashboard": {awsValues, `monitoring: {dashboard: true}`},
}

// TestValues checks that every value has a comment and changes the manifests.
func TestValues(t *testing.T) {
	var document yaml.Node
	if err := yaml.Unmarshal(readFile(t, "values.yaml"), &document); err != nil {
		t.Fatal(err)
	}
	paths := leaves(t, "", document.Content[0])
	if diff := cmp.Diff(slices.Sorted(maps.Keys(changes)), slices.Sorted(slices.Values(paths))); diff != "" {
		t.Fatalf("values (-test +chart):\n%s", diff)
	}
	for path, test := range changes {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			before, _ := template(t, "helm4", test.values) // without embedded.enabled it fails
			after, err := run(helms["helm4"](), "template", release, chartDir, kubeVersion, "--namespace", namespace,
				"--values", valuesFile(t, test.values), "--values", valuesFile(t, test.change))
			if err != nil {
				t.Fatal(err)
			}
			if before == after {
				t.Errorf("the value changes nothing:\n%s", test.change)
			}
		})
	}
}

// leaves lists the values under a node and reports those without a comment.
func leaves(t *testing.T, path string, node *yaml.Node) (paths []string) {
	t.Helper()
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		full := strings.TrimPrefix(path+"."+key.Value, ".")
		if value.Kind == yaml.MappingNode && len(value.Content) > 0 {
			paths = append(paths, leaves(t, full, value)...)
			continue
		}
		if key.HeadComment == "" {
			t.Errorf("%s has no comment", full)
		}
		paths = append(paths, full)
	}
	return paths
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name, values string
		want         string // part of Helm's error
	}{
		{"no store", "", "set aws.region, aws.dynamodbTable and aws.s3Bucket"},
		{"both stores", awsValues + embeddedValues, "choose one store"},
		{"both in part", embeddedValues + "aws: {endpointUrl: 'http://emulator:4566'}", "choose one store"},
		{"no bucket", "aws: {region: eu-west-1, dynamodbTable: users}",
			"requires all of aws.region, aws.dynamodbTable and aws.s3Bucket"},
		{"no region", "aws: {dynamodbTable: users, s3Bucket: avatars}",
			"requires all of aws.region, aws.dynamodbTable and aws.s3Bucket"},
		{"account without a name", awsValues + "serviceAccount: {create: false}", "set serviceAccount.name"},
		{"too many replicas", awsValues + "autoscaling: {minReplicas: 11}", "minReplicas is greater than"},
		{"certificate for no name", awsValues + "ingress: {enabled: true, tlsSecret: certificate}",
			"requires ingress.host"},
		{"route without a gateway", awsValues + "httpRoute: {enabled: true}", "requires httpRoute.parentRefs"},

		{"misspelt", awsValues + "replicas: 3", "'replicas' not allowed"},
		{"misspelt below", awsValues + "auth: {existingsecret: tokens}", "'existingsecret' not allowed"},
		{"misspelt in resources", awsValues + "resources: {limit: {}}", "'limit' not allowed"},
		{"misspelt in a list", awsValues + "tolerations: [{keys: spot}]", "'keys' not allowed"},
		{"number for text", awsValues + "image: {tag: 1.2}", "got number, want string"},
		{"text for truth", "embedded: {enabled: 'true'}", "got string, want boolean"},
		{"text for number", awsValues + "autoscaling: {minReplicas: '2'}", "got string, want integer"},
		{"number for annotation", awsValues + "podAnnotations: {a: 1}", "got number, want string"},
		{"label of the selector", awsValues + "podLabels: {app.kubernetes.io/name: other}", "app.kubernetes.io/name"},
		{"unknown spread", awsValues + "nodeSpread: Always", "/nodeSpread"},
		{"group removed", awsValues + "resources: null", "missing property 'resources'"},
		{"limit removed", awsValues + "resources: {limits: {memory: null}}", "missing property 'memory'"},
		{"moving tag", awsValues + "image: {tag: latest}", "/image/tag"},
		{"image with its tag", awsValues + "image: {repository: 'https://registry.example/roster'}",
			"/image/repository"},
		{"no region of AWS", "aws: {region: Ireland, dynamodbTable: users, s3Bucket: avatars}", "/aws/region"},
		{"no bucket's name", "aws: {region: eu-west-1, dynamodbTable: users, s3Bucket: My_Bucket}", "/aws/s3Bucket"},
		{"no URL", awsValues + "publicUrl: roster.example.com", "/publicUrl"},
		{"URL with a query", awsValues + "publicUrl: 'https://roster.example.com/?a'", "/publicUrl"},
		{"no quantity", awsValues + "resources: {limits: {memory: 1GB}}", "/resources/limits/memory"},
		{"too small a memory limit", awsValues + "resources: {limits: {memory: 0}}", "/resources/limits/memory"},
		{"too large an avatar", awsValues + "maxAvatarBytes: 67108865", "/maxAvatarBytes"},
		{"unknown level", awsValues + "logLevel: trace", "/logLevel"},
		{"unknown type", awsValues + "service: {type: ExternalName}", "/service/type"},
		{"unknown distribution", awsValues + "service: {trafficDistribution: Zone}", "/service/trafficDistribution"},
		{"empty peer", awsValues + "networkPolicy: {ingressFrom: [{}]}", "/networkPolicy/ingressFrom/0"},
		{"no host", awsValues + "ingress: {host: 'https://roster.example.com'}", "/ingress/host"},
	}
	for helm := range helms {
		for _, test := range tests {
			t.Run(helm+" "+test.name, func(t *testing.T) {
				t.Parallel()
				if _, err := template(t, helm, test.values); err == nil {
					t.Errorf("the chart was rendered with\n%s", test.values)
				} else if !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want one with %s", err, test.want)
				}
			})
		}
	}
}

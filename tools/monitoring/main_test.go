package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const scrape = `# TYPE app_requests_total counter
app_requests_total{route="/users",code="200"} 1
# TYPE app_seconds histogram
app_seconds_bucket{route="/users",le="0.1"} 1
app_seconds_bucket{route="/users",le="+Inf"} 1
app_seconds_sum{route="/users"} 1
app_seconds_count{route="/users"} 1
# TYPE app_build_info gauge
app_build_info{version="1"} 1
`

const alerts = `groups:
- name: g
  rules:
  - record: job:bad:rate5m
    expr: sum by (job) (rate(app_requests_total{code=~"5.."}[5m]))
    labels: {slo: availability}
  - alert: Bad
    expr: job:bad:rate5m{slo="availability"} > 1
    labels: {severity: critical}
    annotations: {summary: "{{ $labels.job }} {{ $labels.slo }}", description: d, runbook_url: "docs.md#bad"}
`

const board = `{"title": "t", "uid": "u", "schemaVersion": 42,
"templating": {"list": [
  {"name": "datasource", "type": "datasource", "query": "prometheus"},
  {"name": "job", "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "query": {"query": "label_values(app_build_info, job)"}}]},
"panels": [
  {"id": 1, "type": "timeseries", "title": "p99", "description": "d", "datasource": {"type": "prometheus", "uid": "${datasource}"},
   "gridPos": {"x": 0, "y": 0, "w": 12, "h": 8}, "fieldConfig": {"defaults": {"unit": "s"}},
   "targets": [{"refId": "A", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "legendFormat": "{{route}}",
     "expr": "histogram_quantile(0.99, sum by (le, route) (rate(app_seconds_bucket{job=~\"$job\", route=\"/users\"}[$__rate_interval])))"}]},
  {"id": 2, "type": "stat", "title": "build", "description": "d", "datasource": {"type": "prometheus", "uid": "${datasource}"},
   "gridPos": {"x": 12, "y": 0, "w": 12, "h": 8}, "fieldConfig": {"defaults": {"unit": "none"}},
   "targets": [{"refId": "A", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "expr": "app_build_info"}]}]}
`

// TestCheck changes one thing at a time in what is right, and looks for the
// fault to be found.
func TestCheck(t *testing.T) {
	tests := []struct {
		name, from, to string // replaced in whichever file has it
		want           string // empty: no fault
	}{
		{"nothing", "", "", ""},
		{"metric renamed in an alert", "rate(app_requests_total", "rate(app_request_total",
			`no metric "app_request_total"`},
		{"metric renamed on the dashboard", "app_seconds_bucket{job", "app_second_bucket{job",
			`no metric "app_second_bucket"`},
		{"recorded series renamed", "expr: job:bad:rate5m", "expr: job:bad:rate1m", `no metric "job:bad:rate1m"`},
		{"unknown label", `{code=~`, `{status=~`, "no label status"},
		{"value that never occurs", `route=\"/users\"`, `route=\"/user\"`, "no series seen matches"},
		{"value that no rule records", `slo="availability"`, `slo="latency"`, "no series seen matches"},
		{"grouping by an unknown label", "sum by (job)", "sum by (jobs)", "groups by the label jobs"},
		{"sides that never match", "> 1\n", "> 1 and app_build_info\n", "matches"},
		{"not PromQL", "> 1\n", "> > 1\n", "parse error"},
		{"label lost before the annotation", "$labels.job", "$labels.instance", "uses the label instance"},
		{"no such heading", "#bad", "#worse", "no heading for #worse"},
		{"severity nobody routes", "severity: critical", "severity: page", "severity"},
		{"annotation missing", "description: d,", "", "no annotation description"},
		{"legend of a lost label", "{{route}}", "{{method}}", "legend uses the label method"},
		{"quantile without buckets", "sum by (le, route)", "sum by (route)", "without le"},
		{"bound that Prometheus 3 respells", `route=\"/users\"`, `le=\"1\"`, "Prometheus 3 writes 1.0"},
		{"variable of an unknown label", "label_values(app_build_info, job)", "label_values(app_build_info, zone)",
			"no label zone"},
		{"id used twice", `"id": 2`, `"id": 1`, "has the same id as"},
		{"overlap", `"x": 12`, `"x": 11`, "overlaps"},
		{"outside the grid", `"x": 12`, `"x": 13`, "outside the grid"},
		{"no unit", `"unit": "s"`, `"unit": ""`, "no unit"},
		{"fixed datasource", `"uid": "${datasource}"}, "legendFormat"`, `"uid": "abc"}, "legendFormat"`,
			"not the variable's"},
		{"plugin", `"timeseries"`, `"natel-discrete-panel"`, "needs a plugin"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if !strings.Contains(alerts+board, test.from) {
				t.Fatalf("%q is not there to be replaced", test.from)
			}
			replace := func(s string) string { return strings.Replace(s, test.from, test.to, 1) }
			if test.from == "" {
				replace = func(s string) string { return s }
			}
			file := func(name, text string) string {
				path := filepath.Join(t.TempDir(), name)
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			faults, err := check(file("alerts.yaml", replace(alerts)), file("dashboard.json", replace(board)),
				file("docs.md", "# Docs\n\n## Bad\n"), []string{file("scrape", scrape)})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(faults, "\n"); test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("found %q, want %q", got, test.want)
			}
		})
	}
}

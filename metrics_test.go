package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// TestMetricsTable compares the metrics of the service with their table in docs/operations.md.
func TestMetricsTable(t *testing.T) {
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(roster_\\w+)` \\| (.*) \\|$").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = m[2]
	}
	m := newMetrics(build{})
	m.observeSize("roster.db")
	descriptions := make(chan *prometheus.Desc)
	go func() {
		m.registry.Describe(descriptions)
		close(descriptions)
	}()
	known := map[string]string{}
	for d := range descriptions {
		if m := regexp.MustCompile(`fqName: "(roster_\w+)", help: "(.*?)"`).FindStringSubmatch(d.String()); m != nil {
			known[m[1]] = m[2]
		}
	}
	if diff := cmp.Diff(documented, known); diff != "" {
		t.Errorf("metrics in docs/operations.md and in the program (-document +program):\n%s", diff)
	}
}

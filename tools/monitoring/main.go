// Monitoring compares the alerts and the dashboard with the metrics of the service.
// Every PromQL expression must parse and must use existing metrics, labels and
// label values, so that no alert refers to a renamed metric. The scrapes are files
// or URLs. Several scrapes are merged, because no process has both the metrics of
// AWS and those of the embedded store.
//
//	go run . -alerts FILE -dashboard FILE -runbook FILE SCRAPE...
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

func main() {
	alerts := flag.String("alerts", "", "file with Prometheus rule groups")
	dashboard := flag.String("dashboard", "", "file with a Grafana dashboard")
	runbook := flag.String("runbook", "", "Markdown file that every alert's runbook_url leads to")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "monitoring: no scrape given")
		os.Exit(2)
	}
	faults, err := check(*alerts, *dashboard, *runbook, flag.Args())
	if err != nil {
		faults = append(faults, err.Error())
	}
	for _, fault := range faults {
		fmt.Fprintln(os.Stderr, fault)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
	fmt.Println("alerts and dashboard agree with the metrics")
}

// check returns the faults, or an error if a file cannot be read.
func check(alerts, dashboard, runbook string, scrapes []string) ([]string, error) {
	c := &checker{metrics: map[string]labels{}}
	for _, from := range scrapes {
		if err := c.readScrape(from); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
	}
	anchors, err := readAnchors(runbook)
	if err != nil {
		return nil, err
	}
	if err := c.checkAlerts(alerts, anchors); err != nil {
		return nil, err
	}
	err = c.checkDashboard(dashboard)
	return c.faults, err
}

// A checker has the exposed and recorded series and collects faults.
type checker struct {
	metrics map[string]labels // by series name, such as x_bucket
	faults  []string
}

func (c *checker) fault(where, format string, args ...any) {
	c.faults = append(c.faults, where+": "+fmt.Sprintf(format, args...))
}

// labels maps the labels of a series to their values, nil for any value.
type labels map[string][]string

// targetLabels returns the labels that Prometheus adds to the metrics of a pod.
func targetLabels() labels {
	return labels{"namespace": nil, "job": nil, "instance": nil, "pod": nil}
}

func (c *checker) readScrape(from string) error {
	data, err := read(from)
	if err != nil {
		return err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(data))
	if err != nil {
		return err
	}
	if len(families) == 0 {
		return errors.New("no metrics in it")
	}
	c.see("up", nil)
	c.metrics["ALERTS"] = labels{"namespace": nil, "job": nil, "instance": nil, "alertname": nil, "alertstate": nil}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			switch family.GetType() {
			case dto.MetricType_HISTOGRAM:
				c.see(name+"_count", m.GetLabel())
				c.see(name+"_sum", m.GetLabel())
				for _, b := range m.GetHistogram().GetBucket() {
					le := &dto.LabelPair{Name: new("le"), Value: new(fmt.Sprint(b.GetUpperBound()))}
					c.see(name+"_bucket", append(slices.Clone(m.GetLabel()), le))
				}
			case dto.MetricType_SUMMARY:
				c.see(name+"_count", m.GetLabel())
				c.see(name+"_sum", m.GetLabel())
				for _, q := range m.GetSummary().GetQuantile() {
					quantile := &dto.LabelPair{Name: new("quantile"), Value: new(fmt.Sprint(q.GetQuantile()))}
					c.see(name, append(slices.Clone(m.GetLabel()), quantile))
				}
			default:
				c.see(name, m.GetLabel())
			}
		}
	}
	return nil
}

func (c *checker) see(name string, pairs []*dto.LabelPair) {
	seen := c.metrics[name]
	if seen == nil {
		seen = targetLabels()
		c.metrics[name] = seen
	}
	for _, pair := range pairs {
		if values := seen[pair.GetName()]; !slices.Contains(values, pair.GetValue()) {
			seen[pair.GetName()] = append(values, pair.GetValue())
		}
	}
}

func read(from string) ([]byte, error) {
	if !strings.HasPrefix(from, "http://") {
		return os.ReadFile(from)
	}
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(from)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// readAnchors returns the anchors of a Markdown file's headings.
func readAnchors(file string) (map[string]bool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	anchors := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && line[0] == '#' {
			anchor := strings.ToLower(strings.TrimSpace(heading))
			anchors[strings.ReplaceAll(notInAnchor.ReplaceAllString(anchor, ""), " ", "-")] = true
		}
	}
	return anchors, nil
}

var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Record, Alert, Expr string
			Labels, Annotations map[string]string
		}
	}
}

var templateLabel = regexp.MustCompile(`\$labels\.(\w+)`)

// checkAlerts checks the rules. Later rules may use the series that they record.
func (c *checker) checkAlerts(file string, anchors map[string]bool) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var r rules
	if err := yaml.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	names := map[string]bool{}
	for _, group := range r.Groups {
		for _, rule := range group.Rules {
			where := file + ": " + rule.Record + rule.Alert
			have := c.checkQuery(where, rule.Expr)
			for name, value := range rule.Labels {
				have[name] = []string{value}
			}
			if rule.Record != "" {
				c.record(rule.Record, have)
				continue
			}
			if names[rule.Alert] {
				c.fault(where, "duplicate alert")
			}
			names[rule.Alert] = true
			for _, name := range []string{"summary", "description", "runbook_url"} {
				if rule.Annotations[name] == "" {
					c.fault(where, "no annotation %s", name)
				}
				for _, used := range templateLabel.FindAllStringSubmatch(rule.Annotations[name], -1) {
					if _, ok := have[used[1]]; !ok {
						c.fault(where, "%s uses the label %s, which the expression does not return", name, used[1])
					}
				}
			}
			if s := rule.Labels["severity"]; s != "critical" && s != "warning" {
				c.fault(where, "severity %q is neither critical nor warning", s)
			}
			if _, anchor, _ := strings.Cut(rule.Annotations["runbook_url"], "#"); !anchors[anchor] {
				c.fault(where, "the runbook has no heading for #%s", anchor)
			}
		}
	}
	if len(names) == 0 {
		c.fault(file, "no alerts")
	}
	return nil
}

// record adds a recorded series, which several rules may record.
func (c *checker) record(name string, have labels) {
	known := c.metrics[name]
	if known == nil {
		known = labels{}
		c.metrics[name] = known
	}
	for label, values := range have {
		known[label] = append(known[label], values...)
	}
}

type dashboard struct {
	Title, UID    string
	SchemaVersion int
	Annotations   struct {
		List []struct {
			Name, Expr string
			Datasource datasource
		}
	}
	Templating struct {
		List []struct {
			Name, Type string
			Datasource datasource
			Query      json.RawMessage
		}
	}
	Panels []panel
}

type datasource struct{ Type, UID string }

type panel struct {
	ID          int
	Type, Title string
	Description string
	Datasource  datasource
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct{ Defaults struct{ Unit string } }
	Targets     []target
	Collapsed   bool
	Panels      []panel
}

type target struct {
	RefID, Expr, LegendFormat string
	Datasource                datasource
}

const (
	gridWidth     = 24
	minSchema     = 42 // of Grafana 12
	ownDatasource = "${datasource}"
)

// corePanels are the panel types that need no plugin.
var corePanels = []string{"timeseries", "stat", "gauge", "bargauge", "table", "heatmap", "piechart", "barchart", "text",
	"row"}

var legendLabel = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
var labelValues = regexp.MustCompile(`^label_values\((.+),\s*(\w+)\)$`)

func (c *checker) checkDashboard(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if d.Title == "" || d.UID == "" || d.SchemaVersion < minSchema {
		c.fault(file, "requires a title, a uid and a schemaVersion of at least %d", minSchema)
	}
	hasDatasource := false
	for _, v := range d.Templating.List {
		where := file + ": variable " + v.Name
		switch v.Type {
		case "datasource":
			hasDatasource = hasDatasource || v.Name == "datasource" && string(v.Query) == `"prometheus"`
		case "query":
			var q struct{ Query string }
			if err := json.Unmarshal(v.Query, &q); err != nil {
				c.fault(where, "query: %v", err)
				continue
			}
			m := labelValues.FindStringSubmatch(q.Query)
			if m == nil {
				c.fault(where, "the query is not label_values(…, …)")
				continue
			}
			if have := c.checkQuery(where, m[1]); have != nil {
				if _, ok := have[m[2]]; !ok {
					c.fault(where, "%s has no label %s", m[1], m[2])
				}
			}
			c.ownDatasource(where, v.Datasource)
		}
	}
	if !hasDatasource {
		c.fault(file, "no variable datasource of type prometheus")
	}
	for _, a := range d.Annotations.List {
		if a.Datasource.UID == "-- Grafana --" { // built in
			continue
		}
		where := file + ": annotation " + a.Name
		c.ownDatasource(where, a.Datasource)
		c.checkQuery(where, a.Expr)
	}
	ids := map[int]string{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		c.checkPanel(file, p, ids, taken)
	}
	if len(ids) == 0 {
		c.fault(file, "no panels")
	}
	return nil
}

func (c *checker) checkPanel(file string, p panel, ids map[int]string, taken map[[2]int]string) {
	where := fmt.Sprintf("%s: panel %d %q", file, p.ID, p.Title)
	if p.Title == "" || p.ID == 0 {
		c.fault(where, "requires an id and a title")
	}
	if other, ok := ids[p.ID]; ok {
		c.fault(where, "has the same id as %q", other)
	}
	ids[p.ID] = p.Title
	if !slices.Contains(corePanels, p.Type) {
		c.fault(where, "the type %q needs a plugin", p.Type)
	}
	if g := p.GridPos; g.W < 1 || g.H < 1 || g.X < 0 || g.Y < 0 || g.X+g.W > gridWidth {
		c.fault(where, "is outside the grid: %+v", g)
	}
	for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
		for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
			if other, ok := taken[[2]int{x, y}]; ok {
				c.fault(where, "overlaps %s", other)
				return
			}
			taken[[2]int{x, y}] = fmt.Sprintf("panel %d %q", p.ID, p.Title)
		}
	}
	// The panels of a collapsed row have their own positions.
	inner := taken
	if p.Collapsed {
		inner = map[[2]int]string{}
	}
	for _, q := range p.Panels {
		c.checkPanel(file, q, ids, inner)
	}
	if p.Type == "row" || p.Type == "text" {
		return
	}
	if p.FieldConfig.Defaults.Unit == "" {
		c.fault(where, "has no unit")
	}
	if p.Description == "" {
		c.fault(where, "has no description")
	}
	c.ownDatasource(where, p.Datasource)
	if len(p.Targets) == 0 {
		c.fault(where, "shows nothing")
	}
	refs := map[string]bool{}
	for _, t := range p.Targets {
		if refs[t.RefID] || t.RefID == "" {
			c.fault(where, "the refId %q is missing or used twice", t.RefID)
		}
		refs[t.RefID] = true
		c.ownDatasource(where, t.Datasource)
		have := c.checkQuery(where+" "+t.RefID, t.Expr)
		for _, used := range legendLabel.FindAllStringSubmatch(t.LegendFormat, -1) {
			if _, ok := have[used[1]]; !ok {
				c.fault(where, "the legend uses the label %s, which the expression does not return", used[1])
			}
		}
	}
}

func (c *checker) ownDatasource(where string, d datasource) {
	if d.UID != ownDatasource || d.Type != "prometheus" {
		c.fault(where, "asks the datasource %+v, not the variable's", d)
	}
}

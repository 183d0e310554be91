package main

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// freeLabels may have values that the scrapes do not contain.
var freeLabels = []string{"code"}

// integer bounds of buckets are exposed as "1" but stored as "1.0" from
// Prometheus 3 on: no matcher for equality is right everywhere.
var integer = regexp.MustCompile(`^\d+$`)

var grafanaVariable = regexp.MustCompile(`\$\{?\w+\}?`)

// checkQuery checks an expression, which may contain Grafana's variables, and
// returns the labels of its result.
func (c *checker) checkQuery(where, query string) labels {
	query = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$__interval", "1m").Replace(query)
	query = grafanaVariable.ReplaceAllString(query, ".*")
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		c.fault(where, "%v in %s", err, query)
		return labels{}
	}
	return c.labelsOf(where, expr)
}

// labelsOf returns the labels of an expression, and checks its operands first.
func (c *checker) labelsOf(where string, expr parser.Expr) labels {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return c.labelsOf(where, e.Expr)
	case *parser.UnaryExpr:
		return c.labelsOf(where, e.Expr)
	case *parser.StepInvariantExpr:
		return c.labelsOf(where, e.Expr)
	case *parser.SubqueryExpr:
		return c.labelsOf(where, e.Expr)
	case *parser.MatrixSelector:
		return c.labelsOf(where, e.VectorSelector)
	case *parser.VectorSelector:
		return c.selected(where, e)
	case *parser.AggregateExpr:
		return c.aggregated(where, e)
	case *parser.Call:
		return c.called(where, e)
	case *parser.BinaryExpr:
		return c.matched(where, e)
	}
	return labels{} // a number or a string
}

func (c *checker) selected(where string, e *parser.VectorSelector) labels {
	known, ok := c.metrics[e.Name]
	if !ok {
		c.fault(where, "there is no metric %q", e.Name)
		return targetLabels()
	}
	have := maps.Clone(known)
	for _, m := range e.LabelMatchers {
		if m.Name == model.MetricNameLabel {
			continue
		}
		if bound := m.Name == "le" || m.Name == "quantile"; bound && m.Type == promlabels.MatchEqual &&
			integer.MatchString(m.Value) {
			c.fault(where, "%s: Prometheus 3 writes %s.0", m, m.Value)
		}
		values, ok := have[m.Name]
		if !ok {
			c.fault(where, "%s has no label %s", e.Name, m.Name)
			continue
		}
		positive := m.Type == promlabels.MatchEqual || m.Type == promlabels.MatchRegexp
		if positive && values != nil && !slices.Contains(freeLabels, m.Name) &&
			!slices.ContainsFunc(values, m.Matches) {
			c.fault(where, "%s: no series seen matches %s; %s is one of %q", e.Name, m, m.Name, values)
		}
	}
	return have
}

func (c *checker) aggregated(where string, e *parser.AggregateExpr) labels {
	have := c.labelsOf(where, e.Expr)
	for _, name := range e.Grouping {
		if _, ok := have[name]; !ok {
			c.fault(where, "groups by the label %s, which %s does not have", name, e.Expr)
		}
	}
	switch {
	case e.Op == parser.TOPK || e.Op == parser.BOTTOMK:
		return have
	case e.Without:
		for _, name := range e.Grouping {
			delete(have, name)
		}
		return have
	}
	return only(have, e.Grouping)
}

func (c *checker) called(where string, e *parser.Call) labels {
	have := labels{}
	for _, arg := range e.Args {
		maps.Copy(have, c.labelsOf(where, arg))
	}
	switch e.Func.Name {
	case "histogram_quantile":
		if _, ok := have["le"]; !ok {
			c.fault(where, "histogram_quantile without le")
		}
		delete(have, "le")
	case "absent", "absent_over_time":
		return labels{} // but for equality matchers, which are not needed here
	}
	return have
}

// matched is the result of a binary operator. Without on and ignoring, both
// sides must have the same labels, or nothing ever matches.
func (c *checker) matched(where string, e *parser.BinaryExpr) labels {
	left, right := c.labelsOf(where, e.LHS), c.labelsOf(where, e.RHS)
	switch {
	case e.VectorMatching == nil && e.LHS.Type() == parser.ValueTypeScalar:
		return right
	case e.VectorMatching == nil:
		return left
	case e.Op == parser.LOR:
		maps.Copy(left, right)
		return left
	}
	match := e.VectorMatching
	if match.On {
		for _, name := range match.MatchingLabels {
			_, inLeft := left[name]
			if _, inRight := right[name]; !inLeft || !inRight {
				c.fault(where, "matches on the label %s, which one side of %q does not have", name, e.Op)
			}
		}
	} else if a, b := without(left, match.MatchingLabels), without(right, match.MatchingLabels); !slices.Equal(a, b) {
		c.fault(where, "%q matches %v with %v", e.Op, a, b)
	}
	switch {
	case match.Card == parser.CardManyToOne:
		maps.Copy(left, only(right, match.Include))
		return left
	case match.Card == parser.CardOneToMany:
		maps.Copy(right, only(left, match.Include))
		return right
	case match.On && !e.Op.IsSetOperator():
		return only(left, match.MatchingLabels)
	}
	return left
}

func only(l labels, names []string) labels {
	kept := labels{}
	for _, name := range names {
		kept[name] = l[name]
	}
	return kept
}

func without(l labels, names []string) []string {
	rest := maps.Clone(l)
	for _, name := range names {
		delete(rest, name)
	}
	return slices.Sorted(maps.Keys(rest))
}

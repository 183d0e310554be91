package main

import (
	"fmt"
	"iter"
	"regexp"
	"strings"

	yaml "github.com/pb33f/go-yaml"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/helpers"
	"github.com/pb33f/libopenapi-validator/schema_validation"
	"github.com/pb33f/libopenapi/datamodel/high/base"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
	"github.com/pb33f/libopenapi/orderedmap"
)

// lint says what is wrong with the document: what the schema of OpenAPI 3.1
// refuses, and what it lets pass but a reader or a generator stumbles over.
func (c *contract) lint() []string {
	_, errs := c.validator.ValidateDocument()
	faults := describe(errs)
	faults = append(faults, c.lintOperations()...)
	faults = append(faults, c.lintExamples()...)
	return append(faults, c.lintComponents()...)
}

var templateParameter = regexp.MustCompile(`\{([^}]+)\}`)

func (c *contract) lintOperations() []string {
	var faults []string
	tags := map[string]bool{}
	for _, t := range c.model.Tags {
		tags[t.Name] = true
	}
	ids := map[string]bool{}
	for path, item := range c.model.Paths.PathItems.FromOldest() {
		for method, op := range item.GetOperations().FromOldest() {
			fault := func(format string, args ...any) {
				faults = append(faults, fmt.Sprintf("%s %s: ", strings.ToUpper(method), path)+fmt.Sprintf(format,
					args...))
			}
			if op.OperationId == "" || ids[op.OperationId] {
				fault("operationId %q is missing or used twice", op.OperationId)
			}
			ids[op.OperationId] = true
			if op.Summary == "" {
				fault("no summary")
			}
			if len(op.Tags) != 1 || !tags[op.Tags[0]] {
				fault("tags are not one that is declared: %q", op.Tags)
			}
			named := map[string]bool{}
			for _, p := range append(item.Parameters, op.Parameters...) {
				named[p.In+" "+p.Name] = true
			}
			for _, m := range templateParameter.FindAllStringSubmatch(path, -1) {
				if !named["path "+m[1]] {
					fault("the path parameter %q is not declared", m[1])
				}
			}
			for status, r := range op.Responses.Codes.FromOldest() {
				if r.Headers == nil || r.Headers.GetOrZero("X-Request-Id") == nil {
					fault("%s lacks X-Request-Id", status)
				}
				problem := orderedmap.Len(r.Content) == 1 && r.Content.GetOrZero("application/problem+json") != nil
				if failure := status >= "400"; failure != problem {
					fault("%s is an error that is no problem, or a problem that is no error", status)
				}
			}
		}
	}
	return faults
}

// lintExamples holds every example against the schema that it is an example of.
func (c *contract) lintExamples() []string {
	var faults []string
	validator := schema_validation.NewSchemaValidator(config.WithFormatAssertions())
	version := helpers.VersionToFloat(c.model.Version)
	check := func(where string, proxy *base.SchemaProxy, example *yaml.Node) {
		if proxy == nil || example == nil {
			return
		}
		var value any
		if err := example.Decode(&value); err != nil {
			faults = append(faults, where+": "+err.Error())
			return
		}
		_, errs := validator.ValidateSchemaObjectWithVersion(proxy.Schema(), value, version)
		for _, f := range describe(errs) {
			faults = append(faults, where+": example: "+f)
		}
	}
	parameter := func(where string, p *v3.Parameter) { check(where+" "+p.Name, p.Schema, p.Example) }
	content := func(where string, m *orderedmap.Map[string, *v3.MediaType]) {
		for name, media := range m.FromOldest() {
			check(where+" "+name, media.Schema, media.Example)
		}
	}
	response := func(where string, r *v3.Response) {
		content(where, r.Content)
		for name, h := range r.Headers.FromOldest() {
			check(where+" "+name, h.Schema, h.Example)
		}
	}
	var schema func(where string, proxy *base.SchemaProxy)
	schema = func(where string, proxy *base.SchemaProxy) {
		s := proxy.Schema()
		for _, e := range s.Examples {
			check(where, proxy, e)
		}
		for name, p := range s.Properties.FromOldest() {
			schema(where+"."+name, p)
		}
	}

	for _, op := range c.operations() {
		for _, p := range op.Parameters {
			parameter(op.OperationId, p)
		}
		if op.RequestBody != nil {
			content(op.OperationId, op.RequestBody.Content)
		}
		for status, r := range op.Responses.Codes.FromOldest() {
			response(op.OperationId+" "+status, r)
		}
	}
	for _, p := range c.model.Components.Parameters.FromOldest() {
		parameter("components", p)
	}
	for name, r := range c.model.Components.Responses.FromOldest() {
		response(name, r)
	}
	for name, s := range c.model.Components.Schemas.FromOldest() {
		schema(name, s)
	}
	return faults
}

var reference = regexp.MustCompile(`\$ref: *'#/components/([a-zA-Z]+/[A-Za-z-]+)`)

// lintComponents finds components that nothing refers to.
func (c *contract) lintComponents() []string {
	used := map[string]bool{}
	for _, m := range reference.FindAllSubmatch(c.source, -1) {
		used[string(m[1])] = true
	}
	var faults []string
	check := func(kind string, names iter.Seq[string]) {
		for name := range names {
			if !used[kind+"/"+name] {
				faults = append(faults, "components: nothing refers to "+kind+"/"+name)
			}
		}
	}
	components := c.model.Components
	check("headers", components.Headers.KeysFromOldest())
	check("links", components.Links.KeysFromOldest())
	check("parameters", components.Parameters.KeysFromOldest())
	check("responses", components.Responses.KeysFromOldest())
	check("schemas", components.Schemas.KeysFromOldest())
	return faults
}

// Command openapi checks the contract, openapi.yaml: that the document is valid
// and whole and, given files of recorded exchanges, that each of them keeps to it
// and to strict.yaml.
//
// A file has one JSON object a line; see exchange. What must hold:
//
//   - a response has a status, a content type, headers and a body that its
//     operation declares;
//   - a request that breaks the contract was refused (4xx, or 503 before it was
//     looked at);
//   - a path or method that the contract lacks is answered by a redirect to one
//     that it has, or by one of the problems in fallbacks.
package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	yaml "github.com/pb33f/go-yaml"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	verrors "github.com/pb33f/libopenapi-validator/errors"
	"github.com/pb33f/libopenapi-validator/helpers"
	"github.com/pb33f/libopenapi-validator/paths"
	"github.com/pb33f/libopenapi-validator/responses"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
	"github.com/pb33f/libopenapi/orderedmap"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("openapi", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: openapi [flags] [exchanges.jsonl ...]")
		flags.PrintDefaults()
	}
	path := flags.String("contract", "../../openapi.yaml", "the contract")
	requireAll := flags.Bool("require-all", false, "fail if a declared status of an operation was never seen")
	skip := flags.String("skip", "", "ignore exchanges whose path matches this regular expression")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	skipped, err := regexp.Compile(*skip)
	if err != nil {
		fmt.Fprintln(stderr, "openapi: -skip:", err)
		return 2
	}

	source, err := os.ReadFile(*path)
	if err != nil {
		fmt.Fprintln(stderr, "openapi:", err)
		return 1
	}
	c, err := load(source)
	if err != nil {
		fmt.Fprintf(stderr, "openapi: %s: %v\n", *path, err)
		return 1
	}
	faults := c.lint()
	for _, f := range faults {
		fmt.Fprintf(stderr, "%s: %s\n", *path, f)
	}

	if c, err = loadStrict(source); err != nil {
		fmt.Fprintf(stderr, "openapi: %s with strict.yaml: %v\n", *path, err)
		return 1
	}
	checked := 0
	for _, file := range flags.Args() {
		err := eachExchange(file, func(line int, x exchange) {
			target, _, _ := strings.Cut(x.URL, "?")
			if *skip != "" && skipped.MatchString(target) {
				return
			}
			checked++
			for _, f := range c.check(x) {
				f = fmt.Sprintf("%s:%d: %s %s: %d: %s", file, line, x.Method, x.URL, x.Status, f)
				if x.Note != "" {
					f += " (" + x.Note + ")"
				}
				fmt.Fprintln(stderr, f)
				faults = append(faults, f)
			}
		})
		if err != nil {
			fmt.Fprintln(stderr, "openapi:", err)
			return 1
		}
	}
	if flags.NArg() > 0 {
		if checked == 0 {
			fmt.Fprintln(stderr, "openapi: no exchange to check")
			return 1
		}
		for _, u := range c.unseen() {
			fmt.Fprintln(stdout, "never seen:", u)
			if *requireAll {
				faults = append(faults, u)
			}
		}
	}
	fmt.Fprintf(stdout, "openapi: %d exchanges, %d faults\n", checked, len(faults))
	if len(faults) > 0 {
		return 1
	}
	return 0
}

// An exchange is a request and its response as a test recorded them. Bodies are
// base64; large ones and images may be left out, which the omitted flags say.
type exchange struct {
	Method              string      `json:"method"`
	URL                 string      `json:"url"` // path and query
	RequestHeader       http.Header `json:"request_header"`
	RequestBody         []byte      `json:"request_body"`
	RequestBodyOmitted  bool        `json:"request_body_omitted"`
	Status              int         `json:"status"`
	ResponseHeader      http.Header `json:"response_header"`
	ResponseBody        []byte      `json:"response_body"`
	ResponseBodyOmitted bool        `json:"response_body_omitted"`
	Note                string      `json:"note"`
}

func eachExchange(file string, do func(line int, x exchange)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, readErr := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var x exchange
			if err := json.Unmarshal(line, &x); err != nil {
				return fmt.Errorf("%s:%d: %w", file, n, err)
			}
			do(n, x)
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

type contract struct {
	source    []byte
	model     *v3.Document
	validator validator.Validator
	bodiless  validator.Validator // looks at everything of a request but the body
	options   *config.ValidationOptions
	seen      map[string]bool
}

//go:embed strict.yaml
var strict []byte

// loadStrict loads the contract with strict.yaml.
func loadStrict(source []byte) (*contract, error) {
	var document, patch any
	if err := yaml.Unmarshal(source, &document); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(strict, &patch); err != nil {
		return nil, err
	}
	merged, err := yaml.Marshal(mergePatch(document, patch))
	if err != nil {
		return nil, err
	}
	return load(merged)
}

// mergePatch is MergePatch of RFC 7396, section 2.
func mergePatch(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	merged, ok := target.(map[string]any)
	if !ok {
		merged = map[string]any{}
	}
	for name, value := range members {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = mergePatch(merged[name], value)
		}
	}
	return merged
}

func load(source []byte) (*contract, error) {
	document, err := libopenapi.NewDocument(source)
	if err != nil {
		return nil, err
	}
	model, err := document.BuildV3Model()
	if err != nil {
		return nil, err
	}
	options := []config.Option{
		config.WithFormatAssertions(),
		config.WithStandardBodyDecoders(),
		config.WithRejectUndeclaredRequestBody(),
		config.WithRegexCache(&sync.Map{}),
	}
	v, errs := validator.NewValidator(document, options...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	bodiless, errs := validator.NewValidator(document, append(options, config.WithoutRequestBodyValidation())...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &contract{
		source:    source,
		model:     &model.Model,
		validator: v,
		bodiless:  bodiless,
		options:   config.NewValidationOptions(options...),
		seen:      map[string]bool{},
	}, nil
}

// check says what is wrong with an exchange.
func (c *contract) check(x exchange) []string {
	req, err := http.NewRequest(x.Method, "http://service.invalid"+x.URL, bytes.NewReader(x.RequestBody))
	if err != nil {
		// Nothing that a client library sends; all there is to say is that it must be refused.
		if x.Status >= 400 && x.Status < 500 {
			return nil
		}
		return []string{fmt.Sprintf("not a request, and not refused: %v", err)}
	}
	if x.RequestHeader != nil {
		req.Header = x.RequestHeader.Clone()
	}
	// RFC 9110, section 8.3: without a type, content is of any type.
	if req.Header.Get("Content-Type") == "" && (len(x.RequestBody) > 0 || x.RequestBodyOmitted) {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	// HEAD is GET without the content (RFC 9110, section 9.3.2), so it is declared by it.
	if req.Method == http.MethodHead {
		req.Method = http.MethodGet
	}

	item, _, template := paths.FindPath(req, c.model, c.options)
	var op *v3.Operation
	if item != nil {
		op = helpers.ExtractOperation(req, item)
	}
	if op == nil {
		return c.checkFallback(x, req, item != nil)
	}

	var faults []string
	v := c.validator
	if x.RequestBodyOmitted {
		v = c.bodiless
	}
	if ok, errs := v.ValidateHttpRequestSync(req); !ok && !refused(x.Status) {
		for _, f := range describe(errs) {
			faults = append(faults, "the request breaks the contract but was not refused: "+f)
		}
	}
	status := strconv.Itoa(x.Status)
	declared := op.Responses.Codes.GetOrZero(status)
	if declared == nil {
		return append(faults, "the operation does not declare this status")
	}
	c.seen[op.OperationId+" "+status] = true
	return append(faults, c.checkResponse(x, req, declared, template)...)
}

func refused(status int) bool {
	return status >= 400 && status < 500 || status == http.StatusServiceUnavailable
}

// fallbacks are the responses to a request that no operation takes.
var fallbacks = map[int]string{
	http.StatusUnauthorized:     "Unauthorized",
	http.StatusForbidden:        "Forbidden",
	http.StatusNotFound:         "NotFound",
	http.StatusMethodNotAllowed: "MethodNotAllowed",
}

func (c *contract) checkFallback(x exchange, req *http.Request, pathDeclared bool) []string {
	if location := x.ResponseHeader.Get("Location"); x.Status/100 == 3 && location != "" {
		target, err := req.URL.Parse(location)
		if err == nil {
			get := &http.Request{Method: http.MethodGet, URL: target}
			if item, _, _ := paths.FindPath(get, c.model, c.options); item != nil {
				return nil
			}
		}
		return []string{"redirects to an undeclared path, " + location}
	}
	if pathDeclared && x.Status == http.StatusNotFound {
		return []string{"the path is declared, so an undeclared method is a 405"}
	}
	name, ok := fallbacks[x.Status]
	if !ok {
		return []string{"the path or the method is not declared, and the answer is not a problem that says so"}
	}
	declared := c.model.Components.Responses.GetOrZero(name)
	if declared == nil {
		return []string{"the contract has no component response " + name}
	}
	return c.checkResponse(x, req, declared, req.URL.Path)
}

func (c *contract) checkResponse(x exchange, req *http.Request, declared *v3.Response, template string) []string {
	res := &http.Response{
		StatusCode: x.Status,
		Header:     x.ResponseHeader,
		Body:       io.NopCloser(bytes.NewReader(x.ResponseBody)),
	}
	var faults []string
	if declared.Headers != nil {
		_, errs := responses.ValidateResponseHeaders(req, res, declared.Headers, template,
			strconv.Itoa(x.Status), config.WithExistingOpts(c.options))
		faults = append(faults, describe(errs)...)
	}
	if orderedmap.Len(declared.Content) == 0 {
		if len(x.ResponseBody) > 0 {
			faults = append(faults, "the response has a body that is not declared")
		}
		return faults
	}
	contentType := res.Header.Get("Content-Type")
	media, ok := helpers.FindMediaType(declared.Content, contentType)
	if !ok {
		return append(faults, fmt.Sprintf("the content type %q is not declared", contentType))
	}
	if x.Method == http.MethodHead {
		if len(x.ResponseBody) > 0 {
			faults = append(faults, "the response to HEAD has a body")
		}
		return faults
	}
	if x.ResponseBodyOmitted {
		return faults
	}
	if len(x.ResponseBody) == 0 {
		return append(faults, "the response has no body")
	}
	if media.Schema == nil || !strings.Contains(contentType, "json") {
		return faults
	}
	// Strict, because User and Problem may grow in the contract but not behind its back.
	_, errs := responses.ValidateResponseSchema(&responses.ValidateResponseSchemaInput{
		Request:  req,
		Response: res,
		Schema:   media.Schema.Schema(),
		Version:  helpers.VersionToFloat(c.model.Version),
		Options:  []config.Option{config.WithExistingOpts(c.options), config.WithStrictMode()},
	})
	return append(faults, describe(errs)...)
}

// unseen lists what the contract declares and no exchange has shown.
func (c *contract) unseen() []string {
	var list []string
	for _, op := range c.operations() {
		for status := range op.Responses.Codes.KeysFromOldest() {
			if pair := op.OperationId + " " + status; !c.seen[pair] {
				list = append(list, pair)
			}
		}
	}
	return list
}

func (c *contract) operations() []*v3.Operation {
	var list []*v3.Operation
	for item := range c.model.Paths.PathItems.ValuesFromOldest() {
		list = append(list, slices.Collect(item.GetOperations().ValuesFromOldest())...)
	}
	return list
}

func describe(errs []*verrors.ValidationError) []string {
	var list []string
	for _, e := range errs {
		text := e.Message
		if len(e.SchemaValidationErrors) == 0 {
			text += ": " + e.Reason
		}
		for _, s := range e.SchemaValidationErrors {
			text += ": " + strings.TrimSpace(s.FieldPath+" "+s.Reason)
		}
		list = append(list, text)
	}
	return list
}

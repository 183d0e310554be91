package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"
)

// A problem is an error that is sent to the client as RFC 9457 problem details.
// Handlers return a *problem or any other error, which problemOf converts.
type problem struct {
	Type      string       `json:"type"` // one of the kinds below, behind kindPrefix
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail,omitempty"`
	RequestID string       `json:"request_id,omitempty"` // extension member, RFC 9457, section 3.2
	Errors    []fieldError `json:"errors,omitempty"`     // extension member

	header http.Header // additional response headers
	cause  error       // logged, never sent
}

// A fieldError names a field of the request and its fault.
type fieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// A kind is the stable type of a problem. Clients compare it; it never changes.
type kind string

const (
	kindInvalid       kind = "invalid-request"        // 400: the request is malformed or a field is invalid
	kindUnauthorized  kind = "unauthorized"           // 401: no valid bearer token
	kindScope         kind = "insufficient-scope"     // 403: a read-only token on a write
	kindCrossOrigin   kind = "cross-origin"           // 403: a browser sent it for another site
	kindNotFound      kind = "not-found"              // 404: no such path, user or image
	kindMethod        kind = "method-not-allowed"     // 405: see the Allow header
	kindSlowBody      kind = "request-timeout"        // 408: the body arrived too slowly
	kindEmailTaken    kind = "email-taken"            // 409: see the Location header
	kindPrecondition  kind = "precondition-failed"    // 412: If-Match or If-None-Match does not hold
	kindTooLarge      kind = "content-too-large"      // 413: the body or the image is over its limit
	kindMediaType     kind = "unsupported-media-type" // 415: not a supported Content-Type, encoding or image format
	kindRange         kind = "range-not-satisfiable"  // 416: see the Content-Range header
	kindInternal      kind = "internal"               // 500: a fault of this program
	kindUnavailable   kind = "unavailable"            // 503: retry after Retry-After
	kindTimeout       kind = "timeout"                // 504: a backend did not answer before the deadline
	kindPrefix             = "urn:roster:problem:"
	problemMediaType       = "application/problem+json"
	retryAfterSeconds      = "1" // backends recover and slots fall free within about that
)

// kinds gives each kind its status and title.
var kinds = map[kind]struct {
	status int
	title  string
}{
	kindInvalid:      {http.StatusBadRequest, "The request is not valid"},
	kindUnauthorized: {http.StatusUnauthorized, "The request is not authorized"},
	kindScope:        {http.StatusForbidden, "The token is read-only"},
	kindCrossOrigin:  {http.StatusForbidden, "Cross-origin requests must not change anything"},
	kindNotFound:     {http.StatusNotFound, "There is no such resource"},
	kindMethod:       {http.StatusMethodNotAllowed, "The method is not allowed here"},
	kindSlowBody:     {http.StatusRequestTimeout, "The request arrived too slowly"},
	kindEmailTaken:   {http.StatusConflict, "The email is taken"},
	kindPrecondition: {http.StatusPreconditionFailed, "The precondition does not hold"},
	kindTooLarge:     {http.StatusRequestEntityTooLarge, "The content is too large"},
	kindMediaType:    {http.StatusUnsupportedMediaType, "The media type is not supported"},
	kindRange:        {http.StatusRequestedRangeNotSatisfiable, "The range is outside the image"},
	kindInternal:     {http.StatusInternalServerError, "The service failed"},
	kindUnavailable:  {http.StatusServiceUnavailable, "The service is not available at the moment"},
	kindTimeout:      {http.StatusGatewayTimeout, "The request took too long"},
}

func newProblem(k kind, format string, args ...any) *problem {
	return &problem{
		Type: kindPrefix + string(k), Title: kinds[k].title, Status: kinds[k].status,
		Detail: fmt.Sprintf(format, args...), header: http.Header{},
	}
}

func (p *problem) Error() string {
	if p.cause != nil {
		return p.cause.Error()
	}
	return cmp.Or(p.Detail, p.Title)
}

func (p *problem) Unwrap() error { return p.cause }

// with adds a response header.
func (p *problem) with(key, value string) *problem {
	p.header.Set(key, value)
	return p
}

func badRequest(format string, args ...any) *problem { return newProblem(kindInvalid, format, args...) }
func notFound(format string, args ...any) *problem   { return newProblem(kindNotFound, format, args...) }
func tooLarge(format string, args ...any) *problem   { return newProblem(kindTooLarge, format, args...) }
func unsupported(format string, args ...any) *problem {
	return newProblem(kindMediaType, format, args...)
}

// overloaded refuses a request that this process has no room for.
func overloaded(format string, args ...any) *problem {
	return newProblem(kindUnavailable, format, args...).with("Retry-After", retryAfterSeconds)
}

// maxFaults bounds the fields that a response names, so that a small request
// cannot cause a large response.
const maxFaults = 20

// badFields reports the faults in the fields of one request.
func badFields(errs ...fieldError) *problem {
	p := badRequest("%s: %s", errs[0].Field, errs[0].Detail)
	p.Errors = errs[:min(len(errs), maxFaults)]
	return p
}

func badField(field, format string, args ...any) *problem {
	return badFields(fieldError{field, fmt.Sprintf(format, args...)})
}

// problemOf converts an error for the client. Unless err is a problem, nothing of
// its text is sent.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge("the body may have at most %d bytes", tooBig.Limit)
	}
	var p *problem
	switch {
	case errors.Is(err, ErrNotFound):
		p = notFound("there is no such user")
	case errors.Is(err, ErrExists):
		p = newProblem(kindEmailTaken, "a user with this email exists")
	case errors.Is(err, ErrPrecondition):
		p = newProblem(kindPrecondition, "the resource does not match If-Match or If-None-Match")
	case errors.Is(err, ErrUnavailable):
		p = overloaded("the storage does not answer; nothing is lost, retry")
	case errors.Is(err, context.DeadlineExceeded):
		p = newProblem(kindTimeout, "the request did not complete before its deadline")
	default:
		p = newProblem(kindInternal, "an unexpected error; please report it with the request id")
	}
	p.cause = err
	return p
}

// writeProblem sends the problem that err converts to.
func writeProblem(w http.ResponseWriter, err error) {
	p := *problemOf(err)
	h := w.Header()
	p.RequestID = h.Get("X-Request-Id")
	body, _ := json.Marshal(p) // only strings and numbers: cannot fail
	body = append(body, '\n')
	for _, key := range []string{"Etag", "Accept-Ranges", "Content-Disposition", "Content-Encoding", "Location"} {
		h.Del(key) // of the response that failed
	}
	for key, values := range p.header {
		h[key] = values
	}
	h.Set("Content-Type", problemMediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	w.Write(body)
}

// abbreviate prepares a client's text for a message: short, valid UTF-8, without
// control characters.
func abbreviate(s string) string {
	const longest = 40
	if r := []rune(s); len(r) > longest {
		s = string(r[:longest]) + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r // an invalid byte is the replacement character already
	}, s)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// A problem is an error as clients get it (RFC 9457). Handlers return it or any other error.
type problem struct {
	Type      string       `json:"type"` // one of the kinds below, as a URN
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail,omitempty"`
	RequestID string       `json:"request_id,omitempty"` // extension member, RFC 9457, section 3.2
	Errors    []fieldError `json:"errors,omitempty"`     // extension member

	header http.Header // additional response headers
}

// A fieldError names a field of the request and its fault.
type fieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// A kind is a type of problem. Its name never changes: clients compare it.
type kind struct {
	name   string
	status int
	title  string
}

var (
	kindInvalid      = kind{"invalid-request", 400, "The request is not valid"}
	kindUnauthorized = kind{"unauthorized", 401, "The request is not authorized"}
	kindScope        = kind{"insufficient-scope", 403, "The token is read-only"}
	kindCrossOrigin  = kind{"cross-origin", 403, "Cross-origin changes are not allowed"}
	kindNotFound     = kind{"not-found", 404, "Not found"}
	kindMethod       = kind{"method-not-allowed", 405, "The method is not allowed"} // with Allow
	kindSlowBody     = kind{"request-timeout", 408, "The request arrived too slowly"}
	kindEmailTaken   = kind{"email-taken", 409, "The email is taken"} // with Location
	kindPrecondition = kind{"precondition-failed", 412, "The precondition does not hold"}
	kindTooLarge     = kind{"content-too-large", 413, "The content is too large"}
	kindMedia        = kind{"unsupported-media-type", 415, "The media type is not supported"}
	kindRange        = kind{"range-not-satisfiable", 416, "The range is outside the image"}
	kindInternal     = kind{"internal", 500, "The service failed"}
	kindUnavailable  = kind{"unavailable", 503, "The service is unavailable"} // with Retry-After
	kindTimeout      = kind{"timeout", 504, "The request took too long"}
)

func newProblem(k kind, format string, args ...any) *problem {
	return &problem{
		Type: "urn:roster:problem:" + k.name, Title: k.title, Status: k.status,
		Detail: fmt.Sprintf(format, args...), header: http.Header{},
	}
}

func (p *problem) Error() string { return p.Detail }

// with adds a response header.
func (p *problem) with(key, value string) *problem {
	p.header.Set(key, value)
	return p
}

func badRequest(format string, a ...any) *problem  { return newProblem(kindInvalid, format, a...) }
func notFound(format string, a ...any) *problem    { return newProblem(kindNotFound, format, a...) }
func tooLarge(format string, a ...any) *problem    { return newProblem(kindTooLarge, format, a...) }
func unsupported(format string, a ...any) *problem { return newProblem(kindMedia, format, a...) }

// overloaded refuses a request. Backends recover and slots fall free within about a second.
func overloaded(format string, args ...any) *problem {
	return newProblem(kindUnavailable, format, args...).with("Retry-After", "1")
}

// badFields reports the faults in the fields of one request.
func badFields(faults ...fieldError) *problem {
	faults = faults[:min(len(faults), 20)] // a small request cannot cause a large response
	var details []string
	for _, fault := range faults {
		details = append(details, fault.Field+": "+fault.Detail)
	}
	p := badRequest("%s", strings.Join(details, "; "))
	p.Errors = faults
	return p
}

func badField(field, format string, args ...any) *problem {
	return badFields(fieldError{field, fmt.Sprintf(format, args...)})
}

// problemOf converts an error for the client. Unless err is a problem, its text is not sent.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return notFound("user not found")
	case errors.Is(err, ErrExists):
		return newProblem(kindEmailTaken, "a user with this email exists")
	case errors.Is(err, ErrPrecondition):
		return newProblem(kindPrecondition, "the resource does not match If-Match or If-None-Match")
	case errors.Is(err, ErrUnavailable):
		return overloaded("storage is unavailable; retry later")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled): // client gone
		return newProblem(kindTimeout, "the request did not complete before its deadline")
	}
	return newProblem(kindInternal, "an unexpected error; please report it with the request id")
}

// bodyError returns the problem of a body that was too large, too slow or truncated.
func bodyError(err error) *problem {
	if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge("the body may have at most %d bytes", tooBig.Limit)
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return newProblem(kindSlowBody, "the body arrived too slowly").with("Connection", "close")
	}
	return badRequest("the body is truncated: %v", err)
}

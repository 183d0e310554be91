package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// A problem is an error that a client is told about: RFC 9457 problem details.
// Handlers return one as their error; everything else they return is turned
// into one by problemOf.
type problem struct {
	Type      string       `json:"type"` // stable, for programs; see the problemType constants
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail,omitempty"`
	RequestID string       `json:"request_id,omitempty"` // extension member, section 3.2
	Errors    []fieldError `json:"errors,omitempty"`     // extension member: what is wrong with which field

	header http.Header // Allow, Retry-After and the like
	cause  error       // for the log, never for the client
}

// A fieldError says what is wrong with one field of a request.
type fieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

func (p *problem) Error() string {
	if p.cause != nil {
		return p.cause.Error()
	}
	return cmp.Or(p.Detail, p.Title)
}

func (p *problem) Unwrap() error { return p.cause }

// The types of problem, one a kind of failure; their titles never change.
const problemType = "urn:roster:problem:"

func newProblem(status int, kind, title, format string, args ...any) *problem {
	return &problem{
		Type: problemType + kind, Title: title, Status: status,
		Detail: fmt.Sprintf(format, args...), header: http.Header{},
	}
}

func badRequest(format string, args ...any) *problem {
	return newProblem(http.StatusBadRequest, "invalid-request", "The request is not valid", format, args...)
}

// maxFaults bounds how many faults an answer names, so that a small request
// cannot make it large.
const maxFaults = 20

// badFields reports the faults found in the fields of one request.
func badFields(errs ...fieldError) *problem {
	p := badRequest("%s: %s", errs[0].Field, errs[0].Detail)
	p.Errors = errs[:min(len(errs), maxFaults)]
	return p
}

func badField(field, format string, args ...any) *problem {
	return badFields(fieldError{field, fmt.Sprintf(format, args...)})
}

func tooLarge(format string, args ...any) *problem {
	return newProblem(http.StatusRequestEntityTooLarge, "content-too-large", "The content is too large", format, args...)
}

func unsupported(format string, args ...any) *problem {
	return newProblem(http.StatusUnsupportedMediaType, "unsupported-media-type", "The media type is not supported", format, args...)
}

func notFound(format string, args ...any) *problem {
	return newProblem(http.StatusNotFound, "not-found", "There is no such resource", format, args...)
}

// overloaded says that this process has no room for the request just now.
func overloaded(format string, args ...any) *problem {
	p := newProblem(http.StatusServiceUnavailable, "unavailable", "The service is not available at the moment", format, args...)
	p.header.Set("Retry-After", retryAfter)
	return p
}

// retryAfter is how many seconds a refused client is asked to wait. Backends
// recover, and slots fall free, within about that.
const retryAfter = "1"

// problemOf says what the client is told of an error. It never contains more of
// err than a problem that a handler made for the client.
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
		p = newProblem(http.StatusConflict, "email-taken", "The email is taken", "there is a user with this email already")
	case errors.Is(err, ErrUnavailable):
		p = overloaded("the storage does not answer at the moment; nothing is lost, please try again")
	case errors.Is(err, context.DeadlineExceeded):
		p = newProblem(http.StatusGatewayTimeout, "timeout", "The request took too long", "the request took longer than it may")
	default:
		p = newProblem(http.StatusInternalServerError, "internal", "The service failed", "an unexpected fault; please report it with the request id")
	}
	p.cause = err
	return p
}

// bodyError tells apart why a request body could not be read: the client sent
// too much, sent too slowly, or went away.
func bodyError(err error) error {
	if _, ok := errors.AsType[*problem](err); ok {
		return err
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		p := newProblem(http.StatusRequestTimeout, "request-timeout", "The request came too slowly", "the body did not arrive in time")
		p.header.Set("Connection", "close")
		return p
	}
	return badRequest("the body broke off: %v", err)
}

// writeProblem answers with the problem that err amounts to.
func writeProblem(w http.ResponseWriter, err error) {
	p := *problemOf(err)
	p.RequestID = w.Header().Get("X-Request-Id")
	body, _ := json.Marshal(p) // strings and numbers only: cannot fail
	body = append(body, '\n')
	h := w.Header()
	h.Del("Etag") // of what would have been the answer
	for key, values := range p.header {
		h[key] = values
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	w.Write(body)
}

// now is the present as users carry it: UTC, in whole milliseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

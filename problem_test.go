package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestBodyError: the error names the mistake of the client.
func TestBodyError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{&http.MaxBytesError{Limit: 1}, http.StatusRequestEntityTooLarge},
		{os.ErrDeadlineExceeded, http.StatusRequestTimeout},
		{fmt.Errorf("multipart: NextPart: %w", os.ErrDeadlineExceeded), http.StatusRequestTimeout},
		{errors.New("unexpected EOF"), http.StatusBadRequest},
	} {
		if got := problemOf(bodyError(test.err)).Status; got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

// TestProblemOf: an error of the service or of a store has its status, and its text is not sent.
func TestProblemOf(t *testing.T) {
	const internal = "table roster, key 42"
	for err, want := range map[error]int{
		errors.New(internal):                          http.StatusInternalServerError,
		fmt.Errorf("%w: "+internal, ErrUnavailable):   http.StatusServiceUnavailable,
		fmt.Errorf(internal+": %w", ErrNotFound):      http.StatusNotFound,
		fmt.Errorf(internal+": %w", ErrExists):        http.StatusConflict,
		fmt.Errorf(internal+": %w", ErrPrecondition):  http.StatusPreconditionFailed,
		fmt.Errorf("%w: "+internal, context.Canceled): http.StatusGatewayTimeout,
	} {
		p := problemOf(err)
		if p.Status != want || strings.Contains(p.Detail, internal) {
			t.Errorf("%v: status %d, detail %q; want %d and no internals", err, p.Status, p.Detail, want)
		}
		if retry := p.header.Get("Retry-After"); (retry != "") != (want == http.StatusServiceUnavailable) {
			t.Errorf("%v: Retry-After %q", err, retry)
		}
	}
}

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
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

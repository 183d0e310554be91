package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestAbbreviate(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"admin":                  "admin",
		"a\r\nb":                 "a\ufffd\ufffdb",
		"\xff":                   "\ufffd",
		strings.Repeat("ä", 100): strings.Repeat("ä", 40) + "…",
	} {
		if got := abbreviate(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

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

package main

import (
	"net/http"
	"testing"
)

func TestParseRange(t *testing.T) {
	for _, test := range []struct {
		field         string
		status        int
		start, length int64
	}{
		{"", http.StatusOK, 0, 100},
		{"bytes=0-0", http.StatusPartialContent, 0, 1},
		{"bytes=0-99", http.StatusPartialContent, 0, 100},
		{"bytes=0-", http.StatusPartialContent, 0, 100},
		{"bytes=10-", http.StatusPartialContent, 10, 90},
		{"bytes=10-1000", http.StatusPartialContent, 10, 90},
		{"bytes=99-99", http.StatusPartialContent, 99, 1},
		{"bytes=-1", http.StatusPartialContent, 99, 1},
		{"bytes=-1000", http.StatusPartialContent, 0, 100},
		{"bytes=100-", http.StatusRequestedRangeNotSatisfiable, 0, 0},
		{"bytes=-0", http.StatusRequestedRangeNotSatisfiable, 0, 0},
		{"bytes=99999999999999999999-", http.StatusRequestedRangeNotSatisfiable, 0, 0},
		{"bytes=0-99999999999999999999", http.StatusPartialContent, 0, 100},
		// What is not understood is the whole image.
		{"bytes=5-4", http.StatusOK, 0, 100},
		{"bytes=-", http.StatusOK, 0, 100},
		{"bytes=+1-2", http.StatusOK, 0, 100},
		{"bytes=1--2", http.StatusOK, 0, 100},
		{"bytes=a-b", http.StatusOK, 0, 100},
		{"bytes=1-2,4-5", http.StatusOK, 0, 100},
		{"lines=1-2", http.StatusOK, 0, 100},
	} {
		status, start, length := parseRange(test.field, 100)
		if status != test.status || start != test.start || length != test.length {
			t.Errorf("parseRange(%q) = %d, %d, %d, want %d, %d, %d", test.field, status, start, length, test.status, test.start, test.length)
		}
	}
}

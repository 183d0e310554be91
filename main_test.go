package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestLogOfHTTP: that no connection can be taken is for the operator to know;
// what a hostile one sends is not worth a line.
func TestLogOfHTTP(t *testing.T) {
	var out bytes.Buffer
	server := newHTTPServer(nil, slog.New(slog.NewJSONHandler(&out, nil)))
	server.ErrorLog.Printf("http: invalid Content-Length")
	server.ErrorLog.Printf("http: Accept error: too many open files; retrying in 5ms")
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"level":"ERROR"`) || !strings.Contains(got, "too many open files") {
		t.Errorf("logged: %s", got)
	}
}

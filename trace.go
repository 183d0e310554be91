package main

import (
	"crypto/rand"
	"net/http"
	"strings"
)

// requestID takes over the id that a proxy or client has given the request, if
// it is fit for a log line and a header, and else makes one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if len(id) < 1 || len(id) > 64 || strings.Trim(id, requestIDAlphabet) != "" {
		return strings.ToLower(rand.Text())
	}
	return id
}

const requestIDAlphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// traceID returns the trace id of a traceparent field (W3C Trace Context, section
// 3.2.2), or "" if the field is not valid.
func traceID(traceparent string) string {
	const length = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	if len(traceparent) < length || traceparent[:2] == "ff" {
		return ""
	}
	// Later versions may append more, after another dash.
	if len(traceparent) > length && (traceparent[:2] == "00" || traceparent[length] != '-') {
		return ""
	}
	fields := strings.Split(traceparent[:length], "-")
	if len(fields) != 4 || len(fields[0]) != 2 || len(fields[1]) != 32 || len(fields[2]) != 16 {
		return ""
	}
	for _, f := range fields {
		if strings.Trim(f, "0123456789abcdef") != "" {
			return ""
		}
	}
	if strings.Trim(fields[1], "0") == "" || strings.Trim(fields[2], "0") == "" {
		return ""
	}
	return fields[1]
}

// Package testkit has what tests share: DynamoDB and S3 on local HTTP servers, as far as Roster
// uses them, with fault injection; images; and helpers.
package testkit

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Long is the flag -long: the tests that take minutes run in full.
var Long = flag.Bool("long", false, "run histories, crashes, storms, load and outages in full")

// Must returns v. It panics if err is not nil.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Together runs do n times concurrently.
func Together(n int, do func(i int)) {
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() { do(i) })
	}
	done.Wait()
}

// Eventually repeats check until it succeeds. It fails the test after a minute: a busy machine may take most of it.
func Eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within a minute: %v", what, err)
}

// Send sends a request and returns the status and the body of the response. A body that breaks
// off is an error.
func Send(client *http.Client, method, url, contentType string, body []byte) (int, []byte, error) {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp.StatusCode, got, err
}

package testkit

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Table and Bucket exist in new fakes.
const Table, Bucket = "roster-test", "roster-test"

// serve serves a fake until the test ends, and returns its URL.
func serve(t testing.TB, fake http.Handler) (url string) {
	server := httptest.NewServer(fake)
	t.Cleanup(func() {
		server.CloseClientConnections() // of requests that hang
		server.Close()
	})
	return server.URL
}

// A Fault is the failure of one request. The zero Fault is success.
type Fault struct {
	Status  int           // respond with this status and Code, without performing the operation
	Code    string        // error code
	Applied bool          // perform the operation before failing
	Delay   time.Duration // before the response
	Hang    bool          // no response until the client gives up
	Drop    bool          // close the connection without a response
	Cut     bool          // close the connection in the middle of the body
	Stall   bool          // send half of the body and no more
	Corrupt bool          // flip a bit of the body, but not of its checksum
	Gate    chan struct{} // hold the request until this is closed
	Region  string        // of the bucket, in the header of an error of S3

	// Lost closes the connection without an answer when it returns. What was asked
	// is done when arrive is called, then or later.
	Lost func(arrive func())
}

// Faults are the failures of a fake by operation, and the number of calls. The operation
// "*" stands for all.
type Faults struct {
	mu     sync.Mutex
	queue  map[string][]Fault
	always map[string]Fault
	asked  map[string]int
	Skew   time.Duration // of the server's clock
}

// Next sets the failures of the next calls of an operation.
func (f *Faults) Next(operation string, list ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queue == nil {
		f.queue = map[string][]Fault{}
	}
	f.queue[operation] = append(f.queue[operation], list...)
}

// Always sets the failure of all calls of an operation that follow those of Next.
func (f *Faults) Always(operation string, what Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.always == nil {
		f.always = map[string]Fault{}
	}
	f.always[operation] = what
}

// Clear removes all faults.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue, f.always = nil, nil
}

// Calls returns the number of calls of an operation; "" stands for all.
func (f *Faults) Calls(operation string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[operation]
}

func (f *Faults) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Add(f.Skew)
}

func (f *Faults) take(operation string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == nil {
		f.asked = map[string]int{}
	}
	f.asked[operation]++
	f.asked[""]++ // of all operations
	for _, name := range []string{operation, "*"} {
		if list := f.queue[name]; len(list) > 0 {
			f.queue[name] = list[1:]
			return list[0]
		}
		if what, ok := f.always[name]; ok {
			return what
		}
	}
	return Fault{}
}

// serve performs an operation, or its fault. refuse writes an error in the format of the
// protocol.
func (f *Faults) serve(w http.ResponseWriter, r *http.Request, operation string, do http.HandlerFunc,
	refuse func(w http.ResponseWriter, status int, code string)) {
	what := f.take(operation)
	if what.Gate != nil {
		select {
		case <-what.Gate:
		case <-r.Context().Done():
		}
	}
	if what.Lost != nil {
		request := r.Clone(context.Background())
		request.Body = io.NopCloser(bytes.NewReader(bufferBody(r)))
		what.Lost(func() { do(httptest.NewRecorder(), request) })
		panic(http.ErrAbortHandler)
	}
	if what.Delay > 0 {
		select {
		case <-time.After(what.Delay):
		case <-r.Context().Done():
		}
	}
	answer := httptest.NewRecorder()
	answer.Header().Set("Date", f.now().UTC().Format(http.TimeFormat))
	if what.Applied || what.Status == 0 && !what.Hang && !what.Drop {
		do(answer, r)
	}
	switch {
	case what.Hang:
		// The server detects a closed connection only after the body is read.
		bufferBody(r)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case what.Drop:
		panic(http.ErrAbortHandler)
	case what.Status != 0:
		answer = httptest.NewRecorder()
		answer.Header().Set("Date", f.now().UTC().Format(http.TimeFormat))
		if what.Region != "" {
			answer.Header().Set("X-Amz-Bucket-Region", what.Region)
		}
		refuse(answer, what.Status, what.Code)
	}
	body := answer.Body.Bytes()
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	if r.Method != http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	if what.Corrupt && len(body) > 0 {
		body[len(body)/2] ^= 1
	}
	w.WriteHeader(answer.Code)
	if what.Cut || what.Stall {
		w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		if what.Stall {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}
	w.Write(body)
}

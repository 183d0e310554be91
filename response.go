package main

import (
	"cmp"
	"context"
	"errors"
	"io"

	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	writeTimeout = 20 * time.Second // for a client to accept each piece of a response

	// A body must arrive at minBodyRate on average, after bodyGrace: its memory is
	// reserved while it arrives, and slow clients would exclude all others.
	minBodyRate = 16 << 10 // bytes a second
	bodyGrace   = 5 * time.Second

	// The connection outlives the request's deadline by answerGrace for reads and
	// twice that for writes, so that the 504 or 408 is still sent.
	answerGrace = 2 * time.Second
)

// statusClientGone is logged and counted when the client closed the connection
// before it had the whole response.
const statusClientGone = 499

// A response is the ResponseWriter of every handler. It sends the header with the
// first byte of the body, so that an error until then is still sent as a problem.
type response struct {
	http.ResponseWriter
	control  *http.ResponseController
	server   *server
	request  *http.Request
	start    time.Time
	readBy   time.Time // deadline of the request's last byte
	deadline time.Time // deadline of the response's last byte
	route    string    // path of the matched pattern
	token    string    // name of the client's token
	user     string    // id of the user in the path or body
	status   int       // 0: not set yet
	sent     bool      // the header is sent
	replaced bool      // a problem replaces what net/http writes
	broken   bool      // the connection must be closed
	bytes    int64
	reserved int64 // bytes of uploadBudget
	err      error // why the request failed
	bodyErr  error // why the request's body could not be read
	writeErr error // why the response could not be written
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// limit sets the connection's deadlines. A slow client meets these; a slow backend
// meets the context's deadline, which is earlier.
func (w *response) limit(timeout time.Duration) {
	w.readBy = w.start.Add(timeout + answerGrace)
	w.deadline = w.start.Add(timeout + 2*answerGrace)
	w.control.SetReadDeadline(w.readBy)
	w.control.SetWriteDeadline(w.deadline)
}

// WriteHeader sets the status. An error that net/http writes as plain text is
// replaced by a problem.
func (w *response) WriteHeader(status int) {
	h := w.Header()
	switch {
	case w.status != 0:
		return
	case status < 200:
		w.ResponseWriter.WriteHeader(status)
		return
	case status >= 400 && h.Get("Content-Type") != problemMediaType:
		writeProblem(w, w.problemFor(status))
		w.replaced = true
		return
	case w.route == "" && strings.HasPrefix(h.Get("Location"), "/"): // from ServeMux
		h.Set("Location", w.server.PublicURL+h.Get("Location")) // keep a proxy's prefix
	}
	w.status = status
}

// problemFor returns the problem for an error status of ServeMux or ServeContent.
func (w *response) problemFor(status int) *problem {
	h := w.Header()
	switch status {
	case http.StatusNotFound:
		return notFound("no such path; see /openapi.yaml")
	case http.StatusMethodNotAllowed:
		if w.request.Method == http.MethodPost && w.request.URL.Path == "/users" {
			return newProblem(kindMethod, "this path allows %s; POST /user creates a user", h.Get("Allow"))
		}
		return newProblem(kindMethod, "this path allows %s", h.Get("Allow"))
	case http.StatusPreconditionFailed:
		return problemOf(ErrPrecondition)
	case http.StatusRequestedRangeNotSatisfiable:
		return newProblem(kindRange, "the range is outside the image: %s", h.Get("Content-Range"))
	case http.StatusBadRequest:
		return badRequest("the request target is not a path")
	}
	return problemOf(errors.New(http.StatusText(status)))
}

func (w *response) Write(b []byte) (int, error) {
	if w.replaced {
		return len(b), nil
	}
	w.sendHeader()
	w.control.SetWriteDeadline(earlier(w.deadline, time.Now().Add(writeTimeout)))
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	if err != nil {
		w.writeErr = err
	}
	return n, err
}

func (w *response) sendHeader() {
	if w.sent {
		return
	}
	w.sent = true
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if w.server.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(w.status)
}

// Images are copied through larger buffers than io.Copy's 32 KiB: fewer system
// calls for the same bytes.
const copyBufferSize = 128 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBufferSize]byte) }}

// ReadFrom copies through a pooled buffer. io.Copy calls it.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	buffer := copyBuffers.Get().(*[copyBufferSize]byte)
	defer copyBuffers.Put(buffer)
	return io.CopyBuffer(struct{ io.Writer }{w}, src, buffer[:])
}

// fail ends the response with an error: as a problem if nothing is sent yet, else
// by closing the connection, so that a partial response never looks complete.
func (w *response) fail(err error) {
	w.err = err
	switch {
	case w.writeErr != nil || errors.Is(err, context.Canceled):
		w.status, w.broken = statusClientGone, true
	case !w.sent:
		w.status = 0
		writeProblem(w, err)
	default:
		w.status, w.broken = problemOf(err).Status, true
	}
}

// finish sends what is buffered. If the client has gone or the deadline has passed,
// the client does not have the response, and the log must not say that it has.
func (w *response) finish() {
	if w.broken {
		return
	}
	gone := w.request.Context().Err() // of the connection, not of the handler
	w.sendHeader()
	var err error
	if w.Header().Get("Content-Length") != "" { // else net/http sends the rest with the end of the chunked body
		w.control.SetWriteDeadline(earlier(w.deadline, time.Now().Add(writeTimeout)))
		err = w.control.Flush()
	}
	if err = cmp.Or(err, gone); err != nil {
		w.status, w.writeErr, w.broken = statusClientGone, err, true
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// A requestBody counts the bytes of a request's body and enforces minBodyRate.
type requestBody struct {
	io.ReadCloser
	resp  *response
	start time.Time // of the first read
	n     int64
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.start.IsZero() {
		b.start = time.Now()
	}
	due := b.start.Add(bodyGrace + time.Duration(b.n)*time.Second/minBodyRate)
	b.resp.control.SetReadDeadline(earlier(b.resp.readBy, due))
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if err == io.EOF { // from here the deadline only detects that the client has gone
		b.resp.control.SetReadDeadline(b.resp.readBy)
	} else {
		b.resp.bodyErr = err
	}
	return n, err
}

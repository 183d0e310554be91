package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	writeTimeout = 20 * time.Second // for a client to accept each piece of a response

	minBodyRate = 16 << 10        // bytes a second, after bodyGrace: a body reserves memory
	bodyGrace   = 5 * time.Second // from the request's header

	// The connection outlives the request's deadline by answerGrace for reads and
	// twice that for writes, so that the 504 or 408 is still sent.
	answerGrace = 2 * time.Second

	statusClientGone = 499 // logged if the client closed the connection before the end
)

// A response is the ResponseWriter of every handler. It sends the header with the
// first byte of the body, so that an error until then is still sent as a problem.
type response struct {
	http.ResponseWriter
	control  *http.ResponseController
	server   *server
	request  *http.Request
	body     requestBody
	start    time.Time
	deadline time.Time // of the request's last byte
	route    string    // path of the matched pattern
	token    string    // name of the client's token
	user     string    // id of the user in the path or body
	reserved int64     // bytes of uploadBudget
	bytes    int64
	status   int   // 0: not set yet
	err      error // why the request failed
	sent     bool  // the header is sent
	broken   bool  // the connection must be closed

	condition Condition // If-Match and If-None-Match
}

// limit sets the connection's deadlines. A slow client meets these; a slow backend
// meets the context's deadline, which is earlier.
func (w *response) limit(timeout time.Duration) {
	w.deadline = w.start.Add(timeout + answerGrace)
	w.control.SetReadDeadline(w.deadline)
	w.control.SetWriteDeadline(w.deadline.Add(answerGrace))
}

// WriteHeader sets the status. An error of ServeMux becomes a problem.
func (w *response) WriteHeader(status int) {
	if status >= 400 {
		w.err = w.problemFor(status)
		return
	}
	if path := w.Header().Get("Location"); w.route == "" && strings.HasPrefix(path, "/") {
		w.Header().Set("Location", w.server.PublicURL+path) // keep a proxy's prefix
	}
	w.status = status
}

// problemFor returns the problem for an error status of ServeMux.
func (w *response) problemFor(status int) error {
	switch status {
	case http.StatusNotFound:
		if w.request.URL.Path == "/metrics" {
			return notFound("the metrics are on METRICS_ADDR")
		}
		return notFound("no such path; see /openapi.yaml")
	case http.StatusMethodNotAllowed:
		allowed := w.Header().Get("Allow")
		if w.request.URL.Path == "/users" {
			allowed += "; POST /user creates a user"
		}
		return newProblem(kindMethod, "this path allows %s", allowed)
	case http.StatusBadRequest:
		return badRequest("the request target is not a path")
	}
	return errors.New(http.StatusText(status))
}

func (w *response) Write(b []byte) (int, error) {
	if w.err != nil {
		return len(b), nil // the text of an error
	}
	return w.send(b)
}

func (w *response) send(b []byte) (int, error) {
	w.sendHeader()
	w.control.SetWriteDeadline(earlier(time.Now().Add(writeTimeout), w.deadline.Add(answerGrace)))
	n, err := w.ResponseWriter.Write(b)      // #nosec G705 -- JSON or an image, with nosniff
	if w.request.Method != http.MethodHead { // whose body net/http drops
		w.bytes += int64(n)
	}
	if err != nil {
		w.status, w.broken = statusClientGone, true
	}
	return n, err
}

// earlier returns the earlier of two times.
func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (w *response) sendHeader() {
	if w.sent {
		return
	}
	w.sent = true
	w.status = cmp.Or(w.status, http.StatusOK)
	if w.server.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(w.status)
}

// sendProblem sends a problem instead of what the handler prepared.
func (w *response) sendProblem(p problem) {
	h := w.Header()
	ofContent := []string{"Etag", "Accept-Ranges", "Content-Disposition", "Content-Encoding", "Content-Range"}
	for _, key := range ofContent {
		h.Del(key)
	}
	maps.Copy(h, p.header)
	h.Set("Cache-Control", "no-store")
	p.RequestID = h.Get("X-Request-Id")
	_ = w.sendJSON(p.Status, "application/problem+json", p)
}

// sendJSON sends v as a whole body.
func (w *response) sendJSON(status int, mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.sendBody(status, mediaType, append(body, '\n'))
}

// sendBody sends a whole body, with the header in one packet.
func (w *response) sendBody(status int, mediaType string, body []byte) error {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.status = status
	_, err := w.send(body)
	return err
}

// finish sends the rest of the response, or the problem. If the client has gone or the deadline
// has passed, the response is incomplete, and the log must record that.
func (w *response) finish() {
	clientGone := w.request.Context().Err() != nil // of the connection, not of the handler
	if w.err != nil && !w.broken {
		p := problemOf(w.err)
		if w.sent { // a partial response must not look complete
			w.status, w.broken = p.Status, true
		} else {
			w.sendProblem(*p)
		}
	}
	if !w.broken {
		w.sendHeader()
		// Without Content-Length, net/http sends the rest with the end of the chunked body.
		if w.Header().Get("Content-Length") != "" {
			if err := w.control.Flush(); err != nil {
				clientGone = true
			}
		}
	}
	if clientGone && w.status != http.StatusRequestTimeout { // net/http ends the context after a slow body, too
		w.status, w.broken = statusClientGone, true
	}
}

// A requestBody counts the bytes of a request's body and enforces minBodyRate.
type requestBody struct {
	io.ReadCloser
	response *response
	n        int64
}

func (b *requestBody) Read(p []byte) (int, error) {
	due := b.response.start.Add(bodyGrace + time.Duration(b.n)*time.Second/minBodyRate)
	b.response.control.SetReadDeadline(earlier(due, b.response.deadline))
	n, err := b.ReadCloser.Read(p) // at the end, net/http clears the deadline
	b.n += int64(n)
	return n, err
}

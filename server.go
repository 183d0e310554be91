package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// How long requests may take, by kind. A request that waits for its backend
// past this is answered 504; one whose body comes too slowly 408.
const (
	shortTimeout  = 10 * time.Second
	uploadTimeout = time.Minute      // a large image over a slow line, either way
	listTimeout   = 10 * time.Minute // the whole list, however long
	writeTimeout  = 20 * time.Second // for a client to take each piece of an answer

	// A body has to arrive at minBodyRate on the average, after bodyGrace.
	minBodyRate = 64 << 10 // bytes a second
	bodyGrace   = 5 * time.Second

	// The connection outlives the request's deadline by this in reading, and by
	// twice this in writing, so that the answer which says so still gets out.
	answerGrace = 2 * time.Second

	// maxInFlight bounds the requests answered at once. It is far above what
	// keeps the processors busy: beyond it, waiting only gets longer.
	maxInFlight = 1024
)

// A server answers the API. It is an http.Handler.
type server struct {
	config
	users   Users
	avatars Avatars
	tokens  *tokens // nil: no tokens needed
	log     *slog.Logger
	metrics *metrics
	build   build

	mux         *http.ServeMux
	crossOrigin *http.CrossOriginProtection
	uploads     *semaphore.Weighted // bytes of uploadBudget
	discards    *semaphore.Weighted // of maxDiscards; all are free when nothing is left to do
	known       knownAvatars
	inFlight    atomic.Int64
	ready       atomic.Bool // opened once, by watchReady
	draining    atomic.Bool // set once, by the signal to stop
}

func newServer(c config, users Users, avatars Avatars, t *tokens, log *slog.Logger, m *metrics, b build) *server {
	s := &server{
		config: c, users: users, avatars: avatars, tokens: t, log: log, metrics: m, build: b,
		mux:         http.NewServeMux(),
		crossOrigin: http.NewCrossOriginProtection(),
		uploads:     semaphore.NewWeighted(uploadBudget),
		discards:    semaphore.NewWeighted(maxDiscards),
	}
	s.handle("GET /users", listTimeout, private, s.listUsers)
	s.handle("POST /user", uploadTimeout, private, s.createUser)
	s.handle("POST /upload", uploadTimeout, private, s.upload)
	s.handle("GET /users/{id}", shortTimeout, private, s.getUser)
	s.handle("PATCH /users/{id}", shortTimeout, private, s.renameUser)
	s.handle("DELETE /users/{id}", uploadTimeout, private, s.deleteUser)
	readAvatar := private
	if c.AvatarsPublic {
		readAvatar = public
	}
	s.handle("GET /users/{id}/avatar", uploadTimeout, readAvatar, s.getAvatar)
	s.handle("PUT /users/{id}/avatar", uploadTimeout, private, s.putAvatar)
	s.handle("DELETE /users/{id}/avatar", shortTimeout, private, s.deleteAvatar)
	s.handle("GET /livez", shortTimeout, public, s.livez)
	s.handle("GET /readyz", shortTimeout, public, s.readyz)
	s.handle("GET /version", shortTimeout, public, s.version)
	s.handle("GET /openapi.yaml", shortTimeout, public, always(servePage))
	s.handle("GET /swagger/", shortTimeout, public, always(servePage))
	s.handle("GET /swagger", shortTimeout, public, s.toSwagger)
	s.handle("GET /{$}", shortTimeout, public, s.toSwagger)
	return s
}

// access says whether a route needs a token where tokens are on.
type access bool

const (
	private access = true
	public  access = false
)

// handle registers a route. What the handler returns as its error is answered as
// a problem; if it has begun to answer, the connection is broken instead, so
// that nobody takes half an answer for a whole one.
func (s *server) handle(pattern string, timeout time.Duration, a access, handler func(http.ResponseWriter, *http.Request) error) {
	method, path, _ := strings.Cut(pattern, " ")
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		resp := w.(*response)
		resp.route = path
		if err := s.admit(resp, r, a); err != nil {
			resp.fail(err)
			return
		}
		ctx := r.Context()
		if method != http.MethodGet {
			// A change that was asked for is brought to an end, even if the client
			// does not wait for the answer: broken off, it might be half done.
			ctx = context.WithoutCancel(ctx)
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		resp.limit(timeout)
		err := handler(w, r.WithContext(ctx))
		if err != nil && resp.bodyErr != nil {
			// Why the body could not be read, which not every reader of it tells.
			err = bodyError(resp.bodyErr)
		}
		if err != nil {
			resp.fail(err)
		}
	})
}

// always makes a handler of one that cannot fail.
func always(h http.HandlerFunc) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		h(w, r)
		return nil
	}
}

// toSwagger leads from / and /swagger to the page that shows the API: by a
// relative reference, which is right behind any proxy and port-forward.
func (s *server) toSwagger(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Location", "swagger/")
	w.WriteHeader(http.StatusFound)
	return nil
}

// admit decides whether a matched request may go on.
func (s *server) admit(resp *response, r *http.Request, a access) error {
	if err := s.crossOrigin.Check(r); err != nil {
		return newProblem(http.StatusForbidden, "cross-origin", "Cross-origin requests may not change anything", "%v", err)
	}
	if a == public || s.tokens == nil {
		return nil
	}
	name, err := s.tokens.authenticate(r)
	resp.client = name
	return err
}

// ServeHTTP does what every request has in common.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resp := &response{ResponseWriter: w, start: time.Now(), control: http.NewResponseController(w), last: &s.draining}
	h := resp.Header()
	id := requestID(r)
	h.Set("X-Request-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	if r.TransferEncoding != nil {
		// After a message that has both Transfer-Encoding and Content-Length the
		// connection must end (RFC 9112, section 6.1), since another program may
		// have seen another request behind it. Which messages had both, net/http
		// does not tell.
		h.Set("Connection", "close")
	}
	body := &requestBody{ReadCloser: r.Body, resp: resp}
	if r.Body != http.NoBody {
		// On a copy: by the type of the original's body net/http sees that nobody
		// has asked for it yet ("Expect: 100-continue"), or that what is left of
		// it is too much to wait for, and answers at once.
		r = r.WithContext(r.Context())
		r.Body = body
	}
	// For what is refused before a route is found, too: its body need not come,
	// and the deadline of the connection's last request may be over.
	resp.limit(shortTimeout)
	n := s.inFlight.Add(1)
	s.metrics.requestsInFlight.Inc()
	defer func() {
		s.inFlight.Add(-1)
		s.metrics.requestsInFlight.Dec()
		if v := recover(); v != nil {
			s.metrics.panics.Inc()
			s.log.Error("panic", "value", fmt.Sprint(v), "stack", string(debug.Stack()), "request_id", id)
			resp.fail(fmt.Errorf("panic: %v", v))
		}
		s.observe(resp, r, body.n, id)
		if resp.broken {
			panic(http.ErrAbortHandler)
		}
	}()
	if n > maxInFlight && !isProbe(r.URL.Path) {
		resp.fail(overloaded("%d requests are under way already", maxInFlight))
		return
	}
	s.mux.ServeHTTP(resp, r)
}

func isProbe(path string) bool { return path == "/livez" || path == "/readyz" }

// observe logs and measures a request that has been answered.
func (s *server) observe(resp *response, r *http.Request, bodyBytes int64, id string) {
	elapsed := time.Since(resp.start)
	status := resp.status
	if status == 0 {
		status = http.StatusOK // nothing was written: net/http answers this
	}
	route, method := resp.route, r.Method
	if route == "" {
		route = "unmatched"
	}
	if !slices.Contains(methods, method) {
		method = "other"
	}
	s.metrics.requestDuration.WithLabelValues(method, route, strconv.Itoa(status)).Observe(elapsed.Seconds())
	s.metrics.requestBytes.WithLabelValues(route).Observe(float64(bodyBytes))
	s.metrics.responseBytes.WithLabelValues(route).Observe(float64(resp.bytes))
	if resp.upload {
		s.metrics.observeUpload(status, resp.err)
	}

	level := slog.LevelInfo
	switch {
	case isProbe(route): // every few seconds; why it is not ready is logged by watchReady
		level = slog.LevelDebug
	case status >= 500:
		level = slog.LevelError
	}
	if !s.log.Enabled(r.Context(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("method", method), slog.String("route", route), slog.Int("status", status),
		slog.Int64("bytes", resp.bytes), slog.Float64("duration", elapsed.Seconds()), slog.String("request_id", id))
	if trace := traceID(r.Header.Get("Traceparent")); trace != "" {
		attrs = append(attrs, slog.String("trace_id", trace))
	}
	if resp.client != "" {
		attrs = append(attrs, slog.String("client", resp.client))
	}
	if resp.broken {
		attrs = append(attrs, slog.Bool("broken", true))
	}
	if resp.err != nil && status >= 500 {
		attrs = append(attrs, slog.String("error", resp.err.Error()))
	}
	s.log.LogAttrs(r.Context(), level, "request", attrs...)
}

var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// statusClientGone stands in logs and metrics for a request whose client went
// away before the answer was complete.
const statusClientGone = 499

// A response is a ResponseWriter that knows what has become of it.
type response struct {
	http.ResponseWriter
	control  *http.ResponseController
	last     *atomic.Bool // whether the connection ends with this answer
	start    time.Time
	readBy   time.Time // for the last byte of the request
	deadline time.Time // for the last byte of the answer; zero: none
	route    string    // path of the pattern that matched
	client   string    // name of the token
	status   int       // 0: no header written yet
	bytes    int64
	upload   bool  // it is about an image
	broken   bool  // the connection must not be used any further
	replaced bool  // the answer of net/http's router was replaced by a problem
	err      error // what went wrong
	bodyErr  error // why the request's body could not be read to its end
	writeErr error // the client does not take the answer
}

// Unwrap is for http.ResponseController.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// limit gives the connection its deadlines for this request. Slow clients run
// into them; a backend that is slow runs into the context's, which is earlier.
func (r *response) limit(timeout time.Duration) {
	r.deadline = r.start.Add(timeout + 2*answerGrace)
	r.readBy = r.start.Add(timeout + answerGrace)
	r.control.SetReadDeadline(r.readBy)
	r.control.SetWriteDeadline(r.deadline)
}

func (r *response) WriteHeader(status int) {
	if r.route == "" && r.status == 0 && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) {
		r.replace(status)
		return
	}
	if r.status == 0 && status >= 200 {
		r.status = status
		if r.last.Load() {
			r.Header().Set("Connection", "close")
		}
	}
	r.ResponseWriter.WriteHeader(status)
}

// replace answers for the router, which knows only plain text, with a problem.
func (r *response) replace(status int) {
	r.route = "unmatched"
	p := notFound("no such path; see /openapi.yaml")
	if status == http.StatusMethodNotAllowed {
		p = newProblem(status, "method-not-allowed", "The method is not allowed here", "this path allows %s", r.Header().Get("Allow"))
	}
	writeProblem(r, p)
	r.replaced = true
}

func (r *response) Write(b []byte) (int, error) {
	if r.replaced {
		return len(b), nil
	}
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if !r.deadline.IsZero() {
		r.control.SetWriteDeadline(earlier(r.deadline, time.Now().Add(writeTimeout)))
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	if err != nil {
		r.writeErr = err
	}
	return n, err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// fail ends the answer with an error: by a problem if nothing has been written,
// else by breaking the connection.
func (r *response) fail(err error) {
	r.err = err
	gone := r.writeErr != nil || errors.Is(err, context.Canceled)
	switch {
	case gone:
		r.status, r.broken = statusClientGone, true
	case r.status == 0:
		writeProblem(r, err)
	default:
		r.status, r.broken = problemOf(err).Status, true
	}
}

// A requestBody counts what is read of a request's body, and bounds how slowly it
// may come: what it is going to take in memory is reserved for it meanwhile, and a
// few clients that trickle would keep all others out.
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
	if err == io.EOF { // from now on it is only the client's going away that is watched for
		b.resp.control.SetReadDeadline(b.resp.readBy)
	} else {
		b.resp.bodyErr = err
	}
	return n, err
}

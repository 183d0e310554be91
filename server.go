package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
)

const (
	shortTimeout    = 10 * time.Second // deadlines of requests, by kind
	transferTimeout = 2 * time.Minute  // a large image over a slow line, in either direction
	listTimeout     = 10 * time.Minute // the whole list

	maxInFlight  = 1024 // requests
	maxTransfers = 384  // downloads, and as many uploads: one kind leaves room for the other
)

// A server answers the API. It is an http.Handler.
type server struct {
	config
	users   Users
	avatars Avatars
	tokens  *tokens // nil: the API is open
	log     *slog.Logger
	metrics *metrics
	build   build

	mux          *http.ServeMux
	crossOrigin  *http.CrossOriginProtection
	uploadMemory *semaphore.Weighted // bytes of uploadBudget
	renders      *semaphore.Weighted // one a core
	pixels       *semaphore.Weighted // of maxThumbnailPixels
	thumbnails   singleflight.Group  // by user id and key
	background   sync.WaitGroup      // deletions after the response
	ready        atomic.Bool         // set once, by watchReady
	draining     atomic.Bool         // set once, by SIGTERM

	inFlight, downloads, uploads, lists atomic.Int64 // requests
}

func newServer(c config, users Users, avatars Avatars, t *tokens, log *slog.Logger, m *metrics, b build) *server {
	s := &server{
		config: c, users: users, avatars: avatars, tokens: t, log: log, metrics: m, build: b,
		mux:          http.NewServeMux(),
		crossOrigin:  http.NewCrossOriginProtection(),
		uploadMemory: semaphore.NewWeighted(uploadBudget),
		renders:      semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
		pixels:       semaphore.NewWeighted(maxThumbnailPixels),
	}
	if u, err := url.Parse(c.PublicURL); err == nil && c.PublicURL != "" {
		s.crossOrigin.AddTrustedOrigin(u.Scheme + "://" + u.Host)
	}
	s.handle("GET /users", listTimeout, &s.downloads, private, s.listUsers)
	s.handle("POST /user", transferTimeout, &s.uploads, private, s.createUser)
	s.handle("POST /upload", transferTimeout, &s.uploads, private, s.upload)
	s.handle("GET /users/{id}", shortTimeout, nil, private, s.getUser)
	s.handle("PATCH /users/{id}", shortTimeout, nil, private, s.renameUser)
	s.handle("DELETE /users/{id}", transferTimeout, nil, private, s.deleteUser)
	s.handle("GET /users/{id}/avatar", transferTimeout, &s.downloads, images, s.getAvatar)
	s.handle("GET /users/{id}/avatar/{version}", transferTimeout, &s.downloads, images, s.getAvatar)
	s.handle("PUT /users/{id}/avatar", transferTimeout, &s.uploads, private, s.putAvatar)
	s.handle("DELETE /users/{id}/avatar", shortTimeout, nil, private, s.deleteAvatar)
	s.handle("GET /users/{id}/thumbnail", transferTimeout, &s.downloads, images, s.getThumbnail)
	s.handle("GET /users/{id}/thumbnail/{version}", transferTimeout, &s.downloads, images, s.getThumbnail)
	s.handle("GET /avatar/{hash}", transferTimeout, &s.downloads, images, s.getByHash)
	s.handle("GET /livez", shortTimeout, nil, probe, s.livez)
	s.handle("GET /readyz", shortTimeout, nil, probe, s.readyz)
	s.handle("GET /version", shortTimeout, nil, public, s.getVersion)
	s.handle("GET /openapi.yaml", shortTimeout, nil, public, s.servePage)
	s.handle("GET /swagger/", shortTimeout, nil, public, s.servePage)
	s.handle("GET /swagger", shortTimeout, nil, public, s.toSwagger)
	s.handle("GET /{$}", shortTimeout, nil, public, s.toSwagger)
	return s
}

// An access says who may use a route.
type access int

const (
	private access = iota // requires a token, if any are configured
	images                // the same, unless AVATARS_PUBLIC
	public                // open to everyone
	probe                 // open to everyone, also in overload
)

// handle registers a handler. Its error is sent as a problem. transfers counts the requests in
// flight of the same kind; nil: the request transfers no image and no list.
func (s *server) handle(
	pattern string, timeout time.Duration, transfers *atomic.Int64, a access,
	handler func(*response, *http.Request) error,
) {
	method, path, _ := strings.Cut(pattern, " ")
	answer := func(w *response, r *http.Request) error {
		if err := s.admit(w, r, a); err != nil {
			return err
		}
		if transfers != nil {
			n := transfers.Add(1)
			defer transfers.Add(-1)
			if n > maxTransfers {
				return overloaded("%d transfers of this kind are in flight", maxTransfers)
			}
		}
		if a == private && path != "/users" && r.URL.RawQuery != "" {
			return badRequest("this path has no query parameters; the request has %.40q", r.URL.RawQuery)
		}
		var err error
		if w.condition, err = readCondition(r); err != nil {
			return err
		}
		if strings.Contains(path, "{id}") {
			if w.user, err = parseID(r.PathValue("id")); err != nil {
				return ErrNotFound
			}
		}
		ctx := r.Context()
		if changes(method) {
			ctx = context.WithoutCancel(ctx) // complete the change even if the client disconnects
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		w.limit(timeout)
		defer s.releaseBody(w)
		return handler(w, r.WithContext(ctx))
	}
	s.mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
		w := rw.(*response)
		w.route = path
		w.err = answer(w, r)
	})
}

// changes reports whether requests with this method may change a user.
func changes(method string) bool {
	return method != http.MethodGet && method != http.MethodHead
}

// admit checks a request's origin, its token and whether there is room for it.
func (s *server) admit(w *response, r *http.Request, a access) error {
	if a != probe && s.inFlight.Load() > maxInFlight {
		return overloaded("%d requests are in flight", maxInFlight)
	}
	if s.crossOrigin.Check(r) != nil {
		return newProblem(kindCrossOrigin, "the Origin matches neither Host nor PUBLIC_URL")
	}
	if a == public || a == probe || a == images && s.AvatarsPublic || s.tokens == nil {
		return nil
	}
	t, err := s.tokens.authenticate(r)
	if err != nil {
		return err
	}
	w.token = t.name
	if t.readOnly && changes(r.Method) {
		return newProblem(kindScope, "this token allows GET and HEAD only").
			with("WWW-Authenticate", `Bearer realm="roster", error="insufficient_scope"`)
	}
	return nil
}

// ServeHTTP does what all requests have in common.
func (s *server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &response{ResponseWriter: rw, start: time.Now(), server: s, request: r}
	w.control = http.NewResponseController(rw)
	w.body = requestBody{ReadCloser: r.Body, response: w}
	h := w.Header()
	id := r.Header.Get("X-Request-Id") // of a proxy or a client
	if !requestIDs.MatchString(id) {
		id = newKey()
	}
	h.Set("X-Request-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	if r.TransferEncoding != nil {
		h.Set("Connection", "close") // there may be a Content-Length, too (RFC 9112, section 6.1)
	}
	if r.Body != http.NoBody {
		// On a copy: net/http recognises by the original's type that nobody has
		// read the body (Expect: 100-continue) and that it may skip the rest.
		r = r.WithContext(r.Context())
		r.Body = &w.body
	}
	w.limit(shortTimeout) // until a route sets its own
	s.inFlight.Add(1)
	s.metrics.requestsInFlight.Inc()
	defer func() {
		s.inFlight.Add(-1)
		s.metrics.requestsInFlight.Dec()
		if v := recover(); v != nil {
			w.err = fmt.Errorf("panic: %v", v)
			s.metrics.panics.Inc()
			s.log.Error("panic", "value", fmt.Sprint(v), "stack", string(debug.Stack()),
				"request_id", h.Get("X-Request-Id"))
		}
		w.finish()
		s.observe(w)
		if w.broken {
			panic(http.ErrAbortHandler)
		}
	}()
	s.mux.ServeHTTP(w, r)
}

// shutDown takes the steps of Shutdown in docs/architecture.md.
func (s *server) shutDown(httpServer *http.Server) error {
	s.log.Info("shutting down", "delay", s.ShutdownDelay.String(), "timeout", s.ShutdownTimeout.String())
	s.draining.Store(true)
	s.metrics.ready.Set(0)
	time.Sleep(s.ShutdownDelay)
	ctx, cancel := context.WithTimeout(context.Background(), s.ShutdownTimeout)
	defer cancel()
	if err := httpServer.Shutdown(ctx); err != nil {
		httpServer.Close()
		return fmt.Errorf("requests were in flight after SHUTDOWN_TIMEOUT (%v): %w", s.ShutdownTimeout, err)
	}
	s.background.Wait() // for callTimeout at most
	s.log.Info("stopped")
	return nil
}

// observe logs and measures a completed request.
func (s *server) observe(w *response) {
	elapsed := time.Since(w.start).Seconds()
	method, route := w.request.Method, cmp.Or(w.route, "unmatched")
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, method) {
		method = "other" // the label takes no value from a client
	}
	s.metrics.requestDuration.WithLabelValues(method, route, strconv.Itoa(w.status)).Observe(elapsed)
	s.metrics.requestBytes.WithLabelValues(route).Observe(float64(w.body.n))
	s.metrics.responseBytes.WithLabelValues(route).Observe(float64(w.bytes))

	level := slog.LevelInfo
	var failure, user string
	if w.status >= 500 && w.err != nil {
		level, failure = slog.LevelError, w.err.Error()
	}
	if route == "/livez" || route == "/readyz" { // watchReady logs why it is not ready
		level = slog.LevelDebug
	}
	if changes(method) {
		user = w.user
	}
	s.log.LogAttrs(context.Background(), level, "request",
		slog.String("method", method), slog.String("route", route), slog.Int("status", w.status),
		slog.Int64("bytes", w.bytes), slog.Float64("duration", elapsed),
		slog.String("request_id", w.Header().Get("X-Request-Id")),
		optional("trace_id", traceID(w.request.Header.Get("Traceparent"))), optional("client", w.token),
		optional("user", user), optional("broken", w.broken), optional("error", failure))
}

// optional returns a log attribute, or the empty one, which is not logged, for a zero value.
func optional[T comparable](key string, value T) slog.Attr {
	if value == *new(T) {
		return slog.Attr{}
	}
	return slog.Any(key, value)
}

// requestIDs are safe to log.
var requestIDs = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// traceparents matches the header of W3C Trace Context, section 3.2, and the trace id in it.
var traceparents = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-|$)`)

// traceID returns the trace id of a traceparent header, to be logged, or "".
func traceID(traceparent string) string {
	if m := traceparents.FindStringSubmatch(traceparent); m != nil {
		return m[1]
	}
	return ""
}

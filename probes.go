package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

const (
	readyTimeout = 5 * time.Second // for one try of both backends
	readyRetry   = time.Second     // between two tries
)

// livez answers GET /livez: the process takes and answers requests. It asks no
// backend, since restarting the process mends none.
func (s *server) livez(w http.ResponseWriter, _ *http.Request) error {
	return writeOK(w)
}

// readyz answers GET /readyz: whether traffic should come here.
func (s *server) readyz(w http.ResponseWriter, _ *http.Request) error {
	switch {
	case s.draining.Load():
		return overloaded("the process is about to end")
	case !s.ready.Load():
		return overloaded("the storage has not answered yet")
	}
	return writeOK(w)
}

func writeOK(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := io.WriteString(w, "ok\n")
	return err
}

// version answers GET /version.
func (s *server) version(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(s.build)
}

// watchReady opens readiness once, after the first time that both backends have
// answered, so that a wrong configuration stops a rollout. A later outage is
// answered by 503s instead: taking every pod out of service would help nobody.
func (s *server) watchReady(ctx context.Context) {
	for !s.tryReady(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(readyRetry):
		}
	}
	s.ready.Store(true)
	if !s.draining.Load() {
		s.metrics.ready.Set(1)
	}
	s.log.Info("ready")
}

func (s *server) tryReady(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := s.users.Ready(ctx)
	if err == nil {
		err = s.avatars.Ready(ctx)
	}
	if err != nil && ctx.Err() != context.Canceled {
		s.log.Error("not ready", "error", err)
	}
	return err == nil
}

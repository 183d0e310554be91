package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	readyTimeout = 5 * time.Second // for one call to both backends
	readyRetry   = time.Second     // between two calls
	livezTimeout = 3 * time.Second // of -healthcheck
)

// livez answers GET /livez: the process answers requests. It calls no backend: a
// restart repairs none.
func (s *server) livez(w *response, _ *http.Request) error {
	return writeOK(w)
}

// readyz answers GET /readyz: whether the process wants traffic.
func (s *server) readyz(w *response, _ *http.Request) error {
	switch {
	case s.draining.Load():
		return overloaded("the process is shutting down")
	case !s.ready.Load():
		return overloaded("the storage has not answered yet")
	}
	return writeOK(w)
}

func writeOK(w *response) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", "3")
	_, err := w.Write([]byte("ok\n"))
	return err
}

// version answers GET /version.
func (s *server) version(w *response, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, s.build)
}

// checkLivez requests /livez of the instance that listens on addr.
func checkLivez(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, livezTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+reachable(addr)+"/livez", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{}} // without the environment's proxy
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/livez answered %s", resp.Status)
	}
	return nil
}

// watchReady sets ready once, after the first successful call to both backends, so
// that a wrong configuration stops a rollout. A later outage is answered with 503:
// to take every pod out of service would help nobody. The cause is logged once a
// minute.
func (s *server) watchReady(ctx context.Context) {
	var logged time.Time
	for err := s.tryReady(ctx); err != nil; err = s.tryReady(ctx) {
		if time.Since(logged) >= time.Minute && ctx.Err() == nil {
			s.log.Error("not ready", "error", err)
			logged = time.Now()
		}
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

func (s *server) tryReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	// ready is not an id: both calls find nothing.
	if _, err := s.users.Get(ctx, "ready"); !errors.Is(err, ErrNotFound) {
		return err
	}
	if _, err := s.avatars.Get(ctx, "ready", "ready", 0, 1); !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

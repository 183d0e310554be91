package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

// livez answers GET /livez. It calls no backend, because a restart repairs none.
func (s *server) livez(w *response, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := w.Write([]byte("ok\n"))
	return err
}

// readyz answers GET /readyz: 200 while the process accepts traffic, otherwise 503.
func (s *server) readyz(w *response, r *http.Request) error {
	if s.draining.Load() || !s.ready.Load() {
		return overloaded("the process is shutting down, or the storage has not answered yet")
	}
	return s.livez(w, r)
}

// getVersion answers GET /version.
func (s *server) getVersion(w *response, _ *http.Request) error {
	return w.sendJSON(http.StatusOK, "application/json", s.build)
}

// checkLivez requests /livez of the instance that listens on addr.
func checkLivez(addr string) error {
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{}} // no proxy
	resp, err := client.Get("http://" + addr + "/livez")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/livez answered %s", resp.Status)
	}
	return nil
}

// watchReady sets ready once, after the first successful call to both backends.
func (s *server) watchReady(ctx context.Context) {
	minutely := rate.Sometimes{Interval: time.Minute}
	for err := s.tryReady(ctx); err != nil; err = s.tryReady(ctx) {
		if ctx.Err() != nil {
			return
		}
		minutely.Do(func() { s.log.Error("not ready", "error", err) })
		time.Sleep(time.Second)
	}
	s.ready.Store(true)
	s.metrics.ready.Set(1)
	s.log.Info("ready")
}

// tryReady makes a harmless call to each store.
func (s *server) tryReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := s.users.Get(ctx, "ready") // not an id: both calls find nothing
	if errors.Is(err, ErrNotFound) {
		_, err = s.avatars.Get(ctx, "ready", "ready", 0)
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

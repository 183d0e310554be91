package main

import (
	"flag"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "32") // parallel tests wait
	m.Run()
}

// TestShutDown: for SHUTDOWN_DELAY, /readyz fails, other requests are served, and every response closes its
// connection. Then the process waits for deletions.
func TestShutDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		c := config{ShutdownDelay: 10 * time.Second, ShutdownTimeout: 20 * time.Second}
		s := newTestServer(c, nil, nil, nil)
		s.ready.Store(true)
		want := func(path string, status int, connection string) {
			t.Helper()
			w := request(t, s, "GET "+path, nil)
			if got := w.Header().Get("Connection"); w.Code != status || got != connection {
				t.Errorf("GET %s: status %d, Connection %q, want %d and %q", path, w.Code, got, status, connection)
			}
		}
		want("/readyz", http.StatusOK, "")
		deleted := false
		s.background.Go(func() {
			time.Sleep(15 * time.Second)
			deleted = true
		})
		httpServer := newHTTPServer(s, log)
		start, closed := time.Now(), make(chan time.Duration, 1)
		httpServer.RegisterOnShutdown(func() { closed <- time.Since(start) })
		stopped := make(chan error, 1)
		go func() { stopped <- s.shutDown(httpServer) }()
		time.Sleep(9 * time.Second)
		want("/readyz", http.StatusServiceUnavailable, "close")
		want("/version", http.StatusOK, "close")
		if d := <-closed; d != c.ShutdownDelay {
			t.Errorf("the listener is closed after %v, want %v", d, c.ShutdownDelay)
		}
		if err := <-stopped; err != nil || !deleted {
			t.Errorf("shut down: error %v, deletions completed: %t", err, deleted)
		}
	})
}

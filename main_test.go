package main

import (
	"flag"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "32") // parallel tests wait
	m.Run()
}

// TestLogWriter: a log that nobody reads blocks nobody, and says later what it lost.
func TestLogWriter(t *testing.T) {
	t.Parallel()
	r, to := io.Pipe()
	w := newLogWriter(to)
	start := time.Now()
	for range logLines + 100 {
		w.Write([]byte("line\n"))
	}
	w.close() // waits a second at most
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("%d lines took %v", logLines+100, d)
	}
	read := make(chan string)
	go func() {
		data, _ := io.ReadAll(r)
		read <- string(data)
	}()
	w.close()
	to.Close()
	got := <-read
	if n := strings.Count(got, "line\n"); n < logLines || !strings.Contains(got, "log lines dropped") {
		t.Errorf("%d lines were written, %q", n, got[:min(len(got), 100)])
	}
}

// TestShutDown: for SHUTDOWN_DELAY, /readyz fails, other requests are served, and every response closes its
// connection. Then the process waits for deletions.
func TestShutDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		c := config{ShutdownDelay: 10 * time.Second, ShutdownTimeout: 20 * time.Second}
		s := newServer(c, nil, nil, nil, log, newMetrics(build{}), build{})
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
		stopped := make(chan error, 1)
		go func() { stopped <- s.shutDown(newHTTPServer(s, log)) }()
		time.Sleep(9 * time.Second)
		want("/readyz", http.StatusServiceUnavailable, "close")
		want("/version", http.StatusOK, "close")
		select {
		case <-stopped:
			t.Error("shut down before SHUTDOWN_DELAY")
			return
		default:
		}
		if err := <-stopped; err != nil || !deleted {
			t.Errorf("shut down: error %v, deletions completed: %t", err, deleted)
		}
	})
}

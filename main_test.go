package main

import (
	"flag"
	"io"
	"strings"
	"testing"
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

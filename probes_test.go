package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// unavailable is a store that cannot be reached.
type unavailable struct{ Users }

func (unavailable) Get(context.Context, string) (User, error) { return User{}, ErrUnavailable }

// TestNotReady: the cause of an outage at start is logged once a minute.
func TestNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &server{users: unavailable{}, log: slog.New(slog.NewTextHandler(&log, nil))}
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
		defer cancel()
		s.watchReady(ctx)
		if n := strings.Count(log.String(), "not ready"); n != 3 {
			t.Errorf("%d lines in 150 s, want 3:\n%s", n, &log)
		}
		if s.ready.Load() {
			t.Error("ready without a backend")
		}
	})
}

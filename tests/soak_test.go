package tests

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"roster/internal/testkit"
)

// TestSoak sends a mixed load, with aborted requests and invalid bodies. Afterwards,
// memory, file descriptors and goroutines are as they were after a short load.
func TestSoak(t *testing.T) {
	t.Parallel()
	warmUp, length := time.Second, time.Second
	if *testkit.Long {
		warmUp, length = 24*time.Second, 2*time.Minute
	}
	p := start(t, "LOG_LEVEL=info", "GOMEMLIMIT=400MiB")
	pictures := [][]byte{testkit.PNG(testkit.Gradient(64, 64, 1)), testkit.JPEG(testkit.Gradient(600, 600, 3)),
		testkit.GIF(32, 32, 4)}
	type figures struct{ memory, fds, goroutines float64 }
	// As many users are deleted as created: a growing store is not a leak.
	load := func(d time.Duration) {
		client := newLoadClient(t, p)
		var running sync.WaitGroup
		var served, gone atomic.Int64
		stop := time.Now().Add(d)
		for i := range 24 {
			running.Go(func() {
				for n := 0; time.Now().Before(stop); n++ {
					email := fmt.Sprintf("u%d-%d@example.com", i, n)
					path := "/users/" + userID(email)
					picture := pictures[rand.IntN(len(pictures))]
					for _, step := range []func() (int, []byte, error){
						func() (int, []byte, error) { return client.create("Ada", email, picture) },
						func() (int, []byte, error) { return client.create("Ada", email, nil) },
						func() (int, []byte, error) { return client.send("GET", path, "", nil) },
						func() (int, []byte, error) { return client.send("PUT", path+"/avatar", "", pictures[0]) },
						func() (int, []byte, error) { return client.send("PUT", path+"/avatar", "", picture[:40]) },
						func() (int, []byte, error) { return client.send("GET", path+"/avatar", "", nil) },
						func() (int, []byte, error) { return client.send("GET", "/users?limit=20", "", nil) },
						func() (int, []byte, error) {
							return client.send("PATCH", path, "application/json", []byte(`{"name":"Eve"}`))
						},
						func() (int, []byte, error) {
							return client.send("POST", "/user", "application/json", []byte(`{"name":`))
						},
						func() (int, []byte, error) { return client.send("GET", "/nowhere", "", nil) },
						func() (int, []byte, error) { // an aborted request
							w, err := openWire(p.url)
							if err != nil {
								return 0, nil, err
							}
							w.write("PUT " + path + "/avatar HTTP/1.1\r\n" +
								"Host: a\r\nContent-Length: 100000\r\n\r\n\x89PNG")
							gone.Add(1)
							return http.StatusOK, nil, w.Close()
						},
						func() (int, []byte, error) { return client.send("DELETE", path, "", nil) },
					} {
						status, body, err := step()
						if err != nil || status >= 500 && status != http.StatusServiceUnavailable {
							t.Errorf("a request: status %d %s, error %v", status, body, err)
							return
						}
						served.Add(1)
					}
				}
			})
		}
		running.Wait()
		client.CloseIdleConnections()
		t.Logf("%d requests in %v, %d clients went away", served.Load(), d, gone.Load())
	}
	// The Go runtime returns memory in the background.
	settle := func(limit func(figures) error) (f figures) {
		testkit.Eventually(t, "memory, file descriptors and goroutines are as before", func() error {
			f = figures{
				memory:     p.memory(t),
				fds:        p.metric(t, "process_open_fds"),
				goroutines: p.metric(t, "go_goroutines"),
			}
			return limit(f)
		})
		return f
	}
	quiet := func(f figures) error {
		if n := p.metric(t, "roster_http_requests_in_flight"); n > 0 {
			return fmt.Errorf("%v requests are in flight", n)
		}
		if f.goroutines > 40 || f.fds > 40 {
			return fmt.Errorf("%v goroutines, %v file descriptors", f.goroutines, f.fds)
		}
		return nil
	}
	load(warmUp)
	before := settle(quiet)
	load(length)
	after := settle(func(f figures) error {
		if err := quiet(f); err != nil {
			return err
		}
		if f.memory > before.memory*1.3+raceMemory()*24*mib || f.fds > before.fds+4 ||
			f.goroutines > before.goroutines+4 {
			return fmt.Errorf("%+v, before %+v", f, before)
		}
		return nil
	})
	t.Logf("memory %.0f → %.0f MiB, file descriptors %.0f → %.0f, goroutines %.0f → %.0f",
		before.memory/mib, after.memory/mib, before.fds, after.fds, before.goroutines, after.goroutines)
	if n := p.metric(t, "roster_panics_total"); n != 0 {
		t.Errorf("roster_panics_total is %v, want 0", n)
	}
	status, body, err := newLoadClient(t, p).send("GET", "/users", "", nil)
	if status != http.StatusOK || string(body) != "[]\n" {
		t.Errorf("GET /users afterwards: status %d, error %v, %.200s; want an empty list", status, err, body)
	}
}

package tests

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"roster/internal/testkit"
)

// An outage is a TCP proxy between the service and one of its servers that can refuse
// connections, stall and delay.
type outage struct {
	t      testing.TB
	addr   string
	target string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	silent   atomic.Bool
	delay    atomic.Int64
}

func newOutage(t testing.TB, url string) *outage {
	o := &outage{t: t, addr: "127.0.0.1:" + freePort(t), target: strings.TrimPrefix(url, "http://"),
		conns: map[net.Conn]bool{}}
	o.up()
	t.Cleanup(o.refuse)
	return o
}

// up starts the proxy, or ends the fault.
func (o *outage) up() {
	o.silent.Store(false)
	o.delay.Store(0)
	o.hangUp()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.listener != nil {
		return
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		o.t.Fatal(err)
	}
	o.listener, o.addr = listener, listener.Addr().String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go o.pass(conn)
		}
	}()
}

// refuse closes the listener and all connections.
func (o *outage) refuse() {
	o.mu.Lock()
	if o.listener != nil {
		o.listener.Close()
		o.listener = nil
	}
	o.mu.Unlock()
	o.hangUp()
}

func (o *outage) hangUp() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for conn := range o.conns {
		conn.Close()
	}
}

func (o *outage) pass(conn net.Conn) {
	defer conn.Close()
	server, err := net.Dial("tcp", o.target)
	if err != nil {
		return
	}
	defer server.Close()
	o.mu.Lock()
	o.conns[conn], o.conns[server] = true, true
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.conns, conn)
		delete(o.conns, server)
	}()
	go func() {
		io.Copy(server, o.through(conn))
		server.Close()
	}()
	io.Copy(conn, o.through(server))
}

func (o *outage) through(conn net.Conn) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		for {
			n, err := conn.Read(p)
			time.Sleep(time.Duration(o.delay.Load()))
			if err != nil || !o.silent.Load() {
				return n, err
			}
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestOutage sends load while one or both servers are unavailable. Every request is
// answered in time with 503, memory and goroutines do not grow, and the service recovers
// within 5 s.
func TestOutage(t *testing.T) {
	t.Parallel()
	clients, length, recovery := 12, 4*time.Second, 3*time.Second
	if *testkit.Long {
		clients, length, recovery = 24, 30*time.Second, 7*time.Second
	}
	for _, tt := range []struct {
		name  string
		begin func(dynamo, bucket *outage)
	}{
		{"both refuse", func(dynamo, bucket *outage) { dynamo.refuse(); bucket.refuse() }},
		{"both silent", func(dynamo, bucket *outage) { dynamo.silent.Store(true); bucket.silent.Store(true) }},
		{"S3 silent", func(dynamo, bucket *outage) { bucket.silent.Store(true) }},
		{"both slow", func(dynamo, bucket *outage) { dynamo.delay.Store(1e9); bucket.delay.Store(1e9) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dynamoFake, bucketFake := testkit.NewDynamoDB(t), testkit.NewS3(t)
			dynamo, bucket := newOutage(t, dynamoFake.URL), newOutage(t, bucketFake.URL)
			p := start(t, awsServers{"http://" + dynamo.addr, "http://" + bucket.addr, testkit.Table,
				testkit.Bucket}.env()...)

			client := newLoadClient(t, p)
			image := testkit.PNG(testkit.Gradient(64, 64, 1))
			anna := userID("anna@example.com")
			if status, body, err := client.create("Anna", "anna@example.com", nil); err != nil || status != 201 {
				t.Fatalf("POST /user before the outage: status %d %s, error %v", status, body, err)
			}

			var phase atomic.Pointer[string]
			setPhase := func(s string) { phase.Store(&s) }
			setPhase("before")
			var mu sync.Mutex
			statuses := map[string]map[int]int{}
			slowest := map[bool]time.Duration{} // by whether it transfers an image
			var ended, lastFailure time.Time
			stop := make(chan struct{})
			var load sync.WaitGroup
			for c := range clients {
				load.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						case <-time.After(10 * time.Millisecond):
						}
						var method, path, contentType string
						var body []byte
						switch c % 6 {
						case 0:
							method, path, contentType = "POST", "/user", "application/json"
							body = fmt.Appendf(nil, `{"name":"A","email":"%d.%d@example.com"}`, c, i)
						case 1:
							method, path = "GET", "/users/"+anna
						case 2:
							method, path, body = "PUT", "/users/"+anna+"/avatar", image
						case 3:
							method, path = "GET", "/users/"+anna+"/avatar"
						case 4:
							method, path = "GET", "/users?limit=10"
						case 5:
							method, path, contentType, body = "PATCH", "/users/"+anna, "application/json",
								[]byte(`{"name":"B"}`)
						}
						in := *phase.Load()
						start := time.Now()
						status, _, err := client.send(method, path, contentType, body)
						if err != nil {
							status = -1
						}
						if c%6 == 3 && status == http.StatusNotFound {
							status = http.StatusOK // before the first upload
						}
						if in == "before" {
							in = *phase.Load() // the outage began meanwhile
						}
						isImage := c%6 == 2 || c%6 == 3
						mu.Lock()
						if statuses[in] == nil {
							statuses[in] = map[int]int{}
						}
						statuses[in][status]++
						slowest[isImage] = max(slowest[isImage], time.Since(start))
						if in == "after" && status >= 300 && start.After(lastFailure) {
							lastFailure = start
						}
						mu.Unlock()
					}
				})
			}

			time.Sleep(2 * time.Second)
			// The minimum of some samples excludes most garbage.
			measure := func() (goroutines, heap float64) {
				goroutines, heap = p.metric(t, "go_goroutines"), p.metric(t, "go_memstats_heap_alloc_bytes")
				for range 20 {
					time.Sleep(20 * time.Millisecond)
					heap = min(heap, p.metric(t, "go_memstats_heap_alloc_bytes"))
				}
				return goroutines, heap
			}
			goroutines, heap := measure()
			setPhase("outage")
			tt.begin(dynamo, bucket)
			time.Sleep(length / 2)
			halfGoroutines, halfHeap := measure()
			time.Sleep(length / 2)
			lateGoroutines, lateHeap := measure()
			setPhase("after")
			dynamo.up()
			bucket.up()
			ended = time.Now()
			time.Sleep(recovery)
			close(stop)
			load.Wait()
			client.CloseIdleConnections()

			t.Logf("goroutines %v before, %v and %v during; heap %.1f, %.1f and %.1f MiB; statuses %v; "+
				"slowest of images and others %v",
				goroutines, halfGoroutines, lateGoroutines, heap/mib, halfHeap/mib, lateHeap/mib, statuses, slowest)
			for in, counts := range statuses {
				for status := range counts {
					if status != 200 && status != 201 && status != 503 {
						t.Errorf("%s the outage: status %d, want 200, 201 or 503", in, status)
					}
				}
			}
			if d := slowest[true]; d > 30*time.Second {
				t.Errorf("a request for an image took %v", d)
			}
			if d := slowest[false]; d > 10*time.Second {
				t.Errorf("a request without an image took %v", d)
			}
			if d := lastFailure.Sub(ended); d > 5*time.Second {
				t.Errorf("a request that began %v after the end of the outage failed", d)
			} else if !lastFailure.IsZero() {
				t.Logf("the last request that failed began %v after the end of the outage", d)
			}
			if lateGoroutines > max(goroutines, halfGoroutines)+float64(4*clients) { // thousands of requests were made
				t.Errorf("goroutines grow in the outage: %v, then %v", halfGoroutines, lateGoroutines)
			}
			if lateHeap > halfHeap+16*mib*raceMemory() {
				t.Errorf("memory grows in the outage: %.1f MiB, then %.1f", halfHeap/mib, lateHeap/mib)
			}
			testkit.Eventually(t, "no goroutine is left", func() error {
				if now := p.metric(t, "go_goroutines"); now > goroutines {
					return fmt.Errorf("%v, there were %v before the outage", now, goroutines)
				}
				return nil
			})
		})
	}
}

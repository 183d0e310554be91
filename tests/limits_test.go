package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"roster/internal/testkit"
)

// TestManyUploads: many clients send images of 5 MiB at once, 200 with -long. Some get 503 and
// retry. Memory stays within the bound for bodies and 150 MiB.
func TestManyUploads(t *testing.T) {
	clients := 200
	if !*testkit.Long {
		t.Parallel()
		clients = 40
	}
	p := start(t)
	client := newLoadClient(t, p)
	// A PNG has any size with a large color profile, which is kept.
	picture := testkit.PadPNG(testkit.PNG(testkit.Gradient(64, 64, 1)), 5<<20)
	idle := p.memory(t)
	most := p.watchMemory(t)
	var stored, refused atomic.Int64
	testkit.Together(clients, func(i int) {
		for {
			status, body, err := client.create("Ada", fmt.Sprintf("ada%d@example.com", i), picture)
			switch {
			case err != nil:
				// A 503 before the body is read: writing it may fail first.
				refused.Add(1)
			case status == http.StatusCreated:
				stored.Add(1)
				return
			case status == http.StatusServiceUnavailable:
				refused.Add(1)
			default:
				t.Errorf("upload: status %d %s, want 201 or 503", status, body)
				return
			}
			if n := refused.Load(); n > int64(200*clients) {
				t.Errorf("%d uploads of %d clients are rejected", n, clients)
				return
			}
			time.Sleep(time.Second) // as Retry-After says
		}
	})
	peak := most()
	if stored.Load() != int64(clients) {
		t.Errorf("%d of %d images were stored in the end", stored.Load(), clients)
	}
	if limit := idle + raceMemory()*(96+150)*mib; peak > limit {
		t.Errorf("memory rose from %.0f to %.0f MiB, want at most %.0f", idle/mib, peak/mib, limit/mib)
	}
	t.Logf("%d uploads stored, %d rejected; memory %.0f → %.0f MiB", stored.Load(), refused.Load(), idle/mib, peak/mib)
}

// TestSlowUploads: at the bound for uploads in flight, another upload gets 503 after 2 s.
// Other requests are served.
func TestSlowUploads(t *testing.T) {
	t.Parallel()
	p := start(t)
	const size = 5 << 20
	slow := 96 << 20 / size // bound of the memory for uploads
	id := p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}},
		[]byte(`{"name":"Ada","email":"ada@example.com"}`)).want(t, http.StatusCreated).user(t).ID
	for range slow {
		w := dialWire(t, p.url)
		head := fmt.Sprintf("PUT /users/%s/avatar HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", id, size)
		if err := w.write(head); err != nil {
			t.Fatal(err)
		}
		go w.trickle(24<<10, size) // for more than three minutes
	}
	testkit.Eventually(t, fmt.Sprint(slow, " uploads are in flight"), func() error {
		if n := p.metric(t, "roster_uploads_in_flight"); n != float64(slow) {
			return fmt.Errorf("%v are", n)
		}
		return nil
	})
	w := dialWire(t, p.url)
	began := time.Now()
	w.write(fmt.Sprintf("PUT /users/%s/avatar HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nx", id, size))
	a, err := w.read()
	if err != nil || a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("an upload more: %s, error %v; want 503 with Retry-After", a, err)
	}
	if d := time.Since(began); d < 2*time.Second {
		t.Errorf("an upload more: 503 after %v, want 2 s", d)
	}
	p.do(t, "GET /users", nil, nil).want(t, http.StatusOK)
	p.do(t, "GET /readyz", nil, nil).want(t, http.StatusOK)
	p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}},
		[]byte(`{"name":"Eve","email":"eve@example.com"}`)).want(t, http.StatusCreated)
	if n := p.metric(t, "roster_uploads_shed_total"); n != 1 {
		t.Errorf("roster_uploads_shed_total is %v, want 1", n)
	}
}

// TestListMemory: the whole list of 100,000 users takes less than 16 MiB.
func TestListMemory(t *testing.T) {
	const users = 100_000
	dir := t.TempDir()
	seedUsers(t, dir, users)
	p := start(t, "DATA_DIR="+dir)
	client := newLoadClient(t, p)
	// The heap, since resident memory includes pages of the mapped file.
	heap := func() float64 {
		return p.metric(t, "go_memstats_heap_inuse_bytes") + p.metric(t, "go_memstats_stack_inuse_bytes")
	}
	before, peak := heap(), 0.0
	resp, err := client.Get(p.url + "/users")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines, buffer := 0, make([]byte, 256<<10)
	for n, err := 0, error(nil); err == nil; {
		n, err = resp.Body.Read(buffer)
		lines += bytes.Count(buffer[:n], []byte(`"id"`))
		if lines%32 == 0 {
			peak = max(peak, heap())
		}
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	if lines < users*99/100 { // some are split between two buffers
		t.Errorf("the list has %d users, want %d", lines, users)
	}
	if peak-before > 16*mib {
		t.Errorf("the heap grew by %.1f MiB, want at most 16", (peak-before)/mib)
	}
	t.Logf("heap %.1f → %.1f MiB", before/mib, peak/mib)
}

// TestSlowClients: a request whose body does not arrive gets a response after 5 s, or 10 s on an unknown
// path, and its connection is closed. A client that does not read the list is disconnected after 20 s.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seedUsers(t, dir, 100_000)
	p := start(t, "DATA_DIR="+dir)
	id := userID("user1@example.com")
	for _, test := range []struct {
		name, request string
		least         time.Duration // until the response
		status        int
	}{
		{"no body, unknown path", "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", 10 * time.Second,
			http.StatusNotFound},
		{"no image", "PUT /users/" + id + "/avatar HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{", 5 * time.Second,
			http.StatusRequestTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := dialWire(t, p.url)
			w.SetDeadline(time.Now().Add(time.Minute))
			began := time.Now()
			w.write(test.request)
			a, err := w.read()
			if d := time.Since(began); err != nil || d < test.least || a.StatusCode != test.status {
				t.Errorf("%s: %s after %v, error %v; want %d after %v", test.name, a, d, err, test.status, test.least)
			}
			if _, err := w.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
				t.Errorf("%s: read after the response: error %v, want a closed connection", test.name, err)
			}
		})
	}
	t.Run("list not read", func(t *testing.T) {
		t.Parallel()
		w := dialWire(t, p.url)
		w.write("GET /users HTTP/1.1\r\nHost: a\r\n\r\n")
		testkit.Eventually(t, "the list is logged with status 499", func() error {
			if p.log.find("request", "route", "/users", "status", 499) == nil {
				return errors.New("no such line")
			}
			return nil
		})
		if _, err := w.read(); err == nil {
			t.Error("the list that was not read in time is whole, want a broken connection")
		}
	})
}

// TestExpectContinue: a client that sends Expect gets an error that does not depend on
// the body at once, and 100 otherwise.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	p := start(t, "MAX_AVATAR_BYTES=100000")
	for _, test := range []struct {
		request string
		length  int
		want    int
	}{
		{"PUT /nowhere", 1000, http.StatusNotFound},
		{"POST /upload", 1000, http.StatusUnsupportedMediaType},
		{"POST /user", 1 << 30, http.StatusUnsupportedMediaType},
		{"DELETE /users", 1 << 30, http.StatusMethodNotAllowed},
	} {
		w := dialWire(t, p.url)
		began := time.Now()
		w.write(fmt.Sprintf("%s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
			test.request, test.length))
		a, err := w.read()
		if err != nil || a.StatusCode != test.want {
			t.Errorf("%s: %s, error %v; want %d", test.request, a, err, test.want)
		}
		if d := time.Since(began); d > 9*time.Second {
			t.Errorf("%s: response after %v, want it before the body's deadline", test.request, d)
		}
	}
	w := dialWire(t, p.url)
	body := `{"name":"Ada","email":"ada@example.com"}`
	w.write(fmt.Sprintf("POST /user HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body)))
	if line, err := w.reader.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("POST /user with Expect: %q, error %v; want 100", line, err)
	}
	w.reader.ReadString('\n')
	w.write(body)
	if a, err := w.read(); err != nil || a.StatusCode != http.StatusCreated {
		t.Errorf("POST /user after 100: %s, error %v; want 201", a, err)
	}
}

// TestConnectionReuse: the deadline of a request does not apply to the next one on the
// connection.
func TestConnectionReuse(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, next := range []string{"GET /nowhere", "GET /users", "DELETE /users"} {
		t.Run(next, func(t *testing.T) {
			t.Parallel()
			w := dialWire(t, p.url)
			if a, err := w.exchange("GET", "/version", ""); err != nil || a.StatusCode != http.StatusOK {
				t.Fatalf("GET /version: %s, error %v; want 200", a, err)
			}
			time.Sleep(16 * time.Second) // its deadline is at 10 s, its connection's at 14
			method, path, _ := strings.Cut(next, " ")
			if _, err := w.exchange(method, path, ""); err != nil {
				t.Errorf("%s, 16 s later: %v", next, err)
			}
		})
	}
}

// TestSlowBody: a body must arrive at 16 KiB/s on average, after 5 s. One of 12 KiB/s gets 408 after
// 5/(1-12/16) = 20 s, one of 20 KiB/s has until the deadline of the request.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	p := start(t)
	id := p.create(t, "ada@example.com").ID
	const length = 24 * time.Second // long enough for 408 if the bound were 25.3 KiB/s
	for _, test := range []struct{ rate, status int }{
		{12 << 10, http.StatusRequestTimeout},
		{20 << 10, http.StatusUnsupportedMediaType}, // not an image
	} {
		t.Run(fmt.Sprint(test.rate>>10, " KiB/s"), func(t *testing.T) {
			t.Parallel()
			w := dialWire(t, p.url)
			begin := time.Now()
			size := test.rate * int(length/time.Second)
			w.write(fmt.Sprintf("PUT /users/%s/avatar HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", id, size))
			go w.trickle(test.rate, size)
			a, err := w.read()
			d := time.Since(begin)
			if err != nil || a.StatusCode != test.status || d < 15*time.Second {
				t.Errorf("body of %d bytes a second: %s after %v, error %v; want %d after 20 s or more", test.rate, a,
					d, err, test.status)
			}
			testkit.Eventually(t, "the response is logged", func() error {
				if p.log.find("request", "route", "/users/{id}/avatar", "status", test.status) == nil {
					return fmt.Errorf("no line with status %d", test.status)
				}
				return nil
			})
		})
	}
}

// TestSlowReaders: 512 clients that read an image slowly do not exclude others.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	p := start(t)
	u := p.create(t, "ada@example.com")
	image := testkit.PadPNG(testkit.PNG(testkit.Gradient(64, 64, 1)), 5<<20)
	p.do(t, "PUT /users/"+u.ID+"/avatar", nil, image).want(t, http.StatusOK)
	testkit.Eventually(t, "another download gets 503", func() error {
		for range 512 { // more than the bound, within the 20 s until a client that does not read is disconnected
			w := dialWire(t, p.url)
			w.Conn.(*net.TCPConn).SetReadBuffer(4 << 10) // else the kernel takes most of the image
			w.write("GET /users/" + u.ID + "/avatar HTTP/1.1\r\nHost: a\r\n\r\n")
		}
		if a := p.do(t, "HEAD /users/"+u.ID+"/avatar", nil, nil); a.StatusCode != http.StatusServiceUnavailable {
			return errors.New(a.Status)
		}
		return nil
	})
	p.do(t, "GET /users/"+u.ID, nil, nil).want(t, http.StatusOK)
	p.do(t, "PATCH /users/"+u.ID, jsonHeader, []byte(`{"name":"Ada King"}`)).want(t, http.StatusOK)
	p.create(t, "bob@example.com")
	p.do(t, "PUT /users/"+u.ID+"/avatar", nil, image).want(t, http.StatusOK)
}

// TestThumbnailStorm: clients request the thumbnails of large images at once, 40 with -long. Memory is
// bounded. With -long, and without the race detector, other requests stay fast.
func TestThumbnailStorm(t *testing.T) {
	images, clients := 40, 40
	if !*testkit.Long {
		t.Parallel()
		images, clients = 4, 8
	}
	p := start(t)
	picture := testkit.JPEG(testkit.Gradient(4600, 3400, 1)) // 15.6 megapixels
	var paths []string
	for i := range images {
		u := p.create(t, fmt.Sprintf("ada%d@example.com", i))
		paths = append(paths, "/users/"+u.ID)
		p.do(t, "PUT "+paths[i]+"/avatar", nil, picture).want(t, http.StatusOK)
	}
	idle, most := p.memory(t), p.watchMemory(t)
	var storm sync.WaitGroup
	done := make(chan struct{})
	for i := range clients {
		storm.Go(func() {
			for n := range 4 {
				a := p.do(t, "GET "+paths[(i+n*7)%images]+"/thumbnail", nil, nil)
				if a.StatusCode != http.StatusOK && a.StatusCode != http.StatusFound {
					t.Errorf("thumbnail: %s, want 200 or 302", a)
				}
			}
		})
	}
	go func() {
		storm.Wait()
		close(done)
	}()
	var times []time.Duration
	for running := true; running; {
		begin := time.Now()
		p.do(t, "GET "+paths[len(times)%images], nil, nil).want(t, http.StatusOK)
		times = append(times, time.Since(begin))
		select {
		case <-done:
			running = false
		case <-time.After(5 * time.Millisecond):
		}
	}
	slices.Sort(times)
	p99 := times[len(times)*99/100]
	peak := most()
	t.Logf("%d other requests, 99th percentile %v; memory %.0f → %.0f MiB", len(times), p99, idle/mib, peak/mib)
	if *testkit.Long && !raceEnabled && p99 > 100*time.Millisecond {
		t.Errorf("99th percentile of GET /users/{id}: %v, want at most 100 ms", p99)
	}
	if limit := raceMemory() * 400 * mib; peak > limit {
		t.Errorf("memory rose from %.0f to %.0f MiB, want at most %.0f", idle/mib, peak/mib, limit/mib)
	}
}

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

// TestManyUploads: 200 clients send images of 5 MiB at once. Some get 503 and retry.
// Memory stays within the bound for bodies and 150 MiB.
func TestManyUploads(t *testing.T) {
	clients := 200
	if raceEnabled && !*testkit.Long {
		clients = 50
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
				t.Errorf("%d %s", status, body)
				return
			}
			if refused.Load() > int64(200*clients) {
				t.Error("refused without end")
				return
			}
			time.Sleep(time.Second) // as Retry-After says
		}
	})
	peak := most()
	if stored.Load() != int64(clients) {
		t.Errorf("%d of %d were stored in the end", stored.Load(), clients)
	}
	if limit := idle + raceMemory()*(96+150)*mib; peak > limit {
		t.Errorf("memory rose from %.0f to %.0f MiB", idle/mib, peak/mib)
	}
	t.Logf("%d stored, %d asked to come back; memory %.0f → %.0f MiB", stored.Load(), refused.Load(), idle/mib, peak/mib)
}

// TestSlowUploads: at the bound for uploads in flight, another upload gets 503 after 2 s.
// Other requests are served.
func TestSlowUploads(t *testing.T) {
	t.Parallel()
	p := start(t)
	const size = 5 << 20
	slow := 96 << 20 / size // bound of the memory for uploads
	id := p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}}, []byte(`{"name":"Ada","email":"ada@example.com"}`)).want(t, http.StatusCreated).user(t).ID
	for range slow {
		w := dialWire(t, p.url)
		if err := w.write(fmt.Sprintf("PUT /users/%s/avatar HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nx", id, size)); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, 20*time.Second, "all are under way", func() error {
		if n := p.metric(t, "roster_uploads_in_flight"); n != float64(slow) {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	w := dialWire(t, p.url)
	began := time.Now()
	w.write(fmt.Sprintf("PUT /users/%s/avatar HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nx", id, size))
	a, err := w.read()
	if err != nil || a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("one more is answered %v, %v", a.Response, err)
	}
	if d := time.Since(began); d < 2*time.Second || d > 30*time.Second {
		t.Errorf("it was refused after %v", d)
	}
	p.do(t, "GET /users", nil, nil).want(t, http.StatusOK)
	p.do(t, "GET /readyz", nil, nil).want(t, http.StatusOK)
	p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}}, []byte(`{"name":"Eve","email":"eve@example.com"}`)).want(t, http.StatusCreated)
	if n := p.metric(t, "roster_uploads_shed_total"); n != 1 {
		t.Errorf("%v uploads are counted as refused", n)
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
		if lines%7 == 0 {
			peak = max(peak, heap())
		}
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	if lines < users*99/100 { // some are split between two buffers
		t.Errorf("%d users", lines)
	}
	if peak-before > 16*mib {
		t.Errorf("it took %.1f MiB", (peak-before)/mib)
	}
	t.Logf("the heap went from %.1f to %.1f MiB", before/mib, peak/mib)
}

// TestSlowClients: a slow client is timed out at each stage: header and body after 5 s,
// the rest of a request after 10 s, a response after 20 s without reading.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seedUsers(t, dir, 100_000)
	p := start(t, "DATA_DIR="+dir)
	id := userID("user1@example.com")
	for _, test := range []struct {
		name   string
		send   string
		least  time.Duration // until the response, or until the connection is closed
		most   time.Duration
		status int // of the response; 0: none
	}{
		{"nothing", "", 4 * time.Second, 60 * time.Second, 0},
		{"half a header", "GET /users HTTP/1.1\r\nHost: a\r\nX: ", 4 * time.Second, 60 * time.Second, 0},
		{"no body where there is no route", "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", 10 * time.Second, time.Minute, http.StatusNotFound},
		{"no body of a PATCH", "PATCH /users/" + id + " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{", 5 * time.Second, time.Minute, http.StatusRequestTimeout},
		{"no body of a POST", "POST /user HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{", 5 * time.Second, time.Minute, http.StatusRequestTimeout},
		{"no image", "PUT /users/" + id + "/avatar HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{", 5 * time.Second, time.Minute, http.StatusRequestTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := dialWire(t, p.url)
			w.SetDeadline(time.Now().Add(test.most))
			began := time.Now()
			w.write(test.send)
			a, err := w.read()
			status := 0
			if err == nil {
				status = a.StatusCode
			}
			if d := time.Since(began); d < test.least || status != test.status && !(status == http.StatusBadRequest && test.status == 0) {
				t.Errorf("after %v: %d, %v; want %d", d, status, err, test.status)
			}
			if _, err := w.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
				t.Errorf("the connection is open still: %v", err)
			}
		})
	}
	t.Run("list not read", func(t *testing.T) {
		t.Parallel()
		w := dialWire(t, p.url)
		w.write("GET /users HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(25 * time.Second)
		if _, err := w.read(); err == nil {
			t.Error("it is whole: the client was not slow enough to be cut off")
		}
		testkit.Eventually(t, 10*time.Second, "it is logged as the client's doing", func() error {
			if p.log.find("request", "route", "/users", "status", 499) == nil {
				return fmt.Errorf("not found")
			}
			return nil
		})
	})
}

// TestExpectContinue: a client that sends Expect gets an error that does not depend on
// the body at once, and 100 otherwise.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	p := start(t, "MAX_AVATAR_BYTES=100000")
	nobody := userID("nobody@example.com")
	for _, test := range []struct {
		request string
		length  int
		want    int
	}{
		{"PUT /users/" + nobody + "/avatar", 1000, http.StatusNotFound},
		{"PUT /nowhere", 1000, http.StatusNotFound},
		{"POST /upload", 1000, http.StatusUnsupportedMediaType},
		{"POST /user", 1 << 30, http.StatusUnsupportedMediaType},
		{"DELETE /users", 1 << 30, http.StatusMethodNotAllowed},
	} {
		w := dialWire(t, p.url)
		began := time.Now()
		w.write(fmt.Sprintf("%s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", test.request, test.length))
		a, err := w.read()
		if err != nil || a.StatusCode != test.want {
			t.Errorf("%s: %v, %v", test.request, a.Response, err)
		}
		if d := time.Since(began); d > 9*time.Second {
			t.Errorf("%s: answered after %v", test.request, d)
		}
	}
	w := dialWire(t, p.url)
	body := `{"name":"Ada","email":"ada@example.com"}`
	w.write(fmt.Sprintf("POST /user HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body)))
	if line, err := w.reader.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	w.reader.ReadString('\n')
	w.write(body)
	if a, err := w.read(); err != nil || a.StatusCode != http.StatusCreated {
		t.Errorf("%v, %v", a.Response, err)
	}
}

// TestConnectionReuse: the deadline of a request does not apply to the next one on the
// connection.
func TestConnectionReuse(t *testing.T) {
	t.Parallel()
	if !*testkit.Long {
		t.Skip("waits for a deadline to pass: run with -long")
	}
	p := start(t)
	for _, next := range []string{"GET /nowhere", "GET /users", "DELETE /users"} {
		t.Run(next, func(t *testing.T) {
			t.Parallel()
			w := dialWire(t, p.url)
			if a, err := w.exchange("GET", "/version", ""); err != nil || a.StatusCode != http.StatusOK {
				t.Fatal(err)
			}
			time.Sleep(16 * time.Second) // its deadline is at 10 s, its connection's at 14
			method, path, _ := strings.Cut(next, " ")
			if _, err := w.exchange(method, path, ""); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSlowBody: a body slower than 64 KiB/s on the average gets 408 after 5 s, others
// have until the deadline of the request.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	p := start(t)
	send := func(pause time.Duration, pieces int, piece string) (answer, time.Duration) {
		w := dialWire(t, p.url)
		begin := time.Now()
		go func() {
			w.write(fmt.Sprintf("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n--b\r\n", 5+pieces*len(piece)))
			for range pieces {
				time.Sleep(pause)
				if w.write(piece) != nil {
					return
				}
			}
		}()
		w.SetReadDeadline(begin.Add(30 * time.Second))
		a, err := w.read()
		w.Close()
		if err != nil {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
		return a, time.Since(begin)
	}
	t.Run("trickling", func(t *testing.T) {
		resp, took := send(100*time.Millisecond, 10_000, "x")
		if resp.StatusCode != http.StatusRequestTimeout || took > 15*time.Second {
			t.Errorf("%s after %v, want 408 after 5 s", resp.Status, took)
		}
	})
	t.Run("slow", func(t *testing.T) {
		// 128 KiB/s for 7 s.
		resp, took := send(500*time.Millisecond, 14, strings.Repeat("x", 64<<10))
		if resp.StatusCode != http.StatusBadRequest { // not a form
			t.Errorf("%s after %v, want 400", resp.Status, took)
		}
	})
}

// TestSlowReaders: 1,024 clients that read an image slowly do not exclude others.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	p := start(t)
	u := p.create(t, "ada@example.com")
	image := testkit.PadPNG(testkit.PNG(testkit.Gradient(64, 64, 1)), 5<<20)
	p.do(t, "PUT /users/"+u.ID+"/avatar", nil, image).want(t, http.StatusOK)
	for range 1024 {
		w := dialWire(t, p.url)
		defer w.Close()
		w.Conn.(*net.TCPConn).SetReadBuffer(4 << 10) // else the kernel takes most of the image
		w.write("GET /users/" + u.ID + "/avatar HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	testkit.Eventually(t, 15*time.Second, "the bound for downloads is reached", func() error {
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

// TestThumbnailStorm: clients ask for the thumbnails of many large images at once. Other
// requests stay fast, and memory bounded.
func TestThumbnailStorm(t *testing.T) {
	const images, clients = 40, 40
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
					t.Errorf("%s", a.Status)
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
	t.Logf("%d requests beside the storm, 99th percentile %v; memory %.0f → %.0f MiB", len(times), p99, idle/mib, peak/mib)
	if p99 > 100*time.Millisecond && !raceEnabled {
		t.Errorf("the 99th percentile of GET /users/{id} was %v", p99)
	}
	if limit := raceMemory() * 400 * mib; peak > limit {
		t.Errorf("memory rose from %.0f to %.0f MiB", idle/mib, peak/mib)
	}
}

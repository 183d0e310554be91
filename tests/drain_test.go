package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"roster/internal/testkit"
)

// TestRollout sends 2,000 requests over keep-alive connections during a rollout. A client
// moves to the new process only after Connection: close, and retries nothing. No request
// is lost.
func TestRollout(t *testing.T) {
	t.Parallel()
	for i, b := range backends[:2] { // the embedded store and the fakes
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			testRollout(t, b.env(t), []int{50, 15}[i])
		})
	}
}

func testRollout(t *testing.T, env []string, clients int) {
	const requests = 40
	dir := t.TempDir()
	// On a busy machine, a client may send nothing for a second.
	before := start(t, append(env, "SHUTDOWN_DELAY=5s", "DATA_DIR="+dir)...)
	after := start(t, env...)

	var answered, answeredBefore, created, moved atomic.Int64
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() {
			p := before
			w, err := openWire(p.url)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range requests {
				email := fmt.Sprintf("c%d-%d@example.com", i, n-n%2)
				a, err := answer{}, error(nil)
				switch want := http.StatusCreated; {
				case n%2 == 0 || p == after && len(env) == 0: // it has not the users of the first
					email = fmt.Sprintf("c%d-%d@example.com", i, n)
					if a, err = w.exchange("POST", "/user", `{"name":"Ada","email":"`+email+`"}`); err == nil &&
						a.StatusCode == want && p == before {
						created.Add(1)
					}
				default:
					want = http.StatusOK
					a, err = w.exchange("GET", "/users/"+userID(email), "")
					if err == nil && a.StatusCode != want {
						err = errors.New(a.Status)
					}
				}
				if err != nil {
					t.Errorf("client %d, request %d (moved: %v): %v", i, n, p == after, err)
					return
				}
				answered.Add(1)
				if p == before {
					answeredBefore.Add(1)
				}
				if !a.Close {
					continue
				}
				w.Close()
				moved.Add(1)
				p = after
				if w, err = openWire(p.url); err != nil {
					t.Error(err)
					return
				}
			}
			w.Close()
		})
	}
	testkit.Eventually(t, "a quarter of the requests have a response", func() error {
		if n := answered.Load(); n < int64(clients*requests/4) {
			return fmt.Errorf("%d have", n)
		}
		return nil
	})
	before.Process.Signal(syscall.SIGTERM)
	running.Wait()
	if n := answered.Load(); n != int64(clients*requests) {
		t.Errorf("%d requests of %d have a response", n, clients*requests)
	}
	if moved.Load() == 0 {
		t.Error("no client got Connection: close and moved to the new process")
	}
	t.Logf("%d responses of the first process, %d clients moved", answeredBefore.Load(), moved.Load())
	select {
	case <-before.done:
		if before.err != nil {
			t.Errorf("the first process: %v, want exit status 0", before.err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the first process runs 30 s after the last response")
	}
	if len(env) > 0 {
		return
	}
	again := start(t, "DATA_DIR="+dir)
	var users []userJSON
	if err := json.Unmarshal([]byte(again.do(t, "GET /users", nil, nil).body), &users); err != nil ||
		len(users) != int(created.Load()) {
		t.Errorf("the list after a restart: %d users, error %v; want the %d created ones", len(users), err,
			created.Load())
	}
}

// TestShutdownDelay: during SHUTDOWN_DELAY /readyz is 503 and requests are served, also on new connections.
func TestShutdownDelay(t *testing.T) {
	t.Parallel()
	const delay = 15 * time.Second // enough for the requests on a busy machine
	p := start(t, "SHUTDOWN_DELAY="+delay.String())
	p.do(t, "GET /readyz", nil, nil).want(t, http.StatusOK)
	sent := time.Now()
	p.Process.Signal(syscall.SIGTERM)
	testkit.Eventually(t, "/readyz is 503", func() error {
		a, err := p.try("GET /readyz", nil, nil)
		if err != nil {
			t.Fatalf("/readyz during the delay: %v", err)
		}
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
			return errors.New(a.Status)
		}
		return nil
	})
	p.do(t, "GET /livez", nil, nil).want(t, http.StatusOK)
	a, err := dialWire(t, p.url).exchange("POST", "/user", `{"name":"Ada","email":"ada@example.com"}`)
	if err != nil || a.StatusCode != http.StatusCreated || !a.Close {
		t.Errorf("POST on a new connection during the delay: %s, error %v; want 201 and Connection: close", a, err)
	}
	if v := p.metric(t, "roster_ready"); v != 0 {
		t.Errorf("roster_ready is %v during the delay, want 0", v)
	}
	<-p.done
	if p.err != nil || time.Since(sent) < delay {
		t.Errorf("the service ended after %v: %v; want exit status 0 after %v", time.Since(sent), p.err, delay)
	}
	if p.log.find("stopped") == nil {
		t.Error("the log has no line \"stopped\"")
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.Process.Signal(syscall.SIGINT)
	<-p.done
	if p.err != nil || p.log.find("stopped") == nil {
		t.Errorf("the service after SIGINT: %v, want exit status 0 and a line \"stopped\"", p.err)
	}
}

// waitRefused waits until p accepts no new connection.
func waitRefused(t *testing.T, p *process) {
	t.Helper()
	testkit.Eventually(t, "the listener is closed", func() error {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			return nil
		}
		c.Close()
		return errors.New("still open")
	})
}

// halfUpload sends half of an upload, waits until the service reads it, and returns the rest.
func halfUpload(t *testing.T, p *process, w *wire, email string) (rest string) {
	t.Helper()
	contentType, body := testkit.Form(testkit.PNG(testkit.Gradient(300, 300, 3)),
		map[string][]string{"name": {"Ada"}, "email": {email}})
	head := fmt.Sprintf("POST /user HTTP/1.1\r\nHost: roster\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
		contentType, len(body))
	half := len(body) / 2
	if err := w.write(head + string(body[:half])); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the upload is in flight", func() error {
		if n := p.metric(t, "roster_uploads_in_flight"); n != 1 {
			return fmt.Errorf("%v uploads are", n)
		}
		return nil
	})
	return string(body[half:])
}

// TestDrainUpload: an upload in flight at SIGTERM is completed.
func TestDrainUpload(t *testing.T) {
	t.Parallel()
	for _, b := range backends[:2] {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, b.env(t)...)
			upload := dialWire(t, p.url)
			rest := halfUpload(t, p, upload, "ada@example.com")
			p.Process.Signal(syscall.SIGTERM)
			waitRefused(t, p)
			time.Sleep(2 * time.Second) // Shutdown has begun
			if p.ended() {
				t.Fatal("the service ended with an upload in flight")
			}
			if err := upload.write(rest); err != nil {
				t.Fatal(err)
			}
			a, err := upload.read()
			if err != nil || a.StatusCode != http.StatusCreated || !a.Close {
				t.Errorf("the upload: %s, error %v; want 201 and Connection: close", a, err)
			}
			p.wantExit(t)
		})
	}
}

// TestDrainList: a list in flight at SIGTERM is complete.
func TestDrainList(t *testing.T) {
	t.Parallel()
	const users = 100_000 // more than the buffers of the connection hold
	dir := t.TempDir()
	seedUsers(t, dir, users)
	p := start(t, "DATA_DIR="+dir)
	w := dialWire(t, p.url)
	if err := w.write("GET /users HTTP/1.1\r\nHost: roster\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(w.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Process.Signal(syscall.SIGTERM)
	waitRefused(t, p)
	time.Sleep(2 * time.Second)
	var list []userJSON
	data, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil || len(list) != users {
		t.Errorf("the list has %d users, error %v; want %d", len(list), err, users)
	}
	p.wantExit(t)
}

// TestShutdownTimeout: a request that does not end within SHUTDOWN_TIMEOUT is aborted,
// and the exit status is 1.
func TestShutdownTimeout(t *testing.T) {
	t.Parallel()
	p := start(t, "SHUTDOWN_TIMEOUT=1s")
	w := dialWire(t, p.url)
	halfUpload(t, p, w, "ada@example.com")
	p.Process.Signal(syscall.SIGTERM)
	if a, err := w.read(); err == nil {
		t.Errorf("half an upload after SHUTDOWN_TIMEOUT: %s, want a broken connection", a)
	}
	<-p.done
	if p.ProcessState.ExitCode() != 1 || !strings.Contains(p.log.tail(1), "SHUTDOWN_TIMEOUT") {
		t.Errorf("the service: %v, want exit status 1 and SHUTDOWN_TIMEOUT in its last line, not %s", p.err,
			p.log.tail(1))
	}
}

// TestSecondSignal: a second SIGTERM ends the process at once.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p := start(t, "SHUTDOWN_DELAY=1h")
	p.Process.Signal(syscall.SIGTERM)
	testkit.Eventually(t, "the shutdown is logged", func() error {
		if p.log.find("shutting down") == nil {
			return errors.New("no such line")
		}
		return nil
	})
	p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the service runs 20 s after the second SIGTERM")
	}
	if status := p.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("the service after the second SIGTERM: %v, want its end by the signal", p.err)
	}
}

// TestDiscardLater: an upload is answered before the replaced image is deleted, but the
// process exits after it.
func TestDiscardLater(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	p := start(t, fakeEnv(dynamo, bucket)...)
	p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}},
		[]byte(`{"name":"Ada","email":"ada@example.com"}`)).want(t, http.StatusCreated)
	put := "PUT /users/" + userID("ada@example.com") + "/avatar"
	p.do(t, put, nil, testkit.PNG(testkit.Gradient(20, 20, 1))).want(t, http.StatusOK)
	old := bucket.Keys()
	gate := make(chan struct{})
	bucket.Always("DeleteObject", testkit.Fault{Gate: gate}) // of the image and its thumbnail
	p.do(t, put, nil, testkit.PNG(testkit.Gradient(20, 20, 2))).want(t, http.StatusOK)
	if n := len(bucket.Keys()); n != 2 {
		t.Errorf("%d images are stored, want the new and the replaced one", n)
	}

	p.Process.Signal(syscall.SIGTERM)
	waitRefused(t, p)
	time.Sleep(2 * time.Second)
	if p.ended() {
		t.Error("the service exited before it deleted the replaced image")
	}
	close(gate)
	p.wantExit(t)
	if keys := bucket.Keys(); len(keys) != 1 || keys[0] == old[0] {
		t.Errorf("images %q are stored, want one that replaces %q", keys, old)
	}
}

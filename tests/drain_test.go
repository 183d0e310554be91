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
	before := start(t, append(env, "SHUTDOWN_DELAY=1s", "DATA_DIR="+dir)...)
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
					if a, err = w.exchange("POST", "/user", `{"name":"Ada","email":"`+email+`"}`); err == nil && a.StatusCode == want && p == before {
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
	testkit.Eventually(t, time.Minute, "a quarter is answered", func() error {
		if answered.Load() < int64(clients*requests/4) {
			return errors.New("not yet")
		}
		return nil
	})
	before.Process.Signal(syscall.SIGTERM)
	running.Wait()
	if n := answered.Load(); n != int64(clients*requests) {
		t.Errorf("%d requests of %d were answered", n, clients*requests)
	}
	if moved.Load() == 0 {
		t.Error("no client was told that its connection ends: the test tests nothing")
	}
	t.Logf("%d answered by the first process, %d clients moved", answeredBefore.Load(), moved.Load())
	select {
	case <-before.done:
		if before.err != nil {
			t.Errorf("it ended with %v", before.err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it does not end")
	}
	if len(env) > 0 {
		return
	}
	again := start(t, "DATA_DIR="+dir)
	var users []userJSON
	if err := json.Unmarshal([]byte(again.do(t, "GET /users", nil, nil).body), &users); err != nil || len(users) != int(created.Load()) {
		t.Errorf("%d users, %d were created: %v", len(users), created.Load(), err)
	}
}

// TestShutdownDelay: during SHUTDOWN_DELAY /readyz is 503 and requests are served.
func TestShutdownDelay(t *testing.T) {
	t.Parallel()
	const delay = 3 * time.Second
	p := start(t, "SHUTDOWN_DELAY="+delay.String())
	p.do(t, "GET /readyz", nil, nil).want(t, http.StatusOK)
	sent := time.Now()
	p.Process.Signal(syscall.SIGTERM)
	testkit.Eventually(t, delay, "/readyz says no", func() error {
		a, err := p.try("GET /readyz", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
			return errors.New(a.Status)
		}
		return nil
	})
	if time.Since(sent) < delay/2 { // not on a busy machine
		p.do(t, "GET /livez", nil, nil).want(t, http.StatusOK)
		a, err := dialWire(t, p.url).exchange("POST", "/user", `{"name":"Ada","email":"ada@example.com"}`)
		if err != nil || a.StatusCode != http.StatusCreated || !a.Close {
			t.Errorf("a new connection during the delay: %v %v", a.Status, err)
		}
		if v := p.metric(t, "roster_ready"); v != 0 {
			t.Errorf("roster_ready is %v", v)
		}
	}
	<-p.done
	if p.err != nil || time.Since(sent) < delay {
		t.Errorf("it ended after %v: %v", time.Since(sent), p.err)
	}
	if p.log.find("stopped") == nil {
		t.Error("the log does not say that it stopped")
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.Process.Signal(syscall.SIGINT)
	<-p.done
	if p.err != nil || p.log.find("stopped") == nil {
		t.Errorf("after SIGINT: %v", p.err)
	}
}

// waitRefused waits until p accepts no new connection.
func waitRefused(t *testing.T, p *process) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, "the listener is closed", func() error {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			return nil
		}
		c.Close()
		return errors.New("still open")
	})
}

// halfUpload sends half of an upload and returns the rest.
func halfUpload(t *testing.T, w *wire, email string) (rest string) {
	t.Helper()
	contentType, body := testkit.Form(testkit.PNG(testkit.Gradient(300, 300, 3)), map[string][]string{"name": {"Ada"}, "email": {email}})
	head := fmt.Sprintf("POST /user HTTP/1.1\r\nHost: roster\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", contentType, len(body))
	half := len(body) / 2
	if err := w.write(head + string(body[:half])); err != nil {
		t.Fatal(err)
	}
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
			rest := halfUpload(t, upload, "ada@example.com")
			testkit.Eventually(t, 20*time.Second, "it is under way", func() error {
				if p.metric(t, "roster_uploads_in_flight") != 1 {
					return errors.New("not yet")
				}
				return nil
			})
			p.Process.Signal(syscall.SIGTERM)
			waitRefused(t, p)
			time.Sleep(2 * time.Second) // Shutdown has begun
			if p.ended() {
				t.Fatal("it ended with an upload under way")
			}
			if err := upload.write(rest); err != nil {
				t.Fatal(err)
			}
			a, err := upload.read()
			if err != nil || a.StatusCode != http.StatusCreated || !a.Close {
				t.Errorf("got %v, %v", a.Status, err)
			}
			<-p.done
			if p.err != nil {
				t.Error(p.err)
			}
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
		t.Errorf("%d users of %d: %v", len(list), users, err)
	}
	<-p.done
	if p.err != nil {
		t.Error(p.err)
	}
}

// TestShutdownTimeout: a request that does not end within SHUTDOWN_TIMEOUT is aborted,
// and the exit status is 1.
func TestShutdownTimeout(t *testing.T) {
	t.Parallel()
	p := start(t, "SHUTDOWN_TIMEOUT=1s")
	w := dialWire(t, p.url)
	halfUpload(t, w, "ada@example.com")
	testkit.Eventually(t, 20*time.Second, "it is under way", func() error {
		if p.metric(t, "roster_uploads_in_flight") != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	p.Process.Signal(syscall.SIGTERM)
	if a, err := w.read(); err == nil {
		t.Errorf("half an upload is answered %s", a.Status)
	}
	<-p.done
	if p.ProcessState.ExitCode() != 1 || !strings.Contains(p.log.tail(1), "SHUTDOWN_TIMEOUT") {
		t.Errorf("%v; the last line is %s", p.err, p.log.tail(1))
	}
}

// TestSecondSignal: a second SIGTERM ends the process at once.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p := start(t, "SHUTDOWN_DELAY=1h")
	p.Process.Signal(syscall.SIGTERM)
	testkit.Eventually(t, 20*time.Second, "it is stopping", func() error {
		if p.log.find("shutting down") == nil {
			return errors.New("not yet")
		}
		return nil
	})
	p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the second signal does not end it")
	}
	if status := p.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v", p.err)
	}
}

// TestDiscardLater: an upload is answered before the replaced image is deleted, but the
// process exits after it.
func TestDiscardLater(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	p := start(t, fakeEnv(dynamo, bucket)...)
	p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}}, []byte(`{"name":"Ada","email":"ada@example.com"}`)).want(t, http.StatusCreated)
	put := "PUT /users/" + userID("ada@example.com") + "/avatar"
	p.do(t, put, nil, testkit.PNG(testkit.Gradient(20, 20, 1))).want(t, http.StatusOK)
	old := bucket.Keys()
	gate := make(chan struct{})
	bucket.Next("DeleteObjects", testkit.Fault{Gate: gate})
	p.do(t, put, nil, testkit.PNG(testkit.Gradient(20, 20, 2))).want(t, http.StatusOK)
	if n := len(bucket.Keys()); n != 2 {
		t.Errorf("there are %d images, want the one before as well", n)
	}

	p.Process.Signal(syscall.SIGTERM)
	waitRefused(t, p)
	time.Sleep(2 * time.Second)
	if p.ended() {
		t.Error("it ended with an image left to be removed")
	}
	close(gate)
	<-p.done
	if p.err != nil {
		t.Error(p.err)
	}
	if keys := bucket.Keys(); len(keys) != 1 || keys[0] == old[0] {
		t.Errorf("there are %q; %q was replaced", keys, old)
	}
}

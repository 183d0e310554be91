// Client is the load of the cluster test. Its clients send one request after the other on kept connections and check
// every response. It runs in the cluster, as a client of the Service, and has an HTTP API:
//
//	GET /stats          counters
//	GET /clients?n=N    sets the number of clients; responds when surplus clients have stopped
//	GET /verify         reads back every acknowledged user and avatar
//	GET /status?token=T the status of a request with this bearer token
//
// Like every HTTP client, it retries when the connection was refused or closed. It never retries after a response: any
// 5xx is a failure.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"log"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	pause     = 25 * time.Millisecond  // between the requests of a client
	retries   = 50                     // of a request, before it counts as lost
	retryWait = 100 * time.Millisecond // between tries
	keep      = 200                    // users; older ones are deleted
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	target := flag.String("url", "", "base URL of the service")
	clients := flag.Int("clients", 0, "initial number of clients")
	quit := flag.Bool("quit", false, "send SIGQUIT to process 1 and exit, to crash a container of another image")
	flag.Parse()
	if *quit {
		// The kernel ignores SIGKILL to process 1 from its own container. The Go runtime handles SIGQUIT.
		if err := syscall.Kill(1, syscall.SIGQUIT); err != nil {
			log.Fatal(err)
		}
		return
	}
	l := &load{target: *target, token: os.Getenv("TOKEN")}
	l.set(*clients)
	http.HandleFunc("GET /stats", l.answerStats)
	http.HandleFunc("GET /clients", l.answerClients)
	http.HandleFunc("GET /verify", l.answerVerify)
	http.HandleFunc("GET /status", l.answerStatus)
	server := http.Server{Addr: ":9000", ReadHeaderTimeout: 5 * time.Second}
	go func() { log.Fatal(server.ListenAndServe()) }()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}

// A load has all clients and their counters.
type load struct {
	target, token string

	requests atomic.Int64 // with the expected response
	unsent   atomic.Int64 // tries that failed before the request was sent
	broken   atomic.Int64 // tries that failed after the request was sent
	failed   atomic.Int64 // lost requests and unexpected responses

	mu       sync.Mutex
	stops    []func() // stops a client and waits
	started  int
	users    []user
	failures []string // the first 20
}

// A user that the service acknowledged.
type user struct {
	ID, Name     string
	AvatarURL    string `json:"avatar_url"`
	ThumbnailURL string `json:"thumbnail_url"`
	image        []byte
}

func (l *load) answerStats(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	json.NewEncoder(w).Encode(map[string]any{
		"requests": l.requests.Load(), "unsent": l.unsent.Load(), "broken": l.broken.Load(),
		"failed": l.failed.Load(), "failures": l.failures, "users": len(l.users), "clients": len(l.stops),
	})
}

func (l *load) answerClients(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("n"))
	if err != nil || n < 0 || n > 100 {
		http.Error(w, "n must be from 0 to 100", http.StatusBadRequest)
		return
	}
	l.set(n)
	l.answerStats(w, r)
}

// set starts or stops clients.
func (l *load) set(n int) {
	l.mu.Lock()
	for ; len(l.stops) < n; l.started++ {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		l.stops = append(l.stops, func() { cancel(); <-ended })
		go func(number int) {
			defer close(ended)
			l.run(ctx, number)
		}(l.started)
	}
	tooMany := slices.Clone(l.stops[n:])
	l.stops = l.stops[:n]
	l.mu.Unlock() // clients need it to stop
	for _, stop := range tooMany {
		stop()
	}
}

// answerVerify reads back the acknowledged users and avatars.
func (l *load) answerVerify(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	users := l.users
	l.mu.Unlock()
	c := l.client()
	wrong := 0
	for _, u := range users {
		if err := c.check(u); err != nil {
			log.Printf("verify: %v", err)
			wrong++
		}
	}
	json.NewEncoder(w).Encode(map[string]int{"users": len(users), "wrong": wrong})
}

func (l *load) answerStatus(w http.ResponseWriter, r *http.Request) {
	c := l.client()
	c.token = r.FormValue("token")
	status, _, _, err := c.try("GET", "/users?limit=1", "", nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	fmt.Fprintln(w, status)
}

// A client has its own connections.
type client struct {
	*load
	token string
	http  http.Client
}

func (l *load) client() *client {
	return &client{load: l, token: l.token, http: http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}}
}

// run repeats round until ctx is done.
func (l *load) run(ctx context.Context, number int) {
	c := l.client()
	for n := 0; ctx.Err() == nil; n++ {
		if err := c.round(number, n); err != nil {
			log.Print(err)
			l.failed.Add(1)
			l.mu.Lock()
			if len(l.failures) < 20 {
				l.failures = append(l.failures, err.Error())
			}
			l.mu.Unlock()
		}
	}
}

// round creates a user with an avatar, checks both, and deletes the oldest user if there are enough. Each round uses a
// new connection, so that clients reach new pods.
func (c *client) round(number, n int) error {
	defer c.http.CloseIdleConnections()
	u := user{Name: fmt.Sprintf("Client %d Round %d", number, n), image: randomPNG()}
	body, _ := json.Marshal(map[string]string{"name": "Nobody",
		"email": fmt.Sprintf("%d-%d-%s@example.com", number, n, rand.Text())})
	answer, again, err := c.do("POST", "/user", "application/json", body, http.StatusCreated, http.StatusConflict)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, &u); err != nil || u.ID == "" {
		// The previous try had no response, but created the user.
		if again {
			return nil
		}
		return fmt.Errorf("POST /user: %s", answer)
	}
	path := "/users/" + u.ID
	if _, _, err := c.do("PUT", path+"/avatar", "image/png", u.image, http.StatusOK); err != nil {
		return err
	}
	u.Name = fmt.Sprintf("Client %d Round %d", number, n)
	body, _ = json.Marshal(map[string]string{"name": u.Name})
	if _, _, err := c.do("PATCH", path, "application/json", body, http.StatusOK); err != nil {
		return err
	}
	if err := c.check(u); err != nil {
		return err
	}
	if _, _, err := c.do("GET", "/users?limit=10", "", nil, http.StatusOK); err != nil {
		return err
	}
	c.mu.Lock()
	c.users = append(c.users, u)
	var old user
	if len(c.users) > keep {
		old, c.users = c.users[0], c.users[1:]
	}
	c.mu.Unlock()
	if old.ID != "" {
		_, _, err = c.do("DELETE", "/users/"+old.ID, "", nil, http.StatusNoContent, http.StatusNotFound)
	}
	return err
}

// check compares a user, the avatar and the size of the thumbnail.
func (c *client) check(u user) error {
	answer, _, err := c.do("GET", "/users/"+u.ID, "", nil, http.StatusOK)
	if err != nil {
		return err
	}
	var got user
	if err := json.Unmarshal(answer, &got); err != nil || got.Name != u.Name {
		return fmt.Errorf("user %s has the name %q, not %q (%v)", u.ID, got.Name, u.Name, err)
	}
	answer, _, err = c.do("GET", got.AvatarURL, "", nil, http.StatusOK)
	if err != nil {
		return err
	}
	if !bytes.Equal(answer, u.image) {
		return fmt.Errorf("user %s has another avatar, of %d bytes", u.ID, len(answer))
	}
	answer, _, err = c.do("GET", got.ThumbnailURL, "", nil, http.StatusOK)
	if err != nil {
		return err
	}
	// A busy service redirects to the image.
	config, err := png.DecodeConfig(bytes.NewReader(answer))
	if err != nil || config.Width != 256 && !bytes.Equal(answer, u.image) {
		return fmt.Errorf("user %s has a thumbnail of %d × %d pixels (%v)", u.ID, config.Width, config.Height, err)
	}
	return nil
}

// do sends a request and retries if the connection fails. The second status in want is accepted after a retry, since
// the previous try may have succeeded.
func (c *client) do(method, path, contentType string, body []byte, want ...int) (answer []byte, again bool, err error) {
	time.Sleep(pause)
	for try := 0; ; try++ {
		status, answer, sent, err := c.try(method, path, contentType, body)
		again = again || sent && err != nil
		if err != nil && try < retries {
			log.Printf("%s %s: try %d, sent=%v: %v", method, path, try, sent, err)
			time.Sleep(retryWait)
			continue
		}
		if err != nil {
			return nil, again, fmt.Errorf("%s %s: lost after %d tries: %w", method, path, try, err)
		}
		if status != want[0] && !(again && len(want) > 1 && status == want[1]) {
			return nil, again, fmt.Errorf("%s %s: %d %s", method, path, status, answer)
		}
		c.requests.Add(1)
		return answer, again, nil
	}
}

// try sends a request once. It also counts the retries of net/http.
func (c *client) try(method, path, contentType string, body []byte) (status int, answer []byte, sent bool, err error) {
	written := 0
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				written++
			}
		},
	})
	req, err := http.NewRequestWithContext(ctx, method, c.target+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, false, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err == nil {
		answer, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		status = resp.StatusCode
	}
	lost := written // sent tries without a response
	if err == nil {
		lost--
	}
	c.broken.Add(int64(lost))
	if written == 0 {
		c.unsent.Add(1)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the caller adds the path
	}
	return status, answer, written > 0, err
}

// randomPNG returns a small unique image.
func randomPNG() []byte {
	img := image.NewNRGBA(image.Rect(0, 0, 32, 32))
	rand.Read(img.Pix)
	img.SetNRGBA(0, 0, color.NRGBA{A: 255})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err)
	}
	return b.Bytes()
}

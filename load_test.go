package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A loadClient sends requests by the thousand. Unlike process.do it keeps none of
// them for the check against openapi.yaml, and a failure is not the test's end.
type loadClient struct {
	*http.Client
	url string
}

func newLoadClient(t testing.TB, p *process) *loadClient {
	transport := &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &loadClient{&http.Client{Transport: transport, Timeout: 2 * time.Minute}, p.url}
}

// send returns the status and the body of the answer, or why there is none.
func (c *loadClient) send(method, path, contentType string, body []byte) (int, []byte, error) {
	req, err := http.NewRequest(method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, data, err
}

// create sends POST /user, with an image unless it is nil.
func (c *loadClient) create(name, email string, image []byte) (int, []byte, error) {
	if image == nil {
		return c.send("POST", "/user", "application/json", fmt.Appendf(nil, `{"name":%q,"email":%q}`, name, email))
	}
	contentType, body := multipartBody(image, url.Values{"name": {name}, "email": {email}})
	return c.send("POST", "/user", contentType, body)
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// seedUsers puts n users into the embedded store in dir, all at once.
func seedUsers(t testing.TB, dir string, n int) {
	t.Helper()
	store, err := openLocal(dir, newMetrics(build{}))
	if err != nil {
		t.Fatal(err)
	}
	at := now()
	users := make([]User, n)
	for i := range users {
		u := User{Name: fmt.Sprint("User ", i), Email: fmt.Sprintf("user%d@example.com", i), CreatedAt: at, UpdatedAt: at}
		u.ID = userID(u.Email)
		users[i] = u
	}
	// In order, since bbolt splits pages only in the end: within a transaction
	// each other insertion moves half of what is there.
	slices.SortFunc(users, func(a, b User) int { return strings.Compare(a.ID, b.ID) })
	err = store.write(func(b *bolt.Bucket) error {
		for _, u := range users {
			if err := b.Put([]byte(u.ID), encodeLocal(u)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
}

// A wire is a connection that a test writes and reads itself: what is sent when,
// and that nothing is sent again, is up to the test.
type wire struct {
	net.Conn
	reader *bufio.Reader
}

func dialWire(t testing.TB, url string) *wire {
	t.Helper()
	w, err := openWire(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func openWire(url string) (*wire, error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return &wire{c, bufio.NewReader(c)}, nil
}

// write sends text as it is.
func (w *wire) write(text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// read returns the next answer, read whole.
func (w *wire) read() (answer, error) {
	resp, err := http.ReadResponse(w.reader, nil)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return answer{resp, string(data)}, err
}

// exchange sends a request with a JSON body, or none, and reads the answer.
func (w *wire) exchange(method, path, body string) (answer, error) {
	head := method + " " + path + " HTTP/1.1\r\nHost: roster\r\n"
	if body != "" {
		head += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	if err := w.write(head + "\r\n" + body); err != nil {
		return answer{}, err
	}
	return w.read()
}

// freePort finds a port that nobody listens on just now.
func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

package tests

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
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

// seedUsers writes an embedded store of n users into dir, in the form that earlier
// versions left on disks: a bbolt file with a bucket of JSON by id.
func seedUsers(t testing.TB, dir string, n int) {
	t.Helper()
	users := map[string]string{}
	for i := range n {
		email := fmt.Sprintf("user%d@example.com", i)
		users[userID(email)] = fmt.Sprintf(`{"Name":"User %d","Email":%q,"CreatedAt":1767323045678,"UpdatedAt":1767323045678}`, i, email)
	}
	db, err := bolt.Open(filepath.Join(dir, "roster.db"), 0o600, nil)
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucket([]byte("users"))
			if err != nil {
				return err
			}
			// In order, since bbolt splits pages only in the end: within a transaction
			// each other insertion moves half of what is there.
			for _, id := range slices.Sorted(maps.Keys(users)) {
				if err := bucket.Put([]byte(id), []byte(users[id])); err != nil {
					return err
				}
			}
			return nil
		})
		err = errors.Join(err, db.Close())
	}
	if err != nil {
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

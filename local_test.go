package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// The benchmarks compare the service with the least that could do the same work,
// in turns within one run, so that what else the machine does hits both alike.

// A contender is one side of a comparison.
type contender struct {
	name  string
	do    func(n int) error // one request, the nth
	spent time.Duration
	count int
}

// compare runs the contenders in short turns, each on conns connections at once,
// and reports their rates and how the first compares with each of the others.
func compare(b *testing.B, conns int, contenders ...*contender) {
	const turn = 100 * time.Millisecond
	var next atomic.Int64
	run := func(c *contender) {
		var running sync.WaitGroup
		var done atomic.Int64
		begin := time.Now()
		for range conns {
			running.Go(func() {
				for time.Since(begin) < turn {
					if err := c.do(int(next.Add(1))); err != nil {
						b.Error(err)
						return
					}
					done.Add(1)
				}
			})
		}
		running.Wait()
		c.spent += time.Since(begin)
		c.count += int(done.Load())
	}
	for _, c := range contenders {
		run(c) // warm-up
		c.spent, c.count = 0, 0
	}
	b.ResetTimer()
	for b.Loop() {
		for _, c := range contenders {
			run(c)
		}
	}
	rate := func(c *contender) float64 { return float64(c.count) / c.spent.Seconds() }
	for _, c := range contenders {
		b.ReportMetric(rate(c), c.name+"/s")
	}
	for _, c := range contenders[1:] {
		b.ReportMetric(rate(contenders[0])/rate(c), contenders[0].name+":"+c.name)
	}
	b.ReportMetric(0, "ns/op") // of a round of turns: says nothing
}

// poster sends POSTs of users over its own connections.
func poster(b *testing.B, url string, conns int) func(n int) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: conns, MaxConnsPerHost: conns}}
	b.Cleanup(client.CloseIdleConnections)
	return func(n int) error {
		body := fmt.Sprintf(`{"name":"Ada Lovelace","email":"ada%d@example.com"}`, n)
		resp, err := client.Post(url, "application/json", strings.NewReader(body))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusCreated {
			return errors.New(resp.Status)
		}
		return nil
	}
}

// bareHandler reads the body and has write store it under its own key: the least
// that a handler can do for a durable write.
func bareHandler(write func(key, value []byte) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(r.Body)
		if err == nil {
			err = write([]byte(userID(string(value))), value)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusCreated)
		w.Write(value)
	})
}

// embeddedServer is the whole service on the embedded store, in this process.
func embeddedServer(b testing.TB, dir string) *httptest.Server {
	m := newMetrics(build{})
	store, err := openLocal(dir, m)
	if err != nil {
		b.Fatal(err)
	}
	log := newLogger(config{}, must(os.OpenFile(os.DevNull, os.O_WRONLY, 0)))
	s := newServer(config{MaxAvatarBytes: 5 << 20}, localUsers{store}, localAvatars{store}, nil, log, m, build{})
	server := httptest.NewUnstartedServer(s)
	server.Config = newHTTPServer(s, log)
	server.Start()
	b.Cleanup(func() {
		server.Close()
		store.Close()
	})
	return server
}

// BenchmarkCreate: POST /user on 32 connections, next to handlers that do nothing
// but the same durable write of bbolt: in the service's own group commit, in
// bbolt's Batch, and in a transaction of its own.
func BenchmarkCreate(b *testing.B) {
	const conns = 32
	open := func(name string, options *bolt.Options) *bolt.DB {
		db, err := bolt.Open(filepath.Join(b.TempDir(), name), 0o600, options)
		if err == nil {
			err = db.Update(func(tx *bolt.Tx) error {
				_, err := tx.CreateBucket(usersBucket)
				return err
			})
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { db.Close() })
		return db
	}
	bare := func(write func(key, value []byte) error) func(int) error {
		server := httptest.NewServer(bareHandler(write))
		b.Cleanup(server.Close)
		return poster(b, server.URL, conns)
	}
	put := func(key, value []byte) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error { return tx.Bucket(usersBucket).Put(key, value) }
	}
	group, err := openLocal(b.TempDir(), newMetrics(build{}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { group.Close() })
	batch, update := open("batch", nil), open("update", nil)
	compare(b, conns,
		&contender{name: "roster", do: poster(b, embeddedServer(b, b.TempDir()).URL+"/user", conns)},
		&contender{name: "bare", do: bare(func(key, value []byte) error {
			return group.write(func(bucket *bolt.Bucket) error { return bucket.Put(key, value) })
		})},
		&contender{name: "bare-batch", do: bare(func(key, value []byte) error { return batch.Batch(put(key, value)) })},
		&contender{name: "bare-update", do: bare(func(key, value []byte) error { return update.Update(put(key, value)) })},
	)
}

// BenchmarkList: GET /users over 100,000 users.
func BenchmarkList(b *testing.B) {
	const users = 100_000
	dir := b.TempDir()
	seedUsers(b, dir, users)
	server := embeddedServer(b, dir)
	var bytes int64
	for b.Loop() {
		resp, err := http.Get(server.URL + "/users")
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			b.Fatal(err)
		}
		bytes = n
	}
	b.SetBytes(bytes)
	b.ReportMetric(float64(users*b.N)/b.Elapsed().Seconds(), "users/s")
}

// BenchmarkAvatar: GET of an image, next to http.ServeContent of the same file.
func BenchmarkAvatar(b *testing.B) {
	const conns = 8
	for _, side := range []int{64, 1000} {
		image := encodeJPEG(gradient(side, side, 7))
		b.Run(fmt.Sprintf("%dkB", (len(image)+999)/1000), func(b *testing.B) {
			server := embeddedServer(b, b.TempDir())
			contentType, body := multipartBody(image, map[string][]string{"name": {"Ada"}, "email": {"ada@example.com"}})
			resp, err := http.Post(server.URL+"/user", contentType, strings.NewReader(string(body)))
			if err != nil || resp.StatusCode != http.StatusCreated {
				b.Fatal(err, resp.Status)
			}
			resp.Body.Close()
			file := filepath.Join(b.TempDir(), "ada.jpg")
			if err := os.WriteFile(file, image, 0o600); err != nil {
				b.Fatal(err)
			}
			bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				f, err := os.Open(file)
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
				defer f.Close()
				http.ServeContent(w, r, "ada.jpg", time.Time{}, f)
			}))
			b.Cleanup(bare.Close)
			compare(b, conns,
				&contender{name: "roster", do: getter(b, server.URL+"/users/"+userID("ada@example.com")+"/avatar", conns, len(image))},
				&contender{name: "ServeContent", do: getter(b, bare.URL, conns, len(image))},
			)
		})
	}
}

func getter(b *testing.B, url string, conns, want int) func(int) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: conns, MaxConnsPerHost: conns}}
	b.Cleanup(client.CloseIdleConnections)
	return func(int) error {
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(want) {
			return fmt.Errorf("%s, %d bytes: %w", resp.Status, n, err)
		}
		return nil
	}
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

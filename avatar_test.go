package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"roster/internal/testkit"
)

// serveOne serves the API on fakes with one user, ada@example.com.
func serveOne(t *testing.T) (dynamo *testkit.DynamoDB, bucket *testkit.S3, users *dynamoUsers, u User, url string) {
	dynamo, bucket = testkit.NewDynamoDB(t), testkit.NewS3(t)
	users, avatars := openTestAWS(t, dynamo.URL, bucket.URL)
	u = testUser("ada@example.com")
	u.ID = userID(u.Email)
	wantError(t, users.Create(t.Context(), u), nil)
	return dynamo, bucket, users, u, serveStores(t, users, avatars)
}

// TestRefusedUpload: nothing is left of an upload for nobody or without an answer of S3,
// and of one that is no image nothing was stored.
func TestRefusedUpload(t *testing.T) {
	slow := testkit.Fault{Delay: 200 * time.Millisecond}
	image := testkit.PNG(testkit.Gradient(20, 20, 1))
	broken := image[:len(image)-20]
	for _, test := range []struct {
		name   string
		faults map[string]testkit.Fault
		email  string
		image  []byte
		want   int
	}{
		{"nobody", nil, "nobody@example.com", image, http.StatusNotFound},
		{"nobody, stored late", map[string]testkit.Fault{"PutObject": slow}, "nobody@example.com", image,
			http.StatusNotFound},
		{"no answer from S3", map[string]testkit.Fault{"PutObject": {Applied: true, Drop: true}}, "ada@example.com",
			image, http.StatusServiceUnavailable},
		{"not an image", nil, "ada@example.com", broken, http.StatusBadRequest},
		{"not an image, for nobody", nil, "nobody@example.com", broken, http.StatusBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dynamo, bucket, users, u, url := serveOne(t)
			bucket.Faults = dynamo.Faults
			for operation, what := range test.faults {
				bucket.Always(operation, what)
			}
			contentType, form := testkit.Form(test.image, map[string][]string{"email": {test.email}})
			for _, request := range []struct {
				method, path, contentType string
				body                      []byte
			}{
				{"PUT", "/users/" + userID(test.email) + "/avatar", "", test.image},
				{"POST", "/upload", contentType, form},
			} {
				status, body, err := testkit.Send(http.DefaultClient, request.method, url+request.path,
					request.contentType, request.body)
				if err != nil || status != test.want {
					t.Errorf("%s: %d %s %v, want %d", request.method, status, body, err, test.want)
				}
				if test.want == http.StatusBadRequest && bucket.Calls("PutObject") > 0 {
					t.Errorf("%s: it was stored", request.method)
				}
			}
			testkit.Eventually(t, "nothing is left", func() error {
				if keys := bucket.Keys(); len(keys) > 0 {
					return fmt.Errorf("%q", keys)
				}
				return nil
			})
			bucket.Clear()
			if got, err := users.Get(t.Context(), u.ID); err != nil || got.Avatar.Key != "" {
				t.Errorf("the user is %v, %v", got, err)
			}
		})
	}
}

// request sends a request with a body and header fields, given as pairs of name and value.
func request(t *testing.T, s http.Handler, target string, body []byte, fields ...string) *httptest.ResponseRecorder {
	t.Helper()
	method, path, _ := strings.Cut(target, " ")
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// TestUnmetCondition: nothing is left of an upload that does not meet its condition.
func TestUnmetCondition(t *testing.T) {
	t.Parallel()
	bucket := testkit.NewS3(t)
	users, avatars := openTestAWS(t, testkit.NewDynamoDB(t).URL, bucket.URL)
	u := testUser("ada@example.com")
	wantError(t, users.Create(t.Context(), u), nil)
	s := newTestServer(config{}, users, avatars, nil)
	image := testkit.PNG(testkit.Gradient(20, 20, 1))
	w := request(t, s, "PUT /users/"+u.ID+"/avatar", image, "If-Match", `"another"`)
	if w.Code != http.StatusPreconditionFailed {
		t.Errorf("PUT with another tag: status %d, want 412", w.Code)
	}
	s.background.Wait()
	if keys := bucket.Keys(); len(keys) > 0 || bucket.Calls("PutObject") != 1 {
		t.Errorf("the upload left %q after %d calls", keys, bucket.Calls("PutObject"))
	}
}

// TestVersions: the URL of a version never changes its content: a replaced version is a redirect to the current
// one. Shared caches may keep it only if it is open to everyone.
func TestVersions(t *testing.T) {
	store := openTestLocal(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "tokens")
	wantError(t, os.WriteFile(file, []byte("web:"+tokenA+"\n"), 0o600), nil)
	log := slog.New(slog.DiscardHandler)
	list := testkit.Must(loadTokens(file, log, newMetrics(build{})))
	for i, test := range []struct {
		tokens *tokens
		public bool
		want   string
	}{
		{nil, false, "public"},
		{list, false, "private"},
		{list, true, "public"},
	} {
		s := newTestServer(config{AvatarsPublic: test.public}, localUsers{store}, localAvatars{store}, test.tokens)
		u := testUser(fmt.Sprintf("user%d@example.com", i))
		wantError(t, localUsers{store}.Create(t.Context(), u), nil)
		authorization := []string{"Authorization", "Bearer " + tokenA}
		version := func() string {
			got := testkit.Must(localUsers{store}.Get(t.Context(), u.ID))
			return "/users/" + u.ID + "/avatar/" + got.Avatar.Key
		}
		request(t, s, "PUT /users/"+u.ID+"/avatar", testkit.PNG(testkit.Gradient(20, 20, 1)), authorization...)
		first := version()
		w := request(t, s, "GET "+first, nil, authorization...)
		got, want := w.Header().Get("Cache-Control"), test.want+", max-age=31536000, immutable"
		if w.Code != http.StatusOK || got != want {
			t.Errorf("%+v: the current version: status %d, Cache-Control %q, want 200 and %q", test, w.Code, got, want)
		}
		request(t, s, "PUT /users/"+u.ID+"/avatar", testkit.PNG(testkit.Gradient(20, 20, 2)), authorization...)
		w = request(t, s, "GET "+first, nil, authorization...)
		if h := w.Header(); w.Code != http.StatusFound || h.Get("Location") != version() ||
			h.Get("Cache-Control") != "no-cache" {
			t.Errorf("%+v: a replaced version: status %d, header %v, want 302 to %s", test, w.Code, h, version())
		}
		s.background.Wait()
	}
}

// A replacedAvatars replaces an image instead of reading it, the first left times.
type replacedAvatars struct {
	Avatars
	users Users
	left  int
}

func (a *replacedAvatars) Get(ctx context.Context, id, key string, offset int64) (io.ReadCloser, error) {
	if a.left == 0 {
		return a.Avatars.Get(ctx, id, key, offset)
	}
	a.left--
	image := Avatar{Key: newKey(), Type: "image/png", Size: 3}
	if err := a.Put(ctx, id, image.Key, image.Type, []byte("new")); err != nil {
		return nil, err
	}
	if _, _, err := a.users.Update(ctx, id, Change{Avatar: image, At: time.Now()}, Condition{}); err != nil {
		return nil, err
	}
	return nil, ErrNotFound
}

// TestReplacedWhileRead reads an image that is replaced five times before it is found.
func TestReplacedWhileRead(t *testing.T) {
	t.Parallel()
	users, avatars := openTestAWS(t, testkit.NewDynamoDB(t).URL, testkit.NewS3(t).URL)
	u := testUser("ada@example.com")
	u.ID = userID(u.Email)
	u.Avatar = Avatar{Key: newKey(), Type: "image/png", Size: 3}
	wantError(t, users.Create(t.Context(), u), nil)
	url := serveStores(t, users, &replacedAvatars{Avatars: avatars, users: users, left: 5})
	status, body, err := testkit.Send(http.DefaultClient, "GET", url+"/users/"+u.ID+"/avatar", "", nil)
	if status != http.StatusOK || string(body) != "new" || err != nil {
		t.Errorf("GET of an image that is replaced five times: status %d %q, error %v; want 200 and the last image",
			status, body, err)
	}
}

// TestVersionReplacedWhileRead reads a version that is replaced before it is found: the response has no header of it.
func TestVersionReplacedWhileRead(t *testing.T) {
	t.Parallel()
	store := openTestLocal(t, t.TempDir())
	u := testUser("ada@example.com")
	u.Avatar = Avatar{Key: newKey(), Type: "image/png", Size: 3}
	wantError(t, localUsers{store}.Create(t.Context(), u), nil)
	avatars := &replacedAvatars{Avatars: localAvatars{store}, users: localUsers{store}, left: 1}
	s := newTestServer(config{}, localUsers{store}, avatars, nil)
	got := request(t, s, "GET /users/"+u.ID+"/avatar/"+u.Avatar.Key, nil).Result()
	if got.StatusCode != http.StatusFound || got.Header.Get("Location") == "" {
		t.Errorf("status %s, Location %q, want a redirect", got.Status, got.Header.Get("Location"))
	}
	wantNoHeader(t, "redirect", got.Header, "Content-Length", "Content-Type", "ETag", "Accept-Ranges",
		"Content-Disposition")
}

// wantNoHeader checks that a response has none of these header fields.
func wantNoHeader(t *testing.T, response string, h http.Header, names ...string) {
	t.Helper()
	for _, name := range names {
		if value := h.Get(name); value != "" {
			t.Errorf("%s: %s of a %s, want none", name, value, response)
		}
	}
}

// A shortAvatars store has three bytes of each image.
type shortAvatars struct{ Avatars }

func (shortAvatars) Get(context.Context, string, string, int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("abc")), nil
}

// TestShortImage reads a range of an image that is truncated before anything is sent: the problem has no header of it.
func TestShortImage(t *testing.T) {
	t.Parallel()
	store := openTestLocal(t, t.TempDir())
	u := testUser("ada@example.com")
	u.Avatar = Avatar{Key: newKey(), Type: "image/png", Size: 10}
	wantError(t, localUsers{store}.Create(t.Context(), u), nil)
	s := newTestServer(config{}, localUsers{store}, shortAvatars{localAvatars{store}}, nil)
	r := httptest.NewRequest("GET", "/users/"+u.ID+"/avatar", nil)
	r.Header.Set("Range", "bytes=0-8")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusInternalServerError {
		t.Errorf("range of a truncated image: status %d, want 500", w.Code)
	}
	wantNoHeader(t, "problem", w.Header(), "Content-Range", "ETag", "Accept-Ranges", "Content-Disposition")
}

// TestDeleteAvatarFails: if the object cannot be deleted, the response is 503, and a repeated request deletes it.
func TestDeleteAvatarFails(t *testing.T) {
	t.Parallel()
	_, bucket, users, u, url := serveOne(t)
	path := url + "/users/" + u.ID + "/avatar"
	send := func(method string, body []byte, want int) {
		t.Helper()
		if status, body, err := testkit.Send(http.DefaultClient, method, path, "", body); status != want {
			t.Errorf("%s: status %d %s, error %v, want %d", method, status, body, err, want)
		}
	}
	send("PUT", testkit.PNG(testkit.Gradient(20, 20, 1)), http.StatusOK)
	bucket.Always("DeleteObject", testkit.Fault{Status: 403, Code: "AccessDenied"})
	send("DELETE", nil, http.StatusServiceUnavailable)
	send("GET", nil, http.StatusNotFound)
	bucket.Clear()
	send("DELETE", nil, http.StatusNoContent)
	if got, err := users.Get(t.Context(), u.ID); err != nil || got.Removed != "" || len(bucket.Keys()) > 0 {
		t.Errorf("after a repeated deletion: %+v, error %v, objects %q, want none", got, err, bucket.Keys())
	}
}

// An anyUser store has every user.
type anyUser struct{ Users }

func (anyUser) Update(_ context.Context, id string, c Change, _ Condition) (before, after User, err error) {
	u := testUser("anna@example.com")
	u.ID, u.Avatar = id, c.Avatar
	return User{}, u, nil
}

type noImages struct{ Avatars }

func (noImages) Put(context.Context, string, string, string, []byte) error { return nil }

func TestUploadTarget(t *testing.T) {
	id := userID("ada@example.com")
	image := testkit.PNG(testkit.Gradient(2, 2, 1))
	for _, test := range []struct {
		name   string
		fields map[string][]string
		image  []byte
		want   string
		faults []string
	}{
		{"by id", map[string][]string{"user_id": {id}}, image, id, nil},
		{"by id in capitals", map[string][]string{"user_id": {" " + strings.ToUpper(id)}}, image, id, nil},
		{"by email", map[string][]string{"email": {"ADA@example.com "}}, image, id, nil},
		{"both", map[string][]string{"user_id": {id}, "email": {"ada@example.com"}}, image, "", []string{"user_id"}},
		{"neither", nil, image, "", []string{"user_id"}},
		{"no image", map[string][]string{"user_id": {id}}, nil, "", []string{"avatar"}},
		{"nothing", nil, nil, "", []string{"user_id", "avatar"}},
		{"path for an id", map[string][]string{"user_id": {"../../" + id}}, image, "", []string{"user_id"}},
		{"not an email", map[string][]string{"email": {"ada"}}, nil, "", []string{"email", "avatar"}},
		{"empty id", map[string][]string{"user_id": {""}}, image, "", []string{"user_id"}},
		{"empty email", map[string][]string{"email": {""}}, image, "", []string{"user_id"}},
		{"id and empty email", map[string][]string{"user_id": {id}, "email": {" "}}, image, id, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newTestServer(config{}, anyUser{}, noImages{}, nil)
			contentType, body := testkit.Form(test.image, test.fields)
			r := httptest.NewRequest(http.MethodPost, "/upload", bytes.NewReader(body))
			r.Header.Set("Content-Type", contentType)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			var got struct {
				ID     string
				Errors []fieldError
			}
			err := json.Unmarshal(w.Body.Bytes(), &got)
			var faults []string
			for _, e := range got.Errors {
				faults = append(faults, e.Field)
			}
			if diff := cmp.Diff(test.faults, faults); diff != "" || got.ID != test.want || err != nil {
				t.Errorf("%d %s\n%s", w.Code, w.Body, diff)
			}
		})
	}
}

// BenchmarkPutAvatar compares PUT of a JPEG of 48 kB, from 16 clients, on the embedded
// store with a bare handler that makes the same bytes and the same pointer durable: a file
// is written, synced and renamed over the previous one, its directory is synced, and the
// pointer is in the store's own group commit. They alternate. ratio is the requests per
// second, divided by those of the bare handler.
func BenchmarkPutAvatar(b *testing.B) {
	const clients, requests = 16, 20
	image := testkit.JPEG(noise(480, 360))
	m := newMetrics(build{})
	dir := b.TempDir()
	store, err := openLocal(dir, m)
	wantError(b, err, nil)
	log := slog.New(slog.NewJSONHandler(io.Discard, nil)) // formats lines, as in production
	s := newServer(config{MaxAvatarBytes: 5 << 20}, localUsers{store}, localAvatars{store}, nil, log, m, build{})
	b.Cleanup(func() {
		s.background.Wait()
		store.Close()
	})
	paths := make([]string, clients)
	for i := range paths {
		u := testUser(fmt.Sprintf("user%d@example.com", i))
		u.ID = userID(u.Email)
		paths[i] = "/users/" + u.ID + "/avatar"
		wantError(b, localUsers{store}.Create(b.Context(), u), nil)
	}
	wantError(b, os.Mkdir(filepath.Join(dir, "bare"), 0o700), nil)
	bare := func(w http.ResponseWriter, r *http.Request) {
		id := strings.Split(r.URL.Path, "/")[2]
		data := make([]byte, r.ContentLength)
		_, err := io.ReadFull(r.Body, data)
		f, err1 := os.CreateTemp(filepath.Join(dir, "tmp"), "")
		if err = errors.Join(err, err1); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, err = f.Write(data)
		err = errors.Join(err, f.Sync(), f.Close(), os.Rename(f.Name(), filepath.Join(dir, "bare", id)),
			syncPath(filepath.Join(dir, "bare")))
		u := testUser("bare@example.com")
		u.Avatar = Avatar{Key: newKey(), Type: "image/jpeg", Size: r.ContentLength}
		value := encodeRecord(u)
		err = errors.Join(err, store.write(r.Context(), func(users *bolt.Bucket) error {
			return users.Put([]byte("bare"+id), value)
		}))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Write(value)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	var took [2]time.Duration
	servers := [2]*httptest.Server{httptest.NewServer(http.HandlerFunc(bare)), httptest.NewServer(s)}
	round := func() {
		for i, server := range servers {
			start := time.Now()
			testkit.Together(clients, func(n int) {
				for range requests {
					status, body, err := testkit.Send(client, http.MethodPut, server.URL+paths[n], "", image)
					if status != http.StatusOK {
						b.Error(status, string(body), err)
					}
				}
			})
			took[i] += time.Since(start)
		}
	}
	round()
	took = [2]time.Duration{}
	n := 0
	for b.Loop() {
		round()
		n += clients * requests
	}
	b.ReportMetric(float64(took[0])/float64(took[1]), "ratio")
	b.ReportMetric(float64(n)/took[1].Seconds(), "requests/s")
	b.ReportMetric(float64(len(image))/1000, "kB")
	b.ReportMetric(0, "ns/op")
	client.CloseIdleConnections()
	for _, server := range servers {
		server.Close()
	}
}

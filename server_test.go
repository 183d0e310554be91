package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"roster/internal/testkit"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "32") // parallel tests wait
	m.Run()
}

// newTestServer returns a server without a log. MAX_AVATAR_BYTES is 1 MiB by default.
func newTestServer(c config, users Users, avatars Avatars, t *tokens) *server {
	if c.MaxAvatarBytes == 0 {
		c.MaxAvatarBytes = 1 << 20
	}
	return newServer(c, users, avatars, t, slog.New(slog.DiscardHandler), newMetrics(build{}), build{})
}

// serveStores serves the API on stores.
func serveStores(t testing.TB, users Users, avatars Avatars) (url string) {
	t.Helper()
	s := newTestServer(config{}, users, avatars, nil)
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// A cutRequest is a request to a service with one user, Anna, who has the old image.
type cutRequest struct {
	name, method, path, contentType string
	body                            []byte
	done                            int      // status of success
	again                           int      // status of a repetition after success
	user                            string   // the email of the user that it changes
	failed                          []string // states of that user that a failed request may leave
	after                           string   // state of that user after success
}

var cutOld, cutNew = testkit.PNG(testkit.Gradient(20, 20, 1)), testkit.PNG(testkit.Gradient(20, 20, 2))

func cutRequests() []cutRequest {
	const anna, ben = "anna@example.com", "ben@example.com"
	path := "/users/" + userID(anna)
	createType, create := testkit.Form(cutNew, map[string][]string{"name": {"Ben"}, "email": {ben}})
	uploadType, upload := testkit.Form(cutNew, map[string][]string{"email": {anna}})
	return []cutRequest{
		{"create", "POST", "/user", "application/json", []byte(`{"name":"Ben","email":"` + ben + `"}`),
			201, 409, ben, []string{"no user"}, "Ben without an image"},
		{"create with an image", "POST", "/user", createType, create,
			201, 409, ben, []string{"no user"}, "Ben with the new image"},
		{"upload", "POST", "/upload", uploadType, upload,
			200, 200, anna, []string{"Anna with the old image"}, "Anna with the new image"},
		{"put", "PUT", path + "/avatar", "image/png", cutNew,
			200, 200, anna, []string{"Anna with the old image"}, "Anna with the new image"},
		{"rename", "PATCH", path, "application/json", []byte(`{"name":"Eve"}`),
			200, 200, anna, []string{"Anna with the old image"}, "Eve with the old image"},
		{"delete image", "DELETE", path + "/avatar", "", nil,
			204, 404, anna, []string{"Anna with the old image"}, "Anna without an image"},
		// The image is removed first: an incomplete deletion leaves a user without an image.
		{"delete", "DELETE", path, "", nil,
			204, 404, anna, []string{"Anna with the old image", "Anna without an image"}, "no user"},
	}
}

// A cutWay is how the servers fail: some calls, then all further ones.
type cutWay struct {
	name  string
	calls []testkit.Fault
	then  testkit.Fault
}

func cutWays() []cutWay {
	gone, lost := testkit.Fault{Drop: true}, testkit.Fault{Applied: true, Drop: true}
	failing := testkit.Fault{Status: 500, Code: "InternalServerError"}
	throttled := testkit.Fault{Status: 400, Code: "ThrottlingException"}
	faults := func(list ...testkit.Fault) []testkit.Fault { return list }
	return []cutWay{
		{"gone", nil, gone},
		{"applied, the answer lost, then gone", faults(lost), gone},
		{"applied, the answer cut, then gone", faults(testkit.Fault{Cut: true}), gone},
		{"500", nil, failing},
		{"throttled", nil, throttled},
		{"one answer lost", faults(lost), testkit.Fault{}},
		{"one request lost", faults(gone), testkit.Fault{}},
		{"three 500s", faults(failing, failing, failing), testkit.Fault{}},
		{"five answers lost", faults(lost, lost, lost, lost, lost), testkit.Fault{}},
		{"throttled twice", faults(throttled, throttled), testkit.Fault{}},
	}
}

// TestCutRequests lets the servers fail after each call of each request, in each way. A response
// of success or 503 must be true of the state, and a repetition must succeed.
func TestCutRequests(t *testing.T) {
	t.Parallel()
	for _, req := range cutRequests() {
		calls := 0
		t.Run(req.name, func(t *testing.T) { calls = newWorld(t).cut(req, cutWay{}, 0) })
		if calls == 0 {
			t.Fatalf("%s makes no calls", req.name)
		}
		for _, way := range cutWays() {
			for n := range calls {
				t.Run(fmt.Sprintf("%s, %s after %d calls", req.name, way.name, n), func(t *testing.T) {
					t.Parallel()
					newWorld(t).cut(req, way, n)
				})
			}
		}
	}
}

// A world is the API on fake servers of its own, with one user, Anna, who has the old image.
type world struct {
	t      *testing.T
	dynamo *testkit.DynamoDB
	bucket *testkit.S3
	url    string
	client *http.Client
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dynamo: testkit.NewDynamoDB(t), bucket: testkit.NewS3(t),
		client: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(w.client.CloseIdleConnections)
	w.bucket.Faults = w.dynamo.Faults
	users, avatars := openTestAWS(t, w.dynamo.URL, w.bucket.URL)
	w.url = serveStores(t, users, avatars)
	a := testAvatar(cutOld)
	anna := testUser("anna@example.com")
	anna.ID, anna.Name, anna.Avatar = userID(anna.Email), "Anna", a
	wantError(t, avatars.Put(t.Context(), anna.ID, a.Key, a.Type, cutOld), nil)
	wantError(t, users.Create(t.Context(), anna), nil)
	return w
}

// cut sends a request whose servers fail after some calls, and repeats it when they work again. It
// checks both responses and what they leave, and returns the number of calls of the first.
func (w *world) cut(req cutRequest, way cutWay, after int) (calls int) {
	before := w.dynamo.Calls("")
	w.dynamo.Next("*", append(make([]testkit.Fault, after), way.calls...)...)
	w.dynamo.Always("*", way.then)
	status, body := w.send(req)
	if way.name == "" && req.after == "Anna with the new image" {
		w.waitForOneImage() // the last call comes after the response
	}
	calls = w.dynamo.Calls("") - before
	w.dynamo.Clear()
	state := w.state(req.user)
	succeeded := state == req.after
	switch {
	case status == req.done && !succeeded:
		w.t.Errorf("status %d, and then %s, want %s", status, state, req.after)
	case status != req.done && status != http.StatusServiceUnavailable:
		w.t.Errorf("status %d %s, want %d or 503", status, body, req.done)
	case !succeeded && !slices.Contains(req.failed, state):
		w.t.Errorf("status 503, and then %s, want %s or one of %q", state, req.after, req.failed)
	}

	status, body = w.send(req)
	// An incomplete deletion may have removed the image.
	removed := req.name == "delete image" && status == http.StatusNotFound
	if status != req.done && !(succeeded && status == req.again) && !removed {
		w.t.Errorf("repetition: status %d %s, want %d", status, body, req.done)
	}
	if state := w.state(req.user); state != req.after {
		w.t.Errorf("repetition: %s, want %s", state, req.after)
	}
	if keys := w.bucket.Keys(); req.after == "no user" && len(keys) > 0 {
		w.t.Errorf("the deleted user has images: %q", keys)
	}
	return calls
}

func (w *world) send(req cutRequest) (status int, body []byte) {
	status, body, err := testkit.Send(w.client, req.method, w.url+req.path, req.contentType, req.body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", req.method, req.path, err)
	}
	return status, body
}

// state describes a user, as the whole list and the image's URL show it.
func (w *world) state(email string) string {
	status, body := w.send(cutRequest{method: "GET", path: "/users"})
	var users []userJSON
	if err := json.Unmarshal(body, &users); err != nil || status != http.StatusOK {
		w.t.Fatalf("GET /users: status %d, %v", status, err)
	}
	state := "no user"
	for _, u := range users {
		image := "without an image"
		if u.AvatarURL != "" {
			status, body := w.send(cutRequest{method: "GET", path: u.AvatarURL})
			switch {
			case status == http.StatusOK && bytes.Equal(body, cutOld):
				image = "with the old image"
			case status == http.StatusOK && bytes.Equal(body, cutNew):
				image = "with the new image"
			default:
				w.t.Errorf("image of %s: status %d and %d bytes that nobody sent", u.Email, status, len(body))
			}
		}
		if u.Email == email {
			state = u.Name + " " + image
		}
	}
	return state
}

// waitForOneImage waits until one image is stored: replaced images are deleted after the response.
func (w *world) waitForOneImage() {
	w.t.Helper()
	testkit.Eventually(w.t, "the replaced image is deleted", func() error {
		if keys := w.bucket.Keys(); len(keys) != 1 {
			return fmt.Errorf("images %q", keys)
		}
		return nil
	})
}

// TestRequestLimit: beyond maxInFlight requests, all but the probes get 503.
func TestRequestLimit(t *testing.T) {
	s := newTestServer(config{}, nil, nil, nil)
	s.ready.Store(true)
	s.inFlight.Store(maxInFlight)
	for path, want := range map[string]int{"/version": http.StatusServiceUnavailable,
		"/users": http.StatusServiceUnavailable, "/livez": http.StatusOK, "/readyz": http.StatusOK} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want || (w.Code == http.StatusServiceUnavailable) != (w.Header().Get("Retry-After") != "") {
			t.Errorf("GET %s: %d, want %d", path, w.Code, want)
		}
	}
	if n := s.inFlight.Load(); n != maxInFlight {
		t.Errorf("%d are counted afterwards", n)
	}
}

// TestTransferLimit: beyond maxTransfers of one kind, those get 503, and the other kind is served.
func TestTransferLimit(t *testing.T) {
	store := openTestLocal(t, t.TempDir())
	s := newTestServer(config{}, localUsers{store}, localAvatars{store}, nil)
	const upload, download = "POST /upload", "GET /users"
	for _, test := range []struct {
		transfers *atomic.Int64
		want      map[string]int
	}{
		{&s.downloads, map[string]int{download: http.StatusServiceUnavailable,
			upload: http.StatusUnsupportedMediaType}},
		{&s.uploads, map[string]int{download: http.StatusOK, upload: http.StatusServiceUnavailable}},
	} {
		test.transfers.Store(maxTransfers)
		for target, want := range test.want {
			if w := request(t, s, target, nil); w.Code != want {
				t.Errorf("%s with %d downloads and %d uploads in flight: status %d, want %d",
					target, s.downloads.Load(), s.uploads.Load(), w.Code, want)
			}
		}
		if n := test.transfers.Swap(0); n != maxTransfers {
			t.Errorf("%d transfers are counted afterwards, want %d", n, maxTransfers)
		}
	}
}

// TestListLimit: beyond maxLists, whole lists get 503, and pages are served.
func TestListLimit(t *testing.T) {
	store := openTestLocal(t, t.TempDir())
	s := newTestServer(config{}, localUsers{store}, localAvatars{store}, nil)
	s.lists.Store(maxLists)
	for target, want := range map[string]int{
		"GET /users": http.StatusServiceUnavailable, "GET /users?limit=9": http.StatusOK,
	} {
		if w := request(t, s, target, nil); w.Code != want {
			t.Errorf("%s with %d lists in flight: status %d, want %d", target, maxLists, w.Code, want)
		}
	}
	if n := s.lists.Load(); n != maxLists {
		t.Errorf("%d lists are counted afterwards, want %d", n, maxLists)
	}
}

// TestUploadMemory: the memory of a body is reserved before it arrives; three times the limit without a length.
func TestUploadMemory(t *testing.T) {
	const limit = 1 << 20
	for length, want := range map[int64]int64{1000: 1000, -1: 3 * limit} {
		s := newTestServer(config{MaxAvatarBytes: limit}, anyUser{}, noImages{}, nil)
		body, client := io.Pipe()
		r := httptest.NewRequest("PUT", "/users/"+userID("ada@example.com")+"/avatar", body)
		r.ContentLength = length
		answered := make(chan struct{})
		go func() {
			s.ServeHTTP(httptest.NewRecorder(), r)
			close(answered)
		}()
		client.Write([]byte("\x89")) // returns when it is read
		if s.uploadMemory.TryAcquire(uploadBudget - want + 1) {
			t.Errorf("upload of length %d: less than %d bytes are reserved", length, want)
		}
		if !s.uploadMemory.TryAcquire(uploadBudget - want) {
			t.Errorf("upload of length %d: more than %d bytes are reserved", length, want)
		}
		client.Close()
		<-answered
	}
}

// TestResponseHeader: every response tells browsers to guess and run nothing, and the last one of a connection closes
// it.
func TestResponseHeader(t *testing.T) {
	store := openTestLocal(t, t.TempDir())
	s := newTestServer(config{}, localUsers{store}, localAvatars{store}, nil)
	u := testUser("ada@example.com")
	wantError(t, localUsers{store}.Create(t.Context(), u), nil)
	image := "/users/" + u.ID + "/avatar"
	if w := request(t, s, "PUT "+image, testkit.PNG(testkit.Gradient(20, 20, 1))); w.Code != http.StatusOK {
		t.Fatalf("PUT: status %d %s", w.Code, w.Body)
	}
	for _, test := range []struct{ path, policy string }{
		{"/version", "default-src 'none'; frame-ancestors 'none'"},
		{"/missing", "default-src 'none'; frame-ancestors 'none'"},
		{image, "default-src 'none'; sandbox; frame-ancestors 'none'"},
	} {
		h := request(t, s, "GET "+test.path, nil).Header()
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Security-Policy") != test.policy ||
			h.Get("Connection") != "" {
			t.Errorf("GET %s: header %v, want nosniff, no Connection and the policy %q", test.path, h, test.policy)
		}
	}
	// A proxy may take another length for the body's.
	r := httptest.NewRequest("POST", "/user", strings.NewReader("{}"))
	r.TransferEncoding = []string{"chunked"}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if got := w.Header().Get("Connection"); got != "close" {
		t.Errorf("request with Transfer-Encoding: Connection %q, want close", got)
	}
}

// TestClientGone: a change is completed although its client disconnects.
func TestClientGone(t *testing.T) {
	t.Parallel()
	bucket := testkit.NewS3(t)
	users, avatars := openTestAWS(t, testkit.NewDynamoDB(t).URL, bucket.URL)
	u := testUser("ada@example.com")
	wantError(t, users.Create(t.Context(), u), nil)
	s := newTestServer(config{}, users, avatars, nil)
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		context.AfterFunc(r.Context(), func() { close(gone) })
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)

	gate := make(chan struct{})
	bucket.Next("PutObject", testkit.Fault{Gate: gate})
	client, err := net.Dial("tcp", server.Listener.Addr().String())
	wantError(t, err, nil)
	image := testkit.PNG(testkit.Gradient(20, 20, 1))
	fmt.Fprintf(client, "PUT /users/%s/avatar HTTP/1.1\r\nHost: roster\r\nContent-Length: %d\r\n\r\n%s",
		u.ID, len(image), image)
	testkit.Eventually(t, "the image is on its way to S3", func() error {
		if bucket.Calls("PutObject") == 0 {
			return errors.New("no call")
		}
		return nil
	})
	client.Close()
	<-gone
	close(gate)
	testkit.Eventually(t, "the user has the image", func() error {
		if got, err := users.Get(t.Context(), u.ID); err != nil || got.Avatar.Key == "" {
			return fmt.Errorf("%+v, %v", got, err)
		}
		return nil
	})
}

// TestCrossOrigin: a browser's page of another origin may read, but not change.
func TestCrossOrigin(t *testing.T) {
	s := newTestServer(config{PublicURL: "https://roster.example/base"}, anyUser{}, nil, nil)
	for _, test := range []struct {
		target, field, value string
		refused              bool
	}{
		{"POST /user", "Origin", "https://evil.example", true},
		{"POST /user", "Sec-Fetch-Site", "cross-site", true},
		{"DELETE /users/" + userID("ada@example.com"), "Origin", "https://evil.example", true},
		{"POST /user", "Origin", "https://roster.example", false},
		{"POST /user", "Sec-Fetch-Site", "same-origin", false},
		{"POST /user", "User-Agent", "curl", false},
		{"GET /version", "Origin", "https://evil.example", false},
	} {
		w := request(t, s, test.target, nil, test.field, test.value)
		if refused := w.Code == http.StatusForbidden; refused != test.refused {
			t.Errorf("%s with %s: %s: status %d, refused should be %t", test.target, test.field, test.value, w.Code,
				test.refused)
		}
	}
}

// TestAccess: what a request needs a token for.
func TestAccess(t *testing.T) {
	store := openTestLocal(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "tokens")
	wantError(t, os.WriteFile(file, []byte("web:"+tokenA+"\nreports:"+tokenB+":read\n"), 0o600), nil)
	log := slog.New(slog.DiscardHandler)
	list := testkit.Must(loadTokens(file, log, newMetrics(build{})))
	u := testUser("ada@example.com")
	wantError(t, localUsers{store}.Create(t.Context(), u), nil)
	user := "/users/" + u.ID
	for _, test := range []struct {
		target                       string
		without, readOnly, withToken int // status
		public                       int // without a token, with AVATARS_PUBLIC
	}{
		{"GET /users", 401, 200, 200, 401},
		{"GET " + user, 401, 200, 200, 401},
		{"PATCH " + user, 401, 403, 415, 401},
		{"GET " + user + "/avatar", 401, 404, 404, 404},
		{"GET " + user + "/thumbnail", 401, 404, 404, 404},
		{"PUT " + user + "/avatar", 401, 403, 400, 401},
		{"DELETE " + user + "/avatar", 401, 403, 404, 401},
		{"GET /livez", 200, 200, 200, 200},
		{"GET /version", 200, 200, 200, 200},
	} {
		for public, statuses := range map[bool]map[string]int{
			false: {"": test.without, tokenB: test.readOnly, tokenA: test.withToken},
			true:  {"": test.public, tokenB: test.readOnly, tokenA: test.withToken},
		} {
			s := newTestServer(config{AvatarsPublic: public}, localUsers{store}, localAvatars{store}, list)
			for token, want := range statuses {
				var fields []string
				if token != "" {
					fields = []string{"Authorization", "Bearer " + token}
				}
				if w := request(t, s, test.target, nil, fields...); w.Code != want {
					t.Errorf("%s with token %q, AVATARS_PUBLIC %t: status %d, want %d", test.target, token, public,
						w.Code, want)
				}
			}
		}
	}
	// A stranger does not learn whether a user exists.
	s := newTestServer(config{AvatarsPublic: true}, localUsers{store}, localAvatars{store}, list)
	known := request(t, s, "GET "+user+"/avatar", nil, "X-Request-Id", "1").Body.String()
	unknown := request(t, s, "GET /users/"+userID("ben@example.com")+"/avatar", nil, "X-Request-Id", "1").Body.String()
	if known != unknown {
		t.Errorf("a user without an image gets %s, a missing one %s: want the same", known, unknown)
	}
}

// TestMetricLabels: no label of a metric has a value that the client chose.
func TestMetricLabels(t *testing.T) {
	s := newTestServer(config{}, nil, nil, nil)
	request(t, s, "SECRET /secret", nil, "X-Request-Id", "secret", "User-Agent", "secret")
	for _, family := range testkit.Must(s.metrics.registry.Gather()) {
		if text := family.String(); strings.Contains(strings.ToLower(text), "secret") {
			t.Errorf("metric with a label of the client: %s", text)
		}
	}
}

// A blockedBody returns what was sent and then the error of a connection whose deadline
// has passed.
type blockedBody struct{ sent *strings.Reader }

func (b blockedBody) Read(p []byte) (int, error) {
	if b.sent.Len() > 0 {
		return b.sent.Read(p)
	}
	return 0, &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
}

// TestBodyTimeout: an incomplete body gets 408, in every format, and its reserved memory
// is released.
func TestBodyTimeout(t *testing.T) {
	store, err := openLocal(t.TempDir(), newMetrics(build{}))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := newTestServer(config{}, localUsers{store}, localAvatars{store}, nil)
	u := testUser("ada@example.com")
	if err := (localUsers{store}).Create(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	contentType, form := testkit.Form(testkit.PNG(testkit.Gradient(30, 30, 1)),
		map[string][]string{"name": {"Ada"}, "email": {"ada@example.com"}})
	for _, test := range []struct{ target, contentType, sent string }{
		{"POST /user", "application/json", `{"name":`},
		{"POST /user", "application/x-www-form-urlencoded", "name=Ada"},
		{"POST /user", contentType, string(form[:len(form)-100])},
		{"POST /user", contentType, string(form[:20])},
		{"POST /user", contentType, string(form[:bytes.Index(form, []byte("Content-Disp"))+10])},
		{"POST /upload", contentType, string(form[:len(form)-70])},
		{"PUT /users/" + u.ID + "/avatar", "image/png", "\x89PNG"},
		{"PATCH /users/" + u.ID, "application/json", "{"},
	} {
		for _, length := range []int64{1000, -1} {
			method, path, _ := strings.Cut(test.target, " ")
			r := httptest.NewRequest(method, path, blockedBody{strings.NewReader(test.sent)})
			r.ContentLength = length
			r.Header.Set("Content-Type", test.contentType)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != http.StatusRequestTimeout || w.Header().Get("Connection") != "close" {
				t.Errorf("%s as %s, length %d: %d %s", test.target, test.contentType, length, w.Code, w.Body)
			}
		}
	}
	if !s.uploadMemory.TryAcquire(uploadBudget) {
		t.Error("the budget for uploads was not given back")
	}
}

// TestGoroutines: no goroutine is left after complete, invalid and aborted requests.
func TestGoroutines(t *testing.T) {
	m := newMetrics(build{})
	store, err := openLocal(t.TempDir(), m)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := newServer(config{MaxAvatarBytes: 5 << 20}, localUsers{store}, localAvatars{store}, nil,
		slog.New(slog.DiscardHandler), m, build{})
	before := runtime.NumGoroutine()

	server := httptest.NewServer(s)
	picture := testkit.PNG(testkit.Gradient(200, 200, 2))
	var running sync.WaitGroup
	for i := range 16 {
		running.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			for n := range 10 {
				email := fmt.Sprintf("u%d-%d@example.com", i, n)
				contentType, form := testkit.Form(picture, map[string][]string{"name": {"Ada"}, "email": {email}})
				testkit.Send(client, "POST", server.URL+"/user", contentType, form)
				testkit.Send(client, "GET", server.URL+"/users/"+userID(email)+"/avatar", "", nil)
				testkit.Send(client, "GET", server.URL+"/nowhere", "", nil)
				// Aborted requests.
				for _, text := range []string{
					"GET /users HTTP/1.1\r\n", "GET /users HTTP/1.1\r\nHost: a\r\n\r\n",
					"POST /user HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
					"PUT /users/" + userID(email) + "/avatar HTTP/1.1\r\nHost: a\r\n" +
						"Content-Length: 100000\r\n\r\n\x89PNG",
				} {
					if conn, err := net.Dial("tcp", server.Listener.Addr().String()); err == nil {
						io.WriteString(conn, text)
						conn.Close()
					}
				}
			}
		})
	}
	running.Wait()
	server.Close()
	testkit.Eventually(t, "no goroutine is left", func() error {
		if n := runtime.NumGoroutine(); n > before {
			buffer := make([]byte, 1<<20)
			return fmt.Errorf("%d, there were %d before\n%s", n, before, buffer[:runtime.Stack(buffer, true)])
		}
		return nil
	})
	if s.inFlight.Load() != 0 || !s.uploadMemory.TryAcquire(uploadBudget) {
		t.Error("a request has left without giving back what it held")
	}
}

func TestRequestID(t *testing.T) {
	s := newTestServer(config{}, nil, nil, nil)
	requestID := func(sent string) string {
		return request(t, s, "GET /livez", nil, "X-Request-Id", sent).Header().Get("X-Request-Id")
	}
	for _, good := range []string{"1", "a-b_c.D", strings.Repeat("x", 64)} {
		if got := requestID(good); got != good {
			t.Errorf("%q becomes %q", good, got)
		}
	}
	seen := map[string]bool{}
	for _, bad := range []string{"", strings.Repeat("x", 65), "a b", "a\"b", "a\nb", "ä", "a;b", "<a>",
		"ada@example.com"} {
		got := requestID(bad)
		if got == bad || len(got) < 20 || seen[got] {
			t.Errorf("%q becomes %q", bad, got)
		}
		seen[got] = true
	}
}

func TestTraceID(t *testing.T) {
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, test := range []struct{ in, want string }{
		{"00-" + trace + "-" + span + "-01", trace},
		{"00-" + trace + "-" + span + "-00", trace},
		{"cc-" + trace + "-" + span + "-01", trace},
		{"cc-" + trace + "-" + span + "-01-what the future brings", trace},
		{"cc-" + trace + "-" + span + "-01.what", ""},
		{"00-" + strings.ToUpper(trace) + "-" + span + "-01", ""},
		{"00-" + trace[:31] + "g-" + span + "-01", ""},
		{"00-" + trace + "-" + span, ""},
		{"00-" + trace + span + "--01", ""},
		{" 00-" + trace + "-" + span + "-01", ""},
		{"", ""},
		{strings.Repeat("-", 55), ""},
		{strings.Repeat("0", 1<<16), ""},
	} {
		if got := traceID(test.in); got != test.want {
			t.Errorf("%.80q: got %q, want %q", test.in, got, test.want)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Add("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x")
	f.Fuzz(func(t *testing.T, field string) {
		if id := traceID(field); id != "" && (len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "") {
			t.Errorf("%q has the trace id %q", field, id)
		}
	})
}

// TestLogFields compares the fields of a request's log line with their table in docs/operations.md.
func TestLogFields(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| field | meaning |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var documented []string
	for row := range strings.Lines(table) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " | ")
		for _, m := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(cell, -1) {
			documented = append(documented, m[1])
		}
	}

	var log bytes.Buffer
	s := &server{log: slog.New(slog.NewJSONHandler(&log, nil)), metrics: newMetrics(build{})}
	r := httptest.NewRequest(http.MethodPut, "/", nil)
	r.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	recorder := httptest.NewRecorder()
	recorder.Header().Set("X-Request-Id", "id")
	s.observe(&response{
		ResponseWriter: recorder, request: r, route: "/", token: "web", user: "id",
		status: http.StatusInternalServerError, err: errors.New("cause"), broken: true,
	})
	line := map[string]any{}
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("log line %q: %v", log.String(), err)
	}
	slices.Sort(documented)
	if diff := cmp.Diff(documented, slices.Sorted(maps.Keys(line))); diff != "" {
		t.Errorf("fields in docs/operations.md and in the log (-document +log):\n%s", diff)
	}
}

// TestMetricsTable compares the metrics of the service with their table in docs/operations.md.
func TestMetricsTable(t *testing.T) {
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(roster_\\w+)` \\| (.*) \\|$").FindAllStringSubmatch(string(page),
		-1) {
		documented[m[1]] = m[2]
	}
	m := newMetrics(build{})
	descriptions := make(chan *prometheus.Desc)
	go func() {
		m.registry.Describe(descriptions)
		close(descriptions)
	}()
	known := map[string]string{}
	for d := range descriptions {
		if m := regexp.MustCompile(`fqName: "(roster_\w+)", help: "(.*?)"`).FindStringSubmatch(d.String()); m != nil {
			known[m[1]] = m[2]
		}
	}
	if diff := cmp.Diff(documented, known); diff != "" {
		t.Errorf("metrics in docs/operations.md and in the program (-document +program):\n%s", diff)
	}
}

// A brokenUsers store fails after the first users.
type brokenUsers struct {
	Users
	first int
}

func (s brokenUsers) List(_ context.Context, send func([]User) error) error {
	var page []User
	for i := range s.first {
		u := testUser(strconv.Itoa(i) + "@example.com")
		u.Name = strings.Repeat("x", 100)
		page = append(page, u)
	}
	return errors.Join(send(page), ErrUnavailable)
}

// TestPartialList: a list that fails after its first bytes breaks the connection. Before them, it gets 503.
func TestPartialList(t *testing.T) {
	url := serveStores(t, brokenUsers{first: 1000}, nil)
	status, body, err := testkit.Send(http.DefaultClient, "GET", url+"/users", "", nil)
	if status != http.StatusOK || len(body) == 0 || err == nil {
		t.Errorf("half a list: status %d, %d bytes, error %v; want 200, some bytes, and an error", status, len(body),
			err)
	}
	url = serveStores(t, brokenUsers{}, nil)
	status, body, err = testkit.Send(http.DefaultClient, "GET", url+"/users", "", nil)
	if status != http.StatusServiceUnavailable || err != nil {
		t.Errorf("no list: status %d %s, error %v; want 503", status, body, err)
	}
}

// A pipeListener accepts one connection.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	conn, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (pipeListener) Close() error   { return nil }
func (pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A slowImages store takes longer than a slow body may take.
type slowImages struct{ Avatars }

func (slowImages) Put(context.Context, string, string, string, []byte) error {
	time.Sleep(2 * bodyGrace)
	return nil
}

// TestSlowStore: the time limit of a body does not apply to the response, after which the connection is reused.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		s := newTestServer(config{}, anyUser{}, slowImages{}, nil)
		listener := make(pipeListener, 1)
		client, conn := net.Pipe()
		listener <- conn
		httpServer := newHTTPServer(s, log)
		go httpServer.Serve(listener)
		image := testkit.PNG(testkit.Gradient(20, 20, 1))
		responses := bufio.NewReader(client)
		for _, text := range []string{
			fmt.Sprintf("PUT /users/%s/avatar HTTP/1.1\r\nHost: roster\r\nContent-Length: %d\r\n\r\n%s",
				userID("ada@example.com"), len(image), image),
			"GET /version HTTP/1.1\r\nHost: roster\r\n\r\n",
		} {
			io.WriteString(client, text)
			resp, err := http.ReadResponse(responses, nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%.20q: response %v, error %v; want status 200", text, resp, err)
				break
			}
			io.Copy(io.Discard, resp.Body)
		}
		client.Close()
		close(listener)
		httpServer.Close()
	})
}

// unavailable is a store that cannot be reached.
type unavailable struct{ Users }

func (unavailable) Get(context.Context, string) (User, error) { return User{}, ErrUnavailable }

// TestNotReady: the cause of an outage at start is logged once a minute.
func TestNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &server{users: unavailable{}, log: slog.New(slog.NewTextHandler(&log, nil))}
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
		defer cancel()
		s.watchReady(ctx)
		if n := strings.Count(log.String(), "not ready"); n != 3 {
			t.Errorf("%d lines in 150 s, want 3:\n%s", n, &log)
		}
		if s.ready.Load() {
			t.Error("ready without a backend")
		}
	})
}

// TestBodyError: the error names the mistake of the client.
func TestBodyError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{&http.MaxBytesError{Limit: 1}, http.StatusRequestEntityTooLarge},
		{os.ErrDeadlineExceeded, http.StatusRequestTimeout},
		{fmt.Errorf("multipart: NextPart: %w", os.ErrDeadlineExceeded), http.StatusRequestTimeout},
		{errors.New("unexpected EOF"), http.StatusBadRequest},
	} {
		if got := problemOf(bodyError(test.err)).Status; got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

// TestProblemOf: an error of the service or of a store has its status, and its text is not sent.
func TestProblemOf(t *testing.T) {
	const internal = "table roster, key 42"
	for err, want := range map[error]int{
		errors.New(internal):                          http.StatusInternalServerError,
		fmt.Errorf("%w: "+internal, ErrUnavailable):   http.StatusServiceUnavailable,
		fmt.Errorf(internal+": %w", ErrNotFound):      http.StatusNotFound,
		fmt.Errorf(internal+": %w", ErrExists):        http.StatusConflict,
		fmt.Errorf(internal+": %w", ErrPrecondition):  http.StatusPreconditionFailed,
		fmt.Errorf("%w: "+internal, context.Canceled): http.StatusGatewayTimeout,
	} {
		p := problemOf(err)
		if p.Status != want || strings.Contains(p.Detail, internal) {
			t.Errorf("%v: status %d, detail %q; want %d and no internals", err, p.Status, p.Detail, want)
		}
		if retry := p.header.Get("Retry-After"); (retry != "") != (want == http.StatusServiceUnavailable) {
			t.Errorf("%v: Retry-After %q", err, retry)
		}
	}
}

// TestShutDown: for SHUTDOWN_DELAY, /readyz fails, other requests are served, and every response closes its
// connection. Then the process waits for deletions.
func TestShutDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		c := config{ShutdownDelay: 10 * time.Second, ShutdownTimeout: 20 * time.Second}
		s := newTestServer(c, nil, nil, nil)
		s.ready.Store(true)
		want := func(path string, status int, connection string) {
			t.Helper()
			w := request(t, s, "GET "+path, nil)
			if got := w.Header().Get("Connection"); w.Code != status || got != connection {
				t.Errorf("GET %s: status %d, Connection %q, want %d and %q", path, w.Code, got, status, connection)
			}
		}
		want("/readyz", http.StatusOK, "")
		deleted := false
		s.background.Go(func() {
			time.Sleep(15 * time.Second)
			deleted = true
		})
		httpServer := newHTTPServer(s, log)
		start, closed := time.Now(), make(chan time.Duration, 1)
		httpServer.RegisterOnShutdown(func() { closed <- time.Since(start) })
		stopped := make(chan error, 1)
		go func() { stopped <- s.shutDown(httpServer) }()
		time.Sleep(9 * time.Second)
		want("/readyz", http.StatusServiceUnavailable, "close")
		want("/version", http.StatusOK, "close")
		if d := <-closed; d != c.ShutdownDelay {
			t.Errorf("the listener is closed after %v, want %v", d, c.ShutdownDelay)
		}
		if err := <-stopped; err != nil || !deleted {
			t.Errorf("shut down: error %v, deletions completed: %t", err, deleted)
		}
	})
}

// TestWarnings: the endpoints of AWS that have no effect are logged.
func TestWarnings(t *testing.T) {
	for name, value := range map[string]string{
		"LOCALSTACK_HOST":           "http://localhost:4566",
		"AWS_ENDPOINT_URL":          "http://localhost:4566",
		"AWS_ENDPOINT_URL_S3":       "http://localhost:4566",
		"AWS_ENDPOINT_URL_DYNAMODB": "",
		"AWS_REGION":                "eu-west-1",
		"AUTH_TOKENS_FILE":          "/tokens",
	} {
		t.Setenv(name, value)
	}
	warning := regexp.MustCompile(`level=WARN msg="(\w+) has no effect`)
	for _, test := range []struct {
		c    config
		want []string
	}{
		{config{DataDir: t.TempDir()}, []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "LOCALSTACK_HOST"}},
		{config{Table: "users", Bucket: "avatars"}, nil},
	} {
		var log strings.Builder
		users, _, err := openStores(t.Context(), test.c, slog.New(slog.NewTextHandler(&log, nil)), newMetrics(build{}))
		wantError(t, err, nil)
		if local, ok := users.(localUsers); ok {
			defer local.Close()
		}
		var got []string
		for _, line := range warning.FindAllStringSubmatch(log.String(), -1) {
			got = append(got, line[1])
		}
		slices.Sort(got)
		if diff := cmp.Diff(test.want, got); diff != "" || strings.Count(log.String(), "level=WARN") != len(got) {
			t.Errorf("table %q: warnings (-want +got)\n%s%s", test.c.Table, diff, &log)
		}
	}
}

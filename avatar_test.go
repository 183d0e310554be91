package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"roster/internal/fakeaws"
)

// serveOne serves the API on fakes that have one user, ada@example.com.
func serveOne(t *testing.T) (dynamo *fakeaws.DynamoDB, bucket *fakeaws.S3, users *dynamoUsers, u User, url string) {
	dynamo, bucket = fakeaws.NewDynamoDB(t), fakeaws.NewS3(t)
	users, avatars := openTestAWS(t, dynamo.URL, bucket.URL)
	u = testUser("ada@example.com")
	u.ID = userID(u.Email)
	wantError(t, users.Create(t.Context(), u), nil)
	return dynamo, bucket, users, u, serveStores(t, users, avatars)
}

// TestDiscardLimit: where many images are waiting to be removed, uploads wait for
// their own.
func TestDiscardLimit(t *testing.T) {
	_, bucket, _, u, url := serveOne(t)
	image := encodePNG(gradient(20, 20, 1))
	upload := func() error {
		status, body, err := send(http.DefaultClient, "PUT", url+"/users/"+u.ID+"/avatar", "", image)
		if status != http.StatusOK {
			return fmt.Errorf("%d %s %v", status, body, err)
		}
		return nil
	}
	wantError(t, upload(), nil)
	gate := make(chan struct{})
	bucket.Always("DeleteObject", fakeaws.Fault{Gate: gate})
	for range maxDiscards {
		wantError(t, upload(), nil)
	}
	answered := make(chan error, 1)
	go func() { answered <- upload() }()
	eventually(t, 20*time.Second, "the next upload removes an image, too", func() error {
		if n := bucket.Calls("DeleteObject"); n != maxDiscards+1 {
			return fmt.Errorf("%d removals", n)
		}
		return nil
	})
	select {
	case err := <-answered:
		t.Errorf("it was answered before that: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(gate)
	wantError(t, <-answered, nil)
	waitForOneImage(t, bucket)
}

// TestUploadAtOnce: an image is stored while it is found out whether there is
// somebody whom it is for.
func TestUploadAtOnce(t *testing.T) {
	dynamo, bucket, _, u, url := serveOne(t)
	gate := make(chan struct{})
	dynamo.Next("GetItem", fakeaws.Fault{Gate: gate})
	answered := make(chan int, 1)
	go func() {
		status, _, _ := send(http.DefaultClient, "PUT", url+"/users/"+u.ID+"/avatar", "", encodePNG(gradient(20, 20, 1)))
		answered <- status
	}()
	eventually(t, 4*time.Second, "the image is stored", func() error {
		if len(bucket.Keys()) != 1 || dynamo.Calls("GetItem") != 1 {
			return fmt.Errorf("%d images, %d look-ups", len(bucket.Keys()), dynamo.Calls("GetItem"))
		}
		return nil
	})
	select {
	case status := <-answered:
		t.Errorf("it was answered %d before that was known", status)
	default:
	}
	close(gate)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

// TestRefusedUpload: nothing is left of an upload for nobody, and of what is no
// image, whichever is found out first.
func TestRefusedUpload(t *testing.T) {
	slow := fakeaws.Fault{Delay: 200 * time.Millisecond}
	image := encodePNG(gradient(20, 20, 1))
	broken := image[:len(image)-20]
	for _, test := range []struct {
		name   string
		faults map[string]fakeaws.Fault
		email  string
		image  []byte
		want   int
	}{
		{"nobody", nil, "nobody@example.com", image, http.StatusNotFound},
		{"nobody, said late", map[string]fakeaws.Fault{"GetItem": slow}, "nobody@example.com", image, http.StatusNotFound},
		{"nobody, stored late", map[string]fakeaws.Fault{"PutObject": slow}, "nobody@example.com", image, http.StatusNotFound},
		{"not an image", nil, "ada@example.com", broken, http.StatusBadRequest},
		{"not an image, stored late", map[string]fakeaws.Fault{"PutObject": slow}, "ada@example.com", broken, http.StatusBadRequest},
		{"not an image, for nobody", nil, "nobody@example.com", broken, http.StatusNotFound},
		{"who it is for cannot be told", map[string]fakeaws.Fault{"GetItem": {Status: 500, Code: "InternalServerError"}}, "ada@example.com", image, http.StatusServiceUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dynamo, bucket, users, u, url := serveOne(t)
			bucket.Faults = dynamo.Faults
			for operation, what := range test.faults {
				bucket.Always(operation, what)
			}
			contentType, form := multipartBody(test.image, map[string][]string{"email": {test.email}})
			for _, request := range []struct {
				method, path, contentType string
				body                      []byte
			}{
				{"PUT", "/users/" + userID(test.email) + "/avatar", "", test.image},
				{"POST", "/upload", contentType, form},
			} {
				status, body, err := send(http.DefaultClient, request.method, url+request.path, request.contentType, request.body)
				if err != nil || status != test.want {
					t.Errorf("%s: %d %s %v, want %d", request.method, status, body, err, test.want)
				}
				if keys := bucket.Keys(); len(keys) > 0 {
					t.Errorf("%s: %q is left", request.method, keys)
				}
			}
			bucket.Clear()
			if got, err := users.Get(t.Context(), u.ID); err != nil || got.Avatar != nil {
				t.Errorf("the user is %v, %v", got, err)
			}
		})
	}
}

func TestUploadTarget(t *testing.T) {
	id := userID("ada@example.com")
	image := []byte{1}
	for _, test := range []struct {
		name   string
		form   form
		want   string
		fields []string
	}{
		{"by id", form{map[string]string{"user_id": id}, image}, id, nil},
		{"by id in capitals", form{map[string]string{"user_id": " " + strings.ToUpper(id)}, image}, id, nil},
		{"by email", form{map[string]string{"email": "ADA@example.com "}, image}, id, nil},
		{"both", form{map[string]string{"user_id": id, "email": "ada@example.com"}, image}, "", []string{"user_id"}},
		{"neither", form{map[string]string{}, image}, "", []string{"user_id"}},
		{"no image", form{map[string]string{"user_id": id}, nil}, "", []string{"avatar"}},
		{"nothing", form{map[string]string{}, nil}, "", []string{"user_id", "avatar"}},
		{"path for an id", form{map[string]string{"user_id": "../../" + id}, image}, "", []string{"user_id"}},
		{"empty id", form{map[string]string{"user_id": ""}, image}, "", []string{"user_id"}},
		{"empty email", form{map[string]string{"email": ""}, image}, "", []string{"user_id"}},
		{"id and empty email", form{map[string]string{"user_id": id, "email": " "}, image}, id, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := uploadTarget(test.form)
			var fields []string
			if err != nil {
				for _, e := range problemOf(err).Errors {
					fields = append(fields, e.Field)
				}
			}
			if diff := cmp.Diff(test.fields, fields); diff != "" || got != test.want {
				t.Errorf("got %q, %v\n%s", got, err, diff)
			}
		})
	}
}

func TestETagIn(t *testing.T) {
	const etag = `"abc"`
	for _, test := range []struct {
		fields []string
		want   bool
	}{
		{[]string{`"abc"`}, true},
		{[]string{`W/"abc"`}, true},
		{[]string{`*`}, true},
		{[]string{`"x", "abc"`}, true},
		{[]string{`"x"`, `"abc"`}, true},
		{[]string{`"x" ,W/"abc" `}, true},
		{[]string{`"ABC"`}, false},
		{[]string{`abc`}, false},
		{[]string{`"x"`}, false},
		{[]string{``}, false},
		{[]string{`,,`}, false},
	} {
		if got := etagIn(test.fields, etag, "W/"+etag); got != test.want {
			t.Errorf("%q: %v, want %v", test.fields, got, test.want)
		}
	}
}

func TestCacheControl(t *testing.T) {
	a := newAvatar("image/png", []byte("image"))
	for _, test := range []struct {
		v    string
		open bool
		want string
	}{
		{a.version(), true, "public, max-age=31536000, immutable"},
		{a.version(), false, "private, max-age=31536000, immutable"},
		{"", true, "no-cache"},
		{"0123456789abcdef", true, "no-cache"},
		{strings.ToUpper(a.version()), false, "no-cache"},
	} {
		r := &http.Request{URL: &url.URL{RawQuery: url.Values{"v": {test.v}}.Encode()}}
		if got := cacheControl(r, a, test.open); got != test.want {
			t.Errorf("v=%s: %q, want %q", test.v, got, test.want)
		}
	}
}

func TestParseRange(t *testing.T) {
	for _, test := range []struct {
		field         string
		status        int
		start, length int64
	}{
		{"", http.StatusOK, 0, 100},
		{"bytes=0-0", http.StatusPartialContent, 0, 1},
		{"bytes=0-99", http.StatusPartialContent, 0, 100},
		{"bytes=0-", http.StatusPartialContent, 0, 100},
		{"bytes=10-", http.StatusPartialContent, 10, 90},
		{"bytes=10-1000", http.StatusPartialContent, 10, 90},
		{"bytes=99-99", http.StatusPartialContent, 99, 1},
		{"bytes=-1", http.StatusPartialContent, 99, 1},
		{"bytes=-1000", http.StatusPartialContent, 0, 100},
		{"bytes=100-", http.StatusRequestedRangeNotSatisfiable, 0, 0},
		{"bytes=-0", http.StatusRequestedRangeNotSatisfiable, 0, 0},
		{"bytes=99999999999999999999-", http.StatusRequestedRangeNotSatisfiable, 0, 0},
		{"bytes=0-99999999999999999999", http.StatusPartialContent, 0, 100},
		// What is not understood is the whole image.
		{"bytes=5-4", http.StatusOK, 0, 100},
		{"bytes=-", http.StatusOK, 0, 100},
		{"bytes=+1-2", http.StatusOK, 0, 100},
		{"bytes=1--2", http.StatusOK, 0, 100},
		{"bytes=a-b", http.StatusOK, 0, 100},
		{"bytes=1-2,4-5", http.StatusOK, 0, 100},
		{"lines=1-2", http.StatusOK, 0, 100},
	} {
		status, start, length := parseRange(test.field, 100)
		if status != test.status || start != test.start || length != test.length {
			t.Errorf("parseRange(%q) = %d, %d, %d, want %d, %d, %d", test.field, status, start, length, test.status, test.start, test.length)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, seed := range []string{"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=9223372036854775807-", "bytes=-9223372036854775807"} {
		f.Add(seed, int64(10))
	}
	f.Fuzz(func(t *testing.T, field string, size int64) {
		if size < 1 {
			return // empty images are refused
		}
		status, start, length := parseRange(field, size)
		if status != http.StatusRequestedRangeNotSatisfiable && (start < 0 || length < 1 || length > size || start > size-length) {
			t.Errorf("%q of %d bytes: %d bytes from %d", field, size, length, start)
		}
	})
}

package main

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"roster/internal/fakeaws"
)

// TestDiscardLater: the answer to an upload does not wait until the image before
// it is removed, but the end of the process does.
func TestDiscardLater(t *testing.T) {
	dynamo, bucket := fakeaws.NewDynamoDB(t), fakeaws.NewS3(t)
	users, avatars := openTestAWS(t, dynamo.URL, bucket.URL)
	p := start(t, awsEnv(users, avatars)...)
	p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}}, []byte(`{"name":"Ada","email":"ada@example.com"}`)).want(t, http.StatusCreated)
	put := "PUT /users/" + userID("ada@example.com") + "/avatar"
	p.do(t, put, nil, encodePNG(gradient(20, 20, 1))).want(t, http.StatusOK)
	old := bucket.Keys()
	gate := make(chan struct{})
	bucket.Next("DeleteObject", fakeaws.Fault{Gate: gate})
	p.do(t, put, nil, encodePNG(gradient(20, 20, 2))).want(t, http.StatusOK)
	if n := len(bucket.Keys()); n != 2 {
		t.Errorf("there are %d images, want the one before as well", n)
	}

	p.Process.Signal(syscall.SIGTERM)
	waitRefused(t, p)
	time.Sleep(2 * lingerTimeout)
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

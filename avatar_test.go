package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"roster/internal/fakeaws"
	"roster/internal/testimage"
)

// serveOne serves the API on fakes with one user, ada@example.com.
func serveOne(t *testing.T) (dynamo *fakeaws.DynamoDB, bucket *fakeaws.S3, users *dynamoUsers, u User, url string) {
	dynamo, bucket = fakeaws.NewDynamoDB(t), fakeaws.NewS3(t)
	users, avatars := openTestAWS(t, dynamo.URL, bucket.URL)
	u = testUser("ada@example.com")
	u.ID = userID(u.Email)
	wantError(t, users.Create(t.Context(), u), nil)
	return dynamo, bucket, users, u, serveStores(t, users, avatars)
}

// TestRefusedUpload: nothing is left of an upload for nobody, and of one that is no
// image nothing was stored.
func TestRefusedUpload(t *testing.T) {
	slow := fakeaws.Fault{Delay: 200 * time.Millisecond}
	image := testimage.PNG(testimage.Gradient(20, 20, 1))
	broken := image[:len(image)-20]
	for _, test := range []struct {
		name   string
		faults map[string]fakeaws.Fault
		email  string
		image  []byte
		want   int
	}{
		{"nobody", nil, "nobody@example.com", image, http.StatusNotFound},
		{"nobody, stored late", map[string]fakeaws.Fault{"PutObject": slow}, "nobody@example.com", image, http.StatusNotFound},
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
			contentType, form := testimage.Form(test.image, map[string][]string{"email": {test.email}})
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
				if test.want == http.StatusBadRequest && bucket.Calls("PutObject") > 0 {
					t.Errorf("%s: it was stored", request.method)
				}
			}
			eventually(t, 10*time.Second, "nothing is left", func() error {
				if keys := bucket.Keys(); len(keys) > 0 {
					return fmt.Errorf("%q", keys)
				}
				return nil
			})
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

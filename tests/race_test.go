package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"roster/internal/testkit"
)

var jsonHeader = http.Header{"Content-Type": {"application/json"}}

func (p *process) create(t testing.TB, email string) userJSON {
	t.Helper()
	return p.do(t, "POST /user", jsonHeader, []byte(`{"name":"Ada","email":"`+email+`"}`)).want(t,
		http.StatusCreated).user(t)
}

// storedFiles returns the files of the embedded store's images, and empty directories.
func storedFiles(t testing.TB, dir string) (files []string) {
	t.Helper()
	for _, path := range testkit.Must(filepath.Glob(filepath.Join(dir, "avatars", "*"))) {
		entries := testkit.Must(filepath.Glob(filepath.Join(path, "*")))
		if files = append(files, entries...); len(entries) == 0 {
			files = append(files, path+"/")
		}
	}
	return append(files, testkit.Must(filepath.Glob(filepath.Join(dir, "tmp", "*")))...)
}

// TestPreconditionRace: of eight concurrent changes of one version, one succeeds.
func TestPreconditionRace(t *testing.T) {
	t.Parallel()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, b.env(t)...)
			u := p.create(t, "ada@example.com")
			path := "/users/" + u.ID
			race := func(change func(i int) answer) {
				t.Helper()
				var succeeded, refused atomic.Int64
				testkit.Together(8, func(i int) {
					switch change(i).StatusCode {
					case http.StatusOK, http.StatusNoContent:
						succeeded.Add(1)
					case http.StatusPreconditionFailed:
						refused.Add(1)
					}
				})
				if succeeded.Load() != 1 || refused.Load() != 7 {
					t.Errorf("%d changes succeeded and %d got 412, want 1 and 7", succeeded.Load(), refused.Load())
				}
			}
			put := func(field, value string) func(i int) answer {
				return func(i int) answer {
					return p.do(t, "PUT "+path+"/avatar", http.Header{field: {value}},
						testkit.PNG(testkit.Gradient(8, 8, i)))
				}
			}
			race(put("If-None-Match", "*"))
			race(put("If-Match", p.do(t, "GET "+path+"/avatar", nil, nil).Header.Get("ETag")))
			etag := p.do(t, "GET "+path, nil, nil).Header.Get("ETag")
			race(func(i int) answer {
				return p.do(t, "PATCH "+path, http.Header{"Content-Type": {"application/json"}, "If-Match": {etag}},
					fmt.Appendf(nil, `{"name":"Ada %d"}`, i))
			})
		})
	}
}

// TestDeleteRace: a user is deleted while six clients upload its image. No request gets
// 5xx, and nothing is left of it.
func TestDeleteRace(t *testing.T) {
	t.Parallel()
	for _, b := range backends[:2] {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			env := b.env(t)
			p := start(t, env...)
			for round := range 20 {
				u := p.create(t, fmt.Sprintf("ada%d@example.com", round))
				path := "/users/" + u.ID
				var uploads sync.WaitGroup
				for i := range 6 {
					uploads.Go(func() {
						for range 5 {
							if status := p.do(t, "PUT "+path+"/avatar", nil,
								testkit.PNG(testkit.Gradient(40, 40, i))).StatusCode; status != 200 && status != 404 {
								t.Errorf("PUT while the user is deleted: status %d, want 200 or 404", status)
							}
						}
					})
				}
				time.Sleep(time.Duration(round) * time.Millisecond)
				p.do(t, "DELETE "+path, nil, nil).want(t, http.StatusNoContent)
				uploads.Wait()
				p.do(t, "GET "+path+"/avatar", nil, nil).want(t, http.StatusNotFound)
			}
			if b.name != "embedded" {
				return
			}
			testkit.Eventually(t, "no file is left", func() error {
				if files := storedFiles(t, p.dir); len(files) > 0 {
					return fmt.Errorf("%q are", files)
				}
				return nil
			})
		})
	}
}

// TestCreateDeleteRace: a user that is created with an image, while one with the same
// email is deleted, has that image.
func TestCreateDeleteRace(t *testing.T) {
	t.Parallel()
	for _, b := range backends[:2] {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, b.env(t)...)
			image := testkit.PNG(testkit.Gradient(40, 40, 1))
			contentType, form := testkit.Form(image, url.Values{"name": {"Ada"}, "email": {"ada@example.com"}})
			path := "/users/" + userID("ada@example.com")
			created := 0
			for range 30 {
				var statuses [4]int
				testkit.Together(4, func(i int) {
					if i%2 == 0 {
						statuses[i] = p.do(t, "POST /user", http.Header{"Content-Type": {contentType}}, form).StatusCode
					} else {
						statuses[i] = p.do(t, "DELETE "+path, nil, nil).StatusCode
					}
				})
				for _, status := range statuses {
					if status == http.StatusCreated {
						created++
					}
					if status >= 500 {
						t.Errorf("creations and deletions: statuses %d, want none of 5xx", statuses)
					}
				}
				if p.do(t, "GET "+path, nil, nil).StatusCode == http.StatusOK {
					if a := p.do(t, "GET "+path+"/avatar", nil, nil).want(t, http.StatusOK); a.body != string(image) {
						t.Errorf("the created user has an image of %d bytes, want %d", len(a.body), len(image))
					}
				}
			}
			if created < 10 {
				t.Errorf("%d creations succeeded, want 10 or more", created)
			}
		})
	}
}

// TestCreateHeldBack: the write that creates a user with an image arrives after all of a
// deletion of the same email.
func TestCreateHeldBack(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	p := start(t, fakeEnv(dynamo, bucket)...)
	image := testkit.PNG(testkit.Gradient(40, 40, 1))
	u := p.create(t, "ada@example.com")
	gate := make(chan struct{})
	dynamo.Next("PutItem", testkit.Fault{Gate: gate})
	contentType, form := testkit.Form(image, url.Values{"name": {"Ada"}, "email": {"ada@example.com"}})
	answered := make(chan answer)
	go func() {
		a, _ := p.try("POST /user", http.Header{"Content-Type": {contentType}}, form)
		answered <- a
	}()
	testkit.Eventually(t, "the image is stored", func() error {
		if len(bucket.Keys()) != 1 || dynamo.Calls("PutItem") != 2 {
			return fmt.Errorf("%q, %d calls", bucket.Keys(), dynamo.Calls("PutItem"))
		}
		return nil
	})
	p.do(t, "DELETE /users/"+u.ID, nil, nil).want(t, http.StatusNoContent)
	close(gate)
	(<-answered).want(t, http.StatusCreated)
	if a := p.do(t, "GET /users/"+u.ID+"/avatar", nil, nil).want(t, http.StatusOK); a.body != string(image) {
		t.Errorf("the created user has an image of %d bytes, want %d", len(a.body), len(image))
	}
}

// TestOrphans: an object that no user points to, left by a crash, is deleted with the
// user once no upload in flight can own it.
func TestOrphans(t *testing.T) {
	t.Parallel()
	p := start(t)
	u := p.create(t, "ada@example.com")
	p.do(t, "PUT /users/"+u.ID+"/avatar", nil, testkit.PNG(testkit.Gradient(8, 8, 1))).want(t, http.StatusOK)
	orphan := filepath.Join(p.dir, "avatars", u.ID, "orphan")
	os.WriteFile(orphan, []byte("left by a crash"), 0o600)
	old := time.Now().Add(-2 * time.Minute)
	os.Chtimes(orphan, old, old)
	p.do(t, "DELETE /users/"+u.ID, nil, nil).want(t, http.StatusNoContent)
	if files := storedFiles(t, p.dir); len(files) > 0 {
		t.Errorf("files of the deleted user: %q, want none", files)
	}
}

// TestThumbnailRace: a thumbnail that is rendered while its image is replaced is not
// left behind.
func TestThumbnailRace(t *testing.T) {
	t.Parallel()
	p := start(t)
	u := p.create(t, "ada@example.com")
	path := "/users/" + u.ID
	big := testkit.PNG(testkit.Gradient(1500, 1500, 1))
	for i := range 10 {
		p.do(t, "PUT "+path+"/avatar", nil, big).want(t, http.StatusOK)
		testkit.Together(2, func(n int) {
			if n == 0 {
				if status := p.do(t, "GET "+path+"/thumbnail", nil, nil).StatusCode; status != 200 && status != 302 {
					t.Errorf("GET of the thumbnail: status %d, want 200 or 302", status)
				}
				return
			}
			time.Sleep(time.Duration(i*10) * time.Millisecond)
			p.do(t, "PUT "+path+"/avatar", nil, testkit.PNG(testkit.Gradient(8, 8, i))).want(t, http.StatusOK)
		})
	}
	json.Unmarshal([]byte(p.do(t, "GET "+path, nil, nil).body), &u)
	testkit.Eventually(t, "only the last image is left, perhaps with its thumbnail", func() error {
		for _, file := range storedFiles(t, p.dir) {
			if version := filepath.Base(u.AvatarURL); filepath.Base(file) != version &&
				filepath.Base(file) != version+".256" {
				return fmt.Errorf("%s is left", file)
			}
		}
		return nil
	})
}

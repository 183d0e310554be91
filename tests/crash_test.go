package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"roster/internal/testkit"
)

// A witness is what the service has acknowledged about one user, and the possible results
// of the request in flight when it was killed.
type witness struct {
	email           string
	present, absent bool     // both if a request in flight changes it
	names           []string // possible values
	images          []string // possible SHA-256; "" is no image
}

// TestKill repeatedly kills the service while clients change users and images in the same
// directory. No acknowledged change may be lost.
func TestKill(t *testing.T) {
	rounds := 4
	if *longTests {
		rounds = 40
	}
	const writers = 12
	dir := t.TempDir()
	pictures := [][]byte{testkit.PNG(testkit.Gradient(40, 40, 1)), testkit.PNG(testkit.Gradient(300, 300, 5)), testkit.JPEG(testkit.Gradient(50, 50, 3))}
	var known [writers][]*witness
	acknowledged := 0
	for round := range rounds {
		p := start(t, "DATA_DIR="+dir)
		client := newLoadClient(t, p)
		if left := testkit.Must(os.ReadDir(filepath.Join(dir, "tmp"))); len(left) > 0 {
			t.Errorf("round %d: tmp has %d files after the start", round, len(left))
		}
		checkWitnesses(t, client, slices.Concat(known[:]...))

		var running sync.WaitGroup
		var done atomic.Int64
		for i := range writers {
			running.Go(func() {
				for n := 0; ; n++ {
					email := fmt.Sprintf("u%d-%d-%d@example.com", round, i, n)
					if !writeUntilError(client, &known[i], email, pictures) {
						return
					}
					done.Add(1)
				}
			})
		}
		// At a random moment under load.
		testkit.Eventually(t, time.Minute, "writes are acknowledged", func() error {
			if done.Load() < writers*2 {
				return errors.New("too few yet")
			}
			return nil
		})
		time.Sleep(rand.N(200 * time.Millisecond))
		p.kill()
		running.Wait()
		acknowledged += int(done.Load())
	}
	p := start(t, "DATA_DIR="+dir)
	checkWitnesses(t, newLoadClient(t, p), slices.Concat(known[:]...))
	t.Logf("%d changes were acknowledged in %d lives", acknowledged, rounds)
}

// writeUntilError makes one random change, to a new user or to one of known, and records
// the response. It reports whether there was one.
func writeUntilError(c *loadClient, known *[]*witness, email string, pictures [][]byte) bool {
	picture := pictures[rand.IntN(len(pictures))]
	sum := sha256Hex(picture)
	choice := rand.IntN(8)
	var w *witness
	if n := len(*known); n > 0 && choice >= 3 {
		if w = (*known)[rand.IntN(n)]; !w.present {
			return true // deleted
		}
	} else {
		w = &witness{email: email, present: true, absent: true, names: []string{"new"}, images: []string{""}}
		*known = append(*known, w)
	}
	id := userID(w.email)
	var status, want int
	var err error
	switch {
	case w.absent && choice%2 == 0:
		w.images = []string{sum} // created with an image
		if status, _, err = c.create("new", email, picture); err == nil {
			w.absent = false
		}
		want = http.StatusCreated
	case w.absent:
		if status, _, err = c.create("new", email, nil); err == nil {
			w.absent = false
		}
		want = http.StatusCreated
	case choice < 6:
		w.images = append(w.images, sum)
		if status, _, err = c.send("PUT", "/users/"+id+"/avatar", "", picture); err == nil {
			w.images = []string{sum}
		}
		want = http.StatusOK
	case choice == 6:
		name := fmt.Sprint("renamed ", rand.IntN(1000))
		w.names = append(w.names, name)
		if status, _, err = c.send("PATCH", "/users/"+id, "application/json", []byte(`{"name":"`+name+`"}`)); err == nil {
			w.names = []string{name}
		}
		want = http.StatusOK
	default:
		w.absent = true
		w.images = append(w.images, "") // the pointer is removed first
		if status, _, err = c.send("DELETE", "/users/"+id, "", nil); err == nil {
			w.present = false
		}
		want = http.StatusNoContent
	}
	if err == nil && status != want {
		panic(fmt.Sprintf("%s: status %d, want %d", w.email, status, want))
	}
	return err == nil
}

// checkWitnesses compares all users and images with what was acknowledged.
func checkWitnesses(t *testing.T, c *loadClient, known []*witness) {
	t.Helper()
	status, body, err := c.send("GET", "/users", "", nil)
	var list []userJSON
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &list) != nil {
		t.Fatalf("GET /users: %d %v", status, err)
	}
	stored := map[string]userJSON{}
	for _, u := range list {
		if _, twice := stored[u.Email]; twice {
			t.Errorf("%s is listed twice", u.Email)
		}
		stored[u.Email] = u
	}
	for _, w := range known {
		u, ok := stored[w.email]
		delete(stored, w.email)
		switch {
		case ok && !w.present:
			t.Errorf("%s is back", w.email)
		case !ok && !w.absent:
			t.Errorf("%s is lost", w.email)
		}
		// From now on there is one possible value.
		if w.present, w.absent = ok, !ok; !ok {
			continue
		}
		if !slices.Contains(w.names, u.Name) {
			t.Errorf("%s has the name %q, want one of %q", w.email, u.Name, w.names)
		}
		sum := ""
		if u.AvatarURL != "" {
			status, image, err := c.send("GET", u.AvatarURL, "", nil)
			if err != nil || status != http.StatusOK {
				t.Errorf("image of %s: %d %v", w.email, status, err)
				continue
			}
			sum = sha256Hex(image)
		}
		if !slices.Contains(w.images, sum) {
			t.Errorf("%s has the image %.8s, want one of %.8s", w.email, sum, w.images)
		}
		w.names, w.images = []string{u.Name}, []string{sum}
	}
	for email := range stored {
		t.Errorf("%s is nobody's", email)
	}
}

// TestFullDisk fills the disk. Changes get 503, nothing acknowledged is lost, and the
// service recovers when there is space.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("a file system of a few megabytes cannot be mounted (%v): run as root", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	p := start(t, "DATA_DIR="+dir)
	client := newLoadClient(t, p)

	picture := testkit.PNG(testkit.Gradient(200, 200, 7))
	if status, _, err := client.create("Ada", "ada@example.com", picture); status != http.StatusCreated {
		t.Fatal(status, err)
	}
	users := []string{"ada@example.com"}
	filler := filepath.Join(dir, "filler")
	fill(t, filler)

	// An image needs new blocks.
	a := p.do(t, "PUT /users/"+userID(users[0])+"/avatar", nil, testkit.PNG(testkit.Gradient(300, 300, 9))).want(t, http.StatusServiceUnavailable)
	if a.Header.Get("Retry-After") == "" || strings.Contains(a.body, "space") {
		t.Errorf("the refusal has Retry-After %q and says %s", a.Header.Get("Retry-After"), a.body)
	}
	// Users fit into free pages of the file for a while.
	refused := 0
	for n := 0; refused < 5; n++ {
		if n == 100_000 {
			t.Fatal("the disk does not fill up")
		}
		email := fmt.Sprintf("u%d@example.com", n)
		status, body, err := client.create(strings.Repeat("x", 200), email, nil)
		switch {
		case err != nil:
			t.Fatal(err)
		case status == http.StatusCreated:
			users = append(users, email)
		case status == http.StatusServiceUnavailable:
			refused++
			if status, _, _ := client.send("GET", "/users/"+userID(email), "", nil); status != http.StatusNotFound {
				t.Errorf("a refused user is there: %d", status)
			}
		default:
			t.Fatalf("status %d: %s", status, body)
		}
	}
	check := func() {
		t.Helper()
		for _, email := range users {
			if status, _, err := client.send("GET", "/users/"+userID(email), "", nil); status != http.StatusOK {
				t.Fatalf("%s is lost: %d %v", email, status, err)
			}
		}
		status, image, err := client.send("GET", "/users/"+userID(users[0])+"/avatar", "", nil)
		if status != http.StatusOK || sha256Hex(image) != sha256Hex(picture) {
			t.Fatalf("the image is lost: %d %v", status, err)
		}
		if left := testkit.Must(os.ReadDir(filepath.Join(dir, "tmp"))); len(left) > 0 {
			t.Errorf("tmp has %d files", len(left))
		}
	}
	check()
	if status, _, _ := client.send("GET", "/readyz", "", nil); status != http.StatusOK {
		t.Errorf("/readyz is %d: reading still works", status)
	}

	// A restart on the full disk still serves reads.
	for range 3 {
		p.kill()
		p = start(t, "DATA_DIR="+dir)
		client = newLoadClient(t, p)
		check()
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for n := range 50 {
		email := fmt.Sprintf("after%d@example.com", n)
		status, body, err := client.create("Eve", email, picture)
		if status != http.StatusCreated {
			t.Fatalf("with room again: %d %v %s", status, err, body)
		}
		users = append(users, email)
	}
	check()
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

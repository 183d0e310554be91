package tests

import (
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

// TestKill repeatedly kills the service while clients change users and images in the same
// directory. No acknowledged change may be lost.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds := 2
	if *testkit.Long {
		rounds = 40
	}
	const writers = 12
	dir := t.TempDir()
	var ledgers [writers][]*ledger
	check := func(client *loadClient) {
		t.Helper()
		all := slices.Concat(ledgers[:]...)
		now := time.Now()
		stored := checkLedgers(t, client, all, now, now)
		for _, l := range all { // from now on there is one possible state
			l.changes = []change{{answered: now, after: stored[l.email]}}
		}
		if left := testkit.Must(os.ReadDir(filepath.Join(dir, "tmp"))); len(left) > 0 {
			t.Errorf("tmp has %d files after the start", len(left))
		}
	}
	acknowledged := 0
	for round := range rounds {
		p := start(t, "DATA_DIR="+dir)
		client := newLoadClient(t, p)
		check(client)

		var running sync.WaitGroup
		var done atomic.Int64
		for i := range writers {
			running.Go(func() {
				for n := 0; ; n++ {
					if !changeAny(t, client, &ledgers[i], fmt.Sprintf("u%d-%d-%d@example.com", round, i, n)) {
						return
					}
					done.Add(1)
				}
			})
		}
		// At a random moment under load.
		testkit.Eventually(t, "writes are acknowledged", func() error {
			if n := done.Load(); n < writers*2 {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
		time.Sleep(rand.N(200 * time.Millisecond))
		p.kill()
		running.Wait()
		acknowledged += int(done.Load())
	}
	check(newLoadClient(t, start(t, "DATA_DIR="+dir)))
	t.Logf("%d changes were acknowledged in %d lives", acknowledged, rounds)
}

// TestFullDisk fills the disk. Changes get 503, nothing acknowledged is lost, and the
// service recovers when there is space.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("a file system of a few megabytes cannot be mounted (%v): run as root", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	p := start(t, "DATA_DIR="+dir)
	client := newLoadClient(t, p)

	picture := testkit.PNG(testkit.Gradient(200, 200, 7))
	if status, _, err := client.create("Ada", "ada@example.com", picture); status != http.StatusCreated {
		t.Fatalf("POST /user before the disk is full: status %d, error %v; want 201", status, err)
	}
	users := []string{"ada@example.com"}
	filler := filepath.Join(dir, "filler")
	fill(t, filler)

	// An image needs new blocks.
	a := p.do(t, "PUT /users/"+userID(users[0])+"/avatar", nil, testkit.PNG(testkit.Gradient(300, 300, 9))).want(t,
		http.StatusServiceUnavailable)
	if a.Header.Get("Retry-After") == "" || strings.Contains(a.body, "space") {
		t.Errorf("upload to a full disk: Retry-After %q, body %s", a.Header.Get("Retry-After"), a.body)
	}
	// Users fit into free pages of the file for a while.
	refused := 0
	for n := 0; refused < 5; n++ {
		if n == 100_000 {
			t.Fatalf("the disk is not full after %d users", n)
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
				t.Errorf("a user that was not created: status %d, want 404", status)
			}
		default:
			t.Fatalf("POST /user on a full disk: status %d %s, want 201 or 503", status, body)
		}
	}
	check := func() {
		t.Helper()
		for _, email := range users {
			if status, _, err := client.send("GET", "/users/"+userID(email), "", nil); status != http.StatusOK {
				t.Fatalf("%s is lost: status %d, error %v", email, status, err)
			}
		}
		status, image, err := client.send("GET", "/users/"+userID(users[0])+"/avatar", "", nil)
		if status != http.StatusOK || sha256Hex(image) != sha256Hex(picture) {
			t.Fatalf("the image of %s is lost: status %d, error %v, %d bytes", users[0], status, err, len(image))
		}
		if left := testkit.Must(os.ReadDir(filepath.Join(dir, "tmp"))); len(left) > 0 {
			t.Errorf("tmp has %d files, want none", len(left))
		}
	}
	check()
	if status, _, _ := client.send("GET", "/readyz", "", nil); status != http.StatusOK {
		t.Errorf("/readyz with a full disk: status %d, want 200, because reads work", status)
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
			t.Fatalf("POST /user with room again: status %d, error %v, %s", status, err, body)
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

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStore(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		store, err := openLocal(t.TempDir(), newMetrics(build{}))
		wantError(t, err, nil)
		t.Cleanup(func() { store.Close() })
		testStore(t, localUsers{store}, localAvatars{store})
	})
	for _, server := range testServers {
		t.Run(server.name, func(t *testing.T) {
			users, avatars := server.open(t)
			testStore(t, users, avatars)
		})
	}
}

// testStore checks what every pair of stores promises in store.go. The stores
// are empty when it begins and empty when it ends.
func testStore(t *testing.T, users Users, avatars Avatars) {
	t.Run("users", func(t *testing.T) { testUsers(t, users) })
	t.Run("list", func(t *testing.T) { testList(t, users) })
	t.Run("races", func(t *testing.T) { testUserRaces(t, users) })
	t.Run("avatars", func(t *testing.T) { testAvatars(t, avatars) })
}

func testUsers(t *testing.T, users Users) {
	ctx := t.Context()
	u := testUser("anna@example.com")
	a, b := testAvatar([]byte("one")), testAvatar([]byte("another"))
	later := u.CreatedAt.Add(time.Hour + time.Millisecond)

	wantError(t, users.Ready(ctx), nil)

	// Nothing comes of changing what is not there.
	_, err := users.Get(ctx, u.ID)
	wantError(t, err, ErrNotFound)
	_, err = users.Rename(ctx, u.ID, "B", later)
	wantError(t, err, ErrNotFound)
	_, err = users.SetAvatar(ctx, u.ID, &a, later)
	wantError(t, err, ErrNotFound)
	_, err = users.SetAvatar(ctx, u.ID, nil, later)
	wantError(t, err, ErrNotFound)
	_, err = users.Delete(ctx, u.ID)
	wantError(t, err, ErrNotFound)
	wantUsers(t, users)

	wantError(t, users.Create(ctx, u), nil)
	wantUsers(t, users, u)
	other := u
	other.Name = "Somebody else"
	wantError(t, users.Create(ctx, other), ErrExists)
	wantUsers(t, users, u)

	got, err := users.Rename(ctx, u.ID, `Ænna "B." <b> & 日本 😀`, later)
	wantError(t, err, nil)
	u.Name, u.UpdatedAt = `Ænna "B." <b> & 日本 😀`, later
	wantUser(t, got, u)
	wantUsers(t, users, u)

	before := u
	later = later.Add(time.Second)
	got, err = users.SetAvatar(ctx, u.ID, &a, later)
	wantError(t, err, nil)
	wantUser(t, got, before)
	u.Avatar, u.UpdatedAt = &a, later
	wantUsers(t, users, u)

	before = u
	got, err = users.SetAvatar(ctx, u.ID, &b, later)
	wantError(t, err, nil)
	wantUser(t, got, before)
	u.Avatar = &b
	wantUsers(t, users, u)

	got, err = users.Rename(ctx, u.ID, strings.Repeat("ß", 200), later)
	wantError(t, err, nil)
	u.Name = strings.Repeat("ß", 200)
	wantUser(t, got, u)

	before = u
	got, err = users.SetAvatar(ctx, u.ID, nil, later)
	wantError(t, err, nil)
	wantUser(t, got, before)
	u.Avatar = nil
	wantUsers(t, users, u)

	got, err = users.Delete(ctx, u.ID)
	wantError(t, err, nil)
	wantUser(t, got, u)
	wantUsers(t, users)

	// Once more, and with an avatar from the beginning.
	u.Avatar = &a
	wantError(t, users.Create(ctx, u), nil)
	wantUsers(t, users, u)
	got, err = users.Delete(ctx, u.ID)
	wantError(t, err, nil)
	wantUser(t, got, u)
	wantUsers(t, users)
}

func testList(t *testing.T, users Users) {
	ctx := t.Context()
	const n = 57
	all := map[string]User{}
	for i := range n {
		u := testUser(fmt.Sprintf("user%d@example.com", i))
		if i%3 == 0 {
			a := testAvatar([]byte(u.Email))
			u.Avatar = &a
		}
		all[u.ID] = u
		wantError(t, users.Create(ctx, u), nil)
	}
	list, err := listAll(ctx, users, "", 0)
	wantError(t, err, nil)
	if len(list) != n {
		t.Fatalf("%d users, want %d", len(list), n)
	}
	for _, u := range list {
		wantUser(t, u, all[u.ID])
	}

	// Pages of any size add up to the same list.
	for _, size := range []int{1, 2, 10, 19, n - 1, n, n + 1, 1000} {
		var pages []User
		for after := ""; ; {
			page, err := listAll(ctx, users, after, size)
			wantError(t, err, nil)
			if len(page) > size {
				t.Fatalf("a page of %d users, want at most %d", len(page), size)
			}
			pages = append(pages, page...)
			if len(page) < size {
				break
			}
			after = page[len(page)-1].ID
		}
		if diff := cmp.Diff(list, pages); diff != "" {
			t.Fatalf("pages of %d differ from the list (-list +pages):\n%s", size, diff)
		}
	}

	// A reader may stop wherever it likes.
	for range 3 {
		for range users.List(ctx, "", 0) {
			break
		}
	}

	// The user that a page ended with may be gone when the next one is asked for.
	_, err = users.Delete(ctx, list[20].ID)
	wantError(t, err, nil)
	rest, err := listAll(ctx, users, list[20].ID, 0)
	wantError(t, err, nil)
	if diff := cmp.Diff(list[21:], rest); diff != "" {
		t.Errorf("the list after a user who is gone (-want +got):\n%s", diff)
	}

	// A failure is the last thing yielded.
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if got, err := listAll(ended, users, "", 0); err == nil {
		t.Errorf("listing without time: %d users and no error", len(got))
	}

	for _, u := range slices.Delete(list, 20, 21) {
		_, err := users.Delete(ctx, u.ID)
		wantError(t, err, nil)
	}
	wantUsers(t, users)
}

func testUserRaces(t *testing.T, users Users) {
	ctx := t.Context()
	u := testUser("race@example.com")

	// Of many creations one succeeds, and what it wrote is what is there.
	var mu sync.Mutex
	var won []User
	together(24, func(i int) {
		u := u
		u.Name = fmt.Sprint("number ", i)
		switch err := users.Create(ctx, u); {
		case err == nil:
			mu.Lock()
			won = append(won, u)
			mu.Unlock()
		case !errors.Is(err, ErrExists):
			t.Errorf("Create: %v", err)
		}
	})
	if len(won) != 1 {
		t.Fatalf("%d creations of one user succeeded, want 1", len(won))
	}
	wantUsers(t, users, won[0])

	// Every avatar but the last is returned as the old one, once.
	seen := map[string]int{}
	together(24, func(i int) {
		a := testAvatar([]byte(fmt.Sprint(i)))
		before, err := users.SetAvatar(ctx, u.ID, &a, u.CreatedAt)
		if err != nil {
			t.Errorf("SetAvatar: %v", err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		seen[a.Key]++
		if before.Avatar != nil {
			seen[before.Avatar.Key]++
		}
	})
	last, err := users.Get(ctx, u.ID)
	wantError(t, err, nil)
	if last.Avatar == nil {
		t.Fatal("no avatar after many were set")
	}
	seen[last.Avatar.Key]++
	for key, n := range seen {
		if n != 2 {
			t.Errorf("avatar %s was seen %d times, want once set and once replaced or left", key, n)
		}
	}

	// Who changes a user meanwhile does not bring it back.
	deleted, perhaps := 0, 0
	together(24, func(i int) {
		a := testAvatar(nil)
		var err error
		switch i % 3 {
		case 0:
			_, err = users.Rename(ctx, u.ID, "again", u.CreatedAt)
		case 1:
			_, err = users.SetAvatar(ctx, u.ID, &a, u.CreatedAt)
		case 2:
			var before User
			before, err = users.Delete(ctx, u.ID)
			mu.Lock()
			switch {
			case err != nil:
			case before.Email == "": // tried twice, and the first answer was lost
				perhaps++
			default:
				deleted++
			}
			mu.Unlock()
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("change of a user who is being deleted: %v", err)
		}
	})
	// DynamoDB Local, unlike DynamoDB, may hand one item to two at the same moment.
	local := strings.Contains(t.Name(), "dynamodb-local")
	if deleted > 1 && !local || deleted+perhaps == 0 {
		t.Errorf("%d deletions of one user succeeded, and perhaps %d more; want 1", deleted, perhaps)
	}
	wantUsers(t, users)
}

func testAvatars(t *testing.T, avatars Avatars) {
	ctx := t.Context()
	wantError(t, avatars.Ready(ctx), nil)
	anna, ben := testUser("anna@example.com").ID, testUser("ben@example.com").ID

	small, big := []byte("an image"), make([]byte, 3<<20+17)
	rand.Read(big)
	for _, image := range [][]byte{small, big} {
		a := testAvatar(image)
		_, err := avatars.Get(ctx, anna, a, 0, a.Size)
		wantError(t, err, ErrNotFound)
		_, err = avatars.Get(ctx, anna, a, 1, 2)
		wantError(t, err, ErrNotFound)
		wantError(t, avatars.Delete(ctx, anna, a.Key), nil)

		wantError(t, avatars.Put(ctx, anna, a, image), nil)
		for _, r := range [][2]int64{{0, a.Size}, {0, 1}, {1, 3}, {a.Size - 1, 1}, {a.Size / 2, a.Size - a.Size/2}} {
			wantImage(t, avatars, anna, a, r[0], r[1], image)
		}
		// Whoever does not read to the end only closes.
		body, err := avatars.Get(ctx, anna, a, 0, a.Size)
		wantError(t, err, nil)
		io.CopyN(io.Discard, body, 2)
		wantError(t, body.Close(), nil)

		// It is another user's business, and another key's.
		_, err = avatars.Get(ctx, ben, a, 0, a.Size)
		wantError(t, err, ErrNotFound)
		wantError(t, avatars.Delete(ctx, anna, rand.Text()), nil)
		wantError(t, avatars.Delete(ctx, ben, a.Key), nil)
		wantImage(t, avatars, anna, a, 0, a.Size, image)

		wantError(t, avatars.Delete(ctx, anna, a.Key), nil)
		_, err = avatars.Get(ctx, anna, a, 0, a.Size)
		wantError(t, err, ErrNotFound)
		wantError(t, avatars.Delete(ctx, anna, a.Key), nil)
	}

	// A reader keeps what it has begun to read, or learns that it is gone.
	a := testAvatar(big)
	wantError(t, avatars.Put(ctx, anna, a, big), nil)
	body, err := avatars.Get(ctx, anna, a, 0, a.Size)
	wantError(t, err, nil)
	got := make([]byte, 1000)
	_, err = io.ReadFull(body, got)
	wantError(t, err, nil)
	wantError(t, avatars.Delete(ctx, anna, a.Key), nil)
	rest, err := io.ReadAll(body)
	if err == nil && !bytes.Equal(append(got, rest...), big) {
		t.Error("a reader got something else after the image was deleted")
	}
	wantError(t, body.Close(), nil)

	// Many at once; then all of one user's go, and nobody else's.
	wantError(t, avatars.DeleteAll(ctx, anna), nil)
	images := make([]Avatar, 12)
	together(len(images), func(i int) {
		image := []byte(fmt.Sprint("image ", i))
		images[i] = testAvatar(image)
		if err := avatars.Put(ctx, anna, images[i], image); err != nil {
			t.Errorf("Put: %v", err)
		}
	})
	bens := testAvatar(small)
	wantError(t, avatars.Put(ctx, ben, bens, small), nil)
	for i, a := range images {
		wantImage(t, avatars, anna, a, 0, a.Size, []byte(fmt.Sprint("image ", i)))
	}
	wantError(t, avatars.DeleteAll(ctx, anna), nil)
	for _, a := range images {
		_, err := avatars.Get(ctx, anna, a, 0, a.Size)
		wantError(t, err, ErrNotFound)
	}
	wantImage(t, avatars, ben, bens, 0, bens.Size, small)
	wantError(t, avatars.DeleteAll(ctx, ben), nil)
}

// testUser makes a user; the same email makes the same one.
func testUser(email string) User {
	sum := sha256.Sum256([]byte(email))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	at := time.Date(2026, time.February, 3, 4, 5, 6, 7e6, time.UTC)
	return User{
		ID:        fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]),
		Name:      "Anna Example",
		Email:     email,
		CreatedAt: at,
		UpdatedAt: at,
	}
}

// testAvatar makes a new pointer to an image.
func testAvatar(image []byte) Avatar {
	return Avatar{
		Key:    rand.Text(),
		SHA256: fmt.Sprintf("%x", sha256.Sum256(image)),
		Type:   "image/png",
		Size:   int64(len(image)),
	}
}

func listAll(ctx context.Context, users Users, after string, limit int) ([]User, error) {
	var list []User
	for u, err := range users.List(ctx, after, limit) {
		if err != nil {
			return list, err
		}
		list = append(list, u)
	}
	return list, nil
}

// together runs do n times at once.
func together(n int, do func(i int)) {
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() { do(i) })
	}
	done.Wait()
}

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("error %v, want %v", got, want)
	}
}

func wantUser(t *testing.T, got, want User) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("another user than was expected (-want +got):\n%s", diff)
	}
}

// wantUsers compares all that is stored, by Get and by List.
func wantUsers(t *testing.T, users Users, want ...User) {
	t.Helper()
	for _, w := range want {
		got, err := users.Get(t.Context(), w.ID)
		wantError(t, err, nil)
		wantUser(t, got, w)
	}
	got, err := listAll(t.Context(), users, "", 0)
	wantError(t, err, nil)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("other users are listed than were expected (-want +got):\n%s", diff)
	}
}

func wantImage(t *testing.T, avatars Avatars, id string, a Avatar, offset, length int64, image []byte) {
	t.Helper()
	body, err := avatars.Get(t.Context(), id, a, offset, length)
	wantError(t, err, nil)
	defer body.Close()
	got, err := io.ReadAll(body)
	wantError(t, err, nil)
	if !bytes.Equal(got, image[offset:offset+length]) {
		t.Fatalf("bytes %d to %d are not the image's", offset, offset+length)
	}
}

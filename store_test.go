package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"roster/internal/testkit"
)

func TestStore(t *testing.T) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		store, err := openLocal(t.TempDir(), newMetrics(build{}))
		wantError(t, err, nil)
		t.Cleanup(func() { store.Close() })
		testStore(t, localUsers{store}, localAvatars{store})
	})
	for _, server := range testServers {
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			users, avatars := server.open(t)
			testStore(t, users, avatars)
		})
	}
}

// testStore checks what every pair of stores promises in store.go. The stores
// are empty when it begins and empty when it ends.
func testStore(t *testing.T, users Users, avatars Avatars) {
	wantError(t, tryStores(t.Context(), users, avatars), nil)
	t.Run("users", func(t *testing.T) { testUsers(t, users) })
	t.Run("conditions", func(t *testing.T) { testConditions(t, users) })
	t.Run("list", func(t *testing.T) { testList(t, users) })
	t.Run("races", func(t *testing.T) { testUserRaces(t, users) })
	t.Run("avatars", func(t *testing.T) { testAvatars(t, avatars) })
}

func testUsers(t *testing.T, users Users) {
	ctx := t.Context()
	u := testUser("anna@example.com")
	a, b := testAvatar([]byte("one")), testAvatar([]byte("another"))
	later := u.CreatedAt.Add(time.Hour + time.Millisecond)
	any := Condition{}

	// A missing user cannot be changed.
	_, err := users.Get(ctx, u.ID)
	wantError(t, err, ErrNotFound)
	for _, change := range []Change{
		{Name: "B", At: later}, {Avatar: a, At: later}, {RemoveAvatar: true, At: later}, {Forget: a.Key, At: later},
	} {
		_, _, err = users.Update(ctx, u.ID, change, any)
		wantError(t, err, ErrNotFound)
	}
	_, err = users.Delete(ctx, u, any)
	wantError(t, err, ErrNotFound)
	wantUsers(t, users)

	wantError(t, users.Create(ctx, u), nil)
	wantUsers(t, users, u)
	other := u
	other.Name, other.ETag = "Somebody else", newKey()
	wantError(t, users.Create(ctx, other), ErrExists)
	wantUsers(t, users, u)

	// want is the user after each change; every change has a ETag of its own.
	want, tokens := u, map[string]bool{u.ETag: true}
	update := func(change Change) {
		t.Helper()
		stored, err := users.Get(ctx, u.ID)
		wantError(t, err, nil)
		before, after, err := users.Update(ctx, u.ID, change, any)
		wantError(t, err, nil)
		wantUser(t, before, stored)
		if tokens[after.ETag] {
			t.Fatalf("the ETag %q was used before", after.ETag)
		}
		tokens[after.ETag] = true
		want.ETag, want.UpdatedAt = after.ETag, change.At
		wantUser(t, after, want)
		wantUsers(t, users, want)
	}
	wantUnchanged := func(change Change, c Condition, wantErr error) {
		t.Helper()
		before, after, err := users.Update(ctx, u.ID, change, c)
		wantError(t, err, wantErr)
		wantUser(t, before, want)
		wantUser(t, after, want)
		wantUsers(t, users, want)
	}

	want.Name = `Ænna "B." <b> & 日本 😀`
	update(Change{Name: want.Name, At: later})
	later = later.Add(time.Second)
	want.Avatar = a
	update(Change{Avatar: a, At: later})
	want.Avatar = b
	update(Change{Avatar: b, At: later})
	want.Name = strings.Repeat("ß", 200)
	update(Change{Name: want.Name, At: later})
	later = later.Add(time.Second)
	want.Avatar, want.Removed = Avatar{}, b.Key
	update(Change{RemoveAvatar: true, At: later})

	// Without an image there is nothing to remove, but the condition still counts.
	later = later.Add(time.Second)
	wantUnchanged(Change{RemoveAvatar: true, At: later}, any, nil)
	wantUnchanged(Change{RemoveAvatar: true, At: later}, Condition{Match: &tags{list: []string{"another"}}},
		ErrPrecondition)

	wantUnchanged(Change{Forget: a.Key, At: later}, any, nil)
	want.Removed = ""
	update(Change{Forget: b.Key, At: later})
	wantUnchanged(Change{Forget: b.Key, At: later}, any, nil)

	// A new image replaces a removed one whose object may still exist.
	want.Avatar = a
	update(Change{Avatar: a, At: later})
	want.Avatar, want.Removed = Avatar{}, a.Key
	update(Change{RemoveAvatar: true, At: later})
	want.Avatar, want.Removed = b, ""
	update(Change{Avatar: b, At: later})

	// An earlier user with this id is gone.
	earlier := want
	earlier.CreatedAt = earlier.CreatedAt.Add(-time.Millisecond)
	_, err = users.Delete(ctx, earlier, any)
	wantError(t, err, ErrNotFound)
	wantUsers(t, users, want)

	// An older copy of the user names the same user.
	got, err := users.Delete(ctx, u, any)
	wantError(t, err, nil)
	wantUser(t, got, want)
	wantUsers(t, users)
	_, err = users.Delete(ctx, u, any)
	wantError(t, err, ErrNotFound)

	// All fields are stored.
	u.Avatar, u.Removed = a, b.Key
	wantError(t, users.Create(ctx, u), nil)
	wantUsers(t, users, u)
	got, err = users.Delete(ctx, u, any)
	wantError(t, err, nil)
	wantUser(t, got, u)
	wantUsers(t, users)
}

// testConditions tries every condition on every change, with and without an image.
func testConditions(t *testing.T, users Users) {
	ctx := t.Context()
	a, b := testAvatar([]byte("one")), testAvatar([]byte("another"))
	anything, most := &tags{any: true}, slices.Repeat([]string{"other"}, maxTags)
	list := func(tag ...string) *tags { return &tags{list: tag} }
	for _, image := range []Avatar{{}, a} {
		u := testUser("conditions@example.com")
		u.Avatar = image
		for _, tt := range []struct {
			c    Condition
			with bool // holds for the user with the image
			none bool // holds for the user without
		}{
			{Condition{}, true, true},
			{Condition{Match: list(u.ETag)}, true, true},
			{Condition{Match: list(newKey(), u.ETag)}, true, true},
			{Condition{Match: list(newKey())}, false, false},
			{Condition{Match: list("*")}, false, false},
			{Condition{Match: list()}, false, false},
			{Condition{Match: list(most...)}, false, false},
			{Condition{Match: anything}, true, true},
			{Condition{NoneMatch: list(u.ETag)}, false, false},
			{Condition{NoneMatch: list(most...)}, true, true},
			{Condition{NoneMatch: list()}, true, true},
			{Condition{NoneMatch: anything}, false, false},
			{Condition{Match: list(u.ETag), NoneMatch: list(most...)}, true, true},
			{Condition{Match: list(most...), NoneMatch: list(most...)}, false, false},
			{Condition{Match: list(a.Key)}.ofAvatar(), true, false},
			{Condition{Match: list(b.Key, a.Key)}.ofAvatar(), true, false},
			{Condition{Match: list(b.Key)}.ofAvatar(), false, false},
			{Condition{Match: anything}.ofAvatar(), true, false},
			{Condition{NoneMatch: list(a.Key)}.ofAvatar(), false, true},
			{Condition{NoneMatch: list(b.Key)}.ofAvatar(), true, true},
			{Condition{NoneMatch: anything}.ofAvatar(), false, true},
			{Condition{Match: anything, NoneMatch: anything}.ofAvatar(), false, false},
		} {
			want := ErrPrecondition
			if image.Key != "" && tt.with || image.Key == "" && tt.none {
				want = nil
			}
			update := func(change Change) func() error {
				change.At = u.CreatedAt
				return func() error { _, _, err := users.Update(ctx, u.ID, change, tt.c); return err }
			}
			for name, change := range map[string]func() error{
				"rename":        update(Change{Name: "B"}),
				"set avatar":    update(Change{Avatar: b}),
				"remove avatar": update(Change{RemoveAvatar: true}),
				"delete":        func() error { _, err := users.Delete(ctx, u, tt.c); return err },
			} {
				wantError(t, users.Create(ctx, u), nil)
				if err := change(); !errors.Is(err, want) {
					t.Errorf("%s of a user with image %v if %+v: error %v, want %v", name, image, tt.c, err, want)
				}
				if want != nil {
					wantUsers(t, users, u)
				}
				users.Delete(ctx, u, Condition{})
			}
		}
	}
}

func testList(t *testing.T, users Users) {
	ctx := t.Context()
	const n = 57
	all := map[string]User{}
	for i := range n {
		u := testUser(fmt.Sprintf("user%d@example.com", i))
		if i%3 == 0 {
			a := testAvatar([]byte(u.Email))
			u.Avatar = a
		}
		all[u.ID] = u
		wantError(t, users.Create(ctx, u), nil)
	}
	list, err := listAll(ctx, users)
	wantError(t, err, nil)
	if len(list) != n {
		t.Fatalf("%d users, want %d", len(list), n)
	}
	for _, u := range list {
		wantUser(t, u, all[u.ID])
	}

	// Pages of any size add up to the same list, in an order of their own.
	var inOrder []User
	for _, size := range []int{1, 2, 10, 19, n - 1, n, n + 1, 1000} {
		var pages []User
		for after := ""; ; {
			page, err := pageOf(ctx, users, after, size)
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
		byID := func(a, b User) int { return strings.Compare(a.ID, b.ID) }
		if diff := cmp.Diff(slices.SortedFunc(slices.Values(list), byID),
			slices.SortedFunc(slices.Values(pages), byID)); diff != "" {
			t.Fatalf("pages of %d differ from the list (-list +pages):\n%s", size, diff)
		}
		if inOrder == nil {
			inOrder = pages
		}
		if diff := cmp.Diff(inOrder, pages); diff != "" {
			t.Fatalf("pages of %d have another order than pages of 1 (-want +got):\n%s", size, diff)
		}
	}
	again, err := listAll(ctx, users)
	wantError(t, err, nil)
	if diff := cmp.Diff(list, again); diff != "" {
		t.Errorf("the second list differs from the first one (-first +second):\n%s", diff)
	}
	list = inOrder

	// The user that a page ended with may be gone when the next one is asked for.
	_, err = users.Delete(ctx, list[20], Condition{})
	wantError(t, err, nil)
	rest, err := pageOf(ctx, users, list[20].ID, n)
	wantError(t, err, nil)
	if diff := cmp.Diff(list[21:], rest); diff != "" {
		t.Errorf("the list after a user who is gone (-want +got):\n%s", diff)
	}

	// A failure is returned, not an incomplete list.
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if got, err := listAll(ended, users); err == nil {
		t.Errorf("list after the end of its context: %d users and no error", len(got))
	}

	for _, u := range slices.Delete(list, 20, 21) {
		_, err := users.Delete(ctx, u, Condition{})
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
	testkit.Together(24, func(i int) {
		u := u
		u.Name, u.ETag = fmt.Sprint("number ", i), newKey()
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

	// Every image but the last is returned as the previous one, once.
	seen := map[string]int{}
	testkit.Together(24, func(i int) {
		a := testAvatar([]byte(fmt.Sprint(i)))
		before, _, err := users.Update(ctx, u.ID, Change{Avatar: a, At: u.CreatedAt}, Condition{})
		if err != nil {
			t.Errorf("set avatar: %v", err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		seen[a.Key]++
		if before.Avatar.Key != "" {
			seen[before.Avatar.Key]++
		}
	})
	last, err := users.Get(ctx, u.ID)
	wantError(t, err, nil)
	if last.Avatar.Key == "" {
		t.Fatal("no image after many were set")
	}
	seen[last.Avatar.Key]++
	for key, n := range seen {
		if n != 2 {
			t.Errorf("image %s was seen %d times, want once set and once replaced or left", key, n)
		}
	}

	// Of many changes on one condition one succeeds.
	for name, change := range map[string]func() Change{
		"rename":        func() Change { return Change{Name: newKey(), At: now()} },
		"set avatar":    func() Change { a := testAvatar(nil); return Change{Avatar: a, At: now()} },
		"remove avatar": func() Change { return Change{RemoveAvatar: true, At: now()} },
	} {
		a := testAvatar(nil)
		_, u, err := users.Update(ctx, u.ID, Change{Avatar: a, At: now()}, Condition{})
		wantError(t, err, nil)
		var changed []User
		testkit.Together(12, func(int) {
			_, after, err := users.Update(ctx, u.ID, change(), Condition{Match: &tags{list: []string{u.ETag}}})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				changed = append(changed, after)
			} else if !errors.Is(err, ErrPrecondition) {
				t.Errorf("%s: %v", name, err)
			}
		})
		if len(changed) != 1 {
			t.Fatalf("%s: %d changes on one condition succeeded, want 1", name, len(changed))
		}
		wantUsers(t, users, changed...)
	}

	// Many renames at once all succeed.
	testkit.Together(12, func(i int) {
		if _, _, err := users.Update(ctx, u.ID, Change{Name: fmt.Sprint("number ", i), At: now()},
			Condition{}); err != nil {
			t.Errorf("rename: %v", err)
		}
	})

	// A concurrent change does not bring back a deleted user.
	var deleted atomic.Int64
	testkit.Together(24, func(i int) {
		a := testAvatar(nil)
		changes := []Change{{Name: "again", At: u.CreatedAt}, {Avatar: a, At: u.CreatedAt},
			{RemoveAvatar: true, At: u.CreatedAt}}
		var err error
		if i%4 < 3 {
			_, _, err = users.Update(ctx, u.ID, changes[i%4], Condition{})
		} else if _, err = users.Delete(ctx, u, Condition{}); err == nil {
			deleted.Add(1)
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("change of a user who is being deleted: %v", err)
		}
	})
	// DynamoDB Local, unlike DynamoDB, may hand one item to two at the same moment.
	local := strings.Contains(t.Name(), "dynamodb-local")
	if n := deleted.Load(); n != 1 && !local {
		t.Errorf("%d deletions of one user succeeded, want 1", n)
	}
	wantUsers(t, users)
}

func testAvatars(t *testing.T, avatars Avatars) {
	ctx := t.Context()
	anna, ben := testUser("anna@example.com").ID, testUser("ben@example.com").ID
	put := func(id string, image []byte) (key string) {
		t.Helper()
		key = newKey()
		wantError(t, avatars.Put(ctx, id, key, "image/png", image), nil)
		return key
	}
	wantMissing := func(id, key string) {
		t.Helper()
		for _, offset := range []int64{0, 1} {
			_, err := avatars.Get(ctx, id, key, offset)
			wantError(t, err, ErrNotFound)
		}
	}
	soon := func() time.Time { return time.Now().Add(time.Minute) }

	small, big := []byte("an image"), make([]byte, 3<<20+17)
	rand.Read(big)
	for _, image := range [][]byte{small, big} {
		wantMissing(anna, newKey())
		wantError(t, avatars.Delete(ctx, anna, newKey()), nil)

		key, size := put(anna, image), int64(len(image))
		for _, offset := range []int64{0, 1, size / 2, size - 1} {
			wantImage(t, avatars, anna, key, offset, image)
		}
		// A reader may close early.
		body, err := avatars.Get(ctx, anna, key, 0)
		wantError(t, err, nil)
		io.CopyN(io.Discard, body, 2)
		wantError(t, body.Close(), nil)

		// Another user and another key do not matter.
		wantMissing(ben, key)
		wantError(t, avatars.Delete(ctx, anna, newKey()), nil)
		wantError(t, avatars.Delete(ctx, ben, key), nil)
		wantImage(t, avatars, anna, key, 0, image)

		wantError(t, avatars.Delete(ctx, anna, key), nil)
		wantMissing(anna, key)
		wantError(t, avatars.Delete(ctx, anna, key), nil)
	}

	// The thumbnail is deleted with its image, or alone.
	key := put(anna, small)
	wantError(t, avatars.Put(ctx, anna, thumbnailKey(key), "image/jpeg", big), nil)
	wantImage(t, avatars, anna, thumbnailKey(key), 0, big)
	wantError(t, avatars.Delete(ctx, anna, thumbnailKey(key)), nil)
	wantMissing(anna, thumbnailKey(key))
	wantImage(t, avatars, anna, key, 0, small)
	wantError(t, avatars.Put(ctx, anna, thumbnailKey(key), "image/jpeg", big), nil)
	wantError(t, avatars.Delete(ctx, anna, key), nil)
	wantMissing(anna, key)
	wantMissing(anna, thumbnailKey(key))

	// A reader of a deleted image gets all of it or an error.
	key = put(anna, big)
	body, err := avatars.Get(ctx, anna, key, 0)
	wantError(t, err, nil)
	got := make([]byte, 1000)
	_, err = io.ReadFull(body, got)
	wantError(t, err, nil)
	wantError(t, avatars.Delete(ctx, anna, key), nil)
	rest, err := io.ReadAll(body)
	if err == nil && !bytes.Equal(append(got, rest...), big) {
		t.Error("a reader got something else after the image was deleted")
	}
	wantError(t, body.Close(), nil)

	// Many concurrent uploads; then all images of one user are stale.
	wantError(t, avatars.DeleteStale(ctx, anna, soon()), nil)
	keys := make([]string, 12)
	testkit.Together(len(keys), func(i int) {
		keys[i] = newKey()
		if err := avatars.Put(ctx, anna, keys[i], "image/png", []byte(fmt.Sprint("image ", i))); err != nil {
			t.Errorf("Put: %v", err)
		}
	})
	bens := put(ben, small)
	wantError(t, avatars.DeleteStale(ctx, anna, time.Now().Add(-time.Minute)), nil)
	for i, key := range keys {
		wantImage(t, avatars, anna, key, 0, []byte(fmt.Sprint("image ", i)))
	}
	wantError(t, avatars.DeleteStale(ctx, anna, soon()), nil)
	for _, key := range keys {
		wantMissing(anna, key)
	}
	wantImage(t, avatars, ben, bens, 0, small)
	wantError(t, avatars.DeleteStale(ctx, ben, soon()), nil)
	wantMissing(ben, bens)
}

// BenchmarkCreate creates users from 32 clients at once: in the store's group
// commit, in bbolt's Batch, and in a transaction each.
func BenchmarkCreate(b *testing.B) {
	store, err := openLocal(b.TempDir(), newMetrics(build{}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	db, err := bolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, nil)
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
	put := func(u User) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error { return tx.Bucket(usersBucket).Put([]byte(u.ID), encodeRecord(u)) }
	}
	for _, bench := range []struct {
		name   string
		create func(User) error
	}{
		{"roster", func(u User) error { return localUsers{store}.Create(b.Context(), u) }},
		{"Batch", func(u User) error { return db.Batch(put(u)) }},
		{"Update", func(u User) error { return db.Update(put(u)) }},
	} {
		var next atomic.Int64
		b.Run(bench.name, func(b *testing.B) {
			b.SetParallelism(max(1, 32/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := bench.create(testUser(fmt.Sprintf("user%d@example.com", next.Add(1)))); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// testUser makes a user; the same email makes the same id.
func testUser(email string) User {
	sum := sha256.Sum256([]byte(email))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	at := time.Date(2026, time.February, 3, 4, 5, 6, 7e6, time.UTC)
	return User{
		ID:        fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]),
		Name:      "Anna Example",
		Email:     email,
		ETag:      newKey(),
		CreatedAt: at,
		UpdatedAt: at,
	}
}

// testAvatar makes a new pointer to an image.
func testAvatar(image []byte) Avatar {
	return Avatar{Key: newKey(), Type: "image/png", Size: max(1, int64(len(image)))}
}

func listAll(ctx context.Context, users Users) (all []User, err error) {
	err = users.List(ctx, func(page []User) error {
		all = append(all, page...)
		return nil
	})
	return all, err
}

// pageOf returns a page of limit users, or fewer at the end: what Page returns may be shorter.
func pageOf(ctx context.Context, users Users, after string, limit int) (page []User, err error) {
	for len(page) < limit {
		part, next, err := users.Page(ctx, after, limit-len(page))
		page = append(page, part...)
		if err != nil || next == "" {
			return page, err
		}
		after = next
	}
	return page, nil
}

func wantError(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("the call returned the error %v, want %v", got, want)
	}
}

func wantUser(t *testing.T, got, want User) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("the stored user (-want +got):\n%s", diff)
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
	got, err := listAll(t.Context(), users)
	wantError(t, err, nil)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("the list of all users (-want +got):\n%s", diff)
	}
}

func wantImage(t *testing.T, avatars Avatars, id, key string, offset int64, image []byte) {
	t.Helper()
	body, err := avatars.Get(t.Context(), id, key, offset)
	wantError(t, err, nil)
	defer body.Close()
	got, err := io.ReadAll(body)
	wantError(t, err, nil)
	if !bytes.Equal(got, image[offset:]) {
		t.Fatalf("image %s from byte %d: %d other bytes than the stored %d", key, offset, len(got), len(image[offset:]))
	}
}

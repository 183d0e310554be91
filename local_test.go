package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"roster/internal/testkit"
)

func openTestLocal(t *testing.T, dir string) *localStore {
	t.Helper()
	store, err := openLocal(dir, newMetrics(build{}))
	wantError(t, err, nil)
	t.Cleanup(func() { store.Close() })
	return store
}

// Close waits for the current commit. Later writes are ErrUnavailable.
func (l *localStore) Close() error {
	defer l.root.Close()
	return l.db.Close()
}

// TestLocalLock: a second process on the same directory gets an error that says so.
func TestLocalLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openTestLocal(t, dir)
	_, err := openLocal(dir, newMetrics(build{}))
	if err == nil || !strings.Contains(err.Error(), "another process is using it") {
		t.Errorf("second process: error %v, want one that names another process", err)
	}
}

// TestLocalCrashed: files of uploads that a crash ended are removed at start.
func TestLocalCrashed(t *testing.T) {
	dir := t.TempDir()
	wantError(t, os.MkdirAll(filepath.Join(dir, "tmp"), 0o700), nil)
	wantError(t, os.WriteFile(filepath.Join(dir, "tmp", "upload"), []byte("half an image"), 0o600), nil)
	openTestLocal(t, dir)
	if left := testkit.Must(os.ReadDir(filepath.Join(dir, "tmp"))); len(left) > 0 {
		t.Errorf("tmp has %d files after the start, want none", len(left))
	}
}

// TestLocalFailedPut: nothing is left of an image that cannot get its name.
func TestLocalFailedPut(t *testing.T) {
	dir := t.TempDir()
	store := openTestLocal(t, dir)
	id := testUser("ada@example.com").ID
	wantError(t, os.WriteFile(filepath.Join(dir, "avatars", id), nil, 0o600), nil) // not a directory
	wantError(t, localAvatars{store}.Put(t.Context(), id, newKey(), "image/png", []byte("image")), ErrUnavailable)
	if left := testkit.Must(os.ReadDir(filepath.Join(dir, "tmp"))); len(left) > 0 {
		t.Errorf("tmp has %d files after a failed Put, want none", len(left))
	}
}

// TestLocalDirectories: the directory of a user exists only while it has an image.
func TestLocalDirectories(t *testing.T) {
	dir := t.TempDir()
	store := openTestLocal(t, dir)
	id, key := testUser("ada@example.com").ID, newKey()
	wantError(t, localAvatars{store}.Put(t.Context(), id, key, "image/png", []byte("image")), nil)
	wantError(t, localAvatars{store}.Delete(t.Context(), id, key), nil)
	if left := testkit.Must(os.ReadDir(filepath.Join(dir, "avatars"))); len(left) > 0 {
		t.Errorf("avatars has the directory %s, want none", left[0].Name())
	}
}

// TestLocalGroupCommit: concurrent writes share commits.
func TestLocalGroupCommit(t *testing.T) {
	store := openTestLocal(t, t.TempDir())
	commits := func() (n int) {
		store.db.View(func(tx *bolt.Tx) error {
			n = tx.ID()
			return nil
		})
		return n
	}
	const rounds, writers = 10, 32
	before := commits()
	for round := range rounds {
		testkit.Together(writers, func(i int) {
			u := testUser(fmt.Sprintf("user%d-%d@example.com", round, i))
			if err := (localUsers{store}).Create(t.Context(), u); err != nil {
				t.Errorf("Create: %v", err)
			}
		})
	}
	if n := commits() - before; n > rounds*writers/2 {
		t.Errorf("%d writes took %d commits, want less than half", rounds*writers, n)
	}
}

// TestFirstFormat: a store whose records are JSON opens, lists its users and serves their images. A change writes the
// record in the current format. testdata/store-json was written by the last version with JSON records.
func TestFirstFormat(t *testing.T) {
	dir := t.TempDir()
	wantError(t, os.CopyFS(dir, os.DirFS("testdata/store-json")), nil)
	store, err := openLocal(dir, newMetrics(build{}))
	wantError(t, err, nil)
	t.Cleanup(func() { store.Close() })
	users := localUsers{store}
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	ada := User{
		ID: "b5fc85e5-5755-89e0-9030-a10ab4429b6b", Name: "Ada Lovelace", Email: "ada@example.com",
		ETag: "3qaqubiv7fragnxm5vqyomoeaq", CreatedAt: at(1795984240059), UpdatedAt: at(1795984240059),
	}
	jose := User{
		ID:   "e90c29a6-3878-88e4-abd7-cf24959b64dc",
		Name: `José <b> & "Łukasz" 👩‍🚀`, Email: "José@München.example",
		ETag: "odoy2pwumimckodq6nagcbl4ua", CreatedAt: at(1795984240092), UpdatedAt: at(1795984240092),
	}
	grace := User{
		ID: "b533d454-7eaa-8a0f-a955-965a1ca393cc", Name: "Grace Hopper", Email: "grace@example.com",
		Avatar: Avatar{Key: "uvuu3jnzevkehagmo3slghkj32", Type: "image/png", Size: 273},
		ETag:   "eqxr7v2kmssdqw63vlm3gdpq5e", CreatedAt: at(1795984240195), UpdatedAt: at(1795984240648),
	}
	alan := User{ // the image could not be deleted
		ID: "61356cef-f753-8431-9604-52071a97f980", Name: "Alan", Email: "alan@example.com",
		Removed: "loegnqitr3q4gcsvvtztz7hnkk",
		ETag:    "ck6wrjoslxajgmaazwe4snbvnl", CreatedAt: at(1795984240518), UpdatedAt: at(1795984240713),
	}
	wantUsers(t, users, alan, grace, ada, jose)
	image, err := os.ReadFile("testdata/ada.png")
	wantError(t, err, nil)
	wantImage(t, localAvatars{store}, grace.ID, grace.Avatar.Key, 0, image)

	change := Change{Name: "Grace", At: now()}
	_, grace, err = users.Update(t.Context(), grace.ID, change, Condition{Match: &tags{list: []string{grace.ETag}}})
	wantError(t, err, nil)
	wantUsers(t, users, alan, grace, ada, jose)
	store.db.View(func(tx *bolt.Tx) error {
		record := tx.Bucket(usersBucket).Get([]byte(grace.ID))
		if !bytes.Equal(record, encodeRecord(grace)) {
			t.Errorf("record of the changed user: %q, want %q", record, encodeRecord(grace))
		}
		return nil
	})
	_, err = users.Delete(t.Context(), ada, Condition{})
	wantError(t, err, nil)
	wantUsers(t, users, alan, grace, jose)
}

// TestRecord: fields can be added to a record, and a damaged record is no valid user.
func TestRecord(t *testing.T) {
	u := testUser("anna@example.com")
	full := u
	full.Removed, full.Avatar = "removed", Avatar{Key: "key", Type: "image/png", Size: 1 << 26}
	record, fullRecord := string(encodeRecord(u)), string(encodeRecord(full))
	required, ok := strings.CutSuffix(record, "\x00\x00\x00\x000")
	if !ok {
		t.Fatalf("record of a user without an image: %q, want four empty fields at its end", record)
	}
	for _, test := range []struct {
		name, record string
		want         User // zero: not valid
	}{
		{"without an image", record, u},
		{"with an image", fullRecord, full},
		{"with a field of a later version", fullRecord + "\x00new", full},
		{"without the last four fields", required, u},
		{"without a time", required[:strings.LastIndex(required, "\x00")], User{}},
		{"with a time that is no number", required + "x", User{}},
		{"empty", "", User{}},
		{"of an unknown format", "\x02" + record[1:], User{}},
		{"JSON that is cut", `{"Name":"A`, User{}},
		{"cut in a field", record[:5], User{}},
		{"cut in the key of the image", fullRecord[:strings.Index(fullRecord, "\x00image/png")], User{}},
		{"with a size that is no number", fullRecord + "x", User{}},
	} {
		got, err := decodeRecord(u.ID, []byte(test.record))
		wantError(t, err, nil)
		if valid := got.check() == nil; valid != (test.want != User{}) {
			t.Errorf("record %s: valid user %t: %+v", test.name, valid, got)
		}
		if diff := cmp.Diff(test.want, got); test.want.ID != "" && diff != "" {
			t.Errorf("record %s (-want +got):\n%s", test.name, diff)
		}
		if got.ID != u.ID {
			t.Errorf("record %s: id %q, want %q", test.name, got.ID, u.ID)
		}
	}
	_, err := decodeRecord(u.ID, nil)
	wantError(t, err, ErrNotFound)
}

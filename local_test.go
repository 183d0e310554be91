package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	wantError(t, localAvatars{store}.Delete(t.Context(), ImageName{id, key}), nil)
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

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// localStore is the embedded store: one directory with roster.db (users, in bbolt),
// avatars/{id}/{key} and tmp/. See Embedded store in docs/architecture.md.
type localStore struct {
	root    *os.Root // confines even a malformed id
	db      *bolt.DB
	writes  chan *localWrite // that wait for the next commit
	dirs    [256]sync.Mutex  // for the creation and removal of users' directories, by hash
	metrics *metrics
}

// localUsers and localAvatars are the two sides of one localStore.
type (
	localUsers   struct{ *localStore }
	localAvatars struct{ *localStore }
)

var usersBucket = []byte("users")

const localPage = 1024 // users read in one transaction, which blocks the reuse of free pages

// openLocal opens the store in dir, created if missing. After an error the process must end.
func openLocal(dir string, m *metrics) (*localStore, error) {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = syncPath(filepath.Dir(dir))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	db, err := openDB(filepath.Join(dir, "roster.db"), m)
	if err != nil {
		return nil, err
	}
	l := &localStore{root: root, db: db, metrics: m, writes: make(chan *localWrite, 1024)}
	if err := l.prepareDirs(); err != nil {
		return nil, err
	}
	go l.commitWrites()
	return l, nil
}

func openDB(path string, m *metrics) (*bolt.DB, error) {
	// A previous process may still be exiting. The map finds free pages faster in a large file.
	options := &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType}
	db, err := bolt.Open(path, 0o600, options)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, errors.New("another process is using it")
	}
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		m.databaseSize.Set(float64(tx.Size()))
		_, err := tx.CreateBucket(usersBucket)
		return err
	})
	if errors.Is(err, bolterrors.ErrBucketExists) { // no write: a full disk stays readable
		return db, nil
	}
	return db, err
}

// prepareDirs empties tmp and creates the directories that are missing, durably.
func (l *localStore) prepareDirs() error {
	if err := l.root.RemoveAll("tmp"); err != nil {
		return err
	}
	for _, dir := range []string{"tmp", "avatars"} {
		if err := l.root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := l.syncDir("."); err != nil {
		return err
	}
	return l.syncDir("avatars")
}

// syncPath makes the names in a directory durable.
func syncPath(dir string) error {
	d, err := os.Open(dir) // #nosec G304 G703 -- the operator names it
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (l *localStore) syncDir(name string) error { return syncPath(filepath.Join(l.root.Name(), name)) }

// A localWrite is one change that waits for its commit. apply shares a transaction
// with others: it checks first and writes last, so that a failed one wrote nothing.
type localWrite struct {
	apply func(*bolt.Bucket) error
	err   error
	done  chan struct{}
}

// write applies a change durably. Once it waits for its commit, the end of ctx does not stop it.
func (l *localStore) write(ctx context.Context, apply func(*bolt.Bucket) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &localWrite{apply: apply, done: make(chan struct{})}
	l.writes <- w
	<-w.done
	return w.err
}

// commitWrites commits the writes that arrived during the last commit together, with one disk sync.
// Seven times bbolt's Batch at 32 clients. It never returns.
func (l *localStore) commitWrites() {
	for w := range l.writes {
		batch := []*localWrite{w}
		for range len(l.writes) {
			batch = append(batch, <-l.writes)
		}
		l.commit(batch)
	}
}

func (l *localStore) commit(batch []*localWrite) {
	start := time.Now()
	err := l.db.Update(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(usersBucket)
		for _, w := range batch {
			w.err = w.apply(bucket)
		}
		l.metrics.databaseSize.Set(float64(tx.Size()))
		return nil
	})
	l.metrics.commitDuration.Observe(time.Since(start).Seconds())
	l.metrics.commitWrites.Observe(float64(len(batch)))
	for _, w := range batch {
		if err != nil { // for example a full disk: nothing of the batch is stored
			w.err = fmt.Errorf("%w: commit: %w", ErrUnavailable, err)
		}
		close(w.done)
	}
}

func (l localUsers) Create(ctx context.Context, u User) error {
	key, value := []byte(u.ID), encodeRecord(u)
	return l.write(ctx, func(b *bolt.Bucket) error {
		if b.Get(key) != nil {
			return ErrExists
		}
		return b.Put(key, value)
	})
}

func (l localUsers) Get(_ context.Context, id string) (u User, err error) {
	err = l.db.View(func(tx *bolt.Tx) error {
		u, err = decodeRecord(id, tx.Bucket(usersBucket).Get([]byte(id)))
		return cmp.Or(err, u.check())
	})
	return u, err
}

func (l localUsers) List(ctx context.Context, send func(page []User) error) error {
	after := ""
	for {
		page, next, err := l.Page(ctx, after, localPage)
		if err == nil {
			err = send(page)
		}
		if err != nil || next == "" {
			return err
		}
		after = next
	}
}

func (l localUsers) Page(ctx context.Context, after string, limit int) (page []User, next string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	err = l.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(usersBucket).Cursor()
		for k, v := c.Seek([]byte(after + "\x00")); k != nil; k, v = c.Next() {
			u, err := decodeRecord(string(k), v)
			if err != nil {
				return err
			}
			page = append(page, u)
			if len(page) == limit {
				next = u.ID
				break
			}
		}
		return nil
	})
	return page, next, err
}

func (l localUsers) Update(ctx context.Context, id string, change Change, c Condition) (before, after User, err error) {
	etag := newKey()
	err = l.write(ctx, func(b *bolt.Bucket) (err error) {
		if before, err = decodeRecord(id, b.Get([]byte(id))); err != nil {
			return err
		}
		after = before
		if !c.holds(before) {
			return ErrPrecondition
		}
		if !change.apply(&after, etag) {
			return nil
		}
		if err := after.check(); err != nil && !change.RemoveAvatar {
			return err
		}
		return b.Put([]byte(id), encodeRecord(after))
	})
	return before, after, err
}

func (l localUsers) Delete(ctx context.Context, u User, c Condition) (last User, err error) {
	err = l.write(ctx, func(b *bolt.Bucket) error {
		stored, err := decodeRecord(u.ID, b.Get([]byte(u.ID)))
		switch {
		case err != nil:
			return err
		case !stored.CreatedAt.Equal(u.CreatedAt):
			return ErrNotFound
		case !c.holds(stored):
			return ErrPrecondition
		}
		last = stored
		return b.Delete([]byte(u.ID))
	})
	return last, err
}

// Put makes an image durable. fsync(2) of a file does not sync its name, so directories are synced:
//
//  1. open, write, fsync, close tmp/{key}
//  2. mkdir avatars/{id} if missing, fsync avatars
//  3. rename tmp/{key} to avatars/{id}/{key}, fsync avatars/{id}
//
// So a name in avatars stands for a complete image. If step 3 fails, the caller deletes the image.
func (l localAvatars) Put(ctx context.Context, id, key, _ string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tmp := "tmp/" + key
	err := l.writeFile(tmp, data)
	if err == nil {
		err = l.moveInto(tmp, id, key)
	}
	if err == nil {
		err = l.syncDir("avatars/" + id)
	}
	if err != nil {
		l.root.Remove(tmp)
		return fmt.Errorf("%w: write image: %w", ErrUnavailable, err)
	}
	return nil
}

func (l localAvatars) writeFile(name string, data []byte) error {
	f, err := l.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	syncErr := f.Sync()
	closeErr := f.Close()
	return cmp.Or(err, syncErr, closeErr)
}

// moveInto renames a file into the user's directory, created if missing.
func (l localAvatars) moveInto(tmp, id, key string) error {
	dir := "avatars/" + id
	defer l.lockDir(dir).Unlock()
	err := l.root.Mkdir(dir, 0o700)
	if err == nil {
		err = l.syncDir("avatars")
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		l.root.Remove(dir) // the next upload syncs its name again
		return err
	}
	return l.root.Rename(tmp, avatarKey(id, key))
}

func (l *localStore) lockDir(dir string) *sync.Mutex {
	lock := &l.dirs[crc32.ChecksumIEEE([]byte(dir))%256]
	lock.Lock()
	return lock
}

func (l localAvatars) Get(_ context.Context, id, key string, offset int64) (io.ReadCloser, error) {
	f, err := l.root.Open(avatarKey(id, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: read image: %w", ErrUnavailable, err)
	}
	return f, nil
}

func (l localAvatars) Delete(_ context.Context, id, key string) error {
	err := l.root.RemoveAll(avatarKey(id, key)) // existing or not
	thumbnailErr := l.root.RemoveAll(avatarKey(id, thumbnailKey(key)))
	l.removeEmptyDir("avatars/" + id)
	if err := cmp.Or(err, thumbnailErr); err != nil {
		return fmt.Errorf("%w: delete image: %w", ErrUnavailable, err)
	}
	return nil
}

func (l localAvatars) removeEmptyDir(dir string) {
	defer l.lockDir(dir).Unlock()
	l.root.Remove(dir) // fails unless it is empty
}

func (l localAvatars) DeleteStale(_ context.Context, id string, before time.Time) error {
	dir := "avatars/" + id
	entries, err := fs.ReadDir(l.root.FS(), dir)
	for _, entry := range entries {
		if info, gone := entry.Info(); err == nil && gone == nil && info.ModTime().Before(before) {
			err = l.root.RemoveAll(avatarKey(id, entry.Name()))
		}
	}
	// The removals must be durable: a deleted user's images must not come back.
	if err == nil {
		err = l.syncDir(dir)
	}
	l.removeEmptyDir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = l.syncDir("avatars")
	}
	if err != nil {
		return fmt.Errorf("%w: delete images: %w", ErrUnavailable, err)
	}
	return nil
}

// recordFormat begins a record. The first format was JSON, which begins with a brace.
const recordFormat = "\x01"

// encodeRecord returns the record of a user: recordFormat, then fields with NUL between them, which
// none contains. A new field goes to the end. An obsolete field stays, empty.
func encodeRecord(u User) []byte {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	fields := []string{
		u.Name, u.Email, u.ETag, number(u.CreatedAt.UnixMilli()), number(u.UpdatedAt.UnixMilli()),
		u.Removed, u.Avatar.Key, u.Avatar.Type, number(u.Avatar.Size),
	}
	return []byte(recordFormat + strings.Join(fields, "\x00"))
}

// decodeRecord returns the user of a record, or ErrNotFound for nil. What is missing or malformed
// is zero: see User.check.
func decodeRecord(id string, record []byte) (User, error) {
	if record == nil {
		return User{}, ErrNotFound
	}
	fields, current := strings.CutPrefix(string(record), recordFormat)
	if !current {
		return decodeJSON(id, record), nil
	}
	u := User{ID: id}
	var created, updated, size string
	for _, field := range []*string{
		&u.Name, &u.Email, &u.ETag, &created, &updated,
		&u.Removed, &u.Avatar.Key, &u.Avatar.Type, &size,
	} {
		*field, fields, _ = strings.Cut(fields, "\x00")
	}
	u.CreatedAt, u.UpdatedAt = parseMilli(created), parseMilli(updated)
	u.Avatar.Size, _ = strconv.ParseInt(size, 10, 64)
	return u, nil
}

// parseMilli parses Unix milliseconds. The zero time is not valid.
func parseMilli(text string) time.Time {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

// decodeJSON reads a record of the first format. The next change of the user replaces it.
func decodeJSON(id string, record []byte) User {
	var r struct {
		Name, Email          string
		Avatar               Avatar
		Removed, Write       string // Write is the ETag
		CreatedAt, UpdatedAt int64  // Unix milliseconds
	}
	if err := json.Unmarshal(record, &r); err != nil {
		return User{ID: id}
	}
	return User{
		ID: id, Name: r.Name, Email: r.Email, Avatar: r.Avatar, Removed: r.Removed, ETag: r.Write,
		CreatedAt: time.UnixMilli(r.CreatedAt).UTC(), UpdatedAt: time.UnixMilli(r.UpdatedAt).UTC(),
	}
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/singleflight"
)

// localStore is the embedded store: one directory.
//
//	roster.db            users, in bbolt
//	avatars/{id}/{key}   images, never overwritten
//	tmp/                 images being written; emptied at start
//
// An acknowledged write survives kill -9 and power loss.
type localStore struct {
	root    *os.Root
	db      *bolt.DB
	writes  chan *localWrite
	closing chan struct{} // closed when no more writes are taken
	stopped chan struct{} // closed when the last commit is done
	metrics *metrics

	creations singleflight.Group // of users' directories, by id
}

// localUsers and localAvatars are the two sides of one localStore.
type (
	localUsers   struct{ *localStore }
	localAvatars struct{ *localStore }
)

var (
	_ Users   = localUsers{}
	_ Avatars = localAvatars{}
)

var usersBucket = []byte("users")

const (
	// localLockWait is how long to wait for a previous process that is exiting.
	localLockWait = time.Second

	// localPage is how many users a listing reads in one transaction. An open
	// transaction blocks the reuse of free pages, so none stays open while a
	// client reads slowly.
	localPage = 512

	// localBatch bounds the writes of one commit, maxGather the time that the
	// first of them waits for others. Three times bbolt's Batch at 32 clients.
	localBatch = 1024
	maxGather  = 5 * time.Millisecond
)

// openLocal opens the store in dir, and creates it if missing. Its error is meant
// for the operator.
func openLocal(dir string, m *metrics) (*localStore, error) {
	s := &localStore{
		metrics: m,
		writes:  make(chan *localWrite), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := s.open(dir); err != nil {
		return nil, fmt.Errorf("DATA_DIR %s: %w", dir, cause(err))
	}
	go s.commitWrites()
	return s, nil
}

func (s *localStore) open(dir string) (err error) {
	if _, err := os.Stat(dir); err != nil {
		if err := errors.Join(os.MkdirAll(dir, 0o700), syncPath(filepath.Dir(dir))); err != nil {
			return err
		}
	}
	if s.root, err = os.OpenRoot(dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.root.Close()
		}
	}()
	// The map makes finding free pages cheap in a large file.
	s.db, err = bolt.Open(filepath.Join(dir, "roster.db"), 0o600, &bolt.Options{Timeout: localLockWait, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return errors.New("another process is using it")
	}
	if err != nil {
		return err
	}
	err = errors.Join(s.createBucket(), s.root.RemoveAll("tmp"), s.root.MkdirAll("tmp", 0o700), s.root.MkdirAll("avatars", 0o700),
		s.syncDir("."), s.syncDir("avatars"))
	if err != nil {
		s.db.Close()
	}
	return err
}

// createBucket creates the users' bucket if missing. It does not write if the
// bucket exists: users on a full disk must stay readable.
func (s *localStore) createBucket() error {
	var exists bool
	s.db.View(func(tx *bolt.Tx) error {
		exists = tx.Bucket(usersBucket) != nil
		return nil
	})
	if exists {
		return nil
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(usersBucket)
		return err
	})
}

// syncPath makes the names in a directory durable.
func syncPath(dir string) error {
	d, err := os.Open(dir) // #nosec G304 G703 -- the operator names it
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close waits for the current commit and closes the store.
func (s *localStore) Close() error {
	close(s.closing)
	<-s.stopped
	return errors.Join(s.db.Close(), s.root.Close())
}

// A localWrite is one change that waits for its commit. apply shares a transaction
// with others: it checks first and writes last, so that a failed one wrote nothing.
type localWrite struct {
	apply func(*bolt.Bucket) error
	err   error
	done  chan struct{}
}

// write applies a change durably. Once the change waits for its commit, the end of
// ctx does not stop it.
func (s *localStore) write(ctx context.Context, apply func(*bolt.Bucket) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &localWrite{apply: apply, done: make(chan struct{})}
	select {
	case s.writes <- w:
		<-w.done
		return w.err
	case <-s.closing:
		return fmt.Errorf("%w: the store is closed", ErrUnavailable)
	}
}

// commitWrites commits the writes that arrived during the last commit together: a
// commit costs one disk sync, however many writes are in it.
func (s *localStore) commitWrites() {
	defer close(s.stopped)
	var writes int         // in the last commit
	var took time.Duration // by the last commit
	for {
		select {
		case w := <-s.writes:
			batch := s.gather(w, writes, min(took/4, maxGather))
			start := time.Now()
			s.commit(batch)
			writes, took = len(batch), time.Since(start)
		case <-s.closing:
			return
		}
	}
}

// gather returns the waiting writes, after first. The clients of the last commit
// were answered together and send their next writes together, so it waits briefly
// for as many: to commit the first alone would delay all others by a sync.
func (s *localStore) gather(first *localWrite, expected int, wait time.Duration) []*localWrite {
	batch := []*localWrite{first}
	late := time.NewTimer(wait)
	defer late.Stop()
	for len(batch) < localBatch {
		select {
		case w := <-s.writes:
			batch = append(batch, w)
			continue
		default:
		}
		if len(batch) >= expected {
			break
		}
		select {
		case w := <-s.writes:
			batch = append(batch, w)
		case <-late.C:
			return batch
		}
	}
	return batch
}

func (s *localStore) commit(batch []*localWrite) {
	start := time.Now()
	err := s.db.Update(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(usersBucket)
		for _, w := range batch {
			w.err = w.apply(bucket)
		}
		return nil
	})
	s.metrics.commitDuration.Observe(time.Since(start).Seconds())
	s.metrics.commitWrites.Observe(float64(len(batch)))
	for _, w := range batch {
		if err != nil { // for example a full disk: nothing of the batch is stored
			w.err = fmt.Errorf("%w: commit: %w", ErrUnavailable, err)
		}
		close(w.done)
	}
}

// localUser is the JSON stored under a user's id. The outer times, in Unix
// milliseconds, hide the inner ones.
type localUser struct {
	User
	ID                   string `json:",omitempty"`
	CreatedAt, UpdatedAt int64
}

func encodeLocal(u User) []byte {
	value, _ := json.Marshal(localUser{User: u, CreatedAt: u.CreatedAt.UnixMilli(), UpdatedAt: u.UpdatedAt.UnixMilli()})
	return value
}

func decodeLocal(id, value []byte) (User, error) {
	var l localUser
	if err := json.Unmarshal(value, &l); err != nil {
		return User{}, fmt.Errorf("user %s: %w", id, err)
	}
	u := l.User
	u.ID, u.CreatedAt, u.UpdatedAt = string(id), time.UnixMilli(l.CreatedAt).UTC(), time.UnixMilli(l.UpdatedAt).UTC()
	return u, nil
}

func getLocal(b *bolt.Bucket, id string) (User, error) {
	value := b.Get([]byte(id))
	if value == nil {
		return User{}, ErrNotFound
	}
	return decodeLocal([]byte(id), value)
}

func (s localUsers) Create(ctx context.Context, u User) error {
	key, value := []byte(u.ID), encodeLocal(u)
	return s.write(ctx, func(b *bolt.Bucket) error {
		if b.Get(key) != nil {
			return ErrExists
		}
		return b.Put(key, value)
	})
}

func (s localUsers) Get(_ context.Context, id string) (u User, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		u, err = getLocal(tx.Bucket(usersBucket), id)
		return err
	})
	return u, err
}

func (s localUsers) List(ctx context.Context, after string, limit int) iter.Seq2[User, error] {
	return func(yield func(User, error) bool) {
		for left := limit; limit == 0 || left > 0; {
			size := localPage
			if limit > 0 {
				size = min(size, left)
			}
			page, err := s.page(after, size)
			if err = cmp.Or(err, ctx.Err()); err != nil {
				yield(User{}, err)
				return
			}
			for _, u := range page {
				if !yield(u, nil) {
					return
				}
			}
			if len(page) < size {
				return
			}
			left -= size
			after = page[size-1].ID
		}
	}
}

// page reads up to size users behind the id after.
func (s localUsers) page(after string, size int) (page []User, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(usersBucket).Cursor()
		k, v := c.Seek([]byte(after))
		if string(k) == after {
			k, v = c.Next()
		}
		for ; k != nil && len(page) < size; k, v = c.Next() {
			u, err := decodeLocal(k, v)
			if err != nil {
				return err
			}
			page = append(page, u)
		}
		return nil
	})
	return page, err
}

func (s localUsers) Update(ctx context.Context, id string, change Change, c Condition) (before, after User, err error) {
	write := newKey()
	err = s.write(ctx, func(b *bolt.Bucket) (err error) {
		if before, err = getLocal(b, id); err != nil {
			return err
		}
		after = before
		if !c.holds(before) {
			return ErrPrecondition
		}
		if !change.apply(&after, write) {
			return nil
		}
		return b.Put([]byte(id), encodeLocal(after))
	})
	return before, after, err
}

func (s localUsers) Delete(ctx context.Context, u User, c Condition) (last User, err error) {
	err = s.write(ctx, func(b *bolt.Bucket) error {
		if last, err = getLocal(b, u.ID); err != nil {
			return err
		}
		if !last.CreatedAt.Equal(u.CreatedAt) {
			return ErrNotFound
		}
		if !c.holds(last) {
			return ErrPrecondition
		}
		return b.Delete([]byte(u.ID))
	})
	return last, err
}

func (s localUsers) Ready(context.Context) error {
	return s.db.View(func(*bolt.Tx) error { return nil })
}

// localPath is the path of an image. os.Root confines even a malformed id.
func localPath(id, key string) string { return "avatars/" + id + "/" + key }

// Put makes the image durable in this order: write the data to tmp and sync it;
// rename it into the user's directory; sync the parent, if the directory is new, and
// the directory, which holds the image's name. A name in avatars therefore always
// stands for a complete image.
func (s localAvatars) Put(ctx context.Context, id, key, _ string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tmp := "tmp/" + key
	err := s.writeFile(tmp, data)
	if err == nil {
		err = s.moveInto(tmp, id, key)
	}
	if err != nil {
		s.root.Remove(tmp)
		return fmt.Errorf("%w: write image: %w", ErrUnavailable, err)
	}
	return nil
}

func (s localAvatars) writeFile(name string, data []byte) error {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// moveInto renames a file into the user's directory. A concurrent Delete may
// remove the directory while it is empty, so it is created again.
func (s localAvatars) moveInto(tmp, id, key string) error {
	err := s.root.Rename(tmp, localPath(id, key))
	for range 100 {
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err := s.makeUserDir(id); err != nil {
			return err
		}
		err = s.root.Rename(tmp, localPath(id, key))
	}
	if err != nil {
		return err
	}
	// If another upload is just creating the directory, wait for its sync.
	return errors.Join(s.makeUserDir(id), s.syncDir("avatars/"+id))
}

// makeUserDir creates a missing directory and syncs its name. It returns when the
// name is durable, whoever created it.
func (s localAvatars) makeUserDir(id string) error {
	_, err, _ := s.creations.Do(id, func() (any, error) {
		err := s.root.Mkdir("avatars/"+id, 0o700)
		if errors.Is(err, fs.ErrExist) {
			return nil, nil
		}
		if err == nil {
			if err = s.syncDir("avatars"); err != nil {
				s.root.Remove("avatars/" + id) // the next upload tries again
			}
		}
		return nil, err
	})
	return err
}

func (s *localStore) syncDir(name string) error { return syncPath(filepath.Join(s.root.Name(), name)) }

func (s localAvatars) Get(_ context.Context, id, key string, offset, length int64) (io.ReadCloser, error) {
	f, err := s.root.Open(localPath(id, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("%w: read image: %w", ErrUnavailable, err)
	}
	if length < 0 {
		length = math.MaxInt64 - offset
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, offset, length), f}, nil
}

func (s localAvatars) Delete(_ context.Context, id, key string) error {
	for _, name := range []string{localPath(id, key), localPath(id, thumbnailKey(key))} {
		if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: delete image: %w", ErrUnavailable, err)
		}
	}
	s.root.Remove("avatars/" + id) // fails unless it is empty
	return nil
}

func (s localAvatars) DeleteStale(ctx context.Context, id string, before time.Time) error {
	err := s.deleteStale(ctx, id, before)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: delete images: %w", ErrUnavailable, err)
	}
	return err
}

func (s localAvatars) deleteStale(ctx context.Context, id string, before time.Time) error {
	entries, err := fs.ReadDir(s.root.FS(), "avatars/"+id)
	if errors.Is(err, fs.ErrNotExist) {
		return s.syncDir("avatars")
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.ModTime().Before(before) {
			err = s.root.Remove(localPath(id, entry.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// The removals must be durable: a deleted user's images must not come back.
	if err := s.syncDir("avatars/" + id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.root.Remove("avatars/" + id) // fails unless it is empty
	return s.syncDir("avatars")
}

func (s localAvatars) Ready(context.Context) error {
	_, err := s.root.Stat("avatars")
	return err
}

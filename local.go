package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The embedded store is one directory:
//
//	roster.db            users, in bbolt
//	avatars/{id}/{key}   images, never overwritten
//	tmp/                 images being written; emptied at start
//
// What it has acknowledged is on the disk, and survives loss of power.
type localStore struct {
	root    *os.Root
	db      *bolt.DB
	writes  chan *localWrite
	closing chan struct{} // closed when no more writes are taken
	stopped chan struct{} // closed when the last commit is done
	metrics *metrics
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
	// localLockWait is how long to wait for another process to let go of the
	// directory: long enough for a predecessor that is just ending.
	localLockWait = time.Second

	// localPage is how many users a listing reads in one transaction. An open
	// transaction keeps the file from being reused, so none is held while a
	// client takes its time.
	localPage = 512

	// localBatch bounds how many writes share one commit, and maxGather how long
	// the first of them waits for the others.
	localBatch = 1024
	maxGather  = 5 * time.Millisecond
)

// openLocal opens the store in dir, which it creates if need be. Its error is
// fit to be shown to who starts the service.
func openLocal(dir string, m *metrics) (*localStore, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("DATA_DIR: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("DATA_DIR: %w", err)
	}
	s := &localStore{
		root: root, metrics: m,
		writes: make(chan *localWrite), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := s.open(filepath.Join(dir, "roster.db")); err != nil {
		root.Close()
		return nil, fmt.Errorf("DATA_DIR %s: %w", dir, err)
	}
	go s.commitWrites()
	return s, nil
}

// makeDir makes a directory, and its name durable, if there is none.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

func (s *localStore) open(path string) (err error) {
	// The map makes finding free pages cheap in a large file.
	s.db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: localLockWait, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return errors.New("another process is using it")
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.db.Close()
		}
	}()
	if err := s.createBucket(); err != nil {
		return err
	}
	if err := s.root.RemoveAll("tmp"); err != nil {
		return err
	}
	for _, dir := range []string{"tmp", "avatars"} {
		if err := s.root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return s.syncDir(".") // the names of all of these
}

// createBucket makes the users' bucket if there is none. It commits nothing if
// there is one: a full disk should not keep what it holds from being read.
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

// Close ends the store after the commit under way.
func (s *localStore) Close() error {
	close(s.closing)
	<-s.stopped
	return errors.Join(s.db.Close(), s.root.Close())
}

// A localWrite is one change to the users, waiting for its commit. apply runs
// in a transaction with others: it checks first and changes last, so that one
// that fails has changed nothing.
type localWrite struct {
	apply func(*bolt.Bucket) error
	err   error
	done  chan struct{}
}

// write applies a change durably. It does not end early with the context: what
// is in a commit will happen, and the caller should know.
func (s *localStore) write(apply func(*bolt.Bucket) error) error {
	w := &localWrite{apply: apply, done: make(chan struct{})}
	select {
	case s.writes <- w:
		<-w.done
		return w.err
	case <-s.closing:
		return fmt.Errorf("%w: the store is closed", ErrUnavailable)
	}
}

// commitWrites commits all that gathered while the last commit was being
// written, at once: a commit costs a sync of the disk, however much is in it.
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

// gather takes the writes that are waiting, after first. Those who shared the
// last commit were answered at one moment, and their next writes are on the way:
// it waits a little until as many are there, rather than commit the fastest alone
// and let all others wait for that.
func (s *localStore) gather(first *localWrite, expected int, wait time.Duration) []*localWrite {
	batch := []*localWrite{first}
	late := time.NewTimer(wait)
	defer late.Stop()
	for len(batch) < min(expected, localBatch) {
		select {
		case w := <-s.writes:
			batch = append(batch, w)
			continue
		case <-late.C:
		}
		break
	}
	for len(batch) < localBatch {
		select {
		case w := <-s.writes:
			batch = append(batch, w)
		default:
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
		if err != nil { // the disk is full or failing: nothing of the batch is stored
			w.err = fmt.Errorf("%w: commit: %w", ErrUnavailable, err)
		}
		close(w.done)
	}
}

// localUser is the value of a user's key.
type localUser struct {
	Name, Email          string
	Avatar               *Avatar `json:",omitempty"`
	CreatedAt, UpdatedAt int64   // Unix milliseconds
}

func encodeLocal(u User) []byte {
	value, _ := json.Marshal(localUser{u.Name, u.Email, u.Avatar, u.CreatedAt.UnixMilli(), u.UpdatedAt.UnixMilli()})
	return value
}

func decodeLocal(id, value []byte) (User, error) {
	var l localUser
	if err := json.Unmarshal(value, &l); err != nil {
		return User{}, fmt.Errorf("user %s: %w", id, err)
	}
	return User{
		ID: string(id), Name: l.Name, Email: l.Email, Avatar: l.Avatar,
		CreatedAt: time.UnixMilli(l.CreatedAt).UTC(),
		UpdatedAt: time.UnixMilli(l.UpdatedAt).UTC(),
	}, nil
}

func getLocal(b *bolt.Bucket, id string) (User, error) {
	value := b.Get([]byte(id))
	if value == nil {
		return User{}, ErrNotFound
	}
	return decodeLocal([]byte(id), value)
}

func (s localUsers) Create(_ context.Context, u User) error {
	key, value := []byte(u.ID), encodeLocal(u)
	return s.write(func(b *bolt.Bucket) error {
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
		for n := 0; ; {
			size := localPage
			if limit > 0 {
				size = min(size, limit-n)
			}
			page, err := s.page(after, size)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(User{}, err)
				return
			}
			for _, u := range page {
				if !yield(u, nil) {
					return
				}
				if n++; n == limit {
					return
				}
			}
			if len(page) < size {
				return
			}
			after = page[len(page)-1].ID
		}
	}
}

// page reads up to size users that come after the id after.
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

// update changes a stored user, and returns it as it was and as it is.
func (s localUsers) update(id string, change func(*User)) (before, after User, err error) {
	err = s.write(func(b *bolt.Bucket) (err error) {
		if before, err = getLocal(b, id); err != nil {
			return err
		}
		after = before
		change(&after)
		return b.Put([]byte(id), encodeLocal(after))
	})
	return before, after, err
}

func (s localUsers) Rename(_ context.Context, id, name string, at time.Time) (User, error) {
	_, after, err := s.update(id, func(u *User) { u.Name, u.UpdatedAt = name, at })
	return after, err
}

func (s localUsers) SetAvatar(_ context.Context, id string, a *Avatar, at time.Time) (User, error) {
	before, _, err := s.update(id, func(u *User) { u.Avatar, u.UpdatedAt = a, at })
	return before, err
}

func (s localUsers) Delete(_ context.Context, id string) (u User, err error) {
	err = s.write(func(b *bolt.Bucket) error {
		if u, err = getLocal(b, id); err != nil {
			return err
		}
		return b.Delete([]byte(id))
	})
	return u, err
}

func (s localUsers) Ready(context.Context) error {
	return s.db.View(func(*bolt.Tx) error { return nil })
}

// localPath is where an image is. Ids and keys are the service's own, and
// os.Root keeps even others within the directory.
func localPath(id, key string) string { return "avatars/" + id + "/" + key }

// Put writes the image aside, syncs it, and only then gives it its name, which
// it syncs too. So the name stands for a whole image at all times.
func (s localAvatars) Put(_ context.Context, id string, a Avatar, image []byte) error {
	tmp := "tmp/" + a.Key
	err := s.writeFile(tmp, image)
	if err == nil {
		err = s.moveInto(tmp, id, a.Key)
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

// moveInto moves a file into the directory of the user. It makes the directory
// as often as a deletion of the same user takes it away, within reason.
func (s localAvatars) moveInto(tmp, id, key string) (err error) {
	for range 3 {
		if err := s.root.Mkdir("avatars/"+id, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		// Even if it was there: another upload may have made it just now, and not
		// have synced it yet.
		if err := s.syncDir("avatars"); err != nil {
			return err
		}
		if err = s.root.Rename(tmp, localPath(id, key)); err == nil {
			return s.syncDir("avatars/" + id)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

func (s *localStore) syncDir(name string) error {
	d, err := s.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s localAvatars) Get(_ context.Context, id string, a Avatar, offset, length int64) (io.ReadCloser, error) {
	f, err := s.root.Open(localPath(id, a.Key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("%w: read image: %w", ErrUnavailable, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, offset, length), f}, nil
}

func (s localAvatars) Delete(_ context.Context, id, key string) error {
	if err := s.root.Remove(localPath(id, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: delete image: %w", ErrUnavailable, err)
	}
	return nil
}

func (s localAvatars) DeleteAll(_ context.Context, id string) error {
	err := s.root.RemoveAll("avatars/" + id)
	if err == nil {
		err = s.syncDir("avatars")
	}
	if err != nil {
		return fmt.Errorf("%w: delete images: %w", ErrUnavailable, err)
	}
	return nil
}

func (s localAvatars) Ready(context.Context) error {
	_, err := s.root.Stat("avatars")
	return err
}

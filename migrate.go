package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

const (
	migrateWorkers = 16
	migrateTries   = 4 // per user, while the backend is unavailable
)

// A migration copies the embedded store to the table and the bucket: users with
// their times, images under their versions. It leaves existing users alone, so it
// can be interrupted and repeated.
type migration struct {
	from   localUsers
	images localAvatars
	users  Users
	bucket Avatars
	log    *slog.Logger
	total  int

	copied, existing, failed atomic.Int64
}

// migrate runs a migration. It returns an error unless everything is there.
func migrate(ctx context.Context, c config, log *slog.Logger, stderr *os.File) error {
	if _, err := os.Stat(filepath.Join(c.DataDir, "roster.db")); err != nil {
		return &configError{fmt.Errorf("DATA_DIR: no embedded store: %w", err)}
	}
	m := newMetrics(readBuild())
	store, err := openLocal(c.DataDir, m)
	if err != nil {
		return &configError{err}
	}
	defer store.Close()
	users, avatars, err := openAWS(ctx, c, m.observeAWS, log)
	if err != nil {
		return &configError{err}
	}
	j := &migration{from: localUsers{store}, images: localAvatars{store}, users: users, bucket: avatars, log: log, total: store.count()}
	stop := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() { j.show(stderr, stop) })
	err = j.run(ctx)
	close(stop)
	shown.Wait()
	if err != nil {
		return err
	}
	log.Info("migrated", "copied", j.copied.Load(), "existing", j.existing.Load(), "failed", j.failed.Load())
	if n := j.failed.Load(); n > 0 {
		return fmt.Errorf("%d of %d users were not copied; run -migrate again", n, j.total)
	}
	return nil
}

// count returns the number of users.
func (s *localStore) count() (n int) {
	s.db.View(func(tx *bolt.Tx) error {
		n = tx.Bucket(usersBucket).Stats().KeyN
		return nil
	})
	return n
}

func (j *migration) run(ctx context.Context) error {
	var workers errgroup.Group
	workers.SetLimit(migrateWorkers)
	defer workers.Wait()
	for u, err := range eachUser(ctx, j.from, "", 0) {
		if err != nil {
			return err
		}
		workers.Go(func() error {
			err := j.copy(ctx, u)
			for try := 1; errors.Is(err, ErrUnavailable) && ctx.Err() == nil && try < migrateTries; try++ {
				time.Sleep(time.Second << try)
				err = j.copy(ctx, u)
			}
			if err != nil {
				j.failed.Add(1)
				j.log.Error("user not copied", "user", u.ID, "error", err)
			}
			return nil
		})
	}
	return workers.Wait()
}

// copy stores the image before the user: a user that exists has its image.
func (j *migration) copy(ctx context.Context, u User) error {
	there, err := j.users.Get(ctx, u.ID)
	if err == nil {
		return j.verify(ctx, u, there)
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if u.Avatar != nil {
		data, err := readObject(ctx, j.images, u.ID, u.Avatar.Key, u.Avatar.Size)
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		if err := j.bucket.Put(ctx, u.ID, u.Avatar.Key, u.Avatar.Type, data); err != nil {
			return err
		}
	}
	u.Removed = "" // its object is not copied
	if err := j.users.Create(ctx, u); err != nil {
		return err
	}
	j.copied.Add(1)
	return nil
}

// verify checks that an existing user has its image, if it is the copied one.
func (j *migration) verify(ctx context.Context, u, there User) error {
	if u.Avatar != nil && there.Avatar != nil && there.Avatar.Key == u.Avatar.Key {
		if _, err := readObject(ctx, j.bucket, u.ID, u.Avatar.Key, u.Avatar.Size); err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	j.existing.Add(1)
	return nil
}

// show reports progress until stop: a bar on a terminal, else a log line every ten
// seconds.
func (j *migration) show(stderr *os.File, stop <-chan struct{}) {
	interval := 10 * time.Second
	report := func(done int) { j.log.Info("migrating", "done", done, "users", j.total) }
	if isTerminal(stderr) {
		interval = 200 * time.Millisecond
		report = func(done int) {
			const width = 40
			bar := strings.Repeat("=", width*done/max(j.total, 1))
			fmt.Fprintf(stderr, "\r[%-*s] %d of %d users", width, bar, done, j.total)
		}
		defer fmt.Fprintln(stderr)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for ended := false; !ended; {
		select {
		case <-ticker.C:
		case <-stop:
			ended = true
		}
		report(int(j.copied.Load() + j.existing.Load() + j.failed.Load()))
	}
}

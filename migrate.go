package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

// A migration copies the embedded store to the table and the bucket: users with their times, images under their
// versions. It leaves existing users alone, so it can be interrupted and repeated.
type migration struct {
	from   *localStore
	users  Users
	images Avatars
	log    *slog.Logger
	total  int

	copied, existing, failed atomic.Int64
}

// migrate runs a migration. It returns an error unless everything is there.
func migrate(ctx context.Context, c config, log *slog.Logger) error {
	if _, err := os.Stat(filepath.Join(c.DataDir, "roster.db")); err != nil {
		return &configError{fmt.Errorf("DATA_DIR: no embedded store: %w", err)}
	}
	m := newMetrics(build{})
	store, err := openLocal(c.DataDir, m)
	if err != nil {
		return &configError{fmt.Errorf("DATA_DIR %s: %w", c.DataDir, err)}
	}
	defer store.Close()
	users, images, err := openAWS(ctx, c, m.observeAWS, log)
	if err != nil {
		return &configError{err}
	}
	j := &migration{from: store, users: users, images: images, log: log}
	store.db.View(func(tx *bolt.Tx) error {
		j.total = tx.Bucket(usersBucket).Stats().KeyN
		return nil
	})
	var workers errgroup.Group
	workers.SetLimit(16)
	defer workers.Wait()
	shown := time.Now()
	for after, more := "", true; more; more = after != "" {
		page, next, err := localUsers{store}.Page(ctx, after, 0)
		if err != nil {
			return err
		}
		for _, u := range page {
			workers.Go(func() error {
				j.copyUser(ctx, u)
				return nil
			})
			if time.Since(shown) >= time.Second {
				j.show("")
				shown = time.Now()
			}
		}
		after = next
	}
	workers.Wait()
	j.show("\n")
	log.Info("migrated", "copied", j.copied.Load(), "existing", j.existing.Load(), "failed", j.failed.Load())
	if n := j.failed.Load(); n > 0 {
		return fmt.Errorf("%d of %d users were not copied; run -migrate again", n, j.total)
	}
	return nil
}

// show reports the progress: a bar on a terminal, else a log line.
func (j *migration) show(end string) {
	done := int(j.copied.Load() + j.existing.Load() + j.failed.Load())
	if !isTerminal(os.Stderr) {
		j.log.Info("migrating", "done", done, "users", j.total)
		return
	}
	const width = 40
	bar := strings.Repeat("=", width*done/max(j.total, 1))
	fmt.Fprintf(os.Stderr, "\r[%-*s] %d of %d users%s", width, bar, done, j.total, end)
}

// copyUser copies a user, with four tries while the backend is unavailable.
func (j *migration) copyUser(ctx context.Context, u User) {
	err := j.try(ctx, u)
	for n := 1; errors.Is(err, ErrUnavailable) && ctx.Err() == nil && n < 4; n++ {
		time.Sleep(time.Second << n)
		err = j.try(ctx, u)
	}
	switch {
	case err == nil:
		j.copied.Add(1)
	case errors.Is(err, ErrExists):
		j.existing.Add(1)
	default:
		j.failed.Add(1)
		j.log.Error("user not copied", "user", u.ID, "error", err)
	}
}

// try stores the image before the user: a user that exists has its image. For an
// existing user it returns ErrExists, unless that is the copy without its image.
func (j *migration) try(ctx context.Context, u User) error {
	a := u.Avatar
	there, err := j.users.Get(ctx, u.ID)
	switch {
	case err == nil && a != nil && there.Avatar != nil && there.Avatar.Key == a.Key:
		if _, err := readObject(ctx, j.images, u.ID, a.Key, a.Size); err != nil {
			return fmt.Errorf("image of the copy: %w", err)
		}
		return ErrExists
	case err == nil:
		return ErrExists
	case !errors.Is(err, ErrNotFound):
		return err
	}
	if a != nil {
		data, err := readObject(ctx, localAvatars{j.from}, u.ID, a.Key, a.Size)
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		if err := j.images.Put(ctx, u.ID, a.Key, a.Type, data); err != nil {
			return err
		}
	}
	u.Removed = "" // its object is not copied
	return j.users.Create(ctx, u)
}

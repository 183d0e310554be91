package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

// A migration copies the embedded store to the table and the bucket: users with their times, images
// under their versions. It leaves existing users alone, so it can be interrupted and repeated.
type migration struct {
	from    *localStore
	users   Users
	avatars Avatars
	log     *slog.Logger
	total   int

	copied, existing, failed atomic.Int64
}

// migrate runs a migration. It returns an error unless everything is there.
func migrate(ctx context.Context, c config, log *slog.Logger) error {
	if _, err := os.Stat(filepath.Join(c.DataDir, "roster.db")); err != nil {
		return &configError{fmt.Errorf("DATA_DIR: no embedded store: %w", err)}
	}
	metrics := newMetrics(build{})
	store, err := openLocal(c.DataDir, metrics)
	if err != nil {
		return &configError{fmt.Errorf("DATA_DIR %s: %w", c.DataDir, err)}
	}
	users, avatars, err := openAWS(ctx, c, log, metrics)
	if err != nil {
		return &configError{err}
	}
	mig := &migration{from: store, users: users, avatars: avatars, log: log}
	store.db.View(func(tx *bolt.Tx) error {
		mig.total = tx.Bucket(usersBucket).Stats().KeyN
		return nil
	})
	if err := mig.copyUsers(ctx); err != nil {
		return err
	}
	log.Info("migrated", "copied", mig.copied.Load(), "existing", mig.existing.Load(), "failed", mig.failed.Load())
	if n := mig.failed.Load(); n > 0 {
		return fmt.Errorf("%d of %d users were not copied; run -migrate again", n, mig.total)
	}
	return nil
}

// copyUsers copies all users, 16 at a time, and logs the progress every second.
func (mig *migration) copyUsers(ctx context.Context) error {
	var workers errgroup.Group
	workers.SetLimit(16)
	defer workers.Wait()
	logged := time.Now()
	return localUsers{mig.from}.List(ctx, func(page []User) error {
		for _, u := range page {
			workers.Go(func() error {
				mig.copyUser(ctx, u)
				return nil
			})
			if time.Since(logged) >= time.Second {
				done := mig.copied.Load() + mig.existing.Load() + mig.failed.Load()
				mig.log.Info("migrating", "done", done, "users", mig.total)
				logged = time.Now()
			}
		}
		return nil
	})
}

// copyUser copies a user and counts the outcome.
func (mig *migration) copyUser(ctx context.Context, u User) {
	err := mig.try(ctx, u)
	switch {
	case err == nil:
		mig.copied.Add(1)
	case errors.Is(err, ErrExists):
		mig.existing.Add(1)
	default:
		mig.failed.Add(1)
		mig.log.Error("user not copied", "user", u.ID, "error", err)
	}
}

// try stores the image before the user: a user that exists has its image. For an
// existing user it returns ErrExists, unless that is the copy without its image.
func (mig *migration) try(ctx context.Context, u User) error {
	if err := u.check(); err != nil {
		return err
	}
	a := u.Avatar
	there, err := mig.users.Get(ctx, u.ID)
	switch {
	case err == nil && a.Key != "" && there.Avatar.Key == a.Key:
		if _, err := readObject(ctx, mig.avatars, u.ID, a.Key, a.Size); err != nil {
			return fmt.Errorf("image of the copy: %w", err)
		}
		return ErrExists
	case err == nil:
		return ErrExists
	case !errors.Is(err, ErrNotFound):
		return err
	}
	if a.Key != "" {
		data, err := readObject(ctx, localAvatars{mig.from}, u.ID, a.Key, a.Size)
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		if err := mig.avatars.Put(ctx, u.ID, a.Key, a.Type, data); err != nil {
			return err
		}
	}
	u.Removed = "" // its object is not copied
	return mig.users.Create(ctx, u)
}

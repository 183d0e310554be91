package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// bootstrap creates a missing table and a missing bucket, and returns when both
// are ready. It waits up to a minute for an emulator, and refuses AWS itself.
func bootstrap(ctx context.Context, c config, log *slog.Logger) error {
	users, avatars, err := openAWS(ctx, c, func(string, string, string, int, time.Duration) {}, log)
	if err != nil {
		return &configError{err}
	}
	if users.client.Options().BaseEndpoint == nil || avatars.client.Options().BaseEndpoint == nil {
		return &configError{errors.New("-bootstrap is for emulators: " +
			"set AWS_ENDPOINT_URL, or AWS_ENDPOINT_URL_DYNAMODB and AWS_ENDPOINT_URL_S3, or LOCALSTACK_HOST")}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := create(ctx, log, "table", c.Table, users.createTable); err != nil {
		return err
	}
	return create(ctx, log, "bucket", c.Bucket, avatars.createBucket)
}

// create calls do until the backend is available. ErrExists is success.
func create(ctx context.Context, log *slog.Logger, kind, name string, do func(context.Context) error) error {
	for waiting := false; ; waiting = true {
		err := do(ctx)
		switch {
		case err == nil:
			log.Info("created the "+kind, "name", name)
			return nil
		case errors.Is(err, ErrExists):
			log.Info("the "+kind+" exists", "name", name)
			return nil
		case !errors.Is(err, ErrUnavailable) || ctx.Err() != nil:
			return fmt.Errorf("%s %s: %w", kind, name, err)
		}
		if !waiting {
			log.Info("waiting for the "+kind, "name", name)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

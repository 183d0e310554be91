package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// bootstrap creates a missing table and bucket. It waits a minute for an emulator that starts.
func bootstrap(ctx context.Context, c config, log *slog.Logger) error {
	users, avatars, err := openAWS(ctx, c, log, newMetrics(build{}))
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

// create calls do until the emulator is available, and logs the result. ErrExists is success.
func create(ctx context.Context, log *slog.Logger, kind, name string, do func(context.Context) error) error {
	err := do(ctx)
	for errors.Is(err, ErrUnavailable) && ctx.Err() == nil { // the log says why
		time.Sleep(500 * time.Millisecond)
		err = do(ctx)
	}
	switch {
	case errors.Is(err, ErrExists):
		log.Info("the "+kind+" exists", "name", name)
	case err != nil:
		return fmt.Errorf("%s %s: %w", kind, name, err)
	default:
		log.Info("created the "+kind, "name", name)
	}
	return nil
}

// createTable creates the table, or returns ErrExists.
func (d *dynamoUsers) createTable(ctx context.Context) error {
	id := aws.String("id")
	in := &dynamodb.CreateTableInput{
		TableName:            &d.table,
		BillingMode:          types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: id, AttributeType: "S"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: id, KeyType: "HASH"}},
	}
	_, err := call(ctx, &d.log, "CreateTable", time.Minute, d.client.CreateTable, in)
	return err
}

// createBucket creates the bucket, or returns ErrExists.
func (a *s3Avatars) createBucket(ctx context.Context) error {
	if _, err := a.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &a.bucket}); err == nil {
		return ErrExists
	}
	in := &s3.CreateBucketInput{Bucket: &a.bucket}
	if region := a.client.Options().Region; region != "us-east-1" { // S3 rejects this location
		in.CreateBucketConfiguration = &s3types.CreateBucketConfiguration{
			LocationConstraint: s3types.BucketLocationConstraint(region),
		}
	}
	_, err := call(ctx, &a.log, "CreateBucket", time.Minute, a.client.CreateBucket, in)
	return err
}

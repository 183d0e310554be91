package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// bootstrap creates a missing table and a missing bucket, and returns when both
// are ready. It waits up to a minute for an emulator that is starting. It refuses
// to create anything in AWS.
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

// create calls do until the backend is available. do returns ErrExists if there is
// nothing to create.
func create(ctx context.Context, log *slog.Logger, kind, name string, do func(context.Context) error) error {
	err := do(ctx)
	if errors.Is(err, ErrUnavailable) {
		log.Info("waiting for the "+kind, "name", name)
	}
	for errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
		time.Sleep(500 * time.Millisecond)
		err = do(ctx)
	}
	switch {
	case err == nil:
		log.Info("created the "+kind, "name", name)
	case errors.Is(err, ErrExists):
		log.Info("the "+kind+" exists", "name", name)
	default:
		return fmt.Errorf("%s %s: %w", kind, name, err)
	}
	return nil
}

func (d *dynamoUsers) createTable(ctx context.Context) error {
	id := aws.String("id")
	_, err := d.client.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName:            &d.table,
		BillingMode:          dynamotypes.BillingModePayPerRequest,
		AttributeDefinitions: []dynamotypes.AttributeDefinition{{AttributeName: id, AttributeType: dynamotypes.ScalarAttributeTypeS}},
		KeySchema:            []dynamotypes.KeySchemaElement{{AttributeName: id, KeyType: dynamotypes.KeyTypeHash}},
	})
	_, exists := errors.AsType[*dynamotypes.ResourceInUseException](err)
	if err != nil && !exists {
		return d.failed(ctx, "CreateTable", err)
	}
	waiter := dynamodb.NewTableExistsWaiter(d.client, func(o *dynamodb.TableExistsWaiterOptions) { o.MinDelay = 500 * time.Millisecond })
	out, err := waiter.WaitForOutput(ctx, &dynamodb.DescribeTableInput{TableName: &d.table}, time.Minute)
	switch {
	case err != nil:
		return d.failed(ctx, "DescribeTable", err)
	case len(out.Table.KeySchema) != 1 || *out.Table.KeySchema[0].AttributeName != *id:
		return errors.New("the table exists, but its key is not id alone")
	case exists:
		return ErrExists
	}
	return nil
}

func (s *s3Avatars) createBucket(ctx context.Context) error {
	_, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.bucket})
	if err == nil {
		return ErrExists
	}
	if _, missing := errors.AsType[*s3types.NotFound](err); !missing {
		return s.failed(ctx, "HeadBucket", err)
	}
	in := &s3.CreateBucketInput{Bucket: &s.bucket}
	if region := s.client.Options().Region; region != "us-east-1" { // which S3 rejects as a location
		in.CreateBucketConfiguration = &s3types.CreateBucketConfiguration{LocationConstraint: s3types.BucketLocationConstraint(region)}
	}
	_, err = s.client.CreateBucket(ctx, in)
	return s.failed(ctx, "CreateBucket", err)
}

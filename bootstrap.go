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
func bootstrap(ctx context.Context, table, bucket, localstackHost string, log *slog.Logger) error {
	users, avatars, err := openAWS(ctx, table, bucket, localstackHost, func(string, string, string, int, time.Duration) {}, log)
	if err != nil {
		return &configError{err}
	}
	if users.client.Options().BaseEndpoint == nil || avatars.client.Options().BaseEndpoint == nil {
		return &configError{errors.New("-bootstrap is for emulators: set AWS_ENDPOINT_URL, or AWS_ENDPOINT_URL_DYNAMODB and AWS_ENDPOINT_URL_S3, or LOCALSTACK_HOST")}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := create(ctx, log, "table", table, users.createTable); err != nil {
		return err
	}
	return create(ctx, log, "bucket", bucket, avatars.createBucket)
}

// create calls do, which creates something if it is missing, until the backend is
// available.
func create(ctx context.Context, log *slog.Logger, kind, name string, do func(context.Context) (created bool, err error)) error {
	created, err := do(ctx)
	for waiting := false; errors.Is(err, ErrUnavailable) && ctx.Err() == nil; created, err = do(ctx) {
		if !waiting {
			log.Info("waiting for the "+kind, "name", name)
		}
		waiting = true
		time.Sleep(500 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", kind, name, err)
	}
	if created {
		log.Info("created the "+kind, "name", name)
	} else {
		log.Info("the "+kind+" exists", "name", name)
	}
	return nil
}

func (d *dynamoUsers) createTable(ctx context.Context) (created bool, err error) {
	describe := &dynamodb.DescribeTableInput{TableName: &d.table}
	_, err = d.client.DescribeTable(ctx, describe)
	_, missing := errors.AsType[*dynamotypes.ResourceNotFoundException](err)
	if missing {
		_, err = d.client.CreateTable(ctx, &dynamodb.CreateTableInput{
			TableName:            &d.table,
			BillingMode:          dynamotypes.BillingModePayPerRequest,
			AttributeDefinitions: []dynamotypes.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: dynamotypes.ScalarAttributeTypeS}},
			KeySchema:            []dynamotypes.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: dynamotypes.KeyTypeHash}},
		})
	}
	if _, exists := errors.AsType[*dynamotypes.ResourceInUseException](err); err != nil && !exists {
		return false, d.failed(ctx, "CreateTable", err)
	}
	out, err := dynamodb.NewTableExistsWaiter(d.client, func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay = 500 * time.Millisecond
	}).WaitForOutput(ctx, describe, time.Minute)
	if err != nil {
		return false, d.failed(ctx, "DescribeTable", err)
	}
	if keys := out.Table.KeySchema; len(keys) != 1 || aws.ToString(keys[0].AttributeName) != "id" {
		return false, errors.New("the table exists, but its key is not id alone")
	}
	return missing, nil
}

func (s *s3Avatars) createBucket(ctx context.Context) (created bool, err error) {
	_, err = s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.bucket})
	if err == nil {
		return false, nil
	}
	if _, missing := errors.AsType[*s3types.NotFound](err); !missing {
		return false, s.failed(ctx, "HeadBucket", err)
	}
	in := &s3.CreateBucketInput{Bucket: &s.bucket}
	// S3 rejects us-east-1 as a location.
	if region := s.client.Options().Region; region != "us-east-1" {
		in.CreateBucketConfiguration = &s3types.CreateBucketConfiguration{LocationConstraint: s3types.BucketLocationConstraint(region)}
	}
	if _, err := s.client.CreateBucket(ctx, in); err != nil {
		return false, s.failed(ctx, "CreateBucket", err)
	}
	return true, nil
}

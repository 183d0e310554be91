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

// bootstrap creates the table and the bucket where they are missing, and returns
// when both can be used. It waits a minute for an emulator that is still
// starting, and it refuses to create anything in AWS.
func bootstrap(ctx context.Context, table, bucket, localstackHost string, log *slog.Logger) error {
	cfg, err := loadAWS(ctx, localstackHost, func(string, string, string, int, time.Duration) {}, log)
	if err != nil {
		return &configError{err}
	}
	users, avatars := newDynamoUsers(cfg, table, log), newS3Avatars(cfg, bucket, log)
	if users.client.Options().BaseEndpoint == nil || avatars.client.Options().BaseEndpoint == nil {
		return &configError{errors.New("-bootstrap is for emulators: set AWS_ENDPOINT_URL, or AWS_ENDPOINT_URL_DYNAMODB and AWS_ENDPOINT_URL_S3, or LOCALSTACK_HOST")}
	}
	if err := checkEndpoints(users, avatars); err != nil {
		return &configError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := until(ctx, func() error { return createTable(ctx, users) }); err != nil {
		return fmt.Errorf("table %s: %w", table, err)
	}
	if err := until(ctx, func() error { return createBucket(ctx, avatars, cfg.Region) }); err != nil {
		return fmt.Errorf("bucket %s: %w", bucket, err)
	}
	return nil
}

// until repeats try while it says that the backend is unavailable.
func until(ctx context.Context, try func() error) error {
	for {
		err := try()
		if !errors.Is(err, ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func createTable(ctx context.Context, d *dynamoUsers) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := d.client.CreateTable(call, &dynamodb.CreateTableInput{
		TableName:   &d.table,
		BillingMode: dynamotypes.BillingModePayPerRequest,
		AttributeDefinitions: []dynamotypes.AttributeDefinition{
			{AttributeName: aws.String("id"), AttributeType: dynamotypes.ScalarAttributeTypeS},
		},
		KeySchema: []dynamotypes.KeySchemaElement{
			{AttributeName: aws.String("id"), KeyType: dynamotypes.KeyTypeHash},
		},
	})
	var exists *dynamotypes.ResourceInUseException
	if err != nil && !errors.As(err, &exists) {
		return d.failed(ctx, "CreateTable", err)
	}
	out, err := d.client.DescribeTable(call, &dynamodb.DescribeTableInput{TableName: &d.table})
	if err != nil {
		return d.failed(ctx, "DescribeTable", err)
	}
	if out.Table.TableStatus != dynamotypes.TableStatusActive {
		return fmt.Errorf("%w: its status is %s", ErrUnavailable, out.Table.TableStatus)
	}
	keys := out.Table.KeySchema
	if len(keys) != 1 || aws.ToString(keys[0].AttributeName) != "id" {
		return errors.New("it is there, but its key is not id alone")
	}
	return nil
}

func createBucket(ctx context.Context, s *s3Avatars, region string) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	in := &s3.CreateBucketInput{Bucket: &s.bucket}
	// us-east-1 is the one region that must not be named.
	if region != "us-east-1" {
		in.CreateBucketConfiguration = &s3types.CreateBucketConfiguration{
			LocationConstraint: s3types.BucketLocationConstraint(region),
		}
	}
	_, err := s.client.CreateBucket(call, in)
	var owned *s3types.BucketAlreadyOwnedByYou
	if err != nil && !errors.As(err, &owned) {
		return s.failed(ctx, "CreateBucket", err)
	}
	if _, err := s.client.HeadBucket(call, &s3.HeadBucketInput{Bucket: &s.bucket}); err != nil {
		return s.failed(ctx, "HeadBucket", err)
	}
	return nil
}

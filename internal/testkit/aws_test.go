package testkit

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// servers are clients, and a table and a bucket.
type servers struct {
	dynamo        *dynamodb.Client
	s3            *s3.Client
	table, bucket string
}

func open(dynamoURL, s3URL, key, secret string) servers {
	credentials := func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}, nil
	}
	cfg := aws.Config{Region: "us-east-1", Credentials: aws.CredentialsProviderFunc(credentials)}
	return servers{
		dynamo: dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) { o.BaseEndpoint = &dynamoURL }),
		s3:     s3.NewFromConfig(cfg, func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = &s3URL, true }),
		table:  Table, bucket: Bucket,
	}
}

func openFakes(t *testing.T) servers {
	return open(NewDynamoDB(t).URL, NewS3(t).URL, "roster", "roster-secret")
}

// openReal creates a table and a bucket on the servers that the environment names, if
// any.
func openReal(t *testing.T) servers {
	dynamoURL, s3URL := os.Getenv("ROSTER_TEST_DYNAMODB"), os.Getenv("ROSTER_TEST_S3")
	if dynamoURL == "" || s3URL == "" {
		return servers{}
	}
	s := open(dynamoURL, s3URL, os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"))
	s.table = "roster-" + strings.ToLower(rand.Text())
	s.bucket = s.table
	ctx := context.Background()
	_, tableErr := s.dynamo.CreateTable(ctx, &dynamodb.CreateTableInput{TableName: &s.table,
		BillingMode: dynamotypes.BillingModePayPerRequest,
		AttributeDefinitions: []dynamotypes.AttributeDefinition{{AttributeName: aws.String("id"),
			AttributeType: dynamotypes.ScalarAttributeTypeS}},
		KeySchema: []dynamotypes.KeySchemaElement{{AttributeName: aws.String("id"),
			KeyType: dynamotypes.KeyTypeHash}}})
	_, bucketErr := s.s3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &s.bucket})
	if err := errors.Join(tableErr, bucketErr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.dynamo.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &s.table})
		s.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: aws.String("a")})
		s.s3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &s.bucket})
	})
	return s
}

// TestBadCalls makes calls that DynamoDB and S3 reject. The fakes must return the same
// error codes as real servers.
func TestBadCalls(t *testing.T) {
	servers := map[string]servers{
		"fake":                     openFakes(t),
		"dynamodb-local+versitygw": openReal(t),
	}
	s := func(v string) dynamotypes.AttributeValue { return &dynamotypes.AttributeValueMemberS{Value: v} }
	type item = map[string]dynamotypes.AttributeValue
	key := item{"id": s("a")}
	for _, tt := range []struct {
		name string
		want string
		do   func(context.Context, *dynamodb.Client, *string) error
	}{
		{"PutItem, no such table", "ResourceNotFoundException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("no-such-table"), Item: key})
				return err
			}},
		{"GetItem, no such table", "ResourceNotFoundException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String("no-such-table"), Key: key})
				return err
			}},
		{"Scan, no such table", "ResourceNotFoundException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.Scan(ctx, &dynamodb.ScanInput{TableName: aws.String("no-such-table")})
				return err
			}},
		{"PutItem, no key", "ValidationException", func(ctx context.Context, c *dynamodb.Client, table *string) error {
			_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: table, Item: item{"name": s("b")}})
			return err
		}},
		{"PutItem, empty key", "ValidationException", func(ctx context.Context, c *dynamodb.Client,
			table *string) error {
			_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: table, Item: item{"id": s("")}})
			return err
		}},
		{"PutItem, key of another type", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: table,
					Item: item{"id": &dynamotypes.AttributeValueMemberN{Value: "1"}}})
				return err
			}},
		{"PutItem, a number that is none", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: table,
					Item: item{"id": s("a"), "size": &dynamotypes.AttributeValueMemberN{Value: "large"}}})
				return err
			}},
		{"PutItem, ALL_NEW", "ValidationException", func(ctx context.Context, c *dynamodb.Client, table *string) error {
			_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: table, Item: key,
				ReturnValues: dynamotypes.ReturnValueAllNew})
			return err
		}},
		{"PutItem, a condition that is none", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: table, Item: key,
					ConditionExpression: aws.String("attribute_not_exist(id)")})
				return err
			}},
		{"PutItem, a condition left open", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: table, Item: key,
					ConditionExpression: aws.String("attribute_not_exists(id")})
				return err
			}},
		{"PutItem, an empty condition", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: table, Item: key,
					ConditionExpression: aws.String("")})
				return err
			}},
		{"PutItem, a reserved word in the condition", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: table, Item: key,
					ConditionExpression: aws.String("attribute_not_exists(name)")})
				return err
			}},
		{"UpdateItem, a reserved word", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					UpdateExpression: aws.String("SET name = :n"), ExpressionAttributeValues: item{":n": s("b")}})
				return err
			}},
		{"UpdateItem, an unknown value", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					UpdateExpression: aws.String("SET email = :n"), ExpressionAttributeValues: item{":m": s("b")}})
				return err
			}},
		{"UpdateItem, an unused value", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					UpdateExpression:          aws.String("SET email = :n"),
					ExpressionAttributeValues: item{":n": s("b"), ":m": s("b")}})
				return err
			}},
		{"UpdateItem, an unused name", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					UpdateExpression:         aws.String("REMOVE avatar"),
					ExpressionAttributeNames: map[string]string{"#name": "name"}})
				return err
			}},
		{"UpdateItem, an unknown name", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					UpdateExpression: aws.String("REMOVE #name")})
				return err
			}},
		{"UpdateItem, the key itself", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					UpdateExpression: aws.String("SET id = :n"), ExpressionAttributeValues: item{":n": s("b")}})
				return err
			}},
		{"UpdateItem, one path twice", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					UpdateExpression:          aws.String("SET email = :n REMOVE email"),
					ExpressionAttributeValues: item{":n": s("b")}})
				return err
			}},
		{"UpdateItem, a key with more", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table,
					Key:              item{"id": s("a"), "email": s("b")},
					UpdateExpression: aws.String("REMOVE avatar")})
				return err
			}},
		{"UpdateItem, from a missing attribute", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					UpdateExpression:         aws.String("SET removed = avatar.#key"),
					ExpressionAttributeNames: map[string]string{"#key": "key"}})
				return err
			}},
		{"UpdateItem, a condition on part of a map", "ConditionalCheckFailedException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					ConditionExpression:       aws.String("attribute_not_exists(id) AND avatar.#key = :key"),
					UpdateExpression:          aws.String("REMOVE avatar"),
					ExpressionAttributeNames:  map[string]string{"#key": "key"},
					ExpressionAttributeValues: item{":key": s("a")}})
				return err
			}},
		{"UpdateItem, a reserved word in a path", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					ConditionExpression: aws.String("avatar.key = :key"), UpdateExpression: aws.String("REMOVE avatar"),
					ExpressionAttributeValues: item{":key": s("a")}})
				return err
			}},
		{"UpdateItem of nobody", "ConditionalCheckFailedException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: key,
					ConditionExpression: aws.String("attribute_exists(id)"),
					UpdateExpression:    aws.String("REMOVE avatar")})
				return err
			}},
		{"GetItem, empty key", "ValidationException", func(ctx context.Context, c *dynamodb.Client,
			table *string) error {
			_, err := c.GetItem(ctx, &dynamodb.GetItemInput{TableName: table, Key: item{"id": s("")}})
			return err
		}},
		{"GetItem, another key", "ValidationException", func(ctx context.Context, c *dynamodb.Client,
			table *string) error {
			_, err := c.GetItem(ctx, &dynamodb.GetItemInput{TableName: table, Key: item{"email": s("a")}})
			return err
		}},
		{"Scan from another key", "ValidationException", func(ctx context.Context, c *dynamodb.Client,
			table *string) error {
			_, err := c.Scan(ctx, &dynamodb.ScanInput{TableName: table, ExclusiveStartKey: item{"email": s("a")}})
			return err
		}},
		{"Scan, no limit at all", "ValidationException", func(ctx context.Context, c *dynamodb.Client,
			table *string) error {
			_, err := c.Scan(ctx, &dynamodb.ScanInput{TableName: table, Limit: aws.Int32(0)})
			return err
		}},
		{"a table's name with a slash", "ValidationException",
			func(ctx context.Context, c *dynamodb.Client, table *string) error {
				_, err := c.Scan(ctx, &dynamodb.ScanInput{TableName: aws.String("a/b/c")})
				return err
			}},
		{"CreateTable again", "ResourceInUseException", func(ctx context.Context, c *dynamodb.Client,
			table *string) error {
			_, err := c.CreateTable(ctx, &dynamodb.CreateTableInput{TableName: table,
				BillingMode: dynamotypes.BillingModePayPerRequest,
				AttributeDefinitions: []dynamotypes.AttributeDefinition{{AttributeName: aws.String("id"),
					AttributeType: dynamotypes.ScalarAttributeTypeS}},
				KeySchema: []dynamotypes.KeySchemaElement{{AttributeName: aws.String("id"),
					KeyType: dynamotypes.KeyTypeHash}}})
			return err
		}},
	} {
		for name, server := range servers {
			t.Run("DynamoDB/"+tt.name+"/"+name, func(t *testing.T) {
				if server.dynamo == nil {
					t.Skip("ROSTER_TEST_DYNAMODB and ROSTER_TEST_S3 name no servers; tools/aws-local starts them")
				}
				wantCode(t, tt.do(t.Context(), server.dynamo, &server.table), tt.want)
			})
		}
	}

	for _, tt := range []struct {
		name string
		want string
		do   func(context.Context, *s3.Client, *string) error
	}{
		{"GetObject, no such key", "NoSuchKey", func(ctx context.Context, c *s3.Client, bucket *string) error {
			_, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("avatars/none/none")})
			return err
		}},
		{"GetObject, no such bucket", "NoSuchBucket", func(ctx context.Context, c *s3.Client, bucket *string) error {
			_, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("no-such-bucket"), Key: aws.String("a")})
			return err
		}},
		{"PutObject, no such bucket", "NoSuchBucket", func(ctx context.Context, c *s3.Client, bucket *string) error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("no-such-bucket"), Key: aws.String("a"),
				Body: strings.NewReader("a")})
			return err
		}},
		{"ListObjectsV2, no such bucket", "NoSuchBucket",
			func(ctx context.Context, c *s3.Client, bucket *string) error {
				_, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String("no-such-bucket")})
				return err
			}},
		{"DeleteObject, no such bucket", "NoSuchBucket",
			func(ctx context.Context, c *s3.Client, bucket *string) error {
				_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String("no-such-bucket"),
					Key: aws.String("a")})
				return err
			}},
		{"DeleteObject, no such key", "", func(ctx context.Context, c *s3.Client, bucket *string) error {
			_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("avatars/none/none")})
			return err
		}},
		{"GetObject, a range past the end", "InvalidRange",
			func(ctx context.Context, c *s3.Client, bucket *string) error {
				in := &s3.PutObjectInput{Bucket: bucket, Key: aws.String("a"), Body: strings.NewReader("abc")}
				if _, err := c.PutObject(ctx, in); err != nil {
					return err
				}
				_, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("a"),
					Range: aws.String("bytes=3-4")})
				return err
			}},
		{"PutObject, a checksum of something else", "BadDigest",
			func(ctx context.Context, c *s3.Client, bucket *string) error {
				_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("a"),
					Body:          strings.NewReader("abc"),
					ChecksumCRC32: aws.String("AAAAAA==")})
				return err
			}},
		{"PutObject, a checksum that is none", "InvalidRequest",
			func(ctx context.Context, c *s3.Client, bucket *string) error {
				_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("a"),
					Body:          strings.NewReader("abc"),
					ChecksumCRC32: aws.String("AAAA")})
				return err
			}},
	} {
		for name, server := range servers {
			t.Run("S3/"+tt.name+"/"+name, func(t *testing.T) {
				if server.dynamo == nil {
					t.Skip("ROSTER_TEST_DYNAMODB and ROSTER_TEST_S3 name no servers; tools/aws-local starts them")
				}
				wantCode(t, tt.do(t.Context(), server.s3, &server.bucket), tt.want)
			})
		}
	}
}

func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	api, answered := errors.AsType[smithy.APIError](err)
	switch {
	case want == "" && err != nil:
		t.Errorf("error %v, want none", err)
	case want != "" && !answered:
		t.Errorf("error %v, want the code %s", err, want)
	case want != "" && api.ErrorCode() != want:
		t.Errorf("code %s (%v), want %s", api.ErrorCode(), err, want)
	}
}

package tests

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"roster/internal/testkit"
)

// A backend is a pair of stores that the service can run on.
type backend struct {
	name string
	env  func(testing.TB) []string // for an empty store of its own
}

// backends are the embedded store, the fakes, and the real servers that the
// environment names.
var backends = []backend{
	{"embedded", func(testing.TB) []string { return nil }},
	{"fake", func(t testing.TB) []string {
		dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
		dynamo.Page(10)
		bucket.Page(5)
		return fakeEnv(dynamo, bucket)
	}},
	{"dynamodb-local+versitygw", func(t testing.TB) []string { return realServers(t).env() }},
}

// awsServers are a table and a bucket, and where they are.
type awsServers struct{ dynamoURL, s3URL, table, bucket string }

// env makes a process use them.
func (s awsServers) env() []string {
	env := []string{
		"DYNAMODB_TABLE=" + s.table,
		"S3_BUCKET=" + s.bucket,
		"AWS_ENDPOINT_URL_DYNAMODB=" + s.dynamoURL,
		"AWS_ENDPOINT_URL_S3=" + s.s3URL,
		"AWS_CONFIG_FILE=" + os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
		"AWS_EC2_METADATA_DISABLED=true",
	}
	for name, value := range awsCredentials() {
		env = append(env, name+"="+value)
	}
	return env
}

// awsCredentials are those of the environment where it names real servers: no test
// may find somebody's own account.
func awsCredentials() map[string]string {
	vars := map[string]string{"AWS_ACCESS_KEY_ID": "roster", "AWS_SECRET_ACCESS_KEY": "roster-secret",
		"AWS_REGION": "us-east-1"}
	for name := range vars {
		if value := os.Getenv(name); value != "" && os.Getenv("ROSTER_TEST_S3") != "" {
			vars[name] = value
		}
	}
	return vars
}

// fakeEnv makes a process use the fakes.
func fakeEnv(dynamo *testkit.DynamoDB, bucket *testkit.S3) []string {
	return awsServers{dynamo.URL, bucket.URL, testkit.Table, testkit.Bucket}.env()
}

// realServers makes a table and a bucket of the test's own on the servers that the
// environment names.
func realServers(t testing.TB) awsServers {
	t.Helper()
	name := "roster-" + strings.ToLower(rand.Text())
	s := awsServers{os.Getenv("ROSTER_TEST_DYNAMODB"), os.Getenv("ROSTER_TEST_S3"), name, name}
	if s.dynamoURL == "" || s.s3URL == "" {
		t.Skip("ROSTER_TEST_DYNAMODB and ROSTER_TEST_S3 name no servers; tools/aws-local starts them")
	}
	cmd := command(t, s.env()...)
	cmd.Args = append(cmd.Args, "-bootstrap")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("-bootstrap: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		tables, bucket := s.clients()
		tables.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &s.table})
		objects := s3.NewListObjectsV2Paginator(bucket, &s3.ListObjectsV2Input{Bucket: &s.bucket})
		for objects.HasMorePages() {
			page, err := objects.NextPage(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			for _, object := range page.Contents {
				bucket.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: object.Key})
			}
		}
		bucket.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &s.bucket})
	})
	return s
}

// clients are the SDK's for them, as they come but for options.
func (s awsServers) clients(options ...func(*awsconfig.LoadOptions) error) (*dynamodb.Client, *s3.Client) {
	c := awsCredentials()
	cfg := testkit.Must(awsconfig.LoadDefaultConfig(context.Background(), append(options,
		awsconfig.WithRegion(c["AWS_REGION"]),
		awsconfig.WithCredentialsProvider(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: c["AWS_ACCESS_KEY_ID"], SecretAccessKey: c["AWS_SECRET_ACCESS_KEY"]},
				nil
		})))...))
	return dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) { o.BaseEndpoint = aws.String(s.dynamoURL) }),
		s3.NewFromConfig(cfg, func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = aws.String(s.s3URL), true })
}

// TestReplacedAvatar: an image that one process replaced is never sent by another one,
// even if its object could not be deleted.
func TestReplacedAvatar(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	one, other := start(t, fakeEnv(dynamo, bucket)...), start(t, fakeEnv(dynamo, bucket)...)
	images := [][]byte{testkit.PNG(testkit.Gradient(20, 20, 1)), testkit.PNG(testkit.Gradient(20, 20, 2))}
	u := one.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}},
		[]byte(`{"name":"Anna","email":"anna@example.com"}`)).want(t, http.StatusCreated).user(t)
	bucket.Always("DeleteObject", testkit.Fault{Status: 403, Code: "AccessDenied"})
	put := func(image []byte) userJSON {
		return one.do(t, "PUT /users/"+u.ID+"/avatar", nil, image).want(t, http.StatusOK).user(t)
	}
	get := func(path string, want []byte) {
		t.Helper()
		if a := other.do(t, "GET "+path, nil, nil).want(t, http.StatusOK); a.body != string(want) {
			t.Errorf("%s: %d bytes, want the image of %d", path, len(a.body), len(want))
		}
	}
	first := put(images[0])
	get(first.AvatarURL, images[0])
	other.do(t, "GET "+first.ThumbnailURL, nil, nil).want(t, http.StatusOK)
	second := put(images[1])
	for old, current := range map[string]string{first.AvatarURL: second.AvatarURL,
		first.ThumbnailURL: second.ThumbnailURL} {
		if to := other.do(t, "GET "+old, nil, nil).want(t, http.StatusFound).Header.Get("Location"); to != current {
			t.Errorf("%s redirects to %s, want %s", old, to, current)
		}
	}
	get(second.AvatarURL, images[1])

	// The removal of an image that cannot be deleted is finished by repeating it.
	one.do(t, "DELETE /users/"+u.ID+"/avatar", nil, nil).want(t, http.StatusServiceUnavailable)
	other.do(t, "GET "+second.AvatarURL, nil, nil).want(t, http.StatusNotFound)
	bucket.Clear()
	one.do(t, "DELETE /users/"+u.ID+"/avatar", nil, nil).want(t, http.StatusNoContent)
	one.do(t, "DELETE /users/"+u.ID+"/avatar", nil, nil).want(t, http.StatusNotFound)
	for _, key := range bucket.Keys() {
		if strings.Contains(key, filepath.Base(second.AvatarURL)) {
			t.Errorf("the object %s of the deleted image still exists", key)
		}
	}
}

// TestClientGone: a change whose client has gone is completed, and logged with status 499.
func TestClientGone(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	p := start(t, fakeEnv(dynamo, bucket)...)
	gate := make(chan struct{})
	dynamo.Next("PutItem", testkit.Fault{Gate: gate})
	w := dialWire(t, p.url)
	w.write("POST /user HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n" +
		`{"name":"Ada","email":"ada@example.com"}`)
	testkit.Eventually(t, "PutItem is called", func() error {
		if dynamo.Calls("PutItem") == 0 {
			return errors.New("no call")
		}
		return nil
	})
	w.Close()
	time.Sleep(3 * time.Second) // the service detects the end of the connection
	close(gate)
	testkit.Eventually(t, "POST /user is logged with status 499", func() error {
		if line := p.log.find("request", "method", "POST"); line == nil || line["status"] != 499.0 {
			return fmt.Errorf("the line is %v", line)
		}
		return nil
	})
	p.do(t, "GET /users/"+userID("ada@example.com"), nil, nil).want(t, http.StatusOK)
}

// TestNoCall: HEAD, 304, 412 and 416 of an image need no call to S3.
func TestNoCall(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	p := start(t, fakeEnv(dynamo, bucket)...)
	path := "/users/" + p.create(t, "ada@example.com").ID + "/avatar"
	p.do(t, "PUT "+path, nil, testkit.PNG(testkit.Gradient(20, 20, 1))).want(t, http.StatusOK)
	before := bucket.Calls("GetObject") // of readiness
	etag := p.do(t, "HEAD "+path, nil, nil).want(t, http.StatusOK).Header.Get("ETag")
	p.do(t, "GET "+path, http.Header{"If-None-Match": {etag}}, nil).want(t, http.StatusNotModified)
	p.do(t, "GET "+path, http.Header{"If-Match": {`"x"`}}, nil).want(t, http.StatusPreconditionFailed)
	p.do(t, "GET "+path, http.Header{"Range": {"bytes=9999-"}}, nil).want(t, http.StatusRequestedRangeNotSatisfiable)
	if n := bucket.Calls("GetObject") - before; n != 0 {
		t.Errorf("%d calls of GetObject, want none", n)
	}
	// A store that is down is a 503, not a broken image.
	bucket.Always("GetObject", testkit.Fault{Status: 503, Code: "SlowDown"})
	p.do(t, "GET "+path, nil, nil).want(t, http.StatusServiceUnavailable)
}

// TestHeadFails: HEAD of /users fails where GET fails.
func TestHeadFails(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	p := start(t, fakeEnv(dynamo, bucket)...)
	for _, path := range []string{"/users", "/users?limit=1", "/users?email=a@example.com"} {
		p.do(t, "HEAD "+path, nil, nil).want(t, http.StatusOK)
	}
	dynamo.Always("*", testkit.Fault{Status: 400, Code: "AccessDeniedException"})
	for _, path := range []string{"/users", "/users?limit=1", "/users?email=a@example.com"} {
		p.do(t, "HEAD "+path, nil, nil).want(t, http.StatusServiceUnavailable)
	}
}

// TestBrokenImage: an image that arrives cut, or with another checksum than it was stored
// with, never reaches the client as a complete one.
func TestBrokenImage(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	p := start(t, fakeEnv(dynamo, bucket)...)
	u := p.create(t, "ada@example.com")
	for size, image := range map[string][]byte{
		"small": testkit.PNG(testkit.Gradient(64, 64, 1)),
		"large": testkit.PadPNG(testkit.PNG(testkit.Gradient(64, 64, 1)), 300<<10),
	} {
		path := p.do(t, "PUT /users/"+u.ID+"/avatar", nil, image).want(t, http.StatusOK).user(t).AvatarURL
		for name, fault := range map[string]testkit.Fault{"cut": {Cut: true}, "corrupt": {Corrupt: true}} {
			bucket.Next("GetObject", fault)
			// On a connection of its own: net/http repeats a GET if a used one ends without a response.
			a, err := dialWire(t, p.url).exchange("GET", path, "")
			if err == nil && a.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("%s image, %s by S3: %s and a complete body of %d bytes", size, name, a, len(a.body))
			}
		}
	}
}

package tests

import (
	"bufio"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"roster/internal/fakeaws"
	"roster/internal/testimage"
)

// A backend is a pair of stores that the service can run on.
type backend struct {
	name string
	env  func(testing.TB) []string // configures a service on an empty store
}

// backends are the embedded store, the fakes, and the real servers if the environment
// names them.
var backends = []backend{
	{"embedded", func(testing.TB) []string { return nil }},
	{"fake", func(t testing.TB) []string {
		dynamo, bucket := fakeaws.NewDynamoDB(t), fakeaws.NewS3(t)
		dynamo.Page(10)
		bucket.Page(5)
		return fakeEnv(dynamo, bucket)
	}},
	{"dynamodb-local+versitygw", func(t testing.TB) []string { return realServers(t).env() }},
}

// awsServers are a table and a bucket and their endpoints.
type awsServers struct{ dynamoURL, s3URL, table, bucket string }

// env configures a service on them.
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

// awsCredentials are made up, so that no test uses a real account. Servers named by the
// environment have their own.
func awsCredentials() map[string]string {
	vars := map[string]string{"AWS_ACCESS_KEY_ID": "roster", "AWS_SECRET_ACCESS_KEY": "roster-secret", "AWS_REGION": "us-east-1"}
	for name := range vars {
		if value := os.Getenv(name); value != "" && os.Getenv("ROSTER_TEST_S3") != "" {
			vars[name] = value
		}
	}
	return vars
}

// fakeEnv configures a service on the fakes.
func fakeEnv(dynamo *fakeaws.DynamoDB, bucket *fakeaws.S3) []string {
	return awsServers{dynamo.URL, bucket.URL, fakeaws.Table, fakeaws.Bucket}.env()
}

// realServers creates a table and a bucket for one test, with -bootstrap, on the servers
// that the environment names.
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

// clients are SDK clients with default settings, except for options.
func (s awsServers) clients(options ...func(*awsconfig.LoadOptions) error) (*dynamodb.Client, *s3.Client) {
	c := awsCredentials()
	cfg := must(awsconfig.LoadDefaultConfig(context.Background(), append(options,
		awsconfig.WithRegion(c["AWS_REGION"]),
		awsconfig.WithCredentialsProvider(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: c["AWS_ACCESS_KEY_ID"], SecretAccessKey: c["AWS_SECRET_ACCESS_KEY"]}, nil
		})))...))
	return dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) { o.BaseEndpoint = aws.String(s.dynamoURL) }),
		s3.NewFromConfig(cfg, func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = aws.String(s.s3URL), true })
}

// TestKnownAvatars reads an image by its versioned URL through two processes on the same
// servers. The table is read once per version, and a replaced or deleted image is no
// longer served by the other process.
func TestKnownAvatars(t *testing.T) {
	dynamo, bucket := fakeaws.NewDynamoDB(t), fakeaws.NewS3(t)
	one, other := start(t, fakeEnv(dynamo, bucket)...), start(t, fakeEnv(dynamo, bucket)...)
	images := [][]byte{encodePNG(gradient(20, 20, 1)), encodePNG(gradient(20, 20, 2))}
	u := one.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}}, []byte(`{"name":"Anna","email":"anna@example.com"}`)).want(t, http.StatusCreated).user(t)
	avatar := "/users/" + u.ID + "/avatar"
	put := func(image []byte) (avatarURL string) {
		u := one.do(t, "PUT "+avatar, nil, image).want(t, http.StatusOK).user(t)
		eventually(t, 20*time.Second, "one image is left", func() error {
			if n := len(bucket.Keys()); n != 1 {
				return fmt.Errorf("%d are there", n)
			}
			return nil
		})
		return u.AvatarURL
	}
	get := func(path string, want []byte, wantStatus, wantCalls int) {
		t.Helper()
		before := dynamo.Calls("GetItem")
		if a := other.do(t, "GET "+path, nil, nil).want(t, wantStatus); want != nil && a.body != string(want) {
			t.Error("another image")
		}
		if calls := dynamo.Calls("GetItem") - before; calls != wantCalls {
			t.Errorf("GetItem was called %d times, want %d", calls, wantCalls)
		}
	}
	first := put(images[0])
	get(first, images[0], 200, 1)
	get(first, images[0], 200, 0)
	get(avatar, images[0], 200, 1)
	second := put(images[1])
	get(first, images[1], 200, 1)
	get(first, images[1], 200, 1) // the current image
	get(second, images[1], 200, 0)
	put(images[1]) // the same content, a new object
	get(second, images[1], 200, 1)
	get(second, images[1], 200, 0)
	one.do(t, "DELETE /users/"+u.ID, nil, nil).want(t, http.StatusNoContent)
	get(second, nil, 404, 1)
}

// iamActions are the permissions that AWS requires for a call.
// https://docs.aws.amazon.com/service-authorization/latest/reference/
var iamActions = map[string]string{
	"DynamoDB DeleteItem":        "dynamodb:DeleteItem",
	"DynamoDB GetItem":           "dynamodb:GetItem",
	"DynamoDB PutItem":           "dynamodb:PutItem",
	"DynamoDB Scan":              "dynamodb:Scan",
	"DynamoDB UpdateItem":        "dynamodb:UpdateItem",
	"S3 AbortMultipartUpload":    "s3:AbortMultipartUpload",
	"S3 CompleteMultipartUpload": "s3:PutObject",
	"S3 CreateMultipartUpload":   "s3:PutObject",
	"S3 DeleteObject":            "s3:DeleteObject",
	"S3 GetObject":               "s3:GetObject",
	"S3 ListObjectsV2":           "s3:ListBucket",
	"S3 PutObject":               "s3:PutObject",
	"S3 UploadPart":              "s3:PutObject",
}

// awsCalls are the calls in the metrics of all processes of the test run.
var awsCalls struct {
	sync.Mutex
	seen map[string]bool
}

// noteCalls adds the calls of a process.
func noteCalls(metricsURL string) error {
	resp, err := http.Get(metricsURL)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	count := regexp.MustCompile(`^roster_aws_request_duration_seconds_count\{aws_service="([^"]*)",code="[^"]*",operation="([^"]*)"\}`)
	awsCalls.Lock()
	defer awsCalls.Unlock()
	if awsCalls.seen == nil {
		awsCalls.seen = map[string]bool{}
	}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if m := count.FindStringSubmatch(lines.Text()); m != nil {
			awsCalls.seen[m[1]+" "+m[2]] = true
		}
	}
	return nil
}

// checkPolicy compares the IAM policy in Terraform with the calls that the service made
// in all tests. No permission may be missing and, if all tests ran, none unused.
func checkPolicy() error {
	text, err := os.ReadFile("../terraform/modules/identity/main.tf")
	if err != nil {
		return err
	}
	var allowed, needed []string
	for _, m := range regexp.MustCompile(`"((?:dynamodb|s3):[A-Z][A-Za-z]*)"`).FindAllStringSubmatch(string(text), -1) {
		allowed = append(allowed, m[1])
	}
	awsCalls.Lock()
	defer awsCalls.Unlock()
	for call := range awsCalls.seen {
		action, ok := iamActions[call]
		if !ok {
			return fmt.Errorf("the service calls %s, which no policy foresees", call)
		}
		if !slices.Contains(allowed, action) {
			return fmt.Errorf("the service calls %s, and the policy in terraform/modules/identity does not allow %s", call, action)
		}
		needed = append(needed, action)
	}
	if flag.Lookup("test.run").Value.String() != "" {
		return nil // a part of the tests does not make all calls
	}
	slices.Sort(allowed)
	slices.Sort(needed)
	if diff := cmp.Diff(allowed, slices.Compact(needed)); diff != "" {
		return fmt.Errorf("the policy in terraform/modules/identity allows other actions (-) than the tests saw the service use (+):\n%s", diff)
	}
	return nil
}

// TestMultipartAborted lets a multipart upload fail: it is aborted, and the user keeps
// the previous image.
func TestMultipartAborted(t *testing.T) {
	dynamo, bucket := fakeaws.NewDynamoDB(t), fakeaws.NewS3(t)
	p := start(t, append(fakeEnv(dynamo, bucket), "MAX_AVATAR_BYTES=67108864")...)
	u := p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}}, []byte(`{"name":"Ada","email":"ada@example.com"}`)).want(t, http.StatusCreated).user(t)
	avatar := "/users/" + u.ID + "/avatar"
	small := testimage.Files(t, "../testdata")["ada.png"]
	p.do(t, "PUT "+avatar, nil, small).want(t, http.StatusOK)

	large := testimage.PadPNG(small, 17<<20)
	bucket.Always("UploadPart", fakeaws.Fault{Status: http.StatusInternalServerError, Code: "InternalError"})
	p.do(t, "PUT "+avatar, nil, large).want(t, http.StatusServiceUnavailable)
	if bucket.Calls("AbortMultipartUpload") == 0 {
		t.Error("the parts were left behind")
	}
	if got := p.do(t, "GET "+avatar, nil, nil).want(t, http.StatusOK); got.body != string(small) {
		t.Error("the image from before is gone")
	}
	bucket.Clear()
	p.do(t, "PUT "+avatar, nil, large).want(t, http.StatusOK)
	if got := p.do(t, "GET "+avatar, nil, nil).want(t, http.StatusOK); got.body != string(large) {
		t.Errorf("got %d bytes, want %d", len(got.body), len(large))
	}
}

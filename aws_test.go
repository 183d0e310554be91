package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	gocmp "github.com/google/go-cmp/cmp"

	"roster/internal/testkit"
)

// No test may find somebody's own account: what the servers of a test need comes
// from here.
func init() {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") &&
			name != "AWS_ACCESS_KEY_ID" && name != "AWS_SECRET_ACCESS_KEY" && name != "AWS_REGION" {
			os.Unsetenv(name)
		}
	}
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID":     "roster",
		"AWS_SECRET_ACCESS_KEY": "roster-secret",
		"AWS_REGION":            "us-east-1",
	} {
		if os.Getenv("ROSTER_TEST_S3") == "" || os.Getenv(name) == "" {
			os.Setenv(name, value)
		}
	}
	os.Setenv("AWS_CONFIG_FILE", os.DevNull)
	os.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	os.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// openTestAWS returns the stores on servers of a test.
func openTestAWS(t testing.TB, dynamoURL, s3URL string) (*dynamoUsers, *s3Avatars) {
	t.Helper()
	return openTestAWSWith(t, dynamoURL, s3URL, newMetrics(build{}), slog.New(slog.DiscardHandler))
}

func openTestAWSWith(
	t testing.TB, dynamoURL, s3URL string, m *metrics, log *slog.Logger,
) (*dynamoUsers, *s3Avatars) {
	t.Helper()
	cfg, err := loadAWS(context.Background(), "", m)
	if err != nil {
		t.Fatal(err)
	}
	cfg.BaseEndpoint = &dynamoURL
	users := newDynamoUsers(cfg, testkit.Table, log)
	cfg.BaseEndpoint = &s3URL
	return users, newS3Avatars(cfg, testkit.Bucket, log)
}

// openRealAWS returns the stores on real servers, on a table and a bucket of
// the test's own, made as -bootstrap makes them.
func openRealAWS(t testing.TB, dynamoURL, s3URL string) (*dynamoUsers, *s3Avatars) {
	t.Helper()
	users, avatars := openTestAWS(t, dynamoURL, s3URL)
	users.table = "roster-" + newKey()
	avatars.bucket = users.table
	ctx := context.Background()
	for _, want := range []error{nil, ErrExists} {
		wantError(t, users.createTable(ctx), want)
		wantError(t, avatars.createBucket(ctx), want)
	}
	t.Cleanup(func() {
		users.client.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &users.table})
		pages := s3.NewListObjectsV2Paginator(avatars.client, &s3.ListObjectsV2Input{Bucket: &avatars.bucket})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				break
			}
			for _, object := range page.Contents {
				avatars.delete(ctx, *object.Key)
			}
		}
		avatars.client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &avatars.bucket})
	})
	return users, avatars
}

// tryStores makes the calls of readiness.
func tryStores(ctx context.Context, users Users, avatars Avatars) error {
	return (&server{users: users, avatars: avatars}).tryReady(ctx)
}

// A testServer is a pair of servers that a test may run on.
type testServer struct {
	name string
	open func(t testing.TB) (*dynamoUsers, *s3Avatars)
}

// testServers are the fakes, and the real ones that the environment names.
var testServers = []testServer{
	{"fake", func(t testing.TB) (*dynamoUsers, *s3Avatars) {
		dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
		dynamo.Page(10)
		bucket.Page(5)
		return openTestAWS(t, dynamo.URL, bucket.URL)
	}},
	{"dynamodb-local+versitygw", func(t testing.TB) (*dynamoUsers, *s3Avatars) {
		dynamoURL, s3URL := os.Getenv("ROSTER_TEST_DYNAMODB"), os.Getenv("ROSTER_TEST_S3")
		if dynamoURL == "" || s3URL == "" {
			t.Skip("ROSTER_TEST_DYNAMODB and ROSTER_TEST_S3 name no servers; tools/aws-local starts them")
		}
		return openRealAWS(t, dynamoURL, s3URL)
	}},
}

func TestOpenAWS(t *testing.T) {
	for _, tt := range []struct {
		name                string
		env                 map[string]string
		localstack          string
		dynamodb, s3, error string
		pathStyle           bool
	}{
		{name: "AWS itself"},
		{name: "one endpoint", env: map[string]string{"AWS_ENDPOINT_URL": "http://one:1"},
			dynamodb: "http://one:1", s3: "http://one:1", pathStyle: true},
		{name: "LOCALSTACK_HOST", localstack: "https://stack:1",
			dynamodb: "https://stack:1", s3: "https://stack:1", pathStyle: true},
		{name: "LOCALSTACK_HOST without a scheme", localstack: "stack:1",
			dynamodb: "http://stack:1", s3: "http://stack:1", pathStyle: true},
		{name: "LOCALSTACK_HOST without a port", localstack: "stack",
			dynamodb: "http://stack:4566", s3: "http://stack:4566", pathStyle: true},
		{name: "AWS_ENDPOINT_URL before LOCALSTACK_HOST", localstack: "http://stack:4566",
			env:      map[string]string{"AWS_ENDPOINT_URL": "http://one:1"},
			dynamodb: "http://one:1", s3: "http://one:1", pathStyle: true},
		{name: "a service's own first", localstack: "http://stack:4566",
			env:      map[string]string{"AWS_ENDPOINT_URL_S3": "http://two:2"},
			dynamodb: "http://stack:4566", s3: "http://two:2", pathStyle: true},
		{name: "DynamoDB's own only", env: map[string]string{"AWS_ENDPOINT_URL_DYNAMODB": "http://two:2"},
			dynamodb: "http://two:2"},
		{name: "no URL", env: map[string]string{"AWS_ENDPOINT_URL": "localhost:4566"}, error: "AWS endpoint"},
		{name: "no http", localstack: "ftp://stack", error: "AWS endpoint"},
		{name: "no host in a URL", localstack: "http://", error: "AWS endpoint"},
		{name: "no host", localstack: "/", error: "AWS endpoint"},
		{name: "no region", env: map[string]string{"AWS_REGION": ""}, error: "AWS_REGION"},
		{name: "a new partition", env: map[string]string{"AWS_REGION": "eusc-de-east-1"}},
		{name: "a partition of its own", env: map[string]string{"AWS_REGION": "us-gov-west-1"}},
		{name: "a zone", env: map[string]string{"AWS_REGION": "us-east-1a"},
			error: `"us-east-1a" is not an AWS region`},
		{name: "a word", env: map[string]string{"AWS_REGION": "Frankfurt"}, error: "not an AWS region"},
		{name: "a region cut short", env: map[string]string{"AWS_REGION": "eu-central"}, error: "not an AWS region"},
		{name: "a region with a space", env: map[string]string{"AWS_REGION": "eu-central-1 "},
			error: "not an AWS region"},
		{name: "an endpoint for one service only, and no region of AWS",
			env:   map[string]string{"AWS_ENDPOINT_URL_S3": "http://two:2", "AWS_REGION": "garage"},
			error: "not an AWS region"},
		{name: "a region of an emulator", env: map[string]string{"AWS_ENDPOINT_URL": "http://one:1",
			"AWS_REGION": "garage"},
			dynamodb: "http://one:1", s3: "http://one:1", pathStyle: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			var log bytes.Buffer
			users, avatars, err := openAWS(t.Context(), config{Table: "table", Bucket: "bucket",
				LocalStackHost: tt.localstack},
				slog.New(slog.NewTextHandler(&log, nil)), newMetrics(build{}))
			if tt.error != "" {
				if err == nil || !strings.Contains(err.Error(), tt.error) {
					t.Errorf("error %v, want one about %s", err, tt.error)
				}
				return
			}
			wantError(t, err, nil)
			if got := aws.ToString(users.client.Options().BaseEndpoint); got != tt.dynamodb {
				t.Errorf("DynamoDB at %q, want %q", got, tt.dynamodb)
			}
			options := avatars.client.Options()
			if got := aws.ToString(options.BaseEndpoint); got != tt.s3 {
				t.Errorf("S3 at %q, want %q", got, tt.s3)
			}
			if options.UsePathStyle != tt.pathStyle {
				t.Errorf("path style %t, want %t", options.UsePathStyle, tt.pathStyle)
			}
			for _, want := range []string{"table=table", "bucket=bucket", "region=" + options.Region, tt.dynamodb,
				tt.s3} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("the log does not contain %q: %s", want, &log)
				}
			}
		})
	}
}

func TestBootstrap(t *testing.T) {
	var lines bytes.Buffer
	log := slog.New(slog.NewTextHandler(&lines, nil))
	c := config{Table: "new-table", Bucket: "new-bucket"}
	if err := bootstrap(t.Context(), c, log); err == nil || !strings.Contains(err.Error(), "AWS_ENDPOINT_URL") {
		t.Errorf("without an endpoint: error %v, want a refusal", err)
	}
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	t.Setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamo.URL)
	if err := bootstrap(t.Context(), c, log); err == nil || !strings.Contains(err.Error(), "AWS_ENDPOINT_URL") {
		t.Errorf("without an endpoint of S3: error %v, want a refusal", err)
	}
	t.Setenv("AWS_ENDPOINT_URL_S3", strings.TrimPrefix(bucket.URL, "http://"))
	err := bootstrap(t.Context(), c, log)
	if _, ok := errors.AsType[*configError](err); !ok {
		t.Errorf("with an endpoint that is no URL: error %v, want one of the configuration", err)
	}
	t.Setenv("AWS_ENDPOINT_URL_S3", bucket.URL)
	// An emulator that is still starting.
	dynamo.Next("CreateTable", slices.Repeat([]testkit.Fault{{Drop: true}}, maxAttempts+1)...)
	for _, want := range [][]string{
		{"AWS call failed", "created the table", "name=new-table", "created the bucket", "name=new-bucket"},
		{"the table exists", "name=new-table", "the bucket exists", "name=new-bucket"},
	} {
		lines.Reset()
		wantError(t, bootstrap(t.Context(), c, log), nil)
		for _, line := range want {
			if !strings.Contains(lines.String(), line) {
				t.Errorf("the log does not contain %q:\n%s", line, &lines)
			}
		}
	}
	users, avatars, err := openAWS(t.Context(), c, log, newMetrics(build{}))
	wantError(t, err, nil)
	wantError(t, tryStores(t.Context(), users, avatars), nil)
}

// TestReadyNames says which of table and bucket is missing.
func TestReadyNames(t *testing.T) {
	for _, server := range testServers {
		t.Run(server.name, func(t *testing.T) {
			users, avatars := server.open(t)
			table, bucket := users.table, avatars.bucket
			t.Cleanup(func() { users.table, avatars.bucket = table, bucket })
			users.table, avatars.bucket = "missing-table", "missing-bucket"
			users.log.target, avatars.log.target = "table missing-table", "bucket missing-bucket"
			err := tryStores(t.Context(), users, avatars)
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "missing-table") {
				t.Errorf("error %v, want one that names the table", err)
			}
			users.table = table
			err = tryStores(t.Context(), users, avatars)
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "missing-bucket") {
				t.Errorf("error %v, want one that names the bucket", err)
			}
		})
	}
}

// TestCredentials has none, and then ones that are refused: the log says at
// which operation, and shows no key.
func TestCredentials(t *testing.T) {
	ctx := t.Context()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	u := testUser("anna@example.com")
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	check := func(err error, operation string) {
		t.Helper()
		wantError(t, err, ErrUnavailable)
		if !strings.Contains(log.String(), operation) {
			t.Errorf("the log does not name %s: %s", operation, &log)
		}
		for _, secret := range []string{"AKIAEXAMPLEKEY", "example-secret", "example-token", "quoted"} {
			if strings.Contains(log.String()+err.Error(), secret) {
				t.Errorf("%s is told: %v\n%s", secret, err, &log)
			}
		}
		log.Reset()
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEKEY")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "example-secret")
	t.Setenv("AWS_SESSION_TOKEN", "example-token")
	users, avatars := openTestAWSWith(t, dynamo.URL, bucket.URL, newMetrics(build{}), logger)
	for _, code := range []string{"ExpiredTokenException", "UnrecognizedClientException", "AccessDeniedException",
		"InvalidSignatureException"} {
		dynamo.Next("PutItem", testkit.Fault{Status: 400, Code: code})
		check(users.Create(ctx, u), "PutItem")
	}
	for _, code := range []string{"ExpiredToken", "InvalidAccessKeyId", "AccessDenied", "SignatureDoesNotMatch"} {
		bucket.Next("DeleteObject", testkit.Fault{Status: 403, Code: code})
		check(avatars.Delete(ctx, u.ID, "key"), "DeleteObject")
	}
	if dynamo.Count() != 0 {
		t.Error("something was stored")
	}

	os.Unsetenv("AWS_ACCESS_KEY_ID")
	os.Unsetenv("AWS_SECRET_ACCESS_KEY")
	os.Unsetenv("AWS_SESSION_TOKEN")
	users, avatars = openTestAWSWith(t, dynamo.URL, bucket.URL, newMetrics(build{}), logger)
	_, err := users.Get(ctx, u.ID)
	for _, want := range []string{"code=credentials", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "role"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("without credentials, the log does not have %q: %s", want, &log)
		}
	}
	check(err, "GetItem")
	check(avatars.Put(ctx, u.ID, "key", "image/png", nil), "PutObject")
}

// TestCodes compares the codes in the runbook with those of the program: its own words, and the codes of AWS, which it
// passes on.
func TestCodes(t *testing.T) {
	runbook := string(testkit.Must(os.ReadFile("docs/operations.md")))
	alerts := string(testkit.Must(os.ReadFile("chart/files/alerts.yaml")))
	codes := regexp.MustCompile(`roster_aws_request_duration_seconds_count{code=~"(.*?)"}`)
	throttled := regexp.MustCompile("^(" + codes.FindStringSubmatch(alerts)[1] + ")$")
	_, table, _ := strings.Cut(runbook, "### RosterBackendFailing")
	table, _, _ = strings.Cut(table, "\n### ")

	own := map[string]bool{} // the program's own words
	for _, err := range []error{
		errors.New("an error"), io.ErrUnexpectedEOF, &url.Error{Err: errors.New("refused")}, context.DeadlineExceeded,
		os.ErrDeadlineExceeded,
		fmt.Errorf("get identity: get credentials: %w", context.DeadlineExceeded),
		&processcreds.ProviderError{Err: errors.New("exit status 1")},
	} {
		code, _ := describeAWS(err)
		own[code] = false
	}
	n := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*`) \\| (.*) \\|$").FindAllStringSubmatch(table, -1) {
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			n++
			code := strings.TrimRight(m[1], "….")
			if code == strings.ToLower(code) {
				if _, known := own[code]; !known {
					t.Errorf("the program has no code %s, which the runbook explains", code)
				}
				own[code] = true
				continue
			}
			if got, _ := describeAWS(&smithy.GenericAPIError{Code: code}); got != code {
				t.Errorf("the code of %s is %s", code, got)
			}
			if want := strings.Contains(row[2], "#rosterbackendthrottled"); throttled.MatchString(code) != want {
				t.Errorf("RosterBackendThrottled counts %s: %t, want %t as in the runbook", code, !want, want)
			}
		}
	}
	if n < 15 {
		t.Errorf("%d codes in the runbook, want at least 15", n)
	}
	for code, explained := range own {
		if !explained {
			t.Errorf("the runbook does not explain the code %s", code)
		}
	}
}

// TestRefusals: whatever AWS refuses is unavailability, and the log names the
// cause, for a wrong region also the right one.
func TestRefusals(t *testing.T) {
	ctx := t.Context()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	for _, tt := range []struct {
		status       int
		code, region string
	}{
		{301, "PermanentRedirect", "eu-west-1"},
		{400, "AuthorizationHeaderMalformed", "eu-west-1"},
		{400, "KMS.DisabledException", ""},
		{403, "AccessDenied", ""},
		{404, "NoSuchBucket", ""},
		{400, "InvalidRequest", ""},
		{409, "OperationAborted", ""},
	} {
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, nil))
		_, avatars := openTestAWSWith(t, dynamo.URL, bucket.URL, newMetrics(build{}), logger)
		bucket.Next("PutObject", testkit.Fault{Status: tt.status, Code: tt.code, Region: tt.region})
		err := avatars.Put(ctx, "id", "key", "image/png", []byte("image"))
		wantError(t, err, ErrUnavailable)
		for _, want := range []string{tt.code, tt.region, "PutObject", avatars.bucket} {
			if !strings.Contains(log.String(), want) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: neither the log nor the error may lack %q: %v\n%s", tt.code, want, err, &log)
			}
		}
	}
}

// TestLogOnce: an outage logs one line for each service, and each missing
// permission one.
func TestLogOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	u := testUser("anna@example.com")
	for _, tt := range []struct {
		name  string
		fault testkit.Fault
		lines int
	}{
		{"outage", testkit.Fault{Drop: true}, 2},
		{"wrong region", testkit.Fault{Status: 400, Code: "ResourceNotFoundException"}, 2},
		{"no permission", testkit.Fault{Status: 400, Code: "AccessDeniedException"}, 5},
	} {
		var log bytes.Buffer
		users, avatars := openTestAWSWith(t, dynamo.URL, bucket.URL, newMetrics(build{}),
			slog.New(slog.NewTextHandler(&log, nil)))
		dynamo.Always("*", tt.fault)
		bucket.Always("*", tt.fault)
		for range 3 {
			users.Get(ctx, u.ID)
			users.Create(ctx, u)
			listAll(ctx, users)
			avatars.Put(ctx, u.ID, "key", "image/png", nil)
			avatars.DeleteStale(ctx, u.ID, time.Now())
		}
		if want := `code=connection error="Post \"` + dynamo.URL; tt.name == "outage" &&
			!strings.Contains(log.String(), want) {
			t.Errorf("the log does not contain %s:\n%s", want, &log)
		}
		if got := strings.Count(log.String(), "\n"); got != tt.lines {
			t.Errorf("%s: %d lines, want %d:\n%s", tt.name, got, tt.lines, &log)
		}
	}
}

// TestLogInterval: a failure is logged once however many calls fail at the same time, and then at most once a minute
// for each code.
func TestLogInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		l := awsLog{Logger: slog.New(slog.NewTextHandler(&lines, nil))}
		for i, want := range []int{1, 0, 0, 1} {
			testkit.Together(20, func(n int) {
				code := []string{"Throttled", "other"}[n%2]
				l.failed(t.Context(), "GetItem", &smithy.GenericAPIError{Code: code})
			})
			for _, code := range []string{"Throttled", "other"} {
				if got := strings.Count(lines.String(), "code="+code); got != want {
					t.Errorf("%d lines of %s after %d s, want %d", got, code, 20*i, want)
				}
			}
			lines.Reset()
			time.Sleep(20 * time.Second)
		}
	})
}

// TestCredentialProcess: what a credential_process prints may be a secret.
func TestCredentialProcess(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	for _, output := range []string{"example-secret", `{"Version": 1, "Expiration": "example-secret"}`,
		`{"Version": 1, "AccessKeyId": "example-secret"}`} {
		file := filepath.Join(t.TempDir(), "config")
		wantError(t, os.WriteFile(file, []byte("[default]\ncredential_process = echo '"+output+"'\n"), 0o600), nil)
		t.Setenv("AWS_CONFIG_FILE", file)
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		dynamo := testkit.NewDynamoDB(t)
		users, _ := openTestAWSWith(t, dynamo.URL, dynamo.URL, newMetrics(build{}), logger)
		_, err := users.Get(t.Context(), "id")
		wantError(t, err, ErrUnavailable)
		if all := log.String() + err.Error(); strings.Contains(all, "example-secret") ||
			!strings.Contains(log.String(), "credential_process") {
			t.Errorf("the log contains the output or does not name credential_process: %v\n%s", err, &log)
		}
	}
}

// TestRetrySettings sets the attempts and the mode of the SDK's retries.
func TestRetrySettings(t *testing.T) {
	t.Setenv("AWS_MAX_ATTEMPTS", "2")
	dynamo := testkit.NewDynamoDB(t)
	users, _ := openTestAWS(t, dynamo.URL, dynamo.URL)
	dynamo.Always("*", testkit.Fault{Status: 400, Code: "ThrottlingException"})
	_, err := users.Get(t.Context(), "id")
	wantError(t, err, ErrUnavailable)
	wantError(t, users.Create(t.Context(), testUser("anna@example.com")), ErrUnavailable)
	if reads, writes := dynamo.Calls("GetItem"), dynamo.Calls("PutItem"); reads != 2 || writes != 2 {
		t.Errorf("%d reads and %d writes, want 2 attempts of each", reads, writes)
	}

	t.Setenv("AWS_MAX_ATTEMPTS", "")
	t.Setenv("AWS_RETRY_MODE", "adaptive")
	users, _ = openTestAWS(t, dynamo.URL, dynamo.URL)
	if retryer, ok := users.client.Options().Retryer.(*retry.AdaptiveMode); !ok {
		t.Errorf("the retryer is a %T", retryer)
	}
	dynamo.Clear()
	wantError(t, users.Create(t.Context(), testUser("anna@example.com")), nil)
}

// TestPermissions compares the calls that the stores make with the permissions in
// docs/security.md and in Terraform's policy.
func TestPermissions(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	m := newMetrics(build{})
	users, avatars := openTestAWSWith(t, dynamo.URL, bucket.URL, m, slog.New(slog.DiscardHandler))
	testStore(t, users, avatars)
	used := map[string]bool{}
	for call := range awsCalls(t, m) {
		service, operation, _ := strings.Cut(strings.Fields(call)[0], "/")
		action := map[string]string{"ListObjectsV2": "ListBucket"}[operation]
		used[strings.ToLower(service)+":"+cmp.Or(action, operation)] = true
	}
	for file, action := range map[string]string{
		"docs/security.md":                   "(?m)^\\| `((?:dynamodb|s3):[A-Za-z]+)`",
		"terraform/modules/identity/main.tf": `"((?:dynamodb|s3):[A-Z][A-Za-z]*)"`,
	} {
		text, err := os.ReadFile(file)
		wantError(t, err, nil)
		granted := map[string]bool{}
		for _, m := range regexp.MustCompile(action).FindAllSubmatch(text, -1) {
			granted[string(m[1])] = true
		}
		if diff := gocmp.Diff(granted, used); diff != "" {
			t.Errorf("permissions in %s and calls of the stores (-%[1]s +calls):\n%s", file, diff)
		}
	}
}

// awsCalls returns the number of calls to AWS by service, operation and code, and that of retries by
// service and operation.
func awsCalls(t *testing.T, m *metrics) map[string]int {
	t.Helper()
	families, err := m.registry.Gather()
	wantError(t, err, nil)
	calls := map[string]int{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			call := labels["aws_service"] + "/" + labels["operation"]
			switch family.GetName() {
			case "roster_aws_request_duration_seconds":
				calls[call+" "+labels["code"]] = int(metric.GetHistogram().GetSampleCount())
			case "roster_aws_request_retries_total":
				calls[call+" retries"] = int(metric.GetCounter().GetValue())
			}
		}
	}
	return calls
}

// TestObserve counts calls, attempts and codes. It is not parallel: beside others, a call may time out.
func TestObserve(t *testing.T) {
	ctx := t.Context()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	m := newMetrics(build{})
	users, avatars := openTestAWSWith(t, dynamo.URL, bucket.URL, m, slog.New(slog.DiscardHandler))
	u := testUser("anna@example.com")
	a := testAvatar([]byte("image"))

	dynamo.Next("PutItem", testkit.Fault{Status: 400, Code: "ThrottlingException"},
		testkit.Fault{Status: 400, Code: "ThrottlingException"})
	users.Create(ctx, u)
	users.Create(ctx, u)
	bucket.Next("PutObject", testkit.Fault{Drop: true})
	avatars.Put(ctx, u.ID, a.Key, a.Type, []byte("image"))
	for range maxAttempts {
		bucket.Next("GetObject", testkit.Fault{Status: 503, Code: "SlowDown"})
		dynamo.Next("GetItem", testkit.Fault{Drop: true})
	}
	avatars.Get(ctx, u.ID, a.Key, 0)
	users.Get(ctx, u.ID)
	dynamo.Next("Scan", testkit.Fault{Hang: true})
	soon, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	users.Page(soon, "", 10)

	if diff := gocmp.Diff(map[string]int{
		"DynamoDB/PutItem OK":                              1,
		"DynamoDB/PutItem ConditionalCheckFailedException": 1,
		"DynamoDB/PutItem retries":                         2,
		"S3/PutObject OK":                                  1,
		"S3/PutObject retries":                             1,
		"S3/GetObject SlowDown":                            1,
		"S3/GetObject retries":                             3,
		"DynamoDB/GetItem connection":                      1,
		"DynamoDB/GetItem retries":                         3,
		"DynamoDB/Scan timeout":                            1,
		"DynamoDB/Scan retries":                            0,
	}, awsCalls(t, m)); diff != "" {
		t.Errorf("calls observed (-want +got):\n%s", diff)
	}
}

// TestClockSkew has a server whose clock is half an hour off.
func TestClockSkew(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	dynamo.Skew, bucket.Skew = 30*time.Minute, -30*time.Minute
	users, avatars := openTestAWS(t, dynamo.URL, bucket.URL)
	u := testUser("anna@example.com")
	image := []byte("image")
	u.Avatar = testAvatar(image)
	wantError(t, avatars.Put(ctx, u.ID, u.Avatar.Key, u.Avatar.Type, image), nil)
	wantError(t, users.Create(ctx, u), nil)
	_, _, err := users.Update(ctx, u.ID, Change{RemoveAvatar: true, At: u.CreatedAt}, Condition{})
	wantError(t, err, nil)
}

// TestBackoff has more attempts than bits: AWS_MAX_ATTEMPTS has no limit.
func TestBackoff(t *testing.T) {
	t.Parallel()
	options := retry.StandardOptions{}
	retryOptions(&options)
	for attempt := range 100 {
		d, err := options.Backoff.BackoffDelay(attempt, nil)
		if err != nil || d < 0 || d >= time.Second {
			t.Fatalf("delay after attempt %d: %v, error %v, want less than a second", attempt, d, err)
		}
	}
}

// TestUnreachable has servers that refuse, hang and do not route.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	hanging := testkit.NewDynamoDB(t)
	hanging.Always("*", testkit.Fault{Hang: true})
	hangingS3 := testkit.NewS3(t)
	hangingS3.Always("*", testkit.Fault{Hang: true})
	// A listener that accepts nothing: its backlog takes the connection.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })

	var calls sync.WaitGroup
	for _, tt := range []struct{ name, dynamo, s3 string }{
		{"refused", "http://127.0.0.1:1", "http://127.0.0.1:1"},
		{"hanging", hanging.URL, hangingS3.URL},
		{"silent", "http://" + silent.Addr().String(), "http://" + silent.Addr().String()},
	} {
		users, avatars := openTestAWS(t, tt.dynamo, tt.s3)
		u := testUser("anna@example.com")
		a := testAvatar([]byte("image"))
		for name, do := range map[string]func(context.Context) error{
			"Create": func(ctx context.Context) error { return users.Create(ctx, u) },
			"Get":    func(ctx context.Context) error { _, err := users.Get(ctx, u.ID); return err },
			"List":   func(ctx context.Context) error { _, err := listAll(ctx, users); return err },
			"Update": func(ctx context.Context) error {
				_, _, err := users.Update(ctx, u.ID, Change{Name: "A", At: u.CreatedAt}, Condition{})
				return err
			},
			"Delete": func(ctx context.Context) error { _, err := users.Delete(ctx, u, Condition{}); return err },
			"avatar Get": func(ctx context.Context) error {
				_, err := avatars.Get(ctx, u.ID, a.Key, 0)
				return err
			},
			"avatar Delete": func(ctx context.Context) error { return avatars.Delete(ctx, u.ID, a.Key) },
			"avatar DeleteStale": func(ctx context.Context) error {
				return avatars.DeleteStale(ctx, u.ID, u.CreatedAt)
			},
		} {
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 8*callTimeout)
				defer cancel()
				start := time.Now()
				if err := do(ctx); !errors.Is(err, ErrUnavailable) {
					t.Errorf("%s, %s: error %v, want %v", tt.name, name, err, ErrUnavailable)
				}
				// A call is late on a busy machine. With a timeout for each attempt, it would take four times as long.
				if d := time.Since(start); d > 2*callTimeout {
					t.Errorf("%s, %s: took %s, want about %s", tt.name, name, d, callTimeout)
				}
			})
		}
	}
	calls.Wait()
}

package tests

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"roster/internal/fakeaws"
	"roster/internal/testimage"
)

// iamActions are the permissions that AWS asks for a call of the SDK.
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

// awsCalls are the calls that the processes of all tests have counted in their
// metrics.
var awsCalls struct {
	sync.Mutex
	seen map[string]bool
}

// noteCalls remembers which calls to AWS a process has made.
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

// checkPolicy holds the policy that Terraform gives to the pods against the calls
// that the service made over all tests: nothing is missing from it, and, if all
// tests ran, nothing is in it that the service does not need.
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
		return nil // of some of the tests one cannot say more
	}
	slices.Sort(allowed)
	slices.Sort(needed)
	if diff := cmp.Diff(allowed, slices.Compact(needed)); diff != "" {
		return fmt.Errorf("the policy in terraform/modules/identity allows other actions (-) than the tests saw the service use (+):\n%s", diff)
	}
	return nil
}

// TestMultipartAborted breaks an upload that goes in parts: what S3 has of it is
// given up, and the user keeps the image from before.
func TestMultipartAborted(t *testing.T) {
	dynamo, bucket := fakeaws.NewDynamoDB(t), fakeaws.NewS3(t)
	p := start(t, append(fakeEnv(dynamo, bucket), "MAX_AVATAR_BYTES=67108864")...)
	u := p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}}, []byte(`{"name":"Ada","email":"ada@example.com"}`)).want(t, http.StatusCreated).user(t)
	avatar := "/users/" + u.ID + "/avatar"
	small := testimage.Files(t, "../testdata")["ada.png"]
	p.do(t, "PUT "+avatar, nil, small).want(t, http.StatusOK)

	// A decoder stops at the last byte of an image, and may find more behind it.
	large := append(bytes.Clone(small), make([]byte, 17<<20)...)
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
	if got := p.do(t, "GET "+avatar, nil, nil).want(t, http.StatusOK); !strings.HasPrefix(got.body, string(small)) || len(got.body) != len(large) {
		t.Errorf("got %d bytes, want %d", len(got.body), len(large))
	}
}

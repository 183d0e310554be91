package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/time/rate"
)

const (
	callTimeout = 5 * time.Second  // all attempts; half of the time that a request has
	putTimeout  = 20 * time.Second // for an image
	maxAttempts = 4
)

// loadAWS reads the configuration as every AWS program does, and adds what both clients share.
func loadAWS(ctx context.Context, localstackHost string, m *metrics) (aws.Config, error) {
	cfg, err := awsconfig.LoadDefaultConfig(ctx,
		awsconfig.WithHTTPClient(newAWSClient()),
		awsconfig.WithLogger(logging.Nop{}), // the default writes lines without a format
		awsconfig.WithAPIOptions([]func(*middleware.Stack) error{func(stack *middleware.Stack) error {
			return stack.Initialize.Add(measure(m), middleware.Before)
		}}),
	)
	if err != nil {
		return aws.Config{}, fmt.Errorf("AWS configuration: %w", err)
	}
	if localstackHost != "" && cfg.BaseEndpoint == nil {
		if !strings.Contains(localstackHost, ":") { // neither a scheme nor a port
			localstackHost += ":4566"
		}
		if !strings.Contains(localstackHost, "://") {
			localstackHost = "http://" + localstackHost
		}
		cfg.BaseEndpoint = &localstackHost
	}
	// Not with WithRetryer: it makes the SDK ignore AWS_MAX_ATTEMPTS and AWS_RETRY_MODE.
	cfg.Retryer = func() aws.Retryer {
		if cfg.RetryMode == aws.RetryModeAdaptive {
			return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) {
				o.StandardOptions = append(o.StandardOptions, retryOptions)
			})
		}
		return retry.NewStandard(retryOptions)
	}
	return cfg, nil
}

// awsRegion matches names such as us-gov-west-1, but not those of zones.
var awsRegion = regexp.MustCompile(`^[a-z]+(-[a-z]+)+-[0-9]+$`)

// checkTarget checks the endpoint, if any, and the region. Emulators accept any region.
func checkTarget(endpoint *string, region string) error {
	if region == "" || endpoint == nil && !awsRegion.MatchString(region) {
		return fmt.Errorf("%q is not an AWS region: set AWS_REGION to one such as eu-central-1", region)
	}
	u, err := url.Parse(aws.ToString(endpoint))
	if endpoint != nil && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
		return fmt.Errorf("AWS endpoint: %q is not a URL such as http://localhost:4566", *endpoint)
	}
	return nil
}

func newAWSClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithDialerOptions(func(d *net.Dialer) {
		d.Timeout = time.Second // DNS included; the endpoints are in the same region
	}).WithTransportOptions(func(t *http.Transport) {
		t.TLSHandshakeTimeout = 2 * time.Second
		t.ResponseHeaderTimeout = 3 * time.Second // from the last byte of the request
		// Further calls wait. With the SDK's ten idle connections, most calls would dial.
		t.MaxConnsPerHost, t.MaxIdleConnsPerHost, t.MaxIdleConns = 512, 512, 1024
		t.IdleConnTimeout = 15 * time.Second // before servers do: some requests are not retried
	})
}

// retryOptions shortens the back-off: the SDK's begins at up to two seconds.
func retryOptions(o *retry.StandardOptions) {
	o.MaxAttempts = maxAttempts
	o.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
		return rand.N(min(50*time.Millisecond<<min(attempt, 5), time.Second)), nil // #nosec G404 -- jitter is no secret
	})
	// To the SDK, a truncated response is not a connection error.
	o.Retryables = append(o.Retryables, retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
		return aws.BoolTernary(errors.Is(err, io.ErrUnexpectedEOF))
	}))
}

// call makes one call, all attempts within the timeout.
func call[In, Out, Options any](
	ctx context.Context, log *awsLog, operation string, timeout time.Duration,
	do func(context.Context, In, ...func(*Options)) (Out, error), in In, options ...func(*Options),
) (Out, error) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out, err := do(bounded, in, options...)
	if err != nil {
		return out, log.failed(ctx, operation, err)
	}
	return out, nil
}

// measure records each operation in the metrics. The code is "OK" or that of the error.
func measure(m *metrics) middleware.InitializeMiddleware {
	return middleware.InitializeMiddlewareFunc("Measure", func(
		ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
	) (middleware.InitializeOutput, middleware.Metadata, error) {
		start := time.Now()
		out, metadata, err := next.HandleInitialize(ctx, in)
		attempts, _ := retry.GetAttemptResults(metadata)
		code, _ := describeAWS(err)
		service, operation := awsmiddleware.GetServiceID(ctx), awsmiddleware.GetOperationName(ctx)
		m.awsDuration.WithLabelValues(service, operation, code).Observe(time.Since(start).Seconds())
		retries := max(len(attempts.Results)-1, 0)
		m.awsRetries.WithLabelValues(service, operation).Add(float64(retries))
		return out, metadata, err
	})
}

// secretMessages matches the codes whose messages quote what was signed or a token.
var secretMessages = regexp.MustCompile(
	"AccessKeyId|AuthFailure|AuthenticationToken|InvalidSecurity|InvalidToken|Signature|TokenId|UnrecognizedClient")

// describeAWS returns the error code of AWS, or a word for an error without one,
// and the cause as the operator needs it, without secrets.
func describeAWS(err error) (code, cause string) {
	_, process := errors.AsType[*processcreds.ProviderError](err)
	api, answered := errors.AsType[smithy.APIError](err)
	send, sending := errors.AsType[*url.Error](err)
	timeout, isNet := errors.AsType[net.Error](err)
	code, cause = "error", fmt.Sprint(err)
	if sending {
		code, cause = "connection", send.Error() // without the SDK's prefixes
	}
	switch {
	case err == nil:
		return "OK", ""
	case process: // it quotes the output, perhaps a secret
		return "credentials", "credential_process failed, or its output is not valid"
	case answered:
		code, cause = api.ErrorCode(), api.ErrorCode()
		if !secretMessages.MatchString(code) {
			cause += ": " + api.ErrorMessage()
		}
		if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && response.Response != nil {
			if region := response.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
				cause += " (the bucket is in the region " + region + ")"
			}
		}
	case errors.Is(err, context.Canceled):
		code = "canceled"
	case strings.Contains(err.Error(), "get credentials: "): // the SDK has no type for it
		return "credentials", "no AWS credentials: set AWS_ACCESS_KEY_ID and " +
			"AWS_SECRET_ACCESS_KEY, or give the pod a role: " + err.Error()
	case errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		code = "timeout"
	case errors.Is(err, io.ErrUnexpectedEOF):
		code = "connection"
	}
	return code, cause
}

// An awsLog logs failed calls to a table or bucket.
type awsLog struct {
	*slog.Logger
	service, target string   // such as DynamoDB and "table users"
	limits          sync.Map // *rate.Sometimes by kind of failure
}

// failed returns an error of an operation as one of the stores, and logs it, each kind once a
// minute. Every refusal by AWS is an ErrUnavailable: the operator can correct it. It returns an
// unmet condition as it is.
func (log *awsLog) failed(ctx context.Context, name string, err error) error {
	operation := log.service + " " + name + " on " + log.target
	code, cause := describeAWS(err)
	switch {
	case code == "ConditionalCheckFailedException":
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", operation, ctx.Err())
	case code == "ResourceInUseException": // of CreateTable
		return ErrExists
	case code == "NoSuchKey": // AccessDenied without s3:ListBucket, or if that has a condition
		return ErrNotFound
	}
	kind := code
	if strings.HasPrefix(code, "AccessDenied") {
		kind += operation // each operation has its own permission
	}
	limit, _ := log.limits.LoadOrStore(kind, &rate.Sometimes{Interval: time.Minute})
	limit.(*rate.Sometimes).Do(func() {
		log.Error("AWS call failed", "operation", operation, "code", code, "error", cause)
	})
	return fmt.Errorf("%w: %s: %s", ErrUnavailable, operation, cause)
}

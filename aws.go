package main

import (
	"cmp"
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
)

// callTimeout bounds a call of a store including its retries, so that a backend
// that does not answer costs a request at most half of its ten seconds.
const (
	callTimeout   = 5 * time.Second
	dialTimeout   = time.Second     // DNS included; the endpoints are in the same region
	tlsTimeout    = 2 * time.Second // after the dial
	headerTimeout = 3 * time.Second // from the last byte of the request to the first of the response
	maxAttempts   = 4
	maxBackoff    = time.Second
	maxConns      = 512 // to each service; further calls wait for a free connection
)

// openAWS returns the stores on DynamoDB and S3. It makes no call; see Ready.
// Each call is reported to observe.
func openAWS(ctx context.Context, table, bucket, localstackHost string, observe observeFunc, log *slog.Logger) (*dynamoUsers, *s3Avatars, error) {
	cfg, err := loadAWS(ctx, localstackHost, observe, log)
	if err != nil {
		return nil, nil, err
	}
	users, avatars := newDynamoUsers(cfg, table, log), newS3Avatars(cfg, bucket, log)
	dynamoEndpoint, s3Endpoint := users.client.Options().BaseEndpoint, avatars.client.Options().BaseEndpoint
	for _, endpoint := range []*string{dynamoEndpoint, s3Endpoint} {
		if endpoint != nil {
			err = cmp.Or(err, checkEndpoint(*endpoint))
		} else if !awsRegion.MatchString(cfg.Region) { // emulators accept any name
			err = fmt.Errorf("%q is not an AWS region: set AWS_REGION to one such as eu-central-1", cfg.Region)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	log.Info("using DynamoDB and S3", "table", table, "bucket", bucket, "region", cfg.Region,
		"dynamodb", cmp.Or(aws.ToString(dynamoEndpoint), "default endpoint"),
		"s3", cmp.Or(aws.ToString(s3Endpoint), "default endpoint"))
	return users, avatars, nil
}

// awsRegion matches names such as us-gov-west-1 and eusc-de-east-1, but not
// those of availability zones.
var awsRegion = regexp.MustCompile(`^[a-z]+(-[a-z]+)+-[0-9]+$`)

// loadAWS reads the configuration as every AWS program does (environment,
// shared files, IRSA, EKS Pod Identity, IMDS) and adds what both clients share:
// the HTTP client, retries and metrics.
func loadAWS(ctx context.Context, localstackHost string, observe observeFunc, log *slog.Logger) (aws.Config, error) {
	cfg, err := awsconfig.LoadDefaultConfig(ctx,
		awsconfig.WithHTTPClient(newAWSClient()),
		awsconfig.WithLogger(logging.LoggerFunc(func(_ logging.Classification, format string, v ...any) {
			log.Debug("AWS SDK", "text", fmt.Sprintf(format, v...))
		})),
		awsconfig.WithAPIOptions([]func(*middleware.Stack) error{func(stack *middleware.Stack) error {
			return stack.Initialize.Add(measure(observe), middleware.Before)
		}}),
	)
	if err != nil {
		return aws.Config{}, fmt.Errorf("AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return aws.Config{}, errors.New("no AWS region: set AWS_REGION")
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
	if localstackHost != "" && cfg.BaseEndpoint == nil {
		endpoint, err := localstackEndpoint(localstackHost)
		if err != nil {
			return aws.Config{}, err
		}
		cfg.BaseEndpoint = &endpoint
	}
	if cfg.Credentials != nil {
		provider := cfg.Credentials
		cfg.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
			c, err := provider.Retrieve(ctx)
			if _, ok := errors.AsType[*processcreds.ProviderError](err); ok {
				// The SDK's error quotes the output.
				err = errors.New("credential_process failed, or its output is not valid")
			}
			if err != nil {
				err = &credentialsError{err}
			}
			return c, err
		})
	}
	return cfg, nil
}

// localstackEndpoint returns the endpoint URL for LOCALSTACK_HOST: a URL, or a
// host with or without a port.
func localstackEndpoint(host string) (string, error) {
	if strings.Contains(host, "://") {
		return host, checkEndpoint(host)
	}
	u, err := url.Parse("http://" + host)
	if err != nil || u.Hostname() == "" || u.Host != host {
		return "", fmt.Errorf("LOCALSTACK_HOST: %q is neither a URL nor host[:port]", host)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "4566")
	}
	return u.String(), nil
}

func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return fmt.Errorf("AWS endpoint: %q is not an http or https URL", endpoint)
	}
	return nil
}

func newAWSClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithDialerOptions(func(d *net.Dialer) {
		d.Timeout = dialTimeout
	}).WithTransportOptions(func(t *http.Transport) {
		t.TLSHandshakeTimeout = tlsTimeout
		t.ResponseHeaderTimeout = headerTimeout
		// With the SDK's default of ten idle connections, more than ten
		// concurrent requests dial all the time.
		t.MaxConnsPerHost = maxConns
		t.MaxIdleConnsPerHost = maxConns
		t.MaxIdleConns = 2 * maxConns
		// Shorter than the servers' timeout: a request sent while the server
		// closes the connection fails, and not every request may be retried.
		t.IdleConnTimeout = 15 * time.Second
	})
}

// retryOptions shortens the back-off, because a client waits: the SDK's begins
// at up to two seconds.
func retryOptions(o *retry.StandardOptions) {
	o.MaxAttempts = maxAttempts
	o.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
		return rand.N(min(50*time.Millisecond<<attempt, maxBackoff)), nil // #nosec G404 -- jitter is no secret
	})
	// To the SDK, a truncated response is not a connection error.
	o.Retryables = append(o.Retryables, retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return aws.TrueTernary
		}
		return aws.UnknownTernary
	}))
}

// observeFunc receives every finished operation: the service ("DynamoDB", "S3"),
// the operation, "OK" or the error code, and the number of attempts.
type observeFunc func(service, operation, code string, attempts int, d time.Duration)

func measure(observe observeFunc) middleware.InitializeMiddleware {
	return middleware.InitializeMiddlewareFunc("Measure", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		start := time.Now()
		out, metadata, err := next.HandleInitialize(ctx, in)
		attempts := 1
		if results, ok := retry.GetAttemptResults(metadata); ok {
			attempts = max(1, len(results.Results))
		}
		observe(awsmiddleware.GetServiceID(ctx), awsmiddleware.GetOperationName(ctx), errorCode(err), attempts, time.Since(start))
		return out, metadata, err
	})
}

// errorCode returns the error code of AWS, or a word for an error without one.
func errorCode(err error) string {
	if err == nil {
		return "OK"
	}
	if _, ok := errors.AsType[*credentialsError](err); ok {
		return "credentials"
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	timeout, isNet := errors.AsType[net.Error](err)
	_, sending := errors.AsType[*smithyhttp.RequestSendError](err)
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return "timeout"
	case sending, errors.Is(err, io.ErrUnexpectedEOF):
		return "connection"
	}
	return "error"
}

// A credentialsError means that there are no credentials to sign with.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "no credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// secretMessages are the codes whose messages quote what was signed or a token.
var secretMessages = map[string]bool{
	"AuthFailure": true, "IncompleteSignature": true, "IncompleteSignatureException": true,
	"InvalidAccessKeyId": true, "InvalidClientTokenId": true, "InvalidSecurity": true,
	"InvalidSignatureException": true, "InvalidToken": true, "MissingAuthenticationToken": true,
	"MissingAuthenticationTokenException": true, "SignatureDoesNotMatch": true,
	"UnrecognizedClientException": true,
}

// An awsLog logs failed calls to one service.
type awsLog struct {
	*slog.Logger
	mu   sync.Mutex
	last map[string]time.Time
}

// failed logs a failed operation and returns ErrUnavailable, or the error of
// ctx if it has ended. Every refusal by AWS is an ErrUnavailable: the operator
// can correct it, the client cannot.
func (l *awsLog) failed(ctx context.Context, operation string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", operation, ctx.Err())
	}
	code, cause := errorCode(err), err.Error()
	key := code
	if creds, ok := errors.AsType[*credentialsError](err); ok {
		cause = creds.Error()
	} else if api, ok := errors.AsType[smithy.APIError](err); ok {
		cause = code
		if !secretMessages[code] {
			cause += ": " + api.ErrorMessage()
		}
		if strings.HasPrefix(code, "AccessDenied") { // each operation has its own permission
			key += operation
		}
	} else {
		key = "" // an outage has many symptoms
		if send, ok := errors.AsType[*url.Error](err); ok {
			cause = send.Error() // without the SDK's prefixes
		}
	}
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && response.Response != nil {
		if region := response.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
			cause += " (the bucket is in the region " + region + ")"
		}
	}
	if l.allow(key) {
		l.ErrorContext(ctx, "AWS call failed", "operation", operation, "code", code, "error", cause)
	}
	return fmt.Errorf("%w: %s: %s", ErrUnavailable, operation, cause)
}

// allow reports whether a failure may be logged: the first one, then one a minute.
func (l *awsLog) allow(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.last[key]) < time.Minute {
		return false
	}
	if l.last == nil {
		l.last = map[string]time.Time{}
	}
	l.last[key] = time.Now()
	return true
}

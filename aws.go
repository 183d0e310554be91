package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// A call of a store has callTimeout, its retries included, so that a backend
// which does not answer costs a request half of its ten seconds at most. An
// upload and a page of a list have longer, as their requests do.
const (
	callTimeout   = 5 * time.Second
	putTimeout    = 20 * time.Second
	scanTimeout   = 8 * time.Second // a page of 1 MB; DynamoDB Local reads the whole table for each
	dialTimeout   = time.Second     // DNS included; the endpoints are in the same region
	tlsTimeout    = 2 * time.Second // after the dial
	headerTimeout = 3 * time.Second // from the request's last byte to the answer's first
	maxAttempts   = 4
	maxBackoff    = time.Second
	maxConns      = 512 // to each of the services; a call beyond waits for one to come free
)

// openAWS returns the stores on DynamoDB and S3. It makes no call: see Ready.
// What every call took is told to observe.
func openAWS(ctx context.Context, table, bucket, localstackHost string, observe observeFunc, log *slog.Logger) (Users, Avatars, error) {
	cfg, err := loadAWS(ctx, localstackHost, observe, log)
	if err != nil {
		return nil, nil, err
	}
	users, avatars := newDynamoUsers(cfg, table, log), newS3Avatars(cfg, bucket, log)
	if err := checkEndpoints(users, avatars); err != nil {
		return nil, nil, err
	}
	return users, avatars, nil
}

// checkEndpoints holds back an endpoint that no call could reach.
func checkEndpoints(users *dynamoUsers, avatars *s3Avatars) error {
	for _, endpoint := range []*string{users.client.Options().BaseEndpoint, avatars.client.Options().BaseEndpoint} {
		if endpoint == nil {
			continue
		}
		if err := checkEndpoint(*endpoint); err != nil {
			return err
		}
	}
	return nil
}

// loadAWS reads the configuration as every AWS program does (environment,
// shared files, IRSA, EKS Pod Identity, IMDS) and adds to it what all clients
// share: one HTTP client, the retries, the measuring.
func loadAWS(ctx context.Context, localstackHost string, observe observeFunc, log *slog.Logger) (aws.Config, error) {
	cfg, err := awsconfig.LoadDefaultConfig(ctx,
		awsconfig.WithHTTPClient(newAWSClient()),
		awsconfig.WithRetryer(func() aws.Retryer { return newRetryer() }),
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
			if err != nil {
				return c, &credentialsError{err}
			}
			return c, nil
		})
	}
	return cfg, nil
}

// localstackEndpoint makes an endpoint URL of LOCALSTACK_HOST, which people set
// to a URL or to a host with or without LocalStack's port.
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
		// The SDK's default of ten idle connections makes a service that works
		// on more requests than that dial and shake hands all the time.
		t.MaxConnsPerHost = maxConns
		t.MaxIdleConnsPerHost = maxConns
		t.MaxIdleConns = 2 * maxConns
		// Shorter than the servers', for a request that meets the server's
		// closing of the connection fails, and not each may be sent again.
		t.IdleConnTimeout = 15 * time.Second
	})
}

// newRetryer returns the SDK's standard retries, with its budget that a backend
// in trouble uses up, but with a back-off for requests that somebody waits for:
// the SDK's begins at up to two seconds.
func newRetryer() aws.RetryerV2 {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
			return rand.N(min(50*time.Millisecond<<attempt, maxBackoff)), nil // #nosec G404 -- jitter is no secret
		})
		// An answer that broke off is no connection error to the SDK.
		o.Retryables = append(o.Retryables, retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return aws.TrueTernary
			}
			return aws.UnknownTernary
		}))
	})
}

// notApplied reports whether the server certainly did not do what it was asked:
// it said so itself, or the request never reached it. After anything else
// (a time-out, a reset, a 5xx) it may have been done, or be done yet.
func notApplied(err error) bool {
	var response interface{ HTTPStatusCode() int }
	if errors.As(err, &response) && response.HTTPStatusCode() != 0 {
		return response.HTTPStatusCode() >= 400 && response.HTTPStatusCode() < 500
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	var dns *net.DNSError
	var creds *credentialsError
	return errors.As(err, &dns) || errors.As(err, &creds)
}

// onceRetryer retries only what was certainly not applied.
type onceRetryer struct{ aws.RetryerV2 }

func (r onceRetryer) IsErrorRetryable(err error) bool {
	return notApplied(err) && r.RetryerV2.IsErrorRetryable(err)
}

// observeFunc is told of every operation when it is over: the service
// ("DynamoDB", "S3"), the operation, "OK" or the error's code, and how many
// attempts it took.
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

// errorCode names an error in one word: the service's own code where there is one.
func errorCode(err error) string {
	var api smithy.APIError
	var creds *credentialsError
	var timeout interface{ Timeout() bool }
	var connection interface{ ConnectionError() bool }
	switch {
	case err == nil:
		return "OK"
	case errors.As(err, &creds):
		return "credentials"
	case errors.As(err, &api):
		return api.ErrorCode()
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.As(err, &connection) && connection.ConnectionError(), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection"
	}
	return "error"
}

// A credentialsError says that there are no credentials to sign with.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "no credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// unavailableCodes are what the services answer with a 4xx although a later try
// may well succeed: throttling, what an operator has to put right, and damage
// that a checksum found.
var unavailableCodes = map[string]bool{
	"ResourceNotFoundException": true, "NoSuchBucket": true,
	"BadDigest": true, "InvalidDigest": true, "XAmzContentSHA256Mismatch": true,
	"NoSuchUpload":   true, // completed by an attempt whose answer was lost
	"RequestTimeout": true, "RequestTimeoutException": true, "OperationAborted": true,
}

// deniedCodes say that the credentials are missing, expired, wrong or not
// allowed to. True: the message may be told; others quote what was signed.
var deniedCodes = map[string]bool{
	"AccessDenied": true, "AccessDeniedException": true, "AllAccessDisabled": true,
	"ExpiredToken": true, "ExpiredTokenException": true, "RequestExpired": true,
	"RequestTimeTooSkewed": true, "TokenRefreshRequired": true,
	"AuthFailure": false, "IncompleteSignature": false, "IncompleteSignatureException": false,
	"InvalidAccessKeyId": false, "InvalidClientTokenId": false, "InvalidSecurity": false,
	"InvalidSignatureException": false, "InvalidToken": false, "MissingAuthenticationToken": false,
	"MissingAuthenticationTokenException": false, "SignatureDoesNotMatch": false,
	"UnrecognizedClientException": false,
}

// awsError says what a failed operation means to the caller: ErrUnavailable, or
// the end of the caller's own context, or a fault of the service. operation is
// what was tried, on what.
func awsError(ctx context.Context, log *slog.Logger, operation string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", operation, ctx.Err())
	}
	code := errorCode(err)

	var creds *credentialsError
	if errors.As(err, &creds) {
		log.ErrorContext(ctx, "no AWS credentials", "operation", operation, "error", creds.err)
		return fmt.Errorf("%w: %s: no credentials", ErrUnavailable, operation)
	}

	var api smithy.APIError
	if !errors.As(err, &api) {
		var decoding *smithy.DeserializationError
		if code != "error" || errors.As(err, &decoding) || serverFault(err) {
			// Without the cause's own chain: an inner time-out is not the caller's.
			return fmt.Errorf("%w: %s: %s: %v", ErrUnavailable, operation, code, err)
		}
		return fmt.Errorf("%s: %w", operation, err)
	}

	detail := code
	tellable, denied := deniedCodes[code]
	if !denied || tellable {
		detail += ": " + api.ErrorMessage()
	}
	if denied {
		log.ErrorContext(ctx, "AWS refused the credentials", "operation", operation, "error", detail)
		return fmt.Errorf("%w: %s: %s", ErrUnavailable, operation, detail)
	}
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	if throttled || unavailableCodes[code] || serverFault(err) {
		return fmt.Errorf("%w: %s: %s", ErrUnavailable, operation, detail)
	}
	return fmt.Errorf("%s: %s", operation, detail)
}

// checkCRC32 makes an answer of DynamoDB that does not match its X-Amz-Crc32
// fail like one that broke off.
func checkCRC32() middleware.DeserializeMiddleware {
	return middleware.DeserializeMiddlewareFunc("CheckCRC32", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		if response, ok := out.RawResponse.(*smithyhttp.Response); ok && err == nil {
			if want, err := strconv.ParseUint(response.Header.Get("X-Amz-Crc32"), 10, 32); err == nil {
				response.Body = &crc32Body{ReadCloser: response.Body, want: uint32(want)}
			}
		}
		return out, metadata, err
	})
}

type crc32Body struct {
	io.ReadCloser
	sum, want uint32
}

func (b *crc32Body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sum = crc32.Update(b.sum, crc32.IEEETable, p[:n])
	if err == io.EOF && b.sum != b.want {
		err = fmt.Errorf("%w: wrong CRC-32", io.ErrUnexpectedEOF)
	}
	return n, err
}

func serverFault(err error) bool {
	var response interface{ HTTPStatusCode() int }
	return errors.As(err, &response) && (response.HTTPStatusCode() >= 500 || response.HTTPStatusCode() == http.StatusTooManyRequests)
}

func newDynamoUsers(cfg aws.Config, table string, log *slog.Logger) *dynamoUsers {
	connections := cfg.HTTPClient.(*awshttp.BuildableClient)
	client := dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) {
		o.HTTPClient = oneWrite{connections}
		// The SDK's own check only logs that an answer was damaged.
		o.DisableValidateResponseChecksum = true
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Deserialize.Add(checkCRC32(), middleware.After)
		})
	})
	scans := connections.WithTransportOptions(func(t *http.Transport) {
		t.ResponseHeaderTimeout = scanTimeout
	})
	return &dynamoUsers{
		client: client,
		scans:  oneWrite{scans},
		once:   onceRetryer{client.Options().Retryer.(aws.RetryerV2)},
		table:  table,
		log:    log,
	}
}

// oneWrite sends the header of a request together with its body. For net/http they
// are two packets, and two TLS records, unless it knows that the body is in memory
// already, as those to DynamoDB are; of the SDK's readers it cannot tell.
type oneWrite struct{ aws.HTTPClient }

func (c oneWrite) Do(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		body := make([]byte, req.ContentLength)
		if _, err := io.ReadFull(req.Body, body); err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	return c.HTTPClient.Do(req)
}

func newS3Avatars(cfg aws.Config, bucket string, log *slog.Logger) *s3Avatars {
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		// Emulators have no DNS name for every bucket.
		o.UsePathStyle = o.BaseEndpoint != nil
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	return &s3Avatars{client: client, uploads: newUploads(client), bucket: bucket, log: log}
}

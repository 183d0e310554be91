package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// s3Avatars stores images in an S3 bucket as avatars/{id}/{key}.
type s3Avatars struct {
	client  *s3.Client
	uploads *transfermanager.Client
	bucket  string
	log     *slog.Logger
}

var _ Avatars = (*s3Avatars)(nil)

const avatarPrefix = "avatars/"

func avatarKey(id, key string) string { return avatarPrefix + id + "/" + key }

func newUploads(client *s3.Client) *transfermanager.Client {
	return transfermanager.New(client, func(o *transfermanager.Options) {
		// From 16 MiB on, which MAX_AVATAR_BYTES may allow, an upload goes in
		// parts, and takes a buffer of 8 MiB for each that is under way and one more.
		o.Concurrency = 2
		o.FailTimeout = callTimeout // to abort what is left when the request has ended
	})
}

func (s *s3Avatars) Put(ctx context.Context, id string, a Avatar, image []byte) error {
	call, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	// A CRC-32 goes along, which S3 compares with what it stores.
	_, err := s.uploads.UploadObject(call, &transfermanager.UploadObjectInput{
		Bucket:      &s.bucket,
		Key:         aws.String(avatarKey(id, a.Key)),
		Body:        bytes.NewReader(image),
		ContentType: &a.Type,
	})
	if err != nil {
		return s.failed(ctx, "PutObject", err)
	}
	return nil
}

func (s *s3Avatars) Get(ctx context.Context, id string, a Avatar, offset, length int64) (io.ReadCloser, error) {
	// The call lasts until the body is closed, which a slow client may delay;
	// what is bounded is each wait for S3.
	call, cancel := context.WithCancel(ctx)
	wait := time.AfterFunc(callTimeout, cancel)
	in := &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String(avatarKey(id, a.Key))}
	// The checksum is the whole object's: a part cannot be compared with it.
	checksum := aws.ResponseChecksumValidationWhenSupported
	if offset != 0 || length != a.Size {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
		checksum = aws.ResponseChecksumValidationWhenRequired
	}
	out, err := s.client.GetObject(call, in, func(o *s3.Options) { o.ResponseChecksumValidation = checksum })
	stopped := !wait.Stop()
	if err == nil && stopped {
		out.Body.Close()
		err = context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		if stopped && ctx.Err() == nil {
			err = fmt.Errorf("%w after %s", context.DeadlineExceeded, callTimeout)
		}
		return nil, s.missing(ctx, id, a.Key, err)
	}
	if out.ContentLength != nil && *out.ContentLength != length {
		out.Body.Close()
		cancel()
		return nil, fmt.Errorf("S3 GetObject on bucket %s: %d bytes instead of %d", s.bucket, *out.ContentLength, length)
	}
	failed := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// Without the cause's own chain: what the wait cancelled was not cancelled
		// by the client.
		return fmt.Errorf("%w: S3 GetObject on bucket %s: %v", ErrUnavailable, s.bucket, err)
	}
	return &s3Body{body: out.Body, left: length, wait: wait, cancel: cancel, failed: failed}, nil
}

// missing tells an object that does not exist from other failures. S3 answers a
// GetObject for one with AccessDenied to whom it does not grant ListBucket
// without conditions, and the service is allowed to list avatars/ only.
func (s *s3Avatars) missing(ctx context.Context, id, key string, err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return s.failed(ctx, "GetObject", err)
	}
	switch api.ErrorCode() {
	case "NoSuchKey":
		return ErrNotFound
	case "AccessDenied":
		keys, _, listErr := s.list(ctx, avatarKey(id, key), 1, nil)
		if listErr == nil && len(keys) == 0 {
			return ErrNotFound
		}
	}
	return s.failed(ctx, "GetObject", err)
}

// s3Body bounds the wait for each piece of an image, and hands out the last
// piece only when all of it has arrived and the checksum is right.
type s3Body struct {
	body   io.ReadCloser
	left   int64
	wait   *time.Timer
	cancel context.CancelFunc
	failed func(error) error // says what an error of body means
}

func (b *s3Body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.read(p)
	if err != nil {
		err = b.failed(err)
	}
	return n, err
}

func (b *s3Body) read(p []byte) (int, error) {
	b.wait.Reset(callTimeout)
	defer b.wait.Stop()
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.body.Read(p)
	if int64(n) < b.left {
		b.left -= int64(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	if err == nil {
		_, err = io.ReadFull(b.body, make([]byte, 1))
	}
	switch err {
	case io.EOF:
		b.left = 0
		return n, nil
	case nil:
		return 0, errors.New("S3 GetObject: more bytes than were asked for")
	}
	return 0, err
}

func (b *s3Body) Close() error {
	b.wait.Stop()
	err := b.body.Close()
	b.cancel()
	return err
}

func (s *s3Avatars) Delete(ctx context.Context, id, key string) error {
	return s.delete(ctx, avatarKey(id, key))
}

func (s *s3Avatars) DeleteAll(ctx context.Context, id string) error {
	var next *string
	for {
		keys, token, err := s.list(ctx, avatarKey(id, ""), 1000, next)
		if err != nil {
			return s.failed(ctx, "ListObjectsV2", err)
		}
		for _, key := range keys {
			if err := s.delete(ctx, key); err != nil {
				return err
			}
		}
		if token == nil {
			return nil
		}
		next = token
	}
}

// Ready lists where the images are.
func (s *s3Avatars) Ready(ctx context.Context) error {
	if _, _, err := s.list(ctx, avatarPrefix, 1, nil); err != nil {
		return s.failed(ctx, "ListObjectsV2", err)
	}
	return nil
}

func (s *s3Avatars) delete(ctx context.Context, key string) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := s.client.DeleteObject(call, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &key})
	if err != nil {
		return s.failed(ctx, "DeleteObject", err)
	}
	return nil
}

// list returns a page of the keys that begin with prefix, and where the next begins.
func (s *s3Avatars) list(ctx context.Context, prefix string, limit int32, from *string) ([]string, *string, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := s.client.ListObjectsV2(call, &s3.ListObjectsV2Input{
		Bucket:            &s.bucket,
		Prefix:            &prefix,
		MaxKeys:           &limit,
		ContinuationToken: from,
	})
	if err != nil {
		return nil, nil, err
	}
	keys := make([]string, 0, len(out.Contents))
	for _, object := range out.Contents {
		keys = append(keys, aws.ToString(object.Key))
	}
	if !aws.ToBool(out.IsTruncated) {
		return keys, nil, nil
	}
	return keys, out.NextContinuationToken, nil
}

// failed says what an error means, and names the bucket: it may be the one thing
// that is wrong.
func (s *s3Avatars) failed(ctx context.Context, operation string, err error) error {
	return awsError(ctx, s.log, "S3 "+operation+" on bucket "+s.bucket, err)
}

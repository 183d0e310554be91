package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"roster/internal/testkit"
)

// TestFaultsOfS3 breaks what S3 sends and receives.
func TestFaultsOfS3(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	bucket := testkit.NewS3(t)
	_, avatars := openTestAWS(t, "http://127.0.0.1:1", bucket.URL)
	id := testUser("anna@example.com").ID
	image := make([]byte, 100_000)
	rand.Read(image)
	a := testAvatar(image)

	// What is retried: all, for an object is never overwritten.
	bucket.Next("PutObject", testkit.Fault{Status: 503, Code: "SlowDown"}, testkit.Fault{Drop: true})
	wantError(t, avatars.Put(ctx, id, a.Key, a.Type, image), nil)
	bucket.Next("GetObject", testkit.Fault{Status: 500, Code: "InternalError"}, testkit.Fault{Drop: true})
	wantImage(t, avatars, id, a.Key, 0, image)
	bucket.Next("PutObject", testkit.Fault{Status: 400, Code: "BadDigest"})
	wantError(t, avatars.Put(ctx, id, a.Key, a.Type, image), ErrUnavailable)

	// A body that breaks off or is damaged is an error.
	for name, what := range map[string]testkit.Fault{"cut": {Cut: true}, "corrupt": {Corrupt: true}} {
		bucket.Next("GetObject", what)
		body, err := avatars.Get(ctx, id, a.Key, 0)
		wantError(t, err, nil)
		if got, err := io.ReadAll(body); !errors.Is(err, ErrUnavailable) || len(got) >= len(image) {
			t.Errorf("%s: %d of %d bytes and error %v, want fewer and %v", name, len(got), len(image), err,
				ErrUnavailable)
		}
		wantError(t, body.Close(), nil)
		bucket.Next("GetObject", what)
		body, err = avatars.Get(ctx, id, a.Key, 0)
		wantError(t, err, nil)
		_, err = io.CopyN(io.Discard, body, a.Size) // as serveImage reads
		wantError(t, err, ErrUnavailable)
		wantError(t, body.Close(), nil)
	}

	// If one of two objects cannot be deleted, it is an error. A repetition deletes both.
	wantError(t, avatars.Delete(ctx, id, newKey()), nil)
	for status, code := range map[int]string{400: "ExpiredToken", 403: "AccessDenied", 404: "NoSuchBucket"} {
		for _, remove := range []func() error{
			func() error { return avatars.Delete(ctx, id, a.Key) },
			func() error { return avatars.DeleteStale(ctx, id, time.Now().Add(time.Minute)) },
		} {
			wantError(t, avatars.Put(ctx, id, a.Key, a.Type, image), nil)
			wantError(t, avatars.Put(ctx, id, thumbnailKey(a.Key), a.Type, image), nil)
			bucket.Next("DeleteObject", testkit.Fault{Status: status, Code: code})
			wantError(t, remove(), ErrUnavailable)
			wantError(t, remove(), nil)
			if keys := bucket.Keys(); len(keys) > 0 {
				t.Errorf("%s, then a repeated deletion: %q still exist", code, keys)
			}
		}
	}
	// Some S3 stores return NoSuchKey for a missing object.
	bucket.Always("DeleteObject", testkit.Fault{Status: 404, Code: "NoSuchKey"})
	wantError(t, avatars.Delete(ctx, id, a.Key), nil)
	bucket.Clear()
	wantError(t, avatars.Put(ctx, id, a.Key, a.Type, image), nil)

	_, err := avatars.Get(ctx, id, newKey(), 0)
	wantError(t, err, ErrNotFound)
	bucket.Next("GetObject", testkit.Fault{Status: 403, Code: "AccessDenied"})
	_, err = avatars.Get(ctx, id, a.Key, 0)
	wantError(t, err, ErrUnavailable)
	if errors.Is(err, ErrNotFound) {
		t.Error("an image that may not be read is not one that does not exist")
	}
}

// TestImageEnd: a fault that only shows behind the last byte, as a wrong checksum may, is an error of the last piece.
func TestImageEnd(t *testing.T) {
	damaged := io.MultiReader(strings.NewReader("image"), iotest.ErrReader(errors.New("wrong checksum")))
	body := &s3Body{ReadCloser: io.NopCloser(damaged), left: 5, ctx: t.Context(),
		log:  &awsLog{Logger: slog.New(slog.DiscardHandler)},
		wait: time.AfterFunc(time.Hour, func() {})}
	defer body.wait.Stop()
	_, err := io.CopyN(io.Discard, body, 5)
	wantError(t, err, ErrUnavailable)
}

// TestLargestImage stores the largest image with one call: one whose color profile was unpacked.
func TestLargestImage(t *testing.T) {
	t.Parallel()
	bucket := testkit.NewS3(t)
	_, avatars := openTestAWS(t, "http://127.0.0.1:1", bucket.URL)
	wantError(t, avatars.Put(t.Context(), "id", "key", "image/png", make([]byte, maxAvatarBytes+maxProfile)), nil)
	// A slow machine may retry it.
	if bucket.Calls("PutObject") == 0 {
		t.Errorf("image of %d bytes: no PutObject", maxAvatarBytes)
	}
}

// TestChecksumSettings holds the SDK's settings against the headers of requests,
// over HTTP and HTTPS. Over HTTPS no body is hashed for the signature.
func TestChecksumSettings(t *testing.T) {
	requests := make(chan *http.Request, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // sets the trailer
		requests <- r
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "image")
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	for _, url := range []string{plain.URL, secure.URL} {
		for _, setting := range []string{"", "when_supported", "when_required"} {
			t.Setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
			t.Setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", setting)
			log := slog.New(slog.DiscardHandler)
			cfg, err := loadAWS(t.Context(), "", newMetrics(build{}))
			wantError(t, err, nil)
			cfg.BaseEndpoint = &url
			cfg.HTTPClient = cfg.HTTPClient.(*awshttp.BuildableClient).WithTransportOptions(func(tr *http.Transport) {
				tr.TLSClientConfig = &tls.Config{RootCAs: roots}
			})
			avatars := newS3Avatars(cfg, "bucket", log)
			want := setting != "when_required"

			wantError(t, avatars.Put(t.Context(), "id", "key", "image/png", []byte("image")), nil)
			r := <-requests
			got := len(r.Trailer) > 0 || r.Header.Get("X-Amz-Trailer") != ""
			for name := range r.Header {
				got = got || strings.HasPrefix(name, "X-Amz-Checksum-") ||
					strings.HasPrefix(name, "X-Amz-Sdk-Checksum-")
			}
			if got != want {
				t.Errorf("%s, %q: an upload with a checksum: %t, want %t: %v %v", url, setting, got, want, r.Header,
					r.Trailer)
			}
			hash := r.Header.Get("X-Amz-Content-Sha256")
			if unsigned := strings.Contains(hash, "UNSIGNED-PAYLOAD"); unsigned != (r.TLS != nil) {
				t.Errorf("%s, %q: the signed hash is %s", url, setting, hash)
			}

			for _, offset := range []int64{0, 2} {
				body, err := avatars.Get(t.Context(), "id", "key", offset)
				wantError(t, err, nil)
				body.Close()
				r = <-requests
				// A range has no checksum of its own.
				if got, want := r.Header.Get("X-Amz-Checksum-Mode") != "", want && offset == 0; got != want {
					t.Errorf("%s, %q: a request for a checksum from %d: %t, want %t", url, setting, offset, got, want)
				}
			}
		}
	}
}

// TestStalledImage: it is S3 that broke off, not the client.
func TestStalledImage(t *testing.T) {
	t.Parallel()
	bucket := testkit.NewS3(t)
	_, avatars := openTestAWS(t, "http://127.0.0.1:1", bucket.URL)
	id := testUser("anna@example.com").ID
	image := make([]byte, 100_000)
	a := testAvatar(image)
	wantError(t, avatars.Put(t.Context(), id, a.Key, a.Type, image), nil)
	bucket.Next("GetObject", testkit.Fault{Stall: true})
	body, err := avatars.Get(t.Context(), id, a.Key, 0)
	wantError(t, err, nil)
	defer body.Close()
	_, err = io.ReadAll(body)
	wantError(t, err, ErrUnavailable)
	if errors.Is(err, context.Canceled) {
		t.Errorf("%v counts as a client that went away", err)
	}
	if !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("%v does not name a timeout", err)
	}

	bucket.Next("GetObject", testkit.Fault{Hang: true}, testkit.Fault{Hang: true})
	_, err = avatars.Get(t.Context(), id, a.Key, 0)
	wantError(t, err, ErrUnavailable)
	if !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("%v does not name a timeout", err)
	}
}

// TestSlowReader takes an image more slowly than a call may take.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	bucket := testkit.NewS3(t)
	_, avatars := openTestAWS(t, "http://127.0.0.1:1", bucket.URL)
	id := testUser("anna@example.com").ID
	image := make([]byte, 5<<20)
	rand.Read(image)
	a := testAvatar(image)
	wantError(t, avatars.Put(t.Context(), id, a.Key, a.Type, image), nil)
	body, err := avatars.Get(t.Context(), id, a.Key, 0)
	wantError(t, err, nil)
	defer body.Close()
	var got bytes.Buffer
	io.CopyN(&got, body, 1000)
	time.Sleep(callTimeout + time.Second)
	if _, err := io.Copy(&got, body); err != nil || !bytes.Equal(got.Bytes(), image) {
		t.Errorf("image read slowly: %d bytes, error %v; want %d", got.Len(), err, len(image))
	}
}

package testkit

import (
	"cmp"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// S3 implements S3's REST protocol in path style, as far as the service uses it, and
// rejects what S3 rejects.
type S3 struct {
	*Faults
	URL      string
	pageSize int // of a listing; S3's own limit is 1000

	mu      sync.Mutex
	buckets map[string]map[string]s3Object
}

type s3Object struct {
	body        []byte
	contentType string
	checksum    http.Header
	modified    time.Time
}

func NewS3(t testing.TB) *S3 {
	f := &S3{
		Faults:   &Faults{},
		pageSize: 1000,
		buckets:  map[string]map[string]s3Object{Bucket: {}},
	}
	f.URL = serve(t, f)
	return f
}

// Page sets the page size of ListObjectsV2.
func (f *S3) Page(size int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pageSize = size
}

// Keys returns the keys of all objects in Bucket, sorted.
func (f *S3) Keys() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.buckets[Bucket]))
}

func (f *S3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	query := r.URL.Query()
	operation := "Unknown"
	switch {
	case key == "" && r.Method == http.MethodPut:
		operation = "CreateBucket"
	case key == "" && r.Method == http.MethodHead:
		operation = "HeadBucket"
	case key == "" && r.Method == http.MethodGet && query.Get("list-type") == "2":
		operation = "ListObjectsV2"
	case r.Method == http.MethodPut:
		operation = "PutObject"
	case r.Method == http.MethodDelete:
		operation = "DeleteObject"
	case r.Method == http.MethodGet:
		operation = "GetObject"
	}
	f.serve(w, r, operation, func(w http.ResponseWriter, r *http.Request) {
		if code := checkAuthorization(r, f.now()); code != "" {
			refuseS3(w, http.StatusForbidden, map[string]string{"skew": "RequestTimeTooSkewed",
				"missing": "AccessDenied"}[code])
			return
		}
		body := bufferBody(r)
		f.mu.Lock()
		defer f.mu.Unlock()
		objects, ok := f.buckets[bucket]
		if !ok && operation != "CreateBucket" {
			refuseS3(w, http.StatusNotFound, "NoSuchBucket")
			return
		}
		switch operation {
		case "CreateBucket":
			if ok {
				refuseS3(w, http.StatusConflict, "BucketAlreadyOwnedByYou")
				return
			}
			f.buckets[bucket] = map[string]s3Object{}
		case "HeadBucket":
		case "ListObjectsV2":
			f.list(w, r, bucket, objects)
		case "PutObject":
			object, code := receive(r, body)
			if code != "" {
				refuseS3(w, http.StatusBadRequest, code)
				return
			}
			objects[key] = object
			w.Header().Set("ETag", etagOf(object.body))
			maps.Copy(w.Header(), object.checksum)
		case "GetObject":
			f.get(w, r, key, objects)
		case "DeleteObject":
			delete(objects, key)
			w.WriteHeader(http.StatusNoContent)
		default:
			refuseS3(w, http.StatusNotImplemented, "NotImplemented")
		}
	}, refuseS3)
}

func refuseS3(w http.ResponseWriter, status int, code string) {
	answerS3(w, status, struct {
		XMLName       xml.Name `xml:"Error"`
		Code, Message string
	}{Code: code, Message: "the fake says " + code})
}

func answerS3(w http.ResponseWriter, status int, v any) {
	body, err := xml.Marshal(v)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	w.Write(body)
}

func etagOf(body []byte) string { return fmt.Sprintf(`"%x"`, md5.Sum(body)) }

// receive compares a body with the signed hash and the checksum.
func receive(r *http.Request, body []byte) (s3Object, string) {
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if sum := sha256.Sum256(body); hash != "UNSIGNED-PAYLOAD" && hash != hex.EncodeToString(sum[:]) {
		return s3Object{}, "XAmzContentSHA256Mismatch"
	}
	object := s3Object{body: body, contentType: r.Header.Get("Content-Type"), checksum: http.Header{},
		modified: time.Now()}
	sum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(body)))
	if sent := r.Header.Get("X-Amz-Checksum-Crc32"); sent != "" {
		if b, err := base64.StdEncoding.DecodeString(sent); err != nil || len(b) != 4 {
			return s3Object{}, "InvalidRequest"
		}
		if sent != sum {
			return s3Object{}, "BadDigest"
		}
	}
	object.checksum.Set("X-Amz-Checksum-Crc32", sum)
	return object, ""
}

func (f *S3) get(w http.ResponseWriter, r *http.Request, key string, objects map[string]s3Object) {
	object, ok := objects[key]
	if !ok {
		refuseS3(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	size, body, status := len(object.body), object.body, http.StatusOK
	// An invalid Range is ignored.
	if first, last, ok := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-"); ok {
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(cmp.Or(last, strconv.Itoa(size)))
		if err1 == nil && err2 == nil && (from <= to || last == "") {
			if from >= size {
				refuseS3(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
				return
			}
			to = min(to, size-1)
			body, status = object.body[from:to+1], http.StatusPartialContent
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, size))
		}
	}
	if status == http.StatusOK && r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" {
		maps.Copy(w.Header(), object.checksum)
	}
	w.Header().Set("Content-Type", object.contentType)
	w.Header().Set("ETag", etagOf(object.body))
	w.WriteHeader(status)
	w.Write(body)
}

func (f *S3) list(w http.ResponseWriter, r *http.Request, bucket string, objects map[string]s3Object) {
	query := r.URL.Query()
	limit := f.pageSize
	if s := query.Get("max-keys"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			refuseS3(w, http.StatusBadRequest, "InvalidArgument")
			return
		}
		limit = min(limit, n)
	}
	type content struct {
		Key          string
		LastModified string
		Size         int
	}
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Name, Prefix          string
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []content
	}{Name: bucket, Prefix: query.Get("prefix")}
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		if !strings.HasPrefix(key, out.Prefix) || key <= query.Get("continuation-token") {
			continue
		}
		if len(out.Contents) == limit {
			out.IsTruncated = true
			out.NextContinuationToken = out.Contents[limit-1].Key
			break
		}
		out.Contents = append(out.Contents, content{key, objects[key].modified.UTC().Format("2006-01-02T15:04:05.000Z"),
			len(objects[key].body)})
	}
	answerS3(w, http.StatusOK, out)
}

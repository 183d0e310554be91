package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// maxFormBytes bounds a body without its image. The longest valid fields stay
	// below it in every escaping.
	maxFormBytes = 64 << 10

	// maxParts bounds the parts of a multipart body. Three make sense.
	maxParts = 16

	// uploadBudget bounds the memory of all bodies that may contain an image. A
	// body of unknown length counts three times: its buffer grows by copying.
	uploadBudget = 96 << 20

	// uploadWait is how long an upload waits for its share of the budget: long
	// enough for the previous one to be stored.
	uploadWait = 2 * time.Second
)

// A form is the content of a request: text fields and possibly an image.
type form struct {
	fields map[string]string
	image  []byte // nil: none
}

// A formReader collects a form and all its faults.
type formReader struct {
	form
	allowed []string
	errs    []fieldError
}

func newFormReader(allowed ...string) *formReader {
	return &formReader{form: form{fields: map[string]string{}}, allowed: allowed}
}

func (f *formReader) fault(field, format string, args ...any) {
	f.errs = append(f.errs, fieldError{field, fmt.Sprintf(format, args...)})
}

func (f *formReader) set(field, value string) {
	_, repeated := f.fields[field]
	switch {
	case !slices.Contains(f.allowed, field):
		f.fault(cmp.Or(abbreviate(field), `""`), "unknown field; the fields are %s", strings.Join(f.allowed, ", "))
	case repeated:
		f.fault(field, "sent more than once")
	case !utf8.ValidString(value):
		f.fault(field, "not valid UTF-8")
	default:
		f.fields[field] = value
	}
}

func (f *formReader) result() (form, error) {
	if len(f.errs) > 0 {
		return form{}, badFields(f.errs...)
	}
	return f.form, nil
}

// faults returns the faults that are not nil as one problem, or nil.
func faults(all ...*fieldError) error {
	var errs []fieldError
	for _, e := range all {
		if e != nil {
			errs = append(errs, *e)
		}
	}
	if errs == nil {
		return nil
	}
	return badFields(errs...)
}

// checkEncoding refuses a compressed body: its unpacked size has no bound.
func checkEncoding(r *http.Request) error {
	if e := r.Header.Values("Content-Encoding"); len(e) > 0 && !(len(e) == 1 && strings.EqualFold(e[0], "identity")) {
		return unsupported("Content-Encoding %q is not supported; send the body uncompressed", abbreviate(strings.Join(e, ", ")))
	}
	return nil
}

// contentType returns the media type of a request's body and its parameters.
func contentType(r *http.Request) (string, map[string]string, error) {
	if err := checkEncoding(r); err != nil {
		return "", nil, err
	}
	values := r.Header.Values("Content-Type")
	if len(values) > 1 {
		return "", nil, badRequest("Content-Type is sent %d times", len(values))
	}
	if len(values) == 0 {
		return "", nil, nil
	}
	mediaType, params, err := mime.ParseMediaType(values[0])
	if err != nil {
		return "", nil, unsupported("Content-Type %q is malformed: %v", abbreviate(values[0]), err)
	}
	return mediaType, params, nil
}

// reserve reserves memory for the request's body, until the request ends.
func (s *server) reserve(w *response, r *http.Request, limit int64) error {
	need := r.ContentLength
	switch {
	case need > limit:
		return tooLarge("the image may have at most %d bytes; the body has %d", s.MaxAvatarBytes, need)
	case need < 0:
		need = 3 * limit
	}
	need = min(need, uploadBudget)
	wait, cancel := context.WithTimeout(r.Context(), uploadWait)
	defer cancel()
	if s.uploads.Acquire(wait, need) != nil {
		s.metrics.uploadsShed.Inc()
		return cmp.Or(r.Context().Err(), error(overloaded("the memory for uploads is in use")))
	}
	w.reserved = need
	s.metrics.uploadsInFlight.Inc()
	return nil
}

// release returns what reserve reserved, if anything.
func (s *server) release(w *response) {
	if w.reserved > 0 {
		s.metrics.uploadsInFlight.Dec()
		s.uploads.Release(w.reserved)
	}
}

// readUpload reads a multipart body that may contain an image.
func (s *server) readUpload(w *response, r *http.Request, boundary string, fields ...string) (form, error) {
	limit := s.MaxAvatarBytes + maxFormBytes
	if err := s.reserve(w, r, limit); err != nil {
		return form{}, err
	}
	return readMultipart(http.MaxBytesReader(nil, r.Body, limit), boundary, s.MaxAvatarBytes, r.ContentLength, fields...)
}

// readBody reads a small body and parses it.
func readBody(r *http.Request, parse func([]byte, ...string) (form, error), fields ...string) (form, error) {
	data, err := readAll(r, maxFormBytes)
	if err != nil {
		return form{}, err
	}
	return parse(bytes.TrimPrefix(data, []byte("\ufeff")), fields...)
}

// readAll reads a body of at most limit bytes.
func readAll(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge("the body may have at most %d bytes, not %d", limit, r.ContentLength)
	}
	body := http.MaxBytesReader(nil, r.Body, limit)
	if r.ContentLength <= 0 {
		data, err := io.ReadAll(body)
		if err != nil {
			return nil, bodyError(err)
		}
		return data, nil
	}
	// Of known length: one allocation, exactly large enough.
	data := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(body, data); err != nil {
		return nil, bodyError(err)
	}
	return data, nil
}

// readJSON reads an object of strings. Unlike encoding/json it refuses members that
// are unknown, repeated, or differ from a field only in case.
func readJSON(data []byte, allowed ...string) (form, error) {
	if !utf8.Valid(data) {
		return form{}, badRequest("the body is not valid UTF-8")
	}
	f := newFormReader(allowed...)
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // a number too large for a float64 is not an error that quotes it
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return form{}, badRequest("the body must be a JSON object")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return form{}, badRequest("the body is not valid JSON: %v", err)
		}
		name := key.(string) // More and Token together guarantee a key here
		value, err := d.Token()
		if err != nil {
			return form{}, badRequest("the body is not valid JSON: %v", err)
		}
		text, ok := value.(string)
		if !ok {
			// A nested value is not read to its end, however deep it is.
			return form{}, badField(cmp.Or(abbreviate(name), `""`), "must be a string")
		}
		f.set(name, text)
	}
	if _, err := d.Token(); err != nil {
		return form{}, badRequest("the body is not valid JSON: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return form{}, badRequest("the body continues after the JSON object")
	}
	return f.result()
}

// readURLEncoded reads application/x-www-form-urlencoded.
func readURLEncoded(data []byte, allowed ...string) (form, error) {
	if json.Valid(data) && bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return form{}, unsupported("the body is JSON; send it with Content-Type: application/json")
	}
	values, err := url.ParseQuery(string(data))
	if err != nil {
		return form{}, badRequest("the body is not a valid form: %v", err)
	}
	f := newFormReader(allowed...)
	for _, field := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[field] {
			f.set(field, value)
		}
	}
	return f.result()
}

// readMultipart reads multipart/form-data (RFC 7578), the image from the part avatar
// or file. It holds the image once. length is that of the body, negative if unknown.
func readMultipart(body io.Reader, boundary string, maxImage, length int64, allowed ...string) (form, error) {
	if boundary == "" {
		return form{}, badRequest("Content-Type lacks the boundary parameter of multipart/form-data")
	}
	f := newFormReader(append(allowed, "avatar", "file")...)
	// multipart.Reader reads 4 KiB at a time, each by a system call without a buffer.
	ahead := int64(64 << 10)
	if length >= 0 {
		ahead = min(ahead, length)
	}
	body = bufio.NewReaderSize(body, int(ahead))
	parts := multipart.NewReader(io.MultiReader(body, strings.NewReader("\r\n"), endless{}), boundary)
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if err == io.EOF {
			return f.result()
		}
		if err != nil {
			return form{}, bodyError(err)
		}
		if n == maxParts {
			return form{}, badRequest("the form has more than %d parts", maxParts)
		}
		switch name := part.FormName(); name {
		case "avatar", "file":
			err = f.readImage(part, maxImage, length)
		case "":
			err = badRequest("part %d of the form has no readable name; send Content-Disposition: form-data; name=...", n+1)
		default:
			err = f.readText(part, name)
		}
		if err != nil {
			return form{}, err
		}
	}
}

// endless follows a multipart body. multipart.Reader stops at the final boundary, but
// takes a body that is truncated within a part's header for complete: with endless
// that is an error. The line break before it is for a final boundary without one.
type endless struct{}

func (endless) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (f *formReader) readImage(part *multipart.Part, limit, bodyLength int64) error {
	if f.image != nil {
		limit = 0 // memory is reserved for one image
	}
	// The image is shorter than the body, so that the buffer does not grow.
	buffer := bytes.NewBuffer(make([]byte, 0, min(max(bodyLength, 0), limit)+bytes.MinRead))
	_, err := buffer.ReadFrom(io.LimitReader(part, limit+1))
	data := buffer.Bytes()
	switch {
	case err != nil:
		return bodyError(err)
	case f.image == nil && int64(len(data)) > limit:
		return tooLarge("%s may have at most %d bytes", part.FormName(), limit)
	case len(data) == 0 && part.FileName() == "":
		// A browser sends this for an empty file input.
	case f.image != nil:
		f.fault(part.FormName(), "more than one image was sent")
	default:
		f.image = data
	}
	return nil
}

func (f *formReader) readText(part *multipart.Part, name string) error {
	data, err := io.ReadAll(io.LimitReader(part, maxFormBytes+1))
	switch {
	case err != nil:
		return bodyError(err)
	case len(data) > maxFormBytes:
		return tooLarge("%s may have at most %d bytes", abbreviate(name), maxFormBytes)
	}
	f.set(name, string(data))
	return nil
}

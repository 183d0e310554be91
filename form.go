package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxFormBytes = 64 << 10 // of a body without its image: more than valid fields in any escaping
	maxParts     = 16       // of a multipart body; a complete form has three

	uploadBudget = 96 << 20        // bytes of memory for all bodies that may contain an image
	uploadWait   = 2 * time.Second // for a share of it: the previous upload is stored by then
)

// A form is what a client sends in a body or a query. It collects all faults.
type form struct {
	fields  map[string]string
	image   []byte // nil: none
	allowed []string
	faults  []fieldError
}

func (f *form) fault(field, format string, args ...any) {
	quoted := fmt.Sprintf("%.40q", field) // short, and without control characters
	name := quoted[1 : len(quoted)-1]
	f.faults = append(f.faults, fieldError{cmp.Or(name, quoted), fmt.Sprintf(format, args...)})
}

// err returns all faults as one problem, or nil.
func (f *form) err() error {
	if len(f.faults) == 0 {
		return nil
	}
	return badFields(f.faults...)
}

// set adds a field as the client sent it.
func (f *form) set(field, value string) {
	_, repeated := f.fields[field]
	switch {
	case !slices.Contains(f.allowed, field):
		f.fault(field, "not accepted; the fields are %s", strings.Join(f.allowed, ", "))
	case repeated:
		f.fault(field, "sent more than once")
	case strings.ContainsRune(value, utf8.RuneError): // or a broken escape such as \ud800
		f.fault(field, "is not valid Unicode")
	default:
		f.fields[field] = value
	}
}

// parse trims a field and parses it. An error is a fault of the field.
func (f *form) parse(field string, parse func(string) (string, error)) string {
	text, sent := f.fields[field]
	if !sent {
		f.fault(field, "is required")
		return ""
	}
	value, err := parse(strings.TrimSpace(text))
	if err != nil {
		f.fault(field, "%v", err)
	}
	return value
}

// bareBoundary matches a form whose boundary should be in quotes, as some clients send it.
var bareBoundary = regexp.MustCompile(`^(?i:multipart/form-data;\s*boundary)=([^";]+?)\s*(;|$)`)

// contentType returns the media type of a body and its parameters. None accepted: all are.
func contentType(r *http.Request, accepted ...string) (mediaType string, params map[string]string, err error) {
	encoding := strings.Join(r.Header.Values("Content-Encoding"), ", ")
	if encoding != "" && !strings.EqualFold(encoding, "identity") { // unpacked, it has no bound
		return "", nil, unsupported("Content-Encoding %.40q is not supported; send the body uncompressed", encoding)
	}
	if n := len(r.Header.Values("Content-Type")); n > 1 {
		return "", nil, badRequest("Content-Type is sent %d times", n)
	}
	sent := r.Header.Get("Content-Type")
	mediaType, params, err = mime.ParseMediaType(sent)
	if m := bareBoundary.FindStringSubmatch(sent); m != nil && err != nil {
		mediaType, params, err = "multipart/form-data", map[string]string{"boundary": m[1]}, nil
	}
	if accepted == nil || err == nil && slices.Contains(accepted, mediaType) {
		return mediaType, params, nil
	}
	list := strings.Join(accepted, ", ")
	p := unsupported("Content-Type must be one of %s; it is %.40q", list, sent)
	if sent == "" {
		p.Detail = "Content-Type is missing; it must be one of " + list
	}
	if r.Method == http.MethodPatch {
		p.with("Accept-Patch", list) // RFC 5789, section 2.2
	}
	return "", nil, p
}

// readBody reads a whole body of at most limit bytes. It reserves memory if there may be an image.
func (s *server) readBody(w *response, r *http.Request, limit int64) ([]byte, error) {
	need := r.ContentLength
	switch {
	case need > limit && limit > maxFormBytes:
		return nil, tooLarge("the image may have at most %d bytes; the body has %d", s.MaxAvatarBytes, need)
	case need > limit:
		return nil, tooLarge("the body may have at most %d bytes; it has %d", limit, need)
	case need < 0:
		need = 3 * limit // a buffer that grows by copying
	}
	if limit > maxFormBytes {
		need = min(max(need, 1), uploadBudget) // 0 would not be released
		wait, cancel := context.WithTimeout(r.Context(), uploadWait)
		defer cancel()
		if s.uploadMemory.Acquire(wait, need) != nil {
			s.metrics.uploadsShed.Inc()
			return nil, overloaded("the memory for uploads is in use")
		}
		s.metrics.uploadsInFlight.Inc()
		w.reserved = need
	}
	length := max(r.ContentLength, 0) // of an unknown length: the buffer grows
	data := bytes.NewBuffer(make([]byte, 0, length+bytes.MinRead))
	if _, err := data.ReadFrom(http.MaxBytesReader(nil, r.Body, limit)); err != nil {
		return nil, bodyError(err)
	}
	return data.Bytes(), nil
}

// releaseBody returns what readBody reserved, if anything.
func (s *server) releaseBody(w *response) {
	if w.reserved > 0 {
		s.metrics.uploadsInFlight.Dec()
		s.uploadMemory.Release(w.reserved)
	}
}

// readForm reads a body of one of the accepted media types.
func (s *server) readForm(w *response, r *http.Request, accepted []string, fields ...string) (*form, error) {
	mediaType, params, err := contentType(r, accepted...)
	if err != nil {
		return nil, err
	}
	limit := int64(maxFormBytes)
	if mediaType == "multipart/form-data" {
		limit += s.MaxAvatarBytes
	}
	data, err := s.readBody(w, r, limit)
	if err != nil {
		return nil, err
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	f := &form{fields: map[string]string{}, allowed: fields}
	switch {
	case mediaType == "multipart/form-data":
		return f, f.readMultipart(data, params["boundary"], s.MaxAvatarBytes)
	case mediaType != "application/x-www-form-urlencoded":
		return f, f.readJSON(data)
	case json.Valid(data):
		return nil, unsupported("the body is JSON; send it with Content-Type: application/json")
	}
	return f, f.readURLEncoded(string(data))
}

// readJSON reads an object of strings. Unlike encoding/json it refuses members that are
// unknown, repeated, or differ from a field only in case.
func (f *form) readJSON(data []byte) error {
	if err := json.Unmarshal(data, new(json.RawMessage)); err != nil {
		return badRequest("the body is not valid JSON: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(data)) // cannot fail from here on
	if begin, _ := d.Token(); begin != json.Delim('{') {
		return badRequest("the body must be a JSON object")
	}
	for d.More() {
		name, _ := d.Token()
		var value any
		_ = d.Decode(&value) // fails for a number beyond float64, which is no string either
		if text, ok := value.(string); ok {
			f.set(name.(string), text)
		} else {
			f.fault(name.(string), "must be a string")
		}
	}
	return f.err()
}

// readURLEncoded reads application/x-www-form-urlencoded.
func (f *form) readURLEncoded(text string) error {
	values, err := url.ParseQuery(text)
	if err != nil {
		return badRequest("the fields are not URL-encoded: %v", err)
	}
	for _, field := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[field] {
			f.set(field, value)
		}
	}
	return f.err()
}

// readMultipart reads multipart/form-data (RFC 7578), the image from the part avatar or file. It
// overwrites the body.
func (f *form) readMultipart(body []byte, boundary string, maxImage int64) error {
	if boundary == "" {
		return badRequest("Content-Type lacks the boundary parameter of multipart/form-data")
	}
	final := "--" + boundary + "--"
	// LastIndex: it is at the end. multipart.Reader drops a part that is cut in its header.
	if bytes.LastIndex(body, []byte(final)) < 0 {
		return badRequest("the form lacks %.80q, the final boundary by Content-Type", final)
	}
	f.allowed = append(f.allowed, "avatar", "file")
	source := &io.LimitedReader{R: bytes.NewReader(body)}
	parts := multipart.NewReader(source, boundary)
	// Over what has been read of the body: with another buffer, 200 uploads took 339 MiB, not 187.
	contents := bytes.NewBuffer(body[:0])
	for n := 1; ; n++ {
		source.N = maxFormBytes // for the header: multipart.Reader would accept 10 MiB
		p, err := parts.NextRawPart()
		switch {
		case err == io.EOF && source.N > 0:
			return f.err()
		case err != nil:
			return badRequest("part %d of the form is malformed or has a long header: %.200v", n, err)
		case n > maxParts:
			return badRequest("the form has more than %d parts", maxParts)
		case p.FormName() == "":
			return badRequest("part %d of the form has no readable name; "+
				`send Content-Disposition: form-data; name="..."`, n)
		}
		encoding := p.Header.Get("Content-Transfer-Encoding") // RFC 7578, section 4.7
		if !slices.Contains([]string{"", "7bit", "8bit", "binary"}, strings.ToLower(encoding)) {
			return badRequest("part %d of the form has the Content-Transfer-Encoding %.40q; "+
				"send it unencoded", n, encoding)
		}
		source.N = int64(len(body)) // for the content
		begin := contents.Len()
		if _, err := contents.ReadFrom(p); err != nil {
			return bodyError(err)
		}
		if err := f.addPart(p, contents.Bytes()[begin:], maxImage); err != nil {
			return err
		}
	}
}

func (f *form) addPart(p *multipart.Part, content []byte, maxImage int64) error {
	name := p.FormName()
	isImage := name == "avatar" || name == "file"
	limit := int64(maxFormBytes)
	if isImage {
		limit = maxImage
	}
	switch {
	case isImage && len(content) == 0 && p.FileName() == "":
		// A browser sends this for an empty file input.
	case isImage && f.image != nil:
		f.fault(name, "more than one image was sent")
	case int64(len(content)) > limit:
		return tooLarge("%.40q may have at most %d bytes", name, limit)
	case isImage:
		f.image = content
	default:
		f.set(name, string(content))
	}
	return nil
}

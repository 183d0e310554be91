package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	// maxFormBytes bounds what a body may have beside an image. The longest
	// valid fields, escaped in the most wasteful way, stay well under it.
	maxFormBytes = 64 << 10

	// maxParts bounds the parts of a multipart body: three are the most that
	// make sense.
	maxParts = 16

	maxNameLength  = 200 // characters
	maxEmailLength = 254 // bytes; RFC 5321, section 4.5.3.1.3, less the angle brackets
)

// A form is what a request brings: text fields, and perhaps an image.
type form struct {
	fields map[string]string
	image  []byte // nil: none was sent
}

// A formReader collects one form, and all that is wrong with it.
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
		f.fault(quoteField(field), "unknown field; the fields are %s", strings.Join(f.allowed, ", "))
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

// quoteField makes a field name that a client made up fit for an answer.
func quoteField(name string) string {
	if name == "" {
		return `""`
	}
	if r := []rune(name); len(r) > 40 {
		name = string(r[:40]) + "…"
	}
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, name), string(unicode.ReplacementChar))
}

// checkEncoding refuses compressed bodies: what they unpack to has no bound.
func checkEncoding(r *http.Request) error {
	if e := r.Header.Values("Content-Encoding"); len(e) > 0 && !(len(e) == 1 && strings.EqualFold(e[0], "identity")) {
		return unsupported("Content-Encoding %q is not supported; send the body as it is", abbreviate(strings.Join(e, ", ")))
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
		return "", nil, unsupported("Content-Type %q cannot be read: %v", abbreviate(values[0]), err)
	}
	return mediaType, params, nil
}

// readAll reads the body up to limit bytes.
func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge("the body may have at most %d bytes; %d were announced", limit, r.ContentLength)
	}
	body := http.MaxBytesReader(w, r.Body, limit)
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

// readJSON reads an object whose members are all strings. Unlike encoding/json
// it refuses members that are unknown, repeated, or the same but for case.
func readJSON(data []byte, allowed ...string) (form, error) {
	if !utf8.Valid(data) {
		return form{}, badRequest("the body is not valid UTF-8")
	}
	f := newFormReader(allowed...)
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // else one too large for a float64 is an error that quotes it whole
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
			return form{}, badField(quoteField(name), "must be a string")
		}
		f.set(name, text)
	}
	if _, err := d.Token(); err != nil {
		return form{}, badRequest("the body is not valid JSON: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return form{}, badRequest("there is something after the JSON object")
	}
	return f.result()
}

// readURLEncoded reads application/x-www-form-urlencoded.
func readURLEncoded(data []byte, allowed ...string) (form, error) {
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

// readMultipart reads multipart/form-data (RFC 7578), the image from the part
// avatar or file. Only the image is large, and it is held once: length is that
// of the whole body, or negative if it is not known.
func readMultipart(body io.Reader, boundary string, maxImage, length int64, allowed ...string) (form, error) {
	if boundary == "" {
		return form{}, badRequest("Content-Type lacks the boundary of multipart/form-data")
	}
	f := newFormReader(allowed...)
	// multipart.Reader asks for 4 KiB at a time, each of which would be a system call.
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
		if name := part.FormName(); name == "avatar" || name == "file" {
			err = f.readImage(part, maxImage, length)
		} else {
			err = f.readText(part, name)
		}
		if err != nil {
			return form{}, err
		}
	}
}

// endless stands where a multipart body ends. The end is the final boundary, after
// which nothing is read; but to multipart.Reader a body that ends within the
// header of a part has ended well, and what follows would go missing unnoticed.
// The line break before it is for a final boundary that has none, as it may.
type endless struct{}

func (endless) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (f *formReader) readImage(part *multipart.Part, limit, bodyLength int64) error {
	if f.image != nil {
		// One image is all that memory was reserved for: of another it is enough
		// to know that it is there.
		limit = 0
	}
	// The image is shorter than the body, so the buffer need not grow.
	buffer := bytes.NewBuffer(make([]byte, 0, min(max(bodyLength, 0), limit)+bytes.MinRead))
	_, err := buffer.ReadFrom(io.LimitReader(part, limit+1))
	data := buffer.Bytes()
	switch {
	case err != nil:
		return bodyError(err)
	case f.image == nil && int64(len(data)) > limit:
		return tooLarge("%s may have at most %d bytes", part.FormName(), limit)
	case len(data) == 0 && part.FileName() == "":
		// What a browser sends for a file input that was left empty.
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
		return tooLarge("%s may have at most %d bytes", quoteField(name), maxFormBytes)
	}
	f.set(name, string(data))
	return nil
}

// cleanName puts a name into the form in which it is stored: trimmed, and in
// Unicode normalization form C, so that what looks the same is the same.
func cleanName(name string) (string, *fieldError) {
	name = norm.NFC.String(strings.TrimSpace(name))
	n := utf8.RuneCountInString(name)
	switch {
	case n == 0:
		return "", &fieldError{"name", "must have 1 to 200 characters; it is missing or blank"}
	case n > maxNameLength:
		return "", &fieldError{"name", fmt.Sprintf("may have at most %d characters; it has %d", maxNameLength, n)}
	case strings.ContainsFunc(name, unicode.IsControl):
		return "", &fieldError{"name", "may not have control characters"}
	case strings.ContainsRune(name, unicode.ReplacementChar):
		// What decoding makes of a broken escape such as "\ud800".
		return "", &fieldError{"name", "is not valid Unicode"}
	}
	return name, nil
}

// cleanEmail accepts a bare address: local part, @, domain, as in RFC 5322, with
// the international characters of RFC 6531; no display name, comment or quotes.
func cleanEmail(email string) (string, *fieldError) {
	email = strings.TrimSpace(email)
	if email == "" {
		return "", &fieldError{"email", "must be an email address; it is missing or blank"}
	}
	if len(email) > maxEmailLength {
		return "", &fieldError{"email", fmt.Sprintf("may have at most %d bytes; it has %d", maxEmailLength, len(email))}
	}
	at := strings.LastIndexByte(email, '@')
	address, err := mail.ParseAddress(email)
	if err != nil || address.Name != "" || address.Address != email || !validDomain(email[at+1:]) ||
		strings.ContainsFunc(email, notInEmail) {
		return "", &fieldError{"email", "must be a bare email address such as ada@example.com"}
	}
	return email, nil
}

// notInEmail finds what is invisible or stands for a broken escape: an address
// with one of these cannot be told from another by looking.
func notInEmail(r rune) bool {
	return r == unicode.ReplacementChar || unicode.IsSpace(r) || unicode.In(r, unicode.C)
}

// validDomain accepts host names (RFC 1123, section 2.1), with or without dots,
// and their international forms.
func validDomain(domain string) bool {
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r != '-' && !unicode.In(r, unicode.L, unicode.N, unicode.M) {
				return false
			}
		}
	}
	return true
}

package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"roster/internal/testkit"
)

func newForm(allowed ...string) *form {
	return &form{fields: map[string]string{}, allowed: allowed}
}

func TestReadJSON(t *testing.T) {
	for _, test := range []struct {
		name, body string
		want       map[string]string // nil: rejected
		fields     []string          // with an error
	}{
		{"both", `{"name":"Ada","email":"ada@example.com"}`,
			map[string]string{"name": "Ada", "email": "ada@example.com"}, nil},
		{"white space", " \n{ \"name\" : \"Ada\" }\r\n\t", map[string]string{"name": "Ada"}, nil},
		{"escapes", `{"name":"\u0041\ud83d\ude00\n"}`, map[string]string{"name": "A😀\n"}, nil},
		{"escaped name of a member", `{"n\u0061me":"Ada"}`, map[string]string{"name": "Ada"}, nil},
		{"none", `{}`, map[string]string{}, nil},
		{"unknown", `{"name":"Ada","admin":"true"}`, nil, []string{"admin"}},
		{"same but for case", `{"Name":"Ada"}`, nil, []string{"Name"}},
		{"repeated", `{"name":"Ada","name":"Eve"}`, nil, []string{"name"}},
		{"repeated by escape", `{"name":"Ada","n\u0061me":"Eve"}`, nil, []string{"name"}},
		{"all faults at once", `{"a":"1","b":"2","name":"x","name":"y"}`, nil, []string{"a", "b", "name"}},
		{"number", `{"name":1}`, nil, []string{"name"}},
		{"null", `{"name":null}`, nil, []string{"name"}},
		{"object", `{"name":{"name":"Ada"}}`, nil, []string{"name"}},
		{"deep", `{"name":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + "}", nil, nil},
		{"unfinished and deep", `{"name":` + strings.Repeat("[", 30_000), nil, nil},
		{"two objects", `{"name":"Ada"}{"name":"Eve"}`, nil, nil},
		{"rest", `{"name":"Ada"} x`, nil, nil},
		{"array", `["name"]`, nil, nil},
		{"text", `"name"`, nil, nil},
		{"empty", ``, nil, nil},
		{"unfinished", `{"name":"Ada"`, nil, nil},
		{"trailing comma", `{"name":"Ada",}`, nil, nil},
		{"single quotes", `{'name':'Ada'}`, nil, nil},
		{"not UTF-8", "{\"name\":\"\xff\"}", nil, []string{"name"}},
		{"broken escape", `{"name":"\ud800"}`, nil, []string{"name"}},
		{"huge number", `{"name":1e999}`, nil, []string{"name"}},
		{"name not UTF-8", "{\"na\xffme\":\"Ada\"}", nil, []string{"na\ufffdme"}},
		{"all faults of types", `{"name":1,"email":[]}`, nil, []string{"name", "email"}},
		{"control character", "{\"name\":\"a\nb\"}", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newForm("name", "email")
			checkForm(t, f, f.readJSON([]byte(test.body)), test.want, test.fields)
		})
	}
}

func TestReadURLEncoded(t *testing.T) {
	for _, test := range []struct {
		name, body string
		want       map[string]string
		fields     []string
	}{
		{"both", "name=Ada+L&email=ada%40example.com", map[string]string{"name": "Ada L", "email": "ada@example.com"},
			nil},
		{"empty", "", map[string]string{}, nil},
		{"empty value", "name=", map[string]string{"name": ""}, nil},
		{"unknown", "name=Ada&admin=1", nil, []string{"admin"}},
		{"repeated", "name=Ada&name=Eve", nil, []string{"name"}},
		{"bad escape", "name=%zz", nil, nil},
		{"semicolon", "name=Ada;email=x", nil, nil},
		{"not UTF-8", "name=%ff", nil, []string{"name"}},
		{"control character as a field", "%00=1", nil, []string{`\x00`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newForm("name", "email")
			checkForm(t, f, f.readURLEncoded(test.body), test.want, test.fields)
		})
	}
}

// TestFault: a field's name is sent short, in valid UTF-8, without control characters.
func TestFault(t *testing.T) {
	for in, want := range map[string]string{
		"":                       `""`,
		"admin":                  "admin",
		"a\r\nb":                 `a\r\nb`,
		"\xff":                   `\xff`,
		`"`:                      `\"`,
		strings.Repeat("ä", 100): strings.Repeat("ä", 40),
	} {
		f := newForm()
		f.fault(in, "wrong")
		if got := f.faults[0].Field; got != want {
			t.Errorf("fault of the field %q: field %q, want %q", in, got, want)
		}
	}
}

func checkForm(t *testing.T, f *form, err error, want map[string]string, fields []string) {
	t.Helper()
	if want != nil {
		if diff := cmp.Diff(want, f.fields); diff != "" || err != nil {
			t.Errorf("form: error %v, fields (-want +got):\n%s", err, diff)
		}
		return
	}
	if err == nil {
		t.Fatalf("form with fields %v: no error, want 400", f.fields)
	}
	p := problemOf(err)
	var got []string
	for _, e := range p.Errors {
		got = append(got, e.Field)
	}
	if diff := cmp.Diff(fields, got); diff != "" || p.Status != http.StatusBadRequest {
		t.Errorf("form: status %d, error %v, want 400; fields at fault (-want +got):\n%s", p.Status, err, diff)
	}
}

// cleanField returns the value of a field as a handler gets it.
func cleanField(value string, clean func(string) (string, error)) (string, error) {
	f := newForm("field")
	f.set("field", value)
	got := f.parse("field", clean)
	return got, f.err()
}

func TestReadMultipart(t *testing.T) {
	const maxImage = 100
	part := func(disposition, content string) string {
		return "--b\r\nContent-Disposition: " + disposition + "\r\n\r\n" + content + "\r\n"
	}
	name := part(`form-data; name="name"`, "Ada")
	image := part(`form-data; name="avatar"; filename="me.png"`, "bytes")
	for _, test := range []struct {
		name, body string
		fields     map[string]string
		image      string
		status     int // of the problem
	}{
		{"field", name + "--b--", map[string]string{"name": "Ada"}, "", 0},
		{"field and image", name + image + "--b--", map[string]string{"name": "Ada"}, "bytes", 0},
		{"file", part(`form-data; name="file"; filename="x"`, "bytes") + "--b--", map[string]string{}, "bytes", 0},
		{"image without a file name", part(`form-data; name="avatar"`, "bytes") + "--b--", map[string]string{}, "bytes",
			0},
		{"no file was chosen", part(`form-data; name="avatar"; filename=""`, "") + "--b--", map[string]string{}, "", 0},
		{"path as a file name", part(`form-data; name="avatar"; filename="../../etc/passwd"`, "bytes") + "--b--",
			map[string]string{}, "bytes", 0},
		{"largest image", part(`form-data; name="avatar"; filename="x"`, strings.Repeat("x", maxImage)) + "--b--",
			map[string]string{}, strings.Repeat("x", maxImage), 0},
		{"image too large", part(`form-data; name="avatar"; filename="x"`, strings.Repeat("x", maxImage+1)) + "--b--",
			nil, "", http.StatusRequestEntityTooLarge},
		{"field too large", part(`form-data; name="name"`, strings.Repeat("x", maxFormBytes+1)) + "--b--", nil, "",
			http.StatusRequestEntityTooLarge},
		{"two images", image + image + "--b--", nil, "", http.StatusBadRequest},
		{"avatar and file", image + part(`form-data; name="file"; filename="x"`, "bytes") + "--b--", nil, "",
			http.StatusBadRequest},
		{"repeated", name + name + "--b--", nil, "", http.StatusBadRequest},
		{"unknown", part(`form-data; name="admin"`, "1") + "--b--", nil, "", http.StatusBadRequest},
		{"without a name", part(`form-data`, "1") + "--b--", nil, "", http.StatusBadRequest},
		{"not form-data", part(`attachment; name="name"`, "Ada") + "--b--", nil, "", http.StatusBadRequest},
		{"thousands of parts", strings.Repeat(name, 5000) + "--b--", nil, "", http.StatusBadRequest},
		{"header without end", "--b\r\nX: " + strings.Repeat("x", 1<<20), nil, "", http.StatusBadRequest},
		{"thousands of header fields", "--b\r\n" + strings.Repeat("X: x\r\n", 20_000) + "\r\n--b--", nil, "",
			http.StatusBadRequest},
		{"unfinished", name, nil, "", http.StatusBadRequest},
		{"unfinished image", part(`form-data; name="avatar"`, "bytes"), nil, "", http.StatusBadRequest},
		{"other boundary", strings.ReplaceAll(name+"--b--", "--b", "--c"), nil, "", http.StatusBadRequest},
		{"empty", "", nil, "", http.StatusBadRequest},
		{"nothing but the end", "--b--", map[string]string{}, "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newForm("name", "email")
			err := f.readMultipart([]byte(test.body), "b", maxImage)
			status := 0
			if err != nil {
				f, status = &form{}, problemOf(err).Status
			}
			if diff := cmp.Diff(test.fields, f.fields); diff != "" || status != test.status ||
				string(f.image) != test.image {
				t.Errorf("form: status %d (%v), image %q, want %d and %q\n%s", status, err, f.image, test.status,
					test.image, diff)
			}
		})
	}
}

func TestReadBody(t *testing.T) {
	for _, test := range []struct {
		name    string
		sent    int
		length  int64 // Content-Length; -1: chunked
		status  int
		content int
	}{
		{"at the limit", 10, 10, 0, 10},
		{"at the limit, chunked", 10, -1, 0, 10},
		{"announced too much", 0, 11, http.StatusRequestEntityTooLarge, 0},
		{"too much, chunked", 11, -1, http.StatusRequestEntityTooLarge, 0},
		{"broke off", 5, 10, http.StatusBadRequest, 0},
		{"nothing", 0, 0, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := io.Reader(bytes.NewReader(make([]byte, test.sent)))
			if int64(test.sent) < test.length { // as net/http does
				body = io.MultiReader(body, iotest.ErrReader(io.ErrUnexpectedEOF))
			}
			r := httptest.NewRequest("POST", "/", body)
			r.ContentLength = test.length
			data, err := new(server).readBody(&response{}, r, 10)
			status := 0
			if err != nil {
				status = problemOf(err).Status
			}
			if status != test.status || len(data) != test.content {
				t.Errorf("body of %d bytes: %d bytes, error %v; want %d and status %d", test.sent, len(data), err,
					test.content, test.status)
			}
		})
	}
}

func TestContentType(t *testing.T) {
	for _, test := range []struct {
		name   string
		header http.Header
		want   string
		ok     bool
	}{
		{"plain", http.Header{"Content-Type": {"application/json"}}, "application/json", true},
		{"case and parameter", http.Header{"Content-Type": {"Application/JSON; charset=utf-8"}}, "application/json",
			true},
		{"none", http.Header{}, "", false},
		{"not accepted", http.Header{"Content-Type": {"application/xml"}}, "", false},
		{"twice", http.Header{"Content-Type": {"application/json", "text/plain"}}, "", false},
		{"unreadable", http.Header{"Content-Type": {"application/json; ="}}, "", false},
		{"compressed", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, "", false},
		{"identity", http.Header{"Content-Type": {"text/plain"}, "Content-Encoding": {"identity"}}, "text/plain", true},
		{"twice identity", http.Header{"Content-Encoding": {"identity", "identity"}}, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := contentType(&http.Request{Header: test.header}, "application/json", "text/plain")
			if got != test.want || (err == nil) != test.ok {
				t.Errorf("media type %q, error %v, want %q, an error: %t", got, err, test.want, !test.ok)
			}
			if err != nil && problemOf(err).Status >= 500 {
				t.Error(err)
			}
		})
	}
}

// TestAcceptedTypes: the error of a wrong Content-Type lists the types of the route.
func TestAcceptedTypes(t *testing.T) {
	for _, test := range []struct{ method, contentType, detail, acceptPatch string }{
		{"POST", "", `Content-Type is missing; it must be one of application/json, text/plain`, ""},
		{"POST", "text/html; x", `Content-Type must be one of application/json, text/plain; it is "text/html; x"`, ""},
		{"PATCH", "a", `Content-Type must be one of application/json, text/plain; it is "a"`,
			"application/json, text/plain"},
	} {
		r := httptest.NewRequest(test.method, "/", nil)
		r.Header.Set("Content-Type", test.contentType)
		_, _, err := contentType(r, "application/json", "text/plain")
		p := problemOf(err)
		if p.Status != http.StatusUnsupportedMediaType || p.Detail != test.detail ||
			p.header.Get("Accept-Patch") != test.acceptPatch {
			t.Errorf("%s %s: %+v", test.method, test.contentType, p)
		}
	}
	for _, any := range []string{"", "image/png", "image", "image/png; =", "application/x-www-form-urlencoded"} {
		r := httptest.NewRequest("PUT", "/", nil)
		r.Header.Set("Content-Type", any)
		if _, _, err := contentType(r); err != nil {
			t.Errorf("%s: %v where every type is accepted", any, err)
		}
	}
}

// TestBoundary: a boundary with characters that belong in quotes is accepted without them.
func TestBoundary(t *testing.T) {
	for header, want := range map[string]string{
		`multipart/form-data; boundary=abc`:                         "abc",
		`multipart/form-data; boundary="----=_Part_1_2.3"`:          "----=_Part_1_2.3",
		`multipart/form-data; boundary=----=_Part_1_2.3`:            "----=_Part_1_2.3",
		`Multipart/Form-Data;Boundary=a=b`:                          "a=b",
		`multipart/form-data; boundary=a/b:c?d,e@f ; charset=utf-8`: "a/b:c?d,e@f",
		`multipart/form-data; boundary="a`:                          "", // 415
		`multipart/form-data; boundary=`:                            "",
		`text/plain; boundary=a=b`:                                  "",
		`multipart/form-data; charset=a=b; boundary=c`:              "",
	} {
		_, params, err := contentType(&http.Request{Header: http.Header{"Content-Type": {header}}},
			"multipart/form-data")
		if params["boundary"] != want || (err == nil) != (want != "") {
			t.Errorf("%s: boundary %q, error %v, want %q", header, params["boundary"], err, want)
		}
	}
}

// The fuzz tests check that no input panics or gets a 5xx, and that accepted values are
// valid for the stores and responses.

func FuzzMultipart(f *testing.F) {
	image := testkit.Files(f, "testdata")["ada.png"]
	for _, fields := range []url.Values{nil, {"name": {"Ada"}, "email": {"ada@example.com"}}, {"name": {"a", "b"}}} {
		for _, image := range [][]byte{nil, image} {
			contentType, body := testkit.Form(image, fields)
			f.Add(body, strings.TrimPrefix(contentType, "multipart/form-data; boundary="))
		}
	}
	f.Add([]byte("--b\r\nContent-Disposition: form-data; name*=utf-8''n%61me\r\n\r\nAda\r\n--b--"), "b")
	f.Add([]byte("--b\nContent-Disposition: form-data; name=name\n\nAda\n--b--"), "b")
	f.Add([]byte("--b\r\nContent-Transfer-Encoding: quoted-printable\r\n"+
		"Content-Disposition: form-data; name=avatar\r\n\r\n=41\r\n--b--"), "b")
	f.Add([]byte("--\r\n\r\n----"), "")
	f.Fuzz(func(t *testing.T, body []byte, boundary string) {
		const limit = 10_000
		form := newForm("name", "email")
		err := form.readMultipart(bytes.Clone(body), boundary, limit)
		if len(form.image) > limit {
			t.Errorf("an image of %d bytes passes", len(form.image))
		}
		checkFuzzedForm(t, form, err)
		if err != nil {
			return
		}
		parts := multipart.NewReader(bytes.NewReader(body), boundary)
		for {
			p, err := parts.NextRawPart()
			if err == io.EOF {
				break
			}
			content := testkit.Must(io.ReadAll(p))
			got, isField := form.fields[p.FormName()]
			if !isField {
				got = string(form.image)
			}
			if got != string(content) {
				t.Errorf("%s is %q, want %q", p.FormName(), got, content)
			}
		}
	})
}

func FuzzJSONForm(f *testing.F) {
	for _, seed := range []string{
		`{"name":"Ada","email":"ada@example.com"}`, `{}`, `{"name":null}`, `{"name":"\ud800"}`, `[`, `{"a":{"a":{`,
		`{"name":"a"}{}`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		form := newForm("name", "email")
		checkFuzzedForm(t, form, form.readJSON(body))
	})
}

func FuzzURLEncodedForm(f *testing.F) {
	for _, seed := range []string{"name=Ada&email=ada%40example.com", "name=%ff", "&&=", "name", "%zz"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		form := newForm("name", "email")
		checkFuzzedForm(t, form, form.readURLEncoded(string(body)))
	})
}

func checkFuzzedForm(t *testing.T, form *form, err error) {
	t.Helper()
	if err != nil {
		p := problemOf(err)
		if p.Status < 400 || p.Status >= 500 {
			t.Errorf("%d for a client's mistake: %v", p.Status, err)
		}
		for _, e := range p.Errors {
			if e.Field == "" || len(e.Field) > 400 || strings.ContainsFunc(e.Field, unicode.IsControl) {
				t.Errorf("field %q is not fit for an answer", e.Field)
			}
		}
		return
	}
	for name, value := range form.fields {
		if name != "name" && name != "email" {
			t.Errorf("unknown field %q passes", name)
		}
		if !utf8.ValidString(value) {
			t.Errorf("%q is not valid UTF-8", value)
		}
		cleanField(value, cleanName)
		cleanField(value, cleanEmail)
	}
}

// TestParts: parts are split as RFC 2046 says.
func TestParts(t *testing.T) {
	const disposition = "Content-Disposition: form-data; name="
	head := disposition + "a\r\n\r\n"
	var many strings.Builder
	most := map[string]string{}
	for i := range maxParts {
		name := string(rune('a' + i))
		fmt.Fprintf(&many, "--b\r\n%s%s\r\n\r\nx\r\n", disposition, name)
		most[name] = "x"
	}
	ada := map[string]string{"a": "Ada"}
	for _, test := range []struct {
		name, body string
		want       map[string]string // nil: 400
	}{
		{"one part", "--b\r\n" + head + "Ada\r\n--b--\r\n", ada},
		{"two parts", "--b\r\n" + head + "Ada\r\n--b\r\n" + disposition + "b\r\n\r\nx\r\n--b--",
			map[string]string{"a": "Ada", "b": "x"}},
		{"empty part", "--b\r\n" + head + "\r\n--b--", map[string]string{"a": ""}},
		{"line breaks in the content", "--b\r\n" + head + "\r\n\r\n\n\r\r\n--b--",
			map[string]string{"a": "\r\n\r\n\n\r"}},
		{"LF", strings.ReplaceAll("--b\r\n"+head+"Ada\r\n--b--", "\r\n", "\n"), ada},
		{"preamble and epilogue", "before\r\n--b\r\n" + head + "Ada\r\n--b--\r\nafter\r\n--b\r\n", ada},
		{"padding", "--b \t\r\n" + head + "Ada\r\n--b--  \r\n", ada},
		{"longer line", "--b\r\n" + head + "\r\n--bc\r\n--b--", map[string]string{"a": "\r\n--bc"}},
		{"boundary in a line", "--b\r\n" + head + "x--b\r\n--b--", map[string]string{"a": "x--b"}},
		{"boundary behind other text", "x--b\r\n" + head + "Ada\r\n--b--", map[string]string{}},
		{"folded header", "--b\r\nContent-Disposition: form-data;\r\n name=a\r\n\r\nAda\r\n--b--", ada},
		{"8bit", "--b\r\nContent-Transfer-Encoding: 8Bit\r\n" + head + "Ada\r\n--b--", ada},
		{"most parts", many.String() + "--b--", most},
		{"no part", "--b--", map[string]string{}},
		{"too many parts", many.String() + "--b\r\n" + disposition + "avatar\r\n\r\n\r\n--b--", nil},
		{"quoted-printable", "--b\r\nContent-Transfer-Encoding: quoted-printable\r\n" + head + "=41\r\n--b--", nil},
		{"no header", "--b\r\n\r\nAda\r\n--b--", nil},
		{"no end of the header", "--b\r\n" + strings.TrimSpace(head) + "\r\n--b--", nil},
		{"no field in the header", "--b\r\nAda\r\n\r\nAda\r\n--b--", nil},
		{"long header", "--b\r\nX: " + strings.Repeat("x", maxFormBytes) + "\r\n" + head + "Ada\r\n--b--", nil},
		{"text in the line of the boundary", "--b\r\n" + head + "Ada\r\n--b x\r\n--b--", nil},
		{"other boundary", "--c\r\n" + head + "Ada\r\n--c--", nil},
	} {
		f := newForm(slices.Sorted(maps.Keys(most))...)
		err := f.readMultipart([]byte(test.body), "b", 1)
		if test.want == nil {
			if err == nil || problemOf(err).Status != http.StatusBadRequest {
				t.Errorf("%s: %q, %v; want 400", test.name, f.fields, err)
			}
			continue
		}
		if diff := cmp.Diff(test.want, f.fields); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", test.name, err, diff)
		}
	}
}

// TestCutParts: a form that is cut anywhere before the end of its last boundary is refused.
func TestCutParts(t *testing.T) {
	contentType, body := testkit.Form([]byte("GIF\r\n--"), url.Values{"name": {"Ada"}, "email": {"ada@example.com"}})
	boundary := strings.TrimPrefix(contentType, "multipart/form-data; boundary=")
	whole := bytes.LastIndex(body, []byte("--")) + 2
	for n := range whole + 1 {
		err := newForm("name", "email").readMultipart(body[:n], boundary, 100)
		if (err == nil) != (n == whole) {
			t.Errorf("%d of %d bytes: %v", n, whole, err)
		}
	}
}

// TestMultipartMemory: the image is not copied, and most of a long header is not read.
func TestMultipartMemory(t *testing.T) {
	const size = 8 << 20
	contentType, body := testkit.Form(make([]byte, size), url.Values{"name": {"Ada"}, "email": {"ada@example.com"}})
	boundary := strings.TrimPrefix(contentType, "multipart/form-data; boundary=")
	long := []byte("--b\r\nX: " + strings.Repeat("x", size) + "\r\n\r\n--b--")
	for _, test := range []struct {
		name, boundary string
		body           []byte
		image          int
	}{
		{"image", boundary, body, size},
		{"header", "b", long, 0},
	} {
		f := newForm("name", "email")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := f.readMultipart(test.body, test.boundary, size)
		runtime.ReadMemStats(&after)
		if len(f.image) != test.image || (err == nil) != (test.image > 0) {
			t.Errorf("%s: image of %d bytes, %v", test.name, len(f.image), err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > size/8 {
			t.Errorf("%s: reading a form of %d bytes allocated %d bytes", test.name, len(test.body), n)
		}
	}
}

// TestMultipartInPlace: contents that are larger than buffers come out whole, before and after the image.
func TestMultipartInPlace(t *testing.T) {
	fields, image := map[string]string{}, make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(image)
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for i, name := range []string{"a", "b", "avatar", "c", "d"} {
		content := image
		if name != "avatar" {
			content = bytes.Repeat([]byte(name), 10_000*i)
			fields[name] = string(content)
		}
		testkit.Must(testkit.Must(w.CreateFormField(name)).Write(content))
	}
	w.Close()
	f := newForm(slices.Collect(maps.Keys(fields))...)
	err := f.readMultipart(body.Bytes(), w.Boundary(), int64(len(image)))
	if diff := cmp.Diff(fields, f.fields); diff != "" || !bytes.Equal(f.image, image) || err != nil {
		t.Errorf("error %v, image of %d bytes; want %d, and the same\n%s", err, len(f.image), len(image), diff)
	}
}

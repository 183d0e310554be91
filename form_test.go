package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestReadJSON(t *testing.T) {
	for _, test := range []struct {
		name, body string
		want       map[string]string // nil: refused
		fields     []string          // those found at fault
	}{
		{"both", `{"name":"Ada","email":"ada@example.com"}`, map[string]string{"name": "Ada", "email": "ada@example.com"}, nil},
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
		{"deep", `{"name":` + strings.Repeat("[", 30_000), nil, []string{"name"}},
		{"two objects", `{"name":"Ada"}{"name":"Eve"}`, nil, nil},
		{"rest", `{"name":"Ada"} x`, nil, nil},
		{"array", `["name"]`, nil, nil},
		{"text", `"name"`, nil, nil},
		{"empty", ``, nil, nil},
		{"unfinished", `{"name":"Ada"`, nil, nil},
		{"trailing comma", `{"name":"Ada",}`, nil, nil},
		{"single quotes", `{'name':'Ada'}`, nil, nil},
		{"not UTF-8", "{\"name\":\"\xff\"}", nil, nil},
		{"control character", "{\"name\":\"a\nb\"}", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := readJSON([]byte(test.body), "name", "email")
			checkForm(t, f, err, test.want, test.fields)
		})
	}
}

func TestReadURLEncoded(t *testing.T) {
	for _, test := range []struct {
		name, body string
		want       map[string]string
		fields     []string
	}{
		{"both", "name=Ada+L&email=ada%40example.com", map[string]string{"name": "Ada L", "email": "ada@example.com"}, nil},
		{"empty", "", map[string]string{}, nil},
		{"empty value", "name=", map[string]string{"name": ""}, nil},
		{"unknown", "name=Ada&admin=1", nil, []string{"admin"}},
		{"repeated", "name=Ada&name=Eve", nil, []string{"name"}},
		{"bad escape", "name=%zz", nil, nil},
		{"semicolon", "name=Ada;email=x", nil, nil},
		{"not UTF-8", "name=%ff", nil, []string{"name"}},
		{"control character as a field", "%00=1", nil, []string{"\ufffd"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := readURLEncoded([]byte(test.body), "name", "email")
			checkForm(t, f, err, test.want, test.fields)
		})
	}
}

func checkForm(t *testing.T, f form, err error, want map[string]string, fields []string) {
	t.Helper()
	if want != nil {
		if diff := cmp.Diff(want, f.fields); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
		return
	}
	if err == nil {
		t.Fatalf("accepted: %v", f.fields)
	}
	p := problemOf(err)
	var got []string
	for _, e := range p.Errors {
		got = append(got, e.Field)
	}
	if diff := cmp.Diff(fields, got); diff != "" || p.Status != http.StatusBadRequest {
		t.Errorf("%d: %v\n%s", p.Status, err, diff)
	}
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
		{"image without a file name", part(`form-data; name="avatar"`, "bytes") + "--b--", map[string]string{}, "bytes", 0},
		{"no file was chosen", part(`form-data; name="avatar"; filename=""`, "") + "--b--", map[string]string{}, "", 0},
		{"path as a file name", part(`form-data; name="avatar"; filename="../../etc/passwd"`, "bytes") + "--b--", map[string]string{}, "bytes", 0},
		{"largest image", part(`form-data; name="avatar"; filename="x"`, strings.Repeat("x", maxImage)) + "--b--", map[string]string{}, strings.Repeat("x", maxImage), 0},
		{"image too large", part(`form-data; name="avatar"; filename="x"`, strings.Repeat("x", maxImage+1)) + "--b--", nil, "", http.StatusRequestEntityTooLarge},
		{"field too large", part(`form-data; name="name"`, strings.Repeat("x", maxFormBytes+1)) + "--b--", nil, "", http.StatusRequestEntityTooLarge},
		{"two images", image + image + "--b--", nil, "", http.StatusBadRequest},
		{"avatar and file", image + part(`form-data; name="file"; filename="x"`, "bytes") + "--b--", nil, "", http.StatusBadRequest},
		{"repeated", name + name + "--b--", nil, "", http.StatusBadRequest},
		{"unknown", part(`form-data; name="admin"`, "1") + "--b--", nil, "", http.StatusBadRequest},
		{"without a name", part(`form-data`, "1") + "--b--", nil, "", http.StatusBadRequest},
		{"not form-data", part(`attachment; name="name"`, "Ada") + "--b--", nil, "", http.StatusBadRequest},
		{"thousands of parts", strings.Repeat(name, 5000) + "--b--", nil, "", http.StatusBadRequest},
		{"header without end", "--b\r\nX: " + strings.Repeat("x", 1<<20), nil, "", http.StatusBadRequest},
		{"thousands of header fields", "--b\r\n" + strings.Repeat("X: x\r\n", 20_000) + "\r\n--b--", nil, "", http.StatusBadRequest},
		{"unfinished", name, nil, "", http.StatusBadRequest},
		{"unfinished image", part(`form-data; name="avatar"`, "bytes"), nil, "", http.StatusBadRequest},
		{"other boundary", strings.ReplaceAll(name+"--b--", "--b", "--c"), nil, "", http.StatusBadRequest},
		{"empty", "", nil, "", http.StatusBadRequest},
		{"nothing but the end", "--b--", map[string]string{}, "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			// At once with its length known, and byte by byte with no length.
			for _, length := range []int64{int64(len(test.body)), -1} {
				body := io.Reader(strings.NewReader(test.body))
				if length < 0 {
					body = iotest.OneByteReader(body)
				}
				f, err := readMultipart(body, "b", maxImage, length, "name", "email")
				status := 0
				if err != nil {
					status = problemOf(err).Status
				}
				if diff := cmp.Diff(test.fields, f.fields); diff != "" || status != test.status || string(f.image) != test.image {
					t.Errorf("got %d (%v) and an image of %d bytes, want %d and %d\n%s", status, err, len(f.image), test.status, len(test.image), diff)
				}
			}
		})
	}
}

// TestBodyError: the client is told which of its mistakes it was.
func TestBodyError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{&http.MaxBytesError{Limit: 1}, http.StatusRequestEntityTooLarge},
		{os.ErrDeadlineExceeded, http.StatusRequestTimeout},
		{fmt.Errorf("multipart: NextPart: %w", os.ErrDeadlineExceeded), http.StatusRequestTimeout},
		{errors.New("unexpected EOF"), http.StatusBadRequest},
		{tooLarge("an image"), http.StatusRequestEntityTooLarge},
	} {
		if got := problemOf(bodyError(test.err)).Status; got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

func TestReadAll(t *testing.T) {
	for _, test := range []struct {
		name    string
		sent    int
		length  int64 // announced; -1: chunked
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
			r := httptest.NewRequest("POST", "/", bytes.NewReader(make([]byte, test.sent)))
			r.ContentLength = test.length
			data, err := readAll(httptest.NewRecorder(), r, 10)
			status := 0
			if err != nil {
				status = problemOf(err).Status
			}
			if status != test.status || len(data) != test.content {
				t.Errorf("got %d bytes, %v", len(data), err)
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
		{"case and parameter", http.Header{"Content-Type": {"Application/JSON; charset=utf-8"}}, "application/json", true},
		{"none", http.Header{}, "", true},
		{"twice", http.Header{"Content-Type": {"application/json", "text/plain"}}, "", false},
		{"unreadable", http.Header{"Content-Type": {"application/json; ="}}, "", false},
		{"compressed", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, "", false},
		{"identity", http.Header{"Content-Type": {"text/plain"}, "Content-Encoding": {"identity"}}, "text/plain", true},
		{"twice identity", http.Header{"Content-Encoding": {"identity", "identity"}}, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := contentType(&http.Request{Header: test.header})
			if got != test.want || (err == nil) != test.ok {
				t.Errorf("got %q, %v", got, err)
			}
			if err != nil && problemOf(err).Status >= 500 {
				t.Error(err)
			}
		})
	}
}

func TestCleanName(t *testing.T) {
	for _, test := range []struct {
		name, in, want string // want empty: refused
	}{
		{"plain", "Ada Lovelace", "Ada Lovelace"},
		{"trimmed", " \t\u00a0Ada\u3000\n", "Ada"},
		{"one character", "A", "A"},
		{"longest", strings.Repeat("ä", 200), strings.Repeat("ä", 200)},
		{"longest after trimming", strings.Repeat(" ", 500) + strings.Repeat("x", 200), strings.Repeat("x", 200)},
		{"too long", strings.Repeat("x", 201), ""},
		{"normalized", "Zoe\u0308", "Zo\u00eb"},
		{"as long as that after normalization", strings.Repeat("e\u0308", 200), strings.Repeat("\u00eb", 200)},
		{"empty", "", ""},
		{"blank", " \u2003 ", ""},
		{"control character", "Ada\x00", ""},
		{"line break within", "Ada\nLovelace", ""},
		{"C1 control character", "Ada\u0085x", ""},
		{"broken escape", "Ada\ufffd", ""},
		{"markup is text", "<b>Ada</b>", "<b>Ada</b>"},
		{"right to left", "عدا", "عدا"},
		{"emoji with joiners", "👩‍💻", "👩‍💻"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, fault := cleanName(test.in)
			if got != test.want || (fault == nil) != (test.want != "") {
				t.Errorf("got %q, %v; want %q", got, fault, test.want)
			}
		})
	}
}

func TestCleanEmail(t *testing.T) {
	long := strings.Repeat("a", 60) + "@" + strings.Repeat(strings.Repeat("b", 60)+".", 3) + "example.com"
	for _, test := range []struct {
		in string
		ok bool
	}{
		{"ada@example.com", true},
		{"Ada.Lovelace+tag@Example.COM", true},
		{"ada@localhost", true},
		{"o'brien@example.ie", true},
		{"a@b.c", true},
		{"1@2.3", true},
		{"用户@例子.广告", true},
		{"ada@xn--bcher-kva.example", true},
		{"!#$%&'*+-/=?^_`{|}~@example.com", true},
		{strings.Repeat("a", 242) + "@example.com", true}, // 254 bytes
		{strings.Repeat("a", 243) + "@example.com", false},
		{long, len(long) <= 254},
		{"", false},
		{"ada", false},
		{"@example.com", false},
		{"ada@", false},
		{"ada@example.com,eve@example.com", false},
		{"ada@example.com eve@example.com", false},
		{"ada@@example.com", false},
		{"ada@exa mple.com", false},
		{"a da@example.com", false},
		{"Ada <ada@example.com>", false},
		{"<ada@example.com>", false},
		{`"ada lovelace"@example.com`, false},
		{`"ada"@example.com`, false},
		{"ada(comment)@example.com", false},
		{"ada@[127.0.0.1]", false},
		{"ada@-example.com", false},
		{"ada@example-.com", false},
		{"ada@example..com", false},
		{"ada@.example.com", false},
		{"ada@example.com.", false},
		{".ada@example.com", false},
		{"ada.@example.com", false},
		{"a..da@example.com", false},
		{"ada@exam_ple.com", false},
		{"ada@" + strings.Repeat("b", 64) + ".com", false},
		{"ada@example.com\nBcc: eve@example.com", false},
		{"ada@example.com\r", true}, // trimmed
		{"ada\x00@example.com", false},
		{"a\u200bda@example.com", false}, // zero width space
		{"ada@exam\u00adple.com", false}, // soft hyphen
		{"\u202eada@example.com", false}, // right-to-left override
		{"ada\ufffd@example.com", false},
		{"ada@example.com/../x", false},
	} {
		t.Run(test.in, func(t *testing.T) {
			got, fault := cleanEmail(test.in)
			if (fault == nil) != test.ok || test.ok && got != strings.TrimSpace(test.in) {
				t.Errorf("got %q, %v", got, fault)
			}
		})
	}
}

func TestUploadTarget(t *testing.T) {
	id := userID("ada@example.com")
	image := []byte{1}
	for _, test := range []struct {
		name   string
		form   form
		want   string
		fields []string
	}{
		{"by id", form{map[string]string{"user_id": id}, image}, id, nil},
		{"by id in capitals", form{map[string]string{"user_id": " " + strings.ToUpper(id)}, image}, id, nil},
		{"by email", form{map[string]string{"email": "ADA@example.com "}, image}, id, nil},
		{"both", form{map[string]string{"user_id": id, "email": "ada@example.com"}, image}, "", []string{"user_id"}},
		{"neither", form{map[string]string{}, image}, "", []string{"user_id"}},
		{"no image", form{map[string]string{"user_id": id}, nil}, "", []string{"avatar"}},
		{"nothing", form{map[string]string{}, nil}, "", []string{"user_id", "avatar"}},
		{"path for an id", form{map[string]string{"user_id": "../../" + id}, image}, "", []string{"user_id"}},
		{"empty id", form{map[string]string{"user_id": ""}, image}, "", []string{"user_id"}},
		{"empty email", form{map[string]string{"email": ""}, image}, "", []string{"user_id"}},
		{"id and empty email", form{map[string]string{"user_id": id, "email": " "}, image}, id, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := uploadTarget(test.form)
			var fields []string
			if err != nil {
				for _, e := range problemOf(err).Errors {
					fields = append(fields, e.Field)
				}
			}
			if diff := cmp.Diff(test.fields, fields); diff != "" || got != test.want {
				t.Errorf("got %q, %v\n%s", got, err, diff)
			}
		})
	}
}

func TestQuoteField(t *testing.T) {
	for in, want := range map[string]string{
		"":                       `""`,
		"admin":                  "admin",
		"a\r\nb":                 "a\ufffd\ufffdb",
		"\xff":                   "\ufffd",
		strings.Repeat("ä", 100): strings.Repeat("ä", 40) + "…",
	} {
		if got := quoteField(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestPageOf(t *testing.T) {
	id := userID("ada@example.com")
	cursor := formatCursor(id)
	for _, test := range []struct {
		query string
		limit int
		after string
		ok    bool
	}{
		{"", 0, "", true},
		{"limit=1", 1, "", true},
		{"limit=1000", 1000, "", true},
		{"cursor=" + cursor, 100, id, true},
		{"cursor=" + cursor + "&limit=7", 7, id, true},
		{"limit=0", 0, "", false},
		{"limit=1001", 0, "", false},
		{"limit=-1", 0, "", false},
		{"limit=", 0, "", false},
		{"limit=1e3", 0, "", false},
		{"limit=99999999999999999999", 0, "", false},
		{"limit=1&limit=2", 0, "", false},
		{"cursor=", 0, "", false},
		{"cursor=%00", 0, "", false},
		{"cursor=" + cursor + "&cursor=" + cursor, 0, "", false},
		{"offset=1", 0, "", false},
		{"limit=%zz", 0, "", false},
		{"limit=1;cursor=x", 0, "", false},
	} {
		t.Run(test.query, func(t *testing.T) {
			limit, after, err := pageOf(test.query)
			if !test.ok {
				if err == nil || problemOf(err).Status != http.StatusBadRequest {
					t.Errorf("got %d, %q, %v; want 400", limit, after, err)
				}
				return
			}
			if limit != test.limit || after != test.after || err != nil {
				t.Errorf("got %d, %q, %v", limit, after, err)
			}
		})
	}
}

func TestETagIn(t *testing.T) {
	const etag = `"abc"`
	for _, test := range []struct {
		fields []string
		want   bool
	}{
		{[]string{`"abc"`}, true},
		{[]string{`W/"abc"`}, true},
		{[]string{`*`}, true},
		{[]string{`"x", "abc"`}, true},
		{[]string{`"x"`, `"abc"`}, true},
		{[]string{`"x" ,W/"abc" `}, true},
		{[]string{`"ABC"`}, false},
		{[]string{`abc`}, false},
		{[]string{`"x"`}, false},
		{[]string{``}, false},
		{[]string{`,,`}, false},
	} {
		if got := etagIn(test.fields, etag, "W/"+etag); got != test.want {
			t.Errorf("%q: %v, want %v", test.fields, got, test.want)
		}
	}
}

func TestCacheControl(t *testing.T) {
	a := newAvatar("image/png", []byte("image"))
	for _, test := range []struct {
		v    string
		open bool
		want string
	}{
		{a.version(), true, "public, max-age=31536000, immutable"},
		{a.version(), false, "private, max-age=31536000, immutable"},
		{"", true, "no-cache"},
		{"0123456789abcdef", true, "no-cache"},
		{strings.ToUpper(a.version()), false, "no-cache"},
	} {
		r := &http.Request{URL: &url.URL{RawQuery: url.Values{"v": {test.v}}.Encode()}}
		if got := cacheControl(r, a, test.open); got != test.want {
			t.Errorf("v=%s: %q, want %q", test.v, got, test.want)
		}
	}
}

// TestReadMultipartOneBuffer: memory is reserved for one image, so there is a
// buffer for one, however many are announced.
func TestReadMultipartOneBuffer(t *testing.T) {
	const limit = 8 << 20
	body := strings.Repeat("--b\r\nContent-Disposition: form-data; name=avatar; filename=a\r\n\r\nGIF\r\n", 8) + "--b--"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readMultipart(strings.NewReader(body), "b", limit, limit)
	runtime.ReadMemStats(&after)
	if err == nil || problemOf(err).Status != http.StatusBadRequest {
		t.Errorf("got %v, want 400", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > limit+limit/2 {
		t.Errorf("it allocated %d bytes for an image of at most %d", n, limit)
	}
}

// TestPageOfFirstFault: the same query is answered in the same words every time.
func TestPageOfFirstFault(t *testing.T) {
	for range 20 {
		_, _, err := pageOf("limit=0&cursor=x&a=1&b=2")
		if got := problemOf(err).Errors[0].Field; got != "a" {
			t.Fatalf("the first fault is that of %s, want a", got)
		}
	}
}

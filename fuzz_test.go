package main

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// What holds for every input: no panic, no 5xx for a client's mistake, and what
// is accepted keeps the promises that the stores and answers rely on.

func FuzzMultipart(f *testing.F) {
	image := testImages(f)["ada.png"]
	for _, fields := range []url.Values{nil, {"name": {"Ada"}, "email": {"ada@example.com"}}, {"name": {"a", "b"}}} {
		for _, image := range [][]byte{nil, image} {
			contentType, body := multipartBody(image, fields)
			f.Add(body, strings.TrimPrefix(contentType, "multipart/form-data; boundary="))
		}
	}
	f.Add([]byte("--b\r\nContent-Disposition: form-data; name*=utf-8''n%61me\r\n\r\nAda\r\n--b--"), "b")
	f.Add([]byte("--b\nContent-Disposition: form-data; name=name\n\nAda\n--b--"), "b")
	f.Add([]byte("--b\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Disposition: form-data; name=avatar\r\n\r\n=41\r\n--b--"), "b")
	f.Add([]byte("--\r\n\r\n----"), "")
	f.Fuzz(func(t *testing.T, body []byte, boundary string) {
		const limit = 10_000
		form, err := readMultipart(bytes.NewReader(body), boundary, limit, int64(len(body)), "name", "email")
		if len(form.image) > limit {
			t.Errorf("an image of %d bytes passes", len(form.image))
		}
		checkFuzzedForm(t, form, err)
	})
}

func FuzzJSONForm(f *testing.F) {
	for _, seed := range []string{
		`{"name":"Ada","email":"ada@example.com"}`, `{}`, `{"name":null}`, `{"name":"\ud800"}`, `[`, `{"a":{"a":{`, `{"name":"a"}{}`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		form, err := readJSON(body, "name", "email")
		checkFuzzedForm(t, form, err)
	})
}

func FuzzURLEncodedForm(f *testing.F) {
	for _, seed := range []string{"name=Ada&email=ada%40example.com", "name=%ff", "&&=", "name", "%zz"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		form, err := readURLEncoded(body, "name", "email")
		checkFuzzedForm(t, form, err)
	})
}

func checkFuzzedForm(t *testing.T, form form, err error) {
	t.Helper()
	if err != nil {
		p := problemOf(err)
		if p.Status < 400 || p.Status >= 500 {
			t.Errorf("%d for a client's mistake: %v", p.Status, err)
		}
		for _, e := range p.Errors {
			if e.Field == "" || len(e.Field) > 200 || strings.ContainsFunc(e.Field, unicode.IsControl) {
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
		cleanName(value)
		cleanEmail(value)
	}
}

func FuzzEmail(f *testing.F) {
	for _, seed := range []string{
		"ada@example.com", "Ada <ada@example.com>", `"a b"@example.com`, "用户@例子.广告", "a@[::1]", "@", "a@b\x00", "\u212a@k", "a@\u0130",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		email, fault := cleanEmail(in)
		if fault != nil {
			return
		}
		if len(email) > maxEmailLength || !utf8.ValidString(email) || strings.Count(email, "@") != 1 ||
			strings.ContainsAny(email, " \t\r\n<>()[],;:\"\\") || strings.ContainsFunc(email, unicode.IsControl) {
			t.Errorf("%q passes as an email", email)
		}
		if again, fault := cleanEmail(email); fault != nil || again != email {
			t.Errorf("%q is accepted as %q, which is %v", in, email, fault)
		}
		id := userID(email)
		if _, ok := parseID(id); !ok {
			t.Errorf("%q makes %q, which is no id", email, id)
		}
		if userID(foldEmail(email)) != id {
			t.Errorf("%q and %q are two users", email, foldEmail(email))
		}
	})
}

func FuzzName(f *testing.F) {
	for _, seed := range []string{"Ada", " Ada ", "Zoe\u0308", "\u0344", "\u0085a", strings.Repeat("\u0958", 200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if !utf8.ValidString(in) {
			return // refused before, see formReader.set
		}
		name, fault := cleanName(in)
		if fault != nil {
			return
		}
		if n := utf8.RuneCountInString(name); n < 1 || n > maxNameLength || !norm.NFC.IsNormalString(name) || strings.TrimSpace(name) != name {
			t.Errorf("%q passes as a name", name)
		}
		if again, fault := cleanName(name); fault != nil || again != name {
			t.Errorf("%q is accepted as %q, which is %v", in, name, fault)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add(formatCursor(userID("ada@example.com")))
	f.Add("")
	f.Add("AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("AAAAAAAAgACAAAAAAAAAAB")
	f.Fuzz(func(t *testing.T, cursor string) {
		id, ok := parseCursor(cursor)
		if !ok {
			return
		}
		// encoding/base64 skips line breaks; with none there is one cursor for
		// each position.
		if again := formatCursor(id); again != strings.NewReplacer("\r", "", "\n", "").Replace(cursor) {
			t.Errorf("%q stands for %s, whose cursor is %q", cursor, id, again)
		}
	})
}

func FuzzRange(f *testing.F) {
	for _, seed := range []string{"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=9223372036854775807-", "bytes=-9223372036854775807"} {
		f.Add(seed, int64(10))
	}
	f.Fuzz(func(t *testing.T, field string, size int64) {
		if size < 1 {
			return // empty images are refused
		}
		status, start, length := parseRange(field, size)
		if status != http.StatusRequestedRangeNotSatisfiable && (start < 0 || length < 1 || length > size || start > size-length) {
			t.Errorf("%q of %d bytes: %d bytes from %d", field, size, length, start)
		}
	})
}

func FuzzTraceparent(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Add("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x")
	f.Fuzz(func(t *testing.T, field string) {
		if id := traceID(field); id != "" && (len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "") {
			t.Errorf("%q has the trace id %q", field, id)
		}
		if id := requestID(&http.Request{Header: http.Header{"X-Request-Id": {field}}}); id == "" || len(id) > 64 {
			t.Errorf("%q becomes %q", field, id)
		}
	})
}

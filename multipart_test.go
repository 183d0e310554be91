package main

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"roster/internal/testkit"
)

func TestSplitParts(t *testing.T) {
	const head = "Content-Disposition: form-data; name=name\r\n\r\n"
	many := strings.Repeat("--b\r\n"+head+"x\r\n", maxParts)
	for _, test := range []struct {
		name, body string
		want       []string // contents; nil: 400
	}{
		{"one part", "--b\r\n" + head + "Ada\r\n--b--\r\n", []string{"Ada"}},
		{"two parts", "--b\r\n" + head + "Ada\r\n--b\r\n" + head + "x\r\n--b--", []string{"Ada", "x"}},
		{"empty part", "--b\r\n" + head + "\r\n--b--", []string{""}},
		{"line breaks in the content", "--b\r\n" + head + "\r\n\r\n\n\r\r\n--b--", []string{"\r\n\r\n\n\r"}},
		{"LF", strings.ReplaceAll("--b\r\n"+head+"Ada\r\n--b--", "\r\n", "\n"), []string{"Ada"}},
		{"preamble and epilogue", "before\r\n--b\r\n" + head + "Ada\r\n--b--\r\nafter\r\n--b\r\n", []string{"Ada"}},
		{"padding", "--b \t\r\n" + head + "Ada\r\n--b  \r\n" + head + "x\r\n--b--", []string{"Ada", "x"}},
		{"longer line", "--b\r\n" + head + "\r\n--bc\r\n\r\n--b\rx\r\n--b--", []string{"\r\n--bc\r\n\r\n--b\rx"}},
		{"boundary in a line", "--b\r\n" + head + "x--b\r\n--b--", []string{"x--b"}},
		{"folded header", "--b\r\nContent-Disposition: form-data;\r\n name=name\r\n\r\nAda\r\n--b--", []string{"Ada"}},
		{"8bit", "--b\r\nContent-Transfer-Encoding: 8Bit\r\n" + head + "Ada\r\n--b--", []string{"Ada"}},
		{"most parts", many + "--b--", strings.Split(strings.Repeat("x", maxParts), "")},
		{"no part", "--b--", []string{}},
		{"too many parts", many + "--b\r\n" + head + "x\r\n--b--", nil},
		{"quoted-printable", "--b\r\nContent-Transfer-Encoding: quoted-printable\r\n" + head + "=41\r\n--b--", nil},
		{"no header", "--b\r\n\r\nAda\r\n--b--", nil},
		{"no end of the header", "--b\r\n" + strings.TrimSpace(head) + "\r\n--b--", nil},
		{"no field in the header", "--b\r\nAda\r\n\r\nAda\r\n--b--", nil},
		{"long header", "--b\r\nX: " + strings.Repeat("x", maxFormBytes) + "\r\n" + head + "Ada\r\n--b--", nil},
		{"boundary behind other text", "x--b\r\n" + head + "Ada\r\n--b--", nil},
		{"other boundary", "--c\r\n" + head + "Ada\r\n--c--", nil},
	} {
		parts, err := splitParts([]byte(test.body), "b")
		if test.want == nil {
			if err == nil || problemOf(err).Status != http.StatusBadRequest {
				t.Errorf("%s: %q, %v; want 400", test.name, parts, err)
			}
			continue
		}
		got := []string{}
		for _, p := range parts {
			got = append(got, string(p.content))
		}
		if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", test.name, err, diff)
		}
	}
}

// TestCutParts: a form that is cut anywhere before the end of its last boundary is refused.
func TestCutParts(t *testing.T) {
	contentType, body := testkit.Form([]byte("GIF\r\n--"), url.Values{"name": {"Ada"}, "email": {"ada@example.com"}})
	boundary := strings.TrimPrefix(contentType, "multipart/form-data; boundary=")
	whole := bytes.LastIndex(body, []byte("--")) + 2
	for n := range len(body) {
		_, err := splitParts(body[:n], boundary)
		if (err == nil) != (n >= whole) {
			t.Errorf("%d of %d bytes, of which %d count: %v", n, len(body), whole, err)
		}
	}
}

// TestSplitPartsMemory: the image is not copied.
func TestSplitPartsMemory(t *testing.T) {
	const size = 8 << 20
	contentType, body := testkit.Form(make([]byte, size), nil)
	boundary := strings.TrimPrefix(contentType, "multipart/form-data; boundary=")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	parts, err := splitParts(body, boundary)
	runtime.ReadMemStats(&after)
	if err != nil || len(parts) != 1 || len(parts[0].content) != size {
		t.Fatalf("form of an image of %d bytes: %d parts, %v", size, len(parts), err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > size/8 {
		t.Errorf("splitting a form of %d bytes allocated %d bytes", len(body), n)
	}
}

// FuzzSplitParts: what both accept, mime/multipart reads in the same way.
func FuzzSplitParts(f *testing.F) {
	_, body := testkit.Form([]byte("GIF"), url.Values{"name": {"Ada"}})
	boundary, _, _ := strings.Cut(strings.TrimPrefix(string(body), "--"), "\r\n")
	f.Add(body, boundary)
	f.Add([]byte("x\n--b \nContent-Disposition: form-data; name=name\n\nAda\n\n--b-\n--b--"), "b")
	f.Fuzz(func(t *testing.T, body []byte, boundary string) {
		parts, err := splitParts(body, boundary)
		if err != nil || boundary == "" || strings.Trim(boundary, "\r\n \t") != boundary {
			return
		}
		// Without the line break, multipart.Reader misses a last boundary at the end of the body.
		reader := multipart.NewReader(io.MultiReader(bytes.NewReader(body), strings.NewReader("\r\n")), boundary)
		var want []string
		for {
			p, err := reader.NextRawPart()
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			content, err := io.ReadAll(p)
			if err != nil {
				return
			}
			want = append(want, fmt.Sprintf("%q %q %q", p.FormName(), p.FileName(), content))
		}
		var got []string
		for _, p := range parts {
			got = append(got, fmt.Sprintf("%q %q %q", p.name, p.fileName, p.content))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("body %q with the boundary %q (-mime/multipart +splitParts):\n%s", body, boundary, diff)
		}
	})
}

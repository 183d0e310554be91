package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAPI runs testdata/api/*.txt: requests as one would type them with curl, and
// the answers they must have. Each file begins with an empty store; a line
// "env NAME=VALUE" before its first request configures the service.
//
//	# A comment is the name of what follows.
//	$ curl -d name=Ada -d email=ada@example.com /user
//	201
//	Location: /users/*
//	{"id":"*","name":"Ada",*}
//
// An answer is the status, header fields that must be there (with the value
// "-": that must not), and the body. A * stands for any text.
func TestAPI(t *testing.T) {
	files, err := filepath.Glob("testdata/api/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, b := range backends(t) {
		t.Run(b.name, func(t *testing.T) {
			for _, file := range files {
				t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
					runScript(t, file, b.env(t))
				})
			}
		})
	}
}

func runScript(t *testing.T, file string, env []string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	images := testImages(t)
	var p *process
	var title string
	var got answer
	var expect []string
	var at int
	check := func() {
		t.Helper()
		if expect != nil {
			if err := matchAnswer(got, expect); err != nil {
				t.Errorf("%s:%d: %s: %v\n%s %s\n%v\n%s", file, at, title, err, got.Request.Method, got.Request.URL, got.Header, got.body)
			}
		}
		expect = nil
	}
	for n, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "# "):
			check()
			title = line[2:]
		case strings.HasPrefix(line, "env "):
			env = append(env, strings.ReplaceAll(line[4:], "testdata", must(filepath.Abs("testdata"))))
		case strings.HasPrefix(line, "$ curl "):
			check()
			if p == nil {
				p = start(t, env...)
			}
			at, expect = n+1, []string{}
			got = p.curl(t, line[len("$ curl "):], images)
		case line != "":
			expect = append(expect, line)
		}
	}
	check()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// matchAnswer compares an answer with the lines that describe it.
func matchAnswer(got answer, expect []string) error {
	if len(expect) == 0 {
		return fmt.Errorf("nothing is expected of the answer")
	}
	if status := fmt.Sprint(got.StatusCode); expect[0] != status {
		return fmt.Errorf("status %s, want %s", status, expect[0])
	}
	field := regexp.MustCompile(`^([A-Z][A-Za-z-]*): (.*)$`)
	for i, line := range expect[1:] {
		m := field.FindStringSubmatch(line)
		if m == nil {
			want := strings.Join(expect[i+1:], "\n")
			if !glob(want, strings.TrimSuffix(got.body, "\n")) {
				return fmt.Errorf("body, want %s", want)
			}
			return nil
		}
		values := got.Header.Values(m[1])
		switch have := strings.Join(values, ", "); {
		case m[2] == "-" && values != nil:
			return fmt.Errorf("%s: %q, want none", m[1], have)
		case m[2] != "-" && !glob(m[2], have):
			return fmt.Errorf("%s: %q, want %q", m[1], have, m[2])
		}
	}
	return nil
}

// glob matches text with a pattern in which * stands for anything.
func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`).MatchString(text)
}

// curl sends the request that curl would send with these arguments. It knows -X,
// -H, -I, -r, -d, --json, -F and -T; files are the names of test images.
func (p *process) curl(t testing.TB, args string, files map[string][]byte) answer {
	t.Helper()
	words, err := shellWords(args)
	if err != nil {
		t.Fatalf("curl %s: %v", args, err)
	}
	method, path := "", ""
	header := http.Header{}
	var body []byte
	var data []string
	var form *multipart.Writer
	var formBody bytes.Buffer
	file := func(name string) []byte {
		content, ok := files[name]
		if !ok {
			t.Fatalf("curl %s: no such file: %s", args, name)
		}
		return content
	}
	implied := http.MethodGet
	for i := 0; i < len(words); i++ {
		next := func() string { i++; return words[i] }
		switch words[i] {
		case "-X":
			method = next()
		case "-I":
			implied = http.MethodHead
		case "-r":
			header.Set("Range", "bytes="+next())
		case "-H":
			name, value, _ := strings.Cut(next(), ":")
			header.Add(name, strings.TrimSpace(value))
		case "--json":
			body, implied = []byte(next()), http.MethodPost
			header["Content-Type"] = append([]string{"application/json"}, header["Content-Type"]...)
		case "-d":
			data, implied = append(data, next()), http.MethodPost
		case "-T":
			body, implied = file(next()), http.MethodPut
		case "-F":
			if form == nil {
				form, implied = multipart.NewWriter(&formBody), http.MethodPost
			}
			name, value, _ := strings.Cut(next(), "=")
			if filename, ok := strings.CutPrefix(value, "@"); ok {
				part := must(form.CreateFormFile(name, filename))
				part.Write(file(filename))
			} else {
				form.WriteField(name, value)
			}
		default:
			path = words[i]
		}
	}
	if data != nil {
		body = []byte(strings.Join(data, "&"))
		if header.Get("Content-Type") == "" {
			header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
	}
	if form != nil {
		form.Close()
		body = formBody.Bytes()
		header.Set("Content-Type", form.FormDataContentType())
	}
	if method == "" {
		method = implied
	}
	return p.do(t, method+" "+path, header, body)
}

// shellWords splits a line as a shell does, with quotes but without expansion.
func shellWords(line string) (words []string, err error) {
	var word strings.Builder
	var quote rune
	inWord := false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ':
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("unterminated %c", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// testImages are the files that the scripts name.
func testImages(t testing.TB) map[string][]byte {
	t.Helper()
	files := map[string][]byte{
		"ada2.png":         encodePNG(gradient(64, 64, 2)),
		"ada.jpg":          encodeJPEG(gradient(64, 64, 3)),
		"ada.gif":          encodeGIF(16, 16, 3),
		"empty":            {},
		"note.txt":         []byte("This is no image.\n"),
		"logo.svg":         []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>`),
		"script.gif":       []byte("GIF89a<script>alert(document.domain)</script>"),
		"small-script.gif": []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00<script>alert(document.domain)</script>"),
		"page.png":         append([]byte("\x89PNG\r\n\x1a\n"), "<html><script>alert(1)</script></html>"...),
		"huge.png":         pngClaiming(60000, 60000),
		"too-large.png":    append(encodePNG(gradient(64, 64, 1)), make([]byte, 5<<20)...),
	}
	for _, name := range []string{"ada.png", "ada.webp", "lossless.webp", "animated.webp"} {
		files[name] = must(os.ReadFile("testdata/" + name))
	}
	files["truncated.png"] = files["ada.png"][:len(files["ada.png"])-40]
	files["truncated.jpg"] = files["ada.jpg"][:len(files["ada.jpg"])/2]
	files["truncated.gif"] = files["ada.gif"][:len(files["ada.gif"])-20]
	files["truncated.webp"] = files["ada.webp"][:len(files["ada.webp"])-40]
	return files
}

// gradient draws an image that is not the same for two seeds.
func gradient(width, height, seed int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			img.Set(x, y, color.NRGBA{uint8(x * seed), uint8(y * 3), uint8(x ^ y), 255})
		}
	}
	return img
}

func encodePNG(img image.Image) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func encodeJPEG(img image.Image) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func encodeGIF(width, height, frames int) []byte {
	g := &gif.GIF{}
	for i := range frames {
		frame := image.NewPaletted(image.Rect(0, 0, width, height), color.Palette{color.Black, color.White})
		for j := range frame.Pix {
			frame.Pix[j] = uint8((i + j) % 2)
		}
		g.Image, g.Delay = append(g.Image, frame), append(g.Delay, 10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// multipartBody makes a form of fields, and of an image unless it is nil.
func multipartBody(image []byte, fields url.Values) (contentType string, body []byte) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, values := range fields {
		for _, value := range values {
			w.WriteField(name, value)
		}
	}
	if image != nil {
		part, _ := w.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {`form-data; name="avatar"; filename="me"`},
			"Content-Type":        {"application/octet-stream"},
		})
		part.Write(image)
	}
	w.Close()
	return w.FormDataContentType(), b.Bytes()
}

// A backend is a pair of stores that the service can run on.
type backend struct {
	name string
	env  func(testing.TB) []string // for an empty store of its own
}

// backends are those that can be had here.
func backends(testing.TB) []backend {
	return append([]backend{
		{"embedded", func(testing.TB) []string { return nil }},
	}, awsBackends()...)
}

package tests

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"roster/internal/testimage"
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
	for _, b := range backends {
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
	images := testimage.Files(t, "../testdata")
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

package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"roster/internal/testkit"
)

// TestAPI runs testdata/api/*.txt: requests as curl commands, and the expected responses.
// Each file begins with an empty store. A line "env NAME=VALUE" before the first request
// configures the service.
//
//	# A comment is the name of the next request.
//	$ curl -d name=Ada -d email=ada@example.com /user
//	201
//	Location: /users/*
//	{"id":"*","name":"Ada",*}
//
// $id, $avatar_url, $version and $thumbnail_url are those of the last user that was
// answered, $previous_url the avatar_url before that, $etag the last user's ETag.
//
// A response is the status, header fields (with the value "-": a missing field), and the
// body. A * stands for any text.
func TestAPI(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/api/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/api has no scripts: %v", err)
	}
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
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
	images := testkit.Files(t, "../testdata")
	var p *process
	var title string
	var got answer
	var expect []string
	var at int
	var last userJSON // with an image
	var previous string
	vars := strings.NewReplacer()
	check := func() {
		t.Helper()
		if expect != nil {
			if err := matchAnswer(got, expect); err != nil {
				t.Errorf("%s:%d: %s: %v\n%s %s\n%v\n%s", file, at, title, err, got.Request.Method, got.Request.URL,
					got.Header, got.body)
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
			env = append(env, strings.ReplaceAll(line[4:], "testdata", testkit.Must(filepath.Abs("testdata"))))
		case strings.HasPrefix(line, "$ curl "):
			check()
			if p == nil {
				p = start(t, env...)
			}
			at, expect = n+1, []string{}
			got = p.curl(t, vars.Replace(line[len("$ curl "):]), images)
			var u userJSON
			if json.Unmarshal([]byte(got.body), &u) != nil || u.ID == "" {
				break
			}
			if u.AvatarURL != "" && u.AvatarURL != last.AvatarURL {
				previous, last = last.AvatarURL, u
			}
			path := func(url string) string { return url[max(strings.Index(url, "/users/"), 0):] }
			vars = strings.NewReplacer("$id", u.ID, "$etag", got.Header.Get("ETag"), "$avatar_url",
				path(last.AvatarURL),
				"$thumbnail_url", path(last.ThumbnailURL), "$previous_url", path(previous), "$version",
				filepath.Base(last.AvatarURL),
				"$bob", userID("bob@example.com"))
		case line != "":
			expect = append(expect, vars.Replace(line))
		}
	}
	check()
}

// matchAnswer compares a response with the lines that describe it.
func matchAnswer(got answer, expect []string) error {
	if len(expect) == 0 {
		return fmt.Errorf("the script does not say what response it expects")
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

// curl sends the request that curl would send with these arguments. It supports -X, -H,
// -I, -r, -d, --json, -F and -T. files are contents by file name.
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
				part := testkit.Must(form.CreateFormFile(name, filename))
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

// shellWords splits a line like a shell, with quotes but without expansion.
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

// TestLibravatar gets the picture of a user with a client of Libravatar.
func TestLibravatar(t *testing.T) {
	t.Parallel()
	p := start(t)
	image := testkit.PNG(testkit.Gradient(300, 300, 1))
	contentType, form := testkit.Form(image, map[string][]string{"name": {"Ada"}, "email": {"ada@example.com"}})
	p.do(t, "POST /user", http.Header{"Content-Type": {contentType}}, form).want(t, http.StatusCreated)
	for email, want := range map[string]string{"Ada@Example.com": "image/jpeg", "nobody@example.com": "image/png"} {
		host := strings.TrimPrefix(p.url, "http://")
		out, err := exec.Command("go", "run", "-C", "../tools/libravatar", ".", host, email).Output()
		if err != nil {
			t.Fatalf("go run -C tools/libravatar: %v", err)
		}
		path, ok := strings.CutPrefix(strings.TrimSpace(string(out)), p.url)
		if !ok {
			t.Fatalf("the client asks %s, want %s", out, p.url)
		}
		got := p.do(t, "GET "+path, nil, nil).want(t, http.StatusOK)
		if contentType := got.Header.Get("Content-Type"); contentType != want {
			t.Errorf("picture of %s: %s, want %s", email, contentType, want)
		}
	}
}

// TestBrowser runs tools/browser, which tries every operation in Swagger UI with Chromium: with -long, both without and
// with tokens.
func TestBrowser(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("the API's page is tested in Chromium, which is not installed")
	}
	binary := filepath.Join(workDir, "browser.test")
	if out, err := exec.Command("go", "test", "-C", "../tools/browser", "-c", "-o",
		binary).CombinedOutput(); err != nil {
		t.Fatalf("go test -c in tools/browser: %v\n%s", err, out)
	}
	for _, test := range []struct {
		name, token string
		env         []string
	}{
		{"open", "", nil},
		{"tokens", "web-token-0123456789abcdef", []string{"AUTH_TOKENS_FILE=testdata/tokens"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, test.env...)
			cmd := exec.Command(binary, "-test.v", fmt.Sprint("-long=", *testkit.Long))
			cmd.Env = append(os.Environ(), "ROSTER_URL="+p.url, "ROSTER_TOKEN="+test.token)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("tools/browser: %v", err)
			}
			t.Logf("%s", out)
		})
	}
}

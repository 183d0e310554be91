package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

// page requests path, with pairs of header fields.
func page(t *testing.T, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	newTestServer(config{}, nil, nil, nil).ServeHTTP(w, r)
	return w.Result()
}

// content reads the body of a response and decompresses it.
func content(t *testing.T, res *http.Response) []byte {
	t.Helper()
	var body io.Reader = res.Body
	if res.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(body); err != nil {
			t.Fatal(err)
		}
	}
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSwaggerFiles(t *testing.T) {
	index := string(content(t, page(t, "/swagger/")))
	if regexp.MustCompile(`<script>|<style|//|\son[a-z]+=|\sstyle=`).MatchString(index) {
		t.Errorf("the page has inline code or style, or names another origin:\n%s", index)
	}
	links := regexp.MustCompile(`(?:href|src)="([^".]+\.[^"]+)"`).FindAllStringSubmatch(index, -1)
	if len(links) < 5 {
		t.Fatalf("found only %q in the page", links)
	}
	types := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
		".svg": "image/svg+xml"}
	for _, link := range links {
		name := link[1]
		res := page(t, "/swagger/"+name)
		if res.StatusCode != 200 {
			t.Errorf("%s: status %d", name, res.StatusCode)
			continue
		}
		if got, want := res.Header.Get("Content-Type"), types[name[strings.LastIndex(name, "."):]]; got != want {
			t.Errorf("%s: Content-Type %q, want %q", name, got, want)
		}
		if got := res.Header.Get("Content-Security-Policy"); got != swaggerPolicy {
			t.Errorf("%s: Content-Security-Policy %q", name, got)
		}
		if len(content(t, res)) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
	for _, missing := range []string{"/swagger/index.html.gz", "/swagger/init.js/", "/swagger/none"} {
		res := page(t, missing)
		if res.StatusCode != 404 || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: status %d, %s", missing, res.StatusCode, res.Header.Get("Content-Type"))
		}
		if got := res.Header.Get("Content-Encoding"); got != "" {
			t.Errorf("%s: Content-Encoding %q", missing, got)
		}
	}
}

func TestContractIsServed(t *testing.T) {
	source, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	res := page(t, "/openapi.yaml")
	if got := res.Header.Get("Content-Type"); got != "application/yaml" {
		t.Errorf("Content-Type: %q", got)
	}
	if !bytes.Equal(content(t, res), source) {
		t.Error("/openapi.yaml is not the file")
	}
}

func TestPagesAreRevalidated(t *testing.T) {
	for _, path := range []string{"/openapi.yaml", "/swagger/swagger-ui-bundle.js"} {
		res := page(t, path)
		if got := res.Header.Get("Cache-Control"); got != "no-cache" {
			t.Errorf("%s: Cache-Control %q", path, got)
		}
		res = page(t, path, "If-None-Match", `"other", `+res.Header.Get("ETag"))
		if body := content(t, res); res.StatusCode != 304 || len(body) > 0 {
			t.Errorf("%s: status %d with %d bytes", path, res.StatusCode, len(body))
		}
		if res := page(t, path, "If-None-Match", `"other"`); res.StatusCode != 200 {
			t.Errorf("%s: status %d for another ETag", path, res.StatusCode)
		}
	}
}

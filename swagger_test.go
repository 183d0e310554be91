package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, h http.Handler, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func content(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSwaggerFiles(t *testing.T) {
	h := swaggerHandler()
	page := string(content(t, get(t, h, "/swagger/").Body))
	if regexp.MustCompile(`<script>|<style|//|\son[a-z]+=|\sstyle=`).MatchString(page) {
		t.Errorf("the page has inline code or style, or names another origin:\n%s", page)
	}
	links := regexp.MustCompile(`(?:href|src)="([^".]+\.[^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(links) < 5 {
		t.Fatalf("found only %q in the page", links)
	}
	types := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".png": "image/png"}
	for _, link := range links {
		name := link[1]
		res := get(t, h, "/swagger/"+name, "Accept-Encoding", "gzip, deflate, br")
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
		packed := content(t, res.Body)
		plain := content(t, get(t, h, "/swagger/"+name).Body)
		if res.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			packed = content(t, z)
		}
		if len(plain) == 0 || !bytes.Equal(packed, plain) {
			t.Errorf("%s: %d bytes through gzip, %d without", name, len(packed), len(plain))
		}
	}
	for _, missing := range []string{"/swagger/index.html.gz", "/swagger/../main.go", "/swagger/init.js/", "/swagger/oauth2-redirect.html"} {
		res := get(t, h, missing)
		if res.StatusCode != 404 || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: status %d, %s", missing, res.StatusCode, res.Header.Get("Content-Type"))
		}
	}
}

func TestStaticFileIsRevalidated(t *testing.T) {
	h := swaggerHandler()
	const path = "/swagger/swagger-ui.css"
	packed := get(t, h, path, "Accept-Encoding", "gzip")
	plain := get(t, h, path)
	if packed.Header.Get("ETag") == plain.Header.Get("ETag") {
		t.Error("two representations have one ETag")
	}
	for _, res := range []*http.Response{packed, plain} {
		if got := res.Header.Get("Vary"); got != "Accept-Encoding" {
			t.Errorf("Vary: %q", got)
		}
	}
	for _, tt := range []struct {
		tag, encoding string
		want          int
	}{
		{packed.Header.Get("ETag"), "gzip", 304},
		{plain.Header.Get("ETag"), "identity", 304},
		{packed.Header.Get("ETag"), "identity", 200},
		{plain.Header.Get("ETag"), "gzip", 200},
		{`"other", ` + packed.Header.Get("ETag"), "gzip", 304},
		{"*", "gzip", 304},
	} {
		res := get(t, h, path, "If-None-Match", tt.tag, "Accept-Encoding", tt.encoding)
		if res.StatusCode != tt.want {
			t.Errorf("If-None-Match: %s, Accept-Encoding: %s: status %d, want %d", tt.tag, tt.encoding, res.StatusCode, tt.want)
		}
		if body := content(t, res.Body); tt.want == 304 && len(body) > 0 {
			t.Errorf("304 with a body of %d bytes", len(body))
		}
	}
}

func TestAcceptsGzip(t *testing.T) {
	for field, want := range map[string]bool{
		"":                       false,
		"identity":               false,
		"gzip":                   true,
		"br, GZIP;q=0.5":         true,
		"gzip;q=0":               false,
		"gzip; q=0.000, *":       false,
		"*":                      true,
		"*;q=0":                  false,
		"identity;q=1, *;q=0":    false,
		"deflate, gzip ; q=0.1 ": true,
		"gzipped":                false,
		"gzip;q=high":            false,
	} {
		if got := acceptsGzip(http.Header{"Accept-Encoding": {field}}); got != want {
			t.Errorf("%q: %t, want %t", field, got, want)
		}
	}
}

func TestContractIsServed(t *testing.T) {
	source, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	res := get(t, openapiYAMLHandler(), "/openapi.yaml", "Accept-Encoding", "gzip")
	if got := res.Header.Get("Content-Type"); got != "application/yaml" {
		t.Errorf("Content-Type: %q", got)
	}
	if !bytes.Equal(content(t, res.Body), source) {
		t.Error("/openapi.yaml is not the file")
	}

	res = get(t, openapiJSONHandler(), "/openapi.json")
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type: %q", got)
	}
	var contract struct {
		OpenAPI string
		Paths   map[string]any
	}
	if err := json.NewDecoder(res.Body).Decode(&contract); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(contract.OpenAPI, "3.1.") || contract.Paths["/users/{id}/avatar"] == nil {
		t.Errorf("/openapi.json is not the contract: %+v", contract)
	}
	if res := get(t, openapiJSONHandler(), "/openapi.json", "If-None-Match", res.Header.Get("ETag")); res.StatusCode != 304 {
		t.Errorf("If-None-Match: status %d", res.StatusCode)
	}
}

package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/swaggest/swgui/v5/static"
)

// openapi.json is openapi.yaml once more, for Swagger UI and whoever else would
// rather not read YAML: made beforehand, so that the service needs no YAML
// parser. A test in tools/openapi holds the two equal.
//
//go:generate go run -C tools/openapi . -json ../../openapi.json
//go:embed openapi.yaml openapi.json swagger
var pages embed.FS

// swaggerPolicy lets the page of Swagger UI do what it needs and no more: its own
// scripts and styles, requests to this service, icons that its style sheet
// carries as data URLs, and avatars, which it shows as blobs.
const swaggerPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// swaggerHandler serves Swagger UI under /swagger/: a page of our own, and of the
// files that the module embeds those which the page uses.
func swaggerHandler() http.Handler {
	files := map[string]*staticFile{
		"":                     mustStatic(pages, "swagger/index.html", "text/html; charset=utf-8"),
		"init.js":              mustStatic(pages, "swagger/init.js", "text/javascript; charset=utf-8"),
		"page.css":             mustStatic(pages, "swagger/page.css", "text/css; charset=utf-8"),
		"swagger-ui-bundle.js": mustStatic(static.FS, "swagger-ui-bundle.js.gz", "text/javascript; charset=utf-8"),
		"swagger-ui.css":       mustStatic(static.FS, "swagger-ui.css.gz", "text/css; charset=utf-8"),
		"favicon-32x32.png":    mustStatic(static.FS, "favicon-32x32.png", "image/png"),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[strings.TrimPrefix(r.URL.Path, "/swagger/")]
		if !ok {
			writeProblem(w, notFound("no such path; the page is /swagger/"))
			return
		}
		w.Header().Set("Content-Security-Policy", swaggerPolicy)
		f.ServeHTTP(w, r)
	})
}

// openapiYAMLHandler and openapiJSONHandler serve the contract. The media type
// of YAML is that of RFC 9512.
func openapiYAMLHandler() http.Handler {
	return mustStatic(pages, "openapi.yaml", "application/yaml")
}

func openapiJSONHandler() http.Handler {
	return mustStatic(pages, "openapi.json", "application/json")
}

// A staticFile is a file that stays the same as long as the process runs.
type staticFile struct {
	mediaType string
	hash      string
	content   []byte
	gzipped   bool // content is
}

// mustStatic panics if the file is missing, which no build that compiles and
// passes its tests can be.
func mustStatic(from fs.FS, name, mediaType string) *staticFile {
	content, err := fs.ReadFile(from, name)
	if err != nil {
		panic(err)
	}
	return &staticFile{
		mediaType: mediaType,
		hash:      fmt.Sprintf("%x", sha256.Sum256(content))[:32],
		content:   content,
		gzipped:   strings.HasSuffix(name, ".gz"),
	}
}

// ServeHTTP answers GET and HEAD. Clients keep the file and ask whether it is
// still current, so that a new release is seen at once.
func (f *staticFile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	etag := `"` + f.hash + `"`
	unpack := false
	if f.gzipped {
		h.Set("Vary", "Accept-Encoding")
		// Two representations, two strong validators (RFC 9110, section 8.8.3).
		if unpack = !acceptsGzip(r.Header); unpack {
			etag = `"` + f.hash + `-plain"`
		}
	}
	h.Set("ETag", etag)
	if etagIn(r.Header.Values("If-None-Match"), etag, "W/"+etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.mediaType)
	if unpack {
		// Every browser takes gzip, so this is rare, and not worth keeping unpacked.
		plain, err := gzip.NewReader(bytes.NewReader(f.content))
		if err != nil {
			writeProblem(w, err)
			return
		}
		io.Copy(w, plain) // #nosec G110 -- a file of our own, of known size
		return
	}
	if f.gzipped {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(f.content)))
	w.Write(f.content)
}

// acceptsGzip reads Accept-Encoding (RFC 9110, section 12.5.3). Whoever sends
// none gets what everybody can read.
func acceptsGzip(h http.Header) bool {
	accepted := false
	for item := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, parameter, _ := strings.Cut(item, ";")
		_, weight, weighted := strings.Cut(parameter, "=")
		q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
		wanted := !weighted || err == nil && q > 0
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip", "x-gzip":
			return wanted
		case "*":
			accepted = wanted
		}
	}
	return accepted
}

package main

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/swaggest/swgui/v5/static"
)

//go:embed openapi.yaml swagger
var pages embed.FS

// swaggerPolicy allows Swagger UI its scripts, styles, requests, icons (data:), avatars (blob:).
const swaggerPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// servePage serves openapi.yaml and Swagger UI. Browsers must revalidate, to see a new release.
func (s *server) servePage(w *response, r *http.Request) error {
	h := w.Header()
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "swagger/" {
		name += "index.html"
	}
	content, err := pages.ReadFile(name)
	if err != nil { // one of the module's files, which are compressed; every browser accepts gzip
		content, err = static.FS.ReadFile(strings.TrimPrefix(name, "swagger/") + ".gz")
		if err != nil {
			return notFound("no such path; the page is /swagger/")
		}
		h.Set("Content-Encoding", "gzip")
	}
	mediaType := mime.TypeByExtension(path.Ext(name))
	if name == "openapi.yaml" {
		mediaType = "application/yaml" // RFC 9512
	}
	if s.tokens != nil { // so that the page knows (RFC 9110, section 11.6.1)
		h.Set("WWW-Authenticate", `Bearer realm="roster"`)
	}
	h.Set("Content-Security-Policy", swaggerPolicy)
	h.Set("Cache-Control", "no-cache")
	tag := fmt.Sprintf("%x", sha256.Sum256(content))
	if holds, err := w.answerCondition(tag); !holds {
		return err
	}
	h.Set("ETag", strconv.Quote(tag))
	return w.sendBody(http.StatusOK, mediaType, content)
}

// toSwagger redirects / and /swagger to Swagger UI, behind any prefix of a proxy.
func (s *server) toSwagger(w *response, _ *http.Request) error {
	w.Header().Set("Location", "swagger/")
	w.WriteHeader(http.StatusFound)
	return nil
}

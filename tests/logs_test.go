package tests

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"roster/internal/testkit"
)

// TestLogKeepsSecrets sends valid and invalid requests of every kind to a service with
// LOG_LEVEL=debug. Its log must not contain names, emails, tokens or keys.
func TestLogKeepsSecrets(t *testing.T) {
	t.Parallel()
	for _, b := range backends[:2] {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			testLogKeepsSecrets(t, b.env(t))
		})
	}
}

func testLogKeepsSecrets(t *testing.T, env []string) {
	const (
		name, email   = "Ada Secretname", "ada.secret@example.com"
		token, denied = "secret-token-0123456789", "wrong-token-0123456789"
	)
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte(email)))
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("web:"+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, append(env, "AUTH_TOKENS_FILE="+file, "LOG_LEVEL=debug")...)
	json := func(body string) (http.Header, []byte) {
		h := bearer(token)
		h.Set("Content-Type", "application/json")
		return h, []byte(body)
	}
	do := func(target string, header http.Header, body []byte) answer {
		t.Helper()
		return p.do(t, target, header, body)
	}
	picture := testkit.PNG(testkit.Gradient(30, 30, 2))
	h, body := json(`{"name":"` + name + `","email":"` + email + `"}`)
	id := do("POST /user", h, body).want(t, http.StatusCreated).user(t).ID
	user := "/users/" + id
	do("POST /user", h, body).want(t, http.StatusConflict)
	do("POST /user?email="+email, h, body).want(t, http.StatusBadRequest)
	for _, bad := range []string{
		`{"name":"` + name + `","email":"` + email + ` x"}`,
		`{"name":"` + name + `","email":"` + email + `","` + email + `":"` + name + `"}`,
		`{"name":"` + name + `\u0000","email":"` + email + `"`,
		`{"name":["` + name + `"]}`,
		name + email,
	} {
		_, body := json(bad)
		do("POST /user", h, body).want(t, http.StatusBadRequest)
	}
	form := bearer(token)
	for _, image := range [][]byte{picture, picture[:50], []byte(name), nil} {
		for _, path := range []string{"/user", "/upload", "/upload?email=" + email} {
			contentType, body := testkit.Form(image, map[string][]string{"email": {email}})
			form.Set("Content-Type", contentType)
			do("POST "+path, form, body)
		}
	}
	form.Set("Content-Type", "application/x-www-form-urlencoded")
	do("POST /user", form, []byte("name="+name+"&email="+email+"&x%zz"+token))
	form.Set("Content-Type", "text/"+name)
	do("POST /user", form, []byte(email))
	do("PUT "+user+"/avatar", bearer(token), picture).want(t, http.StatusOK)
	do("PUT "+user+"/avatar", bearer(token), []byte(email)).want(t, http.StatusUnsupportedMediaType)
	do("GET "+user, bearer(token), nil).want(t, http.StatusOK)
	do("GET "+user+"/avatar", bearer(token), nil).want(t, http.StatusOK)
	do("GET /users", bearer(token), nil).want(t, http.StatusOK)
	do("GET /users?limit=1", bearer(token), nil).want(t, http.StatusOK)
	do("GET /users?cursor="+email, bearer(token), nil).want(t, http.StatusBadRequest)
	do("GET /users?"+email+"="+token, bearer(token), nil).want(t, http.StatusBadRequest)
	do("GET /users/"+email, bearer(token), nil).want(t, http.StatusNotFound)
	do("GET /avatar/"+email, bearer(token), nil).want(t, http.StatusOK)
	do("GET /avatar/"+hash, bearer(token), nil).want(t, http.StatusOK)
	do("GET /"+email+"/"+token, bearer(token), nil).want(t, http.StatusNotFound)
	do("GET /users", bearer(denied), nil).want(t, http.StatusUnauthorized)
	do("GET /users", http.Header{"Authorization": {"Basic " + token}}, nil).want(t, http.StatusUnauthorized)
	h, body = json(`{"name":"` + name + ` II"}`)
	do("PATCH "+user, h, body).want(t, http.StatusOK)
	h, body = json(`{"email":"` + email + `"}`)
	do("PATCH "+user, h, body).want(t, http.StatusBadRequest)
	do("DELETE /users", bearer(token), nil).want(t, http.StatusMethodNotAllowed)
	h = bearer(token)
	h.Set("X-Request-Id", email)
	h.Set("User-Agent", name)
	h.Set("Traceparent", token)
	h.Set("Origin", "https://"+email)
	h.Set("Sec-Fetch-Site", "cross-site")
	do("DELETE "+user, h, nil).want(t, http.StatusForbidden)
	for _, text := range []string{ // rejected by net/http
		"GET /" + email + " HTTP/9.9\r\n\r\n",
		name + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: " + token + "@\r\n" + email + "\r\n\r\n",
		"POST /user HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + token + "\r\nTransfer-Encoding: " + token +
			"\r\n\r\n",
	} {
		w := dialWire(t, p.url)
		w.write(text)
		w.read()
	}
	do("DELETE "+user+"/avatar", bearer(token), nil).want(t, http.StatusNoContent)
	do("DELETE "+user, bearer(token), nil).want(t, http.StatusNoContent)
	os.WriteFile(file, []byte("web "+token+"\n"), 0o600) // malformed
	time.Sleep(1100 * time.Millisecond)
	do("GET /users", bearer(token), nil).want(t, http.StatusOK)
	p.stop(t)

	log := strings.ToLower(p.log.String())
	if n := strings.Count(log, `"msg":"request"`); n < 40 {
		t.Errorf("the log has %d requests, want 40 or more", n)
	}
	secrets := []string{name, email, hash, "secretname", "ada.secret", token, denied}
	for _, variable := range env {
		if name, value, _ := strings.Cut(variable, "="); name == "AWS_SECRET_ACCESS_KEY" ||
			name == "AWS_SESSION_TOKEN" {
			secrets = append(secrets, value)
		}
	}
	for _, secret := range secrets {
		if i := strings.Index(log, strings.ToLower(secret)); i >= 0 {
			t.Errorf("the log has %q: …%s…", secret, log[max(0, i-200):min(len(log), i+100)])
		}
	}
}

// TestRequestLog: one line for each request, with exactly the documented fields.
func TestRequestLog(t *testing.T) {
	t.Parallel()
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	file := filepath.Join(t.TempDir(), "tokens")
	os.WriteFile(file, []byte("web:"+tokenA+"\n"), 0o600)
	p := start(t, "AUTH_TOKENS_FILE="+file)
	nowhere := userID("nobody@example.com")
	for _, test := range []struct {
		target                string
		header                http.Header
		method, route, client string
		status                int
		level                 string
		trace                 string
	}{
		{"GET /users", bearer(tokenA), "GET", "/users", "web", 200, "INFO", ""},
		{"HEAD /users", bearer(tokenA), "HEAD", "/users", "web", 200, "INFO", ""},
		{"GET /users", nil, "GET", "/users", "", 401, "INFO", ""},
		{"GET /users/" + nowhere, bearer(tokenA), "GET", "/users/{id}", "web", 404, "INFO", ""},
		{"GET /users/" + nowhere + "/avatar", bearer(tokenA), "GET", "/users/{id}/avatar", "web", 404, "INFO", ""},
		{"GET /nowhere", nil, "GET", "unmatched", "", 404, "INFO", ""},
		{"DELETE /users", bearer(tokenA), "DELETE", "unmatched", "", 405, "INFO", ""},
		{"BREW /users", bearer(tokenA), "other", "unmatched", "", 405, "INFO", ""},
		{"GET /livez", nil, "GET", "/livez", "", 200, "DEBUG", ""},
		{"GET /version", http.Header{"Traceparent": {"00-" + trace + "-00f067aa0ba902b7-01"}}, "GET", "/version", "",
			200, "INFO", trace},
		{"GET /version", http.Header{"Traceparent": {trace}}, "GET", "/version", "", 200, "INFO", ""},
	} {
		t.Run(test.target, func(t *testing.T) {
			sent := fmt.Sprintf("test.%d", time.Now().UnixNano())
			header := test.header.Clone()
			if header == nil {
				header = http.Header{}
			}
			header.Set("X-Request-Id", sent)
			a := p.do(t, test.target, header, nil).want(t, test.status)
			if got := a.Header.Get("X-Request-Id"); got != sent {
				t.Errorf("X-Request-Id %q becomes %q", sent, got)
			}
			var line map[string]any
			testkit.Eventually(t, "the request is logged", func() error {
				if line = p.log.find("request", "request_id", sent); line == nil {
					return fmt.Errorf("no line with request_id %s", sent)
				}
				return nil
			})
			if n := strings.Count(p.log.String(), sent); n != 1 {
				t.Errorf("the log has %d lines with the id %s, want 1", n, sent)
			}
			want := map[string]any{
				"method": test.method, "route": test.route, "status": float64(test.status), "level": test.level,
			}
			fields := []string{"time", "level", "msg", "method", "route", "status", "bytes", "duration", "request_id"}
			if test.client != "" {
				want["client"], fields = test.client, append(fields, "client")
			}
			if test.trace != "" {
				want["trace_id"], fields = test.trace, append(fields, "trace_id")
			}
			for field, value := range want {
				if line[field] != value {
					t.Errorf("%s is %v, want %v", field, line[field], value)
				}
			}
			for field := range line {
				if !slices.Contains(fields, field) {
					t.Errorf("unexpected field %s: %v", field, line[field])
				}
			}
			if n, _ := line["bytes"].(float64); int(n) != len(a.body) {
				t.Errorf("bytes is %v, the body has %d", line["bytes"], len(a.body))
			}
			if d, _ := line["duration"].(float64); d <= 0 || d > 60 {
				t.Errorf("duration is %v", line["duration"])
			}
		})
	}
	for line := range strings.Lines(p.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line is no JSON: %s", line)
		}
	}
}

func TestLogFormats(t *testing.T) {
	t.Parallel()
	p := start(t, "LOG_FORMAT=json")
	if p.log.find("ready") == nil {
		t.Errorf("not JSON: %s", p.log)
	}
	output := &logLines{}
	cmd := command(t, "LOG_FORMAT=text", "LOG_LEVEL=info")
	cmd.Stderr = output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it logs text", func() error {
		if text := output.String(); !strings.Contains(text, `level=INFO msg=ready`) {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if strings.Contains(output.String(), "DEBUG") {
		t.Errorf("LOG_LEVEL has no effect: %s", output)
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const contractFile = "../../openapi.yaml"

const (
	id      = "b5fc85e5-5755-89e0-9030-a10ab4429b6b"
	user    = `{"id":"` + id + `","name":"Ada","email":"ada@example.com","created_at":"2026-03-14T09:26:53.589Z","updated_at":"2026-03-14T09:26:53.589Z"}`
	version = "4hpbm7i2xqzvw6dnr3ktyeclsf"
	etag    = `"` + version + `"`
	problem = `{"type":"urn:roster:problem:KIND","title":"T","status":STATUS,"detail":"D","request_id":"r1"}`
)

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func answer(status int, contentType, body string, more ...string) exchange {
	h := headers(append([]string{"X-Request-Id", "r1"}, more...)...)
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	return exchange{Status: status, ResponseHeader: h, ResponseBody: []byte(body)}
}

func refusal(status int, kind string, more ...string) exchange {
	code, _ := json.Marshal(status)
	body := strings.NewReplacer("KIND", kind, "STATUS", string(code)).Replace(problem)
	return answer(status, "application/problem+json", body, more...)
}

func (x exchange) to(method, url string) exchange {
	x.Method, x.URL = method, url
	return x
}

func (x exchange) sent(contentType, body string) exchange {
	x.RequestHeader = http.Header{}
	if contentType != "" {
		x.RequestHeader.Set("Content-Type", contentType)
	}
	x.RequestBody = []byte(body)
	return x
}

func form(fields ...string) (contentType, body string) {
	var b strings.Builder
	for i := 0; i < len(fields); i += 2 {
		b.WriteString("--x\r\nContent-Disposition: form-data; name=\"" + fields[i] + "\"")
		if fields[i] == "avatar" || fields[i] == "file" {
			b.WriteString("; filename=\"me.png\"\r\nContent-Type: image/png")
		}
		b.WriteString("\r\n\r\n" + fields[i+1] + "\r\n")
	}
	return `multipart/form-data; boundary=x`, b.String() + "--x--\r\n"
}

func TestCheck(t *testing.T) {
	source, err := os.ReadFile(contractFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := loadStrict(source)
	if err != nil {
		t.Fatal(err)
	}
	created := answer(201, "application/json", user, "Location", "/users/"+id).to("POST", "/user")
	found := answer(200, "application/json", user).to("GET", "/users/"+id)
	uploaded := answer(200, "application/json", user).to("POST", "/upload")
	image := answer(200, "image/png", "\x89PNG", "ETag", etag, "Accept-Ranges", "bytes", "Cache-Control", "no-cache").
		to("GET", "/users/"+id+"/avatar")
	omitted := image
	omitted.ResponseBody, omitted.ResponseBodyOmitted = nil, true
	hidden := uploaded.sent("multipart/form-data; boundary=x", "")
	hidden.RequestBodyOmitted = true

	tests := []struct {
		name string
		x    exchange
		want string // part of the only fault; none if empty
	}{
		{"get", found, ""},
		{"head", answer(200, "application/json", "").to("HEAD", "/users/"+id), ""},
		{"head with a body", found.to("HEAD", "/users/"+id), "HEAD has a body"},
		{"id in upper case", found.to("GET", "/users/"+strings.ToUpper(id)), ""},
		{"created from json", created.sent("application/json; charset=utf-8",
			`{"name":" Ada ","email":"ada@example.com"}`), ""},
		{"created from a form", created.sent("application/x-www-form-urlencoded", "name=Ada&email=ada%40example.com"),
			""},
		{"created from multipart", created.sent(form("name", "Ada", "email", "ada@example.com", "avatar",
			"\x89PNG\x00")), ""},
		{"name of 200 letters", created.sent("application/json",
			`{"name":"  `+strings.Repeat("é", 200)+`  ","email":"ada@example.com"}`), ""},
		{"uploaded", uploaded.sent(form("user_id", id, "file", "GIF8")), ""},
		{"uploaded, body not recorded", hidden, ""},
		{"raw image", answer(200, "application/json", user).to("PUT", "/users/"+id+"/avatar").sent("", "\x89PNG"), ""},
		{"raw image of any type", answer(200, "application/json", user).to("PUT",
			"/users/"+id+"/avatar").sent("application/x-www-form-urlencoded", "\x89PNG"), ""},
		{"space is removed", uploaded.sent(form("email", " ada@example.com\n", "avatar", "x")), ""},
		{"inputs left empty", uploaded.sent(form("user_id", "", "email", "ada@example.com", "avatar", "", "file", "x")),
			""},
		{"inputs left empty for a new user", created.sent(form("name", "Ada", "email", "ada@example.com", "avatar", "",
			"file", "x")), ""},
		{"deleted", answer(204, "", "").to("DELETE", "/users/"+id), ""},
		{"image", image, ""},
		{"image, body not recorded", omitted, ""},
		{"replaced version", answer(302, "", "", "Location", "/users/"+id+"/avatar/"+version, "Cache-Control",
			"no-cache").
			to("GET", "/users/"+id+"/avatar/aaaaaaaaaaaaaaaaaaaaaaaaaa"), ""},
		{"part of an image", answer(206, "image/png", "PNG", "ETag", etag, "Accept-Ranges", "bytes", "Cache-Control",
			"public, max-age=31536000, immutable",
			"Content-Range", "bytes 1-3/4").to("GET", "/users/"+id+"/avatar/"+version), ""},
		{"page", answer(200, "application/json", "["+user+"]", "Link",
			`<https://x.example/users?limit=1&cursor=b5fc85e5-5755-89e0-9030-a10ab4429b6b>; rel="next"`).
			to("GET", "/users?limit=1"), ""},
		{"bad request, refused", refusal(400, "invalid-request").to("POST", "/user").sent("application/json",
			`{"nmae":"Ada"}`), ""},
		{"bad limit, refused", refusal(400, "invalid-request").to("GET", "/users?limit=0"), ""},
		{"bad id, refused", refusal(404, "not-found").to("GET", "/users/42"), ""},
		{"overloaded", refusal(503, "unavailable", "Retry-After", "1").to("POST", "/user").sent("application/json",
			`{`), ""},
		{"unknown path", refusal(404, "not-found").to("GET", "/nothing"), ""},
		{"unknown method", refusal(405, "method-not-allowed", "Allow", "GET, HEAD").to("PUT", "/users"), ""},
		{"redirect", answer(302, "text/html", "", "Location", "/swagger/").to("GET", "/"), ""},
		{"probe", answer(200, "text/plain; charset=utf-8", "ok").to("GET", "/livez"), ""},

		{"unknown field, taken", created.sent("application/json", `{"name":"Ada","email":"ada@example.com","age":36}`),
			"not refused"},
		{"no email, taken", created.sent("application/json", `{"name":"Ada"}`), "not refused"},
		{"name of 201 letters, taken", created.sent("application/json",
			`{"name":"`+strings.Repeat("é", 201)+`","email":"ada@example.com"}`), "not refused"},
		{"control character, taken", created.sent("application/json", `{"name":"A\u0000da","email":"ada@example.com"}`),
			"not refused"},
		{"empty name, taken", created.sent("application/x-www-form-urlencoded", "name=+&email=ada%40example.com"),
			"not refused"},
		{"two images, taken", created.sent(form("name", "Ada", "email", "ada@example.com", "avatar", "x", "file", "y")),
			"not refused"},
		{"repeated field, taken", created.sent(form("name", "Ada", "email", "ada@example.com", "name", "Bob")),
			"not refused"},
		{"upload for nobody, taken", uploaded.sent(form("avatar", "x")), "not refused"},
		{"upload for two, taken", uploaded.sent(form("user_id", id, "email", "ada@example.com", "avatar", "x")),
			"not refused"},
		{"upload with nothing filled in, taken", uploaded.sent(form("user_id", " ", "email", "", "avatar", "x")),
			"not refused"},
		{"upload without an image, taken", uploaded.sent(form("email", "ada@example.com", "avatar", "")),
			"not refused"},
		{"other type, taken", created.sent("text/csv", "Ada,ada@example.com"), "not refused"},
		{"bad limit, taken", answer(200, "application/json", "[]").to("GET", "/users?limit=1001"), "not refused"},
		{"bad id, taken", found.to("GET", "/users/42"), "not refused"},
		{"bad request, a fault of the service", refusal(500, "internal").to("POST", "/user").sent("application/json",
			`{`), "not refused"},

		{"undeclared status", answer(202, "application/json", user).to("GET", "/users/"+id),
			"does not declare this status"},
		{"undeclared content type", answer(200, "text/html", user).to("GET", "/users/"+id), "content type"},
		{"no content type", answer(200, "", user).to("GET", "/users/"+id), "content type"},
		{"content type of an image", answer(200, "image/svg+xml", "<svg/>", "ETag", etag, "Accept-Ranges", "bytes",
			"Cache-Control", "no-cache").
			to("GET", "/users/"+id+"/avatar"), "content type"},
		{"no body", answer(200, "application/json", "").to("GET", "/users/"+id), "no body"},
		{"body of a 204", answer(204, "", "gone").to("DELETE", "/users/"+id), "body that is not declared"},
		{"missing member", answer(200, "application/json", strings.Replace(user, `"name":"Ada",`, "", 1)).to("GET",
			"/users/"+id), "name"},
		{"undeclared member", answer(200, "application/json",
			strings.Replace(user, `"name"`, `"password":"x","name"`, 1)).to("GET", "/users/"+id), "password"},
		{"undeclared member of a list", answer(200, "application/json",
			"["+strings.Replace(user, `"name"`, `"password":"x","name"`, 1)+"]").to("GET", "/users"), "password"},
		{"time without milliseconds", answer(200, "application/json", strings.Replace(user, ".589Z", "Z", 1)).to("GET",
			"/users/"+id), "pattern"},
		{"not json", answer(200, "application/json", user[:20]).to("GET", "/users/"+id), "decoded"},
		{"no location", answer(201, "application/json", user).to("POST", "/user").sent("application/json",
			`{"name":"Ada","email":"ada@example.com"}`), "Location"},
		{"no request id", exchange{Status: 204, ResponseHeader: http.Header{}}.to("DELETE", "/users/"+id),
			"X-Request-Id"},
		{"etag without quotes", answer(304, "", "", "ETag", "x", "Cache-Control", "no-cache").to("GET",
			"/users/"+id+"/avatar"), "'etag'"},
		{"image without its thumbnail", answer(200, "application/json",
			strings.Replace(user, `"created_at"`, `"avatar_url":"/users/`+id+`/avatar/`+version+`","created_at"`, 1)).
			to("GET", "/users/"+id), "thumbnail_url"},
		{"immutable redirect", answer(302, "", "", "Location", "/users/"+id+"/avatar/"+version, "Cache-Control",
			"public, max-age=31536000, immutable").
			to("GET", "/users/"+id+"/avatar/aaaaaaaaaaaaaaaaaaaaaaaaaa"), "'cache-control'"},
		{"retry after a date", refusal(503, "unavailable", "Retry-After", "soon").to("GET", "/users"), "'retry-after'"},
		{"no challenge", refusal(401, "unauthorized").to("GET", "/users"), "WWW-Authenticate"},
		{"problem of another kind", refusal(404, "internal").to("GET", "/users/"+id), "not-found"},
		{"problem of another status", answer(404, "application/problem+json",
			strings.NewReplacer("KIND", "not-found", "STATUS", "400").Replace(problem)).
			to("GET", "/users/"+id), "404"},
		{"error that is no problem", answer(404, "text/plain", "404 page not found").to("GET", "/users/"+id),
			"content type"},
		{"unknown path, taken", answer(200, "application/json", "[]").to("GET", "/nothing"), "not declared"},
		{"unknown path without a problem", answer(404, "text/plain", "404 page not found").to("GET", "/nothing"),
			"content type"},
		{"unknown method as 404", refusal(404, "not-found").to("PUT", "/users"), "405"},
		{"unknown method without allow", refusal(405, "method-not-allowed").to("PUT", "/users"), "Allow"},
		{"redirect to nowhere", answer(302, "text/html", "", "Location", "/nothing").to("GET", "/"), "redirects"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			faults := c.check(tt.x)
			if tt.want == "" {
				if len(faults) > 0 {
					t.Errorf("faults: %q", faults)
				}
				return
			}
			if len(faults) != 1 || !strings.Contains(faults[0], tt.want) {
				t.Errorf("faults: %q, want one with %q", faults, tt.want)
			}
		})
	}
}

func TestRun(t *testing.T) {
	good := answer(200, "text/plain", "ok").to("GET", "/livez")
	bad := answer(200, "text/html", "ok").to("GET", "/livez")
	bad.Note = "TestProbe"
	asset := answer(200, "text/css", "x").to("GET", "/swagger/swagger-ui.css?v=1")
	tests := []struct {
		name      string
		flags     []string
		exchanges []exchange
		status    int
		want      string
	}{
		{"document only", nil, nil, 0, "0 exchanges, 0 faults"},
		{"good", nil, []exchange{good, good}, 0, "2 exchanges, 0 faults"},
		{"unseen is a warning", nil, []exchange{good}, 0, "never seen: getUser 404\n"},
		{"unseen is a fault", []string{"-require-all"}, []exchange{good}, 1, "never seen: getUser 404\n"},
		{"bad", nil, []exchange{good, bad}, 1, ":2: GET /livez: 200: the content type \"text/html\" is not declared (TestProbe)\n"},
		{"not skipped", nil, []exchange{good, asset}, 1, "not declared"},
		{"skipped", []string{"-skip", "^/swagger/."}, []exchange{good, asset}, 0, "1 exchanges, 0 faults"},
		{"nothing left", []string{"-skip", "."}, []exchange{good}, 1, "no exchange to check"},
		{"no such contract", []string{"-contract", "nowhere.yaml"}, nil, 1, "nowhere.yaml"},
		{"bad flag", []string{"-skip", "("}, nil, 2, "-skip"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"-contract", contractFile}, tt.flags...)
			if tt.exchanges != nil {
				var lines bytes.Buffer
				for _, x := range tt.exchanges {
					line, err := json.Marshal(x)
					if err != nil {
						t.Fatal(err)
					}
					lines.Write(append(line, '\n'))
				}
				args = append(args, write(t, "exchanges.jsonl", lines.Bytes()))
			}
			var out bytes.Buffer
			if got := run(args, &out, &out); got != tt.status {
				t.Errorf("exit status %d, want %d", got, tt.status)
			}
			if !strings.Contains(out.String(), tt.want) {
				t.Errorf("output lacks %q:\n%s", tt.want, out.String())
			}
		})
	}
}

func TestLint(t *testing.T) {
	source, err := os.ReadFile(contractFile)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, old, new, want string }{
		{"as it is", "", "", ""},
		{"not OpenAPI", "title: Roster", "titel: Roster", "title"},
		{"operation twice", "operationId: getUser\n", "operationId: listUsers\n", "used twice"},
		{"tag unknown", "tags: [users]", "tags: [people]", "people"},
		{"summary gone", "summary: Get a user\n", "description: Get a user\n", "no summary"},
		{"path parameter gone", "        - $ref: '#/components/parameters/UserId'\n", "", "path parameter"},
		{"request id gone", "    Deleted:\n      description: Deleted.\n      headers:",
			"    Deleted:\n      description: Deleted.\n      x-headers:", "lacks X-Request-Id"},
		{"error without a problem", "'404': {$ref: '#/components/responses/NotFound'}",
			"'404': {$ref: '#/components/responses/Deleted'}", "no problem"},
		{"example wrong", "name: Ada Lovelace\n", "name: 7\n", "example"},
		{"component unused", "  schemas:\n", "  schemas:\n    Spare: {type: string}\n", "schemas/Spare"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.Replace(string(source), tt.old, tt.new, 1)
			if tt.old != "" && changed == string(source) {
				t.Fatalf("the contract has no %q", tt.old)
			}
			c, err := load([]byte(changed))
			if err != nil {
				t.Fatal(err)
			}
			faults := strings.Join(c.lint(), "\n")
			if tt.want == "" && faults != "" || !strings.Contains(faults, tt.want) {
				t.Errorf("faults %q, want %q", faults, tt.want)
			}
		})
	}
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

package tests

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"roster/internal/testkit"
)

// The tests here attack the built binary. They check the response, and that the service stays healthy.

// A target is a service under attack, with one user in it.
type target struct {
	*process
	ada userJSON
}

func startTarget(t *testing.T, env ...string) *target {
	t.Helper()
	p := start(t, env...)
	a := p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}},
		[]byte(`{"name":"Ada","email":"ada@example.com"}`))
	return &target{p, a.want(t, http.StatusCreated).user(t)}
}

// wantHealthy sends the next request. No request may be in flight afterwards, no handler may have
// panicked, and memory must have stayed below 250 MiB.
func (p *target) wantHealthy(t *testing.T) {
	t.Helper()
	before := time.Now()
	if u := p.do(t, "GET /users/"+p.ada.ID, nil, nil).want(t, http.StatusOK).user(t); u != p.ada {
		t.Errorf("the user after the attack is %+v, want %+v", u, p.ada)
	}
	if d := time.Since(before); d > 10*time.Second {
		t.Errorf("the request after the attack took %v", d)
	}
	testkit.Eventually(t, "no request is in flight", func() error {
		if n := p.metric(t, "roster_http_requests_in_flight") + p.metric(t, "roster_uploads_in_flight"); n != 0 {
			return fmt.Errorf("%v requests and uploads are", n)
		}
		return nil
	})
	if n := p.metric(t, "roster_panics_total"); n != 0 {
		t.Errorf("roster_panics_total is %v, want 0", n)
	}
	if n := p.metric(t, "go_goroutines"); n > 100 {
		t.Errorf("the service has %v goroutines, want at most 100", n)
	}
	most := 250.0 * mib
	if raceEnabled {
		most *= 4 // the detector's own
	}
	if peak := p.peakMemory(t); peak > most {
		t.Errorf("the service used %.0f MiB of memory, want at most %.0f", peak/mib, most/mib)
	}
}

// raw sends requests on a connection of their own and returns the responses. The service must close the
// connection after them.
func (p *target) raw(t *testing.T, requests string) (answers []answer) {
	t.Helper()
	conn := p.dial()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	go io.WriteString(conn, requests) // the service may respond before it has read everything
	for r := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(r, nil)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Errorf("%.60q: the connection is open after %d responses", requests, len(answers))
		}
		if err != nil {
			return answers
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Errorf("%.60q: body of response %d: %v", requests, len(answers)+1, err)
		}
		answers = append(answers, answer{resp, string(body)})
	}
}

func (p *target) dial() *net.TCPConn {
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		panic(err) // in a goroutine, where the test cannot be ended
	}
	return conn.(*net.TCPConn)
}

// TestAttackSmuggling: requests whose end two programs may see in different places. Each carries a second
// request, which may get a response only if the end of the first is not in doubt.
func TestAttackSmuggling(t *testing.T) {
	t.Parallel()
	p := startTarget(t)
	const smuggled = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
	post := func(header, body string) string {
		return "POST /user HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + header + "\r\n" + body +
			smuggled
	}
	const open = true
	tests := []struct {
		name, request string
		open          bool // the connection stays so
		want          []int
	}{
		{"well-formed", post("Content-Length: 2\r\n", "{}"), open, []int{400, 200}},
		{"both lengths", post("Content-Length: 35\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), !open, []int{400}},
		{"both, the other way round", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), !open,
			[]int{400}},
		{"two lengths that differ", post("Content-Length: 2\r\nContent-Length: 0\r\n", "{}"), !open, []int{400}},
		{"list of lengths", post("Content-Length: 2, 2\r\n", "{}"), !open, []int{400}},
		{"signed length", post("Content-Length: +2\r\n", "{}"), !open, []int{400}},
		{"negative length", post("Content-Length: -2\r\n", "{}"), !open, []int{400}},
		{"hexadecimal length", post("Content-Length: 0x2\r\n", "{}"), !open, []int{400}},
		{"length of 20 digits", post("Content-Length: 18446744073709551618\r\n", "{}"), !open, []int{400}},
		{"empty length", post("Content-Length:\r\n", "{}"), !open, []int{400}},
		{"unknown encoding", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), !open, []int{501}},
		{"identity", post("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "{}"), !open, []int{501}},
		{"two encodings", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), !open, []int{501}},
		{"two fields", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"), !open,
			[]int{501}},
		{"vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), !open, []int{400}},
		{"space before the colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), !open, []int{400}},
		{"tab before the colon", post("Content-Length\t: 2\r\n", "{}"), !open, []int{400}},
		{"chunked in HTTP/1.0", "POST /user HTTP/1.0\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, !open, []int{400}},
		{"chunk extension", post("Transfer-Encoding: chunked\r\n", "2;a=b\r\n{}\r\n0\r\n\r\n"), !open, []int{400}},
		{"chunk extension, bare LF", post("Transfer-Encoding: chunked\r\n", "2;\n{}\r\n0\r\n\r\n"), !open, []int{400}},
		{"chunk extension of 40 kB", post("Transfer-Encoding: chunked\r\n",
			"2;"+strings.Repeat("a", 40000)+"\r\n{}\r\n0\r\n\r\n"), !open, []int{400}},
		{"chunks ended by bare LF", post("Transfer-Encoding: chunked\r\n", "2\n{}\n0\n\n"), !open, []int{400}},
		{"chunk longer than it says", post("Transfer-Encoding: chunked\r\n", "1\r\n{}\r\n0\r\n\r\n"), !open,
			[]int{400}},
		{"negative chunk", post("Transfer-Encoding: chunked\r\n", "-2\r\n{}\r\n0\r\n\r\n"), !open, []int{400}},
		{"chunk of 2^68 bytes", post("Transfer-Encoding: chunked\r\n", "100000000000000000\r\n{}\r\n0\r\n\r\n"), !open,
			[]int{400}},
		{"chunk size with 0x", post("Transfer-Encoding: chunked\r\n", "0x2\r\n{}\r\n0\r\n\r\n"), !open, []int{400}},
		{"length in the trailer", post("Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n",
			"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n"), !open, []int{400}},
		{"body of a GET",
			fmt.Sprintf("GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(smuggled), smuggled),
			open, []int{200}},
		{"two hosts", "GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", !open, []int{400}},
		{"no host", "GET /livez HTTP/1.1\r\n\r\n", !open, []int{400}},
		{"space in the host", "GET /livez HTTP/1.1\r\nHost: x y\r\n\r\n", !open, []int{400}},
		{"space before a name", "GET /livez HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n", !open, []int{400}},
		{"no name", "GET /livez HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", !open, []int{400}},
		{"no colon", "GET /livez HTTP/1.1\r\nHost: x\r\nfoo\r\n\r\n", !open, []int{400}},
		{"bare CR", "GET /livez HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n", !open, []int{400}},
		{"NUL", "GET /livez HTTP/1.1\r\nHost: x\r\nA: b\x00\r\n\r\n", !open, []int{400}},
		{"bare LF", "GET /livez HTTP/1.1\nHost: x\n\n", open, []int{200}}, // allowed by RFC 9112, section 2.2
		{"space in the target", "GET /livez /readyz HTTP/1.1\r\nHost: x\r\n\r\n", !open, []int{400}},
		{"control character in the target", "GET /li\x01vez HTTP/1.1\r\nHost: x\r\n\r\n", !open, []int{400}},
		{"absolute form", "GET http://elsewhere.example/livez HTTP/1.1\r\nHost: x\r\n\r\n", open, []int{200}},
		{"CONNECT", "CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example:443\r\n\r\n", open, []int{405}},
		{"made-up method", "G@T /livez HTTP/1.1\r\nHost: x\r\n\r\n", !open, []int{400}},
		{"HTTP/0.9", "GET /livez\r\n\r\n", !open, []int{400}},
		{"HTTP/2 in HTTP/1's form", "GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", !open, []int{505}},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", !open, []int{400}},
		{"upgrade to HTTP/2", "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", open, []int{200}},
		{"header of 30 kB", "GET /livez HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 30000) + "\r\n\r\n", !open,
			[]int{431}},
		{"8,000 fields", "GET /livez HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("a: b\r\n", 8000) + "\r\n", !open,
			[]int{431}},
		{"target of 30 kB", "GET /" + strings.Repeat("a", 30000) + " HTTP/1.1\r\nHost: x\r\n\r\n", !open, []int{431}},
		{"unknown expectation", "PATCH /users/x HTTP/1.1\r\nHost: x\r\nExpect: the-unexpected\r\nContent-Length: 2\r\n\r\n{}",
			!open, []int{417}},
	}
	// The connection is open if the service responds to one more request, which closes it.
	const last = "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: last\r\n\r\n"
	for _, test := range tests {
		var got []int
		answers := p.raw(t, test.request+last)
		n := len(answers)
		isOpen := n > 0 && answers[n-1].Header.Get("X-Request-Id") == "last"
		if isOpen {
			n--
		}
		for _, a := range answers[:n] {
			got = append(got, a.StatusCode)
		}
		if !slices.Equal(got, test.want) || isOpen != test.open {
			t.Errorf("%s: statuses %v, open: %t; want %v, open: %t", test.name, got, isOpen, test.want, test.open)
		}
	}
	p.wantHealthy(t)
}

// TestAttackPaths: no path leads to a file outside the images.
func TestAttackPaths(t *testing.T) {
	t.Parallel()
	p := startTarget(t)
	secret := filepath.Join(filepath.Dir(p.dir), "secret.png")
	if err := os.WriteFile(secret, testkit.PNG(testkit.Gradient(2, 2, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(secret)
	for _, path := range []string{
		"/users/../../etc/passwd",
		"/users/..%2f..%2fsecret.png/avatar",
		"/users/%2e%2e%2f%2e%2e%2fsecret.png",
		"/users/%252e%252e%252fsecret.png/avatar",
		"/users/..%5c..%5csecret.png/avatar",
		"/users/..%c0%af..%c0%afsecret.png/avatar",
		"/users/roster.db",
		"/users/%00/avatar",
		"/users/" + p.ada.ID + "%00/avatar",
		"/users/" + p.ada.ID + "%2favatar",
		"/users/" + p.ada.ID + "/avatar/../../../secret.png",
		"/users/" + strings.Repeat("a", 8000) + "/avatar",
		"/users/" + p.ada.ID + "%20",
		"/users/{id}",
		"/swagger/../main.go",
		"/swagger/..%2fmain.go",
		"/swagger/%2e%2e/main.go",
		"/swagger//etc/passwd",
		"/.env",
		"/metrics",
		"/debug/pprof/",
	} {
		for _, method := range []string{"GET", "DELETE", "PUT"} {
			answers := p.raw(t, method+" "+path+" HTTP/1.1\r\n"+
				"Host: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			if len(answers) != 1 {
				t.Errorf("%s %s: %d responses, want 1", method, path, len(answers))
				continue
			}
			a := answers[0]
			// The router redirects to the path without dots, which is no place either.
			redirect := a.StatusCode >= 300 && a.StatusCode < 400 && !strings.Contains(a.Header.Get("Location"), "..")
			if !redirect && a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %s, want 404 or 405\n%s", method, path, a, a.body)
			}
		}
	}
	contentType, body := testkit.Form(testkit.PNG(testkit.Gradient(2, 2, 1)),
		map[string][]string{"user_id": {"../../secret"}})
	p.do(t, "POST /upload", http.Header{"Content-Type": {contentType}}, body).want(t, http.StatusBadRequest)
	if _, err := os.Stat(secret); err != nil {
		t.Errorf("the file outside DATA_DIR: %v", err)
	}
	if files, _ := filepath.Glob(p.dir + "/avatars/*"); len(files) != 0 {
		t.Errorf("images %q are stored, want none", files)
	}
	p.wantHealthy(t)
}

// TestAttackHeaders: no value of a client becomes a header, or the host of a URL, in a response.
func TestAttackHeaders(t *testing.T) {
	t.Parallel()
	p := startTarget(t)
	long := strings.Repeat("a", 65)
	var parameters string
	for i := range 2000 {
		parameters += fmt.Sprintf("p%d&", i)
	}
	const ok = http.StatusOK
	for _, test := range []struct {
		name, target, header string
		status               int
	}{
		{"line break in the path", "GET /users/%0d%0aEvil:%20yes", "", http.StatusNotFound},
		{"line break in the query", "GET /users?cursor=%0d%0aEvil:%20yes", "", http.StatusBadRequest},
		{"line break in a parameter's name", "GET /users?%0d%0aEvil=yes", "", http.StatusBadRequest},
		{"line break in the page", "GET /users?limit=1%0d%0aEvil:%20yes", "", http.StatusBadRequest},
		{"path that is a host", "GET //evil.example/..", "", http.StatusTemporaryRedirect},
		{"path that is a host, backslash", "GET /%5cevil.example/..", "", http.StatusTemporaryRedirect},
		{"request id with a tab", "GET /livez", "X-Request-Id: a\tEvil\r\n", ok},
		{"request id that is markup", "GET /livez", "X-Request-Id: <Evil>\r\n", ok},
		{"request id that is long", "GET /livez", "X-Request-Id: Evil" + long + "\r\n", ok},
		{"request id twice", "GET /livez", "X-Request-Id: a\r\nX-Request-Id: Evil\r\n", ok},
		{"another host", "GET /users/" + p.ada.ID, "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: evil\r\nForwarded: host=evil.example\r\n", ok},
		{"another path", "GET /livez", "X-Original-URL: /users/evil\r\nX-Rewrite-URL: /evil\r\n", ok},
		{"another method", "GET /users/" + p.ada.ID, "X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\n", ok},
		{"hop-by-hop", "GET /users/" + p.ada.ID, "Connection: close, X-Request-Id, Host\r\n", ok},
		{"another origin", "DELETE /users/" + p.ada.ID, "Origin: https://other.example\r\n", http.StatusForbidden},
		{"another site", "DELETE /users/" + p.ada.ID, "Sec-Fetch-Site: cross-site\r\n", http.StatusForbidden},
		{"CORS", "OPTIONS /users/" + p.ada.ID, "Origin: https://evil.example\r\nAccess-Control-Request-Method: DELETE\r\n",
			http.StatusMethodNotAllowed},
		{"two content types", "POST /user", "Content-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n", http.StatusBadRequest},
		{"content type of many parameters", "POST /user", "Content-Type: application/json" +
			strings.Repeat("; a", 3000) +
			"\r\nContent-Length: 0\r\n", http.StatusUnsupportedMediaType},
		{"compressed body", "POST /user", "Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n",
			http.StatusUnsupportedMediaType},
		{"thousands of parameters", "GET /users?" + strings.Repeat("a&b&c&", 10) + parameters, "",
			http.StatusBadRequest},
		{"thousand ranges", "GET /users/" + p.ada.ID + "/avatar", "Range: bytes=0-0" + strings.Repeat(",0-0", 1000) +
			"\r\n",
			http.StatusNotFound},
		{"thousand tags", "GET /users/" + p.ada.ID + "/avatar", "If-None-Match: " + strings.Repeat(`"a",`, 3000) +
			"\r\n",
			http.StatusBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			answers := p.raw(t, test.target+" HTTP/1.1\r\nHost: evil.example\r\n"+
				"Connection: close\r\n"+test.header+"\r\n")
			if len(answers) != 1 {
				t.Fatalf("%s: %d responses, want 1", test.target, len(answers))
			}
			a := answers[0]
			if a.StatusCode != test.status {
				t.Errorf("%s: %s, want %d\n%s", test.target, a, test.status, a.body)
			}
			for name, values := range a.Header {
				if text := strings.ToLower(name + strings.Join(values, " ")); strings.Contains(text, "evil") &&
					name != "Location" || strings.Contains(name, "Access-Control") {
					t.Errorf("%s: header %s: %q", test.target, name, values)
				}
			}
			// On this host, not on one that the path named.
			if to := a.Header.Get("Location"); to != "" && (to[0] != '/' || strings.HasPrefix(to, "//") ||
				strings.HasPrefix(to, `/\`)) {
				t.Errorf("%s: Location %q, want a path", test.target, to)
			}
			if len(a.body) > 16<<10 {
				t.Errorf("%s: a body of %d bytes", test.target, len(a.body))
			}
			if strings.Contains(a.body, "evil.example") {
				t.Errorf("%s: the body names the other host: %s", test.target, a.body)
			}
		})
	}
	p.wantHealthy(t)
}

// TestPublicOrigin: behind a proxy that changes Host, the origin of PUBLIC_URL may send
// changes, and no other. Redirects keep the prefix. PUBLIC_URL may be spelled as browsers do not.
func TestPublicOrigin(t *testing.T) {
	t.Parallel()
	for url, origin := range map[string]string{
		"https://roster.example:443":  "https://roster.example",
		"https://Roster.Example/a/":   "https://roster.example",
		"https://bücher.example":      "https://xn--bcher-kva.example",
		"http://roster.example:80/":   "http://roster.example",
		"http://roster.example:8080/": "http://roster.example:8080",
	} {
		p := start(t, "PUBLIC_URL="+url)
		header := http.Header{"Content-Type": {"application/json"}, "Origin": {origin},
			"Sec-Fetch-Site": {"cross-site"}}
		a := p.do(t, "POST /user", header, []byte(`{"name":"A","email":"a@example.com"}`))
		a.want(t, http.StatusCreated)
		if location := a.Header.Get("Location"); !strings.HasPrefix(location, origin) {
			t.Errorf("PUBLIC_URL=%s: Location %s, want it to begin with %s", url, location, origin)
		}
	}
	p := start(t, "PUBLIC_URL=https://people.example/roster")
	for origin, status := range map[string]int{"https://people.example": 201, "https://evil.example": 403,
		"http://people.example": 403} {
		a := p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}, "Origin": {origin},
			"Sec-Fetch-Site": {"cross-site"}}, []byte(`{"name":"A","email":"a@example.com"}`))
		if a.want(t, status); status == 403 && !(strings.Contains(a.body, "Host") &&
			strings.Contains(a.body, "PUBLIC_URL")) {
			t.Errorf("POST from %s: 403 that does not name Host and PUBLIC_URL: %s", origin, a.body)
		}
	}
	resp, err := testClient.Get(p.url + "//users")
	if err != nil || resp.Header.Get("Location") != "https://people.example/roster/users" {
		t.Errorf("GET //users: %v, error %v; want a redirect with the prefix of PUBLIC_URL", resp, err)
	}
}

// TestOptionsAsterisk: OPTIONS * is answered and logged like any other request.
func TestOptionsAsterisk(t *testing.T) {
	t.Parallel()
	p := startTarget(t)
	answers := p.raw(t, "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if len(answers) != 1 || answers[0].StatusCode != http.StatusBadRequest ||
		answers[0].Header.Get("X-Request-Id") == "" {
		t.Fatalf("OPTIONS *: responses %v, want 400 with X-Request-Id", answers)
	}
	testkit.Eventually(t, "OPTIONS * is logged", func() error {
		if p.log.find("request", "method", "OPTIONS") == nil {
			return errors.New("no such line")
		}
		return nil
	})
}

// TestAttackBodies: bodies that are cheap to send and expensive to read. TestReadMultipart has more of
// multipart/form-data.
func TestAttackBodies(t *testing.T) {
	t.Parallel()
	p := startTarget(t)
	object := func(members string, n int) string {
		return "{" + strings.TrimSuffix(strings.Repeat(members, n), ",") + "}"
	}
	const (
		isJSON = "application/json"
		isForm = "application/x-www-form-urlencoded"
		isMIME = "multipart/form-data; boundary=b"
	)
	field := "--b\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nAda\r\n"
	png := "--b\r\nContent-Disposition: form-data; name=\"avatar\"; filename=\"a\"\r\n\r\n"
	for _, test := range []struct {
		name, contentType, body string
		status                  int
	}{
		{"JSON of 8 MiB", isJSON, `{"name":"` + strings.Repeat("a", 8<<20) + `"}`, 413},
		{"JSON nested 60,000 deep", isJSON, `{"name":` + strings.Repeat("[", 60000), 400},
		{"objects nested 10,000 deep", isJSON, strings.Repeat(`{"a":`, 10000), 400},
		{"8,000 unknown members", isJSON, object(`"a":"",`, 8000), 400},
		{"3,000 repeated members", isJSON, object(`"name":"Ada",`, 3000), 400},
		{"number of 60,000 digits", isJSON, `{"name":` + strings.Repeat("9", 60000) + `}`, 400},
		{"10,000 escapes", isJSON, `{"email":"ada@example.com","name":"` + strings.Repeat(`\u0000`, 10000) + `"}`, 400},
		{"15,000 form fields", isForm, strings.Repeat("a=&", 15000), 400},
		{"form of 8 MiB", isForm, "name=" + strings.Repeat("a", 8<<20), 413},
		{"4 MiB before the first part", isMIME, strings.Repeat("a", 4<<20) + "\r\n" + field + "--b--\r\n", 400},
		{"part header of 4 MiB", isMIME, "--b\r\nContent-Disposition: form-data; name=\"" + strings.Repeat("a", 4<<20) +
			"\"\r\n\r\nx\r\n--b--\r\n", 400},
		{"text part of 4 MiB", isMIME, "--b\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\n" +
			strings.Repeat("a", 4<<20) + "\r\n--b--\r\n", 413},
		{"image part of 8 MiB", isMIME, png + strings.Repeat("a", 8<<20) + "\r\n--b--\r\n", 413},
		{"nested parts", isMIME, "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + field + "--b--\r\n", 400},
		{"encoded part", isMIME, "--b\r\nContent-Disposition: form-data; name=\"name\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.Repeat("=41=\r\n", 5000) + "\r\n--b--\r\n", 400},
		{"no boundary", "multipart/form-data", field, 400},
		{"boundary of 8 kB", "multipart/form-data; boundary=" + strings.Repeat("b", 8000), strings.Repeat("-", 1<<20),
			400},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, length := range []string{"known", "chunked"} {
				var body io.Reader = strings.NewReader(test.body)
				if length == "chunked" {
					body = io.MultiReader(body)
				}
				req := testkit.Must(http.NewRequest("POST", p.url+"/user", body))
				req.Header.Set("Content-Type", test.contentType)
				resp, err := testClient.Do(req)
				if err != nil {
					// A large body may be rejected before it is read. The client, still writing,
					// may then see only the end of the connection.
					if len(test.body) < 1<<20 {
						t.Errorf("%s, %s: %v", test.name, length, err)
					}
					continue
				}
				answer := testkit.Must(io.ReadAll(resp.Body))
				resp.Body.Close()
				if resp.StatusCode != test.status || len(answer) > 16<<10 {
					t.Errorf("%s, %s: %s with %d bytes, want %d and few\n%.300s", test.name, length, resp.Status,
						len(answer), test.status, answer)
				}
			}
		})
	}
	p.wantHealthy(t)
}

// TestAttackImages: images that are small to send and large when decoded.
func TestAttackImages(t *testing.T) {
	t.Parallel()
	p := startTarget(t)
	zeros := zlibZeros(1 << 10) // 1 GiB in 1 MiB
	small := testkit.PNG(testkit.Gradient(1, 1, 1))
	inserted := func(name string, data []byte) []byte { // after IHDR
		return slices.Concat(small[:33], testkit.PNGChunk(name, data), small[33:])
	}
	gif := testkit.GIF(2, 2, 1)
	comments := 13 // behind the screen, which has no color table
	put := func(t *testing.T, image []byte) answer {
		t.Helper()
		return p.do(t, "PUT /users/"+p.ada.ID+"/avatar", nil, image)
	}
	for _, test := range []struct {
		name   string
		image  []byte
		status int
	}{
		{"PNG of 60,000 × 60,000", testkit.PNGClaiming(60000, 60000), 413},
		{"PNG of 2³¹ × 2³¹", testkit.PNGClaiming(1<<31, 1<<31), 413},
		{"PNG without pixels", testkit.PNGClaiming(0, 60000), 400},
		{"PNG of 6,300 × 6,300 with none there", testkit.PNGClaiming(6300, 6300), 400},
		{"nothing", nil, 400},
		{"PNG whose text unpacks to 1 GiB", inserted("zTXt", append([]byte("bomb\x00\x00"), zeros...)), 200},
		{"PNG whose profile unpacks to 1 GiB", inserted("iCCP", append([]byte("bomb\x00\x00"), zeros...)), 200},
		{"PNG whose pixels unpack to 1 GiB", slices.Concat(testkit.PNGClaiming(1, 1)[:33],
			testkit.PNGChunk("IDAT", zeros), testkit.PNGChunk("IEND", nil)), 200},
		{"PNG with a chunk of 2³¹ bytes", slices.Concat(small[:33], []byte("\x80\x00\x00\x00teXt")), 400},
		{"GIF of 65,535 × 65,535", testkit.GIFClaiming(65535, 65535, 1), 413},
		{"GIF of 5,000 frames", testkit.GIFClaiming(1000, 1000, 5000), 200},
		{"GIF of 100,000 frames without pixels", testkit.GIFClaiming(0, 0, 40000), 400},
		{"GIF with 4 MiB of comments", slices.Concat(gif[:comments], bytes.Repeat([]byte("!\xfe\x01a\x00"), 800000),
			gif[comments:]), 200},
		{"JPEG of 65,500 × 65,500, progressive", testkit.JPEGClaiming(65500, 65500), 413},
		{"JPEG of a million scans", slices.Concat(testkit.JPEGClaiming(6000, 6000),
			bytes.Repeat([]byte("\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"), 400000)), 400},
		{"JPEG of a million restarts", slices.Concat([]byte("\xff\xd8\xff\xe0"),
			bytes.Repeat([]byte("\x00\x02\xff\xe0"), 1000000)), 400},
		{"WebP of 16,383 × 16,383", testkit.WebPClaiming(16383, 16383), 413},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := time.Now()
			put(t, test.image).want(t, test.status)
			if d := time.Since(before); d > 10*time.Second {
				t.Errorf("%s: response after %v", test.name, d)
			}
		})
	}
	p.do(t, "DELETE /users/"+p.ada.ID+"/avatar", nil, nil)
	p.ada = p.do(t, "GET /users/"+p.ada.ID, nil, nil).user(t)
	p.wantHealthy(t)
}

// zlibZeros is a zlib stream of so many MiB of zeros, without an end: each MiB
// is compressed to the same whole bytes.
func zlibZeros(mebibytes int) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	w.Write(zeros)
	w.Flush()
	first := b.Len()
	w.Write(zeros)
	w.Flush()
	return slices.Concat(b.Bytes()[:first], bytes.Repeat(b.Bytes()[first:], mebibytes-1))
}

// TestAttackUnicode: emails that look alike are different users, names that look alike are the same text.
func TestAttackUnicode(t *testing.T) {
	t.Parallel()
	p := startTarget(t)
	create := func(t *testing.T, name, email string) answer {
		t.Helper()
		body := testkit.Must(json.Marshal(map[string]string{"name": name, "email": email}))
		return p.do(t, "POST /user", http.Header{"Content-Type": {"application/json"}}, body)
	}
	t.Run("emails", func(t *testing.T) {
		for _, email := range []string{
			"kim.ias@example.com",
			"kim.\u0131as@example.com", // dotless i
			"kim.\u0130as@example.com", // I with a dot
			"kim.ia\u017f@example.com", // long s
			"kim.i\u0430s@example.com", // Cyrillic a
			"\uff4bim.ias@example.com", // full width k
			"kim.i\u00e1s@example.com", // a with an accent
			"kim.ias@ex\u0430mple.com", // in the domain
		} {
			if u := create(t, "Kim", email).want(t, http.StatusCreated).user(t); u.Email != email {
				t.Errorf("%+q is stored as %+q", email, u.Email)
			}
		}
		for _, same := range []string{
			"\u212aim.ias@example.com",  // Kelvin sign, canonically a K
			"kim.ia\u0301s@example.com", // a and an accent
			"kim.ias@example\u3002com",  // ideographic full stop
			"kim.ias@xn--exmple-4nf.com",
		} {
			create(t, "Kim", same).want(t, http.StatusConflict)
		}
		create(t, "Kim", "KIM.IAS@EXAMPLE.COM").want(t, http.StatusConflict)
		create(t, "Kim", "KIM.I\u00c1S@example.com").want(t, http.StatusConflict)
	})
	t.Run("emails refused", func(t *testing.T) {
		for _, email := range []string{
			"kim\u200b@example.com",         // zero width space
			"\u202emoc.elpmaxe@mik@x.com",   // right-to-left override
			"kim\u00ad@example.com",         // soft hyphen
			"kim\u00a0@example.com",         // no-break space
			"kim@example.com\u0000",         // NUL
			"kim\r\nBcc: eve@example.com",   // line break
			"kim@example.com\u2028",         // inside, not around
			"\ufeffkim@example.com",         // byte order mark
			"kim@example.com,eve@evil.com",  // two
			"Kim <kim@example.com>",         // display name
			"kim(eve)@example.com",          // comment
			`"kim eve"@example.com`,         // quotes
			"kim@[127.0.0.1]",               // address literal
			"kim@example..com", "kim@.com.", // empty labels
		} {
			a := create(t, "Kim", email)
			if a.StatusCode == http.StatusCreated && strings.HasSuffix(email, "\u2028") {
				// Spaces around are trimmed, this one too.
				if u := a.user(t); u.Email != "kim@example.com" {
					t.Errorf("%+q is stored as %+q", email, u.Email)
				}
				continue
			}
			if a.StatusCode != http.StatusBadRequest {
				t.Errorf("email %+.40q: %s, want 400\n%s", email, a, a.body)
			}
		}
	})
	t.Run("names", func(t *testing.T) {
		for i, test := range []struct{ name, want string }{
			{"Jose\u0301", "Jos\u00e9"},
			{"\u212bngstro\u0308m", "\u00c5ngstr\u00f6m"}, // Angstrom sign
			{"\u1112\u1161\u11ab", "\ud55c"},              // Hangul
			{"\u00a0 Ada\u2003", "Ada"},
			{"a" + strings.Repeat("\u0316", 25), "a" + strings.Repeat("\u0316", 25)},
			{"a" + strings.Repeat("\u0316", 200), ""},
			{"\U0001F469\u200d\U0001F4BB", "\U0001F469\u200d\U0001F4BB"}, // joined by a zero width joiner
			{strings.Repeat("e\u0301", 100), strings.Repeat("\u00e9", 100)},
			{strings.Repeat("a\u0316", 101), ""},
			{"Ada\u0000", ""},
			{"Ada\u0085Eve", ""},
			{"\u2003", ""},
		} {
			a := create(t, test.name, fmt.Sprintf("name%d@example.com", i))
			if test.want == "" {
				if a.StatusCode != http.StatusBadRequest {
					t.Errorf("name %+.40q: %s, want 400", test.name, a)
				}
				continue
			}
			if got := a.want(t, http.StatusCreated).user(t).Name; got != test.want {
				t.Errorf("%+.40q is stored as %+.40q, want %+.40q", test.name, got, test.want)
			}
		}
	})
	p.wantHealthy(t)
}

// TestAttackSlow: many slow clients are disconnected, and other requests stay fast.
func TestAttackSlow(t *testing.T) {
	t.Parallel()
	const clients = 20 // of each kind
	p := startTarget(t, "MAX_AVATAR_BYTES=33554432")
	noise := image.NewNRGBA(image.Rect(0, 0, 1600, 1600))
	seed := uint32(1)
	for i := range noise.Pix { // so that it cannot be compressed
		seed = seed*1664525 + 1013904223
		noise.Pix[i] = uint8(seed >> 24)
	}
	p.do(t, "PUT /users/"+p.ada.ID+"/avatar", nil, testkit.PNG(noise)).want(t, http.StatusOK)
	p.ada = p.do(t, "GET /users/"+p.ada.ID, nil, nil).user(t)

	var all sync.WaitGroup
	for _, test := range []struct {
		name   string
		begin  string        // what is sent at once
		drip   string        // what is sent twice a second from then on
		status int           // of the response; 0: none
		within time.Duration // in which it must end
	}{
		{"no request", "", "", 0, 15 * time.Second},
		{"header, bit by bit", "GET /livez HTTP/1.1\r\nHost: x\r\n", "A: b\r\n", 0, 15 * time.Second},
		{"body, bit by bit", "PATCH /users/" + p.ada.ID +
			" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{", " ",
			http.StatusRequestTimeout, 30 * time.Second},
		{"chunks, bit by bit", "PATCH /users/" + p.ada.ID +
			" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
			"1\r\n \r\n", http.StatusRequestTimeout, 30 * time.Second},
	} {
		for range clients {
			all.Go(func() {
				status, err := p.slowly(test.begin, test.drip, test.within)
				if status != test.status || err != nil {
					t.Errorf("%s: status %d, error %v; want %d", test.name, status, err, test.status)
				}
			})
		}
	}

	// A client that never reads its response is disconnected, too.
	for range clients {
		conn := p.dial()
		defer conn.Close()
		conn.SetReadBuffer(4 << 10)
		io.WriteString(conn, "GET /users/"+p.ada.ID+"/avatar HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	all.Go(func() {
		const cut = `roster_http_request_duration_seconds_count{code="499",method="GET",route="/users/{id}/avatar"}`
		testkit.Eventually(t, fmt.Sprint(clients, " clients that do not read are disconnected"),
			func() error {
				if n := p.metric(t, cut); n != clients {
					return fmt.Errorf("%v are", n)
				}
				return nil
			})
	})

	for range 40 {
		before := time.Now()
		p.do(t, "GET /users/"+p.ada.ID, nil, nil).want(t, http.StatusOK)
		if d := time.Since(before); d > 10*time.Second {
			t.Errorf("GET /users/{id} beside slow clients took %v", d)
		}
		time.Sleep(500 * time.Millisecond)
	}
	all.Wait()
	p.wantHealthy(t)
}

// slowly sends begin and then drip twice a second. It returns the status of the response, or 0 if the
// connection ends without one. A connection that stays open is an error.
func (p *target) slowly(begin, drip string, within time.Duration) (status int, err error) {
	conn := p.dial()
	defer conn.Close()
	io.WriteString(conn, begin)
	go func() {
		for {
			time.Sleep(500 * time.Millisecond)
			if _, err := io.WriteString(conn, drip); err != nil {
				return
			}
		}
	}()
	conn.SetReadDeadline(time.Now().Add(within))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		return resp.StatusCode, nil
	}
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return 0, err
	}
	return 0, nil
}

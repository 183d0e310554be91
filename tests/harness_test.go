package tests

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"roster/internal/testkit"
)

// rosterBinary builds the service once and returns its path. The service has the race
// detector if the tests have it.
var rosterBinary = sync.OnceValue(func() string {
	// The binary is built from these directories. Reading them makes go test run again,
	// and not print a cached result, when a file in them has changed.
	testkit.Must(os.ReadDir(".."))
	testkit.Must(os.ReadDir("../swagger"))
	path := filepath.Join(workDir, "roster")
	build := exec.Command("go", "build", "-o", path, fmt.Sprint("-race=", raceEnabled), "..")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("go build: %v\n%s", err, out))
	}
	return path
})

// workDir is the temporary directory of a test run.
var workDir string

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "32") // most of these tests wait
	flag.Parse()
	workDir = testkit.Must(os.MkdirTemp("", "roster-test-"))
	code := m.Run()
	if err := checkExchanges(workDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.RemoveAll(workDir)
	os.Exit(code)
}

// A process is a running service.
type process struct {
	*exec.Cmd
	url     string // of the API, without a trailing slash
	metrics string // URL of /metrics
	dir     string // DATA_DIR
	log     *logLines
	done    chan struct{} // closed when the process has exited
	err     error         // result of Wait
}

// start runs the service on an embedded store of its own, with env in addition, and
// waits until it is ready. The service is stopped at the end of the test.
func start(t testing.TB, env ...string) *process {
	t.Helper()
	p := launch(t, env...)
	p.waitReady(t)
	return p
}

// launch runs the service and waits until it listens.
func launch(t testing.TB, env ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(rosterBinary()), dir: t.TempDir(), log: &logLines{}, done: make(chan struct{})}
	p.Env = append(cleanEnv(), "LISTEN_ADDR=127.0.0.1:0", "METRICS_ADDR=127.0.0.1:0", "DATA_DIR="+p.dir,
		"LOG_LEVEL=debug", "SHUTDOWN_DELAY=0s")
	p.Env = append(p.Env, env...)
	for _, e := range env {
		if dir, ok := strings.CutPrefix(e, "DATA_DIR="); ok {
			p.dir = dir
		}
	}
	p.Stderr = p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("log of the service:\n%s", p.log.tail(50))
		}
	})
	testkit.Eventually(t, "the service listens", func() error {
		if p.ended() {
			return fmt.Errorf("its end: %v", p.err)
		}
		addr, ok := p.log.find("serving")["addr"].(string)
		if !ok {
			return errors.New("no line \"serving\" in its log")
		}
		p.url = "http://" + addr
		if addr, ok := p.log.find("serving metrics")["addr"].(string); ok {
			p.metrics = "http://" + addr + "/metrics"
		}
		return nil
	})
	return p
}

func (p *process) waitReady(t testing.TB) {
	t.Helper()
	testkit.Eventually(t, "the service is ready", func() error {
		resp, err := http.Get(p.url + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop sends SIGTERM, as Kubernetes does, and fails the test if the exit status is
// not 0. It does nothing if the process has exited.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if p.ended() {
		return
	}
	testClient.CloseIdleConnections() // a shutdown waits a second for idle connections
	http.DefaultClient.CloseIdleConnections()
	p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			t.Errorf("the service after SIGTERM: %v, want exit status 0", p.err)
		}
	case <-time.After(time.Minute):
		p.Process.Kill()
		t.Error("the service runs a minute after SIGTERM")
	}
}

// wantExit waits for the exit, and fails the test if its status is not 0.
func (p *process) wantExit(t testing.TB) {
	t.Helper()
	<-p.done
	if p.err != nil {
		t.Errorf("the service: %v, want exit status 0", p.err)
	}
}

// kill sends SIGKILL and waits for the exit.
func (p *process) kill() {
	p.Process.Kill()
	<-p.done
}

// metric returns the value of a series, named as in /metrics, or 0.
func (p *process) metric(t testing.TB, series string) float64 {
	t.Helper()
	resp, err := http.Get(p.metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			var f float64
			fmt.Sscan(value, &f)
			return f
		}
	}
	return 0
}

// memory returns the resident memory of p in bytes.
func (p *process) memory(t testing.TB) float64 {
	return p.metric(t, "process_resident_memory_bytes")
}

// peakMemory returns the peak resident memory of p in bytes.
func (p *process) peakMemory(t testing.TB) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil { // not Linux: the current value
		return p.memory(t)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	var kB float64
	fmt.Sscan(line, &kB)
	return kB * 1024
}

// watchMemory samples the resident memory of p until most is called, which returns the
// maximum.
func (p *process) watchMemory(t testing.TB) (most func() float64) {
	ctx, stop := context.WithCancel(t.Context())
	peak := make(chan float64)
	go func() {
		highest := 0.0
		for ctx.Err() == nil {
			highest = max(highest, p.memory(t))
			time.Sleep(20 * time.Millisecond)
		}
		peak <- highest
	}()
	return func() float64 {
		stop()
		return <-peak
	}
}

const mib = 1 << 20

// raceMemory is the factor by which the race detector increases memory.
func raceMemory() float64 {
	if raceEnabled {
		return 8
	}
	return 1
}

// cleanEnv is the environment without the variables that configure the service.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "LISTEN_ADDR", "PORT", "METRICS_ADDR", "DYNAMODB_TABLE", "S3_BUCKET", "LOCALSTACK_HOST", "DATA_DIR",
			"MAX_AVATAR_BYTES",
			"PUBLIC_URL", "AUTH_TOKENS_FILE", "AVATARS_PUBLIC", "LOG_LEVEL", "LOG_FORMAT", "SHUTDOWN_DELAY",
			"SHUTDOWN_TIMEOUT":
		default:
			if !strings.HasPrefix(name, "AWS_") {
				env = append(env, e)
			}
		}
	}
	return env
}

// logLines collects the JSON log of a process.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logLines) tail(n int) string {
	lines := strings.Split(strings.TrimSpace(l.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// find returns the first line with a message and attributes, given as pairs of key
// and value, or nil.
func (l *logLines) find(msg string, attrs ...any) map[string]any {
	for line := range strings.Lines(l.String()) {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) != nil || m["msg"] != msg {
			continue
		}
		matches := true
		for i := 0; i < len(attrs); i += 2 {
			matches = matches && fmt.Sprint(m[attrs[i].(string)]) == fmt.Sprint(attrs[i+1])
		}
		if matches {
			return m
		}
	}
	return nil
}

// An answer is a response and its body.
type answer struct {
	*http.Response
	body string
}

// String is the status, for messages.
func (a answer) String() string {
	if a.Response == nil {
		return "no response"
	}
	return a.Status
}

// do sends a request and records it for the check against openapi.yaml. target is the
// method and the path: "GET /users".
func (p *process) do(t testing.TB, target string, header http.Header, body []byte) answer {
	t.Helper()
	a, err := p.try(target, header, body)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	return a
}

func (p *process) try(target string, header http.Header, body []byte) (answer, error) {
	method, path, _ := strings.Cut(target, " ")
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequest(method, p.url+path, reader)
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	resp, err := testClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	record(req, body, resp, data)
	if id := resp.Header.Get("X-Request-Id"); resp.StatusCode >= 400 && method != http.MethodHead &&
		!strings.Contains(string(data), `"`+id+`"`) {
		return answer{}, fmt.Errorf("%s: the problem %s does not have the request id %q of the header", resp.Status,
			data, id)
	}
	return answer{resp, string(data)}, nil
}

// testClient does not follow redirects.
var testClient = &http.Client{
	Timeout:       90 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
}

// user decodes a user.
func (a answer) user(t testing.TB) userJSON {
	t.Helper()
	var u userJSON
	if err := json.Unmarshal([]byte(a.body), &u); err != nil {
		t.Fatalf("%s: %v in %q", a.Status, err, a.body)
	}
	return u
}

func (a answer) want(t testing.TB, status int) answer {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("%s %s: %s, want %d\n%s", a.Request.Method, a.Request.URL, a.Status, status, a.body)
	}
	return a
}

// raceEnabled reports whether the tests, and so the service, have the race detector.
var raceEnabled = func() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool {
		return s.Key == "-race" &&
			s.Value == "true"
	})
}()

// A userJSON is a user, as the API returns it.
type userJSON struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Email        string `json:"email"`
	AvatarURL    string `json:"avatar_url"`
	ThumbnailURL string `json:"thumbnail_url"`
	CreatedAt    string `json:"created_at"`
	UpdatedAt    string `json:"updated_at"`
}

// userID returns the id of the user with an email in ASCII: a UUID version 8 of the
// SHA-256 of the email in lower case.
func userID(email string) string {
	id := sha256.Sum256([]byte(strings.ToLower(email)))
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

// A loadClient sends many requests. Unlike process.do, it does not record them for the
// check against openapi.yaml, and returns errors.
type loadClient struct {
	*http.Client
	url string
}

func newLoadClient(t testing.TB, p *process) *loadClient {
	transport := &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &loadClient{&http.Client{Transport: transport, Timeout: 2 * time.Minute}, p.url}
}

// send returns the status and the body of the response.
func (c *loadClient) send(method, path, contentType string, body []byte) (int, []byte, error) {
	return testkit.Send(c.Client, method, c.url+path, contentType, body)
}

// create sends POST /user, with an image if it is not nil.
func (c *loadClient) create(name, email string, image []byte) (int, []byte, error) {
	contentType, body := createForm(name, email, image)
	return c.send("POST", "/user", contentType, body)
}

// createForm returns the body of POST /user, with an image if it is not nil.
func createForm(name, email string, image []byte) (contentType string, body []byte) {
	if image == nil {
		return "application/json", fmt.Appendf(nil, `{"name":%q,"email":%q}`, name, email)
	}
	return testkit.Form(image, url.Values{"name": {name}, "email": {email}})
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// seedUsers writes an embedded store of n users into dir, in the format of existing
// stores: a bbolt file with a bucket of JSON values by id.
func seedUsers(t testing.TB, dir string, n int) {
	t.Helper()
	users := map[string]string{}
	for i := range n {
		email := fmt.Sprintf("user%d@example.com", i)
		users[userID(email)] = fmt.Sprintf(
			`{"Name":"User %d","Email":%q,"CreatedAt":1767323045678,"UpdatedAt":1767323045678}`, i, email)
	}
	db, err := bolt.Open(filepath.Join(dir, "roster.db"), 0o600, nil)
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucket([]byte("users"))
			if err != nil {
				return err
			}
			// Sorted: bbolt splits pages only at commit, so that an insertion elsewhere
			// moves all that follows.
			for _, id := range slices.Sorted(maps.Keys(users)) {
				if err := bucket.Put([]byte(id), []byte(users[id])); err != nil {
					return err
				}
			}
			return nil
		})
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A wire is a connection whose bytes the test writes and reads itself. Nothing is
// retried.
type wire struct {
	net.Conn
	reader *bufio.Reader
}

func dialWire(t testing.TB, url string) *wire {
	t.Helper()
	w, err := openWire(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func openWire(url string) (*wire, error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return &wire{c, bufio.NewReader(c)}, nil
}

// write sends text.
func (w *wire) write(text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// trickle writes a body of size bytes, at a rate of bytes a second.
func (w *wire) trickle(rate, size int) {
	begin := time.Now()
	for sent := 0; sent < size; {
		time.Sleep(100 * time.Millisecond)
		due := int(time.Since(begin).Seconds() * float64(rate))
		piece := min(due, size) - sent
		if w.write(strings.Repeat("x", piece)) != nil {
			return
		}
		sent += piece
	}
}

// read returns the next response.
func (w *wire) read() (answer, error) {
	resp, err := http.ReadResponse(w.reader, nil)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return answer{resp, string(data)}, err
}

// exchange sends a request, with a JSON body if it is not empty, and reads the response.
func (w *wire) exchange(method, path, body string) (answer, error) {
	head := method + " " + path + " HTTP/1.1\r\nHost: roster\r\n"
	if body != "" {
		head += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	if err := w.write(head + "\r\n" + body); err != nil {
		return answer{}, err
	}
	return w.read()
}

var (
	firstPort = rand.IntN(20_000)
	usedPorts atomic.Int64
)

// freePort returns an unused port below those that a system chooses for connections and for port 0:
// no other test gets it while nothing listens on it.
func freePort(t testing.TB) string {
	for range 1000 {
		port := strconv.Itoa(10_000 + (firstPort+int(usedPorts.Add(1)))%20_000)
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port of 127.0.0.1 is free")
	return ""
}

package tests

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"roster/internal/testimage"
)

// rosterBinary is the service, built once as users build it; under -race with the race
// detector too, so that it looks on while the binary is being tested.
var rosterBinary string

var longTests = flag.Bool("long", false, "also run what takes minutes: more crashes, time-outs waited for in full")

func TestMain(m *testing.M) {
	flag.Parse()
	// What the binary is made of, so that go test does not take a result from its
	// cache when that has changed.
	os.ReadDir("..")
	os.ReadDir("../swagger")
	dir, err := os.MkdirTemp("", "roster-test-")
	if err != nil {
		panic(err)
	}
	rosterBinary = filepath.Join(dir, "roster")
	build := exec.Command("go", "build", "-o", rosterBinary, "..")
	if raceEnabled {
		build.Args = append(build.Args, "-race")
	}
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	for _, check := range []func() error{func() error { return checkExchanges(dir) }, checkPolicy} {
		if err := check(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// A process is the built binary, running.
type process struct {
	*exec.Cmd
	url     string // of the API, without a slash at its end
	metrics string // URL of /metrics
	dir     string // DATA_DIR
	log     *logLines
	done    chan struct{} // closed when it has ended
	err     error         // how it ended
}

// start runs the binary on the embedded store in a directory of its own, with
// env in addition, waits until it is ready, and stops it when the test is over.
func start(t testing.TB, env ...string) *process {
	t.Helper()
	p := launch(t, env...)
	p.waitReady(t)
	return p
}

// launch starts the binary and waits until it listens.
func launch(t testing.TB, env ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(rosterBinary), dir: t.TempDir(), log: &logLines{}, done: make(chan struct{})}
	p.Env = append(cleanEnv(), "LISTEN_ADDR=127.0.0.1:0", "METRICS_ADDR=127.0.0.1:0", "DATA_DIR="+p.dir, "LOG_LEVEL=debug")
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
	eventually(t, 20*time.Second, "it listens", func() error {
		if p.ended() {
			return fmt.Errorf("it ended: %v", p.err)
		}
		addr, ok := p.log.find("serving")["addr"].(string)
		if !ok {
			return errors.New("not yet")
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
	eventually(t, 30*time.Second, "it is ready", func() error {
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

// stop ends the service as Kubernetes does, and fails the test if it does not
// end well. It does nothing to one that was ended on purpose.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if p.ended() {
		return
	}
	if err := noteCalls(p.metrics); err != nil {
		t.Logf("metrics: %v", err)
	}
	testClient.CloseIdleConnections() // it would wait a second for their next request
	http.DefaultClient.CloseIdleConnections()
	p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			t.Errorf("after SIGTERM: %v", p.err)
		}
	case <-time.After(40 * time.Second):
		p.Process.Kill()
		t.Error("still running 40 s after SIGTERM")
	}
}

// kill ends the service as a power failure would, as far as a process can tell.
func (p *process) kill() {
	p.Process.Kill()
	<-p.done
}

// metric returns the value of a metric, by its name and labels as in a scrape.
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

// cleanEnv is the environment without what configures the service.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "LISTEN_ADDR", "PORT", "METRICS_ADDR", "DYNAMODB_TABLE", "S3_BUCKET", "LOCALSTACK_HOST", "DATA_DIR", "MAX_AVATAR_BYTES",
			"PUBLIC_URL", "AUTH_TOKENS_FILE", "AVATARS_PUBLIC", "LOG_LEVEL", "LOG_FORMAT", "SHUTDOWN_DELAY", "SHUTDOWN_TIMEOUT":
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

// find returns the first line with this message and, of pairs of key and value,
// these attributes; nil if there is none.
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

// eventually repeats check until it succeeds, and fails the test if it does not
// within the time given.
func eventually(t testing.TB, within time.Duration, what string, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("not within %v: %s: %v", within, what, err)
}

// An answer is a response, read whole.
type answer struct {
	*http.Response
	body string
}

// do sends a request, records it for the check against openapi.yaml, and reads
// the answer. target is method and path: "GET /users".
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
	return answer{resp, string(data)}, nil
}

// testClient does not follow redirects, which are answers too.
var testClient = &http.Client{
	Timeout:       90 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
}

// user reads a user from an answer.
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

// raceEnabled: the tests, and so the service, run with the race detector.
var raceEnabled = func() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
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

// userID returns the id of the user with this email, if it is ASCII: a UUID
// version 8 of the SHA-256 of the email in lower case.
func userID(email string) string {
	id := sha256.Sum256([]byte(strings.ToLower(email)))
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// together runs do n times at once.
func together(n int, do func(i int)) {
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() { do(i) })
	}
	done.Wait()
}

var (
	gradient      = testimage.Gradient
	encodePNG     = testimage.PNG
	encodeJPEG    = testimage.JPEG
	encodeGIF     = testimage.GIF
	multipartBody = testimage.Form
)

package tests

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"roster/internal/testkit"
)

// command is the binary in a valid environment.
func command(t testing.TB, env ...string) *exec.Cmd {
	cmd := exec.Command(rosterBinary())
	cmd.Env = append(cleanEnv(), "LISTEN_ADDR=127.0.0.1:0", "METRICS_ADDR=127.0.0.1:0", "DATA_DIR="+t.TempDir())
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// wantStartError starts the binary with a wrong configuration. It must print one line
// with want to standard error, and exit with status 2 before it listens.
func wantStartError(t *testing.T, want string, env ...string) {
	t.Helper()
	cmd := command(t, env...)
	var stdout, stderr logLines
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		cmd.Process.Kill()
		t.Fatalf("the service runs with %q, want exit status 2", env)
	}
	var lines []string // except for the log
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, "{") {
			lines = append(lines, line)
		}
	}
	if cmd.ProcessState.ExitCode() != 2 || len(lines) != 1 || !strings.HasPrefix(lines[0], "roster: ") ||
		!strings.Contains(lines[0], want) {
		t.Errorf("%q: status %d, want 2 and a line with %q:\n%s", env, cmd.ProcessState.ExitCode(), want,
			stderr.String())
	}
	if strings.Contains(stderr.String(), `"msg":"serving"`) {
		t.Errorf("%q: the service listened:\n%s", env, stderr.String())
	}
	if out := stdout.String(); out != "" {
		t.Errorf("%q: standard output %q, want none", env, out)
	}
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	os.WriteFile(file, []byte("web short\n"), 0o600)
	t.Run("invalid setting", func(t *testing.T) { wantStartError(t, "MAX_AVATAR_BYTES", "MAX_AVATAR_BYTES=5MB") })
	t.Run("no region", func(t *testing.T) {
		wantStartError(t, "AWS_REGION", "DYNAMODB_TABLE=a", "S3_BUCKET=b", "AWS_CONFIG_FILE=/dev/null",
			"AWS_EC2_METADATA_DISABLED=true")
	})
	t.Run("malformed tokens", func(t *testing.T) { wantStartError(t, "line 1", "AUTH_TOKENS_FILE="+file) })
	t.Run("no tokens file", func(t *testing.T) { wantStartError(t, "AUTH_TOKENS_FILE", "AUTH_TOKENS_FILE="+file+"x") })
	t.Run("tokens file is a directory", func(t *testing.T) {
		wantStartError(t, "AUTH_TOKENS_FILE",
			"AUTH_TOKENS_FILE="+dir)
	})
	t.Run("data directory is a file", func(t *testing.T) { wantStartError(t, "DATA_DIR", "DATA_DIR="+file) })
	t.Run("data directory cannot be created", func(t *testing.T) {
		wantStartError(t, "DATA_DIR",
			"DATA_DIR=/proc/roster")
	})
	t.Run("no store in the file", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "roster.db"), []byte(strings.Repeat("not a database\n", 10_000)), 0o600)
		wantStartError(t, "DATA_DIR", "DATA_DIR="+dir)
	})
	t.Run("second process", func(t *testing.T) {
		p := start(t)
		wantStartError(t, "another process is using it", "DATA_DIR="+p.dir)
		p.do(t, "GET /users", nil, nil).want(t, http.StatusOK)
	})
	t.Run("address in use", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		wantStartError(t, "LISTEN_ADDR: ", "LISTEN_ADDR="+l.Addr().String())
		wantStartError(t, "METRICS_ADDR: ", "METRICS_ADDR="+l.Addr().String())
	})
}

// TestReadOnlyDirectory makes DATA_DIR read-only: by its mode or, for root, by a mount.
func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if os.Getuid() == 0 {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RDONLY, "size=1m"); err != nil {
			t.Skipf("a read-only file system cannot be mounted: %v", err)
		}
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	} else {
		os.Chmod(dir, 0o500)
		t.Cleanup(func() { os.Chmod(dir, 0o700) })
	}
	wantStartError(t, "DATA_DIR", "DATA_DIR="+dir)
	wantStartError(t, "DATA_DIR", "DATA_DIR="+filepath.Join(dir, "below"))
}

func TestFlags(t *testing.T) {
	t.Parallel()
	run := func(args ...string) (status int, stdout, stderr string) {
		cmd := command(t)
		cmd.Args = append(cmd.Args, args...)
		var out, err strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &err
		cmd.Run()
		return cmd.ProcessState.ExitCode(), out.String(), err.String()
	}
	if status, stdout, _ := run("-version"); status != 0 ||
		!regexp.MustCompile(`^roster \S+ \(commit \S*, go1\.\S+\)\n$`).MatchString(stdout) {
		t.Errorf("-version: exit status %d, want 0; output %q", status, stdout)
	}
	if status, _, stderr := run("-help"); status != 0 || !strings.Contains(stderr, "-healthcheck") {
		t.Errorf("-help: exit status %d, want 0; standard error %q", status, stderr)
	}
	for _, args := range [][]string{{"-nonsense"}, {"serve"}, {"-version", "extra"}, {"-version=maybe"},
		{"-bootstrap"}} {
		if status, _, stderr := run(args...); status != 2 || stderr == "" {
			t.Errorf("%q: exit status %d, want 2; standard error %q", args, status, stderr)
		}
	}
}

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	check := func(env ...string) (int, string) {
		cmd := command(t, env...)
		cmd.Args = append(cmd.Args, "-healthcheck")
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if status, out := check("LISTEN_ADDR=127.0.0.1:" + port); status != 1 || !strings.Contains(out, "refused") {
		t.Errorf("-healthcheck before the start: exit status %d, want 1; %s", status, out)
	}
	p := start(t, "LISTEN_ADDR=127.0.0.1:"+port)
	for _, addr := range []string{"LISTEN_ADDR=127.0.0.1:" + port, "LISTEN_ADDR=0.0.0.0:" + port, "LISTEN_ADDR=:" +
		port,
		"PORT=" + port} {
		if status, out := check(addr); status != 0 {
			t.Errorf("-healthcheck with %s: exit status %d, want 0; %s", addr, status, out)
		}
	}
	p.stop(t)
	if status, _ := check("PORT=" + port); status != 1 {
		t.Errorf("-healthcheck after the stop: exit status %d, want 1", status)
	}
	// Another listener that does not respond.
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	if status, _ := check("PORT=" + port); status != 1 || time.Since(began) > 20*time.Second {
		t.Errorf("-healthcheck without a response: exit status %d after %v, want 1 within 20 s", status,
			time.Since(began))
	}
}

// TestReadiness: /readyz is 503 until both backends have responded, and stays 200 in a
// later outage.
func TestReadiness(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	dynamo.Always("*", testkit.Fault{Status: http.StatusBadRequest, Code: "AccessDeniedException"})
	p := launch(t, fakeEnv(dynamo, bucket)...)
	notReady := func(why string) {
		t.Helper()
		for range 3 {
			a := p.do(t, "GET /readyz", nil, nil).want(t, http.StatusServiceUnavailable)
			if a.Header.Get("Retry-After") == "" {
				t.Error("/readyz: 503 without Retry-After")
			}
			time.Sleep(500 * time.Millisecond)
		}
		testkit.Eventually(t, why+" is logged", func() error {
			if p.log.find("not ready") == nil || !strings.Contains(p.log.String(), why) {
				return errors.New("no such line")
			}
			return nil
		})
		p.do(t, "GET /livez", nil, nil).want(t, http.StatusOK)
		if v := p.metric(t, "roster_ready"); v != 0 {
			t.Errorf("roster_ready is %v without a backend, want 0", v)
		}
	}
	notReady("AccessDeniedException")
	bucket.Always("*", testkit.Fault{Status: http.StatusNotFound, Code: "NoSuchBucket"})
	dynamo.Clear()
	notReady("NoSuchBucket")
	bucket.Clear()
	p.waitReady(t)
	if v := p.metric(t, "roster_ready"); v != 1 {
		t.Errorf("roster_ready is %v with both backends, want 1", v)
	}

	for _, f := range []*testkit.Faults{dynamo.Faults, bucket.Faults} {
		f.Always("*", testkit.Fault{Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable"})
	}
	p.do(t, "GET /users", nil, nil).want(t, http.StatusServiceUnavailable)
	p.do(t, "GET /readyz", nil, nil).want(t, http.StatusOK)
}

// TestStartsFastAndSmall: ready within 100 ms, idle below 25 MiB, in the best of ten starts. Only with
// -long, and without the race detector, is the machine known to have time for it.
func TestStartsFastAndSmall(t *testing.T) {
	maxReady, maxMemory := 100*time.Millisecond, 25*raceMemory()
	if raceEnabled || !*testkit.Long {
		maxReady = 10 * time.Second
	}
	ready, memory := time.Hour, 1e9
	for range 10 {
		r, m := startOnce(t, t.TempDir())
		ready, memory = min(ready, r), min(memory, m/(1<<20))
		if ready <= maxReady && memory <= maxMemory {
			t.Logf("ready after %v, %.1f MiB idle", ready, memory)
			return
		}
	}
	t.Errorf("ready after %v, want %v; %.1f MiB idle, want %v", ready, maxReady, memory, maxMemory)
}

// startOnce starts the binary on dir, waits until it is ready, and stops it. It returns
// the time to readiness and the resident memory when idle.
func startOnce(t testing.TB, dir string) (ready time.Duration, rss float64) {
	t.Helper()
	port := freePort(t)
	cmd := exec.Command(rosterBinary())
	cmd.Env = append(cleanEnv(), "LISTEN_ADDR=127.0.0.1:"+port, "METRICS_ADDR=127.0.0.1:0", "DATA_DIR="+dir)
	output := &logLines{}
	cmd.Stderr = output
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}()
	for {
		resp, err := http.Get("http://127.0.0.1:" + port + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("not ready: %v\n%s", err, output)
		}
		time.Sleep(time.Millisecond)
	}
	ready = time.Since(begin)
	time.Sleep(100 * time.Millisecond)
	p := &process{metrics: "http://" + output.find("serving metrics")["addr"].(string) + "/metrics"}
	return ready, p.metric(t, "process_resident_memory_bytes")
}

package tests

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"roster/internal/testkit"
)

// BenchmarkGrowth measures the embedded store while it grows, by requests over loopback. It reports
//
//	creates/s, p99-ms  POST /user, 64 clients
//	reads/s            GET /users/{id}, 32 clients
//	pages/s            GET /users?limit=100, 16 clients
//	anon-MiB           memory of the process without the pages of the file, which the kernel can drop
//	B/user             size of the file
//	start-ms, list-s   a restart until /readyz, and the whole list
//
// With -long it grows to 2.4 million users, which takes minutes:
//
//	go test -run '^$' -bench Growth -timeout 1h ./tests -long
func BenchmarkGrowth(b *testing.B) {
	sizes := []int{100_000, 300_000}
	if *testkit.Long {
		sizes = append(sizes, 1_000_000, 2_400_000)
	}
	dir := b.TempDir()
	p := startQuiet(b, dir)
	users := 0
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			began := time.Now()
			created := users
			latencies := growthLoad(b, p, 64, func(n int) (target, body string, more bool) {
				i := created + n
				return "POST /user", fmt.Sprintf(`{"name":"Ada Lovelace","email":%q}`, growthEmail(i)), i < size
			})
			seconds := time.Since(began).Seconds()
			users = size
			slices.Sort(latencies)
			b.ReportMetric(float64(len(latencies))/seconds, "creates/s")
			b.ReportMetric(float64(latencies[len(latencies)*99/100].Microseconds())/1000, "p99-ms")
			growthRate(b, p, "reads/s", 32, func() string {
				return "GET /users/" +
					userID(growthEmail(rand.IntN(users)))
			})
			growthRate(b, p, "pages/s", 16, func() string {
				return "GET /users?limit=100&cursor=" + userID(growthEmail(rand.IntN(users)))
			})
			reportAnonymous(b, p)
			file := testkit.Must(os.Stat(filepath.Join(dir, "roster.db")))
			b.ReportMetric(float64(file.Size())/float64(users), "B/user")
			b.ReportMetric(0, "ns/op")
		})
	}
	b.Run("restart", func(b *testing.B) {
		p.stop(b)
		began := time.Now()
		p = startQuiet(b, dir)
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "start-ms")
		began = time.Now()
		resp, err := http.Get(p.url + "/users")
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Error(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "list-s")
		reportAnonymous(b, p)
		b.ReportMetric(0, "ns/op")
	})
}

// startQuiet runs the service without lines for requests: the test would keep millions of them.
func startQuiet(b *testing.B, dir string) *process {
	b.Helper()
	addr := "127.0.0.1:" + freePort(b)
	p := &process{Cmd: exec.Command(rosterBinary()), url: "http://" + addr, dir: dir, log: &logLines{},
		done: make(chan struct{})}
	p.Env = append(cleanEnv(), "LISTEN_ADDR="+addr, "METRICS_ADDR=", "DATA_DIR="+dir, "LOG_LEVEL=warn",
		"SHUTDOWN_DELAY=0s")
	p.Stderr = p.log
	if err := p.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		p.err = p.Wait()
		close(p.done)
	}()
	b.Cleanup(func() { p.stop(b) })
	p.waitReady(b)
	return p
}

func growthEmail(i int) string { return fmt.Sprintf("user%d@example.com", i) }

// growthLoad sends the requests that next returns, by number from 0, from clients at once, each on a connection,
// and returns their latencies.
func growthLoad(
	b *testing.B, p *process, clients int, next func(n int) (target, body string, more bool),
) []time.Duration {
	b.Helper()
	latencies := make([][]time.Duration, clients)
	var n atomic.Int64
	testkit.Together(clients, func(i int) {
		conn, err := openWire(p.url)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Time{})
		for {
			target, body, more := next(int(n.Add(1)) - 1)
			if !more {
				return
			}
			method, path, _ := strings.Cut(target, " ")
			sent := time.Now()
			answer, err := conn.exchange(method, path, body)
			if err != nil || answer.StatusCode >= 300 {
				b.Errorf("%s: %v, error %v", target, answer.Response, err)
				return
			}
			latencies[i] = append(latencies[i], time.Since(sent))
		}
	})
	return slices.Concat(latencies...)
}

// growthRate reports how many requests per second clients get answered.
func growthRate(b *testing.B, p *process, metric string, clients int, target func() string) {
	b.Helper()
	const seconds = 3
	end := time.Now().Add(seconds * time.Second)
	latencies := growthLoad(b, p, clients, func(int) (string, string, bool) {
		return target(), "", time.Now().Before(end)
	})
	b.ReportMetric(float64(len(latencies))/seconds, metric)
}

// reportAnonymous reports the anonymous memory of p.
func reportAnonymous(b *testing.B, p *process) {
	b.Helper()
	status := testkit.Must(os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid)))
	_, line, _ := strings.Cut(string(status), "RssAnon:")
	var kB float64
	fmt.Sscan(line, &kB)
	b.ReportMetric(kB/1024, "anon-MiB")
}

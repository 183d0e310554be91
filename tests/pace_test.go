package tests

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSlowBody: a body that trickles is cut long before the request's deadline,
// and gives back what was reserved for it; one that is only slow is not.
func TestSlowBody(t *testing.T) {
	p := start(t)
	send := func(pause time.Duration, pieces int, piece string) (*http.Response, time.Duration) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		begin := time.Now()
		go func() {
			fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n--b\r\n", 5+pieces*len(piece))
			for range pieces {
				time.Sleep(pause)
				if _, err := io.WriteString(conn, piece); err != nil {
					return
				}
			}
		}()
		conn.SetReadDeadline(begin.Add(30 * time.Second))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
		return resp, time.Since(begin)
	}
	t.Run("trickling", func(t *testing.T) {
		resp, took := send(100*time.Millisecond, 10_000, "x")
		if resp.StatusCode != http.StatusRequestTimeout || took > 15*time.Second {
			t.Errorf("%s after %v, want 408 after 5 s", resp.Status, took)
		}
	})
	t.Run("slow", func(t *testing.T) {
		// Twice as fast as it must be, for longer than the grace.
		resp, took := send(500*time.Millisecond, 14, strings.Repeat("x", 64<<10))
		if resp.StatusCode != http.StatusBadRequest { // it is no form
			t.Errorf("%s after %v, want 400", resp.Status, took)
		}
	})
}

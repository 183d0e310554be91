package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"roster/internal/testkit"
)

// A brokenUsers store fails after the first users.
type brokenUsers struct {
	Users
	first int
}

func (s brokenUsers) Page(_ context.Context, after string, _ int) (page []User, next string, err error) {
	if after != "" || s.first == 0 {
		return nil, "", ErrUnavailable
	}
	for i := range s.first {
		u := testUser(strconv.Itoa(i) + "@example.com")
		u.Name = strings.Repeat("x", 100)
		page = append(page, u)
	}
	return page, "more", nil
}

// TestPartialList: a list that fails after its first bytes breaks the connection. Before them, it gets 503.
func TestPartialList(t *testing.T) {
	url := serveStores(t, brokenUsers{first: 1000}, nil)
	status, body, err := testkit.Send(http.DefaultClient, "GET", url+"/users", "", nil)
	if status != http.StatusOK || len(body) == 0 || err == nil {
		t.Errorf("half a list: status %d, %d bytes, error %v; want 200, some bytes, and an error", status, len(body), err)
	}
	url = serveStores(t, brokenUsers{}, nil)
	status, body, err = testkit.Send(http.DefaultClient, "GET", url+"/users", "", nil)
	if status != http.StatusServiceUnavailable || err != nil {
		t.Errorf("no list: status %d %s, error %v; want 503", status, body, err)
	}
}

// A pipeListener accepts one connection.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	conn, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (pipeListener) Close() error   { return nil }
func (pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A slowImages store takes longer than a slow body may take.
type slowImages struct{ Avatars }

func (slowImages) Put(context.Context, string, string, string, []byte) error {
	time.Sleep(2 * bodyGrace)
	return nil
}

// TestSlowStore: the time limit of a body does not apply to the response, after which the connection is reused.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		s := newTestServer(config{}, anyUser{}, slowImages{}, nil)
		listener := make(pipeListener, 1)
		client, conn := net.Pipe()
		listener <- conn
		httpServer := newHTTPServer(s, log)
		go httpServer.Serve(listener)
		image := testkit.PNG(testkit.Gradient(20, 20, 1))
		responses := bufio.NewReader(client)
		for _, text := range []string{
			fmt.Sprintf("PUT /users/%s/avatar HTTP/1.1\r\nHost: roster\r\nContent-Length: %d\r\n\r\n%s",
				userID("ada@example.com"), len(image), image),
			"GET /version HTTP/1.1\r\nHost: roster\r\n\r\n",
		} {
			io.WriteString(client, text)
			resp, err := http.ReadResponse(responses, nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%.20q: response %v, error %v; want status 200", text, resp, err)
				break
			}
			io.Copy(io.Discard, resp.Body)
		}
		client.Close()
		close(listener)
		httpServer.Close()
	})
}

package main

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"roster/internal/testkit"
)

const (
	tokenA = "token-of-the-web-application"
	tokenB = "token-of-the-mobile-application"
)

func TestParseTokens(t *testing.T) {
	const value = "0123456789abcdef"
	for _, test := range []struct {
		name, text string
		want       string // names, or a part of the error
	}{
		{"one", "web:" + value, "web"},
		{"several", "web:" + value + "\nmobile:" + value + "x\n", "mobile web"},
		{"comments and blank lines", "# tokens\n\n  \nweb:" + value + "\n#mobile:" + value + "\n", "web"},
		{"white space and CRLF", "\t web:" + value + " \r\n", "web"},
		{"byte order mark", "\ufeffweb:" + value + "\r\n", "web"},
		{"whole alphabets", "A-z_0.9:ABC.xyz_~+/-0123456789==", "A-z_0.9"},
		{"longest", strings.Repeat("n", 64) + ":" + strings.Repeat("t", 512), strings.Repeat("n", 64)},
		{"empty", "", "no token"},
		{"comments only", "# nothing\n", "no token"},
		{"no colon", "web " + value, "line 1 must be name:token"},
		{"no name", ":" + value, "line 1 must be name:token"},
		{"name too long", strings.Repeat("n", 65) + ":" + value, "line 1 must be name:token"},
		{"name with a space", "my web:" + value, "line 1 must be name:token"},
		{"no token", "web:", "line 1 must be name:token"},
		{"token too short", "web:0123456789abcde", "line 1 must be name:token"},
		{"token too long", "web:" + strings.Repeat("t", 513), "line 1 must be name:token"},
		{"read-only", "web:" + value + ":read", "web"},
		{"token with a colon", "web:" + value + ":" + value, "line 1 must be name:token"},
		{"unknown right", "web:" + value + ":write", "line 1 must be name:token"},
		{"token with a quote", `web:"` + value + `"`, "line 1 must be name:token"},
		{"name twice", "web:" + value + "\n\nweb:" + value + "x", "line 3 repeats a name or a token"},
		{"token twice", "web:" + value + "\nmobile:" + value, "line 2 repeats a name or a token"},
		{"line far too long", "web:" + strings.Repeat("t", 1<<17), "line 1 must be name:token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			list, err := parseTokens(test.text)
			var names []string
			for _, token := range list {
				names = append(names, token.name)
			}
			slices.Sort(names)
			got := strings.Join(names, " ")
			if err != nil {
				got = err.Error()
				if strings.Contains(got, value[:15]) {
					t.Errorf("the error contains the token: %s", got)
				}
			}
			if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
				t.Errorf("tokens file %.80q: %q, want %q", test.text, got, test.want)
			}
		})
	}
}

func TestAuthenticate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	os.WriteFile(file, []byte("web:"+tokenA+"\n"), 0o600)
	tokens, err := loadTokens(file, slog.New(slog.DiscardHandler), newMetrics(build{}))
	if err != nil {
		t.Fatal(err)
	}
	// RFC 6750, section 3.1: without a bearer token, the challenge has no error.
	const required, invalid = `Bearer realm="roster"`, `Bearer realm="roster", error="invalid_token"`
	for _, test := range []struct {
		fields []string
		want   string // the challenge; empty: accepted
	}{
		{[]string{"Bearer " + tokenA}, ""},
		{[]string{"bearer " + tokenA}, ""}, // the scheme is case-insensitive: RFC 9110, section 11.1
		{[]string{"Bearer  " + tokenA}, ""},
		{nil, required},
		{[]string{"Bearer " + tokenB}, invalid},
		{[]string{"Bearer " + tokenA + "x"}, invalid},
		{[]string{"Bearer " + strings.ToUpper(tokenA)}, invalid},
		{[]string{"Bearer "}, invalid},
		{[]string{"Bearer"}, invalid},
		{[]string{"Basic d2ViOg=="}, required},
		{[]string{tokenA}, required},
		{[]string{""}, required},
		{[]string{"Bearer " + tokenA, "Bearer " + tokenA}, invalid},
	} {
		got, err := tokens.authenticate(&http.Request{Header: http.Header{"Authorization": test.fields}})
		name := got.name
		if test.want == "" {
			if name != "web" || err != nil {
				t.Errorf("Authorization %q: token %q, error %v; want web", test.fields, name, err)
			}
			continue
		}
		p, ok := errors.AsType[*problem](err)
		if !ok || p.Status != http.StatusUnauthorized || p.header.Get("WWW-Authenticate") != test.want {
			t.Errorf("Authorization %q: error %v, want 401 with %q", test.fields, err, test.want)
		}
	}
}

// TestTokenReload: a token is accepted or rejected one second after the file changed, even if the
// size and the time of the file are the same.
func TestTokenReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "tokens")
		os.WriteFile(file, []byte("web:"+tokenA+"\nmobile:"+tokenB+"\n"), 0o600)
		tokens := testkit.Must(loadTokens(file, slog.New(slog.DiscardHandler), newMetrics(build{})))
		want := func(when, token string, accepted bool) {
			t.Helper()
			r := &http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}
			if _, err := tokens.authenticate(r); (err == nil) != accepted {
				t.Errorf("%s: token %s: error %v, want accepted: %t", when, token, err, accepted)
			}
		}
		want("at first", tokenA, true)
		want("at first", tokenB, true)

		os.WriteFile(file, []byte("mobile:"+tokenB+"\n"), 0o600)
		time.Sleep(time.Second)
		want("removed", tokenA, false)
		want("still in the file", tokenB, true)

		info := testkit.Must(os.Stat(file))
		changed := strings.Replace(tokenB, "mobile", "tablet", 1)
		os.WriteFile(file, []byte("mobile:"+changed+"\n"), 0o600)
		os.Chtimes(file, info.ModTime(), info.ModTime())
		time.Sleep(time.Second)
		want("replaced in place", tokenB, false)
		want("written in place", changed, true)
	})
}

// TestTokensUnreadable: while the file is malformed or missing, the previous tokens stay valid. Each error is logged
// once.
func TestTokensUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "tokens")
		wantError(t, os.WriteFile(file, []byte("web:"+tokenA+"\n"), 0o600), nil)
		var log strings.Builder
		tokens := testkit.Must(loadTokens(file, slog.New(slog.NewTextHandler(&log, nil)), newMetrics(build{})))
		request := &http.Request{Header: http.Header{"Authorization": {"Bearer " + tokenA}}}
		for _, breakFile := range []func() error{
			func() error { return os.WriteFile(file, []byte("web"), 0o600) },
			func() error { return os.Remove(file) },
		} {
			wantError(t, breakFile(), nil)
			for range 3 {
				time.Sleep(2 * time.Second)
				if _, err := tokens.authenticate(request); err != nil {
					t.Errorf("the previous token: %v", err)
				}
			}
		}
		if n := strings.Count(log.String(), "tokens not reloaded"); n != 2 {
			t.Errorf("%d lines about two errors:\n%s", n, &log)
		}
	})
}

// TestTokensNotAFile: a pipe or a directory is rejected at the start. The error names it once.
func TestTokensNotAFile(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, t.TempDir()} {
		if _, err := loadTokens(path, nil, nil); err == nil || strings.Count(err.Error(), path) != 1 {
			t.Errorf("tokens file %s: error %v, want one that names it once", path, err)
		}
	}
}

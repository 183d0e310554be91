package main

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseTokens(t *testing.T) {
	const value = "0123456789abcdef"
	for _, test := range []struct {
		name, text string
		want       string // names, or what the error says
	}{
		{"one", "web:" + value, "web"},
		{"several", "web:" + value + "\nmobile:" + value + "x\n", "web mobile"},
		{"comments and blank lines", "# tokens\n\n  \nweb:" + value + "\n#mobile:" + value + "\n", "web"},
		{"white space and CRLF", "\t web:" + value + " \r\n", "web"},
		{"whole alphabets", "A-z_0.9:ABC.xyz_~+/-0123456789==", "A-z_0.9"},
		{"longest", strings.Repeat("n", 64) + ":" + strings.Repeat("t", 512), strings.Repeat("n", 64)},
		{"empty", "", "no token in it"},
		{"comments only", "# nothing\n", "no token in it"},
		{"no colon", "web " + value, "line 1: must be name:token"},
		{"no name", ":" + value, "line 1: must be name:token"},
		{"name too long", strings.Repeat("n", 65) + ":" + value, "line 1: must be name:token"},
		{"name with a space", "my web:" + value, "line 1: must be name:token"},
		{"no token", "web:", "line 1: the token must be"},
		{"token too short", "web:0123456789abcde", "line 1: the token must be"},
		{"token too long", "web:" + strings.Repeat("t", 513), "line 1: the token must be"},
		{"token with a colon", "web:" + value + ":" + value, "line 1: the token must be"},
		{"token with a quote", `web:"` + value + `"`, "line 1: the token must be"},
		{"name twice", "web:" + value + "\n\nweb:" + value + "x", "line 3: the name is used twice"},
		{"token twice", "web:" + value + "\nmobile:" + value, "line 2: the token is used twice"},
		{"line far too long", "web:" + strings.Repeat("t", 1<<17), "too long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			list, err := parseTokens(bufio.NewScanner(strings.NewReader(test.text)))
			var names []string
			for _, token := range list {
				names = append(names, token.name)
			}
			got := strings.Join(names, " ")
			if err != nil {
				got = err.Error()
				if strings.Contains(got, value[:15]) {
					t.Errorf("the error tells the token: %s", got)
				}
			}
			if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A mountedSecret is a file in a directory that changes as kubelet changes a
// mounted Secret: the file is a link into ..data, which is a link to a directory
// with a name of its own, and an update renames a new ..data over the old.
type mountedSecret struct {
	dir     string
	version int
}

func mountSecret(t *testing.T, content string) *mountedSecret {
	m := &mountedSecret{dir: t.TempDir()}
	m.update(t, content)
	if err := os.Symlink(filepath.Join("..data", "tokens"), m.path()); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *mountedSecret) path() string { return filepath.Join(m.dir, "tokens") }

func (m *mountedSecret) update(t *testing.T, content string) {
	t.Helper()
	old, _ := os.Readlink(filepath.Join(m.dir, "..data"))
	m.version++
	name := fmt.Sprintf("..2026_01_01_00_00_00.%d", m.version)
	err := errors.Join(
		os.Mkdir(filepath.Join(m.dir, name), 0o755),
		os.WriteFile(filepath.Join(m.dir, name, "tokens"), []byte(content), 0o644),
		os.Symlink(name, filepath.Join(m.dir, "..data_tmp")),
		os.Rename(filepath.Join(m.dir, "..data_tmp"), filepath.Join(m.dir, "..data")),
	)
	if err == nil && old != "" {
		err = os.RemoveAll(filepath.Join(m.dir, old))
	}
	if err != nil {
		t.Fatal(err)
	}
}

const (
	tokenA = "token-of-the-web-application"
	tokenB = "token-of-the-mobile-application"
	tokenC = "token-of-the-batch-job"
)

func bearer(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

// wantAccess waits until each token is accepted or refused as it should be. Two
// seconds are the promise; more is for a busy machine.
func wantAccess(t *testing.T, p *process, want map[string]bool) {
	t.Helper()
	eventually(t, 10*time.Second, "the tokens take effect", func() error {
		for token, ok := range want {
			a := p.do(t, "GET /users", bearer(token), nil)
			if (a.StatusCode == http.StatusOK) != ok {
				return fmt.Errorf("%s: %s", token, a.Status)
			}
		}
		return nil
	})
}

// TestTokenRotation: tokens come and go with the mounted Secret, without a
// restart; what is wrong with an update is said once, and changes nothing.
func TestTokenRotation(t *testing.T) {
	secret := mountSecret(t, "web:"+tokenA+"\n")
	p := start(t, "AUTH_TOKENS_FILE="+secret.path())
	wantAccess(t, p, map[string]bool{tokenA: true, tokenB: false})

	began := time.Now()
	secret.update(t, "web:"+tokenA+"\nmobile:"+tokenB+"\n")
	wantAccess(t, p, map[string]bool{tokenA: true, tokenB: true})
	secret.update(t, "mobile:"+tokenB+"\n") // revoked
	wantAccess(t, p, map[string]bool{tokenA: false, tokenB: true})
	if d := time.Since(began); d > 4*time.Second {
		t.Logf("two updates took %v: the machine is busy", d)
	}

	failures := func() float64 { return p.metric(t, "roster_auth_reload_failures_total") }
	bad := []string{"mobile " + tokenC + "\n", "", "mobile:short\n"}
	for i, content := range bad {
		secret.update(t, content)
		eventually(t, 10*time.Second, "the malformed update is noticed", func() error {
			p.do(t, "GET /users", bearer(tokenB), nil).want(t, http.StatusOK)
			if n := failures(); n < float64(i+1) {
				return fmt.Errorf("%v failures", n)
			}
			return nil
		})
	}
	time.Sleep(2 * tokenCheckInterval)
	wantAccess(t, p, map[string]bool{tokenA: false, tokenB: true, tokenC: false})

	if err := os.Remove(secret.path()); err != nil { // the file is gone: the tokens stay
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the loss is noticed", func() error {
		p.do(t, "GET /users", bearer(tokenB), nil).want(t, http.StatusOK)
		if n := failures(); n < float64(len(bad)+1) {
			return fmt.Errorf("%v failures", n)
		}
		return nil
	})
	time.Sleep(2 * tokenCheckInterval)
	wantAccess(t, p, map[string]bool{tokenB: true})
	if n := failures(); n != float64(len(bad)+1) {
		t.Errorf("%v failures are counted, want one for each of %d", n, len(bad)+1)
	}
	if n := strings.Count(p.log.String(), "tokens not reloaded"); n != len(bad)+1 {
		t.Errorf("%d lines about it, want %d", n, len(bad)+1)
	}

	if err := os.WriteFile(secret.path(), []byte("batch:"+tokenC+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantAccess(t, p, map[string]bool{tokenB: false, tokenC: true})

	// In place too, as an editor does it: the same file, another content.
	if err := os.WriteFile(secret.path(), []byte("web:"+tokenA+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantAccess(t, p, map[string]bool{tokenA: true, tokenC: false})

	for name, token := range map[string]string{"web": tokenA, "mobile": tokenB, "batch": tokenC} {
		if p.log.find("request", "client", name) == nil {
			t.Errorf("no request is logged as that of %s", name)
		}
		if strings.Contains(p.log.String(), token) {
			t.Errorf("the log tells the token of %s", name)
		}
	}
}

// TestRevocation: a token that is withdrawn works for two seconds at most.
func TestRevocation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	os.WriteFile(file, []byte("web:"+tokenA+"\nmobile:"+tokenB+"\n"), 0o600)
	tokens, err := loadTokens(file, slog.New(slog.DiscardHandler), newMetrics(build{}))
	if err != nil {
		t.Fatal(err)
	}
	accepted := func(token string) bool {
		name, err := tokens.authenticate(&http.Request{Header: bearer(token)})
		return err == nil && name != ""
	}
	if !accepted(tokenA) || !accepted(tokenB) {
		t.Fatal("a token of the file is refused")
	}
	os.WriteFile(file, []byte("mobile:"+tokenB+"\n"), 0o600)
	time.Sleep(2 * time.Second)
	if accepted(tokenA) || !accepted(tokenB) {
		t.Error("the token works still")
	}
}

func TestAuthenticate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	os.WriteFile(file, []byte("web:"+tokenA+"\n"), 0o600)
	tokens, err := loadTokens(file, slog.New(slog.DiscardHandler), newMetrics(build{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		fields []string
		want   string // in the challenge; empty: accepted
	}{
		{[]string{"Bearer " + tokenA}, ""},
		{[]string{"bearer " + tokenA}, ""}, // schemes are compared without case: RFC 9110, section 11.1
		{[]string{"Bearer  " + tokenA}, ""},
		{nil, `Bearer realm="roster"`},
		{[]string{"Bearer " + tokenB}, `error="invalid_token"`},
		{[]string{"Bearer " + tokenA + "x"}, `error="invalid_token"`},
		{[]string{"Bearer " + strings.ToUpper(tokenA)}, `error="invalid_token"`},
		{[]string{"Bearer "}, `error="invalid_token"`},
		{[]string{"Bearer"}, `error="invalid_token"`},
		{[]string{"Basic d2ViOg=="}, `error="invalid_request"`},
		{[]string{tokenA}, `error="invalid_request"`},
		{[]string{""}, `error="invalid_request"`},
		{[]string{"Bearer " + tokenA, "Bearer " + tokenA}, `error="invalid_request"`},
	} {
		name, err := tokens.authenticate(&http.Request{Header: http.Header{"Authorization": test.fields}})
		if test.want == "" {
			if name != "web" || err != nil {
				t.Errorf("%q: %q, %v", test.fields, name, err)
			}
			continue
		}
		p, ok := errors.AsType[*problem](err)
		if !ok || p.Status != http.StatusUnauthorized || !strings.Contains(p.header.Get("WWW-Authenticate"), test.want) {
			t.Errorf("%q: %v", test.fields, err)
		}
	}
}

package tests

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"roster/internal/testkit"
)

// A mountedSecret is a directory that changes like a Secret mounted by the kubelet: the
// file is a link into ..data, which is a link to a directory, and an update replaces
// ..data by rename.
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
	m.version++
	name := fmt.Sprintf("..2026_01_01_00_00_00.%d", m.version)
	err := errors.Join(
		os.Mkdir(filepath.Join(m.dir, name), 0o755),
		os.WriteFile(filepath.Join(m.dir, name, "tokens"), []byte(content), 0o644),
		os.Symlink(name, filepath.Join(m.dir, "..data_tmp")),
		os.Rename(filepath.Join(m.dir, "..data_tmp"), filepath.Join(m.dir, "..data")),
	)
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

// wantAccess waits until each token is accepted or rejected as wanted. The promise is 1 s; the rest is
// for a busy machine.
func wantAccess(t *testing.T, p *process, want map[string]bool) {
	t.Helper()
	testkit.Eventually(t, "the tokens take effect", func() error {
		for token, ok := range want {
			a := p.do(t, "GET /users", bearer(token), nil)
			if (a.StatusCode == http.StatusOK) != ok {
				return fmt.Errorf("%s with %s, want accepted: %t", a, token, ok)
			}
		}
		return nil
	})
}

// TestTokenRotation: tokens follow the mounted Secret without a restart. An invalid
// update is logged once and changes nothing.
func TestTokenRotation(t *testing.T) {
	t.Parallel()
	secret := mountSecret(t, "web:"+tokenA+"\n")
	p := start(t, "AUTH_TOKENS_FILE="+secret.path())
	wantAccess(t, p, map[string]bool{tokenA: true, tokenB: false})

	secret.update(t, "web:"+tokenA+"\nmobile:"+tokenB+"\n")
	wantAccess(t, p, map[string]bool{tokenA: true, tokenB: true})
	secret.update(t, "mobile:"+tokenB+"\n") // revoked
	wantAccess(t, p, map[string]bool{tokenA: false, tokenB: true})

	failures := 0
	wantFailure := func(what string) {
		t.Helper()
		failures++
		testkit.Eventually(t, what+" is counted", func() error {
			p.do(t, "GET /users", bearer(tokenB), nil).want(t, http.StatusOK)
			if n := p.metric(t, "roster_auth_reload_failures_total"); n != float64(failures) {
				return fmt.Errorf("roster_auth_reload_failures_total is %v, want %d", n, failures)
			}
			return nil
		})
		wantAccess(t, p, map[string]bool{tokenA: false, tokenB: true, tokenC: false})
	}
	for _, malformed := range []string{"mobile " + tokenC + "\n", "", "mobile:short\n"} {
		secret.update(t, malformed)
		wantFailure(fmt.Sprintf("the update %q", malformed))
	}
	if err := os.Remove(secret.path()); err != nil {
		t.Fatal(err)
	}
	wantFailure("the removal of the file")
	time.Sleep(2 * time.Second) // the file is read again
	p.do(t, "GET /users", bearer(tokenB), nil).want(t, http.StatusOK)
	if n := strings.Count(p.log.String(), "tokens not reloaded"); n != failures {
		t.Errorf("%d lines \"tokens not reloaded\", want one for each of %d failures", n, failures)
	}

	if err := os.WriteFile(secret.path(), []byte("batch:"+tokenC+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantAccess(t, p, map[string]bool{tokenB: false, tokenC: true})

	for name, token := range map[string]string{"web": tokenA, "mobile": tokenB, "batch": tokenC} {
		testkit.Eventually(t, "a request of "+name+" is logged", func() error {
			if p.log.find("request", "client", name) == nil { // the line is written after the response
				return errors.New("no such line")
			}
			return nil
		})
		if strings.Contains(p.log.String(), token) {
			t.Errorf("the log has the token of %s", name)
		}
	}
}

// TestTokenLastUse: the metric has the tokens in use, without those that are removed.
func TestTokenLastUse(t *testing.T) {
	t.Parallel()
	secret := mountSecret(t, "web:"+tokenA+"\nmobile:"+tokenB+":read\n")
	p := start(t, "AUTH_TOKENS_FILE="+secret.path())
	p.do(t, "GET /users", bearer(tokenA), nil).want(t, http.StatusOK)
	last := p.metric(t, `roster_auth_token_last_use_seconds{token="web"}`)
	if time.Since(time.Unix(int64(last), 0)) > time.Minute {
		t.Errorf("last use of web: %.0f, want now", last)
	}
	if last := p.metric(t, `roster_auth_token_last_use_seconds{token="mobile"}`); last != 0 {
		t.Errorf("last use of mobile: %.0f, want none", last)
	}
	secret.update(t, "mobile:"+tokenB+"\n")
	time.Sleep(1100 * time.Millisecond)
	p.do(t, "POST /user", http.Header{"Authorization": {"Bearer " + tokenB}, "Content-Type": {"application/json"}},
		[]byte(`{"name":"A","email":"a@example.com"}`)).want(t, http.StatusCreated)
	if last := p.metric(t, `roster_auth_token_last_use_seconds{token="web"}`); last != 0 {
		t.Errorf("last use of web, which is removed: %.0f, want none", last)
	}
}

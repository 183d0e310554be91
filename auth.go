package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// tokenCheckInterval is how soon a changed token file takes effect, at most.
const tokenCheckInterval = time.Second

// tokens are the bearer tokens (RFC 6750) of a file that may change while the
// service runs. Kubernetes changes a mounted Secret by swapping a symbolic link,
// so it is the file behind the path that is watched, not the path.
type tokens struct {
	path    string
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	checked time.Time
	seen    os.FileInfo // of the file last read, well-formed or not
	list    []token
}

// A token is kept as a hash: comparing hashes takes the same time whatever the
// token is, and a memory dump does not give the tokens away.
type token struct {
	name string
	hash [sha256.Size]byte
}

// loadTokens reads the file at path. It is an error if there is no valid token.
func loadTokens(path string, log *slog.Logger, m *metrics) (*tokens, error) {
	t := &tokens{path: path, log: log, metrics: m, checked: time.Now()}
	list, info, err := readTokens(path)
	if err != nil {
		return nil, fmt.Errorf("AUTH_TOKENS_FILE: %w", err)
	}
	t.list, t.seen = list, info
	return t, nil
}

func readTokens(path string) ([]token, os.FileInfo, error) {
	f, err := os.Open(path) // #nosec G304 -- the operator names the file
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	list, err := parseTokens(bufio.NewScanner(f))
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return list, info, err
}

var (
	tokenName  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	tokenValue = regexp.MustCompile(`^[A-Za-z0-9._~+/-]{16,512}=*$`) // b64token of RFC 6750, section 2.1
)

// parseTokens reads lines name:token; blank lines and lines that begin with #
// are skipped. Its errors name the line, never what is on it.
func parseTokens(lines *bufio.Scanner) ([]token, error) {
	var list []token
	names := map[string]bool{}
	hashes := map[[sha256.Size]byte]bool{}
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		hash := sha256.Sum256([]byte(value))
		switch {
		case !tokenName.MatchString(name):
			return nil, fmt.Errorf("line %d: must be name:token, the name 1 to 64 of A-Z a-z 0-9 . _ -", n)
		case !tokenValue.MatchString(value):
			return nil, fmt.Errorf("line %d: the token must be 16 to 512 of A-Z a-z 0-9 . _ ~ + / -", n)
		case names[name]:
			return nil, fmt.Errorf("line %d: the name is used twice", n)
		case hashes[hash]:
			return nil, fmt.Errorf("line %d: the token is used twice", n)
		}
		names[name], hashes[hash] = true, true
		list = append(list, token{name, hash})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no token in it; it needs a line name:token")
	}
	return list, nil
}

// current returns the tokens that are valid now. A file that became unreadable
// or malformed leaves those before it in force, and says so once.
func (t *tokens) current() []token {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.checked) < tokenCheckInterval {
		return t.list
	}
	t.checked = time.Now()
	if info, err := os.Stat(t.path); err == nil && t.seen != nil && sameFile(info, t.seen) {
		return t.list
	}
	list, info, err := readTokens(t.path)
	if err != nil {
		if info != nil || t.seen != nil {
			t.log.Error("tokens not reloaded; those before stay in force", "error", err)
			t.metrics.reloadFailures.Inc()
		}
		t.seen = info
		return t.list
	}
	t.list, t.seen = list, info
	t.log.Info("tokens reloaded", "tokens", len(list))
	return t.list
}

func sameFile(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// authenticate returns the name of the token that the request bears.
func (t *tokens) authenticate(r *http.Request) (name string, err error) {
	fields := r.Header.Values("Authorization")
	if len(fields) == 0 {
		return "", unauthorized(`Bearer realm="roster"`, "this needs a bearer token")
	}
	scheme, value, _ := strings.Cut(fields[0], " ")
	if len(fields) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return "", unauthorized(`Bearer realm="roster", error="invalid_request"`, "Authorization must be sent once, as: Bearer TOKEN")
	}
	hash := sha256.Sum256(bytes.TrimSpace([]byte(value)))
	for _, known := range t.current() { // all of them, so that time tells nothing
		if subtle.ConstantTimeCompare(hash[:], known.hash[:]) == 1 {
			name = known.name
		}
	}
	if name == "" {
		return "", unauthorized(`Bearer realm="roster", error="invalid_token"`, "the bearer token is not valid")
	}
	return name, nil
}

// unauthorized asks for a token by a challenge of RFC 6750, section 3.
func unauthorized(challenge, detail string) *problem {
	p := newProblem(http.StatusUnauthorized, "unauthorized", "The request is not authorized", "%s", detail)
	p.header.Set("WWW-Authenticate", challenge)
	return p
}

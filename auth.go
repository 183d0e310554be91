package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	tokenCheckInterval = time.Second // until a changed token file takes effect, at most
	maxTokensFile      = 1 << 20     // bytes
)

// tokens are the bearer tokens (RFC 6750) of a file, which may change while the
// service runs.
type tokens struct {
	path    string
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	checked time.Time
	content []byte // of the file when it was last read, valid or not
	list    []token
}

// A token is kept as its hash: to compare hashes takes the same time for every
// token, and a memory dump contains no token.
type token struct {
	name     string
	hash     [sha256.Size]byte
	readOnly bool
}

// loadTokens reads the file at path. A file without a valid token is an error.
func loadTokens(path string, log *slog.Logger, m *metrics) (*tokens, error) {
	t := &tokens{path: path, log: log, metrics: m, checked: time.Now()}
	var err error
	if t.content, err = readTokensFile(path); err == nil {
		t.list, err = parseTokens(bufio.NewScanner(bytes.NewReader(t.content)))
	}
	if err != nil {
		return nil, fmt.Errorf("AUTH_TOKENS_FILE: %s: %w", path, err)
	}
	return t, nil
}

func readTokensFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > maxTokensFile {
		return nil, fmt.Errorf("%d bytes, more than %d", info.Size(), maxTokensFile)
	}
	content, err := os.ReadFile(path) // #nosec G304 -- the operator names the file
	return content, cause(err)
}

// cause returns the error without the path, which the caller names.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

var (
	tokenName  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	tokenValue = regexp.MustCompile(`^[A-Za-z0-9._~+/-]{16,512}=*$`) // b64token of RFC 6750, section 2.1
)

// parseTokens reads lines name:token or name:token:read. It skips blank lines and
// lines that begin with #. Its errors name the line, never its content.
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
		value, right, limited := strings.Cut(value, ":")
		hash := sha256.Sum256([]byte(value))
		switch {
		case !tokenName.MatchString(name):
			return nil, fmt.Errorf("line %d: must be name:token or name:token:read, the name 1 to 64 of A-Z a-z 0-9 . _ -", n)
		case !tokenValue.MatchString(value):
			return nil, fmt.Errorf("line %d: the token must be 16 to 512 of A-Z a-z 0-9 . _ ~ + / -", n)
		case limited && right != "read":
			return nil, fmt.Errorf("line %d: only :read can follow the token", n)
		case names[name]:
			return nil, fmt.Errorf("line %d: the name is used twice", n)
		case hashes[hash]:
			return nil, fmt.Errorf("line %d: the token is used twice", n)
		}
		names[name], hashes[hash] = true, true
		list = append(list, token{name, hash, limited})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("no token; a line is name:token or name:token:read")
	}
	return list, nil
}

// current returns the valid tokens. If the file becomes unreadable or malformed, the
// previous tokens stay valid and an error is logged once.
func (t *tokens) current() []token {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.checked) < tokenCheckInterval {
		return t.list
	}
	t.checked = time.Now()
	// The content, not the time of its change: a Secret changes by a symbolic link,
	// and an editor may keep size and time.
	content, err := readTokensFile(t.path)
	if t.content != nil && err == nil && bytes.Equal(content, t.content) || t.content == nil && err != nil {
		return t.list
	}
	t.content = content
	var list []token
	if err == nil {
		list, err = parseTokens(bufio.NewScanner(bytes.NewReader(content)))
	}
	if err != nil {
		t.log.Error("tokens not reloaded; the previous ones stay valid", "error", err)
		t.metrics.reloadFailures.Inc()
		return t.list
	}
	for _, old := range t.list {
		if !slices.ContainsFunc(list, func(new token) bool { return new.name == old.name }) {
			t.metrics.tokenLastUse.DeleteLabelValues(old.name)
		}
	}
	t.list = list
	t.log.Info("tokens reloaded", "tokens", len(list))
	return t.list
}

// authenticate returns the token of a request.
func (t *tokens) authenticate(r *http.Request) (token, error) {
	fields := r.Header.Values("Authorization")
	if len(fields) == 0 {
		return token{}, unauthorized(`Bearer realm="roster"`, "a bearer token is required")
	}
	scheme, value, _ := strings.Cut(fields[0], " ")
	if len(fields) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return token{}, unauthorized(`Bearer realm="roster", error="invalid_request"`, "Authorization must be sent once, as: Bearer TOKEN")
	}
	hash := sha256.Sum256(bytes.TrimSpace([]byte(value)))
	var found token
	for _, known := range t.current() { // all, so that the time tells nothing
		if subtle.ConstantTimeCompare(hash[:], known.hash[:]) == 1 {
			found = known
		}
	}
	if found.name == "" {
		return token{}, unauthorized(`Bearer realm="roster", error="invalid_token"`, "the bearer token is not valid")
	}
	t.metrics.tokenLastUse.WithLabelValues(found.name).SetToCurrentTime()
	return found, nil
}

// unauthorized sends a challenge (RFC 6750, section 3).
func unauthorized(challenge, detail string) *problem {
	return newProblem(kindUnauthorized, "%s", detail).with("WWW-Authenticate", challenge)
}

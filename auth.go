package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

const maxTokensFile = 1 << 20 // bytes

// tokens are the bearer tokens (RFC 6750) of a file, which may change while the service runs.
type tokens struct {
	path    string
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	checked time.Time
	failure string // why the file was not read the last time, if so
	known   tokenSet
}

// A tokenSet has hashes, not tokens: neither a memory dump nor the time of a lookup reveals one.
type tokenSet map[[sha256.Size]byte]token

type token struct {
	name     string
	readOnly bool
}

// loadTokens reads the file at path. A file without a valid token is an error.
func loadTokens(path string, log *slog.Logger, m *metrics) (*tokens, error) {
	known, err := readTokens(path)
	if err != nil {
		return nil, fmt.Errorf("AUTH_TOKENS_FILE: %w", err)
	}
	return &tokens{path: path, log: log, metrics: m, checked: time.Now(), known: known}, nil
}

func readTokens(path string) (tokenSet, error) {
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxTokensFile) {
		return nil, fmt.Errorf("%s is not a regular file of at most %d bytes", path, maxTokensFile)
	}
	content, err := os.ReadFile(path) // #nosec G304 -- the operator names the file
	if err != nil {
		return nil, err
	}
	return parseTokens(string(content))
}

// tokenLine has the token as the b64token of RFC 6750, section 2.1.
var tokenLine = regexp.MustCompile(`^([A-Za-z0-9._-]{1,64}):([A-Za-z0-9._~+/-]{16,512}=*)(:read)?$`)

// parseTokens reads lines name:token or name:token:read. Its errors never have a line's content.
func parseTokens(text string) (tokenSet, error) {
	known, names := tokenSet{}, map[string]bool{}
	for i, line := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		m := tokenLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d must be name:token or name:token:read, "+
				"with a name of 1 to 64 of A-Z a-z 0-9 . _ - and a token of 16 to 512 of A-Z a-z 0-9 . _ ~ + / -", i+1)
		}
		hash := sha256.Sum256([]byte(m[2]))
		if _, twice := known[hash]; twice || names[m[1]] {
			return nil, fmt.Errorf("line %d repeats a name or a token", i+1)
		}
		names[m[1]] = true
		known[hash] = token{name: m[1], readOnly: m[3] != ""}
	}
	if len(known) == 0 {
		return nil, errors.New("no token; a line is name:token or name:token:read")
	}
	return known, nil
}

// current returns the valid tokens. Each second it reads the file, whatever its size and time: an
// editor may keep both. If the file is unreadable or malformed, the previous tokens stay valid and
// an error is logged once.
func (t *tokens) current() tokenSet {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.checked) < time.Second {
		return t.known
	}
	t.checked = time.Now()
	known, err := readTokens(t.path)
	switch {
	case err != nil && err.Error() != t.failure:
		t.failure = err.Error()
		t.log.Error("tokens not reloaded; the previous ones stay valid", "error", err)
		t.metrics.reloadFailures.Inc()
	case err == nil && (t.failure != "" || !maps.Equal(known, t.known)):
		for hash, old := range t.known {
			if known[hash].name != old.name {
				t.metrics.tokenLastUse.DeleteLabelValues(old.name)
			}
		}
		t.known, t.failure = known, ""
		t.log.Info("tokens reloaded", "tokens", len(known))
	}
	return t.known
}

// authenticate returns the token of a request.
func (t *tokens) authenticate(r *http.Request) (token, error) {
	scheme, value, _ := strings.Cut(strings.Join(r.Header.Values("Authorization"), ", "), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return token{}, newProblem(kindUnauthorized, "a bearer token is required, as Authorization: Bearer TOKEN").
			with("WWW-Authenticate", `Bearer realm="roster"`) // RFC 6750, section 3
	}
	found, ok := t.current()[sha256.Sum256([]byte(strings.TrimSpace(value)))]
	if !ok {
		return token{}, newProblem(kindUnauthorized, "the bearer token is not valid").
			with("WWW-Authenticate", `Bearer realm="roster", error="invalid_token"`)
	}
	t.metrics.tokenLastUse.WithLabelValues(found.name).SetToCurrentTime()
	return found, nil
}

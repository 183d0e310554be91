package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A config is everything that the environment can say; see the README's table.
type config struct {
	ListenAddr      string
	MetricsAddr     string // empty: no metrics
	Table, Bucket   string // both empty: the embedded store
	LocalStackHost  string
	DataDir         string
	MaxAvatarBytes  int64
	PublicURL       string // without a slash at its end
	TokensFile      string // empty: no tokens needed
	AvatarsPublic   bool
	LogLevel        slog.Level
	LogFormat       string // text, json, or empty for "by terminal"
	ShutdownDelay   time.Duration
	ShutdownTimeout time.Duration
}

// maxAvatarBytesLimit keeps MAX_AVATAR_BYTES within what the upload buffers,
// held in memory, are planned for.
const maxAvatarBytesLimit = 64 << 20

// loadConfig reads the configuration with lookup (os.LookupEnv). A variable
// that is set but empty counts as unset, except METRICS_ADDR, where empty means
// off. Its error names the variable, what it may be and what it was.
func loadConfig(lookup func(string) (string, bool)) (config, error) {
	var bad error
	get := func(name, fallback string) string {
		if v, _ := lookup(name); v != "" {
			return v
		}
		return fallback
	}
	fail := func(name, value, want string) {
		if bad == nil {
			bad = fmt.Errorf("%s must be %s, not %q", name, want, value)
		}
	}
	duration := func(name, fallback string, least time.Duration) time.Duration {
		d, err := time.ParseDuration(get(name, fallback))
		if err != nil || d < least || d > time.Hour {
			fail(name, get(name, fallback), fmt.Sprintf("a duration from %v to 1h, such as 10s", least))
		}
		return d
	}
	address := func(name, value string) string {
		if err := checkAddr(value); err != nil {
			fail(name, value, "an address to listen on such as :8080 or 127.0.0.1:8080")
		}
		return value
	}

	c := config{
		ListenAddr:      address("LISTEN_ADDR", get("LISTEN_ADDR", ":8080")),
		MetricsAddr:     ":8081",
		Table:           get("DYNAMODB_TABLE", ""),
		Bucket:          get("S3_BUCKET", ""),
		LocalStackHost:  get("LOCALSTACK_HOST", ""),
		DataDir:         get("DATA_DIR", "./data"),
		TokensFile:      get("AUTH_TOKENS_FILE", ""),
		LogFormat:       get("LOG_FORMAT", ""),
		ShutdownDelay:   duration("SHUTDOWN_DELAY", "0s", 0),
		ShutdownTimeout: duration("SHUTDOWN_TIMEOUT", "25s", time.Second),
	}
	if port := get("PORT", ""); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			fail("PORT", port, "a port from 1 to 65535")
		}
		host, _, _ := net.SplitHostPort(c.ListenAddr)
		c.ListenAddr = net.JoinHostPort(host, port)
	}
	if v, set := lookup("METRICS_ADDR"); set {
		c.MetricsAddr = v
		if v != "" {
			address("METRICS_ADDR", v)
		}
	}
	if (c.Table == "") != (c.Bucket == "") {
		have, missing := "DYNAMODB_TABLE", "S3_BUCKET"
		if c.Table == "" {
			have, missing = missing, have
		}
		return c, fmt.Errorf("%s is set but %s is not: set both to store on AWS, or neither for the embedded store", have, missing)
	}
	var err error
	v := get("MAX_AVATAR_BYTES", "5242880")
	if c.MaxAvatarBytes, err = strconv.ParseInt(v, 10, 64); err != nil || c.MaxAvatarBytes < 1 || c.MaxAvatarBytes > maxAvatarBytesLimit {
		fail("MAX_AVATAR_BYTES", v, fmt.Sprintf("a number of bytes from 1 to %d", maxAvatarBytesLimit))
	}
	v = get("AVATARS_PUBLIC", "false")
	if c.AvatarsPublic, err = strconv.ParseBool(v); err != nil {
		fail("AVATARS_PUBLIC", v, "true or false")
	}
	v = get("PUBLIC_URL", "")
	if u, err := url.Parse(v); v != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(v, "?#")) {
		if u != nil {
			v = u.Redacted()
		}
		fail("PUBLIC_URL", v, "an http or https URL without user, query and fragment")
	}
	c.PublicURL = strings.TrimRight(v, "/")
	v = get("LOG_LEVEL", "info")
	if err := c.LogLevel.UnmarshalText([]byte(v)); err != nil {
		fail("LOG_LEVEL", v, "debug, info, warn or error")
	}
	if f := c.LogFormat; f != "" && f != "text" && f != "json" {
		fail("LOG_FORMAT", f, "text or json")
	}
	return c, bad
}

// checkAddr accepts what net.Listen("tcp", addr) can listen on, port 0 included.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err
}

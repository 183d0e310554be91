package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A config is the configuration of the process.
type config struct {
	ListenAddr      string
	MetricsAddr     string // empty: no metrics
	Table, Bucket   string // both empty: the embedded store
	LocalStackHost  string
	DataDir         string
	MaxAvatarBytes  int64
	PublicURL       string // without a trailing slash
	TokensFile      string // empty: the API is open
	AvatarsPublic   bool
	LogLevel        slog.Level
	LogFormat       string // text, json, or empty: by terminal
	ShutdownDelay   time.Duration
	ShutdownTimeout time.Duration
}

// A setting is an environment variable: its default, its meaning, and the function
// that stores a value and returns what the value must be if it is not.
type setting struct {
	name, fallback, meaning string
	set                     func(value string) (must string)
}

// maxAvatarBytesLimit bounds MAX_AVATAR_BYTES: an image is held in memory.
const maxAvatarBytesLimit = 64 << 20

// settings are all variables, in the order in which they are read and shown.
func (c *config) settings() []setting {
	return []setting{
		{"LISTEN_ADDR", ":8080", "address of the API", address(&c.ListenAddr)},
		{"PORT", "", "port of the API; replaces that of LISTEN_ADDR", port(&c.ListenAddr)},
		{"METRICS_ADDR", ":8081", "address of /metrics; empty: off", address(&c.MetricsAddr)},
		{"DYNAMODB_TABLE", "", "DynamoDB table of the users; needs S3_BUCKET", str(&c.Table)},
		{"S3_BUCKET", "", "S3 bucket of the images; needs DYNAMODB_TABLE", str(&c.Bucket)},
		{"LOCALSTACK_HOST", "", "endpoint of an emulator, the same as AWS_ENDPOINT_URL", str(&c.LocalStackHost)},
		{"DATA_DIR", "./data", "directory of the embedded store", str(&c.DataDir)},
		{"MAX_AVATAR_BYTES", "5242880", "size limit of an image, up to 67108864", number(&c.MaxAvatarBytes, 1, maxAvatarBytesLimit)},
		{"PUBLIC_URL", "", "prefix of every URL in a response; its origin is trusted", httpURL(&c.PublicURL)},
		{"AUTH_TOKENS_FILE", "", "bearer tokens, a line each: name:token or name:token:read; unset: the API is open", str(&c.TokensFile)},
		{"AVATARS_PUBLIC", "false", "whether images can be read without a token", boolean(&c.AvatarsPublic)},
		{"LOG_LEVEL", "info", "debug, info, warn or error", level(&c.LogLevel)},
		{"LOG_FORMAT", "", "text or json; unset: text on a terminal, else json", oneOf(&c.LogFormat, "text", "json")},
		{"SHUTDOWN_DELAY", "1s", "time from SIGTERM, when /readyz fails, until the listener closes", duration(&c.ShutdownDelay, 0)},
		{"SHUTDOWN_TIMEOUT", "25s", "time for requests in flight after that", duration(&c.ShutdownTimeout, time.Second)},
	}
}

// loadConfig reads the configuration with lookup, such as os.LookupEnv. An empty
// variable counts as unset, except METRICS_ADDR. The error names the variable, what
// it must be and what it is.
func loadConfig(lookup func(string) (string, bool)) (c config, err error) {
	for _, s := range c.settings() {
		value, set := lookup(s.name)
		if value == "" && !(set && s.name == "METRICS_ADDR") {
			value = s.fallback
		}
		if must := s.set(value); must != "" {
			if u, err := url.Parse(value); err == nil {
				value = u.Redacted() // a URL may contain a password
			}
			return c, fmt.Errorf("%s must be %s, not %q", s.name, must, value)
		}
	}
	switch {
	case c.Table == "" && c.Bucket != "":
		return c, errors.New("S3_BUCKET is set but DYNAMODB_TABLE is not: set both to use AWS, or neither to use the embedded store")
	case c.Table != "" && c.Bucket == "":
		return c, errors.New("DYNAMODB_TABLE is set but S3_BUCKET is not: set both to use AWS, or neither to use the embedded store")
	}
	return c, nil
}

// printSettings prints the variables for roster -h.
func printSettings(w io.Writer) {
	fmt.Fprint(w, "\nEnvironment variables (all optional):\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range new(config).settings() {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", s.name, cmp.Or(s.fallback, "-"), s.meaning)
	}
	fmt.Fprint(t, "  AWS_*\t-\tregion, credentials, endpoints, checksums and retries, as in every AWS program\n")
	t.Flush()
}

func str(p *string) func(string) string {
	return func(v string) string {
		*p = v
		return ""
	}
}

// address accepts what net.Listen takes, port 0 included.
func address(p *string) func(string) string {
	return func(v string) string {
		_, portText, err := net.SplitHostPort(v)
		if _, portErr := strconv.ParseUint(portText, 10, 16); v != "" && (err != nil || portErr != nil) {
			return "an address such as :8080 or 127.0.0.1:8080"
		}
		*p = v
		return ""
	}
}

func port(addr *string) func(string) string {
	return func(v string) string {
		if n, err := strconv.ParseUint(v, 10, 16); v != "" && (err != nil || n == 0) {
			return "a port from 1 to 65535"
		} else if v != "" {
			host, _, _ := net.SplitHostPort(*addr)
			*addr = net.JoinHostPort(host, v)
		}
		return ""
	}
}

func number(p *int64, least, most int64) func(string) string {
	return func(v string) (must string) {
		var err error
		if *p, err = strconv.ParseInt(v, 10, 64); err != nil || *p < least || *p > most {
			return fmt.Sprintf("a number from %d to %d", least, most)
		}
		return ""
	}
}

func httpURL(p *string) func(string) string {
	return func(v string) string {
		u, err := url.Parse(v)
		if v != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(v, "?#")) {
			return "an http or https URL without user, query and fragment"
		}
		*p = strings.TrimRight(v, "/")
		return ""
	}
}

func boolean(p *bool) func(string) string {
	return func(v string) string {
		var err error
		if *p, err = strconv.ParseBool(v); err != nil {
			return "true or false"
		}
		return ""
	}
}

func level(p *slog.Level) func(string) string {
	return func(v string) string {
		if p.UnmarshalText([]byte(v)) != nil {
			return "debug, info, warn or error"
		}
		return ""
	}
}

func oneOf(p *string, values ...string) func(string) string {
	return func(v string) string {
		if v != "" && !slices.Contains(values, v) {
			return strings.Join(values, " or ")
		}
		*p = v
		return ""
	}
}

func duration(p *time.Duration, least time.Duration) func(string) string {
	return func(v string) string {
		var err error
		if *p, err = time.ParseDuration(v); err != nil || *p < least || *p > time.Hour {
			return fmt.Sprintf("a duration from %v to 1h, such as 10s", least)
		}
		return ""
	}
}

// A configError is a configuration that fails only in use, such as a directory
// that cannot be written. It means exit status 2.
type configError struct{ error }

func (e *configError) Unwrap() error { return e.error }

// Set by the linker (-X main.version=… -X main.commit=…) in builds that cannot see
// the repository, such as that of the image.
var version, commit string

// A build identifies the running program.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

func readBuild() build {
	b := build{Version: "devel", Commit: "unknown", Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			b.Version = v
		}
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				b.Commit = setting.Value
			}
		}
	}
	b.Version, b.Commit = cmp.Or(version, b.Version), cmp.Or(commit, b.Commit)
	return b
}

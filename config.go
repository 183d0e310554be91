package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	whatwg "github.com/nlnwa/whatwg-url/url"
)

const maxAvatarBytes = 64 << 20 // the most that MAX_AVATAR_BYTES may be: an image is held in memory

// A config is the configuration of the process.
type config struct {
	ListenAddr      string
	MetricsAddr     string // empty: no metrics
	Table, Bucket   string // both empty: the embedded store
	LocalStackHost  string
	DataDir         string
	MaxAvatarBytes  int64  // of an image
	PublicURL       string // without a trailing slash
	TokensFile      string // empty: the API is open
	AvatarsPublic   bool
	LogLevel        slog.Level
	LogFormat       string // text, json, or empty: by terminal
	ShutdownDelay   time.Duration
	ShutdownTimeout time.Duration
}

// variables are all environment variables, as flags with their defaults and what they must be.
func (c *config) variables() *flag.FlagSet {
	v := flag.NewFlagSet("", flag.ContinueOnError)
	v.StringVar(&c.ListenAddr, "LISTEN_ADDR", ":8080", "address of the API, such as 127.0.0.1:8080")
	v.Func("PORT", "port of the API, from 1 to 65535; replaces that of LISTEN_ADDR", func(port string) error {
		host, _, _ := net.SplitHostPort(c.ListenAddr) // set before PORT, in the order of names
		// Port 0, which is any free port, becomes an empty port, which is invalid.
		c.ListenAddr = net.JoinHostPort(host, strings.TrimLeft(port, "0"))
		return nil
	})
	v.StringVar(&c.MetricsAddr, "METRICS_ADDR", ":8081", "address of /metrics, such as :9090; empty: off")
	v.StringVar(&c.Table, "DYNAMODB_TABLE", "", "DynamoDB table of the users; needs S3_BUCKET")
	v.StringVar(&c.Bucket, "S3_BUCKET", "", "S3 bucket of the images; needs DYNAMODB_TABLE")
	v.StringVar(&c.LocalStackHost, "LOCALSTACK_HOST", "", "URL, host:port or host of an emulator, as AWS_ENDPOINT_URL")
	v.StringVar(&c.DataDir, "DATA_DIR", "./data", "directory of the embedded store; its parent must exist")
	v.Int64Var(&c.MaxAvatarBytes, "MAX_AVATAR_BYTES", 5<<20, "size limit of an image, from 1 to 67108864")
	v.Func("PUBLIC_URL",
		"http or https URL without ? and #, prefix of every URL in a response; its origin is trusted", c.setPublicURL)
	v.StringVar(&c.TokensFile, "AUTH_TOKENS_FILE", "",
		"bearer tokens, a line each: name:token or name:token:read; unset: the API is open")
	v.BoolVar(&c.AvatarsPublic, "AVATARS_PUBLIC", false, "true or false: whether images can be read without a token")
	v.TextVar(&c.LogLevel, "LOG_LEVEL", slog.LevelInfo, "debug, info, warn or error")
	v.StringVar(&c.LogFormat, "LOG_FORMAT", "", "text or json; unset: text on a terminal, else json")
	v.DurationVar(&c.ShutdownDelay, "SHUTDOWN_DELAY", time.Second,
		"a duration such as 5s, at most 1h: from SIGTERM, when /readyz fails, until the listener closes")
	v.DurationVar(&c.ShutdownTimeout, "SHUTDOWN_TIMEOUT", 25*time.Second,
		"a duration such as 25s, from 1s to 1h: for requests in flight after that")
	return v
}

// loadConfig reads the configuration with lookup, such as os.LookupEnv. An empty variable counts as
// unset, except METRICS_ADDR. The error names the variable, its value and what it must be.
func loadConfig(lookup func(string) (string, bool)) (c config, err error) {
	c.variables().VisitAll(func(v *flag.Flag) {
		value, set := lookup(v.Name)
		if err != nil || value == "" && !(set && v.Name == "METRICS_ADDR") {
			return
		}
		if v.Value.Set(value) != nil || !c.inRange() { // the others are in range
			if u, notURL := url.Parse(value); notURL == nil && u.User != nil {
				value = u.Redacted()
			}
			err = fmt.Errorf("%s: invalid value %q; expected: %s", v.Name, value, v.Usage)
		}
	})
	if err == nil && (c.Table == "") != (c.Bucket == "") {
		err = errors.New("only one of DYNAMODB_TABLE and S3_BUCKET is set: " +
			"set both to use AWS, or neither to use the embedded store")
	}
	return c, err
}

// inRange reports whether the values are in the ranges of variables, as the defaults are.
func (c *config) inRange() bool {
	return isAddress(c.ListenAddr) && (c.MetricsAddr == "" || isAddress(c.MetricsAddr)) &&
		c.MaxAvatarBytes >= 1 && c.MaxAvatarBytes <= maxAvatarBytes &&
		slices.Contains([]string{"", "text", "json"}, c.LogFormat) &&
		c.ShutdownDelay >= 0 && c.ShutdownDelay <= time.Hour &&
		c.ShutdownTimeout >= time.Second && c.ShutdownTimeout <= time.Hour
}

// isAddress accepts what net.Listen takes, port 0 included.
func isAddress(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	_, portErr := strconv.ParseUint(port, 10, 16)
	return err == nil && portErr == nil
}

// setPublicURL sets PublicURL as browsers spell it (WHATWG's URL standard): they compare origins as text.
func (c *config) setPublicURL(s string) error {
	u, err := whatwg.NewParser(whatwg.WithFailOnValidationError()).Parse(s)
	if err != nil || u.Scheme() != "http" && u.Scheme() != "https" || strings.ContainsAny(s, "?#") {
		return errors.New("not a base URL")
	}
	c.PublicURL = strings.TrimRight(u.Href(true), "/")
	return nil
}

// printUsage prints the flags and the variables for roster -h.
func printUsage() {
	fmt.Fprint(os.Stderr, "Usage: roster [flag]\n\nServes the API, or does what the flag says:\n")
	flag.PrintDefaults()
	fmt.Fprint(os.Stderr, "\nEnvironment variables (all optional):\n")
	new(config).variables().VisitAll(func(v *flag.Flag) {
		fmt.Fprintf(os.Stderr, "  %-16s  %-7s  %s\n", v.Name, cmp.Or(strings.ToLower(v.DefValue), "-"), v.Usage)
	})
	fmt.Fprint(os.Stderr, "  AWS_*             -        "+
		"region, credentials, endpoints, checksums and retries, as in every AWS program\n")
}

// A configError is a wrong configuration. It means exit status 2.
type configError struct{ error }

// Set by the linker (-X main.version=…) in builds without the repository, as that of the image.
var version, commit = "", "unknown"

// A build identifies the running program.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

func readBuild() build {
	b := build{version, commit, runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok && version == "" {
		b.Version = info.Main.Version // with the commit, unless tagged
	}
	return b
}

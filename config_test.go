package main

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// badConfig are settings that must be refused by an error which names the
// variable (or what it must say instead).
var badConfig = []struct{ setting, want string }{
	{"LISTEN_ADDR=8080", "LISTEN_ADDR"},
	{"LISTEN_ADDR=:http", "LISTEN_ADDR"},
	{"LISTEN_ADDR=:65536", "LISTEN_ADDR"},
	{"LISTEN_ADDR=::1:8080", "LISTEN_ADDR"},
	{"PORT=0", "PORT"},
	{"PORT=00", "PORT"},
	{"PORT=http", "PORT"},
	{"PORT=-1", "PORT"},
	{"PORT=65536", "PORT"},
	{"METRICS_ADDR=8081", "METRICS_ADDR"},
	{"DYNAMODB_TABLE=users", "only one of DYNAMODB_TABLE and S3_BUCKET"},
	{"S3_BUCKET=avatars", "only one of DYNAMODB_TABLE and S3_BUCKET"},
	{"MAX_AVATAR_BYTES=5MB", "MAX_AVATAR_BYTES"},
	{"MAX_AVATAR_BYTES=0", "MAX_AVATAR_BYTES"},
	{"MAX_AVATAR_BYTES=-1", "MAX_AVATAR_BYTES"},
	{"MAX_AVATAR_BYTES=67108865", "MAX_AVATAR_BYTES"},
	{"MAX_AVATAR_BYTES=99999999999999999999", "MAX_AVATAR_BYTES"},
	{"PUBLIC_URL=example.com", "PUBLIC_URL"},
	{"PUBLIC_URL=ftp://example.com", "PUBLIC_URL"},
	{"PUBLIC_URL=https://", "PUBLIC_URL"},
	{"PUBLIC_URL=https://me:secret@example.com", "PUBLIC_URL"},
	{"PUBLIC_URL=https://example.com/?a=b", "PUBLIC_URL"},
	{"PUBLIC_URL=https://example.com/#a", "PUBLIC_URL"},
	{"PUBLIC_URL=https://example.com/?", "PUBLIC_URL"},
	{"PUBLIC_URL=http://%zz", "PUBLIC_URL"},
	{"PUBLIC_URL=http://a/%zz", "PUBLIC_URL"},
	{"PUBLIC_URL=https:example.com", "PUBLIC_URL"},
	{"PUBLIC_URL=https:///example.com", "PUBLIC_URL"},
	{"PUBLIC_URL=localhost:8080", "PUBLIC_URL"},
	{"PUBLIC_URL=http://:80", "PUBLIC_URL"},
	{"PUBLIC_URL=http://a:65536", "PUBLIC_URL"},
	{"PUBLIC_URL=http://a\u200cb", "PUBLIC_URL"},
	{"PUBLIC_URL=https://example.com/?a=b", "without ? and #"},
	{"METRICS_ADDR=9090", "such as :9090"},
	{"SHUTDOWN_DELAY=15", "a duration such as 5s"},
	{"SHUTDOWN_TIMEOUT=15", "a duration such as 25s"},
	{"AVATARS_PUBLIC=yes", "AVATARS_PUBLIC"},
	{"LOG_LEVEL=loud", "LOG_LEVEL"},
	{"LOG_FORMAT=xml", "LOG_FORMAT"},
	{"SHUTDOWN_DELAY=5", "SHUTDOWN_DELAY"},
	{"SHUTDOWN_DELAY=-1s", "SHUTDOWN_DELAY"},
	{"SHUTDOWN_DELAY=61m", "SHUTDOWN_DELAY"},
	{"SHUTDOWN_TIMEOUT=0s", "SHUTDOWN_TIMEOUT"},
	{"SHUTDOWN_TIMEOUT=soon", "SHUTDOWN_TIMEOUT"},
}

func TestBadConfig(t *testing.T) {
	for _, test := range badConfig {
		t.Run(test.setting, func(t *testing.T) {
			c, err := loadConfig(environment(test.setting))
			if err == nil {
				t.Fatalf("%s: no error, configuration %+v", test.setting, c)
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: error %q, want one line with %q", test.setting, err, test.want)
			}
			if name, value, _ := strings.Cut(test.setting, "="); test.want == name &&
				!strings.Contains(value, "secret") &&
				!strings.Contains(err.Error(), strconv.Quote(value)) {
				t.Errorf("%s: error %q does not quote the value", test.setting, err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: error %q contains the password", test.setting, err)
			}
		})
	}
}

// TestPortBesideBadAddress: PORT does not hide an invalid LISTEN_ADDR.
func TestPortBesideBadAddress(t *testing.T) {
	_, err := loadConfig(environment("LISTEN_ADDR=8080", "PORT=9000"))
	if err == nil || !strings.Contains(err.Error(), "LISTEN_ADDR") {
		t.Errorf("error %v, want one about LISTEN_ADDR", err)
	}
}

func TestLoadConfig(t *testing.T) {
	defaults := config{
		ListenAddr: ":8080", MetricsAddr: ":8081", DataDir: "./data", MaxAvatarBytes: 5 << 20,
		LogLevel: slog.LevelInfo, ShutdownDelay: time.Second, ShutdownTimeout: 25 * time.Second,
	}
	for _, test := range []struct {
		name     string
		settings []string
		change   func(*config)
	}{
		{"defaults", nil, func(*config) {}},
		{"empty is unset", []string{"LISTEN_ADDR=", "PORT=", "DYNAMODB_TABLE=", "S3_BUCKET=", "MAX_AVATAR_BYTES=",
			"PUBLIC_URL=", "AUTH_TOKENS_FILE=",
			"AVATARS_PUBLIC=", "LOG_LEVEL=", "LOG_FORMAT=", "SHUTDOWN_DELAY=", "SHUTDOWN_TIMEOUT=", "DATA_DIR="},
			func(*config) {}},
		{"no metrics", []string{"METRICS_ADDR="}, func(c *config) { c.MetricsAddr = "" }},
		{"port", []string{"PORT=9000"}, func(c *config) { c.ListenAddr = ":9000" }},
		{"port of an address", []string{"PORT=9000", "LISTEN_ADDR=127.0.0.1:8080"},
			func(c *config) { c.ListenAddr = "127.0.0.1:9000" }},
		{"port of an IPv6 address", []string{"PORT=9000", "LISTEN_ADDR=[::1]:8080"},
			func(c *config) { c.ListenAddr = "[::1]:9000" }},
		{"any free port", []string{"LISTEN_ADDR=127.0.0.1:0", "METRICS_ADDR=:0"},
			func(c *config) { c.ListenAddr, c.MetricsAddr = "127.0.0.1:0", ":0" }},
		{"AWS", []string{"DYNAMODB_TABLE=users", "S3_BUCKET=avatars", "LOCALSTACK_HOST=localhost"}, func(c *config) {
			c.Table, c.Bucket, c.LocalStackHost = "users", "avatars", "localhost"
		}},
		{"public URL", []string{"PUBLIC_URL=https://example.com/roster/"},
			func(c *config) { c.PublicURL = "https://example.com/roster" }},
		{"public URL of nothing but a host", []string{"PUBLIC_URL=http://localhost:8080"},
			func(c *config) { c.PublicURL = "http://localhost:8080" }},
		{"the rest", []string{"DATA_DIR=/data", "MAX_AVATAR_BYTES=67108864", "AUTH_TOKENS_FILE=/tokens",
			"AVATARS_PUBLIC=true",
			"LOG_LEVEL=warn", "LOG_FORMAT=text", "SHUTDOWN_DELAY=5s", "SHUTDOWN_TIMEOUT=1m"}, func(c *config) {
			c.DataDir, c.MaxAvatarBytes, c.TokensFile, c.AvatarsPublic = "/data", 64<<20, "/tokens", true
			c.LogLevel, c.LogFormat, c.ShutdownDelay, c.ShutdownTimeout = slog.LevelWarn, "text", 5*time.Second,
				time.Minute
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := defaults
			test.change(&want)
			got, err := loadConfig(environment(test.settings...))
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%q: error %v, configuration (-want +got):\n%s", test.settings, err, diff)
			}
		})
	}
}

// TestPublicURL: PUBLIC_URL becomes what browsers send as Origin, and the path.
func TestPublicURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://roster.example.com":          "https://roster.example.com",
		"https://roster.example.com:443/":     "https://roster.example.com",
		"https://roster.example.com:0443":     "https://roster.example.com",
		"https://roster.example.com:":         "https://roster.example.com",
		"HTTPS://Roster.Example.com/Path/":    "https://roster.example.com/Path",
		"http://roster.example.com:80":        "http://roster.example.com",
		"http://roster.example.com:443":       "http://roster.example.com:443",
		"https://roster.example.com:8443/a//": "https://roster.example.com:8443/a",
		"https://Bücher.example/ü":            "https://xn--bcher-kva.example/%C3%BC",
		"https://a.example/b%2Fc":             "https://a.example/b%2Fc",
		"https://xn--bcher-kva.example":       "https://xn--bcher-kva.example",
		"http://my_host:8080":                 "http://my_host:8080",
		"http://r3---sn.example":              "http://r3---sn.example",
		"http://127.0.0.1:80":                 "http://127.0.0.1",
		"http://[::1]:8080/":                  "http://[::1]:8080",
		"http://[0:0:0:0:0:0:0:1]:80":         "http://[::1]",
		"https://[2001:DB8::A]":               "https://[2001:db8::a]",
		"http://[::ffff:192.0.2.1]":           "http://[::ffff:c000:201]",
		"http://127.1":                        "http://127.0.0.1",
		"https://a.example/b/../c":            "https://a.example/c",
	} {
		c, err := loadConfig(environment("PUBLIC_URL=" + in))
		if c.PublicURL != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", in, c.PublicURL, err, want)
		}
	}
}

// environment looks up NAME=VALUE settings as os.LookupEnv does.
func environment(settings ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, s := range settings {
			if n, value, _ := strings.Cut(s, "="); n == name {
				return value, true
			}
		}
		return "", false
	}
}

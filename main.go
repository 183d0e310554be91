// Roster is a users-and-avatars service: an HTTP API that creates users, lists
// them and stores an image of each, on DynamoDB and S3 or on an embedded store.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program. It returns the exit status: 0 if all went well, 1 if
// something failed, 2 if the configuration is wrong.
func run(args []string, stdout io.Writer, stderr *os.File) int {
	flags := flag.NewFlagSet("roster", flag.ContinueOnError)
	flags.SetOutput(stderr)
	showVersion := flags.Bool("version", false, "print the version and exit")
	healthcheck := flags.Bool("healthcheck", false, "ask the running instance's /livez and exit 0 if it answers")
	createMissing := flags.Bool("bootstrap", false, "create the table and the bucket on an emulator if they are missing, and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "roster: unexpected argument %q; it takes flags and environment variables only\n", flags.Arg(0))
		return 2
	}
	b := readBuild()
	if *showVersion {
		fmt.Fprintf(stdout, "roster %s (commit %s, %s)\n", b.Version, b.Commit, b.Go)
		return 0
	}
	c, err := loadConfig(os.LookupEnv)
	if err != nil {
		fmt.Fprintf(stderr, "roster: %v\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch {
	case *healthcheck:
		err = askLivez(ctx, c.ListenAddr)
	case *createMissing && c.Table == "":
		err = &configError{errors.New("-bootstrap needs DYNAMODB_TABLE and S3_BUCKET")}
	case *createMissing:
		err = bootstrap(ctx, c.Table, c.Bucket, c.LocalStackHost, newLogger(c, stderr))
	default:
		err = serve(ctx, stop, c, newLogger(c, stderr), b)
	}
	if wrong := (*configError)(nil); errors.As(err, &wrong) {
		fmt.Fprintf(stderr, "roster: %v\n", err)
		return 2
	}
	if err != nil {
		fmt.Fprintf(stderr, "roster: %v\n", err)
		return 1
	}
	return 0
}

// A configError is a fault of the configuration that shows only when it is put
// to use, such as a directory that cannot be written.
type configError struct{ error }

func (e *configError) Unwrap() error { return e.error }

// newLogger logs to stderr: as text for the person at a terminal, else as JSON.
func newLogger(c config, stderr *os.File) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "text" || c.LogFormat == "" && isTerminal(stderr) {
		return slog.New(slog.NewTextHandler(stderr, options))
	}
	return slog.New(slog.NewJSONHandler(stderr, options))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// serve runs the service until ctx ends and all requests are answered. unhook
// gives the signals back their default effect, so that a second one kills.
func serve(ctx context.Context, unhook func(), c config, log *slog.Logger, b build) error {
	m := newMetrics(b)
	var t *tokens
	if c.TokensFile != "" {
		var err error
		if t, err = loadTokens(c.TokensFile, log, m); err != nil {
			return &configError{err}
		}
	}
	users, avatars, closeStores, err := openStores(ctx, c, log, m)
	if err != nil {
		return err
	}
	defer closeStores()
	s := newServer(c, users, avatars, t, log, m, b)

	api, err := net.Listen("tcp", c.ListenAddr)
	if err != nil {
		return &configError{fmt.Errorf("LISTEN_ADDR: %w", err)}
	}
	defer api.Close()
	if c.MetricsAddr != "" {
		listener, err := net.Listen("tcp", c.MetricsAddr)
		if err != nil {
			return &configError{fmt.Errorf("METRICS_ADDR: %w", err)}
		}
		server := newHTTPServer(m.handler(), log)
		server.WriteTimeout = shortTimeout
		go server.Serve(listener)
		defer server.Close()
		log.Info("serving metrics", "addr", listener.Addr().String())
	}
	if t == nil {
		log.Warn("AUTH_TOKENS_FILE is not set: the API is open to everyone who can reach it")
	}
	log.Info("serving", "addr", api.Addr().String(), "version", b.Version, "commit", b.Commit)
	go s.watchReady(ctx)

	d := &drainingServer{Server: newHTTPServer(s, log)}
	d.ConnState = d.track
	served := make(chan error, 1)
	go func() { served <- d.Serve(api) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	unhook()
	log.Info("stopping", "delay", c.ShutdownDelay, "timeout", c.ShutdownTimeout)
	s.draining.Store(true)
	s.metrics.ready.Set(0)
	time.Sleep(c.ShutdownDelay)
	api.Close()
	<-served
	draining, cancel := context.WithTimeout(context.Background(), c.ShutdownTimeout)
	defer cancel()
	if err := d.drain(draining, min(lingerTimeout, c.ShutdownTimeout/2)); err != nil {
		return fmt.Errorf("requests were still under way after SHUTDOWN_TIMEOUT (%v): %w", c.ShutdownTimeout, err)
	}
	if err := s.discards.Acquire(draining, maxDiscards); err != nil {
		log.Warn("images left behind: SHUTDOWN_TIMEOUT ended before those were removed that had been replaced")
	}
	log.Info("stopped")
	return nil
}

// openStores opens the stores that the configuration names.
func openStores(ctx context.Context, c config, log *slog.Logger, m *metrics) (Users, Avatars, func(), error) {
	if c.Table != "" {
		users, avatars, err := openAWS(ctx, c.Table, c.Bucket, c.LocalStackHost, m.observeAWS, log)
		if err != nil {
			return nil, nil, nil, &configError{err}
		}
		log.Info("storing on AWS", "table", c.Table, "bucket", c.Bucket)
		return users, avatars, func() {}, nil
	}
	store, err := openLocal(c.DataDir, m)
	if err != nil {
		return nil, nil, nil, &configError{err}
	}
	m.registerEmbedded(c.DataDir)
	log.Info("storing in the embedded store", "dir", c.DataDir)
	closeStore := func() {
		if err := store.Close(); err != nil {
			log.Error("embedded store not closed", "error", err)
		}
	}
	return localUsers{store}, localAvatars{store}, closeStore, nil
}

// newHTTPServer sets what bounds a connection before and between requests; the
// requests themselves are bounded one by one, see server.handle.
func newHTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		// Longer than load balancers keep theirs (60 s for AWS's), so that it is
		// never this side that closes a connection which is just being reused.
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
		// What net/http says is about single, mostly hostile connections.
		ErrorLog: log.New(logWriter{logger}, "", 0),
	}
}

type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(line []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.HasPrefix(line, []byte("http: Accept error")) {
		level = slog.LevelError // of the process: it has no file descriptor left
	}
	w.log.Log(context.Background(), level, "http", "message", string(bytes.TrimSpace(line)))
	return len(line), nil
}

// A drainingServer is an http.Server that ends without losing a request: it
// takes no new connection, and lets those that are open come to their end.
type drainingServer struct {
	*http.Server
	open atomic.Int64 // connections
}

// lingerTimeout is how long open connections may stay idle while draining. A
// client may be sending its next request this very moment: it gets its answer,
// with "Connection: close", and only then does the connection end.
const lingerTimeout = time.Second

func (d *drainingServer) track(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		d.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		d.open.Add(-1)
	}
}

// drain ends the server after Serve has returned, before ctx does. For the time of
// linger it leaves idle connections open.
func (d *drainingServer) drain(ctx context.Context, linger time.Duration) error {
	for end := time.Now().Add(linger); d.open.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	err := d.Shutdown(ctx)
	if err != nil {
		d.Close()
	}
	return err
}

// askLivez asks the instance that listens on addr whether it is alive.
func askLivez(ctx context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/livez", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{}} // unlike the default one it asks no proxy
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/livez answered %s", resp.Status)
	}
	return nil
}

// Roster is a users-and-avatars service: an HTTP API that creates users, lists
// them and stores an image of each, on DynamoDB and S3 or on an embedded store.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 0 for success, 1 for a failure, 2 for a wrong
// configuration.
func run(args []string, stdout io.Writer, stderr *os.File) int {
	flags := flag.NewFlagSet("roster", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, "Usage: roster [flag]\n\nServes the API, or does what the flag says:\n")
		flags.PrintDefaults()
		printVariables(stderr)
	}
	showVersion := flags.Bool("version", false, "print the version and exit")
	healthcheck := flags.Bool("healthcheck", false, "request /livez of the running instance; exit 0 if it answers")
	createMissing := flags.Bool("bootstrap", false, "create the table and the bucket on an emulator if missing, and exit")
	migrateStore := flags.Bool("migrate", false, "copy the embedded store to DYNAMODB_TABLE and S3_BUCKET, and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "roster: unexpected argument %q; roster takes flags and environment variables only\n", flags.Arg(0))
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
	context.AfterFunc(ctx, stop) // a second signal kills
	out := newLogWriter(stderr)
	defer out.flush()
	log := newLogger(c, out, isTerminal(os.Stderr))
	switch {
	case *healthcheck:
		err = checkLivez(c.ListenAddr)
	case (*createMissing || *migrateStore) && c.Table == "":
		err = &configError{errors.New("-bootstrap and -migrate need DYNAMODB_TABLE and S3_BUCKET")}
	case *createMissing:
		err = bootstrap(ctx, c, log)
	case *migrateStore:
		err = migrate(ctx, c, log)
	default:
		err = serve(ctx, c, log, b)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintf(out, "roster: %v\n", err)
	if _, wrong := errors.AsType[*configError](err); wrong {
		return 2
	}
	return 1
}

func newLogger(c config, w io.Writer, terminal bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "text" || c.LogFormat == "" && terminal {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// A logWriter writes lines in the background. If nobody reads standard error, it
// drops lines: neither requests nor the end of the process wait for a reader.
type logWriter struct {
	lines   chan []byte
	pending sync.WaitGroup
	dropped atomic.Int64
}

const (
	logLines     = 4096 // lines held for a slow reader
	logFlushWait = time.Second
)

func newLogWriter(to io.Writer) *logWriter {
	w := &logWriter{lines: make(chan []byte, logLines)}
	go func() {
		for line := range w.lines {
			to.Write(line)
			if n := w.dropped.Swap(0); n > 0 {
				fmt.Fprintf(to, "roster: %d log lines dropped: standard error was not read\n", n)
			}
			w.pending.Done()
		}
	}()
	return w
}

func (w *logWriter) Write(line []byte) (int, error) {
	w.pending.Add(1)
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
		w.pending.Done()
		w.dropped.Add(1)
	}
	return len(line), nil
}

// flush waits until all lines are written, for logFlushWait at most.
func (w *logWriter) flush() {
	done := make(chan struct{})
	go func() {
		w.pending.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(logFlushWait):
	}
}

// heapFloor is memory that is never touched. The garbage collector counts it, and so does not run
// for every 4 MiB allocated: 0.84 instead of 0.78 of the bare calls of a read.
const heapFloor = 8 << 20

// serve serves the API until ctx ends and all requests are answered.
func serve(ctx context.Context, c config, log *slog.Logger, b build) error {
	defer runtime.KeepAlive(make([]byte, heapFloor))
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
	url := baseURL(c, api.Addr())
	log.Info("serving", "addr", api.Addr().String(), "url", url, "swagger", url+"/swagger/", "version", b.Version, "commit", b.Commit)
	go s.watchReady(ctx)

	server := newHTTPServer(s, log)
	served := make(chan error, 1)
	go func() { served <- server.Serve(api) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	return s.shutDown(server)
}

// shutDown fails /readyz, waits SHUTDOWN_DELAY for load balancers to notice, closes
// the listener, and waits SHUTDOWN_TIMEOUT for requests and deletions in flight.
func (s *server) shutDown(server *http.Server) error {
	s.log.Info("shutting down", "delay", s.ShutdownDelay.String(), "timeout", s.ShutdownTimeout.String())
	s.draining.Store(true)
	s.metrics.ready.Set(0)
	time.Sleep(s.ShutdownDelay)
	ctx, cancel := context.WithTimeout(context.Background(), s.ShutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		server.Close()
		return fmt.Errorf("requests were in flight after SHUTDOWN_TIMEOUT (%v): %w", s.ShutdownTimeout, err)
	}
	deleted := make(chan struct{})
	go func() {
		s.background.Wait()
		close(deleted)
	}()
	select {
	case <-deleted:
	case <-ctx.Done():
		s.log.Warn("replaced images were not deleted before SHUTDOWN_TIMEOUT")
	}
	s.log.Info("stopped")
	return nil
}

// openStores opens the configured stores.
func openStores(ctx context.Context, c config, log *slog.Logger, m *metrics) (Users, Avatars, func(), error) {
	if c.Table != "" {
		users, avatars, err := openAWS(ctx, c, m.observeAWS, log)
		if err != nil {
			return nil, nil, nil, &configError{err}
		}
		return users, avatars, func() {}, nil
	}
	store, err := openLocal(c.DataDir, m)
	if err != nil {
		return nil, nil, nil, &configError{err}
	}
	m.observeSize(filepath.Join(c.DataDir, "roster.db"))
	log.Info("using the embedded store", "dir", c.DataDir)
	closeStore := func() {
		if err := store.Close(); err != nil {
			log.Error("embedded store not closed", "error", err)
		}
	}
	return localUsers{store}, localAvatars{store}, closeStore, nil
}

// newHTTPServer bounds connections before and between requests. server.handle bounds
// the requests.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		// Longer than load balancers keep theirs (AWS: 60 s), so that this side never
		// closes a connection that is being reused.
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               16 << 10,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// baseURL returns the URL of the API to print at the start.
func baseURL(c config, addr net.Addr) string {
	if c.PublicURL != "" {
		return c.PublicURL
	}
	return "http://" + reachable(addr.String())
}

// reachable replaces the host of an address that listens everywhere by localhost.
func reachable(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

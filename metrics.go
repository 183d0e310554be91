package main

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are all metrics of the service. No label takes a value from a client.
type metrics struct {
	registry *prometheus.Registry

	requestDuration  *prometheus.HistogramVec // method, route, code
	requestsInFlight prometheus.Gauge
	requestBytes     *prometheus.HistogramVec // route
	responseBytes    *prometheus.HistogramVec // route
	uploadsShed      prometheus.Counter
	uploadsInFlight  prometheus.Gauge
	awsDuration      *prometheus.HistogramVec // aws_service, operation, code
	awsRetries       *prometheus.CounterVec   // aws_service, operation
	commitDuration   prometheus.Histogram
	commitWrites     prometheus.Histogram
	ready            prometheus.Gauge
	panics           prometheus.Counter
	reloadFailures   prometheus.Counter
	tokenLastUse     *prometheus.GaugeVec // token
}

// nativeFactor is the growth of a native histogram's buckets, 10 % at most.
const nativeFactor = 1.1

// awsService is not "service": Prometheus' Kubernetes discovery sets that label.
const awsService = "aws_service"

func newMetrics(b build) *metrics {
	seconds := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	sizes := prometheus.ExponentialBuckets(256, 4, 9) // 256 B to 16 MiB
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{
			Namespace: "roster", Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: 100,
			NativeHistogramMinResetDuration: time.Hour,
		}
	}
	histograms := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(histogram(name, help, buckets), labels)
	}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "roster", Name: name, Help: help}
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "roster", Name: name, Help: help})
	}
	m := &metrics{
		registry:         prometheus.NewRegistry(),
		requestDuration:  histograms("http_request_duration_seconds", "Time from a request's header to the end of its response.", seconds, "method", "route", "code"),
		requestsInFlight: gauge("http_requests_in_flight", "Requests in flight."),
		requestBytes:     histograms("http_request_body_bytes", "Bytes read of request bodies.", sizes, "route"),
		responseBytes:    histograms("http_response_body_bytes", "Bytes written of response bodies.", sizes, "route"),
		uploadsShed:      prometheus.NewCounter(counter("uploads_shed_total", "Uploads refused with 503 because the memory for uploads was in use.")),
		uploadsInFlight:  gauge("uploads_in_flight", "Uploads whose memory is reserved."),
		awsDuration:      histograms("aws_request_duration_seconds", "Time of a call to AWS, retries included.", seconds, awsService, "operation", "code"),
		awsRetries:       prometheus.NewCounterVec(counter("aws_request_retries_total", "Retries of calls to AWS."), []string{awsService, "operation"}),
		commitDuration:   prometheus.NewHistogram(histogram("embedded_commit_duration_seconds", "Time of a commit of the embedded store.", seconds)),
		commitWrites:     prometheus.NewHistogram(histogram("embedded_commit_writes", "Writes that shared a commit of the embedded store.", prometheus.ExponentialBuckets(1, 2, 11))),
		ready:            gauge("ready", "1 if /readyz answers 200."),
		panics:           prometheus.NewCounter(counter("panics_total", "Requests that panicked.")),
		reloadFailures:   prometheus.NewCounter(counter("auth_reload_failures_total", "Changes of the token file that could not be loaded.")),
		tokenLastUse: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "roster", Name: "auth_token_last_use_seconds", Help: "Unix time of the last request with the token.",
		}, []string{"token"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "roster", Name: "build_info", Help: "Always 1; the labels identify the build.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "go_version": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(
		m.requestDuration, m.requestsInFlight, m.requestBytes, m.responseBytes, m.uploadsShed, m.uploadsInFlight,
		m.awsDuration, m.awsRetries, m.ready, m.panics, m.reloadFailures, m.tokenLastUse, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// registerEmbedded adds the metrics of the embedded store in dir.
func (m *metrics) registerEmbedded(dir string) {
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "roster", Name: "embedded_size_bytes", Help: "Size of the embedded store's database file.",
	}, func() float64 {
		info, err := os.Stat(filepath.Join(dir, "roster.db"))
		if err != nil {
			return 0
		}
		return float64(info.Size())
	})
	m.registry.MustRegister(m.commitDuration, m.commitWrites, size)
}

// observeAWS records a call to AWS. code is "OK" or the error code, d includes all
// attempts.
func (m *metrics) observeAWS(service, operation, code string, attempts int, d time.Duration) {
	m.awsDuration.WithLabelValues(service, operation, code).Observe(d.Seconds())
	m.awsRetries.WithLabelValues(service, operation).Add(float64(max(attempts-1, 0)))
}

// handler serves /metrics and nothing else.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	return mux
}

package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are all that the service measures. No label takes a value that a
// client can choose.
type metrics struct {
	registry *prometheus.Registry

	requestDuration  *prometheus.HistogramVec // method, route, code
	requestsInFlight prometheus.Gauge
	requestBytes     *prometheus.HistogramVec // route
	responseBytes    *prometheus.HistogramVec // route
	uploads          *prometheus.CounterVec   // outcome
	uploadsInFlight  prometheus.Gauge
	awsDuration      *prometheus.HistogramVec // aws_service, operation, code
	awsRetries       *prometheus.CounterVec   // aws_service, operation
	commitDuration   prometheus.Histogram
	commitWrites     prometheus.Histogram
	ready            prometheus.Gauge
	panics           prometheus.Counter
	reloadFailures   prometheus.Counter
}

// nativeFactor is the width of a native histogram's buckets: each at most 10 %
// wider than the one before.
const nativeFactor = 1.1

// awsService is not called just "service": Prometheus gives targets found in
// Kubernetes a label of that name, which would take its place.
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
		requestDuration:  histograms("http_request_duration_seconds", "Time from a request's header to the end of its answer.", seconds, "method", "route", "code"),
		requestsInFlight: gauge("http_requests_in_flight", "Requests being answered."),
		requestBytes:     histograms("http_request_body_bytes", "Size of request bodies, as read.", sizes, "route"),
		responseBytes:    histograms("http_response_body_bytes", "Size of response bodies, as written.", sizes, "route"),
		uploads:          prometheus.NewCounterVec(counter("uploads_total", "Images sent, by what became of them."), []string{"outcome"}),
		uploadsInFlight:  gauge("uploads_in_flight", "Uploads that hold memory for an image."),
		awsDuration:      histograms("aws_request_duration_seconds", "Time of a call to AWS, its retries included.", seconds, awsService, "operation", "code"),
		awsRetries:       prometheus.NewCounterVec(counter("aws_request_retries_total", "Attempts after the first of calls to AWS."), []string{awsService, "operation"}),
		commitDuration:   prometheus.NewHistogram(histogram("embedded_commit_duration_seconds", "Time of a commit of the embedded store.", seconds)),
		commitWrites:     prometheus.NewHistogram(histogram("embedded_commit_writes", "Writes that shared a commit of the embedded store.", prometheus.ExponentialBuckets(1, 2, 11))),
		ready:            gauge("ready", "Whether /readyz says yes."),
		panics:           prometheus.NewCounter(counter("panics_total", "Requests that ended in a panic.")),
		reloadFailures:   prometheus.NewCounter(counter("auth_reload_failures_total", "Changes of the token file that could not be read.")),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "roster", Name: "build_info", Help: "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "go_version": runtime.Version()},
	})
	info.Set(1)
	for _, outcome := range uploadOutcomes {
		m.uploads.WithLabelValues(outcome) // from 0 on, so that the first is an increase
	}
	m.registry.MustRegister(
		m.requestDuration, m.requestsInFlight, m.requestBytes, m.responseBytes, m.uploads, m.uploadsInFlight,
		m.awsDuration, m.awsRetries, m.ready, m.panics, m.reloadFailures, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// registerEmbedded adds the figures of the embedded store in dir.
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

// observeAWS is told of each call to AWS: its error code or "OK", how many
// attempts it took and how long they took together.
func (m *metrics) observeAWS(service, operation, code string, attempts int, d time.Duration) {
	m.awsDuration.WithLabelValues(service, operation, code).Observe(d.Seconds())
	m.awsRetries.WithLabelValues(service, operation).Add(float64(max(attempts-1, 0)))
}

var uploadOutcomes = []string{
	"stored", "invalid", "too_large", "unsupported", "not_found", "conflict", "overloaded", "unavailable", "aborted", "error",
}

// observeUpload counts an upload by the status it was answered with. Of the two
// kinds of 503, only the backends' has a cause.
func (m *metrics) observeUpload(status int, err error) {
	outcome := "error"
	switch status {
	case http.StatusOK, http.StatusCreated:
		outcome = "stored"
	case http.StatusBadRequest:
		outcome = "invalid"
	case http.StatusNotFound:
		outcome = "not_found"
	case http.StatusRequestTimeout, statusClientGone:
		outcome = "aborted"
	case http.StatusConflict:
		outcome = "conflict"
	case http.StatusRequestEntityTooLarge:
		outcome = "too_large"
	case http.StatusUnsupportedMediaType:
		outcome = "unsupported"
	case http.StatusServiceUnavailable:
		outcome = "overloaded"
		if errors.Is(err, ErrUnavailable) {
			outcome = "unavailable"
		}
	}
	m.uploads.WithLabelValues(outcome).Inc()
}

// handler serves /metrics and nothing else.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	return mux
}

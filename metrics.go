package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
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
	awsDuration      *prometheus.HistogramVec // aws_service (discovery sets service), operation, code
	awsRetries       *prometheus.CounterVec   // aws_service, operation
	commitDuration   prometheus.Observer
	commitWrites     prometheus.Observer
	databaseSize     prometheus.Gauge
	ready            prometheus.Gauge
	panics           prometheus.Counter
	invalidItems     prometheus.Counter
	reloadFailures   prometheus.Counter
	tokenLastUse     *prometheus.GaugeVec // token
}

func newMetrics(b build) *metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	auto := promauto.With(registry)
	histograms := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return auto.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return auto.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	seconds := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	sizes := prometheus.ExponentialBuckets(256, 4, 9) // 256 B to 16 MiB
	writes := prometheus.ExponentialBuckets(1, 2, 11)
	auto.NewGauge(prometheus.GaugeOpts{
		Name: "roster_build_info", Help: "Always 1; the labels identify the build.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "go_version": b.Go},
	}).Set(1)
	return &metrics{
		registry: registry,
		requestDuration: histograms("roster_http_request_duration_seconds",
			"Time from request header to end of response.", seconds, "method", "route", "code"),
		requestsInFlight: gauge("roster_http_requests_in_flight", "Requests in flight."),
		requestBytes:     histograms("roster_http_request_body_bytes", "Bytes read of request bodies.", sizes, "route"),
		responseBytes: histograms("roster_http_response_body_bytes",
			"Bytes written of response bodies.", sizes, "route"),
		uploadsShed:     counter("roster_uploads_shed_total", "Uploads refused with 503 for lack of memory."),
		uploadsInFlight: gauge("roster_uploads_in_flight", "Uploads whose memory is reserved."),
		awsDuration: histograms("roster_aws_request_duration_seconds",
			"Time of a call to AWS, retries included.", seconds, "aws_service", "operation", "code"),
		awsRetries: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "roster_aws_request_retries_total", Help: "Retries of calls to AWS.",
		}, []string{"aws_service", "operation"}),
		commitDuration: histograms("roster_embedded_commit_duration_seconds",
			"Time of a commit of the embedded store.", seconds).WithLabelValues(),
		commitWrites: histograms("roster_embedded_commit_writes",
			"Writes that shared a commit of the embedded store.", writes).WithLabelValues(),
		databaseSize:   gauge("roster_embedded_size_bytes", "Size of the embedded database."),
		ready:          gauge("roster_ready", "1 if /readyz answers 200."),
		panics:         counter("roster_panics_total", "Requests that panicked."),
		invalidItems:   counter("roster_invalid_items_total", "Invalid items left out of lists."),
		reloadFailures: counter("roster_auth_reload_failures_total", "Failed reloads of the token file."),
		tokenLastUse: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "roster_auth_token_last_use_seconds", Help: "Unix time of the token's last use.",
		}, []string{"token"}),
	}
}

// handler serves /metrics and nothing else.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	return mux
}

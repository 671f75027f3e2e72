// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package telemetry is what an operator watches: the log handler, the
// Prometheus page, the health pages and the profiles of a daemon. The lower
// rooms count in plain atomics and know nothing of Prometheus; this package
// (its sole user) reads them when the page is asked for.
//
// Flow: engine/daemon collects Sources, telemetry.NewServer serves them. One
// goroutine per HTTP connection; no locks beyond the registry's own.
package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/lmittmann/tint"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"orca"
	"orca/engine/buildinfo"
)

// NewLogger returns a logger: coloured text when tty, else JSON.
func NewLogger(w io.Writer, level slog.Level, tty bool) *slog.Logger {
	if tty {
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

// Sample is one value of one metric at the moment of the scrape.
type Sample struct {
	Name    string // orca_…, base units, _total for counters
	Help    string
	Counter bool              // else a gauge
	Labels  map[string]string // bounded: role, op, tier, source, ufs, reason, kind, state
	Value   float64
	// UpTo makes it a histogram: Count values of the sum Value, of which so
	// many are not above each bound.
	UpTo  map[float64]uint64
	Count uint64
}

// Source yields samples; it must be quick and safe for concurrent use.
type Source func(emit func(Sample))

// collector turns Sources into Prometheus metrics at scrape time.
type collector struct{ sources []Source }

// Describe sends nothing: the metrics are unchecked, since sources come and
// go with the roles of the process.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads every source.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.sources {
		s(func(m Sample) {
			kind := prometheus.GaugeValue
			if m.Counter {
				kind = prometheus.CounterValue
			}
			d := prometheus.NewDesc(m.Name, m.Help, nil, m.Labels)
			pm, err := prometheus.NewConstMetric(d, kind, m.Value)
			if m.UpTo != nil {
				pm, err = prometheus.NewConstHistogram(d, m.Count, m.Value, m.UpTo)
			}
			if err == nil {
				ch <- pm
			}
		})
	}
}

// Config of a Server.
type Config struct {
	// Listener to serve, from Listen; it is the server's afterwards.
	Listener net.Listener
	// Ready answers /readyz: nil means ready.
	Ready func(context.Context) error
	// Sources of the metrics page.
	Sources []Source
	// Handlers are further pages by pattern (REST of later gateways).
	Handlers map[string]http.Handler
}

// Server is the HTTP door of one daemon: /metrics, /livez, /readyz, /healthz,
// /version and, for callers on the loopback only, /debug/pprof.
type Server struct {
	http *http.Server
	ln   net.Listener
	done chan struct{}
}

// Listen opens the door at addr, host:port; port 0 chooses one. Who knocks
// before NewServer waits.
func Listen(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, &orca.Error{Op: "telemetry.Listen", Path: addr, Kind: orca.Unavailable, Msg: "cannot listen", Err: err}
	}
	return ln, nil
}

// NewServer serves until Close.
func NewServer(cfg Config, log *slog.Logger) *Server {
	ln := cfg.Listener
	s := &Server{ln: ln, done: make(chan struct{})}
	s.http = &http.Server{
		Handler:           routes(cfg),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("http server stopped", "err", err)
		}
	}()
	return s
}

// Addr returns the address that it listens on.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Close stops the server, waiting up to two seconds for pages in progress.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	<-s.done
	return err
}

func routes(cfg Config) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	b := buildinfo.Read()
	build := func(emit func(Sample)) {
		emit(Sample{Name: "orca_build_info", Help: "The build, as labels; always 1.", Value: 1,
			Labels: map[string]string{"version": b.Version, "commit": b.Commit, "go": b.Go}})
	}
	reg.MustRegister(collector{append([]Source{build}, cfg.Sources...)})

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	ready := func(w http.ResponseWriter, r *http.Request) {
		if cfg.Ready != nil {
			if err := cfg.Ready(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		io.WriteString(w, "ok\n")
	}
	mux.HandleFunc("GET /readyz", ready)
	mux.HandleFunc("GET /healthz", ready)
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, b.Version+"\n") })
	mux.Handle("/debug/pprof/", loopback(http.HandlerFunc(pprof.Index)))
	mux.Handle("/debug/pprof/cmdline", loopback(http.HandlerFunc(pprof.Cmdline)))
	mux.Handle("/debug/pprof/profile", loopback(http.HandlerFunc(pprof.Profile)))
	mux.Handle("/debug/pprof/symbol", loopback(http.HandlerFunc(pprof.Symbol)))
	mux.Handle("/debug/pprof/trace", loopback(http.HandlerFunc(pprof.Trace)))
	for pattern, h := range cfg.Handlers {
		mux.Handle(pattern, h)
	}
	return mux
}

// loopback refuses a page to other hosts: profiles show paths and arguments.
func loopback(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			http.Error(w, "profiles are served to this host only", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// httpServer serves metrics, health and profiles.
type httpServer struct {
	listener net.Listener
	server   *http.Server
	health   *health
	remarks  func() []string // what is worth knowing of a process that is ready
	log      *slog.Logger
}

const (
	readyTimeout = 3 * time.Second
	readyCache   = time.Second // so that probes, however many, cost the bucket little
	httpGrace    = 2 * time.Second
	mostHTTP     = 64 // connections at a time; further ones wait, so that they take no files that the archive needs
)

func newHTTPServer(addr string, registry *prometheus.Registry, checks []check, remarks func() []string,
	log *slog.Logger) (*httpServer, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening for HTTP: %w (choose another --http)", err)
	}
	h := &httpServer{listener: netutil.LimitListener(listener, mostHTTP), health: newHealth(checks), remarks: remarks,
		log: log}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", h.ready)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", commandLine)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", h.index)
	h.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	return h, nil
}

func (h *httpServer) addr() string { return h.listener.Addr().String() }

// commandLine is pprof.Cmdline without secrets.
func commandLine(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	fmt.Fprint(w, strings.Join(publicArgs(os.Args), "\x00"))
}

// run serves until ctx is done.
func (h *httpServer) run(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpGrace)
		defer cancel()
		if err := h.server.Shutdown(ctx); err != nil {
			h.log.Debug("closing HTTP connections that are in use", "error", err)
			_ = h.server.Close() // its error repeats Shutdown's
		}
	})
	err := h.server.Serve(h.listener)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// close closes the listener of a server that never ran; after run it has nothing left to do.
func (h *httpServer) close() error {
	h.health.close()
	if err := h.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (h *httpServer) ready(w http.ResponseWriter, _ *http.Request) {
	if err := h.health.problem(); err != nil {
		http.Error(w, redact(err.Error()), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
	for _, line := range h.remarks() {
		fmt.Fprintln(w, line)
	}
}

var indexPage = template.Must(template.New("index").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Dormouse</title>
<style>body{font:16px/1.5 system-ui,sans-serif;margin:3rem auto;max-width:40rem;padding:0 1rem}.bad{color:#b00}
</style></head>
<body><h1>Dormouse {{.Version}}</h1>
<p>{{if .Problem}}<span class="bad">Not ready: {{.Problem}}</span>{{else}}Ready.{{end}}</p>
<ul><li><a href="/metrics">/metrics</a>: Prometheus metrics</li>
<li><a href="/livez">/livez</a>, <a href="/readyz">/readyz</a>: health</li>
<li><a href="/debug/pprof/">/debug/pprof/</a>: profiles</li></ul></body></html>
`))

func (h *httpServer) index(w http.ResponseWriter, _ *http.Request) {
	page := struct{ Version, Problem string }{Version: buildVersion()}
	if err := h.health.problem(); err != nil {
		page.Problem = redact(err.Error())
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := indexPage.Execute(w, page); err != nil {
		h.log.Debug("the index page was not sent whole", "error", err)
	}
}

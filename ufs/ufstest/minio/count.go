// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package minio

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"time"

	"orca"
)

// Counts says what clients asked for since the start or the last ResetCounts.
type Counts struct {
	Get    int64 // GET of an object, ranged or whole
	Head   int64
	Put    int64 // PUT of an object or part, copies included
	List   int64 // GET of a bucket
	Delete int64
	Other  int64
	// GetBytes and PutBytes are bytes of bodies of Get and Put.
	GetBytes, PutBytes int64
}

// counter is a reverse proxy that counts.
type counter struct {
	addr   string
	server *http.Server

	get, head, put, list, del, other, getBytes, putBytes atomic.Int64
}

// newCounter puts a proxy before the server at target. It keeps the Host
// header, which is part of the signature.
func newCounter(target string) (*counter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, orca.PathE("minio.Start", "", orca.Unavailable, err)
	}
	c := &counter{addr: l.Addr().String()}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", target, r.In.Host
		},
		Transport:  &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10},
		BufferPool: &buffers{},
		ErrorLog:   slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	c.server = &http.Server{
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          proxy.ErrorLog,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.serve(proxy, w, r)
		}),
	}
	go func() {
		if err := c.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			_ = l.Close()
		}
	}()
	return c, nil
}

// buffers gives the proxy large copy buffers.
type buffers struct{ pool [16]atomic.Pointer[[]byte] }

func (b *buffers) Get() []byte {
	for i := range b.pool {
		if p := b.pool[i].Swap(nil); p != nil {
			return *p
		}
	}
	return make([]byte, 256<<10)
}

func (b *buffers) Put(p []byte) {
	for i := range b.pool {
		if b.pool[i].CompareAndSwap(nil, &p) {
			return
		}
	}
}

func (c *counter) serve(proxy http.Handler, w http.ResponseWriter, r *http.Request) {
	bucket := !strings.Contains(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodGet && bucket:
		c.list.Add(1)
	case r.Method == http.MethodGet:
		c.get.Add(1)
		w = &countedWriter{w, &c.getBytes}
	case r.Method == http.MethodHead:
		c.head.Add(1)
	case r.Method == http.MethodPut && !bucket:
		c.put.Add(1)
		r.Body = &countedBody{r.Body, &c.putBytes}
	case r.Method == http.MethodDelete:
		c.del.Add(1)
	default:
		c.other.Add(1)
	}
	proxy.ServeHTTP(w, r)
}

type countedWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n.Add(int64(n))
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

func (c *counter) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c.server.Shutdown(ctx) != nil {
		_ = c.server.Close()
	}
}

// Counts returns what was asked for; all zero without Config.Count.
func (s *Server) Counts() Counts {
	c := s.count
	if c == nil {
		return Counts{}
	}
	return Counts{
		Get: c.get.Load(), Head: c.head.Load(), Put: c.put.Load(), List: c.list.Load(), Delete: c.del.Load(), Other: c.other.Load(),
		GetBytes: c.getBytes.Load(), PutBytes: c.putBytes.Load(),
	}
}

// ResetCounts starts counting anew.
func (s *Server) ResetCounts() {
	c := s.count
	if c == nil {
		return
	}
	for _, n := range []*atomic.Int64{&c.get, &c.head, &c.put, &c.list, &c.del, &c.other, &c.getBytes, &c.putBytes} {
		n.Store(0)
	}
}

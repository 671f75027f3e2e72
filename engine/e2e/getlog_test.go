// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// dataGet is one GET of an object: what it asked for, [from, to) with to < 0
// for the end, and how many bytes it was given.
type dataGet struct {
	key      string
	from, to int64
	given    int64
}

// getLog records the GETs of objects, each when it has ended.
type getLog struct {
	mu      sync.Mutex
	gets    []dataGet // GUARDED_BY(mu)
	running int       // GUARDED_BY(mu)
}

// serve lets next answer and records what it gives.
func (l *getLog) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	g := dataGet{key: r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], to: -1}
	if h := r.Header.Get("Range"); h != "" {
		if n, err := fmt.Sscanf(h, "bytes=%d-%d", &g.from, &g.to); n == 2 && err == nil {
			g.to++
		}
	}
	c := &countingWriter{ResponseWriter: w}
	l.mu.Lock()
	l.running++
	l.mu.Unlock()
	defer func() { // an abort of the client is a panic here
		g.given = c.n
		l.mu.Lock()
		l.running--
		l.gets = append(l.gets, g)
		l.mu.Unlock()
	}()
	next.ServeHTTP(c, r)
}

type countingWriter struct {
	http.ResponseWriter
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

// Unwrap lets the reverse proxy flush.
func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// of returns the GETs of an object, by where they begin, when none runs any
// more: who has read the last byte is ahead of the proxy that sent it.
func (l *getLog) of(t *testing.T, key string) []dataGet {
	t.Helper()
	eventually(t, time.Minute, "the store's answers end", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.running == 0
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []dataGet
	for _, g := range l.gets {
		if g.key == key {
			out = append(out, g)
		}
	}
	slices.SortFunc(out, func(a, b dataGet) int { return cmp.Compare(a.from, b.from) })
	return out
}

// onceEach fails unless the GETs of an object asked for each byte at most
// once, and returns how many they asked for and were given.
func (l *getLog) onceEach(t *testing.T, key string, size int64) (asked, given int64) {
	t.Helper()
	end := int64(0)
	gets := l.of(t, key)
	for _, g := range gets {
		to := g.to
		if to < 0 || to > size {
			to = size
		}
		if g.from < end {
			t.Errorf("%s: the bytes from %d on were asked for again; all GETs: %+v", key, g.from, gets)
			return asked, given
		}
		end = to
		asked += to - g.from
		given += g.given
	}
	return asked, given
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs/s3"
)

// bucket is a service with one object, "k", that can be told to misbehave.
type bucket struct {
	*httptest.Server
	data  []byte
	conns atomic.Int64 // accepted
	plain atomic.Int64 // GETs past the SDK
	sdk   atomic.Int64 // GETs of the SDK
	// bad answers a plain GET instead; nil: none does.
	bad atomic.Pointer[http.HandlerFunc]
}

func newBucket(t *testing.T) (*bucket, *s3.FS) {
	t.Helper()
	b := &bucket{data: bytes.Repeat([]byte("0123456789abcdef"), 1<<14)}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(b.serve))
	b.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			b.conns.Add(1)
		}
	}
	b.Start()
	t.Cleanup(b.Close)
	return b, open(t, s3.Config{Bucket: "b", Endpoint: b.URL, PathStyle: true, AccessKey: "a", SecretKey: "s"})
}

func (b *bucket) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("list-type") {
		fmt.Fprint(w, `<?xml version="1.0"?><ListBucketResult></ListBucketResult>`)
		return
	}
	n := &b.plain
	if strings.Contains(r.UserAgent(), "aws-sdk-go") {
		n = &b.sdk
	}
	n.Add(1)
	if f := b.bad.Load(); f != nil && n == &b.plain {
		(*f)(w, r)
		return
	}
	w.Header().Set("Etag", `"e1"`)
	http.ServeContent(w, r, "k", time.Time{}, bytes.NewReader(b.data))
}

func (b *bucket) answer(f http.HandlerFunc) { b.bad.Store(&f) }

func read(ctx context.Context, f *s3.FS, n int64) ([]byte, error) {
	r, err := f.Open(ctx, "k", 0, n, "e1")
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return got, err
}

// GETs that are read to their end share a connection; one that is left early
// costs its own.
func TestPlainConnections(t *testing.T) {
	b, f := newBucket(t)
	for range 3 {
		got, err := read(t.Context(), f, -1)
		require.NoError(t, err)
		require.True(t, bytes.Equal(b.data, got))
		got, err = read(t.Context(), f, 1000)
		require.NoError(t, err)
		require.True(t, bytes.Equal(b.data[:1000], got))
	}
	require.EqualValues(t, 1, b.conns.Load(), "that of the first request of all, which was the SDK's")
	r, err := f.Open(t.Context(), "k", 0, -1, "e1")
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 10))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	_, err = read(t.Context(), f, -1)
	require.NoError(t, err)
	require.EqualValues(t, 2, b.conns.Load())
	require.EqualValues(t, 8, b.plain.Load())
	require.Zero(t, b.sdk.Load())
}

// A server that closes its idle connections is asked again over a new one.
func TestPlainAfterServerHungUp(t *testing.T) {
	b, f := newBucket(t)
	for range 3 {
		got, err := read(t.Context(), f, -1)
		require.NoError(t, err)
		require.True(t, bytes.Equal(b.data, got))
		b.CloseClientConnections()
	}
	require.Zero(t, b.sdk.Load(), "no need for the SDK")
}

// What is not the bytes that were asked for is the SDK's to see to.
func TestPlainGivesUp(t *testing.T) {
	b, f := newBucket(t)
	for name, h := range map[string]http.HandlerFunc{
		"busy":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"elsewhere": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Location", "/x"); w.WriteHeader(307) },
		"whole":     func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b.data) }, // though a range was asked for
		"endless head": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2<<20))
			w.WriteHeader(http.StatusPartialContent)
		},
		"nothing": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			b.answer(h)
			before := b.sdk.Load()
			got, err := read(t.Context(), f, 1000)
			require.NoError(t, err)
			require.True(t, bytes.Equal(b.data[:1000], got))
			require.EqualValues(t, 1, b.sdk.Load()-before)
		})
	}
}

// A body that ends early, and one that is given up, are errors of their kinds.
func TestPlainBodyFails(t *testing.T) {
	b, f := newBucket(t)
	b.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", `"e1"`)
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(make([]byte, 10))
	})
	got, err := read(t.Context(), f, 1000)
	require.ErrorIs(t, err, orca.Unavailable)
	require.Len(t, got, 10)

	given := make(chan struct{})
	b.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"e1"`)
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusPartialContent)
		_ = http.NewResponseController(w).Flush()
		close(given)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { <-given; cancel() }()
	_, err = read(ctx, f, 1000)
	require.ErrorIs(t, err, orca.Canceled)
	require.Zero(t, b.sdk.Load())
}

// A service that ignores If-Match does not get away with other bytes.
func TestPlainOtherVersion(t *testing.T) {
	b, f := newBucket(t)
	b.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", `"e2"`)
		w.WriteHeader(http.StatusPartialContent)
	})
	_, err := read(t.Context(), f, 1000)
	require.ErrorIs(t, err, orca.Stale)
}

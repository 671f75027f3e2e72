// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDownload: every byte comes to its place, by as many requests as there are
// parts, and what is cut short is an error.
func TestDownload(t *testing.T) {
	content := make([]byte, 1<<20+17)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(content)
	var requests atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		requests.Add(1)
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(content))
	}))
	defer srv.Close()
	p := Parallel{Streams: 3, Part: 100_000}
	c := NewParallelClient(p.Streams)
	path := filepath.Join(t.TempDir(), "f")
	took, err := p.Download(t.Context(), c, srv.URL, int64(len(content)), path)
	require.NoError(t, err)
	require.Positive(t, took)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
	require.EqualValues(t, 11, requests.Load())

	_, err = p.Download(t.Context(), c, srv.URL, int64(len(content)), path)
	require.ErrorIs(t, err, os.ErrExist)
	_, err = p.Download(t.Context(), c, srv.URL, int64(len(content))+500_000, filepath.Join(t.TempDir(), "f"))
	require.Error(t, err, "there is less than that")
}

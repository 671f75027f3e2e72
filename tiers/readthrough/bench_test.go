// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/tiers/dir"
	"orca/tiers/readthrough"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
	"orca/ufs"
)

// httpFS reads one large object by ranged GETs over loopback.
type httpFS struct {
	ufs.FS
	url string
}

func (h *httpFS) Open(ctx context.Context, _ string, off, n int64, _ string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// BenchmarkCold reads an object through a cold cache in memory, beside the
// same bytes by one direct GET into a reused buffer, in alternation; the
// ratio is of the medians' sums.
func BenchmarkCold(b *testing.B) {
	const size = 512 << 20
	root := tiertest.MemDir(b)
	path := root + "/object"
	require.NoError(b, os.WriteFile(path, tiertest.Bytes(1, size), 0o600))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }))
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()
	log := slog.New(slog.DiscardHandler)
	store, err := tiered.Open(tiered.Config{Dirs: []dir.Config{{Path: root + "/mem", Tier: orca.MEM, Capacity: 4 * size}}}, log)
	require.NoError(b, err)
	defer store.Close()
	fs := &httpFS{url: srv.URL}
	r := &rig{t: b, fs: fs, files: map[orca.Ino]readthrough.Source{}}
	rt := readthrough.New(readthrough.Config{}, readthrough.Deps{Store: store, Resolver: r, Mounts: r}, log)
	defer rt.Close()
	buf := make([]byte, 1<<20)
	var direct, cold time.Duration
	b.SetBytes(size)
	for i := uint64(1); b.Loop(); i++ {
		at := time.Now()
		rc, err := fs.Open(context.Background(), "", 0, size, "")
		require.NoError(b, err)
		for {
			if _, err := io.ReadFull(rc, buf); err != nil {
				break
			}
		}
		rc.Close()
		direct += time.Since(at)
		r.files[orca.Ino(i)] = readthrough.Source{Attr: orca.Attr{Length: size, BlockSize: size, Version: 1, Persist: orca.Persisted, Fingerprint: "x"}}
		at = time.Now()
		for off := int64(0); off < size; {
			e, err := rt.Open(context.Background(), dataplane.ReadRequest{ID: tiertest.ID(i), Off: off, N: 1 << 20, Sequential: true})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := e.File.ReadAt(buf[:e.N], e.Off); err != nil {
				b.Fatal(err)
			}
			off += e.N
			e.Release()
		}
		cold += time.Since(at)
		require.NoError(b, store.Remove(tiertest.ID(i)))
	}
	b.ReportMetric(direct.Seconds()/cold.Seconds(), "ratio")
	b.ReportMetric(float64(b.N)*size/1e9/direct.Seconds(), "directGB/s")
	b.ReportMetric(float64(b.N)*size/1e9/cold.Seconds(), "coldGB/s")
}

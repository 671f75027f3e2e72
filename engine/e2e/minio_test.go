// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"orca/ufs"
	"orca/ufs/backends"
	"orca/ufs/ufstest/minio"
)

// shared is the one MinIO of this test process; each test has its own bucket.
var shared struct {
	sync.Mutex
	server  *minio.Server
	dir     string
	buckets atomic.Int64
}

func sharedMinIO(t *testing.T) *minio.Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		return shared.server
	}
	dir, err := os.MkdirTemp("", "orca-e2e-minio-")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	s, err := minio.Start(ctx, minio.Config{Dir: dir, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	shared.server, shared.dir = s, dir
	return s
}

func stopMinIO() {
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		shared.server.Stop()
		os.RemoveAll(shared.dir)
		shared.server = nil
	}
}

// minioStore is a fresh bucket behind a proxy with a trap.
func minioStore(t *testing.T) *store {
	t.Helper()
	srv := sharedMinIO(t)
	bucket := fmt.Sprintf("e2e-%d-%d", os.Getpid(), shared.buckets.Add(1))
	if err := srv.CreateBucket(ctxFor(t, time.Minute), bucket); err != nil {
		t.Fatal(err)
	}
	proxy := newS3Proxy(t, srv.Endpoint)
	options := srv.Options()
	options["s3.endpoint"] = proxy.URL
	uri := "s3://" + bucket + "/root"
	s := &store{
		uri: uri, endpoint: proxy.URL, trap: &proxy.trap, reads: proxy.dataReads.Load, gets: &proxy.gets,
		asked: func() (heads, lists, gets int64) {
			return proxy.heads.Load(), proxy.lists.Load(), proxy.dataReads.Load()
		},
		upArgs: []string{"--root", uri},
		open: func(t *testing.T) ufs.FS {
			st, err := backends.Open(ctxFor(t, time.Minute), uri, srv.Options(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			return st
		},
	}
	for _, k := range slices.Sorted(maps.Keys(options)) {
		s.upArgs = append(s.upArgs, "--root-option", k+"="+options[k])
		s.mountOptions = append(s.mountOptions, "--option", k+"="+options[k])
	}
	s.tree = func(t *testing.T) map[string]string { return objects(t, s.open(t)) }
	return s
}

// objects reads every object of a store.
func objects(t *testing.T, st ufs.FS) map[string]string {
	t.Helper()
	defer st.Close()
	ctx := ctxFor(t, 5*time.Minute)
	out := map[string]string{}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	err := st.(ufs.Lister).Walk(ctx, "", func(i ufs.Info) error {
		if i.Dir {
			mu.Lock()
			out["/"+i.Key+"/"] = ""
			mu.Unlock()
			return nil
		}
		g.Go(func() error {
			r, err := st.Open(gctx, i.Key, 0, -1, "")
			if err != nil {
				return err
			}
			defer r.Close()
			b, err := io.ReadAll(r)
			mu.Lock()
			out["/"+i.Key] = string(b)
			mu.Unlock()
			return err
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return out
}

// leftovers lists what no test should leave: temporary files of uploads.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && ufs.IsTemp(d.Name()) {
			out = append(out, p)
		}
		return nil
	})
	return out
}

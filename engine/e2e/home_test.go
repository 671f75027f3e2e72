// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"orca/engine/client"
)

// TestOneFetchPerCluster lets clients of three nodes with workers, and of one
// without, read cold files at once: the store gives each byte once, whichever
// worker the clients ask.
func TestOneFetchPerCluster(t *testing.T) {
	root := t.TempDir()
	p := up(t, t.TempDir(), "--node", "n0", "--root", root)
	workers := []*proc{p, startWorker(t, p.ep.Meta, "n1"), startWorker(t, p.ep.Meta, "n2")}
	ctx := ctxFor(t, 2*time.Minute)
	const files, size = 6, 8 << 20
	want := map[string][32]byte{}
	for i := range files {
		content := bytes.Repeat([]byte(fmt.Sprintf("%015d\n", i)), size/16)
		name := fmt.Sprint("cold", i)
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
		want["/"+name] = sha256.Sum256(content)
	}
	fetched := func() (n float64) {
		for _, w := range workers {
			n += w.metric("orca_worker_read_ufs_bytes_total")
		}
		return n
	}
	before := fetched()
	var wg sync.WaitGroup
	for i := range 12 {
		fs := dial(t, client.Config{Addresses: []string{p.ep.Meta}, Node: fmt.Sprint("n", i%4)})
		wg.Go(func() {
			for name, sum := range want {
				if got, err := sumOf(ctx, fs, name); err != nil || got != sum {
					t.Errorf("client %d, %s: wrong bytes or %v", i, name, err)
				}
			}
		})
	}
	wg.Wait()
	if n := fetched() - before; n != files*size {
		t.Errorf("the store gave %v bytes for %d", n, files*size)
	}
	homes := 0
	for _, w := range workers {
		if w.metric("orca_worker_read_ufs_bytes_total") > 0 {
			homes++
		}
	}
	t.Logf("%d of %d workers fetched", homes, len(workers))
}

// TestLoadMakesOneCopy loads cold files on three workers: each is on one of them
// then, as was asked for, and was fetched by that one.
func TestLoadMakesOneCopy(t *testing.T) {
	root := t.TempDir()
	p := up(t, t.TempDir(), "--node", "n0", "--root", root)
	x := &trio{t: t, workers: map[uint64]*proc{}}
	workers := []*proc{p, startWorker(t, p.ep.Meta, "n1"), startWorker(t, p.ep.Meta, "n2")}
	ctx := ctxFor(t, 2*time.Minute)
	fs := dial(t, client.Config{Addresses: []string{p.ep.Meta}})
	eventually(t, time.Minute, "the metaplane knows the workers", func() bool {
		all, err := fs.Workers(ctx)
		for _, o := range all {
			for _, w := range workers {
				if o.Live && o.Addr == w.ep.Worker {
					x.workers[o.Id] = w
				}
			}
		}
		return err == nil && len(x.workers) == 3
	})
	const files, size = 200, 100_000 // more than one task
	for i := range files {
		if err := os.WriteFile(filepath.Join(root, fmt.Sprint("cold", i)), random(uint64(i), size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.must("fs", "load", "/")
	for i := range files {
		path := fmt.Sprint("/cold", i)
		if at := x.copies(ctx, fs, path); len(at) != 1 {
			t.Errorf("%s is on the workers %x", path, at)
		}
	}
	if n := x.metric("orca_worker_read_home_reads_total"); n > 0 {
		t.Errorf("%v times another worker was asked to fetch, too", n)
	}
	if n := x.metric("orca_worker_read_ufs_bytes_total"); n != files*size {
		t.Errorf("the store gave %v bytes for %d", n, files*size)
	}
}

func sumOf(ctx context.Context, fs *client.FS, name string) (sum [32]byte, err error) {
	f, err := fs.Open(ctx, client.Path(name), client.ReadOptions{})
	if err != nil {
		return sum, err
	}
	defer f.Close()
	all := sha256.New()
	if _, err := io.Copy(all, struct{ io.Reader }{f}); err != nil {
		return sum, err
	}
	return [32]byte(all.Sum(nil)), nil
}

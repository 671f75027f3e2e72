// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"orca/engine/client"
)

// TestCrowdOnOneColdFile lets 100 clients of four nodes, three of them with a
// worker, read one cold object at once: in order, and page by page each in an
// order of its own. The proxy before the store sees every byte asked for once.
func TestCrowdOnOneColdFile(t *testing.T) {
	s := minioStore(t)
	const clients, size, page = 100, 2 << 20, 64 << 10
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(content)
	sum := sha256.Sum256(content)
	st := s.open(t)
	defer st.Close()
	ctx := ctxFor(t, 5*time.Minute)
	for _, key := range []string{"ordered", "pages"} {
		if err := putObject(ctx, st, key, string(content)); err != nil {
			t.Fatal(err)
		}
	}
	p := upEnv(t, t.TempDir(), s.env, append([]string{"--node", "n0"}, s.upArgs...)...)
	startWorker(t, p.ep.Meta, "n1")
	startWorker(t, p.ep.Meta, "n2")
	eventually(t, 60*time.Second, "the metaplane knows three workers", func() bool {
		var report struct {
			Live int `json:"live_workers"`
		}
		return json.Unmarshal([]byte(p.must("admin", "report", "--json")), &report) == nil && report.Live == 3
	})
	var conns []*client.FS
	for i := range clients {
		conns = append(conns, dial(t, client.Config{Addresses: []string{p.ep.Meta}, Node: fmt.Sprint("n", i%4)}))
	}
	crowd := func(read func(i int, fs *client.FS) error) {
		var wg sync.WaitGroup
		for i, fs := range conns {
			wg.Go(func() {
				if err := read(i, fs); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	}
	crowd(func(_ int, fs *client.FS) error {
		got, err := sumOf(ctx, fs, "/ordered")
		if err == nil && got != sum {
			err = fmt.Errorf("wrong bytes")
		}
		return err
	})
	if asked, given := s.gets.onceEach(t, "ordered", size); asked != size || given != size {
		t.Errorf("in order: the store was asked for %d bytes and gave %d, of %d", asked, given, size)
	}
	crowd(func(i int, fs *client.FS) error {
		f, err := fs.Open(ctx, client.Path("/pages"), client.ReadOptions{})
		if err != nil {
			return err
		}
		defer f.Close()
		rnd := rand.New(rand.NewPCG(2, uint64(i)))
		got := make([]byte, page)
		for _, k := range rnd.Perm(size / page) {
			off := int64(k) * page
			if _, err := f.ReadAt(got, off); err != nil {
				return err
			}
			if !bytes.Equal(got, content[off:off+page]) {
				return fmt.Errorf("wrong bytes at %d", off)
			}
		}
		return nil
	})
	if asked, given := s.gets.onceEach(t, "pages", size); asked != size || given != size {
		t.Errorf("page by page: the store was asked for %d bytes and gave %d, of %d", asked, given, size)
	}
}

// TestRandomColdReadsAmplify reads 4 KiB here and there in a cold object,
// through a worker of the same node and of another one: the store gives at
// most 16 times the bytes that were read.
func TestRandomColdReadsAmplify(t *testing.T) {
	s := minioStore(t)
	const size, n, reads = 32 << 20, 4 << 10, 100
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{2}).Read(content)
	st := s.open(t)
	defer st.Close()
	ctx := ctxFor(t, 5*time.Minute)
	p := upEnv(t, t.TempDir(), s.env, append([]string{"--node", "n0"}, s.upArgs...)...)
	for _, node := range []string{"n0", "elsewhere"} {
		if err := putObject(ctx, st, node, string(content)); err != nil {
			t.Fatal(err)
		}
		fs := dial(t, client.Config{Addresses: []string{p.ep.Meta}, Node: node})
		f, err := fs.Open(ctx, client.Path("/"+node), client.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		rnd := rand.New(rand.NewPCG(4, 5))
		got := make([]byte, n)
		for range reads {
			off := rnd.Int64N(size/n) * n
			if _, err := f.ReadAt(got, off); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, content[off:off+n]) {
				t.Fatalf("wrong bytes at %d", off)
			}
		}
		asked, given := int64(0), int64(0)
		for _, g := range s.gets.of(t, node) {
			if g.to < 0 {
				t.Errorf("a GET without an end: %+v", g)
			}
			asked += g.to - g.from
			given += g.given
		}
		if given == 0 || asked > 16*reads*n || given > 16*reads*n {
			t.Errorf("a client on %s read %d bytes: the store was asked for %d and gave %d", node, reads*n, asked, given)
		}
		t.Logf("a client on %s: %.1f times the bytes", node, float64(given)/float64(reads*n))
	}
}

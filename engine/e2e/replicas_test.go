// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// trio is a metaplane without a worker and workers on nodes of their own.
type trio struct {
	t       *testing.T
	meta    *proc
	env     []string
	workers map[uint64]*proc // that live, by id
	nodes   map[uint64]string
}

// workerArgs keep the folders of many workers small.
var workerArgs = []string{"--mem", "96MB", "--ssd", "512MB"}

func startTrio(t *testing.T, workers int, env []string, args ...string) *trio {
	t.Helper()
	data := t.TempDir()
	m, ready := launch(t, data, env, slices.Concat([]string{"start", "--role", "meta", "--node", "meta", "--data", data}, freePorts, args)...)
	select {
	case <-ready:
	case <-time.After(2 * time.Minute):
		t.Fatalf("the metaplane is not ready:\n%s", tail(m.output(), 6000))
	}
	m.loadEndpoints()
	x := &trio{t: t, meta: m, env: env, workers: map[uint64]*proc{}, nodes: map[uint64]string{}}
	for i := range workers {
		x.start(fmt.Sprint("w", i))
	}
	return x
}

// start adds a worker.
func (x *trio) start(node string) uint64 {
	x.t.Helper()
	return x.join(startWorkerAt(x.t, x.t.TempDir(), x.meta.ep.Meta, node, x.env, workerArgs...), node)
}

func (x *trio) join(w *proc, node string) uint64 {
	x.t.Helper()
	ctx := ctxFor(x.t, time.Minute)
	fs := x.client("elsewhere")
	var id uint64
	eventually(x.t, time.Minute, "the metaplane knows the worker", func() bool {
		ws, err := fs.Workers(ctx)
		for _, o := range ws {
			if err == nil && o.Live && o.Addr == w.ep.Worker {
				id = o.Id
			}
		}
		return id != 0
	})
	x.workers[id], x.nodes[id] = w, node
	return id
}

// kill ends a worker by kill -9.
func (x *trio) kill(id uint64) {
	x.t.Helper()
	w := x.workers[id]
	if w == nil {
		x.t.Fatalf("worker %x does not run", id)
	}
	w.kill()
	delete(x.workers, id)
}

// again starts a killed worker on its folder.
func (x *trio) again(id uint64, data string) {
	x.t.Helper()
	w := startWorkerAt(x.t, data, x.meta.ep.Meta, x.nodes[id], x.env, workerArgs...)
	if got := x.join(w, x.nodes[id]); got != id {
		x.t.Fatalf("the worker is %x by now, not %x", got, id)
	}
}

func (x *trio) client(node string) *client.FS {
	x.t.Helper()
	return dial(x.t, client.Config{Addresses: []string{x.meta.ep.Meta}, Node: node, Attempt: 5 * time.Second, WorkersTTL: 100 * time.Millisecond})
}

// metric sums a metric over the live workers.
func (x *trio) metric(name string) (n float64) {
	for _, w := range x.workers {
		n += w.metric(name)
	}
	return n
}

// copies returns the live workers that have the whole file.
func (x *trio) copies(ctx context.Context, fs *client.FS, path string) []uint64 {
	i, locs, err := fs.Locations(ctx, client.Path(path))
	if err != nil {
		return nil
	}
	var out []uint64
	for _, l := range locs {
		if l.Worker != nil && x.workers[l.Worker.Id] != nil && l.Cached >= i.Length {
			out = append(out, l.Worker.Id)
		}
	}
	return out
}

// random is content that does not compress into a pattern.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

// TestKillInMidWrite kills the first, the middle and the last worker of a chain
// while a client writes through it. The write goes on, and what is acknowledged
// is on as many workers as promised, or in the store.
func TestKillInMidWrite(t *testing.T) {
	x := startTrio(t, 3, nil)
	ctx := ctxFor(t, 3*time.Minute)
	for _, c := range []struct {
		name     string
		ty       orca.WriteType
		replicas uint32
		victim   int
		local    bool // the client shares the node of the first
	}{
		{"first of three", orca.AsyncThrough, 3, 0, false},
		{"middle of three", orca.AsyncThrough, 3, 1, false},
		{"last of three", orca.AsyncThrough, 3, 2, false},
		{"first of two, a third takes its place", orca.MustCache, 2, 0, false},
		{"second of two, a third takes its place", orca.MustCache, 2, 1, false},
		{"the one on the writer's node", orca.MustCache, 2, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			node := "elsewhere"
			if c.local {
				node = "w1"
			}
			fs := x.client(node)
			path := fmt.Sprintf("/f%d-%d-%v", c.replicas, c.victim, c.local)
			want := random(uint64(c.victim), 12<<20+12345)
			w, err := fs.Create(ctx, client.Path(path), client.CreateOptions{WriteType: c.ty, Replicas: c.replicas})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(want[:5<<20]); err != nil {
				t.Fatal(err)
			}
			chain := w.Workers()
			if !c.local && len(chain) != int(c.replicas) {
				t.Fatalf("the chain is %x", chain)
			}
			victim := chain[c.victim]
			data := x.workers[victim].data
			x.kill(victim)
			defer x.again(victim, data)
			if _, err := w.Write(want[5<<20:]); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			i, err := fs.Stat(ctx, client.Path(path), client.Sync{})
			if err != nil {
				t.Fatal(err)
			}
			if n := len(x.copies(ctx, fs, path)); n != 2 {
				t.Errorf("%d of the two live workers have it", n)
			}
			if c.replicas == 3 && i.Persist != orca.Persisted {
				t.Errorf("acknowledged with two durable copies of three, and %v", i.Persist)
			}
			got, err := get(ctx, x.client("reader"), path, client.Sync{})
			if err != nil || !bytes.Equal([]byte(got), want) {
				t.Errorf("read back: %d bytes, %v", len(got), err)
			}
			if fs.Stats().WriteFailovers.Load() == 0 && c.victim == 0 {
				t.Error("no failover was counted")
			}
		})
	}
	t.Run("more copies than workers", func(t *testing.T) {
		fs := x.client("elsewhere")
		err := write(ctx, fs, "/four", "x", client.CreateOptions{WriteType: orca.MustCache, Replicas: 4})
		if !errors.Is(err, orca.NoSpace) {
			t.Errorf("four copies on three workers: %v", err)
		}
		if _, err := fs.Stat(ctx, client.Path("/four"), client.Sync{}); !errors.Is(err, orca.NotFound) {
			t.Errorf("something is left of it: %v", err)
		}
	})
	t.Run("bytes sent", func(t *testing.T) {
		fs := x.client("elsewhere")
		sent, pieces := x.metric("orca_worker_write_bytes_forwarded_total"), x.metric("orca_worker_server_writes_total")
		const n = 8 << 20
		if err := write(ctx, fs, "/counted", string(random(9, n)), client.CreateOptions{WriteType: orca.AsyncThrough, Replicas: 3}); err != nil {
			t.Fatal(err)
		}
		if d := x.metric("orca_worker_write_bytes_forwarded_total") - sent; d != 2*n {
			t.Errorf("%v bytes between workers for %d written and two hops", d, n)
		}
		if d := x.metric("orca_worker_server_writes_total") - pieces; d != 3*8 {
			t.Errorf("%v write requests for 8 MiB at three workers", d)
		}
	})
}

// TestKillAfterAcknowledgement: of an ASYNC_THROUGH file of two replicas whose
// first worker dies before it is persisted nothing is lost: it is read, and
// brought into the store, by the other one.
func TestKillAfterAcknowledgement(t *testing.T) {
	s := minioStore(t)
	g, args := gated(t, s)
	x := startTrio(t, 2, s.env, args...)
	ctx := ctxFor(t, 2*time.Minute)
	g.close(func(string) bool { return true })
	fs := x.client("elsewhere")
	want := random(7, 3<<20+5)
	if err := write(ctx, fs, "/async", string(want), client.CreateOptions{WriteType: orca.AsyncThrough, Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	i, locs, err := fs.Locations(ctx, client.Path("/async"))
	if err != nil || i.Persist != orca.ToBePersisted || len(locs) != 2 {
		t.Fatalf("%v on %d workers, %v", i.Persist, len(locs), err)
	}
	x.kill(locs[0].WorkerID)
	if got, err := get(ctx, x.client("reader"), "/async", client.Sync{}); err != nil || got != string(want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	g.open()
	eventually(t, time.Minute, "the other worker persists it", func() bool { return persisted(ctx, fs) })
	if got := s.tree(t)["/async"]; got != string(want) {
		t.Errorf("%d bytes in the store", len(got))
	}
}

// TestRepair: what a worker that died has had is made up for within the time,
// what is unpersisted first; a damaged copy is made whole; too many are dropped.
func TestRepair(t *testing.T) {
	x := startTrio(t, 3, nil, "--repair-after", "500ms")
	ctx := ctxFor(t, 3*time.Minute)
	fs := x.client("elsewhere")
	files := map[string][]byte{}
	for i, ty := range []orca.WriteType{orca.MustCache, orca.CacheThrough} {
		path := "/" + ty.String()
		files[path] = random(uint64(20+i), 3<<20+1)
		if err := write(ctx, fs, path, string(files[path]), client.CreateOptions{WriteType: ty, Replicas: 2}); err != nil {
			t.Fatal(err)
		}
		if n := len(x.copies(ctx, fs, path)); n != 2 {
			t.Fatalf("%s has %d copies", path, n)
		}
	}
	out := x.meta.must("fs", "stat", "/MUST_CACHE")
	if !strings.Contains(out, "2 (min 2, max any)") {
		t.Errorf("stat:\n%s", out)
	}

	t.Run("a flipped bit", func(t *testing.T) {
		id := x.copies(ctx, fs, "/MUST_CACHE")[0]
		flipBit(t, x.workers[id].data, 3<<20+1)
		before := x.metric("orca_worker_write_kept_total")
		x.meta.must("admin", "scrub", "--wait", x.nodes[id])
		if got, err := get(ctx, x.client(x.nodes[id]), "/MUST_CACHE", client.Sync{}); err != nil || got != string(files["/MUST_CACHE"]) {
			t.Fatalf("by the other copy: %d bytes, %v", len(got), err)
		}
		eventually(t, time.Minute, "the damaged copy is made whole from the other", func() bool {
			return x.metric("orca_worker_write_kept_total") > before && len(x.copies(ctx, fs, "/MUST_CACHE")) == 2
		})
		if now := x.copies(ctx, fs, "/MUST_CACHE"); !slices.Contains(now, id) {
			t.Errorf("it is on %x, and no longer on %x", now, id)
		}
	})

	t.Run("too many", func(t *testing.T) {
		x.meta.must("fs", "setReplication", "--min", "3", "/CACHE_THROUGH")
		eventually(t, time.Minute, "three copies", func() bool { return len(x.copies(ctx, fs, "/CACHE_THROUGH")) == 3 })
		x.meta.must("fs", "setReplication", "--min", "1", "--max", "1", "/CACHE_THROUGH")
		eventually(t, time.Minute, "one copy", func() bool { return len(x.copies(ctx, fs, "/CACHE_THROUGH")) == 1 })
		if got, err := get(ctx, x.client("reader"), "/CACHE_THROUGH", client.Sync{}); err != nil || got != string(files["/CACHE_THROUGH"]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if out := x.meta.must("job", "ls"); !strings.Contains(out, "EVICT") {
			t.Errorf("job ls:\n%s", out)
		}
		// What is in no store is never dropped.
		x.meta.must("fs", "setReplication", "--max", "0", "/MUST_CACHE")
		n := x.meta.metric("orca_jobs_rounds_total")
		eventually(t, time.Minute, "some rounds", func() bool { return x.meta.metric("orca_jobs_rounds_total") > n+4 })
		if got, err := get(ctx, x.client("reader"), "/MUST_CACHE", client.Sync{}); err != nil || got != string(files["/MUST_CACHE"]) {
			t.Errorf("what is nowhere else: %d bytes, %v", len(got), err)
		}
		for path := range files {
			x.meta.must("fs", "setReplication", "--min", "2", path)
		}
		eventually(t, time.Minute, "two copies again", func() bool { return len(x.copies(ctx, fs, "/CACHE_THROUGH")) == 2 })
	})

	t.Run("a worker dies", func(t *testing.T) {
		held := x.copies(ctx, fs, "/MUST_CACHE")
		x.kill(held[0])
		begin := time.Now()
		for path := range files {
			eventually(t, time.Minute, path+" has two copies again", func() bool { return len(x.copies(ctx, fs, path)) == 2 })
		}
		t.Logf("two copies again %v after the kill", time.Since(begin).Round(100*time.Millisecond))
		// The other one of the first two may go, too.
		x.kill(held[1])
		for path, want := range files {
			if got, err := get(ctx, x.client("reader"), path, client.Sync{}); err != nil || got != string(want) {
				t.Errorf("%s by the copy that was made: %d bytes, %v", path, len(got), err)
			}
		}
		if out := x.meta.must("job", "ls"); !strings.Contains(out, "REPLICATE") {
			t.Errorf("job ls:\n%s", out)
		}
		if x.meta.metric("orca_jobs_copies_made_total") == 0 {
			t.Error("no copies are counted")
		}
	})
}

// flipBit changes one bit of the block file of this length below a worker's folder.
func flipBit(t *testing.T, data string, length int64) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(data, func(p string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		i, err := d.Info()
		if err != nil || i.Size() != length {
			return nil
		}
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, length/2); err != nil {
			return err
		}
		b[0] ^= 4
		found++
		_, err = f.WriteAt(b, length/2)
		return err
	})
	if err != nil || found == 0 {
		t.Fatalf("no block file of %d bytes: %v", length, err)
	}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/tiers/readthrough"
	"orca/tiers/tiertest"
	"orca/ufs"
)

// cluster is some workers over one store that read from each other. Worker 0
// is the home of every file, and worker 1 comes next.
type cluster []*rig

func newCluster(t *testing.T, n int, cfg readthrough.Config, fs func(ufs.FS) ufs.FS) cluster {
	c := make(cluster, n)
	for i := range c {
		c[i] = newRig(t, rigOptions{cfg: cfg, peers: (*clusterPeers)(&c)})
		c[i].fs = fs(c[0].fs)
	}
	return c
}

// file makes a file that every worker knows.
func (c cluster) file(ino orca.Ino, p []byte) {
	c[0].file(ino, 1, p, 8<<20)
	src := c[0].files[ino]
	for i, r := range c {
		src.Homes, src.Before = nil, i
		for k := range c {
			if k != i {
				src.Homes = append(src.Homes, readthrough.Peer{Worker: uint64(k)})
			}
		}
		r.mu.Lock()
		r.files[ino] = src
		r.mu.Unlock()
	}
}

func (c cluster) fetched() (out []int64) {
	for _, r := range c {
		out = append(out, r.rt.Metrics.UFSBytes.Load())
	}
	return out
}

// clusterPeers asks the other workers in this process, without a time limit.
type clusterPeers cluster

func (p *clusterPeers) Open(ctx context.Context, peer readthrough.Peer, req dataplane.ReadRequest) (io.ReadCloser, error) {
	return &clusterReader{ctx: ctx, rt: (*p)[peer.Worker].rt, req: req}, nil
}

type clusterReader struct {
	ctx context.Context
	rt  *readthrough.Service
	req dataplane.ReadRequest
}

func (r *clusterReader) Read(p []byte) (int, error) {
	if r.req.N == 0 {
		return 0, io.EOF
	}
	req := r.req
	req.N = min(req.N, int64(len(p)))
	e, err := r.rt.Open(r.ctx, req)
	if err != nil {
		return 0, err
	}
	got, err := tiertest.ReadExtent(e)
	n := copy(p, got)
	r.req.Off += int64(n)
	r.req.N -= int64(n)
	if n == 0 && err == nil {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *clusterReader) Close() error { return nil }

// heldFS keeps the answers about some keys back until it is let go.
type heldFS struct {
	ufs.FS
	prefix string
	gate   chan struct{}
}

func (h *heldFS) Open(ctx context.Context, key string, off, n int64, want string) (io.ReadCloser, error) {
	if strings.HasPrefix(key, h.prefix) {
		select {
		case <-h.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return h.FS.Open(ctx, key, off, n, want)
}

// everywhere lets several readers of each of these workers read a range.
func (c cluster) everywhere(t *testing.T, want []byte, id orca.BlockID, off, n int64, workers ...int) {
	t.Helper()
	var wg sync.WaitGroup
	for _, w := range workers {
		for range 4 {
			wg.Go(func() {
				got, err := c[w].read(id, off, n, n, false)
				if err != nil || !bytes.Equal(want[off:off+n], got) {
					t.Errorf("worker %d: %d of %d bytes, %v", w, len(got), n, err)
				}
			})
		}
	}
	wg.Wait()
}

// TestLoadedHomeHandsOn: a home at its bound begins nothing for others. They
// agree on the next worker, and stay with it when the home is idle again, so
// that the store still gives each byte once.
func TestLoadedHomeHandsOn(t *testing.T) {
	const size = 4 << 20
	for name, forget := range map[string]time.Duration{"while it is remembered": time.Hour, "until it is forgotten": time.Nanosecond} {
		t.Run(name, func(t *testing.T) {
			gate := make(chan struct{})
			busy := []orca.Ino{0xb0, 0xb1}
			c := newCluster(t, 3, readthrough.Config{MaxStreams: 4, ResolveFor: forget}, func(in ufs.FS) ufs.FS {
				return &heldFS{in, "kb", gate}
			})
			var wg sync.WaitGroup
			for _, ino := range busy {
				c.file(ino, tiertest.Bytes(uint64(ino), 1<<20))
				wg.Go(func() {
					if _, err := c[0].read(orca.BlockID{File: ino, Version: 1}, 0, 1<<20, 1<<20, true); err != nil {
						t.Errorf("the home's own reader: %v", err)
					}
				})
			}
			tiertest.Eventually(t, "the home is at its bound", func() bool { return c[0].rt.Metrics.Streams.Load() == 2 })
			p := tiertest.Bytes(7, size)
			c.file(1, p)
			// From the end, so that nothing is read ahead.
			c.everywhere(t, p, tiertest.ID(1), size/2, size/2, 1, 2)
			require.Equal(t, []int64{0, size / 2, 0}, c.fetched(), "the second worker fetches for the third")
			require.Positive(t, c[0].rt.Metrics.HomeBusy.Load())
			require.Positive(t, c[2].rt.Metrics.HomeReads.Load())
			close(gate)
			wg.Wait()
			tiertest.Eventually(t, "the home is idle", func() bool { return c[0].rt.Metrics.Active.Load() == 0 })
			c.everywhere(t, p, tiertest.ID(1), 0, size/2, 0, 1, 2)
			if got := c.fetched(); forget > time.Second {
				require.Equal(t, []int64{2 << 20, size, 0}, got, "the store gave each byte once")
			} else {
				require.Equal(t, []int64{size / 2, 0}, got[1:])
				require.GreaterOrEqual(t, got[0], int64(2<<20+size/2), "the home takes on again")
			}
		})
	}
}

// TestOwnCopyIsTheOnlyOne: a worker that is to have a copy makes no other one
// have it, too: not while nobody is known to hold the file, not when who is known
// does not serve it, not when it is busy.
func TestOwnCopyIsTheOnlyOne(t *testing.T) {
	const size, self = 3<<20 + 12345, 2
	for name, tc := range map[string]struct {
		holder bool // worker 1 is known to hold the file, and does not
		loaded bool // the worker itself fetches as much as it does for others
	}{"no holder is known": {}, "the holder fails": {holder: true}, "the worker is at its bound": {loaded: true}} {
		t.Run(name, func(t *testing.T) {
			gate := make(chan struct{})
			c := newCluster(t, 3, readthrough.Config{MaxStreams: 4}, func(in ufs.FS) ufs.FS { return &heldFS{in, "kb", gate} })
			var wg sync.WaitGroup
			for _, ino := range []orca.Ino{0xb0, 0xb1} {
				if !tc.loaded {
					break
				}
				c.file(ino, tiertest.Bytes(uint64(ino), 1<<20))
				wg.Go(func() { _, _ = c.own(self, orca.BlockID{File: ino, Version: 1}, 1<<20) })
			}
			tiertest.Eventually(t, "its streams run", func() bool { return !tc.loaded || c[self].rt.Metrics.Streams.Load() == 2 })
			p := tiertest.Bytes(7, size)
			c.file(1, p)
			if tc.holder {
				src := c[self].files[1]
				src.Peers = []readthrough.Peer{{Worker: 1}}
				c[self].files[1] = src
			}
			got, err := c.own(self, tiertest.ID(1), size)
			require.NoError(t, err)
			require.True(t, bytes.Equal(p, got))
			require.Equal(t, []int64{0, 0, size}, c.fetched())
			for i, r := range c {
				m, err := r.store.Stat(tiertest.ID(1))
				if i == self {
					require.NoError(t, err)
					require.True(t, m.Complete)
				} else {
					require.ErrorIs(t, err, orca.NotFound, "worker %d has some of it, too", i)
				}
			}
			close(gate)
			wg.Wait()
		})
	}
}

// own lets a worker that is to have a copy of a block read it.
func (c cluster) own(worker int, id orca.BlockID, n int64) (out []byte, err error) {
	for int64(len(out)) < n {
		off := int64(len(out))
		e, err := c[worker].rt.Open(context.Background(), dataplane.ReadRequest{ID: id, Off: off, N: n - off, Sequential: true, Own: true})
		if err != nil {
			return out, err
		}
		p, err := tiertest.ReadExtent(e)
		if err != nil || len(p) == 0 {
			return out, errors.Join(err, io.ErrNoProgress)
		}
		out = append(out, p...)
	}
	return out, nil
}

// TestHomesNeverWaitInACircle: workers that are all at their bound read the
// same files, and none waits for another for ever.
func TestHomesNeverWaitInACircle(t *testing.T) {
	const files, size = 12, 1<<20 + 12345
	c := newCluster(t, 3, readthrough.Config{MaxStreams: 2, Idle: 10 * time.Millisecond, ResolveFor: 5 * time.Millisecond}, func(in ufs.FS) ufs.FS { return in })
	content := map[uint64][]byte{}
	for i := range uint64(files) {
		content[i] = tiertest.Bytes(i, size)
		c.file(orca.Ino(i), content[i])
	}
	var wg sync.WaitGroup
	for w := range 9 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 3))
			for range 40 {
				i, off := rnd.Uint64N(files), rnd.Int64N(size)
				n := rnd.Int64N(size-off) + 1
				got, err := c[w%3].read(tiertest.ID(i), off, n, 256<<10, rnd.IntN(2) == 0)
				if err != nil || !bytes.Equal(content[i][off:off+n], got) {
					t.Errorf("worker %d, file %d [%d,+%d): %v", w%3, i, off, n, err)
				}
				if rnd.IntN(3) == 0 {
					_ = c[w%3].store.Remove(tiertest.ID(i))
				}
			}
		})
	}
	wg.Wait()
	require.Positive(t, c[0].rt.Metrics.HomeBusy.Load(), "nothing was handed on: this tests nothing")
}

// TestHomesNeverWaitForSlots: two workers use their only slot to wait for each
// other, the one by what it had accepted before, the other by what it has joined.
func TestHomesNeverWaitForSlots(t *testing.T) {
	const a, b, size = 1, 2, 1 << 20
	c := newCluster(t, 2, readthrough.Config{MaxStreams: 1}, func(in ufs.FS) ufs.FS { return in })
	gate := make(chan struct{})
	c[1].gate = func(ino orca.Ino) {
		if ino == b {
			<-gate
		}
	}
	for _, ino := range []orca.Ino{a, b} {
		c.file(ino, tiertest.Bytes(uint64(ino), size))
	}
	for i, r := range c { // worker 1 is the home of b
		src := r.files[b]
		src.Before = 1 - i
		r.files[b] = src
	}
	var wg sync.WaitGroup
	read := func(worker int, ino uint64) {
		wg.Go(func() {
			got, err := c[worker].read(tiertest.ID(ino), 0, size, size, true)
			if err != nil || !bytes.Equal(tiertest.Bytes(ino, size), got) {
				t.Errorf("worker %d, file %d: %d bytes, %v", worker, ino, len(got), err)
			}
		})
	}
	read(0, b)
	tiertest.Eventually(t, "worker 1 has accepted b", func() bool { return c[1].asked.Load() == 1 })
	read(0, a)
	tiertest.Eventually(t, "worker 0 waits for its slot", func() bool { return c[0].rt.Metrics.Queued.Load() == 1 })
	read(1, a)
	tiertest.Eventually(t, "worker 1 has joined that", func() bool { return c[0].rt.Metrics.Joins.Load() == 1 })
	close(gate)
	wg.Wait()
	require.Equal(t, []int64{size, size}, c.fetched())
}

// TestQueueIsSeen: fills beyond MaxStreams wait, and are counted while they do.
func TestQueueIsSeen(t *testing.T) {
	r := newRig(t, rigOptions{cfg: readthrough.Config{MaxStreams: 2}})
	gate := make(chan struct{})
	r.fs = &heldFS{r.fs, "k", gate}
	p := tiertest.Bytes(1, 100_000)
	var wg sync.WaitGroup
	for i := range orca.Ino(5) {
		r.file(i, 1, p, 1<<20)
		wg.Go(func() {
			got, err := r.read(orca.BlockID{File: i, Version: 1}, 0, int64(len(p)), 1<<20, false)
			if err != nil || !bytes.Equal(p, got) {
				t.Errorf("file %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	m := &r.rt.Metrics
	tiertest.Eventually(t, "two fetch and three wait", func() bool { return m.Streams.Load() == 2 && m.Queued.Load() == 3 })
	close(gate)
	wg.Wait()
	tiertest.Eventually(t, "nothing waits", func() bool { return m.Streams.Load() == 0 && m.Queued.Load() == 0 })
}

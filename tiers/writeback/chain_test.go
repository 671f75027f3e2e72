// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/tiers/blockfile"
	"orca/tiers/tiertest"
	"orca/tiers/writeback"
)

// town is some workers that reach each other by number. Their clocks, stores
// and files are real; the wire between them is a call that a test may cut.
type town struct {
	t       *testing.T
	workers []*rig

	mu     sync.Mutex
	dead   map[int]bool
	onCall func(worker int, op string) error // before a call arrives
	pieces map[int]int                       // written, by the worker that got them
	bytes  map[int]int64
	open   int // uses of a worker that have not ended
}

// number is the address of a worker.
func (w *town) number(addr string) (n int) {
	_, err := fmt.Sscanf(addr, "worker-%d", &n)
	require.NoError(w.t, err)
	return n
}

// Forward implements writeback.Peers.
func (w *town) Forward(addr string) (writeback.Forward, func(error), error) {
	n := w.number(addr)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open++
	var once sync.Once
	return &wire{w, n}, func(error) {
		once.Do(func() {
			w.mu.Lock()
			w.open--
			w.mu.Unlock()
		})
	}, nil
}

func (w *town) call(n int, op string) error {
	w.mu.Lock()
	f, dead := w.onCall, w.dead[n]
	w.mu.Unlock()
	if !dead && f != nil {
		if err := f(n, op); err != nil {
			return err
		}
		w.mu.Lock()
		dead = w.dead[n]
		w.mu.Unlock()
	}
	if dead {
		return orca.E("wire."+op, orca.Unavailable, "the worker is dead")
	}
	return nil
}

func (w *town) kill(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead[n] = true
}

// wire is the way to one worker.
type wire struct {
	*town
	n int
}

func (c *wire) wb() *writeback.Service { return c.workers[c.n].wb }

func (c *wire) CreateWrite(ctx context.Context, t dataplane.WriteTarget) (uint64, error) {
	return c.wb().CreateWrite(ctx, t)
}

func (c *wire) CreateChain(ctx context.Context, t dataplane.WriteTarget) (uint64, []dataplane.Link, error) {
	if err := c.call(c.n, "create"); err != nil {
		return 0, nil, err
	}
	return c.wb().CreateChain(ctx, t)
}

func (c *wire) WriteChain(ctx context.Context, id uint64, p []byte, off int64, sums []uint32) (int, error) {
	if err := c.call(c.n, "write"); err != nil {
		return 0, err
	}
	c.mu.Lock()
	c.pieces[c.n]++
	c.bytes[c.n] += int64(len(p))
	c.mu.Unlock()
	return c.wb().WriteChain(ctx, id, p, off, sums)
}

func (c *wire) Truncate(ctx context.Context, id uint64, length int64) error {
	if err := c.call(c.n, "truncate"); err != nil {
		return err
	}
	return c.wb().Truncate(ctx, id, length)
}

func (c *wire) Seal(ctx context.Context, id uint64, t dataplane.WriteTarget, keep bool) (dataplane.SealResult, error) {
	if err := c.call(c.n, "seal"); err != nil {
		return dataplane.SealResult{}, err
	}
	return c.wb().Seal(ctx, id, t, keep)
}

func (c *wire) Abort(ctx context.Context, id uint64) error {
	if err := c.call(c.n, "abort"); err != nil {
		return err
	}
	return c.wb().Abort(ctx, id)
}

func (c *wire) Sync(ctx context.Context, id uint64) error { return c.wb().Sync(ctx, id) }
func (c *wire) Resume(uint64, dataplane.Grant)            {}

func (c *wire) WriteFile(context.Context, uint64) (*os.File, error) {
	return nil, orca.E("wire.WriteFile", orca.Unsupported, "")
}

func (c *wire) WriteAt(ctx context.Context, id uint64, p []byte, off int64) error {
	return c.wb().WriteAt(ctx, id, p, off)
}

// newTown opens n workers with a memory tier and, unless a worker is named, a
// durable one. They share the store below of the first.
func newTown(t *testing.T, n int, noSSD ...int) *town {
	w := &town{t: t, dead: map[int]bool{}, pieces: map[int]int{}, bytes: map[int]int64{}}
	for i := range n {
		o := rigOptions{mem: 64 << 20, ssd: 64 << 20, cfg: writeback.Config{Peers: w}}
		for _, x := range noSSD {
			if x == i {
				o.ssd = 0
			}
		}
		r := newRig(t, o)
		if i > 0 {
			r.fs = w.workers[0].fs
		}
		w.workers = append(w.workers, r)
	}
	t.Cleanup(func() {
		for _, r := range w.workers {
			require.NoError(t, r.wb.Close())
		}
		require.Zero(t, w.open, "every use of a worker has ended")
	})
	return w
}

// to is a target for a file of so many copies, and all other workers than the
// first as candidates.
func (w *town) to(ty orca.WriteType, replicas uint32) dataplane.WriteTarget {
	t := target(ty)
	t.Replicas = replicas
	for i := 1; i < len(w.workers); i++ {
		t.Chain = append(t.Chain, dataplane.Link{Worker: uint64(i), Addr: fmt.Sprintf("worker-%d", i)})
	}
	return t
}

// stream writes p through a chain as a remote client does; after is called
// behind each piece.
func (w *town) stream(t dataplane.WriteTarget, p []byte, after func(piece, copies int)) (uint64, []dataplane.Link) {
	w.t.Helper()
	ctx := context.Background()
	id, links, err := w.workers[0].wb.CreateChain(ctx, t)
	require.NoError(w.t, err)
	for i, off := 0, 0; off < len(p); i, off = i+1, off+1<<20 {
		q := p[off:min(off+1<<20, len(p))]
		copies, err := w.workers[0].wb.WriteChain(ctx, id, q, int64(off), blockfile.AppendSums(nil, q))
		require.NoError(w.t, err)
		if after != nil {
			after(i, copies)
		}
	}
	return id, links
}

// holders returns the workers that have exactly p as version 3 of file 7.
func (w *town) holders(p []byte) (who []int, dirty int) {
	w.t.Helper()
	for i, r := range w.workers {
		m, err := r.store.Stat(orca.BlockID{File: 7, Version: 3})
		if err != nil || !m.Complete {
			continue
		}
		got, err := tiertest.ReadAll(r.store, m.ID, int64(len(p)))
		require.NoError(w.t, err)
		require.Equal(w.t, p, got)
		who = append(who, i)
		if m.Dirty {
			dirty++
		}
	}
	return who, dirty
}

func TestChain(t *testing.T) {
	p := tiertest.Bytes(2, 5<<20+77)
	for _, c := range []struct {
		w      orca.WriteType
		copies uint32
		dirty  int
		inUFS  bool
	}{
		{orca.MustCache, 2, 2, false}, {orca.MustCache, 3, 3, false}, {orca.AsyncThrough, 3, 3, false}, {orca.CacheThrough, 3, 0, true},
	} {
		t.Run(fmt.Sprint(c.w, c.copies), func(t *testing.T) {
			w := newTown(t, 4)
			id, links := w.stream(w.to(c.w, c.copies), p, func(_, copies int) { require.EqualValues(t, c.copies, copies) })
			require.Len(t, links, int(c.copies)-1)
			res, err := w.workers[0].wb.Seal(t.Context(), id, w.to(c.w, c.copies), false)
			require.NoError(t, err)
			require.EqualValues(t, c.copies, res.Copies)
			require.Equal(t, c.w == orca.AsyncThrough, res.Durable)
			require.Equal(t, c.inUFS, res.Fingerprint != "")
			who, dirty := w.holders(p)
			require.Len(t, who, int(c.copies))
			require.Equal(t, c.dirty, dirty)
			require.Len(t, res.Holders, int(c.copies)-1)
			// Each byte travels once per hop, in pieces as they came.
			for _, l := range links {
				require.EqualValues(t, len(p), w.bytes[int(l.Worker)])
				require.Equal(t, 6, w.pieces[int(l.Worker)])
			}
			for _, r := range w.workers[:1] {
				require.EqualValues(t, len(p), r.wb.Metrics.BytesForwarded.Load())
			}
			again, err := w.workers[0].wb.Seal(t.Context(), id, w.to(c.w, c.copies), false)
			require.NoError(t, err)
			require.Equal(t, res, again)
		})
	}
}

// TestChainOfALocalWriter: what was written through a descriptor travels when
// it is sealed.
func TestChainOfALocalWriter(t *testing.T) {
	p := tiertest.Bytes(3, 9<<20+1) // several blocks
	w := newTown(t, 3)
	tg := w.to(orca.AsyncThrough, 3)
	own := tg
	own.Chain = nil
	id, err := w.workers[0].wb.CreateWrite(t.Context(), own)
	require.NoError(t, err)
	f, err := w.workers[0].wb.WriteFile(t.Context(), id)
	require.NoError(t, err)
	_, err = f.Write(p)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	res, err := w.workers[0].wb.Seal(t.Context(), id, tg, false)
	require.NoError(t, err)
	require.Equal(t, 3, res.Copies)
	require.True(t, res.Durable)
	for _, r := range w.workers {
		var got []byte
		for i := uint32(0); len(got) < len(p); i++ {
			b, err := tiertest.ReadAll(r.store, orca.BlockID{File: 7, Version: 3, Index: i}, min(1<<20, int64(len(p)-len(got))))
			require.NoError(t, err)
			got = append(got, b...)
		}
		require.Equal(t, p, got)
	}
	require.EqualValues(t, len(p), w.bytes[1])
	require.EqualValues(t, len(p), w.bytes[2])
}

// TestChainLosesAWorker: whichever worker behind the first dies, and whenever,
// what is acknowledged is on as many workers as promised, or in its UFS.
func TestChainLosesAWorker(t *testing.T) {
	p := tiertest.Bytes(4, 5<<20+9)
	for _, spare := range []bool{true, false} {
		for _, ty := range []orca.WriteType{orca.MustCache, orca.AsyncThrough, orca.CacheThrough} {
			for victim := 1; victim <= 2; victim++ {
				for _, op := range []string{"create", "write", "seal"} {
					t.Run(fmt.Sprintf("%v/%s of worker %d/spare=%v", ty, op, victim, spare), func(t *testing.T) {
						n := 3
						if spare {
							n = 4
						}
						w := newTown(t, n)
						calls := 0
						w.onCall = func(worker int, o string) error {
							if worker == victim && o == op {
								if calls++; calls > 2 || op != "write" {
									w.kill(victim)
								}
							}
							return nil
						}
						least := 3
						id, _ := w.stream(w.to(ty, 3), p, func(_, copies int) {
							require.LessOrEqual(t, copies, least, "a worker that missed something never counts again")
							least = copies
						})
						res, err := w.workers[0].wb.Seal(t.Context(), id, w.to(ty, 3), false)
						if ty == orca.MustCache && !spare {
							require.ErrorIs(t, err, orca.NoSpace)
							return
						}
						require.NoError(t, err)
						who, _ := w.holders(p)
						require.NotContains(t, res.Holders, uint64(victim))
						want := 3
						if !spare {
							want = 2
							require.NotEmpty(t, res.Fingerprint, "with fewer copies it is in its UFS")
						}
						require.Equal(t, want, res.Copies)
						alive := 0
						for _, i := range who {
							if i != victim {
								alive++
							}
						}
						require.Equal(t, want, alive)
					})
				}
			}
		}
	}
}

// TestChainHeadDies: the client goes on with the second worker where the first
// one died: before Seal, or after it has had the copies sealed.
func TestChainHeadDies(t *testing.T) {
	p := tiertest.Bytes(5, 3<<20+9)
	for _, ty := range []orca.WriteType{orca.MustCache, orca.AsyncThrough, orca.CacheThrough} {
		for _, sealed := range []bool{false, true} {
			for _, spare := range []bool{true, false} {
				t.Run(fmt.Sprintf("%v/sealed=%v/spare=%v", ty, sealed, spare), func(t *testing.T) {
					n := 3
					if spare {
						n = 4
					}
					w := newTown(t, n)
					_, links := w.stream(w.to(ty, 3), p, nil)
					require.Len(t, links, 2)
					second := w.workers[links[0].Worker].wb
					if sealed {
						lt := w.to(ty, 2)
						lt.Linked, lt.WantCRC, lt.WantLength = true, crc32.Checksum(p, blockfile.Castagnoli), int64(len(p))
						_, err := second.Seal(t.Context(), links[0].Handle, lt, false)
						require.NoError(t, err)
					}
					tg := w.to(ty, 3)
					tg.Takeover = true
					tg.Chain = nil
					for i := 1; i < n; i++ {
						if uint64(i) != links[0].Worker {
							tg.Chain = append(tg.Chain, dataplane.Link{Worker: uint64(i), Addr: fmt.Sprintf("worker-%d", i)})
						}
					}
					res, err := second.Seal(t.Context(), links[0].Handle, tg, false)
					if ty == orca.MustCache && !spare {
						require.ErrorIs(t, err, orca.NoSpace)
						return
					}
					require.NoError(t, err)
					who, dirty := w.holders(p)
					require.NotContains(t, who, 0)
					require.Equal(t, n-1, len(who))
					require.Equal(t, len(who), res.Copies)
					through := ty == orca.CacheThrough || !spare
					require.Equal(t, through, res.Fingerprint != "")
					if ty == orca.CacheThrough {
						require.Zero(t, dirty)
					}
					again, err := second.Seal(t.Context(), links[0].Handle, tg, false)
					require.NoError(t, err)
					require.Equal(t, res, again)
				})
			}
		}
	}
}

// TestChainRefusesDamage: a flipped bit on the way, and a copy that is not what
// the worker before has.
func TestChainRefusesDamage(t *testing.T) {
	p := tiertest.Bytes(6, 200_000)
	w := newTown(t, 2)
	id, links := w.stream(w.to(orca.MustCache, 2), p, nil)
	sums := blockfile.AppendSums(nil, p)
	bad := append([]byte(nil), p...)
	bad[123_456] ^= 1
	_, err := w.workers[0].wb.WriteChain(t.Context(), id, bad, 0, sums)
	require.ErrorIs(t, err, orca.Corrupt)
	require.EqualValues(t, 1, w.workers[0].wb.Metrics.CorruptPieces.Load())
	// Behind the first one's back the second gets another content.
	require.NoError(t, w.workers[1].wb.WriteAt(t.Context(), links[0].Handle, bad, 0))
	res, err := w.workers[0].wb.Seal(t.Context(), id, w.to(orca.MustCache, 2), false)
	require.NoError(t, err)
	require.Equal(t, 2, res.Copies, "it was sent again")
	who, _ := w.holders(p)
	require.Equal(t, []int{0, 1}, who)
}

// TestChainNeedsDurableCopies: a copy in memory does not count for ASYNC_THROUGH.
func TestChainNeedsDurableCopies(t *testing.T) {
	p := tiertest.Bytes(7, 1<<20)
	w := newTown(t, 3, 1) // the second has only memory
	id, _ := w.stream(w.to(orca.AsyncThrough, 2), p, nil)
	res, err := w.workers[0].wb.Seal(t.Context(), id, w.to(orca.AsyncThrough, 2), false)
	require.NoError(t, err)
	require.True(t, res.Durable)
	require.Equal(t, []uint64{2}, res.Holders)
	require.Empty(t, res.Fingerprint)

	w = newTown(t, 2, 1)
	id, _ = w.stream(w.to(orca.AsyncThrough, 2), p, nil)
	res, err = w.workers[0].wb.Seal(t.Context(), id, w.to(orca.AsyncThrough, 2), false)
	require.NoError(t, err)
	require.NotEmpty(t, res.Fingerprint, "no other durable copy can be had: it is in its UFS")
	require.EqualValues(t, 1, w.workers[0].wb.Metrics.AsyncAsSync.Load())
}

// TestChainKeepsGoing: publications of a handle that stays open, a truncation
// and a late write reach all copies.
func TestChainKeepsGoing(t *testing.T) {
	p := tiertest.Bytes(8, 1<<20)
	w := newTown(t, 3)
	tg := w.to(orca.MustCache, 3)
	id, _ := w.stream(tg, p, nil)
	res, err := w.workers[0].wb.Seal(t.Context(), id, tg, true)
	require.NoError(t, err)
	require.Equal(t, 3, res.Copies)
	require.NoError(t, w.workers[0].wb.Truncate(t.Context(), id, 100))
	copies, err := w.workers[0].wb.WriteChain(t.Context(), id, []byte("end"), 100, nil)
	require.NoError(t, err)
	require.Equal(t, 3, copies)
	copies, err = w.workers[0].wb.WriteChain(t.Context(), id, nil, 0, nil)
	require.NoError(t, err)
	require.Equal(t, 3, copies)
	tg.Version, tg.Session, tg.Fence = 4, 0xabd, 2
	res, err = w.workers[0].wb.Seal(t.Context(), id, tg, false)
	require.NoError(t, err)
	require.Equal(t, 3, res.Copies)
	for _, r := range w.workers {
		got, err := tiertest.ReadAll(r.store, orca.BlockID{File: 7, Version: 4}, 103)
		require.NoError(t, err)
		require.Equal(t, string(p[:100])+"end", string(got))
	}
}

// TestChainAborts leaves nothing behind on any worker.
func TestChainAborts(t *testing.T) {
	w := newTown(t, 3)
	id, _ := w.stream(w.to(orca.MustCache, 3), tiertest.Bytes(9, 1<<20), nil)
	require.NoError(t, w.workers[0].wb.Abort(t.Context(), id))
	require.NoError(t, w.workers[0].wb.Close()) // waits for the others to hear of it
	require.NoError(t, w.workers[1].wb.Close())
	for _, r := range w.workers {
		require.Zero(t, r.wb.Metrics.Open.Load())
	}
}

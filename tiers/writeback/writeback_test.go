// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback_test

import (
	"bytes"
	"context"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
	"orca/tiers/writeback"
	"orca/ufs"
	"orca/ufs/memufs"
	"orca/ufs/wrap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type rig struct {
	t     testing.TB
	root  string
	mem   *memufs.Store
	fault *wrap.Faults
	fs    ufs.FS
	store *tiered.Store
	wb    *writeback.Service
}

func (r *rig) FS(context.Context, uint32) (ufs.FS, error) { return r.fs, nil }

type rigOptions struct {
	mem, ssd int64
	key      string // of the SSD directory; "": in the clear
	cfg      writeback.Config
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	return newRigAt(t, t.TempDir(), o)
}

func newRigAt(t testing.TB, root string, o rigOptions) *rig {
	t.Helper()
	r := &rig{t: t, root: root, mem: memufs.New(memufs.Config{})}
	var tc tiered.Config
	if o.mem > 0 {
		tc.Dirs = append(tc.Dirs, dir.Config{Path: filepath.Join(r.root, "mem"), Tier: orca.MEM, Capacity: o.mem})
	}
	if o.ssd > 0 {
		tc.Dirs = append(tc.Dirs, dir.Config{Path: filepath.Join(r.root, "ssd"), Tier: orca.SSD, Capacity: o.ssd, KeyFile: o.key})
	}
	tc.RoomWait = 200 * time.Millisecond
	log := slog.New(slog.DiscardHandler)
	var err error
	r.store, err = tiered.Open(tc, log)
	require.NoError(t, err)
	r.fault = wrap.NewFaults(r.mem.FS())
	r.fs = r.fault.FS()
	r.wb = writeback.New(o.cfg, r.store, r, log)
	t.Cleanup(func() {
		require.NoError(t, r.wb.Close())
		for _, tier := range []string{"mem", "ssd"} {
			left, _ := os.ReadDir(filepath.Join(r.root, tier, "scratch"))
			require.Empty(t, left, "no private file is left")
		}
		require.NoError(t, r.store.Close())
	})
	return r
}

func target(w orca.WriteType) dataplane.WriteTarget {
	return dataplane.WriteTarget{Session: 0xabc, Fence: 1, File: 7, Version: 3, Type: w, MountID: 1, UFSKey: "dir/file",
		Mode: 0o640, WholeMax: 8 << 20, BlockSize: 1 << 20}
}

func (r *rig) write(t dataplane.WriteTarget, p []byte) uint64 {
	r.t.Helper()
	ctx := context.Background()
	id, err := r.wb.CreateWrite(ctx, t)
	require.NoError(r.t, err)
	for off := 0; off < len(p); off += 300_000 {
		end := min(off+300_000, len(p))
		require.NoError(r.t, r.wb.WriteAt(ctx, id, p[off:end], int64(off)))
	}
	return id
}

func (r *rig) cached(id orca.BlockID, n int64) []byte {
	r.t.Helper()
	got, err := tiertest.ReadAll(r.store, id, n)
	require.NoError(r.t, err)
	return got
}

func TestWriteTypes(t *testing.T) {
	p := tiertest.Bytes(1, 3<<20+17)
	id := orca.BlockID{File: 7, Version: 3}
	tests := []struct {
		w                      orca.WriteType
		mem, ssd               int64
		inUFS, cached, dirty   bool
		tier                   orca.Tier
		durable, async2through bool
	}{
		{w: orca.MustCache, mem: 32 << 20, cached: true, dirty: true},
		{w: orca.CacheThrough, mem: 32 << 20, ssd: 32 << 20, cached: true, inUFS: true},
		{w: orca.Through, mem: 32 << 20, inUFS: true},
		{w: orca.AsyncThrough, mem: 32 << 20, ssd: 32 << 20, cached: true, dirty: true, tier: orca.SSD, durable: true},
		{w: orca.AsyncThrough, mem: 32 << 20, cached: true, inUFS: true, async2through: true},
		{w: orca.MustCache, ssd: 32 << 20, cached: true, dirty: true, tier: orca.SSD, durable: true},
	}
	for _, tt := range tests {
		t.Run(tt.w.String(), func(t *testing.T) {
			r := newRig(t, rigOptions{mem: tt.mem, ssd: tt.ssd})
			h := r.write(target(tt.w), p)
			_, err := r.store.Stat(id)
			require.ErrorIs(t, err, orca.NotFound, "nothing is there before Seal")
			res, err := r.wb.Seal(t.Context(), h, target(tt.w), false)
			require.NoError(t, err)
			require.Equal(t, int64(len(p)), res.Length)
			require.Equal(t, int64(8<<20), res.BlockSize)
			require.Equal(t, crc32.Checksum(p, blockfile.Castagnoli), res.CRC32C)
			require.Equal(t, tt.durable, res.Durable)
			data, there := r.mem.Data("dir/file")
			require.Equal(t, tt.inUFS, there)
			if tt.inUFS {
				require.True(t, data == string(p))
				in, _ := r.fs.Stat(t.Context(), "dir/file")
				require.Equal(t, in.Fingerprint, res.Fingerprint)
				require.Equal(t, uint32(0o640), in.Mode)
			}
			m, err := r.store.Stat(id)
			if !tt.cached {
				require.ErrorIs(t, err, orca.NotFound)
				return
			}
			require.NoError(t, err)
			require.Equal(t, 1, res.Copies)
			require.Equal(t, tt.dirty, m.Dirty)
			require.Equal(t, tt.tier, m.Tier)
			require.True(t, bytes.Equal(p, r.cached(id, int64(len(p)))))
			require.EqualValues(t, 1, r.wb.Metrics.Renamed.Load())
			require.Equal(t, tt.async2through, r.wb.Metrics.AsyncAsSync.Load() == 1)
			again, err := r.wb.Seal(t.Context(), h, target(tt.w), false)
			require.NoError(t, err, "a repeated request has the same answer")
			require.Equal(t, res, again)
		})
	}
}

func TestLocalWriterHoldsOn(t *testing.T) {
	r := newRig(t, rigOptions{mem: 64 << 20})
	p := tiertest.Bytes(2, 2<<20)
	tg := target(orca.CacheThrough)
	h, err := r.wb.CreateWrite(t.Context(), tg)
	require.NoError(t, err)
	f, err := r.wb.WriteFile(t.Context(), h)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.Write(p)
	require.NoError(t, err)
	// The descriptor is still open: the block must not be this very file.
	_, err = r.wb.Seal(t.Context(), h, tg, false)
	require.NoError(t, err)
	require.EqualValues(t, 1, r.wb.Metrics.Copied.Load())
	_, err = f.WriteAt([]byte("late"), 100)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, r.cached(orca.BlockID{File: 7, Version: 3}, 2<<20)), "sealed content never changes")
	data, _ := r.mem.Data("dir/file")
	require.True(t, data == string(p))
}

func TestMappedWriterHoldsOn(t *testing.T) {
	r := newRig(t, rigOptions{mem: 64 << 20})
	tg := target(orca.MustCache)
	h, err := r.wb.CreateWrite(t.Context(), tg)
	require.NoError(t, err)
	f, err := r.wb.WriteFile(t.Context(), h)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(1<<20))
	m, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	f.Close()
	m[5] = 'x'
	_, err = r.wb.Seal(t.Context(), h, tg, false)
	require.NoError(t, err)
	m[5] = 'y'
	require.EqualValues(t, 1, r.wb.Metrics.Copied.Load())
	require.Equal(t, byte('x'), r.cached(orca.BlockID{File: 7, Version: 3}, 1<<20)[5])
	require.NoError(t, unix.Munmap(m))
}

func TestKeepGoesOn(t *testing.T) {
	r := newRig(t, rigOptions{mem: 64 << 20})
	tg := target(orca.CacheThrough)
	p := tiertest.Bytes(3, 1<<20)
	h := r.write(tg, p)
	_, err := r.wb.Seal(t.Context(), h, tg, true)
	require.NoError(t, err)
	require.NoError(t, r.wb.WriteAt(t.Context(), h, []byte("more"), 1<<20))
	require.NoError(t, r.wb.Truncate(t.Context(), h, 1<<20+2))
	next := tg
	next.Version, next.Session = 4, 0xabd
	res, err := r.wb.Seal(t.Context(), h, next, false)
	require.NoError(t, err)
	require.Equal(t, int64(1<<20+2), res.Length)
	require.True(t, bytes.Equal(p, r.cached(orca.BlockID{File: 7, Version: 3}, 1<<20)))
	require.True(t, bytes.Equal(append(bytes.Clone(p), "mo"...), r.cached(orca.BlockID{File: 7, Version: 4}, res.Length)))
	require.ErrorIs(t, r.wb.WriteAt(t.Context(), h, []byte("x"), 0), orca.NotFound)
}

func TestLongFileIsSplit(t *testing.T) {
	r := newRig(t, rigOptions{mem: 64 << 20})
	tg := target(orca.MustCache)
	tg.WholeMax = 2 << 20
	p := tiertest.Bytes(4, 3<<20+9)
	res, err := r.wb.Seal(t.Context(), r.write(tg, p), tg, false)
	require.NoError(t, err)
	require.Equal(t, int64(1<<20), res.BlockSize)
	var out []byte
	for i := range uint32(4) {
		out = append(out, r.cached(orca.BlockID{File: 7, Version: 3, Index: i}, min(1<<20, int64(len(p))-int64(i)<<20))...)
	}
	require.True(t, bytes.Equal(p, out))
}

func TestEmptyFile(t *testing.T) {
	r := newRig(t, rigOptions{mem: 64 << 20})
	tg := target(orca.CacheThrough)
	res, err := r.wb.Seal(t.Context(), r.write(tg, nil), tg, false)
	require.NoError(t, err)
	require.Zero(t, res.Length)
	data, ok := r.mem.Data("dir/file")
	require.True(t, ok)
	require.Empty(t, data)
}

func TestHoles(t *testing.T) {
	r := newRig(t, rigOptions{mem: 64 << 20})
	tg := target(orca.CacheThrough)
	h := r.write(tg, nil)
	require.NoError(t, r.wb.WriteAt(t.Context(), h, []byte("end"), 1<<20))
	res, err := r.wb.Seal(t.Context(), h, tg, false)
	require.NoError(t, err)
	want := append(make([]byte, 1<<20), "end"...)
	require.True(t, bytes.Equal(want, r.cached(orca.BlockID{File: 7, Version: 3}, res.Length)))
}

func TestUploadFailureLeavesTheOldObject(t *testing.T) {
	for _, op := range []wrap.Op{wrap.Create, wrap.Write, wrap.Commit} {
		t.Run(op.String(), func(t *testing.T) {
			r := newRig(t, rigOptions{mem: 64 << 20})
			r.mem.Put("dir/file", "old")
			tg := target(orca.CacheThrough)
			h := r.write(tg, tiertest.Bytes(5, 1<<20))
			r.fault.Add(wrap.Rule{Op: op, Nth: 1, Err: orca.E("x", orca.Unavailable, "")})
			_, err := r.wb.Seal(t.Context(), h, tg, false)
			require.ErrorIs(t, err, orca.Unavailable)
			data, _ := r.mem.Data("dir/file")
			require.Equal(t, "old", data)
			require.Zero(t, r.mem.Uploads(), "the attempt was aborted")
			_, err = r.store.Stat(orca.BlockID{File: 7, Version: 3})
			require.ErrorIs(t, err, orca.NotFound)
			r.fault.Clear()
			require.NoError(t, r.wb.WriteAt(t.Context(), h, []byte("again"), 0))
			_, err = r.wb.Seal(t.Context(), h, tg, false)
			require.NoError(t, err, "the handle is good for another attempt")
		})
	}
}

func TestConflict(t *testing.T) {
	r := newRig(t, rigOptions{mem: 64 << 20})
	tg := target(orca.Through)
	tg.Expect = ufs.Absent
	h := r.write(tg, []byte("mine"))
	r.mem.Put("dir/file", "theirs")
	_, err := r.wb.Seal(t.Context(), h, tg, false)
	require.ErrorIs(t, err, orca.Conflict)
}

func TestNoRoom(t *testing.T) {
	r := newRig(t, rigOptions{mem: 4 << 20})
	must := target(orca.MustCache)
	h := r.write(must, tiertest.Bytes(1, 3<<20))
	_, err := r.wb.Seal(t.Context(), h, must, false)
	require.ErrorIs(t, err, orca.NoSpace, "larger than half of the only directory")
	require.NoError(t, r.wb.Abort(t.Context(), h))
	through := target(orca.CacheThrough)
	_, err = r.wb.Seal(t.Context(), r.write(through, tiertest.Bytes(1, 3<<20)), through, false)
	require.NoError(t, err, "not being cached is no failure of a write-through")
	require.EqualValues(t, 1, r.wb.Metrics.Uncached.Load())
	h, err = r.wb.CreateWrite(t.Context(), must)
	require.NoError(t, err)
	require.ErrorIs(t, r.wb.WriteAt(t.Context(), h, make([]byte, 5<<20), 0), orca.NoSpace)
}

func TestSpill(t *testing.T) {
	r := newRig(t, rigOptions{mem: 2 << 20, ssd: 64 << 20})
	tg := target(orca.MustCache)
	p := tiertest.Bytes(6, 5<<20)
	res, err := r.wb.Seal(t.Context(), r.write(tg, p), tg, false)
	require.NoError(t, err)
	require.True(t, res.Durable)
	require.Positive(t, r.wb.Metrics.Spilled.Load())
	require.True(t, bytes.Equal(p, r.cached(orca.BlockID{File: 7, Version: 3}, 5<<20)))
	for _, u := range r.store.Usage() {
		if u.Tier == orca.MEM {
			require.Zero(t, u.Used)
		}
	}
}

func TestWriteGetsRoomFromCleanBlocks(t *testing.T) {
	r := newRig(t, rigOptions{ssd: 16 << 20})
	for i := uint64(100); i < 115; i++ {
		tiertest.Fill(t, r.store, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
	}
	tg := target(orca.MustCache)
	p := tiertest.Bytes(6, 7<<20)
	_, err := r.wb.Seal(t.Context(), r.write(tg, p), tg, false)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, r.cached(orca.BlockID{File: 7, Version: 3}, 7<<20)))
}

func TestAbandonedHandles(t *testing.T) {
	r := newRig(t, rigOptions{mem: 16 << 20, cfg: writeback.Config{Idle: 30 * time.Millisecond, Poll: 5 * time.Millisecond, MaxHandles: 2}})
	tg := target(orca.MustCache)
	h := r.write(tg, []byte("gone"))
	held, err := r.wb.CreateWrite(t.Context(), tg)
	require.NoError(t, err)
	f, err := r.wb.WriteFile(t.Context(), held)
	require.NoError(t, err)
	_, err = r.wb.CreateWrite(t.Context(), tg)
	if err != nil { // unless the first has expired already
		require.ErrorIs(t, err, orca.Busy)
	}
	tiertest.Eventually(t, "expiry", func() bool { return r.wb.Metrics.Expired.Load() >= 1 })
	require.ErrorIs(t, r.wb.WriteAt(t.Context(), h, []byte("x"), 0), orca.NotFound)
	require.NoError(t, r.wb.Truncate(t.Context(), held, 10), "somebody has it open")
	f.Close()
	tiertest.Eventually(t, "expiry", func() bool { return r.wb.Metrics.Open.Load() == 0 })
	require.Zero(t, r.store.Usage()[0].Used)
}

// TestManyWrites goes over every cap of what is remembered.
func TestManyWrites(t *testing.T) {
	r := newRig(t, rigOptions{mem: 64 << 20, cfg: writeback.Config{MaxHandles: 4}})
	for i := range uint64(1500) {
		tg := target(orca.MustCache)
		tg.File, tg.Session = orca.Ino(1000+i), i
		h := r.write(tg, []byte("small"))
		res, err := r.wb.Seal(t.Context(), h, tg, false)
		require.NoError(t, err)
		again, err := r.wb.Seal(t.Context(), h, tg, false)
		require.NoError(t, err)
		require.Equal(t, res, again)
		require.ErrorIs(t, r.wb.Sync(t.Context(), h), orca.NotFound)
	}
	require.Zero(t, r.wb.Metrics.Open.Load())
}

func TestRefusals(t *testing.T) {
	r := newRig(t, rigOptions{mem: 16 << 20})
	ctx := t.Context()
	_, err := r.wb.CreateWrite(ctx, target(orca.WriteDefault))
	require.ErrorIs(t, err, orca.Invalid)
	tg := target(orca.Through)
	tg.MountID = 0
	_, err = r.wb.CreateWrite(ctx, tg)
	require.ErrorIs(t, err, orca.Invalid)
	require.ErrorIs(t, r.wb.WriteAt(ctx, 99, nil, 0), orca.NotFound)
	_, err = r.wb.WriteFile(ctx, 99)
	require.ErrorIs(t, err, orca.NotFound)
	_, err = r.wb.Seal(ctx, 99, target(orca.Through), false)
	require.ErrorIs(t, err, orca.NotFound)
	require.NoError(t, r.wb.Abort(ctx, 99))
	h := r.write(target(orca.MustCache), []byte("x"))
	require.ErrorIs(t, r.wb.WriteAt(ctx, h, []byte("x"), -1), orca.TooLarge)
	require.ErrorIs(t, r.wb.Truncate(ctx, h, 1<<50), orca.TooLarge)
	require.NoError(t, r.wb.Sync(ctx, h))
	r.wb.AbortSession(ctx, 0xabc)
	require.ErrorIs(t, r.wb.Sync(ctx, h), orca.NotFound)
}

// The metaplane has the last word before an upload becomes visible.
func TestHoldBeforeTheCommit(t *testing.T) {
	for _, size := range []int{1000, 5 << 20} {
		var asked atomic.Int64
		var answer error
		o := rigOptions{ssd: 64 << 20, cfg: writeback.Config{Hold: func(_ context.Context, session, fence uint64, length int64) error {
			require.EqualValues(t, []uint64{0xabc, 1, uint64(size)}, []uint64{session, fence, uint64(length)})
			asked.Add(1)
			return answer
		}}}
		r := newRig(t, o)
		p := bytes.Repeat([]byte("x"), size)
		answer = orca.E("test", orca.Stale, "the write session is over")
		id := r.write(target(orca.Through), p)
		_, err := r.wb.Seal(t.Context(), id, target(orca.Through), false)
		require.ErrorIs(t, err, orca.Stale)
		_, err = r.fs.Stat(t.Context(), "dir/file")
		require.ErrorIs(t, err, orca.NotFound, "nothing was committed")
		answer = nil
		_, err = r.wb.Seal(t.Context(), id, target(orca.Through), false)
		require.NoError(t, err)
		_, err = r.fs.Stat(t.Context(), "dir/file")
		require.NoError(t, err)
		require.EqualValues(t, 2, asked.Load())
		id = r.write(target(orca.MustCache), p)
		_, err = r.wb.Seal(t.Context(), id, target(orca.MustCache), false)
		require.NoError(t, err)
		require.EqualValues(t, 2, asked.Load(), "nobody is asked where nothing is committed")
	}
}

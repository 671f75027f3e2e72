// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/dataplane"
	"orca/tiers"
	"orca/tiers/dir"
	"orca/tiers/readthrough"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
	"orca/ufs"
	"orca/ufs/memufs"
	"orca/ufs/wrap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a worker's read half over a memufs.
type rig struct {
	t     testing.TB
	mem   *memufs.Store
	fault *wrap.Faults
	fs    ufs.FS
	store *tiered.Store
	rt    *readthrough.Service

	mu    sync.Mutex
	files map[orca.Ino]readthrough.Source
	gate  func(orca.Ino) // is passed before a file is resolved; nil: none
	stale atomic.Int64
	asked atomic.Int64
}

func (r *rig) Resolve(_ context.Context, file orca.Ino) (readthrough.Source, error) {
	r.asked.Add(1)
	if r.gate != nil {
		r.gate(file)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	src, ok := r.files[file]
	if !ok {
		return src, orca.E("rig.Resolve", orca.NotFound, "")
	}
	return src, nil
}

func (r *rig) FS(context.Context, uint32) (ufs.FS, error) { return r.fs, nil }

type rigOptions struct {
	capacity int64
	root     string
	cfg      readthrough.Config
	peers    readthrough.Peers
	ops      *tiertest.Faults
	wrap     func(tiers.Store) tiers.Store
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	if o.capacity == 0 {
		o.capacity = 64 << 20
	}
	if o.root == "" {
		o.root = t.TempDir()
	}
	log := slog.New(slog.DiscardHandler)
	tc := tiered.Config{Dirs: []dir.Config{{Path: filepath.Join(o.root, "ssd"), Tier: orca.SSD, Capacity: o.capacity}}, FlushEvery: 5 * time.Millisecond}
	if o.ops != nil {
		tc.Ops = o.ops
	}
	store, err := tiered.Open(tc, log)
	require.NoError(t, err)
	r := &rig{t: t, mem: memufs.New(memufs.Config{Objects: true}), store: store, files: map[orca.Ino]readthrough.Source{}}
	r.fault = wrap.NewFaults(r.mem.FS())
	r.fs = r.fault.FS()
	var reads tiers.Store = store
	if o.wrap != nil {
		reads = o.wrap(store)
	}
	r.rt = readthrough.New(o.cfg, readthrough.Deps{Store: reads, Resolver: r, Mounts: r, Peers: o.peers,
		OnStale: func(orca.Ino, uint32) { r.stale.Add(1) }}, log)
	t.Cleanup(r.close)
	return r
}

func (r *rig) close() {
	require.NoError(r.t, r.rt.Close())
	require.NoError(r.t, r.store.Close())
}

// file puts an object into the UFS and a file of it into the namespace.
func (r *rig) file(ino orca.Ino, version uint32, p []byte, blockSize int64) {
	info := r.mem.Put("k"+ino.String(), string(p))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[ino] = readthrough.Source{Key: info.Key, Attr: orca.Attr{Ino: ino, Length: int64(len(p)), BlockSize: blockSize,
		Version: version, Runs: []orca.Run{{Version: version}}, Persist: orca.Persisted, Fingerprint: info.Fingerprint, MountID: 1}}
}

func (r *rig) open(id orca.BlockID, off, n int64, seq bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, err := r.rt.Open(ctx, dataplane.ReadRequest{ID: id, Off: off, N: n, Sequential: seq})
	if err != nil {
		return nil, err
	}
	return tiertest.ReadExtent(e)
}

// read reads [off, off+n) in as many extents as it takes.
func (r *rig) read(id orca.BlockID, off, n, step int64, seq bool) ([]byte, error) {
	var out []byte
	for n > 0 {
		p, err := r.open(id, off, min(n, step), seq)
		if err != nil {
			return out, err
		}
		if len(p) == 0 {
			return out, io.ErrNoProgress
		}
		out = append(out, p...)
		off += int64(len(p))
		n -= int64(len(p))
	}
	return out, nil
}

func (r *rig) opens() int64 { return r.mem.Counters.Open.Load() }

func TestSequentialColdReadIsOneGET(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := tiertest.Bytes(1, 20<<20+12345)
	r.file(1, 1, p, 32<<20)
	for range 2 { // cold, warm
		got, err := r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, true)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, got))
	}
	require.EqualValues(t, 1, r.opens())
	require.EqualValues(t, len(p), r.mem.Counters.ReadBytes.Load())
	f, n, _, err := r.store.Descriptor(context.Background(), tiertest.ID(1))
	require.NoError(t, err)
	require.Equal(t, int64(len(p)), n)
	f.Close()
}

func TestSequentialIsSeenWithoutHint(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := tiertest.Bytes(1, 16<<20)
	r.file(1, 1, p, 32<<20)
	got, err := r.read(tiertest.ID(1), 0, int64(len(p)), 128<<10, false)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	// At worst each window has arrived before the reader asks for more: two
	// GETs until the order is seen, then windows of 1, 2, 4, 8 and 16 MiB.
	require.LessOrEqual(t, r.opens(), int64(7))
	require.EqualValues(t, len(p), r.mem.Counters.ReadBytes.Load(), "nothing is fetched twice")
}

func TestSingleFlight(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := tiertest.Bytes(2, 1<<20)
	r.file(1, 1, p, 4<<20)
	gate := make(chan struct{})
	r.fault.Add(wrap.Rule{Op: wrap.Open, Block: gate})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			got, err := r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, false)
			if err != nil || !bytes.Equal(p, got) {
				t.Errorf("read: %v", err)
			}
		})
	}
	tiertest.Eventually(t, "all wait", func() bool { return r.rt.Metrics.Misses.Load() == 100 })
	close(gate)
	wg.Wait()
	require.EqualValues(t, 1, r.opens())
	require.GreaterOrEqual(t, r.rt.Metrics.Joins.Load(), int64(99))
}

func TestRandomReadsFetchGrains(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := tiertest.Bytes(3, 16<<20)
	r.file(1, 1, p, 32<<20)
	rnd := rand.New(rand.NewPCG(1, 2))
	distinct := map[int64]bool{}
	for range 50 {
		off := 1<<20 + rnd.Int64N(15<<20-4096)
		got, err := r.read(tiertest.ID(1), off, 4096, 4096, false)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p[off:off+4096], got))
		distinct[off/orca.GrainSize], distinct[(off+4095)/orca.GrainSize] = true, true
	}
	require.LessOrEqual(t, r.mem.Counters.ReadBytes.Load(), int64(len(distinct)+20)*orca.GrainSize)
	got, err := r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, true)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	require.LessOrEqual(t, r.mem.Counters.ReadBytes.Load(), int64(len(p))+40*orca.GrainSize)
}

func TestFirstBytesLeaveEarly(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := tiertest.Bytes(4, 8<<20)
	r.file(1, 1, p, 8<<20)
	slow := &slowFS{FS: r.fs, after: 100 << 10, gate: make(chan struct{})}
	r.fs = slow
	got, err := r.open(tiertest.ID(1), 10, 1<<20, true)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p[10:10+len(got)], got))
	require.Equal(t, orca.GrainSize-10, len(got), "one grain is there, the source stands still")
	close(slow.gate)
	all, err := r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, true)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, all))
}

// slowFS stops every read after so many bytes until gate is closed.
type slowFS struct {
	ufs.FS
	after int
	gate  chan struct{}
}

func (s *slowFS) Open(ctx context.Context, key string, off, n int64, want string) (io.ReadCloser, error) {
	rc, err := s.FS.Open(ctx, key, off, n, want)
	return &slowBody{rc, s, s.after, ctx}, err
}

type slowBody struct {
	io.ReadCloser
	s    *slowFS
	left int
	ctx  context.Context
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		select {
		case <-b.s.gate:
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
		return b.ReadCloser.Read(p)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func TestWaiterMayGoAndStallEnds(t *testing.T) {
	r := newRig(t, rigOptions{cfg: readthrough.Config{Stall: 200 * time.Millisecond}})
	r.file(1, 1, tiertest.Bytes(4, 1<<20), 8<<20)
	r.fs = &slowFS{FS: r.fs, after: 0, gate: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := r.rt.Open(ctx, dataplane.ReadRequest{ID: tiertest.ID(1), N: 1})
	require.ErrorIs(t, err, orca.Timeout)
	_, err = r.rt.Open(context.Background(), dataplane.ReadRequest{ID: tiertest.ID(1), N: 1})
	require.ErrorIs(t, err, orca.Timeout)
	tiertest.Eventually(t, "fills end", func() bool { return r.rt.Metrics.Active.Load() == 0 })
}

func TestStaleNeverMixes(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := tiertest.Bytes(5, 8<<20)
	r.file(1, 1, p, 8<<20)
	_, err := r.read(tiertest.ID(1), 2<<20, 4096, 4096, false)
	require.NoError(t, err)
	r.mem.Put("k1", string(tiertest.Bytes(6, 8<<20)))
	got, err := r.read(tiertest.ID(1), 2<<20, 4096, 4096, false)
	require.NoError(t, err, "what is cached of the old version is still served")
	require.True(t, bytes.Equal(p[2<<20:2<<20+4096], got))
	_, err = r.read(tiertest.ID(1), 6<<20, 4096, 4096, false)
	require.ErrorIs(t, err, orca.Stale)
	require.EqualValues(t, 1, r.stale.Load())
	// The new version is another block.
	q := tiertest.Bytes(6, 8<<20)
	r.file(1, 2, q, 8<<20)
	got, err = r.read(orca.BlockID{File: 1, Version: 2}, 0, 8<<20, 1<<20, true)
	require.NoError(t, err)
	require.True(t, bytes.Equal(q, got))
	_, err = r.read(tiertest.ID(1), 6<<20, 4096, 4096, false)
	require.ErrorIs(t, err, orca.Stale)
	r.mem.Drop("k1")
	r.store.RemoveFile(1, 0)
	_, err = r.read(orca.BlockID{File: 1, Version: 2}, 0, 1, 1, false)
	require.ErrorIs(t, err, orca.Stale, "gone from the UFS")
}

func TestMovedObjectIsFoundAgain(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := tiertest.Bytes(5, 4<<20)
	r.file(1, 1, p, 8<<20)
	_, err := r.read(tiertest.ID(1), 1<<20, 10, 10, false)
	require.NoError(t, err)
	info := r.mem.Put("moved", string(p))
	r.mem.Drop("k1")
	r.mu.Lock()
	src := r.files[1]
	src.Key, src.Attr.Fingerprint = "moved", info.Fingerprint
	r.files[1] = src
	r.mu.Unlock()
	got, err := r.read(tiertest.ID(1), 0, 4<<20, 1<<20, true)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	require.Zero(t, r.stale.Load())
}

func TestSourceFailures(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.file(1, 1, tiertest.Bytes(1, 1<<20), 8<<20)
	once := r.fault.Add(wrap.Rule{Op: wrap.Open, Nth: 1, Err: orca.E("x", orca.Unavailable, "")})
	_, err := r.read(tiertest.ID(1), 0, 1<<20, 1<<20, true)
	require.NoError(t, err, "one failure is retried")
	require.Equal(t, 1, r.fault.Hits(once))
	r.fault.Clear()
	r.file(2, 1, tiertest.Bytes(1, 1<<20), 8<<20)
	r.fault.Add(wrap.Rule{Op: wrap.Open, Err: orca.E("x", orca.Unauthenticated, "bad key")})
	_, err = r.read(tiertest.ID(2), 0, 10, 10, false)
	require.ErrorIs(t, err, orca.Unauthenticated)
	r.fault.Clear()
	_, err = r.read(tiertest.ID(2), 0, 10, 10, false)
	require.NoError(t, err, "a failure is not remembered")
	_, err = r.read(tiertest.ID(99), 0, 10, 10, false)
	require.ErrorIs(t, err, orca.NotFound)
	r.mu.Lock()
	r.files[3] = readthrough.Source{Attr: orca.Attr{Length: 10, BlockSize: 10, Version: 1}}
	r.files[4] = readthrough.Source{Attr: orca.Attr{Length: 10, BlockSize: 10, Version: 1, Persist: orca.Lost}}
	r.mu.Unlock()
	_, err = r.read(tiertest.ID(3), 0, 10, 10, false)
	require.ErrorIs(t, err, orca.Unavailable)
	_, err = r.read(tiertest.ID(4), 0, 10, 10, false)
	require.ErrorIs(t, err, orca.LostData)
	for _, i := range []uint64{1, 6} {
		r.file(6, 1, tiertest.Bytes(1, 1<<20), 8<<20)
		got, err := r.open(tiertest.ID(i), 1<<20, 10, false)
		require.NoError(t, err)
		require.Empty(t, got, "there is nothing behind the end")
	}
	_, err = r.rt.Open(context.Background(), dataplane.ReadRequest{ID: tiertest.ID(5), N: 1, OnlyCached: true})
	require.ErrorIs(t, err, orca.NotFound)
}

func TestNoCacheAndNoRoomPassThrough(t *testing.T) {
	r := newRig(t, rigOptions{capacity: 8 << 20})
	p := tiertest.Bytes(1, 6<<20+333)
	r.file(1, 1, p, 16<<20) // larger than half of the only directory
	got, err := r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, true)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	require.LessOrEqual(t, r.opens(), int64(2), "a sequential reader stays on its GET")
	got, err = r.read(tiertest.ID(1), 5<<20+17, 100_000, 1<<20, false)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p[5<<20+17:5<<20+17+100_000], got))
	q := tiertest.Bytes(2, 2<<20)
	r.file(2, 1, q, 16<<20)
	e, err := r.rt.Open(context.Background(), dataplane.ReadRequest{ID: tiertest.ID(2), Off: 70_000, N: 1 << 20, Type: orca.ReadNoCache})
	require.NoError(t, err)
	require.Equal(t, int64(70_000-65_536), e.Off-e.SumOff)
	got, err = tiertest.ReadExtent(e)
	require.NoError(t, err)
	require.True(t, bytes.Equal(q[70_000:70_000+len(got)], got))
	_, err = r.store.Stat(tiertest.ID(2))
	require.ErrorIs(t, err, orca.NotFound)
}

// TestOneBlockWithoutRoomLeavesRoomForOthers: that a block is too long for any
// directory says nothing of a shorter one.
func TestOneBlockWithoutRoomLeavesRoomForOthers(t *testing.T) {
	r := newRig(t, rigOptions{capacity: 8 << 20, cfg: readthrough.Config{RoomWait: time.Minute}})
	for ino, n := range map[uint64]int64{1: 6 << 20, 2: 1 << 20, 3: 7 << 20} {
		r.file(orca.Ino(ino), 1, tiertest.Bytes(ino, n), 16<<20)
	}
	for range 2 {
		for ino := range uint64(3) {
			_, err := r.read(tiertest.ID(ino+1), 0, 1<<20, 1<<20, true)
			require.NoError(t, err)
		}
	}
	_, err := r.store.Stat(tiertest.ID(2))
	require.NoError(t, err)
	require.EqualValues(t, 1, r.rt.Metrics.NoRoom.Load(), "the longer ones are not tried again so soon")
	require.EqualValues(t, 4, r.rt.Metrics.Passed.Load())
}

func TestDiskFullMidway(t *testing.T) {
	ops := &tiertest.Faults{}
	r := newRig(t, rigOptions{ops: ops})
	p := tiertest.Bytes(1, 4<<20)
	r.file(1, 1, p, 16<<20)
	ops.FailAt(5, true, os.NewSyscallError("pwrite", syscall.ENOSPC))
	got, err := r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, true)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	ops.FailAt(0, false, nil)
}

func TestBlocksOfALongFile(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := tiertest.Bytes(1, 10<<20+5)
	r.file(1, 1, p, 4<<20)
	var out []byte
	for i := range uint32(3) {
		n := min(4<<20, int64(len(p))-int64(i)*4<<20)
		got, err := r.read(orca.BlockID{File: 1, Version: 1, Index: i}, 0, n, 1<<20, true)
		require.NoError(t, err)
		out = append(out, got...)
	}
	require.True(t, bytes.Equal(p, out))
	require.EqualValues(t, 3, r.opens())
	_, err := r.read(orca.BlockID{File: 1, Version: 1, Index: 3}, 0, 1, 1, false)
	require.ErrorIs(t, err, orca.NotFound)
}

func TestCorruptionIsCuredFromTheUFS(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := tiertest.Bytes(9, 3<<20)
	r.file(1, 1, p, 16<<20)
	_, err := r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, true)
	require.NoError(t, err)
	e, err := r.store.Get(tiertest.ID(1), 0, 1)
	require.NoError(t, err)
	path := e.File.Name()
	e.Release()
	require.NoError(t, os.Chmod(path, 0o600))
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = w.WriteAt([]byte("rotten"), 1<<20+99)
	require.NoError(t, err)
	w.Close()
	ctx := context.Background()
	e, err = r.rt.Open(ctx, dataplane.ReadRequest{ID: tiertest.ID(1), Off: 1 << 20, N: 1 << 20, Verify: true})
	require.NoError(t, err)
	got, err := tiertest.ReadExtent(e)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p[1<<20:1<<20+len(got)], got))
	require.EqualValues(t, 1, r.store.Metrics.CorruptGrains.Load())
	got, err = r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, true)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
}

// peers serves blocks from another rig's store.
type peers struct {
	from *rig
	fail atomic.Bool
	n    atomic.Int64
}

func (p *peers) Open(ctx context.Context, _ readthrough.Peer, req dataplane.ReadRequest) (io.ReadCloser, error) {
	p.n.Add(1)
	if !req.OnlyCached {
		return nil, orca.E("peers.Open", orca.Invalid, "peers must not fill for each other")
	}
	got, err := p.from.read(req.ID, req.Off, req.N, req.N, false)
	if err != nil {
		return nil, err
	}
	if p.fail.Load() {
		got = got[:len(got)/2]
	}
	return io.NopCloser(bytes.NewReader(got)), nil
}

func TestPeersFirst(t *testing.T) {
	a := newRig(t, rigOptions{})
	data := tiertest.Bytes(1, 6<<20)
	a.file(1, 1, data, 16<<20)
	a.file(2, 1, data, 16<<20)
	for _, i := range []uint64{1, 2} {
		_, err := a.read(tiertest.ID(i), 0, int64(len(data)), 1<<20, true)
		require.NoError(t, err)
	}
	p := &peers{from: a}
	b := newRig(t, rigOptions{peers: p})
	b.file(1, 1, data, 16<<20)
	b.file(2, 1, data, 16<<20)
	b.mu.Lock()
	for i, src := range b.files {
		src.Peers = []readthrough.Peer{{Worker: 1}}
		b.files[i] = src
	}
	b.mu.Unlock()
	got, err := b.read(tiertest.ID(1), 0, 3<<20, 1<<20, false)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data[:3<<20], got))
	require.Zero(t, b.opens())
	p.fail.Store(true) // from now on it delivers half: the UFS goes on
	got, err = b.read(tiertest.ID(2), 0, int64(len(data)), 1<<20, true)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Positive(t, b.opens())
}

func TestRemovedUnderAFill(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := tiertest.Bytes(1, 8<<20)
	r.file(1, 1, p, 16<<20)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
				_ = r.store.Remove(tiertest.ID(1))
			}
		}
	})
	for range 5 {
		got, err := r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, true)
		if orca.KindOf(err) == orca.Busy {
			continue
		}
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, got))
	}
	close(stop)
	wg.Wait()
}

func TestManyReadersManyFiles(t *testing.T) {
	r := newRig(t, rigOptions{capacity: 6 << 20, cfg: readthrough.Config{MaxStreams: 4, MaxPass: 3, Idle: 50 * time.Millisecond}})
	content := map[uint64][]byte{}
	for i := range uint64(12) {
		content[i] = tiertest.Bytes(i, 1<<20+int64(i)*1000)
		r.file(orca.Ino(i), 1, content[i], 4<<20)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 9))
			for range 40 {
				i := rnd.Uint64N(12)
				n := int64(len(content[i]))
				off := rnd.Int64N(n)
				want := rnd.Int64N(n-off) + 1
				got, err := r.read(tiertest.ID(i), off, want, 256<<10, rnd.IntN(2) == 0)
				if err != nil || !bytes.Equal(content[i][off:off+want], got) {
					t.Errorf("file %d [%d,+%d): %v", i, off, want, err)
				}
			}
		})
	}
	wg.Wait()
}

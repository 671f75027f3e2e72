// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient_test

import (
	"bytes"
	"context"
	"io"
	"math/rand"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/datatest"
	"orca/dataplane/grant"
	"orca/dataplane/transport"
)

const patience = 10 * time.Second

var blockOne = orca.BlockID{File: 1, Version: 1}

func request(off int64) dataplane.ReadRequest {
	return dataplane.ReadRequest{ID: blockOne, Off: off, Grant: makeGrant(1, 1, false)}
}

func TestCorruptGrainIsDetected(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(3, 4<<20+100)
	w.Put(t, blockOne, data)
	w.Flip(t, blockOne, 2<<20+5)
	c := w.client(t, blockclient.Config{})
	p := make([]byte, len(data))
	n, err := c.ReadAt(t.Context(), request(0), p)
	require.ErrorIs(t, err, orca.Corrupt)
	require.Contains(t, err.Error(), blockOne.String())
	require.LessOrEqual(t, n, 2<<20)
	require.True(t, bytes.Equal(p[:n], data[:n]), "what is returned is verified")
	_, err = c.ReadAt(t.Context(), request(2<<20), p[:100])
	require.ErrorIs(t, err, orca.Corrupt, "small read of the grain")
	n, err = c.ReadAt(t.Context(), request(3<<20), p[:1<<20])
	require.NoError(t, err, "other grains are fine")
	require.Equal(t, 1<<20, n)
	require.EqualValues(t, 4, c.Metrics().Corrupt.Load(), "each was asked for twice")
	loose := w.client(t, blockclient.Config{NoVerify: true})
	_, err = loose.ReadAt(t.Context(), request(2<<20), p[:1<<20])
	require.NoError(t, err)
}

// After a bad grain the worker is asked to verify, and what it then serves
// counts.
// Small reads of unaligned places get no more than they ask for, right up to
// the end of the block, and a flipped bit anywhere in a grain that they touch
// is found by the worker, even where they do not look.
func TestExactReads(t *testing.T) {
	w := newWorker(t)
	const size = 3*orca.GrainSize + 1234
	data := datatest.Data(41, size)
	w.Put(t, blockOne, data)
	c := w.client(t, blockclient.Config{})
	for _, n := range []int{1, 100, 4096, 20_000, 33_000, 65_000} {
		for _, off := range []int{0, 1, 4096, orca.GrainSize - 1, orca.GrainSize - 50, 2*orca.GrainSize - 2048, 3*orca.GrainSize + 1000, size - 1, size, size + 5} {
			p := make([]byte, n)
			m, err := c.ReadAt(t.Context(), request(int64(off)), p)
			want := data[min(off, size):min(off+n, size)]
			require.True(t, bytes.Equal(want, p[:m]), "[%d,+%d)", off, n)
			if m < n {
				require.Equal(t, io.EOF, err)
			} else {
				require.NoError(t, err)
			}
		}
	}
	sent := w.server.Transport().BytesOut.Load()
	for range 10 {
		_, err := c.ReadAt(t.Context(), request(100), make([]byte, 4096))
		require.NoError(t, err)
	}
	require.Less(t, w.server.Transport().BytesOut.Load()-sent, int64(10*(4096+100)))
	w.Flip(t, blockOne, orca.GrainSize+60_000)
	_, err := c.ReadAt(t.Context(), request(0), make([]byte, 4096))
	require.NoError(t, err)
	_, err = c.ReadAt(t.Context(), request(orca.GrainSize), make([]byte, 4096))
	require.ErrorIs(t, err, orca.Corrupt)
	_, err = c.ReadAt(t.Context(), request(orca.GrainSize-10), make([]byte, 20))
	require.ErrorIs(t, err, orca.Corrupt, "the second grain of two")
}

func TestCorruptGrainIsAskedForAgain(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(3, 2<<20)
	w.Put(t, blockOne, data)
	w.Flip(t, blockOne, 5)
	heal := func(_ context.Context, r dataplane.ReadRequest) error {
		if r.Verify {
			w.Flip(t, blockOne, 5)
		}
		return nil
	}
	w.Configure(func() { w.BeforeOpen = heal })
	c := w.client(t, blockclient.Config{})
	p := make([]byte, 1<<20)
	_, err := c.ReadAt(t.Context(), request(0), p)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, data[:len(p)]))
}

// Every field of a request reaches the worker's Blocks.
func TestRequestTravelsWhole(t *testing.T) {
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(3, 2<<20))
	requests := make(chan dataplane.ReadRequest, 16) // the lane's, and again
	seen := func(_ context.Context, r dataplane.ReadRequest) error { requests <- r; return orca.NotFound }
	w.Configure(func() { w.BeforeOpen = seen })
	want := request(1 << 20) // where a range of a lane begins, too
	want.N, want.Type, want.Sequential, want.OnlyCached, want.Verify, want.Whole = 1<<20, orca.ReadNoCache, true, true, true, true
	want.Direct, want.Own, want.Patience, want.Ahead, want.Until = true, true, patience, 1<<20, 2<<20
	v := reflect.ValueOf(want)
	for i := range v.NumField() {
		require.False(t, v.Field(i).IsZero(), "this test does not set %s", v.Type().Field(i).Name)
	}
	_, err := w.client(t, blockclient.Config{}).ReadAt(t.Context(), want, make([]byte, 1<<20))
	require.ErrorIs(t, err, orca.NotFound)
	got := <-requests
	require.True(t, want.Grant.Expiry.Equal(got.Grant.Expiry))
	got.Grant.Expiry = want.Grant.Expiry
	require.Zero(t, got.Patience+time.Duration(got.Ahead+got.Until), "the reader's alone")
	require.False(t, got.Own, "for who was told to have a copy, not for whom it asks")
	want.Patience, want.Ahead, want.Until, want.Own = 0, 0, 0, false
	require.Equal(t, want, got)
}

// wire forwards to a worker and damages what comes back.
type wire struct {
	addr  string
	flip  atomic.Int64 // flip a bit of the reply byte of this index; -1: none
	cut   atomic.Int64 // close after this many reply bytes; -1: never
	hold  atomic.Bool  // stop forwarding replies
	conns sync.WaitGroup
}

func newWire(t *testing.T, target string) *wire {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	x := &wire{addr: ln.Addr().String()}
	x.flip.Store(-1)
	x.cut.Store(-1)
	done := make(chan struct{})
	t.Cleanup(func() { _ = ln.Close(); <-done; x.conns.Wait() })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", target)
			if err != nil {
				_ = c.Close()
				continue
			}
			x.conns.Go(func() { _, _ = io.Copy(s, c); _ = s.Close() })
			x.conns.Go(func() { x.back(c, s); _ = c.Close(); _ = s.Close() })
		}
	}()
	return x
}

func (x *wire) back(c, s net.Conn) {
	buf := make([]byte, 32<<10)
	for at := int64(0); ; {
		n, err := s.Read(buf)
		if err != nil {
			return
		}
		if f := x.flip.Load() - at; f >= 0 && f < int64(n) {
			buf[f] ^= 1
		}
		if cut := x.cut.Load(); cut >= 0 && at+int64(n) > cut {
			_, _ = c.Write(buf[:max(cut-at, 0)])
			return
		}
		for x.hold.Load() {
			time.Sleep(time.Millisecond)
		}
		at += int64(n)
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestDamageOnTheWire(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(4, 3<<20)
	w.Put(t, blockOne, data)
	p := make([]byte, len(data))
	for _, flip := range []int64{0, 20, 31, 33, 95, 96, 500_000, 1<<20 + 95} {
		x := newWire(t, w.addr)
		x.flip.Store(flip)
		c := w.client(t, blockclient.Config{Transport: transport.ClientConfig{Addr: x.addr}})
		_, err := c.ReadAt(t.Context(), request(0), p)
		require.Error(t, err, "bit flipped at %d", flip)
		if flip >= 32 {
			require.ErrorIs(t, err, orca.Corrupt, "bit flipped at %d", flip)
		}
		x.flip.Store(-1)
		n, err := c.ReadAt(t.Context(), request(0), p)
		require.NoError(t, err, "the next read uses a clean connection")
		require.True(t, n == len(data) && bytes.Equal(p, data))
	}
	for _, cut := range []int64{0, 10, 32, 96, 1000, 1 << 20} {
		x := newWire(t, w.addr)
		x.cut.Store(cut)
		c := w.client(t, blockclient.Config{Transport: transport.ClientConfig{Addr: x.addr}})
		n, err := c.ReadAt(t.Context(), request(0), p)
		require.ErrorIs(t, err, orca.Unavailable, "cut at %d", cut)
		require.True(t, bytes.Equal(p[:n], data[:n]))
	}
}

func TestKilledServerMidRead(t *testing.T) {
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(5, 8<<20))
	var opens atomic.Int64
	entered := make(chan struct{}, 64)
	before := func(ctx context.Context, _ dataplane.ReadRequest) error {
		if opens.Add(1) < 3 {
			return nil
		}
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	w.Configure(func() { w.BeforeOpen = before })
	c := w.client(t, blockclient.Config{})
	res := make(chan error, 1)
	go func() {
		_, err := c.ReadAt(t.Context(), request(0), make([]byte, 8<<20))
		res <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = w.server.Shutdown(ctx)
	require.ErrorIs(t, <-res, orca.Unavailable)
	_, err := c.ReadAt(t.Context(), request(0), make([]byte, 8<<20))
	require.ErrorIs(t, err, orca.Unavailable)
	require.Zero(t, w.Pins.Load())
}

func TestStreamClosedInThePoolIsReplaced(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(6, 2<<20)
	w.Put(t, blockOne, data)
	c := w.client(t, blockclient.Config{})
	p := make([]byte, len(data))
	_, err := c.ReadAt(t.Context(), request(0), p)
	require.NoError(t, err)
	require.NoError(t, w.server.Shutdown(t.Context()))
	again := newWorkerAt(t, w.Store, w.addr)
	defer again()
	_, err = c.ReadAt(t.Context(), request(0), p)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, data))
	require.Positive(t, c.Metrics().Redials.Load())
}

func TestCancelMidRead(t *testing.T) {
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(7, 8<<20))
	entered, left := make(chan struct{}, 64), make(chan struct{}, 64)
	before := func(ctx context.Context, r dataplane.ReadRequest) error {
		if r.Off == 0 {
			return nil
		}
		entered <- struct{}{}
		<-ctx.Done()
		left <- struct{}{}
		return ctx.Err()
	}
	w.Configure(func() { w.BeforeOpen = before })
	c := w.client(t, blockclient.Config{})
	for name, make1 := range map[string]func() (context.Context, context.CancelFunc, error){
		"cancel": func() (context.Context, context.CancelFunc, error) {
			ctx, cancel := context.WithCancel(t.Context())
			return ctx, cancel, orca.Canceled
		},
		"deadline": func() (context.Context, context.CancelFunc, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			return ctx, func() {}, errJoin{orca.Timeout, cancel}
		},
	} {
		ctx, cancel, want := make1()
		go func() { <-entered; cancel() }()
		_, err := c.ReadAt(ctx, request(0), make([]byte, 8<<20))
		if j, ok := want.(errJoin); ok { //nolint:errorlint // the table's own value
			j.cancel()
			want = j.Kind
		}
		require.ErrorIs(t, err, want, name)
		<-left // the far end has stopped
	}
	require.Eventually(t, func() bool { return w.Pins.Load() == 0 }, patience, time.Millisecond)
}

type errJoin struct {
	orca.Kind
	cancel context.CancelFunc
}

func TestManyReaders(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(8, 6<<20+77)
	w.Put(t, blockOne, data)
	c := w.client(t, blockclient.Config{MaxStreams: 8})
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			r := rand.New(rand.NewSource(int64(g)))
			p := make([]byte, 2<<20)
			for range 6 {
				off, n := r.Intn(len(data)), 1+r.Intn(len(p))
				if r.Intn(2) == 0 {
					n = 1 + n%5000
				}
				got, err := c.ReadAt(t.Context(), request(int64(off)), p[:n])
				want := data[off:min(off+n, len(data))]
				if err != nil && (err != io.EOF || len(want) == n) || !bytes.Equal(p[:got], want) {
					t.Errorf("read [%d,+%d): %d bytes, %v", off, n, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, c.Metrics().Streams.Load(), int64(8))
	// A reply may be here before its server has counted the request out.
	require.Eventually(t, func() bool { return w.Pins.Load() == 0 && w.server.Transport().InFlight.Load() == 0 }, patience, time.Millisecond)
}

// A reader that stalls holds a bounded number of extents, and is cut off.
func TestStalledReaderIsCutOff(t *testing.T) {
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(9, 32<<20))
	x := newWire(t, w.addr)
	c := w.client(t, blockclient.Config{StallTimeout: 300 * time.Millisecond, Transport: transport.ClientConfig{Addr: x.addr}})
	x.hold.Store(true)
	_, err := c.ReadAt(t.Context(), request(0), make([]byte, 1<<20))
	require.ErrorIs(t, err, orca.Timeout)
	require.LessOrEqual(t, w.Pins.Load(), int64(4))
	x.hold.Store(false)
	require.Eventually(t, func() bool { return w.Pins.Load() == 0 }, patience, time.Millisecond)
}

func TestGrantsAreChecked(t *testing.T) {
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(10, 1<<20))
	c := w.client(t, blockclient.Config{Descriptors: w.fds})
	p := make([]byte, 1<<20)
	bad := map[string]struct {
		g    dataplane.Grant
		kind orca.Kind
	}{
		"none":    {dataplane.Grant{}, orca.Permission},
		"other":   {makeGrant(2, 1, false), orca.Permission},
		"version": {makeGrant(1, 2, false), orca.Permission},
		"forged":  {grant.Make([]byte("other key"), dataplane.Grant{File: 1, Version: 1, Expiry: time.Now().Add(time.Hour)}), orca.Permission},
		"old":     {grant.Make(datatest.Key, dataplane.Grant{File: 1, Version: 1, Expiry: time.Now().Add(-time.Second)}), orca.Stale},
	}
	for name, b := range bad {
		for _, n := range []int{10, len(p)} {
			_, err := c.ReadAt(t.Context(), dataplane.ReadRequest{ID: blockOne, Grant: b.g}, p[:n])
			require.ErrorIs(t, err, b.kind, name)
		}
		_, _, _, err := c.Descriptor(t.Context(), blockOne, b.g)
		require.ErrorIs(t, err, b.kind, name)
		_, err = c.BlockInfo(t.Context(), blockOne, b.g)
		require.ErrorIs(t, err, b.kind, name)
	}
	require.Zero(t, w.Opens.Load(), "nothing was opened")
	_, err := c.CreateWrite(t.Context(), dataplane.WriteTarget{File: 1, Version: 1, Grant: makeGrant(1, 1, false)})
	require.ErrorIs(t, err, orca.Permission, "a grant to read")
	id, err := c.CreateWrite(t.Context(), dataplane.WriteTarget{File: 3, Version: 1, Grant: makeGrant(3, 1, true)})
	require.NoError(t, err)
	thief := w.client(t, blockclient.Config{Descriptors: w.fds})
	thief.Renew(id, makeGrant(4, 1, true))
	require.ErrorIs(t, thief.WriteAt(t.Context(), id, p, 0), orca.Permission)
	require.ErrorIs(t, thief.Abort(t.Context(), id), orca.Permission)
	_, err = thief.WriteFile(t.Context(), id)
	require.ErrorIs(t, err, orca.Permission)
	_, err = thief.Seal(t.Context(), id, dataplane.WriteTarget{File: 4, Version: 1, Grant: makeGrant(4, 1, true)}, false)
	require.ErrorIs(t, err, orca.Permission)
	info, err := c.BlockInfo(t.Context(), blockOne, makeGrant(1, 1, false))
	require.NoError(t, err)
	require.Equal(t, dataplane.BlockInfo{Length: 1 << 20, Cached: 1 << 20, Complete: true, Tier: orca.SSD}, info)
}

func TestSequential(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(11, 9<<20+5)
	w.Put(t, blockOne, data)
	c := w.client(t, blockclient.Config{})
	for _, cfg := range []blockclient.SequentialConfig{{}, {Segment: 100_000, Window: 1}, {Segment: 1 << 20, Window: 8}} {
		for _, r := range []struct{ off, n int64 }{{0, int64(len(data))}, {77, 3 << 20}, {5 << 20, 100 << 20}, {1, 0}, {int64(len(data)), 10}} {
			req := request(r.off)
			req.N = r.n
			s, err := blockclient.NewSequential(t.Context(), c, req, cfg)
			require.NoError(t, err)
			got, err := io.ReadAll(s)
			require.NoError(t, err)
			want := data[r.off:min(r.off+r.n, int64(len(data)))]
			require.True(t, bytes.Equal(got, want), "%+v %+v: %d bytes, want %d", cfg, r, len(got), len(want))
			require.NoError(t, s.Close())
		}
	}
	req := request(0)
	req.N = 9 << 20
	s, err := blockclient.NewSequential(t.Context(), c, req, blockclient.SequentialConfig{})
	require.NoError(t, err)
	_, err = s.Read(make([]byte, 10))
	require.NoError(t, err)
	require.NoError(t, s.Close(), "in the middle")
	_, err = s.Read(make([]byte, 10))
	require.ErrorIs(t, err, orca.Canceled)
}

func TestIdleStreamsAreClosed(t *testing.T) {
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(12, 1<<20))
	c := w.client(t, blockclient.Config{IdleTimeout: 30 * time.Millisecond})
	_, err := c.ReadAt(t.Context(), request(0), make([]byte, 1<<20))
	require.NoError(t, err)
	require.EqualValues(t, 1, c.Metrics().Streams.Load())
	require.Eventually(t, func() bool { return c.Metrics().Streams.Load() == 0 }, patience, time.Millisecond)
}

func TestReadAllocations(t *testing.T) {
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(13, 1<<20))
	c := w.client(t, blockclient.Config{})
	p, req := make([]byte, 1<<20), request(0)
	read := func() {
		if _, err := c.ReadAt(t.Context(), req, p); err != nil {
			t.Error(err)
		}
	}
	read()
	// Both ends: the worker runs in this process.
	require.LessOrEqual(t, testing.AllocsPerRun(50, read), 40.0)
}

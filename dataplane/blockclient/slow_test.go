// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient_test

import (
	"context"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/datapb"
	"orca/dataplane/datatest"
	"orca/dataplane/frame"
	"orca/dataplane/grant"
	"orca/dataplane/transport"
)

// usage is what this process holds: both ends of a test.
type usage struct {
	goroutines, threads, files int
	heap                       int64
}

func used(t *testing.T) usage {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return usage{runtime.NumGoroutine(), pprof.Lookup("threadcreate").Count(), len(fds), int64(m.HeapAlloc)}
}

// readFrame encodes a request as it goes over the wire.
func readFrame(t *testing.T, seq uint64, off, n int64) []byte {
	t.Helper()
	g := grant.Make(datatest.Key, dataplane.Grant{File: blockOne.File, Version: blockOne.Version, Expiry: time.Now().Add(time.Hour)})
	q := datapb.ReadRequest{Block: datapb.FromBlock(blockOne), Off: off, N: n, Grant: datapb.FromGrant(&g)}
	meta, err := q.MarshalVT()
	require.NoError(t, err)
	h := frame.Header{Op: frame.OpRead, Seq: seq, Meta: uint32(len(meta))}
	return append(h.AppendTo(nil), meta...)
}

// Receivers that ask for much and read nothing cost the server no memory for
// the data, one parked goroutine and one pin per request, no thread; when they
// hang up all of it is given back, with the write timeout still far away.
func TestReceiversThatStopReading(t *testing.T) {
	const conns, each = 4, 32
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(21, 32<<20))
	warm := w.client(t, blockclient.Config{})
	_, err := warm.ReadAt(t.Context(), request(0), make([]byte, 1<<20))
	require.NoError(t, err)
	before := used(t)
	var cs []net.Conn
	for range conns {
		c, err := net.Dial("tcp", w.addr)
		require.NoError(t, err)
		cs = append(cs, c)
		for i := range each {
			_, err := c.Write(readFrame(t, uint64(i+1), int64(i)<<20, 1<<20))
			require.NoError(t, err)
		}
	}
	m := w.server.Transport()
	// The kernel takes a few MiB per connection; the other replies wait.
	require.Eventually(t, func() bool { return w.server.Metrics().Reads.Load() == 1+conns*each }, patience, time.Millisecond)
	during := used(t)
	require.Positive(t, m.InFlight.Load(), "nobody waits: this tests nothing")
	require.LessOrEqual(t, m.InFlight.Load(), int64(conns*each))
	require.LessOrEqual(t, w.Pins.Load(), int64(conns*each))
	require.LessOrEqual(t, during.goroutines-before.goroutines, conns*(each+2))
	require.Less(t, during.threads-before.threads, conns*each/4, "a goroutine that waits for a peer holds no thread")
	require.Less(t, during.heap-before.heap, int64(conns*each)<<14, "16 KiB for each request of 1 MiB")
	// Others are served meanwhile.
	_, err = warm.ReadAt(t.Context(), request(0), make([]byte, 3<<20))
	require.NoError(t, err)
	for _, c := range cs {
		_ = c.Close()
	}
	freed(t, w, before)
}

// freed waits until the server holds nothing for requests, and this process
// has no more goroutines and descriptors than before.
func freed(t *testing.T, w *worker, before usage) {
	t.Helper()
	m := w.server.Transport()
	for end := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) { // not require.Eventually: it runs goroutines
		now := used(t)
		if w.Pins.Load() == 0 && m.InFlight.Load() == 0 && m.Handlers.Load() == 0 &&
			now.goroutines <= before.goroutines && now.files <= before.files {
			return
		}
		require.True(t, time.Now().Before(end), "before %+v, now %+v, %d pins, %d requests, %d handlers",
			before, now, w.Pins.Load(), m.InFlight.Load(), m.Handlers.Load())
	}
}

// Readers that give up free the far end at once: what it was waiting for, and
// what it was sending.
func TestReadersThatGiveUp(t *testing.T) {
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(22, 32<<20))
	var waiting atomic.Int64
	hold := func(ctx context.Context, r dataplane.ReadRequest) error {
		if r.Off < 4<<20 {
			return nil
		}
		waiting.Add(1)
		<-ctx.Done()
		return ctx.Err()
	}
	w.Configure(func() { w.BeforeOpen = hold })
	c := w.client(t, blockclient.Config{MaxStreams: 64})
	_, err := c.ReadAt(t.Context(), request(0), make([]byte, 100))
	require.NoError(t, err)
	before := used(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	const readers = 24
	for i := range readers {
		wg.Go(func() {
			off, n := int64(3<<20), 8<<20
			if i%2 == 0 { // over the shared connection
				off, n = 5<<20, 4096
			}
			_, err := c.ReadAt(ctx, request(off), make([]byte, n))
			if orca.KindOf(err) != orca.Canceled {
				t.Errorf("%v", err)
			}
		})
	}
	require.Eventually(t, func() bool { return waiting.Load() >= readers }, patience, time.Millisecond)
	cancel()
	wg.Wait()
	freed(t, w, before)
	require.Zero(t, c.Metrics().Streams.Load(), "connections with an answer still to come are not kept")
	_, err = c.ReadAt(t.Context(), request(0), make([]byte, 2<<20))
	require.NoError(t, err)
}

// A small read does not wait for long ones, not even when it touches two
// grains and every bulk connection is stuck in the middle of a frame: it is
// answered although none of them goes on before it is.
func TestSmallReadsPassLongOnes(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(23, 8<<20)
	w.Put(t, blockOne, data)
	x := newWire(t, w.addr) // the way of the bulk connections only
	small := w.client(t, blockclient.Config{})
	bulk := w.client(t, blockclient.Config{MaxStreams: 2, Transport: transport.ClientConfig{Addr: x.addr}})
	var order []string
	var mu sync.Mutex
	note := func(s string) { mu.Lock(); order = append(order, s); mu.Unlock() }
	x.hold.Store(true)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			_, err := bulk.ReadAt(t.Context(), request(0), make([]byte, 8<<20))
			if err != nil {
				t.Error(err)
			}
			note("long")
		})
	}
	require.Eventually(t, func() bool { return w.server.Metrics().ReadBytes.Load() > 1<<20 }, patience, time.Millisecond)
	for i := range 50 {
		p := make([]byte, 4096)
		off := int64(i+1)*orca.GrainSize - 2048
		_, err := small.ReadAt(t.Context(), request(off), p)
		require.NoError(t, err)
		require.Equal(t, data[off:off+4096], p)
		note("small")
	}
	x.hold.Store(false)
	wg.Wait()
	require.Len(t, order, 52)
	require.Equal(t, []string{"long", "long"}, order[50:])
	require.EqualValues(t, 50, small.Metrics().Small.Load())
	require.Zero(t, small.Metrics().Streams.Load(), "none took a bulk connection")
}

// With every bulk connection of one client in use a small read of the same
// client is answered, and a long one waits for its turn.
func TestSmallReadsOfABusyClient(t *testing.T) {
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(24, 8<<20))
	held, let := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hold := func(ctx context.Context, r dataplane.ReadRequest) error {
		if r.Off >= 4<<20 {
			once.Do(func() { close(held) })
			select {
			case <-let:
			case <-ctx.Done():
			}
		}
		return nil
	}
	w.Configure(func() { w.BeforeOpen = hold })
	c := w.client(t, blockclient.Config{MaxStreams: 1, StallTimeout: time.Minute})
	long := make(chan error, 1)
	go func() {
		_, err := c.ReadAt(t.Context(), request(2<<20), make([]byte, 4<<20))
		long <- err
	}()
	<-held
	for i := range 20 {
		_, err := c.ReadAt(t.Context(), request(int64(i+1)*orca.GrainSize-100), make([]byte, 60_000))
		require.NoError(t, err)
	}
	select {
	case err := <-long:
		t.Fatalf("the long read ended first: %v", err)
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.ReadAt(ctx, request(0), make([]byte, 1<<20))
	require.ErrorIs(t, err, orca.Timeout, "the only place is taken")
	close(let)
	require.NoError(t, <-long)
}

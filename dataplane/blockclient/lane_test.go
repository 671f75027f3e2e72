// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/datatest"
	"orca/dataplane/transport"
)

// theirs is one grant for all reads of a reader, as an open file has.
var theirs = makeGrant(blockOne.File, blockOne.Version, false)

// onward is a request of a reader that goes on to the end of a block.
func onward(off, ahead int64, block []byte) dataplane.ReadRequest {
	r := request(off)
	r.Grant = theirs
	r.Sequential, r.Ahead, r.Until = true, ahead, int64(len(block))
	return r
}

// readOn reads [off, end of block) in pieces of the sizes that next returns,
// and compares.
func readOn(t *testing.T, c *blockclient.Client, off, ahead int64, block []byte, next func() int) {
	t.Helper()
	for off < int64(len(block)) {
		p := make([]byte, min(int64(next()), int64(len(block))-off))
		n, err := c.ReadAt(t.Context(), onward(off, ahead, block), p)
		require.NoError(t, err)
		require.Equal(t, len(p), n)
		require.True(t, bytes.Equal(p, block[off:off+int64(n)]), "%d bytes at %d", n, off)
		off += int64(n)
	}
}

// A reader that goes on gets the bytes that any other gets, whatever the sizes
// of its reads, where it begins, and in how many pieces the worker answers.
func TestLaneReadsWhatIsThere(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(41, 9<<20+777)
	w.Put(t, blockOne, data)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []*blockclient.Client{w.client(t, blockclient.Config{}), w.client(t, blockclient.Config{NoVerify: true}),
		w.client(t, blockclient.Config{Range: 3 * orca.GrainSize}), w.client(t, blockclient.Config{Transport: transport.ClientConfig{Network: "unix", Addr: w.unix}})} {
		for _, extent := range []int64{0, 5 * orca.GrainSize} {
			w.Configure(func() { w.MaxExtent = extent })
			for _, ahead := range []int64{1, 1 << 20, 100 << 20} {
				readOn(t, c, 0, ahead, data, func() int { return 1 << 20 })
				readOn(t, c, rng.Int64N(1<<20), ahead, data, func() int { return 70_000 + rng.IntN(3<<20) })
			}
		}
		require.Positive(t, c.Metrics().Ahead.Load())
		require.Zero(t, c.Metrics().Corrupt.Load())
	}
	require.Eventually(t, func() bool { return w.Pins.Load() == 0 }, patience, time.Millisecond)
}

// Nothing is asked for or sent twice, nor behind the end: a request and a frame
// for each MiB, on one connection, and each read but the first finds its bytes
// under way.
func TestLaneAsksOnce(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(42, 16<<20-5)
	w.Put(t, blockOne, data)
	c := w.client(t, blockclient.Config{})
	readOn(t, c, 0, 4<<20, data, func() int { return 512 << 10 })
	m := w.server.Metrics()
	require.EqualValues(t, 16, m.Reads.Load())
	require.EqualValues(t, 16, m.Extents.Load())
	require.EqualValues(t, len(data), m.ReadBytes.Load())
	require.EqualValues(t, 1, w.server.Transport().Accepted.Load())
	require.EqualValues(t, 31, c.Metrics().Ahead.Load())
	require.EqualValues(t, 16*16, c.Metrics().Verified.Load(), "each grain once")
	require.Zero(t, c.Metrics().Overtook.Load(), "hits are answered in the order of the requests")
	require.EqualValues(t, 1, c.Metrics().Streams.Load())
	// What is left at the end of the block is a connection for anybody.
	readOn(t, c, 0, 4<<20, data, func() int { return 3 << 20 })
	require.EqualValues(t, 1, w.server.Transport().Accepted.Load())
}

// Neither end allocates for a range that is read ahead: the worker no goroutine
// for a hit either.
func TestLaneAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget on purpose")
	}
	const size, rounds = 64 << 20, 40
	w := newWorker(t)
	w.Put(t, blockOne, datatest.Data(43, size))
	c := w.client(t, blockclient.Config{})
	p, req := make([]byte, 1<<20), request(0)
	req.Ahead, req.Until = 4<<20, size
	read := func() {
		if n, err := c.ReadAt(context.Background(), req, p); err != nil || n != len(p) {
			t.Errorf("%d bytes, %v", n, err)
		}
		req.Off += int64(len(p))
	}
	for range 8 {
		read()
	}
	// Of both ends, per MiB; before lanes it was 40.
	require.LessOrEqual(t, testing.AllocsPerRun(rounds, read), 12.0)
	require.Zero(t, w.server.Transport().Handlers.Load())
}

// A reply that overtakes another is put aside until its turn.
func TestLaneOvertaken(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(44, 4<<20+1)
	w.Put(t, blockOne, data)
	later := make(chan struct{})
	before := func(ctx context.Context, r dataplane.ReadRequest) error {
		switch {
		case r.Off == 0:
			select {
			case <-later:
			case <-ctx.Done():
			}
		case r.Off == 3<<20:
			defer close(later)
		}
		return nil
	}
	w.Configure(func() { w.BeforeOpen, w.MaxExtent = before, 3*orca.GrainSize })
	c := w.client(t, blockclient.Config{})
	// The first frame of the last range may be sent after or before the first
	// range: what counts are the bytes.
	readOn(t, c, 0, 8<<20, data, func() int { return 300_000 })
	require.Zero(t, c.Metrics().Corrupt.Load())
}

// A damaged grain ends the lane, never reaches the reader, and is asked for
// again from the worker, which is told.
func TestLaneFindsDamage(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(45, 6<<20)
	w.Put(t, blockOne, data)
	c := w.client(t, blockclient.Config{})
	w.Flip(t, blockOne, 3<<20+70_000)
	p := make([]byte, 1<<20)
	for off := int64(0); off < 3<<20; off += 1 << 20 {
		_, err := c.ReadAt(t.Context(), onward(off, 2<<20, data), p)
		require.NoError(t, err)
	}
	n, err := c.ReadAt(t.Context(), onward(3<<20, 2<<20, data), p)
	require.ErrorIs(t, err, orca.Corrupt)
	require.True(t, bytes.Equal(p[:n], data[3<<20:3<<20+n]))
	w.Flip(t, blockOne, 3<<20+70_000)
	readOn(t, c, 3<<20, 2<<20, data, func() int { return 1 << 20 })
}

// Readers that go away, and those with other rights, leave nothing behind.
func TestLaneIsLeft(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(46, 32<<20)
	w.Put(t, blockOne, data)
	c := w.client(t, blockclient.Config{IdleTimeout: 30 * time.Millisecond, MaxStreams: 3})
	p := make([]byte, 1<<20)
	for i := range int64(8) { // more than there may be
		_, err := c.ReadAt(t.Context(), onward(3*i<<20, 8<<20, data), p)
		require.NoError(t, err)
		require.LessOrEqual(t, c.Metrics().Streams.Load(), int64(4))
	}
	require.Eventually(t, func() bool { return c.Metrics().Streams.Load() == 0 && w.Pins.Load() == 0 }, patience, time.Millisecond)

	c = w.client(t, blockclient.Config{})
	_, err := c.ReadAt(t.Context(), onward(0, 2<<20, data), p)
	require.NoError(t, err)
	other := onward(1<<20, 2<<20, data)
	other.Grant.Token = []byte("forged")
	_, err = c.ReadAt(t.Context(), other, p)
	require.ErrorIs(t, err, orca.Permission, "what was asked for with a good grant is not for this one")
	require.NoError(t, c.Close())
	require.Eventually(t, func() bool { return w.Pins.Load() == 0 && w.server.Transport().InFlight.Load() == 0 }, patience, time.Millisecond)
	_, err = c.ReadAt(t.Context(), onward(1<<20, 2<<20, data), p)
	require.ErrorIs(t, err, orca.Unavailable)
}

// A worker that stops in the middle is Unavailable, a reader that gives up is
// told so at once, and the far end is freed in both cases.
func TestLaneIsCutOff(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(47, 8<<20)
	w.Put(t, blockOne, data)
	entered := make(chan struct{}, 16)
	before := func(ctx context.Context, r dataplane.ReadRequest) error {
		if r.Off < 2<<20 {
			return nil
		}
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	w.Configure(func() { w.BeforeOpen = before })
	c := w.client(t, blockclient.Config{})
	p := make([]byte, 2<<20)
	_, err := c.ReadAt(t.Context(), onward(0, 2<<20, data), p)
	require.NoError(t, err)
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = c.ReadAt(ctx, onward(2<<20, 2<<20, data), p)
	require.ErrorIs(t, err, orca.Canceled)
	require.Eventually(t, func() bool { return w.Pins.Load() == 0 && w.server.Transport().InFlight.Load() == 0 }, patience, time.Millisecond)
	require.Zero(t, c.Metrics().Streams.Load())

	patient := onward(0, 2<<20, data)
	patient.Patience = 50 * time.Millisecond
	_, err = c.ReadAt(t.Context(), patient, p)
	require.NoError(t, err)
	patient.Off = 2 << 20
	_, err = c.ReadAt(t.Context(), patient, p)
	require.ErrorIs(t, err, orca.Timeout)

	_, err = c.ReadAt(t.Context(), onward(0, 2<<20, data), p)
	require.NoError(t, err)
	now, stop := context.WithCancel(t.Context())
	stop()
	_ = w.server.Shutdown(now)
	_, err = c.ReadAt(t.Context(), onward(2<<20, 2<<20, data), p)
	require.ErrorIs(t, err, orca.Unavailable)
	require.Zero(t, w.Pins.Load())
}

// A block that is shorter than its reader thinks ends with io.EOF.
func TestLaneBeyondTheEnd(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(48, 2<<20+100)
	w.Put(t, blockOne, data)
	c := w.client(t, blockclient.Config{})
	req := onward(0, 8<<20, data)
	req.Until = 10 << 20
	p := make([]byte, 2<<20)
	_, err := c.ReadAt(t.Context(), req, p)
	require.NoError(t, err)
	req.Off = 2 << 20
	n, err := c.ReadAt(t.Context(), req, p)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, 100, n)
	require.True(t, bytes.Equal(p[:n], data[2<<20:]))
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/blockserver"
	"orca/dataplane/datatest"
	"orca/dataplane/grant"
	"orca/dataplane/shortcircuit"
	"orca/dataplane/transport"
)

// sharing is a store whose blocks can be read in place while they have a
// generation.
type sharing struct {
	*datatest.Store
	gen    atomic.Uint64
	shares atomic.Int64
}

func (s *sharing) Open(ctx context.Context, req dataplane.ReadRequest) (dataplane.Extent, error) {
	e, err := s.Store.Open(ctx, req)
	e.Generation = s.gen.Load()
	return e, err
}

func (s *sharing) Held(req dataplane.ReadRequest) (dataplane.Extent, bool) {
	e, ok := s.Store.Held(req)
	e.Generation = s.gen.Load()
	return e, ok
}

func (s *sharing) Share(ctx context.Context, id orca.BlockID, g dataplane.Grant) (*os.File, int64, uint64, error) {
	s.shares.Add(1)
	f, n, _, err := s.Store.Descriptor(ctx, id, g)
	return f, n, s.gen.Load(), err
}

// inPlaceClient serves blocks, and their descriptors, to a client that takes
// it for a worker of its host.
func inPlaceClient(t *testing.T, blocks dataplane.Blocks, fds dataplane.Blocks, sc blockserver.Config, cc blockclient.Config) *blockclient.Client {
	t.Helper()
	grants := grant.NewChecker(func() []byte { return datatest.Key }, 0)
	server, err := blockserver.New(sc, blocks, grants, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Shutdown(context.Background()) })
	addr, err := server.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ds, err := shortcircuit.NewServer(shortcircuit.ServerConfig{}, fds, grants, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ds.Close() })
	path := filepath.Join(t.TempDir(), "fds")
	require.NoError(t, ds.Listen(path))
	cc.Transport, cc.Descriptors = transport.ClientConfig{Addr: addr.String()}, path
	c, err := blockclient.New(cc, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Of a grain that has held the worker reads the pages that are asked for, and
// finds damage in them; another file of the block begins anew.
func TestExactReadsOfPages(t *testing.T) {
	s := &sharing{Store: datatest.NewStore(t)}
	s.gen.Store(1)
	server, err := blockserver.New(blockserver.Config{}, s, grant.NewChecker(func() []byte { return datatest.Key }, 0), nil)
	require.NoError(t, err)
	defer server.Shutdown(context.Background())
	addr, err := server.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c, err := blockclient.New(blockclient.Config{Transport: transport.ClientConfig{Addr: addr.String()}}, nil)
	require.NoError(t, err)
	defer c.Close()
	const size = 3*orca.GrainSize + 5000
	data := datatest.Data(51, size)
	s.Put(t, blockOne, data)
	read := func(off, n int) error {
		p := make([]byte, n)
		m, err := c.ReadAt(t.Context(), request(int64(off)), p)
		require.True(t, bytes.Equal(data[min(off, size):min(off+m, size)], p[:m]), "[%d,+%d)", off, n)
		if err == nil {
			require.Equal(t, n, m)
		} else if err == io.EOF {
			require.Equal(t, max(size-off, 0), m)
		}
		return err
	}
	all := func() {
		for _, n := range []int{1, 100, 4096, 10_000, 33_000} {
			for off := 0; off < size+8000; off += 3001 {
				if err := read(off, n); off+n > size {
					require.Equal(t, io.EOF, err)
				} else {
					require.NoError(t, err)
				}
			}
		}
	}
	all()
	require.EqualValues(t, 4, server.Metrics().Grains.Load(), "each of the four once")
	s.Flip(t, blockOne, 5*4096+7)
	require.NoError(t, read(4096, 4096), "another page")
	require.ErrorIs(t, read(5*4096, 100), orca.Corrupt)
	require.ErrorIs(t, read(4096, 4096), orca.Corrupt, "nothing of the grain is believed any more")
	s.Flip(t, blockOne, 5*4096+7)
	all()
	before := server.Metrics().Grains.Load()
	s.gen.Store(2)
	all()
	require.EqualValues(t, 4, server.Metrics().Grains.Load()-before)
}

// A reader on the worker's host takes long ranges from the block's file, with
// a new descriptor for each generation, and by ranges when there is none.
func TestReadInPlace(t *testing.T) {
	s := &sharing{Store: datatest.NewStore(t)}
	c := inPlaceClient(t, s, s, blockserver.Config{}, blockclient.Config{})
	require.True(t, c.InPlace())
	data := datatest.Data(7, 3<<20)
	s.Put(t, blockOne, data)
	s.Configure(func() { s.MaxExtent = 4 * orca.GrainSize })
	p := make([]byte, 2<<20)
	read := func(inPlace, shares int64) {
		t.Helper()
		was, had := c.Metrics().InPlaceBytes.Load(), s.shares.Load()
		n, err := c.ReadAt(t.Context(), request(100), p)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p[:n], data[100:100+len(p)]))
		require.Equal(t, inPlace, c.Metrics().InPlaceBytes.Load()-was)
		require.Equal(t, shares, s.shares.Load()-had)
		// A range is let go after its reply, which its reader may have by then.
		require.Eventually(t, func() bool { return s.Pins.Load() == 0 }, time.Minute, time.Millisecond)
	}
	s.gen.Store(1)
	read(2<<20, 1)
	read(2<<20, 0)
	s.gen.Store(2) // removed and filled again
	read(2<<20, 1)
	other := request(0)
	other.Grant.Token = []byte("forged")
	_, err := c.ReadAt(t.Context(), other, p)
	require.ErrorIs(t, err, orca.Permission)
	s.gen.Store(0) // not in the block's file
	read(0, 0)
	read(0, 0)
}

// arriving is a store whose blocks come a piece at a time: what is asked for
// beyond edge is waited for.
type arriving struct {
	*sharing
	size int64
	mu   sync.Mutex
	edge int64
	more chan struct{} // closed and replaced when edge moves
}

func (a *arriving) arrive(edge int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.edge = edge
	close(a.more)
	a.more = make(chan struct{})
}

func (a *arriving) Open(ctx context.Context, req dataplane.ReadRequest) (dataplane.Extent, error) {
	for {
		a.mu.Lock()
		edge, more := a.edge, a.more
		a.mu.Unlock()
		switch {
		case min(req.Off+req.N, a.size) <= edge || !req.Whole && req.Off < edge:
			req.N = min(req.N, edge-req.Off)
			return a.sharing.Open(ctx, req)
		case req.OnlyCached:
			return dataplane.Extent{}, orca.E("arriving", orca.NotFound, "not here")
		}
		select {
		case <-more:
		case <-ctx.Done():
			return dataplane.Extent{}, orca.PathE("arriving", "", orca.Timeout, ctx.Err())
		}
	}
}

// Held has nothing: what is beyond edge is not here.
func (a *arriving) Held(dataplane.ReadRequest) (dataplane.Extent, bool) {
	return dataplane.Extent{}, false
}

// A reader in order asks once for several of its pieces; one that jumps, or
// comes with another grant, asks for each.
func TestPresentForSeveralReads(t *testing.T) {
	const size, piece = 32 << 20, 1 << 20
	s := &arriving{sharing: &sharing{Store: datatest.NewStore(t)}, size: size, edge: size, more: make(chan struct{})}
	s.gen.Store(1)
	data := datatest.Data(7, size)
	s.Put(t, blockOne, data)
	c := inPlaceClient(t, s, s, blockserver.Config{Linger: time.Hour}, blockclient.Config{KnownFor: time.Hour})
	first := request(0) // one grant, as an open file has
	request := func(off int64) dataplane.ReadRequest { r := first; r.Off = off; return r }
	p := make([]byte, piece)
	asked := func(req dataplane.ReadRequest) int64 {
		t.Helper()
		was := c.Metrics().Presents.Load()
		n, err := c.ReadAt(t.Context(), req, p)
		require.NoError(t, err)
		require.Equal(t, piece, n)
		require.True(t, bytes.Equal(p, data[req.Off:req.Off+piece]))
		return c.Metrics().Presents.Load() - was
	}
	total := int64(0)
	for off := int64(0); off < size; off += piece {
		total += asked(request(off))
	}
	require.LessOrEqual(t, total, int64(2+(32-2+3)/4), "messages for 32 MiB in order")
	for _, off := range []int64{20 << 20, 5 << 20, 11 << 20, 2 << 20} {
		require.EqualValues(t, 1, asked(request(off)), "out of order")
	}

	// In order again; the worker has not seen the other grant.
	asked(request(3 << 20))
	asked(request(4 << 20))
	asked(request(5 << 20))
	other := request(6 << 20)
	other.Grant.Token = []byte("forged")
	_, err := c.ReadAt(t.Context(), other, p)
	require.ErrorIs(t, err, orca.Permission)
	verify := request(6 << 20)
	verify.Verify = true
	require.EqualValues(t, 1, asked(verify), "who wants it verified asks")
	require.Zero(t, s.Pins.Load())
}

// What does not come in time keeps nobody waiting for what has come.
func TestPresentDoesNotWaitForMore(t *testing.T) {
	const size, piece = 8 << 20, 1 << 20
	s := &arriving{sharing: &sharing{Store: datatest.NewStore(t)}, size: size, edge: 2*piece + piece/2, more: make(chan struct{})}
	s.gen.Store(1)
	data := datatest.Data(8, size)
	s.Put(t, blockOne, data)
	c := inPlaceClient(t, s, s, blockserver.Config{Linger: time.Millisecond}, blockclient.Config{KnownFor: time.Hour})
	first := request(0) // one grant, as an open file has
	request := func(off int64) dataplane.ReadRequest { r := first; r.Off = off; return r }
	p := make([]byte, piece)
	read := func(off int64) int64 {
		t.Helper()
		was := c.Metrics().Presents.Load()
		n, err := c.ReadAt(t.Context(), request(off), p)
		require.NoError(t, err)
		require.Equal(t, piece, n)
		require.True(t, bytes.Equal(p, data[off:off+piece]))
		return c.Metrics().Presents.Load() - was
	}
	require.EqualValues(t, 1, read(0))
	require.EqualValues(t, 1, read(piece))
	s.arrive(3*piece + piece/2)
	require.EqualValues(t, 1, read(2*piece), "asks for 4 MiB, gets what is there")
	done := make(chan int64)
	go func() { done <- read(3 * piece) }() // half of it is known
	s.arrive(size)
	require.EqualValues(t, 1, <-done)
	require.Zero(t, s.Pins.Load())
}

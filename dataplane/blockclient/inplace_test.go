// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

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

func (s *sharing) Share(ctx context.Context, id orca.BlockID, g dataplane.Grant) (*os.File, int64, uint64, error) {
	s.shares.Add(1)
	f, n, _, err := s.Store.Descriptor(ctx, id, g)
	return f, n, s.gen.Load(), err
}

// A reader on the worker's host takes long ranges from the block's file, with
// a new descriptor for each generation, and by ranges when there is none.
func TestReadInPlace(t *testing.T) {
	s := &sharing{Store: datatest.NewStore(t)}
	grants := grant.NewChecker(func() []byte { return datatest.Key }, 0)
	server, err := blockserver.New(blockserver.Config{}, s, grants, nil)
	require.NoError(t, err)
	defer server.Shutdown(context.Background())
	addr, err := server.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	fds, err := shortcircuit.NewServer(shortcircuit.ServerConfig{}, s, grants, nil)
	require.NoError(t, err)
	defer fds.Close()
	path := filepath.Join(t.TempDir(), "fds")
	require.NoError(t, fds.Listen(path))
	c, err := blockclient.New(blockclient.Config{Transport: transport.ClientConfig{Addr: addr.String()}, Descriptors: path}, nil)
	require.NoError(t, err)
	defer c.Close()
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
		require.Zero(t, s.Pins.Load())
	}
	s.gen.Store(1)
	read(2<<20, 1)
	read(2<<20, 0)
	s.gen.Store(2) // removed and filled again
	read(2<<20, 1)
	other := request(0)
	other.Grant.Token = []byte("forged")
	_, err = c.ReadAt(t.Context(), other, p)
	require.ErrorIs(t, err, orca.Permission)
	s.gen.Store(0) // not in the block's file
	read(0, 0)
	read(0, 0)
}

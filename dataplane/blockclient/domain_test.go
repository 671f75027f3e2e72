// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/blockserver"
	"orca/dataplane/datatest"
	"orca/dataplane/grant"
)

// domainReads are one read of each kind: exact, of grains, of a stream, and of
// a lane.
func domainReads(t *testing.T, c *blockclient.Client, data []byte) {
	t.Helper()
	for _, r := range []struct{ off, n, ahead int64 }{
		{5000, 4096, 0}, {0, orca.GrainSize, 0}, {orca.GrainSize + 3, 1 << 20, 0}, {2 << 20, 256 << 10, 1 << 20},
	} {
		p := make([]byte, r.n)
		n, err := c.ReadAt(t.Context(), dataplane.ReadRequest{ID: orca.BlockID{File: 1, Version: 1}, Off: r.off, Grant: makeGrant(1, 1, false),
			Ahead: r.ahead, Until: int64(len(data))}, p)
		require.NoError(t, err)
		require.EqualValues(t, r.n, n)
		require.True(t, bytes.Equal(p, data[r.off:r.off+r.n]))
	}
}

const domainBytes = 4096 + orca.GrainSize + 1<<20 + 256<<10

// Reads go over the Unix socket when there is one, and both ends say so.
func TestDomain(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(1, 4<<20)
	w.Put(t, orca.BlockID{File: 1, Version: 1}, data)
	told := 0
	c := w.client(t, blockclient.Config{Domain: w.unix, OnDomain: func(n int) { told += n }})
	domainReads(t, c, data)
	m := c.Metrics()
	require.EqualValues(t, 4, m.DomainReads.Load())
	require.EqualValues(t, domainBytes, m.DomainBytes.Load())
	require.EqualValues(t, domainBytes, told)
	require.Zero(t, m.DomainRefused.Load())
	require.Zero(t, c.Transport().Dials.Load(), "nothing went over the network")
	require.GreaterOrEqual(t, w.server.Metrics().DomainBytes.Load(), int64(domainBytes))

	_, _, _, err := c.Descriptor(t.Context(), orca.BlockID{File: 1, Version: 1}, makeGrant(1, 1, false))
	require.ErrorIs(t, err, orca.Unsupported)
}

// A socket that nobody listens on, and one that goes away, cost a look.
func TestDomainFallsBack(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(1, 4<<20)
	w.Put(t, orca.BlockID{File: 1, Version: 1}, data)
	near, err := blockserver.New(blockserver.Config{}, w.Store, grant.NewChecker(func() []byte { return datatest.Key }, 0), nil)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "near")
	_, err = near.Listen("unix", path)
	require.NoError(t, err)
	gone := w.client(t, blockclient.Config{Domain: path})
	domainReads(t, gone, data)
	require.EqualValues(t, domainBytes, gone.Metrics().DomainBytes.Load())
	require.NoError(t, near.Shutdown(context.Background()))

	domainReads(t, gone, data)
	require.EqualValues(t, domainBytes, gone.Metrics().DomainBytes.Load(), "the rest came over the network")
	require.EqualValues(t, 1, gone.Metrics().DomainRefused.Load(), "and is not looked for with each read")

	never := w.client(t, blockclient.Config{Domain: path})
	domainReads(t, never, data)
	require.Zero(t, never.Metrics().DomainBytes.Load())
}

// Whom the worker does not believe there goes over the network, where it is
// the grant that is believed; a grant that is bad everywhere stays refused.
func TestDomainRefusesUser(t *testing.T) {
	w := newWorker(t)
	data := datatest.Data(1, 4<<20)
	w.Put(t, orca.BlockID{File: 1, Version: 1}, data)
	near, err := blockserver.New(blockserver.Config{}, w.Store, grant.NewChecker(func() []byte { return []byte("another key, that nobody signs with") }, 0), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = near.Shutdown(context.Background()) })
	path := filepath.Join(t.TempDir(), "near")
	_, err = near.Listen("unix", path)
	require.NoError(t, err)
	c := w.client(t, blockclient.Config{Domain: path})
	domainReads(t, c, data)
	require.Zero(t, c.Metrics().DomainBytes.Load())
	require.EqualValues(t, 1, c.Metrics().DomainRefused.Load(), "once for all reads of the user")

	g := makeGrant(1, 1, false)
	g.Token = make([]byte, len(g.Token))
	_, err = c.ReadAt(t.Context(), dataplane.ReadRequest{ID: orca.BlockID{File: 1, Version: 1}, Grant: g}, make([]byte, 10))
	require.ErrorIs(t, err, orca.Permission)
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/engine/client"
	"orca/engine/clienttest/memorca"
)

// leased opens a file whose descriptor is asked about again all the time.
func leased(t *testing.T, wt orca.WriteType) (*client.FS, *memorca.Orca, *client.File, []byte) {
	t.Helper()
	o, err := memorca.New(t.TempDir(), "a")
	require.NoError(t, err)
	fs := openWith(t, o, client.Config{Node: "a", Lease: 10 * time.Millisecond})
	want := noise(7, 200_000)
	put(t, fs, "/f", want, client.CreateOptions{WriteType: wt})
	f := openFile(t, fs, "/f")
	v := slice(t, f, 0, 1)
	require.True(t, v.Mapped())
	v.Release()
	return fs, o, f, want
}

// readUntil reads, and compares what it gets, until n says enough.
func readUntil(t *testing.T, f *client.File, want []byte, n *atomic.Int64, least int64) {
	t.Helper()
	got := make([]byte, len(want))
	for until := time.Now().Add(30 * time.Second); n.Load() < least; {
		require.True(t, time.Now().Before(until), "only %d", n.Load())
		_, err := f.ReadAt(got, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	}
}

func TestLeaseIsRenewed(t *testing.T) {
	fs, o, f, want := leased(t, orca.CacheThrough)
	readUntil(t, f, want, &fs.Stats().LeasesRenewed, 3)
	require.Zero(t, fs.Stats().LeasesEnded.Load())
	require.Equal(t, client.Held{Mappings: 1, Descriptors: 1}, fs.Held(), "the first one is used on")
	require.Zero(t, o.Workers()[0].Calls("Open"))
}

// A block that was evicted, or replaced because a grain had rotted, has another
// file: the old one is given up within the lease.
func TestLeaseEndsWithTheBlock(t *testing.T) {
	fs, _, f, want := leased(t, orca.CacheThrough)
	require.NoError(t, fs.Free(t.Context(), client.Path("/f"), client.FreeOptions{}))
	readUntil(t, f, want, &fs.Stats().LeasesEnded, 1)
	readUntil(t, f, want, &fs.Stats().Descrips, 2)
	require.Equal(t, 1, fs.Held().Descriptors)
}

// An open file that was removed, or whose worker does not answer, is read on.
func TestLeaseOfRemovedFile(t *testing.T) {
	fs, o, f, want := leased(t, orca.MustCache)
	o.Workers()[0].SetDown(true)
	readUntil(t, f, want, &fs.Stats().LeasesRenewed, 1)
	o.Workers()[0].SetDown(false)
	require.NoError(t, fs.Remove(t.Context(), client.Path("/f"), client.RemoveOptions{}))
	readUntil(t, f, want, &fs.Stats().LeasesRenewed, 3)
	require.Zero(t, fs.Stats().LeasesEnded.Load())
}

// What the worker knows to be damaged is not read on.
func TestLeaseEndsWithDamage(t *testing.T) {
	fs, o, f, want := leased(t, orca.CacheThrough)
	o.Workers()[0].Fail(func(op string) error { return orca.E(op, orca.Corrupt, "") })
	require.Eventually(t, func() bool {
		_, err := f.ReadAt(make([]byte, len(want)), 0)
		return orca.KindOf(err) == orca.Corrupt
	}, 30*time.Second, time.Millisecond)
	require.EqualValues(t, 1, fs.Stats().LeasesEnded.Load())
	require.Zero(t, fs.Held().Descriptors)
}

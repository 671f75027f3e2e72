// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// fullOps is a file system that is smaller than the quota: writes beyond fits
// are refused, and removing a block gives its bytes back.
type fullOps struct {
	blockfile.Ops
	fits, held atomic.Int64
}

func (o *fullOps) WriteAt(f *os.File, p []byte, off int64) (int, error) {
	if o.held.Add(int64(len(p))) > o.fits.Load() {
		o.held.Add(-int64(len(p)))
		return 0, &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return o.Ops.WriteAt(f, p, off)
}

func (o *fullOps) Remove(path string) error {
	st, err := os.Stat(path)
	if err == nil && st.Mode().IsRegular() {
		o.held.Add(-st.Size())
	}
	return o.Ops.Remove(path)
}

// TestFileSystemSmallerThanQuota fills a directory whose file system ends
// before its quota: clean blocks leave, partial ones too, and no write fails.
func TestFileSystemSmallerThanQuota(t *testing.T) {
	const size = 1 << 20
	ops := &fullOps{Ops: blockfile.OS{}}
	ops.fits.Store(4*size + size/2)
	s, err := tiered.Open(tiered.Config{Dirs: []dir.Config{{Path: t.TempDir() + "/ssd", Tier: orca.SSD, Capacity: 1 << 30}}, Ops: ops},
		slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer s.Close()
	ctx := context.Background()
	for i := range uint64(12) {
		want := tiertest.Bytes(i, size)
		f, err := s.Begin(ctx, tiertest.ID(i), size)
		require.NoError(t, err, "block %d", i)
		require.NoError(t, f.WriteGrains(ctx, want, 0), "block %d", i)
		require.NoError(t, f.Close())
		got, err := tiertest.ReadAll(s, tiertest.ID(i), size)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	}
	room, err := s.Reserve(ctx, size, false)
	require.NoError(t, err)
	defer room.Release()
	calls := 0
	require.NoError(t, room.WithSpace(ctx, size, func() error {
		if calls++; ops.held.Load()+size > ops.fits.Load() {
			return orca.E("test", orca.NoSpace, "full")
		}
		return nil
	}))
	require.Positive(t, s.Metrics.Evicted.Load())
	require.Greater(t, calls, 0)
}

// lateOps calls a hook before a block file is opened for reading.
type lateOps struct {
	blockfile.Ops
	hook atomic.Pointer[func()]
}

func (o *lateOps) OpenFile(path string, flag int, perm os.FileMode) (*os.File, error) {
	if flag == os.O_RDONLY {
		if h := o.hook.Swap(nil); h != nil {
			(*h)()
		}
	}
	return o.Ops.OpenFile(path, flag, perm)
}

// TestOpenedTooLate: between finding a block and opening its file, the block
// leaves and a new one of its name begins. The empty file of the new one must
// not be served as the old one's.
func TestOpenedTooLate(t *testing.T) {
	ops := &lateOps{Ops: blockfile.OS{}}
	s := openWith(t, tiertest.Options{SSD: 8 << 20, Root: t.TempDir()}, ops)
	defer s.Close()
	id, p := tiertest.ID(1), tiertest.Bytes(1, 1<<20)
	tiertest.Fill(t, s, id, p)
	called := false
	var late tiers.Filler
	hook := func() {
		called = true
		require.NoError(t, s.Remove(id))
		w, err := s.Begin(t.Context(), id, 1<<20)
		require.NoError(t, err)
		late = w
	}
	ops.hook.Store(&hook)
	_, err := s.Get(id, 0, 1<<20)
	require.True(t, called)
	require.NoError(t, late.Close())
	require.ErrorIs(t, err, orca.NotFound)
}

// TestFullWithNothingToEvict refuses at once.
func TestFullWithNothingToEvict(t *testing.T) {
	ops := &fullOps{Ops: blockfile.OS{}}
	ops.fits.Store(1 << 10) // the head of the index
	s, err := tiered.Open(tiered.Config{Dirs: []dir.Config{{Path: t.TempDir() + "/ssd", Tier: orca.SSD, Capacity: 1 << 30}}, Ops: ops},
		slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer s.Close()
	f, err := s.Begin(context.Background(), tiertest.ID(1), orca.GrainSize)
	require.NoError(t, err)
	defer f.Close()
	err = f.WriteGrains(context.Background(), tiertest.Bytes(1, orca.GrainSize), 0)
	require.Equal(t, orca.NoSpace, orca.KindOf(err))
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/dir"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// disks is a store over directories of the tests' own: SSD a and b, HDD c.
func disks(t *testing.T, root string, ops *tiertest.Faults, capacity ...int64) *tiered.Store {
	t.Helper()
	c := tiered.Config{MoveRate: 1 << 40, Policy: "lru", FlushEvery: time.Millisecond, RoomWait: time.Minute, Alloc: "greedy"}
	if ops != nil {
		c.Ops = ops
	}
	for i, n := range capacity {
		c.Dirs = append(c.Dirs, disk(root, i, n))
	}
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	return s
}

func disk(root string, i int, n int64) dir.Config {
	tier := orca.SSD
	if i == 2 {
		tier = orca.HDD
	}
	return dir.Config{Path: filepath.Join(root, string(rune('a'+i))), Tier: tier, Capacity: n}
}

func mustRead(t *testing.T, s *tiered.Store, ids ...uint64) {
	t.Helper()
	for _, i := range ids {
		got, err := tiertest.ReadAll(s, tiertest.ID(i), moved)
		require.NoError(t, err, "block %d", i)
		require.True(t, bytes.Equal(tiertest.Bytes(i, moved), got), "block %d", i)
	}
}

// TestAddDir: a directory comes while the store runs, with what is in it, and
// is used at once.
func TestAddDir(t *testing.T) {
	root := t.TempDir()
	s := disks(t, root, nil, 8<<20, 8<<20, 64<<20)
	require.NoError(t, s.RemoveDir(t.Context(), disk(root, 0, 0).Path))
	require.NoError(t, s.RemoveDir(t.Context(), disk(root, 1, 0).Path))
	tiertest.Fill(t, s, tiertest.ID(1), tiertest.Bytes(1, moved))
	require.NoError(t, tiertest.Adopt(s, tiertest.ID(2), tiertest.Bytes(2, moved), true))
	require.NoError(t, s.Close())

	s = disks(t, root, nil, 8<<20)
	defer s.Close()
	_, cursor := s.Reports()
	require.NoError(t, s.AddDir(disk(root, 2, 64<<20)))
	_, _, full := s.Changes(cursor)
	require.True(t, full, "all is reported anew")
	mustRead(t, s, 1, 2)
	m, err := s.Stat(tiertest.ID(2))
	require.NoError(t, err)
	require.True(t, m.Dirty)
	for i := uint64(10); i < 40; i++ {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, moved))
		require.NoError(t, s.Drain(t.Context()))
	}
	require.Zero(t, s.Metrics.Evicted.Load(), "what leaves the SSD goes there")
	require.ErrorIs(t, s.AddDir(disk(root, 2, 64<<20)), orca.Exists)
	require.ErrorIs(t, s.AddDir(dir.Config{Path: "x", Tier: orca.HDD, Capacity: 1 << 30}), orca.Invalid)
	other := disks(t, t.TempDir(), nil, 8<<20)
	defer other.Close()
	require.ErrorIs(t, other.AddDir(disk(root, 2, 64<<20)), orca.Busy)
}

// TestRemoveDir: everything that is in it is found elsewhere, the only copies
// durably, and the directory is free for others afterwards.
func TestRemoveDir(t *testing.T) {
	root := t.TempDir()
	s := disks(t, root, nil, 16<<20, 16<<20, 64<<20)
	defer s.Close()
	a := disk(root, 0, 0).Path
	var ids []uint64
	for i := range uint64(8) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, moved))
		ids = append(ids, i)
	}
	require.NoError(t, tiertest.Adopt(s, tiertest.ID(20), tiertest.Bytes(20, moved), true))
	s.Pin(tiertest.ID(3).File, true)
	require.EqualValues(t, 9, s.Usage()[0].Blocks)
	require.NoError(t, s.RemoveDir(t.Context(), a))
	require.Len(t, s.Usage(), 2)
	mustRead(t, s, append(ids, 20)...)
	require.EqualValues(t, 9, s.Metrics.Drained.Load())
	require.Zero(t, s.Metrics.Evicted.Load())
	m, err := s.Stat(tiertest.ID(20))
	require.NoError(t, err)
	require.True(t, m.Dirty && m.Complete)
	m, err = s.Stat(tiertest.ID(3))
	require.NoError(t, err)
	require.True(t, m.Pinned)
	require.ErrorIs(t, s.RemoveDir(t.Context(), a), orca.NotFound)
	other := disks(t, root, nil, 16<<20)
	_, err = other.Stat(tiertest.ID(20))
	require.ErrorIs(t, err, orca.NotFound, "nothing is left there")
	require.NoError(t, other.Close())
	require.NoError(t, s.AddDir(disk(root, 0, 16<<20)))
	tiertest.Fill(t, s, tiertest.ID(30), tiertest.Bytes(30, moved))
	mustRead(t, s, 30)
}

// TestRemoveDirRefused: the last one, and one whose contents have nowhere to go,
// stay as they are; one that is read waits for its readers, or until it is
// given up.
func TestRemoveDirRefused(t *testing.T) {
	root := t.TempDir()
	s := disks(t, root, nil, 16<<20, 4<<20)
	defer s.Close()
	a, b := disk(root, 0, 0).Path, disk(root, 1, 0).Path
	for i := range uint64(6) {
		require.NoError(t, tiertest.Adopt(s, tiertest.ID(i), tiertest.Bytes(i, moved), true))
	}
	err := s.RemoveDir(t.Context(), a)
	require.ErrorIs(t, err, orca.NoSpace)
	require.ErrorContains(t, err, "nowhere else")
	require.NoError(t, s.RemoveDir(t.Context(), b))
	require.ErrorIs(t, s.RemoveDir(t.Context(), a), orca.Busy)
	require.NoError(t, s.AddDir(disk(root, 1, 32<<20)))

	e, err := s.Get(tiertest.ID(1), 0, 1)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.RemoveDir(ctx, a) }()
	tiertest.Eventually(t, "all but what is held has moved", func() bool { return s.Metrics.Drained.Load() == 6 })
	cancel()
	require.ErrorIs(t, <-done, orca.Canceled)
	require.Len(t, s.Usage(), 2)
	mustRead(t, s, 0, 1, 2, 3, 4, 5)
	e.Release()
	require.NoError(t, s.RemoveDir(t.Context(), a))
	mustRead(t, s, 0, 1, 2, 3, 4, 5)
}

// TestCrashWhileRemoving reopens copies of the directories, taken before each
// change of a file while one is emptied: the only copies are there, and are
// known to be that.
func TestCrashWhileRemoving(t *testing.T) {
	root := t.TempDir()
	ops := &tiertest.Faults{}
	s := disks(t, root, ops, 16<<20, 16<<20)
	for i := range uint64(3) {
		require.NoError(t, tiertest.Adopt(s, tiertest.ID(i), tiertest.Bytes(i, moved), true))
	}
	var mu sync.Mutex
	var snaps []string
	ops.Before(func(n int, op, path string) {
		mu.Lock()
		defer mu.Unlock()
		if op == "write" && n%8 != 0 && !strings.HasSuffix(path, "index") || len(snaps) > 60 {
			return
		}
		to := t.TempDir()
		tiertest.CopyTree(t, root, to)
		snaps = append(snaps, to)
	})
	require.NoError(t, s.RemoveDir(t.Context(), disk(root, 0, 0).Path))
	require.NoError(t, s.Close())
	ops.Before(nil)
	require.Greater(t, len(snaps), 10)
	for _, sn := range snaps {
		s := disks(t, sn, nil, 16<<20, 16<<20)
		mustRead(t, s, 0, 1, 2)
		for i := range uint64(3) {
			m, err := s.Stat(tiertest.ID(i))
			require.NoError(t, err)
			require.True(t, m.Dirty)
		}
		require.NoError(t, s.Close())
	}
}

// TestDirsUnderLoad takes a directory away and brings it back while others
// fill, adopt, read and remove: what is acknowledged as the only copy is never
// missed, and what is read is what was written.
func TestDirsUnderLoad(t *testing.T) {
	root := t.TempDir()
	s := disks(t, root, nil, 16<<20, 16<<20, 64<<20)
	defer s.Close()
	const n = 150_000
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range uint64(3) {
		wg.Go(func() {
			for i := uint64(0); ctx.Err() == nil; i++ {
				id, p := tiertest.ID(w*1000+i%20), tiertest.Bytes(w*1000+i%20, n)
				if i%20 == 0 { // the only copy, until it is replaced
					_ = s.Remove(id)
					if err := tiertest.Adopt(s, id, p, true); err != nil {
						t.Errorf("adopt: %v", err)
					}
				} else if err := tiertest.TryFill(s, id, p); err != nil && orca.KindOf(err) != orca.NotFound {
					t.Errorf("fill: %v", err)
				}
				for _, id := range []orca.BlockID{id, tiertest.ID(w * 1000)} {
					got, err := tiertest.ReadAll(s, id, n)
					if err != nil && (orca.KindOf(err) != orca.NotFound || id == tiertest.ID(w*1000) && i > 0) {
						t.Errorf("read %v: %v", id, err)
					}
					if err == nil && !bytes.Equal(got, tiertest.Bytes(uint64(id.File), n)) {
						t.Errorf("block %v is another one", id)
					}
				}
			}
		})
	}
	for i := range 12 {
		d := disk(root, i%3, 16<<20)
		if err := s.RemoveDir(t.Context(), d.Path); err != nil {
			t.Errorf("remove: %v", err)
			break
		}
		if err := s.AddDir(d); err != nil {
			t.Errorf("add: %v", err)
			break
		}
	}
	cancel()
	wg.Wait()
}

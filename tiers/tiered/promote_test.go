// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/evict"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

const moved = 1 << 20 // length of the blocks in these tests

// filled opens a store over a small memory tier and a larger SSD, and fills it
// with n blocks, of which the first are pushed down.
func filled(t *testing.T, policy string, ops blockfile.Ops, n uint64) *tiered.Store {
	t.Helper()
	c := config(tiertest.Options{MEM: 4 << 20, SSD: 32 << 20, Root: t.TempDir()}, ops)
	c.Policy, c.MoveRate = policy, 1<<40
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	for i := range n {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, moved))
		require.NoError(t, s.Drain(t.Context()))
	}
	return s
}

// readOften reads a block several times over, and checks what it gets.
func readOften(t *testing.T, s *tiered.Store, i uint64, times int) {
	t.Helper()
	for range times {
		got, err := tiertest.ReadAll(s, tiertest.ID(i), moved)
		require.NoError(t, err, "block %d", i)
		require.True(t, bytes.Equal(tiertest.Bytes(i, moved), got), "block %d", i)
	}
}

func tierOf(t *testing.T, s *tiered.Store, i uint64) orca.Tier {
	t.Helper()
	m, err := s.Stat(tiertest.ID(i))
	require.NoError(t, err, "block %d", i)
	return m.Tier
}

// rises reads a block until it is in memory.
func rises(t *testing.T, s *tiered.Store, i uint64) {
	t.Helper()
	tiertest.Eventually(t, "the hot block is in memory", func() bool {
		readOften(t, s, i, 2)
		return tierOf(t, s, i) == orca.MEM
	})
}

// below returns a block that is on the SSD.
func below(t *testing.T, s *tiered.Store, n uint64) uint64 {
	t.Helper()
	for i := range n {
		if tierOf(t, s, i) == orca.SSD {
			return i
		}
	}
	t.Fatal("no block was pushed down")
	return 0
}

// TestPromotion: whatever the policy, what is read often comes into memory,
// what was there and is not leaves for the SSD, and nothing is lost.
func TestPromotion(t *testing.T) {
	for _, policy := range evict.Names() {
		t.Run(policy, func(t *testing.T) {
			const n = 8
			s := filled(t, policy, nil, n)
			hot := below(t, s, n)
			rises(t, s, hot)
			require.Positive(t, s.Metrics.Promoted.Load())
			require.Equal(t, int64(moved)*s.Metrics.Promoted.Load(), s.Metrics.PromotedBytes.Load())
			require.NoError(t, s.Drain(t.Context()))
			for i := range uint64(n) {
				readOften(t, s, i, 1)
			}
			require.Zero(t, s.Metrics.Evicted.Load(), "something was dropped")
			for _, u := range s.Usage() {
				require.LessOrEqual(t, u.Used, u.Capacity)
			}
		})
	}
}

// TestPromotionHysteresis reads everything equally often, round after round:
// nothing is much hotter than anything else, so after the first the blocks
// stay where they are.
func TestPromotionHysteresis(t *testing.T) {
	for _, policy := range []string{"lru", "lrfu", "s3fifo", "tinylfu"} {
		t.Run(policy, func(t *testing.T) {
			const n = 8
			s := filled(t, policy, nil, n)
			for range 8 {
				for i := range uint64(n) {
					readOften(t, s, i, 1)
				}
			}
			// The mover has seen all of it when one that deserves it has moved.
			before := s.Metrics.Promoted.Load()
			hot := below(t, s, n)
			rises(t, s, hot)
			require.LessOrEqual(t, before, int64(n), "blocks go up and down")
		})
	}
}

// TestPromotionLeavesAlone: neither the only copy nor a pinned block moves.
func TestPromotionLeavesAlone(t *testing.T) {
	const n = 8
	s := filled(t, "lru", nil, n)
	pinned := below(t, s, n)
	s.Pin(tiertest.ID(pinned).File, true)
	require.NoError(t, func() error {
		r, err := s.Reserve(t.Context(), moved, true)
		require.NoError(t, err)
		defer r.Release()
		p := tiertest.Bytes(50, moved)
		path := filepath.Join(r.Dir(), "private")
		require.NoError(t, os.WriteFile(path, p, 0o600))
		return s.Adopt(t.Context(), r, tiers.Adoption{ID: tiertest.ID(50), Path: path, Length: moved, Sums: blockfile.AppendSums(nil, p), Dirty: true})
	}())
	readOften(t, s, pinned, 10)
	readOften(t, s, 50, 10)
	hot := uint64(0)
	for hot == pinned || tierOf(t, s, hot) != orca.SSD {
		hot++
	}
	rises(t, s, hot)
	require.Equal(t, orca.SSD, tierOf(t, s, pinned))
	require.Equal(t, orca.SSD, tierOf(t, s, 50))
	m, err := s.Stat(tiertest.ID(50))
	require.NoError(t, err)
	require.True(t, m.Dirty)
}

// TestPromotionStandsBack: while somebody holds an extent of the directory that
// a block is copied from, each step of the copy waits its time, and the block
// comes all the same.
func TestPromotionStandsBack(t *testing.T) {
	const n = 8
	s := filled(t, "lru", nil, n)
	hot := below(t, s, n)
	e, err := s.Get(tiertest.ID(hot), 0, 1)
	require.NoError(t, err)
	rises(t, s, hot)
	require.Positive(t, s.Metrics.MoveWaits.Load())
	p := make([]byte, moved)
	_, err = e.File.ReadAt(p, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(tiertest.Bytes(hot, moved), p), "who held the old file reads it")
	e.Release()
}

// blockedOps holds the first write to a block file in a folder until it is told
// to go on.
type blockedOps struct {
	blockfile.OS
	folder  string
	on      atomic.Bool
	reached chan struct{}
	release chan struct{}
}

func (o *blockedOps) WriteAt(f *os.File, p []byte, off int64) (int, error) {
	if strings.Contains(f.Name(), o.folder) && o.on.CompareAndSwap(true, false) {
		close(o.reached)
		<-o.release
	}
	return o.OS.WriteAt(f, p, off)
}

// TestRoomWhileCopying: a copy that hangs in the middle of a slow write keeps
// nobody from getting room.
func TestRoomWhileCopying(t *testing.T) {
	ops := &blockedOps{folder: "/ssd/blocks/", reached: make(chan struct{}), release: make(chan struct{})}
	c := config(tiertest.Options{MEM: 4<<20 + 128<<10, SSD: 32 << 20, Root: t.TempDir()}, ops)
	c.Policy, c.MoveRate, c.RoomWait = "lru", 1<<40, time.Minute
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	defer s.Close()
	r, err := s.Reserve(t.Context(), orca.GrainSize, false)
	require.NoError(t, err)
	defer r.Release()
	require.Equal(t, orca.MEM, r.Tier())
	ops.on.Store(true)
	for i := range uint64(4) { // the last goes over the high mark
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, moved))
	}
	<-ops.reached
	require.Equal(t, 1, s.Queues().Moves)
	require.NoError(t, r.Resize(t.Context(), moved), "another block leaves for it")
	require.Positive(t, s.Metrics.Evictions[orca.MEM][tiered.Need].Load())
	require.Equal(t, 1, s.Queues().Moves, "the copy still hangs")
	close(ops.release)
	require.NoError(t, s.Drain(t.Context()))
}

// TestCrashWhilePromoting is TestCrashWhileMoving upwards.
func TestCrashWhilePromoting(t *testing.T) {
	ops := &tiertest.Faults{}
	root := t.TempDir()
	c := threeTiers(root, 1<<40)
	c.Ops, c.FlushEvery = ops, time.Millisecond
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	for i := range uint64(6) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, moved))
		require.NoError(t, s.Drain(t.Context()))
	}
	hot := below(t, s, 6)
	require.NoError(t, s.Flush())
	var mu sync.Mutex // files are changed by who flushes, and by who moves
	var snaps []string
	ops.Before(func(n int, op, path string) {
		mu.Lock()
		defer mu.Unlock()
		if n%4 != 0 && !strings.HasSuffix(path, "index") && op != "remove" || len(snaps) > 40 {
			return
		}
		to := t.TempDir()
		tiertest.CopyTree(t, root, to)
		snaps = append(snaps, to)
	})
	rises(t, s, hot)
	require.NoError(t, s.Close())
	ops.Before(nil)
	require.Greater(t, len(snaps), 5)
	for _, sn := range snaps {
		require.Len(t, survivors(t, sn), 6)
	}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"bytes"
	"path/filepath"
	"strconv"
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

// threeTiers is a small directory of each tier.
func threeTiers(root string, rate int64) tiered.Config {
	c := config(tiertest.Options{MEM: 4 << 20, SSD: 8 << 20, Root: root}, nil)
	c.Dirs = append(c.Dirs, dir.Config{Path: filepath.Join(root, "hdd"), Tier: orca.HDD, Capacity: 64 << 20})
	c.Policy, c.MoveRate = "lru", rate
	return c
}

// TestDemotionChain fills memory, the SSD, and the disk behind it: as long as
// the last has room nothing is lost, the oldest are at the bottom.
func TestDemotionChain(t *testing.T) {
	s, err := tiered.Open(threeTiers(t.TempDir(), 1<<40), discard())
	require.NoError(t, err)
	defer s.Close()
	for i := range uint64(30) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
		require.NoError(t, s.Drain(t.Context()))
	}
	m, err := s.Stat(tiertest.ID(0))
	require.NoError(t, err)
	require.Equal(t, orca.HDD, m.Tier)
	m, err = s.Stat(tiertest.ID(29))
	require.NoError(t, err)
	require.Equal(t, orca.MEM, m.Tier)
	for i := range uint64(30) {
		got, err := tiertest.ReadAll(s, tiertest.ID(i), 1<<20)
		require.NoError(t, err, "block %d", i)
		require.True(t, bytes.Equal(tiertest.Bytes(i, 1<<20), got))
	}
	for _, u := range s.Usage() {
		require.LessOrEqual(t, u.Used, u.Capacity)
	}
	require.Zero(t, s.Metrics.Evicted.Load())
}

// TestDemotionOff drops what leaves.
func TestDemotionOff(t *testing.T) {
	s, err := tiered.Open(threeTiers(t.TempDir(), -1), discard())
	require.NoError(t, err)
	defer s.Close()
	for i := range uint64(8) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
		require.NoError(t, s.Drain(t.Context()))
	}
	require.Zero(t, s.Metrics.Demoted.Load())
	require.Positive(t, s.Metrics.Evictions[orca.MEM][tiered.Watermark].Load())
}

// TestDemotionPace: the bytes that moved took at least as long as the rate
// says.
func TestDemotionPace(t *testing.T) {
	const rate = 20 << 20
	s, err := tiered.Open(threeTiers(t.TempDir(), rate), discard())
	require.NoError(t, err)
	defer s.Close()
	begin := time.Now()
	for i := range uint64(7) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
		require.NoError(t, s.Drain(t.Context()))
	}
	moved := s.Metrics.DemotedBytes.Load()
	require.Positive(t, moved)
	// Nobody waits after the last step.
	least := time.Duration(float64(moved-(1<<20)) / rate * float64(time.Second))
	require.GreaterOrEqual(t, time.Since(begin), least)
}

// TestCrashWhileMoving reopens copies of the directories, taken before each
// change of a file while blocks move: each block that was whole is in one tier.
func TestCrashWhileMoving(t *testing.T) {
	root := t.TempDir()
	ops := &tiertest.Faults{}
	c := threeTiers(root, 1<<40)
	c.Ops, c.FlushEvery = ops, time.Millisecond
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	for i := range uint64(3) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
	}
	tiertest.Eventually(t, "the index has all of them", func() bool {
		to := t.TempDir()
		tiertest.CopyTree(t, root, to)
		return len(survivors(t, to)) == 3
	})
	type snap struct{ root, what string }
	var mu sync.Mutex // files are changed by who fills, and by who moves
	var snaps []snap
	ops.Before(func(n int, op, path string) {
		mu.Lock()
		defer mu.Unlock()
		if n%4 != 0 && !strings.HasSuffix(path, "index") && op != "remove" || len(snaps) > 60 {
			return // one in four of the writes of grains
		}
		to := t.TempDir()
		tiertest.CopyTree(t, root, to)
		snaps = append(snaps, snap{to, strconv.Itoa(n) + " " + op + " " + filepath.Base(path)})
	})
	for i := uint64(3); i < 6; i++ {
		require.NoError(t, tiertest.TryFill(s, tiertest.ID(i), tiertest.Bytes(i, 1<<20)))
		require.NoError(t, s.Drain(t.Context()))
	}
	ops.Before(nil)
	require.Positive(t, s.Metrics.Demoted.Load())
	require.NoError(t, s.Close())
	require.Greater(t, len(snaps), 10)
	for _, sn := range snaps {
		got := survivors(t, sn.root)
		for i := range uint64(3) {
			require.Contains(t, got, i, "%s: block %d is in no tier", sn.what, i)
		}
	}
}

// survivors opens the remains of a crash and returns the whole blocks in them,
// each of which must read as it was written.
func survivors(t *testing.T, root string) map[uint64]bool {
	t.Helper()
	c := threeTiers(root, -1)
	for i := range c.Dirs {
		c.Dirs[i].Capacity *= 4 // nothing has to leave while we look
	}
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	defer s.Close()
	got := map[uint64]bool{}
	for i := range uint64(6) {
		if p, err := tiertest.ReadAll(s, tiertest.ID(i), 1<<20); err == nil {
			require.True(t, bytes.Equal(tiertest.Bytes(i, 1<<20), p))
			got[i] = true
		}
	}
	return got
}

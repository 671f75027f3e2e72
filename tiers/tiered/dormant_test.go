// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// asleep fills a store and opens it again. Files 1 to 20 have a block each, file
// 30 has four in two versions.
func asleep(t *testing.T, o tiertest.Options) (s *tiered.Store, before []tiers.FileReport) {
	t.Helper()
	s = openWith(t, o, nil)
	for i := uint64(20); i > 0; i-- { // in another order than that of the files
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 100_000))
	}
	for i := range uint32(4) {
		tiertest.Fill(t, s, orca.BlockID{File: 30, Version: 1 + i%2, Index: i}, tiertest.Bytes(30+uint64(i), 100_000))
	}
	before, _ = s.Reports()
	require.NoError(t, s.Close())
	return openWith(t, o, nil), before
}

// TestDormantBlocksAreThere looks at blocks that nobody has asked for since a
// restart in all the ways that do not wake them, and in those that do.
func TestDormantBlocksAreThere(t *testing.T) {
	s, before := asleep(t, tiertest.Options{SSD: 64 << 20, Root: t.TempDir()})
	defer s.Close()
	reports := func() []tiers.FileReport { files, _ := s.Reports(); return files }
	require.Equal(t, before, reports())
	count := func() (n int) {
		s.Each(func(m tiers.Meta) bool {
			require.True(t, m.Complete && m.Cached == 100_000 && m.Length == 100_000 && !m.Dirty && m.Tier == orca.SSD)
			n++
			return true
		})
		return n
	}
	require.Equal(t, 24, count())
	require.EqualValues(t, 24, s.Usage()[0].Blocks)
	require.EqualValues(t, 2_400_000, s.Usage()[0].Used)
	// One block of a file wakes up, and the report says the same.
	got, err := tiertest.ReadAll(s, orca.BlockID{File: 30, Version: 1, Index: 2}, 100_000)
	require.NoError(t, err)
	require.True(t, bytes.Equal(tiertest.Bytes(32, 100_000), got))
	require.Equal(t, before, reports())
	require.Equal(t, 24, count())
	// What is done to a file reaches what is dormant of it.
	_, c, _ := s.Changes(0)
	s.RemoveFile(30, 2)
	files, _, full := s.Changes(c)
	require.False(t, full)
	require.Equal(t, []tiers.FileReport{
		{File: 30, Version: 1, Tier: orca.HDD},
	}, files)
	s.Pin(5, true)
	m, err := s.Stat(tiertest.ID(5))
	require.NoError(t, err)
	require.True(t, m.Pinned)
	s.DropClean(6)
	require.ErrorIs(t, s.Remove(tiertest.ID(6)), orca.NotFound)
	require.NoError(t, s.Remove(tiertest.ID(7)))
	require.ErrorIs(t, tiertest.Adopt(s, tiertest.ID(8), tiertest.Bytes(9, 100), false), orca.Exists)
	require.NoError(t, tiertest.TryFill(s, tiertest.ID(8), tiertest.Bytes(8, 100_000)), "there already")
	require.ErrorIs(t, tiertest.TryFill(s, tiertest.ID(9), tiertest.Bytes(9, 100)), orca.Invalid)
	require.Equal(t, 20, count())
	tiertest.Eventually(t, "quota returns", func() bool { return s.Usage()[0].Used == 2_000_000 })
}

// TestUsedOutlivesDormant: who was used since the restart stays longer than who
// was not, and all of these may leave.
func TestUsedOutlivesDormant(t *testing.T) {
	for _, policy := range []string{"lru", "lrfu", "s3fifo"} {
		t.Run(policy, func(t *testing.T) {
			o := tiertest.Options{SSD: 64 * 1 << 20, Root: t.TempDir()}
			s := openWith(t, o, nil)
			for i := range uint64(58) {
				tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
			}
			require.NoError(t, s.Close())
			c := config(o, nil)
			c.Policy = policy
			s, err := tiered.Open(c, discard())
			require.NoError(t, err)
			defer s.Close()
			used := []uint64{0, 17, 57}
			for range 2 {
				for _, i := range used {
					_, err := tiertest.ReadAll(s, tiertest.ID(i), 1<<20)
					require.NoError(t, err)
				}
			}
			for i := range uint64(50) {
				tiertest.Fill(t, s, tiertest.ID(100+i), tiertest.Bytes(i, 1<<20))
			}
			require.NoError(t, s.Drain(t.Context()))
			gone := 0
			for i := range uint64(58) {
				_, err := s.Stat(tiertest.ID(i))
				if err != nil {
					gone++
				}
				require.False(t, err != nil && slices.Contains(used, i), "block %d was used", i)
			}
			require.Greater(t, gone, 40)
		})
	}
}

// TestCompactionKeepsDormant rewrites an index whose blocks are asleep.
func TestCompactionKeepsDormant(t *testing.T) {
	o := tiertest.Options{SSD: 64 << 20, Root: t.TempDir()}
	s, before := asleep(t, o)
	require.NoError(t, s.Close())
	index := filepath.Join(o.Root, "ssd")
	x, _, err := blockfile.Open(blockfile.OS{}, index, func(*blockfile.Record) {})
	require.NoError(t, err)
	for i := range 24_000 { // history of blocks that are no more
		id := tiertest.ID(uint64(1000 + i))
		x.Append(blockfile.Record{Kind: blockfile.KindState, Flags: blockfile.FlagComplete, ID: id, Length: 100, Sums: []uint32{1}})
		x.Append(blockfile.Record{Kind: blockfile.KindRemove, ID: id, Length: 100})
	}
	require.NoError(t, x.Close())
	s = openWith(t, o, nil)
	_, err = s.Stat(tiertest.ID(3)) // one of them is awake
	require.NoError(t, err)
	tiertest.Eventually(t, "compacted", func() bool { return s.Metrics.IndexCompacted.Load() > 0 })
	st, err := os.Stat(filepath.Join(index, blockfile.IndexName))
	require.NoError(t, err)
	require.Less(t, st.Size(), int64(1<<20))
	require.NoError(t, s.Close())
	s = openWith(t, o, nil)
	defer s.Close()
	after, _ := s.Reports()
	require.Equal(t, before, after)
}

// TestDormantTwins opens two directories that have the same blocks, as after a
// crash in the middle of a move: one of each stays.
func TestDormantTwins(t *testing.T) {
	o := tiertest.Options{SSD: 64 << 20, Root: t.TempDir()}
	s, before := asleep(t, o)
	require.NoError(t, s.Close())
	require.NoError(t, os.CopyFS(filepath.Join(o.Root, "hdd"), os.DirFS(filepath.Join(o.Root, "ssd"))))
	c := config(o, nil)
	c.Dirs = append(c.Dirs, dir.Config{Path: filepath.Join(o.Root, "hdd"), Tier: orca.HDD, Capacity: 64 << 20})
	for range 2 {
		s, err := tiered.Open(c, discard())
		require.NoError(t, err)
		after, _ := s.Reports()
		require.Equal(t, before, after)
		require.EqualValues(t, 24, s.Usage()[0].Blocks)
		require.Zero(t, s.Usage()[1].Blocks)
		tiertest.Eventually(t, "the copies' quota returns", func() bool { return s.Usage()[1].Used == 0 })
		require.NoError(t, s.Close())
	}
}

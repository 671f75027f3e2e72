// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/bench/workload"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/evict"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(o tiertest.Options, ops blockfile.Ops) tiered.Config {
	c := tiered.Config{Ops: ops, RoomWait: 500 * time.Millisecond, FlushEvery: 5 * time.Millisecond, MaxOpen: 8}
	if o.MEM > 0 {
		c.Dirs = append(c.Dirs, dir.Config{Path: filepath.Join(o.Root, "mem"), Tier: orca.MEM, Capacity: o.MEM, KeyFile: o.KeyFile})
	}
	if o.SSD > 0 {
		c.Dirs = append(c.Dirs, dir.Config{Path: filepath.Join(o.Root, "ssd"), Tier: orca.SSD, Capacity: o.SSD, KeyFile: o.KeyFile})
	}
	return c
}

func openWith(t testing.TB, o tiertest.Options, ops blockfile.Ops) *tiered.Store {
	t.Helper()
	s, err := tiered.Open(config(o, ops), discard())
	require.NoError(t, err)
	return s
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestStore runs the suite with every eviction policy.
func TestStore(t *testing.T) {
	for _, name := range evict.Names() {
		t.Run(name, func(t *testing.T) {
			tiertest.Run(t, func(t testing.TB, o tiertest.Options) tiers.Store {
				c := config(o, nil)
				c.Policy = name
				s, err := tiered.Open(c, discard())
				require.NoError(t, err)
				return s
			})
		})
	}
}

// TestStoreEncrypted runs the suite with all directories encrypted.
func TestStoreEncrypted(t *testing.T) {
	key := keyFile(t, 1)
	tiertest.Run(t, func(t testing.TB, o tiertest.Options) tiers.Store {
		o.KeyFile = key
		return openWith(t, o, nil)
	})
}

func TestValidate(t *testing.T) {
	good := config(tiertest.Options{SSD: 1 << 20, Root: "/x"}, nil)
	require.NoError(t, good.Validate())
	for _, spoil := range []func(*tiered.Config){
		func(c *tiered.Config) { c.Dirs = nil },
		func(c *tiered.Config) { c.Policy = "mru" },
		func(c *tiered.Config) { c.Alloc = "worst" },
		func(c *tiered.Config) { c.Marks = evict.Marks{High: 0.5, Low: 0.6} },
		func(c *tiered.Config) { c.Marks = evict.Marks{High: 1.1, Low: 0.6} },
		func(c *tiered.Config) { c.Marks = evict.Marks{High: 1} },
		func(c *tiered.Config) { c.MaxOpen = -1 },
		func(c *tiered.Config) { c.Dirs = append(c.Dirs, c.Dirs[0]) },
	} {
		c := good
		c.Dirs = slices.Clone(good.Dirs)
		spoil(&c)
		require.ErrorIs(t, c.Validate(), orca.Invalid)
	}
}

// TestShuffledEpochs reads through the store, by default: half of the data
// fits, and nobody says that it is read in epochs. Hit rate from the second;
// that of LRU is 0.15.
func TestShuffledEpochs(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of files")
	}
	for policy, atLeast := range map[string]float64{"": 0.4, "epoch": 0.45} {
		t.Run("policy="+policy, func(t *testing.T) {
			tr := workload.Shuffled(1, 400, 6)
			c := config(tiertest.Options{SSD: tr.Cache / 16, Root: t.TempDir()}, nil)
			c.Policy = policy
			s, err := tiered.Open(c, discard())
			require.NoError(t, err)
			defer s.Close()
			rate := tr.HitRate(func(r workload.Ref) bool {
				id, n := tiertest.ID(r.Object), r.Size/16
				if _, err := tiertest.ReadAll(s, id, n); err == nil {
					return true
				}
				tiertest.Fill(t, s, id, tiertest.Bytes(r.Object, n))
				if _, err := tiertest.ReadAll(s, id, n); err != nil {
					// The newcomer may be the first to go, before it is read.
					require.ErrorIs(t, err, orca.NotFound)
				}
				require.NoError(t, s.Drain(t.Context()))
				return false
			})
			t.Logf("hit rate %.3f", rate)
			require.GreaterOrEqual(t, rate, atLeast)
			require.Zero(t, s.Metrics.NoSpace.Load())
		})
	}
}

// TestScanIsNoUse: reading a block once in many pieces does not make it look
// hot, reading it again does.
func TestScanIsNoUse(t *testing.T) {
	s, err := tiered.Open(func() tiered.Config {
		c := config(tiertest.Options{SSD: 10 << 20, Root: t.TempDir()}, nil)
		c.Policy = "tinylfu"
		return c
	}(), discard())
	require.NoError(t, err)
	defer s.Close()
	slowly := func(i uint64) {
		for off := int64(0); off < 1<<20; off += 4096 {
			e, err := s.Get(tiertest.ID(i), off, 4096)
			require.NoError(t, err)
			e.Release()
		}
	}
	for i := range uint64(9) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
		slowly(i)
	}
	for range 2 {
		for i := range uint64(4) {
			slowly(i)
		}
	}
	for i := uint64(20); i < 40; i++ {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
		for off := int64(0); off < 1<<20; off += 4096 {
			e, err := s.Get(tiertest.ID(i), off, 4096)
			if err != nil { // the newcomer may be the first to go, also while it is read
				require.ErrorIs(t, err, orca.NotFound)
				break
			}
			e.Release()
		}
		require.NoError(t, s.Drain(t.Context()))
	}
	for i := range uint64(4) {
		_, err := s.Stat(tiertest.ID(i))
		require.NoError(t, err, "block %d was read three times, those of the scan once", i)
	}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca"
	"orca/tiers/dir"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// TestReserve: on a file system of 64 MiB that it shares, a directory leaves
// what it is told to, also when others take more; clean blocks leave for that,
// and no write fails.
func TestReserve(t *testing.T) {
	const size, fs, reserve = 1 << 20, 64 << 20, 16 << 20
	for name, c := range map[string]dir.Config{
		"bytes":   {Reserve: reserve},
		"percent": {ReservePart: float64(reserve) / fs},
		"larger":  {Reserve: reserve, ReservePart: 0.01},
	} {
		t.Run(name, func(t *testing.T) {
			disk := ownMount(t)
			c.Path, c.Tier, c.Capacity = filepath.Join(disk, "ssd"), orca.SSD, 1<<30
			s, err := tiered.Open(tiered.Config{Dirs: []dir.Config{c}, RoomWait: time.Minute}, discard())
			require.NoError(t, err)
			defer s.Close()
			free := func() int64 {
				var st unix.Statfs_t
				require.NoError(t, unix.Statfs(disk, &st))
				return int64(st.Bavail) * st.Bsize
			}
			next := uint64(0)
			fill := func(n int) {
				t.Helper()
				for range n {
					tiertest.Fill(t, s, tiertest.ID(next), tiertest.Bytes(next, size))
					if got, err := tiertest.ReadAll(s, tiertest.ID(next), size); err == nil {
						require.Len(t, got, size)
					} else {
						require.ErrorIs(t, err, orca.NotFound, "a new block may leave first")
					}
					require.NoError(t, s.Drain(t.Context()))
					// The index and folders are not counted in the quota.
					require.Greater(t, free(), int64(reserve-size))
					next++
				}
			}
			fill(80)
			require.Greater(t, s.Usage()[0].Used, int64((fs-reserve)*8/10), "the rest is used")
			require.NoError(t, os.WriteFile(filepath.Join(disk, "others"), make([]byte, 12<<20), 0o600))
			tiertest.Eventually(t, "the reserve is free again", func() bool { return free() >= reserve-size })
			fill(20)
			require.NoError(t, os.Remove(filepath.Join(disk, "others")))
			tiertest.Eventually(t, "what others gave back is used", func() bool {
				fill(1)
				return s.Usage()[0].Used > (fs-reserve)*8/10
			})
			require.Zero(t, s.Metrics.NoSpace.Load())
		})
	}
}

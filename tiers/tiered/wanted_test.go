// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/dir"
	"orca/tiers/evict"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// wantedStore is a directory of 16 blocks of 1 MiB, of which 8 are wanted (files
// 0 to 7) and 4 are merely cached (8 to 11).
func wantedStore(t *testing.T, policy string) *tiered.Store {
	t.Helper()
	c := tiered.Config{Dirs: []dir.Config{{Path: t.TempDir() + "/ssd", Tier: orca.SSD, Capacity: 16 << 20}}, Policy: policy,
		Marks: evict.Marks{Low: 0.9, High: 1}, RoomWait: time.Minute}
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	for i := range uint64(12) {
		if i%2 == 0 && i < 8 {
			s.Want(orca.Ino(i), true) // before it is here
		}
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
		if i < 8 {
			s.Want(orca.Ino(i), true)
		}
	}
	return s
}

// cached counts which of the files [from, to) are here, and reads them.
func cached(t *testing.T, s *tiered.Store, from, to uint64) (n int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := s.Stat(tiertest.ID(i)); err != nil {
			require.ErrorIs(t, err, orca.NotFound)
			continue
		}
		readWant(t, s, i, tiertest.Bytes(i, 1<<20))
		n++
	}
	return n
}

// TestWantedGiveWayToWrites: copies that are wanted stay when others are merely
// cached, but no write fails while there is one: they leave after what is cached,
// those first that nobody has used, and not more of them than are in the way.
func TestWantedGiveWayToWrites(t *testing.T) {
	for _, policy := range evict.Names() {
		t.Run(policy, func(t *testing.T) {
			s := wantedStore(t, policy)
			for i := uint64(100); i < 120; i++ {
				require.NoError(t, tiertest.TryFill(s, tiertest.ID(i), tiertest.Bytes(i, 1<<20)))
			}
			require.NoError(t, s.Drain(t.Context()))
			require.Equal(t, 8, cached(t, s, 0, 8), "twenty others came, and these are wanted")
			readWant(t, s, 0, tiertest.Bytes(0, 1<<20))
			for i := uint64(200); i < 216; i++ {
				require.NoError(t, tiertest.Adopt(s, tiertest.ID(i), tiertest.Bytes(i, 1<<20), true), "write %d", i)
				require.NoError(t, s.Drain(t.Context()))
				dirty := int(i - 199)
				require.Equal(t, min(8, 16-dirty), cached(t, s, 0, 8), "wanted, beside %d that may not leave", dirty)
				if dirty == 15 {
					require.Equal(t, 1, cached(t, s, 7, 8), "the one that was used last")
				}
			}
			require.EqualValues(t, 8, s.Metrics.Evictions[orca.SSD][tiered.Wanted].Load())
			require.Equal(t, 16, cached(t, s, 200, 216), "nothing of what was written is lost")

			// There is room again: the copies that are made are wanted as before.
			for i := uint64(200); i < 216; i++ {
				s.RemoveFile(orca.Ino(i), 0)
			}
			require.NoError(t, s.Drain(t.Context()))
			for i := range uint64(8) {
				tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
			}
			for i := uint64(100); i < 120; i++ {
				require.NoError(t, tiertest.TryFill(s, tiertest.ID(i), tiertest.Bytes(i, 1<<20)))
			}
			require.Equal(t, 8, cached(t, s, 0, 8))
			for i := uint64(300); i < 308; i++ { // what is not wanted may not leave from now on
				s.Pin(orca.Ino(i), true)
				tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
			}
			require.ErrorIs(t, tiertest.TryFill(s, tiertest.ID(400), tiertest.Bytes(400, 1<<20)), orca.NoSpace)
			for i := range uint64(8) {
				s.Want(orca.Ino(i), false)
			}
			require.NoError(t, tiertest.TryFill(s, tiertest.ID(400), tiertest.Bytes(400, 1<<20)))
			require.Equal(t, 7, cached(t, s, 0, 8), "nobody wants them any more")
		})
	}
}

// TestWantedNotForCaching: where all is wanted, what is merely to be cached is
// refused at once.
func TestWantedNotForCaching(t *testing.T) {
	s := wantedStore(t, "")
	for i := uint64(12); i < 16; i++ {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
	}
	for i := range uint64(16) {
		s.Want(orca.Ino(i), true)
	}
	require.ErrorIs(t, tiertest.TryFill(s, tiertest.ID(50), tiertest.Bytes(50, 1<<20)), orca.NoSpace)
	require.Equal(t, 16, cached(t, s, 0, 16))
	require.Zero(t, s.Metrics.RoomWaits.Load())
}

// TestWantedInSmallerDir: a directory that is made smaller than what is wanted
// in it keeps to its size, and a pinned file stays.
func TestWantedInSmallerDir(t *testing.T) {
	s := wantedStore(t, "")
	s.Pin(3, true)
	require.NoError(t, s.Resize(s.Usage()[0].Dir, 4<<20))
	tiertest.Eventually(t, "it holds no more than fits", func() bool { return s.Usage()[0].Used <= 4<<20 })
	require.NoError(t, s.Drain(t.Context()))
	require.Equal(t, 1, cached(t, s, 3, 4))
	require.Greater(t, cached(t, s, 0, 8), 2)
	require.Zero(t, cached(t, s, 8, 12), "what is merely cached left first")
}

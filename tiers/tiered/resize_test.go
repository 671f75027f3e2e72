// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// TestResize shrinks a directory below what it holds, and lets it grow again.
// What leaves goes to the slower tier, writes go on, and what may not leave
// keeps the quota from getting too small for it.
func TestResize(t *testing.T) {
	root := t.TempDir()
	c := threeTiers(root, 1<<40)
	c.RoomWait = time.Minute
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	defer s.Close()
	ssd := filepath.Join(root, "ssd")
	used := func() int64 { return s.Usage()[1].Used }
	r, err := s.Reserve(t.Context(), 2<<20, true)
	require.NoError(t, err)
	require.Equal(t, orca.SSD, r.Tier())
	for i := range uint64(9) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, moved))
		require.NoError(t, s.Drain(t.Context()))
	}
	require.Greater(t, used(), int64(4<<20))
	require.NoError(t, s.Resize(ssd, 4<<20))
	require.EqualValues(t, 4<<20, s.Usage()[1].Capacity)
	tiertest.Eventually(t, "what is too much leaves", func() bool { return used() <= 4<<20 })
	require.NoError(t, s.Drain(t.Context()))
	for i := range uint64(9) {
		readOften(t, s, i, 1)
	}
	require.Zero(t, s.Metrics.Evicted.Load(), "the slower tier has it")

	err = s.Resize(ssd, 1<<20)
	require.ErrorIs(t, err, orca.NoSpace)
	require.ErrorContains(t, err, "2097152 bytes")
	require.EqualValues(t, 4<<20, s.Usage()[1].Capacity, "as it was")
	r.Release()
	require.ErrorIs(t, s.Resize(ssd, 1), orca.Invalid)
	require.ErrorIs(t, s.Resize(root, 8<<20), orca.NotFound)

	require.NoError(t, s.Resize(ssd, 32<<20))
	for i := uint64(20); i < 40; i++ {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, moved))
		require.NoError(t, s.Drain(t.Context()))
	}
	require.Greater(t, used(), int64(8<<20), "more than it had at first")
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers"
	"orca/tiers/dir"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// TestWindow fills a block through its memory: what is stored is there, what
// is not stays absent, and nobody else writes what a window holds.
func TestWindow(t *testing.T) {
	const size = 9 << 20
	root := tiertest.MemDir(t)
	s, err := tiered.Open(tiered.Config{Dirs: []dir.Config{{Path: root + "/mem", Tier: orca.MEM, Capacity: 64 << 20}}}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer s.Close()
	ctx := context.Background()
	id, want := tiertest.ID(1), tiertest.Bytes(1, size)
	f, err := s.Begin(ctx, id, size)
	require.NoError(t, err)
	w := f.(tiers.Windower)
	require.Nil(t, w.Window(ctx, orca.GrainSize, size), "not at a huge page")
	v := w.Window(ctx, 0, size)
	if v == nil {
		t.Skip("no huge pages in tmpfs here")
	}
	require.Nil(t, w.Window(ctx, 0, size), "claimed")
	copy(v.Bytes(), want)
	require.Equal(t, orca.Invalid, orca.KindOf(v.Store(5)))
	require.NoError(t, v.Store(1<<20))
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	require.Error(t, f.WriteGrains(short, bytes.Repeat([]byte{1}, orca.GrainSize), 1<<20), "held by the window")
	cancel()
	e, err := s.Get(id, 0, size)
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, e.N)
	e.Release()
	shared, length, gen, err := s.Share(id)
	require.NoError(t, err)
	defer shared.Close()
	require.EqualValues(t, size, length)
	require.Equal(t, e.Generation, gen)
	_, err = shared.WriteAt([]byte{1}, 0)
	require.Error(t, err)
	v.Close()
	require.NoError(t, f.WriteGrains(ctx, want[1<<20:4<<20], 1<<20))
	v = w.Window(ctx, 4<<20, size)
	require.NotNil(t, v)
	copy(v.Bytes(), want[4<<20:])
	require.NoError(t, v.Store(len(v.Bytes())))
	require.Empty(t, v.Bytes())
	v.Close()
	require.NoError(t, f.WriteGrains(ctx, want[8<<20:], 8<<20))
	require.NoError(t, f.Close())
	require.NoError(t, s.Recheck(id)) // the sums hold
	got, err := tiertest.ReadAll(s, id, size)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	require.EqualValues(t, size, s.Usage()[0].Used)
}

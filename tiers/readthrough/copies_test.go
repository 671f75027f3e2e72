// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough_test

import (
	"bytes"
	"context"
	"os"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers"
	"orca/tiers/tiertest"
)

// counting counts how the bytes of a source get into blocks.
type counting struct {
	tiers.Store
	lent, copied *atomic.Int64
}

type countingFiller struct {
	tiers.Filler
	c counting
}

type countingWindow struct {
	tiers.Window
	c counting
}

func (c counting) Begin(ctx context.Context, id orca.BlockID, length int64) (tiers.Filler, error) {
	f, err := c.Store.Begin(ctx, id, length)
	if err != nil {
		return nil, err
	}
	return countingFiller{f, c}, nil
}

func (f countingFiller) WriteGrains(ctx context.Context, p []byte, off int64) error {
	f.c.copied.Add(int64(len(p)))
	return f.Filler.WriteGrains(ctx, p, off)
}

func (f countingFiller) Window(ctx context.Context, off, n int64) tiers.Window {
	w := f.Filler.(tiers.Windower).Window(ctx, off, n)
	if w == nil {
		return nil
	}
	return countingWindow{w, f.c}
}

func (w countingWindow) Store(n int) error {
	w.c.lent.Add(int64(n))
	return w.Window.Store(n)
}

// What is fetched ahead of a reader in order is read from the source into the
// block itself: of all the file only the end, short of a huge page, is copied.
func TestSequentialColdReadCopiesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("no right to mount a tmpfs with huge pages")
	}
	const rest = 12345
	c := counting{lent: new(atomic.Int64), copied: new(atomic.Int64)}
	r := newRig(t, rigOptions{root: tiertest.MemDir(t), capacity: 256 << 20,
		wrap: func(s tiers.Store) tiers.Store { c.Store = s; return c }})
	p := tiertest.Bytes(1, 64<<20+rest)
	r.file(1, 1, p, 128<<20)
	got, err := r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, true)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	require.EqualValues(t, rest, c.copied.Load())
	require.EqualValues(t, len(p)-rest, c.lent.Load())
	require.EqualValues(t, 1, r.opens())
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHeapRoom: small heaps have Go's own percentage, large ones garbage of
// heapRoom, and very large ones of a part that collecting can keep up with.
func TestHeapRoom(t *testing.T) {
	require.Equal(t, 100, gcPercent(10<<20))
	require.Equal(t, 100, gcPercent(heapRoom))
	require.Equal(t, 50, gcPercent(2*heapRoom))
	require.Equal(t, 30, gcPercent(100*heapRoom))
	for live := uint64(heapRoom); live < 3*heapRoom; live += heapRoom / 8 {
		require.LessOrEqual(t, live*uint64(gcPercent(live))/100, uint64(heapRoom))
	}
}

// TestHeapIsLeftToWhoSetsIt: a percentage that was set is not touched.
func TestHeapIsLeftToWhoSetsIt(t *testing.T) {
	old := debug.SetGCPercent(77)
	defer debug.SetGCPercent(old)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	boundHeap(ctx)
	require.Equal(t, 77, debug.SetGCPercent(77))
}

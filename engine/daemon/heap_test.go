// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
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

// TestUnusedMemoryIsGivenBack: what a start leaves goes back to the system, what
// a heap needs between two collections stays.
func TestUnusedMemoryIsGivenBack(t *testing.T) {
	for _, live := range []uint64{0, heapRoom, 3 * heapRoom, 100 * heapRoom} {
		require.Greater(t, idleRoom(live), live*uint64(gcPercent(live))/100, "%d in use", live)
	}
	free := func() uint64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	defer debug.SetGCPercent(debug.SetGCPercent(heapPercent))
	var held [][]byte
	for range 3 * heapRoom >> 20 {
		held = append(held, make([]byte, 1<<20))
	}
	runtime.KeepAlive(held)
	held = nil
	runtime.GC()
	before := free()
	boundHeap(ctx)
	after := free()
	require.Greater(t, before, uint64(heapRoom*3/2), "the collector has given it back by itself")
	require.Less(t, after, uint64(heapRoom))
}

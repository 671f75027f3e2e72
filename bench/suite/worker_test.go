// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPlaces(t *testing.T) {
	p := newPlaces(shape{seq: true, size: 10}, 100, 35, 0)
	for _, want := range []int64{100, 110, 120, 100, 110} {
		require.Equal(t, want, p.take(), "in order, and again from the beginning")
	}
	p = newPlaces(shape{size: 10}, 100, 35, 1)
	seen := map[int64]bool{}
	for range 100 {
		seen[p.take()] = true
	}
	require.Equal(t, map[int64]bool{100: true, 110: true, 120: true}, seen)
}

func TestShapesHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range workerCases() {
		require.False(t, seen[c.Name], c.Name)
		seen[c.Name] = true
	}
	require.True(t, seen["read-random-4k-same"] && seen["read-seq-1m-own"] && seen["tail-4k"])
}

// TestOpenLoop: as many operations as the rate says, however long each takes,
// and the time that one could not begin in counts.
func TestOpenLoop(t *testing.T) {
	var n atomic.Int64
	lat, err := openLoop(t.Context(), 4, 1000, 100*time.Millisecond, func(context.Context, int) func() error {
		first := true
		return func() error {
			if n.Add(1); first {
				first = false
				<-time.After(50 * time.Millisecond)
			}
			return nil
		}
	})
	require.NoError(t, err)
	require.EqualValues(t, 100, n.Load())
	require.EqualValues(t, 100, lat.Count())
	require.GreaterOrEqual(t, lat.Summary().P90, 10_000.0, "half of them had to wait for the first one")
}

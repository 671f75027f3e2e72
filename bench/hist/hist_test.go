// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package hist

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSummary(t *testing.T) {
	h := New()
	require.Nil(t, h.Summary(), "an empty histogram has no percentiles to show")
	for i := 1; i <= 1000; i++ {
		h.Record(time.Duration(i) * time.Microsecond)
	}
	s := h.Summary()
	require.EqualValues(t, 1000, s.Count)
	require.InEpsilon(t, 500, s.P50, 0.002)
	require.InEpsilon(t, 900, s.P90, 0.002)
	require.InEpsilon(t, 990, s.P99, 0.002)
	require.InEpsilon(t, 1000, s.Max, 0.002)
	require.Zero(t, s.Clamped)
	require.Equal(t, "p50 500µs p90 900µs p99 990µs max 1.0ms", s.String())
}

func TestMergeKeepsEverything(t *testing.T) {
	a, b := New(), New()
	a.Record(time.Millisecond)
	b.Record(time.Second)
	b.Record(time.Hour) // over the range: clamped, not lost
	b.Record(-1)
	a.Merge(b)
	s := a.Summary()
	require.EqualValues(t, 4, s.Count)
	require.EqualValues(t, 2, s.Clamped)
	require.InEpsilon(t, 600e6, s.Max, 0.002)
	require.EqualValues(t, 3, b.Count(), "the source is left alone")
}

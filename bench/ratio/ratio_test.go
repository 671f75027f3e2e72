// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ratio

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		q    float64
		want float64
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{4, 1}, 0.5, 2.5},
		{[]float64{5, 1, 3}, 0.5, 3},
		{[]float64{1, 2, 3, 4, 5}, 0.25, 2},
		{[]float64{1, 2, 3, 4, 5}, 1, 5},
		{[]float64{1, 2, 3, 4, 5}, 0, 1},
	} {
		require.Equal(t, c.want, Quantile(c.v, c.q), "%v", c)
	}
	require.True(t, math.IsNaN(Median(nil)))
	v := []float64{3, 1, 2}
	Median(v)
	require.Equal(t, []float64{3, 1, 2}, v, "the argument is left alone")
}

// TestRatioOfPairs pins that the ratio is the median of the ratios and not the
// ratio of the medians: a machine that halves its speed in the middle of a run
// must not change the result.
func TestRatioOfPairs(t *testing.T) {
	r, err := Of([]float64{90, 90, 45, 45, 9}, []float64{100, 100, 50, 50, 10})
	require.NoError(t, err)
	require.InDelta(t, 0.9, r.Ratio, 1e-12)
	require.InDelta(t, 0.9, r.Low, 1e-12)
	require.InDelta(t, 0.9, r.High, 1e-12)
	require.Equal(t, 45.0, r.System)
	require.Equal(t, 50.0, r.Baseline)

	r, err = Of([]float64{1, 10, 10}, []float64{10, 10, 100})
	require.NoError(t, err)
	require.InDelta(t, 0.1, r.Ratio, 1e-12, "the ratio of the medians would be 1")
}

func TestSpread(t *testing.T) {
	r, err := Of([]float64{1, 2, 3, 4, 5}, []float64{1, 1, 1, 1, 1})
	require.NoError(t, err)
	require.Equal(t, []float64{1, 2, 3, 4, 5}, r.Ratios)
	require.Equal(t, 1.0, r.Min)
	require.Equal(t, 5.0, r.Max)
	require.LessOrEqual(t, r.Low, r.Ratio)
	require.GreaterOrEqual(t, r.High, r.Ratio)
	require.Less(t, r.Low, r.High)
	again, _ := Of([]float64{1, 2, 3, 4, 5}, []float64{1, 1, 1, 1, 1})
	require.Equal(t, r, again, "the interval is reproducible")
}

func TestInvalidSamplesGiveNoRatio(t *testing.T) {
	for _, c := range [][2][]float64{
		{nil, nil},
		{{1}, nil},
		{{0}, {1}},
		{{1}, {0}},
		{{1}, {-1}},
		{{math.NaN()}, {1}},
		{{1}, {math.Inf(1)}},
	} {
		_, err := Of(c[0], c[1])
		require.ErrorIs(t, err, ErrInvalid, "%v", c)
	}
}

func TestOrderIsBalanced(t *testing.T) {
	first := 0
	for i := range 10 {
		if SystemFirst(i) {
			first++
		}
	}
	require.Equal(t, 5, first)
	require.True(t, SystemFirst(0))
	require.False(t, SystemFirst(1))
}

func TestBest(t *testing.T) {
	require.Equal(t, 1, Best([][]float64{{1, 1, 100}, {2, 2, 2}, {1, 2, 1}}), "by median, not by the luckiest sample")
	require.Equal(t, 0, Least([][]float64{{1, 1, 100}, {2, 2, 2}, {1, 2, 1.5}}))
}

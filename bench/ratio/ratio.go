// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package ratio is the arithmetic of a comparison: in which order the two
// sides take their turns, and what the pairs of samples add up to. It is pure.
//
// A machine drifts (other tenants, clock speed, page cache), so that two
// figures taken minutes apart cannot be divided. Here both sides are sampled
// in one run as A-B B-A A-B …, each neighbouring pair gives one ratio, and the
// result is the median of these ratios: drift slower than a pair cancels, and
// an order effect hits both sides alike. The interval is a percentile
// bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, ch. 13).
package ratio

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
)

// MinPairs is the fewest pairs a result may be the median of.
const MinPairs = 5

// SystemFirst reports whether the system goes first in pair i: A-B, B-A, A-B …
func SystemFirst(i int) bool { return i%2 == 0 }

// Median returns the median of v, NaN when v is empty. v is not changed.
func Median(v []float64) float64 { return Quantile(v, 0.5) }

// Quantile returns the q-quantile (0..1) with linear interpolation, NaN when v
// is empty. v is not changed.
func Quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Clone(v)
	slices.Sort(s)
	pos := q * float64(len(s)-1)
	i := int(pos)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (pos-float64(i))*(s[i+1]-s[i])
}

// Result is what pairs of samples add up to.
type Result struct {
	System, Baseline float64   // medians of each side
	Ratio            float64   // median of the per-pair ratios
	Low, High        float64   // 95 % bootstrap interval of Ratio
	Min, Max         float64   // smallest and largest per-pair ratio
	Ratios           []float64 // per pair, in order
}

// ErrInvalid means that a sample is not a positive finite number or that the
// sides differ in length: there is no honest ratio.
var ErrInvalid = errors.New("a sample is missing, not positive or not finite")

// Of compares paired samples. It refuses samples that are not positive and
// finite.
func Of(system, baseline []float64) (Result, error) {
	if len(system) == 0 || len(system) != len(baseline) {
		return Result{}, ErrInvalid
	}
	r := Result{Ratios: make([]float64, len(system))}
	for i := range system {
		if !usable(system[i]) || !usable(baseline[i]) {
			return Result{}, ErrInvalid
		}
		r.Ratios[i] = system[i] / baseline[i]
	}
	r.System, r.Baseline, r.Ratio = Median(system), Median(baseline), Median(r.Ratios)
	r.Min, r.Max = slices.Min(r.Ratios), slices.Max(r.Ratios)
	r.Low, r.High = bootstrap(r.Ratios)
	return r, nil
}

// Best returns the index of the series with the highest median: the baseline
// that a system with several rivals is held against.
func Best(series [][]float64) int {
	best := 0
	for i := range series {
		if Median(series[i]) > Median(series[best]) {
			best = i
		}
	}
	return best
}

// Least returns the index of the series with the lowest median.
func Least(series [][]float64) int {
	least := 0
	for i := range series {
		if Median(series[i]) < Median(series[least]) {
			least = i
		}
	}
	return least
}

func usable(v float64) bool { return v > 0 && !math.IsInf(v, 0) && !math.IsNaN(v) }

// bootstrap returns the 2.5 % and 97.5 % quantiles of the median of resampled
// ratios, with a fixed seed: the same samples give the same interval.
func bootstrap(v []float64) (low, high float64) {
	const rounds = 1000
	rng := rand.New(rand.NewPCG(1, 2))
	medians := make([]float64, rounds)
	draw := make([]float64, len(v))
	for i := range medians {
		for j := range draw {
			draw[j] = v[rng.IntN(len(v))]
		}
		medians[i] = Median(draw)
	}
	return Quantile(medians, 0.025), Quantile(medians, 0.975)
}

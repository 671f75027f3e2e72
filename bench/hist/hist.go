// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package hist records latencies. It wraps HdrHistogram (its sole user) with
// one shape for every suite: 1 ns to 10 minutes, three significant digits.
//
// Flow: each load goroutine owns a Hist, records into it without locks, and
// the suite merges them after the goroutines have ended. A Hist is not safe
// for concurrent use. It refuses nothing: what is out of range is clamped to
// the range and counted in Summary.Clamped, so that no outlier vanishes.
package hist

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	lowest  = int64(1) // ns
	highest = int64(10 * time.Minute)
	digits  = 3
)

// Hist is one distribution of durations.
type Hist struct {
	h       *hdrhistogram.Histogram
	clamped int64
}

// New returns an empty histogram.
func New() *Hist { return &Hist{h: hdrhistogram.New(lowest, highest, digits)} }

// Record adds one duration.
func (h *Hist) Record(d time.Duration) {
	v := int64(d)
	if v < lowest || v > highest {
		v = min(max(v, lowest), highest)
		h.clamped++
	}
	// In range by construction, so that the only error cannot occur.
	_ = h.h.RecordValue(v)
}

// Merge adds all that o holds.
func (h *Hist) Merge(o *Hist) {
	h.h.Merge(o.h)
	h.clamped += o.clamped
}

// Count returns how many durations were recorded.
func (h *Hist) Count() int64 { return h.h.TotalCount() }

// Summary is what a report shows of a distribution, in microseconds.
type Summary struct {
	Count   int64   `json:"count"`
	Mean    float64 `json:"mean_us"`
	P50     float64 `json:"p50_us"`
	P90     float64 `json:"p90_us"`
	P99     float64 `json:"p99_us"`
	P999    float64 `json:"p999_us"`
	Max     float64 `json:"max_us"`
	Clamped int64   `json:"clamped,omitempty"`
}

// Summary returns the percentiles; nil when nothing was recorded.
func (h *Hist) Summary() *Summary {
	if h == nil || h.Count() == 0 {
		return nil
	}
	us := func(q float64) float64 { return float64(h.h.ValueAtQuantile(q)) / 1e3 }
	return &Summary{
		Count: h.Count(), Mean: h.h.Mean() / 1e3,
		P50: us(50), P90: us(90), P99: us(99), P999: us(99.9),
		Max: float64(h.h.Max()) / 1e3, Clamped: h.clamped,
	}
}

// String formats the percentiles for a person.
func (s *Summary) String() string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("p50 %s p90 %s p99 %s max %s", short(s.P50), short(s.P90), short(s.P99), short(s.Max))
}

func short(us float64) string {
	switch {
	case us < 1:
		return fmt.Sprintf("%.0fns", us*1e3)
	case us < 100:
		return fmt.Sprintf("%.1fµs", us)
	case us < 1e3:
		return fmt.Sprintf("%.0fµs", us)
	case us < 1e6:
		return fmt.Sprintf("%.1fms", us/1e3)
	}
	return fmt.Sprintf("%.2fs", us/1e6)
}

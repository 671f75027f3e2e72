// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package timing counts durations: a histogram of fixed steps in plain
// atomics, for the metrics structs of every room. engine/telemetry shows it. It
// allocates nothing, takes no lock and starts no goroutine.
package timing

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// least is the upper bound of the first step; each further one is twice
	// as long, up to a minute and a bit.
	least = 16 * time.Microsecond
	steps = 23
)

// Histogram counts durations. The zero value is ready.
type Histogram struct {
	counts [steps + 1]atomic.Int64 // the last: longer than all bounds
	sum    atomic.Int64            // ns
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	if d > least {
		i = min(bits.Len64(uint64((d-1)/least)), steps)
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot returns, for each upper bound in seconds, how many durations were
// not longer, the number of all, and their sum. Durations that are counted
// meanwhile are in all of it or partly.
func (h *Histogram) Snapshot() (upTo map[float64]uint64, n uint64, sum time.Duration) {
	sum = time.Duration(h.sum.Load())
	upTo = make(map[float64]uint64, steps)
	for i, bound := 0, least; i < steps; i, bound = i+1, 2*bound {
		n += uint64(h.counts[i].Load())
		upTo[bound.Seconds()] = n
	}
	return upTo, n + uint64(h.counts[steps].Load()), sum
}

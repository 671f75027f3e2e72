// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"time"

	"orca"
	"orca/bench/workload"
	"orca/tiers/evict"
)

const beladyName = "the best order there is (Belady's rule)"

// The evict suite reads traces through the eviction policies, with the
// watermarks of a worker and without files: it counts, so that it needs no
// quiet machine. Each pair has a trace of its own seed.
func evictCases() []Case {
	c := func(name, about string, full func(seed uint64) workload.Trace, tiny func(seed uint64) workload.Trace) Case {
		return Case{Suite: "evict", Name: name, Metric: "hit rate by bytes, default policy", Unit: unitRate, Baseline: beladyName, About: about,
			open: func(_ context.Context, s *stage) (*trial, error) {
				if s.opt.Tiny {
					full = tiny
				}
				return openEvict(full)
			}}
	}
	return []Case{
		c("zipf", "skewed popularity (s = 0.99, as YCSB) over ten times the cache: hit rate of the default policy, against Belady's rule",
			func(s uint64) workload.Trace { return workload.Zipf(s, 10_000, 200_000) },
			func(s uint64) workload.Trace { return workload.Zipf(s, 500, 5000) }),
		c("scan", "the same with scans over twice the cache in between that nobody reads again (2Q, ARC)",
			func(s uint64) workload.Trace { return workload.Scan(s, 10_000, 200_000) },
			func(s uint64) workload.Trace { return workload.Scan(s, 500, 5000) }),
		c("loop", "twice the cache in the same order, round after round (LIRS)",
			func(s uint64) workload.Trace { return workload.Loop(s, 4000, 10) },
			func(s uint64) workload.Trace { return workload.Loop(s, 200, 4) }),
		c("shuffled-half", "every object once per epoch in a new order, half of the bytes cached (CoorDL, Quiver)",
			func(s uint64) workload.Trace { return workload.Shuffled(s, 4000, 10) },
			func(s uint64) workload.Trace { return workload.Shuffled(s, 200, 4) }),
	}
}

// openEvict makes a side of the default policy, and one of Belady's rule and
// of each other policy. A side reads the next trace each time.
func openEvict(make func(seed uint64) workload.Trace) (*trial, error) {
	traced := func(name string, rate func(workload.Trace) (float64, error)) side {
		seed := uint64(0)
		return side{name: name, run: func(context.Context) (measure, error) {
			seed++
			r, err := rate(make(seed))
			return measure{work: r, took: time.Second}, err
		}}
	}
	policy := func(name string) side {
		return traced(name, func(t workload.Trace) (float64, error) {
			p, err := evict.New(name)
			if err != nil {
				return 0, err
			}
			c := evict.NewCache(p, evict.DefaultMarks, t.Cache)
			r := t.HitRate(func(r workload.Ref) bool {
				return c.Use(orca.BlockID{File: orca.Ino(r.Object), Version: 1}, r.Size)
			})
			return max(r, leastRate), nil
		})
	}
	t := &trial{system: policy(evict.Default)}
	t.baselines = append(t.baselines, traced(beladyName, func(t workload.Trace) (float64, error) { return t.Belady(), nil }))
	for _, name := range evict.Names() {
		if name != evict.Default {
			t.baselines = append(t.baselines, policy(name))
		}
	}
	return t, nil
}

// leastRate stands for no hit at all, since a ratio needs a positive figure.
const leastRate = 1e-9

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/bench/workload"
	"orca/tiers/evict"
)

// rates returns the hit rate of every policy on a trace.
func rates(t *testing.T, tr workload.Trace) map[string]float64 {
	out := map[string]float64{}
	for _, name := range evict.Names() {
		p, err := evict.New(name)
		require.NoError(t, err)
		c := evict.NewCache(p, evict.DefaultMarks, tr.Cache)
		out[name] = tr.HitRate(func(r workload.Ref) bool { return c.Use(orca.BlockID{File: orca.Ino(r.Object), Version: 1}, r.Size) })
	}
	return out
}

// TestDefaultIsNearTheBest holds the default against the best of the published
// policies on the shapes where each of them wins or fails, by bytes, and all
// against the best order there is. The traces are the same on every machine.
func TestDefaultIsNearTheBest(t *testing.T) {
	for name, tr := range map[string]workload.Trace{
		"zipf":          workload.Zipf(1, 10_000, 100_000),
		"zipf, few":     workload.Zipf(2, 1000, 50_000),
		"scan":          workload.Scan(1, 10_000, 100_000),
		"loop":          workload.Loop(1, 4000, 8),
		"loop, few":     workload.Loop(2, 200, 8),
		"shuffled":      workload.Shuffled(1, 4000, 8),
		"shuffled, few": workload.Shuffled(2, 200, 8),
		"moving":        workload.Moving(1, 10_000, 5, 30_000),
	} {
		t.Run(name, func(t *testing.T) {
			r, bound := rates(t, tr), tr.Belady()
			t.Logf("belady %.3f, %.3v", bound, r)
			best := 0.0
			for _, n := range []string{"lru", "lrfu", "s3fifo", "tinylfu"} {
				best = max(best, r[n])
			}
			require.GreaterOrEqual(t, r[evict.Default], 0.95*best)
			for n, v := range r {
				require.Less(t, v, bound*1.005, "%s knows no future", n)
			}
		})
	}
}

// TestShuffledEpochs: half of the data cached, hit rate from the second epoch.
func TestShuffledEpochs(t *testing.T) {
	r := rates(t, workload.Shuffled(7, 3000, 6))
	require.GreaterOrEqual(t, r["epoch"], 0.45)
	require.GreaterOrEqual(t, r[evict.Default], 0.45, "without being told")
	require.InDelta(t, 0.15, r["lru"], 0.02, "c+(1-c)ln(1-c)")
}

// TestNextDataSet: the policies that pin let go of a data set that is not read
// any more.
func TestNextDataSet(t *testing.T) {
	a, b := workload.Shuffled(3, 2000, 5), workload.Shuffled(4, 2000, 12)
	for i := range b.Refs {
		b.Refs[i].Object += 1 << 32
	}
	tr := workload.Trace{Refs: append(a.Refs, b.Refs...), Cache: a.Cache}
	tr.Warm = len(tr.Refs) - 2000 // the last epoch of the second
	r := rates(t, tr)
	require.GreaterOrEqual(t, r["epoch"], 0.4)
	require.GreaterOrEqual(t, r[evict.Default], 0.4)
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package timing

import (
	"testing"
	"time"
)

// TestBounds: a duration is counted at the first bound that is not less.
func TestBounds(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, least, least + 1, 2 * least, 2*least + 1, time.Millisecond, time.Second, time.Minute, time.Hour} {
		var h Histogram
		h.Observe(d)
		upTo, n, sum := h.Snapshot()
		if n != 1 || sum != max(d, 0) || len(upTo) != steps {
			t.Errorf("%v: n %d, sum %v, %d bounds", d, n, sum, len(upTo))
		}
		for bound, c := range upTo {
			if in := max(d, 0).Seconds() <= bound; in != (c == 1) {
				t.Errorf("%v up to %v s: %d", d, bound, c)
			}
		}
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import "testing"

// Shrink looks for a smaller plan that breaks the same rule, in at most tries
// runs: fewer kinds of faults first, then fewer operations.
func Shrink(t *testing.T, f *Failure, bug *Bug, tries int) *Failure {
	best := f
	try := func(p *Plan) bool {
		if tries--; tries < 0 {
			return false
		}
		r := Play(t, p, bug)
		if r.Failure == nil || r.Failure.Rule != f.Rule {
			return false
		}
		best = r.Failure
		return true
	}
	for kind := range f.Plan.Faults.each() {
		if p, had := best.Plan.calmer(kind); had {
			try(p)
		}
	}
	for n := max(best.Plan.size()/2, 1); n > 0 && tries > 0; n /= 2 {
		for c := range best.Plan.Clients {
			for from := 0; from < len(best.Plan.Clients[c]) && tries > 0; {
				k := min(n, len(best.Plan.Clients[c])-from)
				if !try(best.Plan.without(c, from, k)) {
					from += k
				}
			}
		}
	}
	return best
}

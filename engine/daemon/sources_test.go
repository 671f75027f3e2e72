// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/engine/placement"
	"orca/metaplane/metapb"
)

// TestHomes: all workers ask the same ones in the same order, whoever asks and
// however the list is sorted, and no more than maxHomes.
func TestHomes(t *testing.T) {
	for n := range 8 {
		var workers []*metapb.Worker
		for i := range uint64(n) {
			workers = append(workers, &metapb.Worker{Id: i + 1, Addr: string(rune('a' + i))})
		}
		for file := range orca.Ino(50) {
			rank := slices.Clone(workers)
			slices.SortFunc(rank, func(a, b *metapb.Worker) int {
				if placement.Rank(uint64(file), a.Id) > placement.Rank(uint64(file), b.Id) {
					return -1
				}
				return 1
			})
			rank = rank[:min(n, maxHomes)]
			for self := range uint64(n + 2) { // 0 and n+1: not in the list, yet or any more
				slices.Reverse(workers)
				got, before := homes(file, workers, self)
				at := slices.IndexFunc(rank, func(w *metapb.Worker) bool { return w.Id == self })
				want := rank
				if at >= 0 {
					want = slices.Concat(rank[:at], rank[at+1:])
					require.Equal(t, at, before)
				} else {
					require.Equal(t, len(rank), before)
				}
				require.Len(t, got, len(want))
				for i, w := range want {
					require.Equal(t, w.Id, got[i].Worker)
					require.Equal(t, w.Addr, got[i].Addr)
				}
			}
		}
	}
}

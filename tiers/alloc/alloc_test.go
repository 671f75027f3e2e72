// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package alloc_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/alloc"
)

func TestMaxFree(t *testing.T) {
	mem := alloc.Place{Index: 0, Tier: orca.MEM, Capacity: 100, Free: 10, Evictable: 80}
	ssdA := alloc.Place{Index: 1, Tier: orca.SSD, Capacity: 1000, Free: 300, Evictable: 100, Durable: true}
	ssdB := alloc.Place{Index: 2, Tier: orca.SSD, Capacity: 1000, Free: 500, Durable: true}
	hdd := alloc.Place{Index: 3, Tier: orca.HDD, Capacity: 4000, Free: 4000, Durable: true}
	all := []alloc.Place{hdd, ssdA, mem, ssdB}
	tests := []struct {
		name  string
		need  alloc.Need
		order []int
		now   int
	}{
		{"fits memory now", alloc.Need{Length: 8, Room: 8}, []int{0, 2, 1, 3}, 4},
		{"memory has to evict", alloc.Need{Length: 40, Room: 40}, []int{2, 1, 3, 0}, 3},
		{"memory fills as it evicts", alloc.Need{Length: 40, Room: 5}, []int{0, 2, 1, 3}, 4},
		{"over half of memory", alloc.Need{Length: 51, Room: 1}, []int{2, 1, 3}, 3},
		{"durable", alloc.Need{Length: 8, Room: 8, Durable: true}, []int{2, 1, 3}, 3},
		{"only the disk", alloc.Need{Length: 2000, Room: 1}, []int{3}, 1},
		{"nowhere", alloc.Need{Length: 2001, Room: 1}, nil, 0},
		{"after eviction only", alloc.Need{Length: 350, Room: 350}, []int{2, 3, 1}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			order, now := alloc.MaxFree(all, tt.need)
			var got []int
			for _, p := range order {
				got = append(got, p.Index)
			}
			require.Equal(t, tt.order, got)
			require.Equal(t, tt.now, now)
		})
	}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package alloc_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

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
			order, now := alloc.Allocator(alloc.MaxFree).Order(all, tt.need)
			var got []int
			for _, p := range order {
				got = append(got, p.Index)
			}
			require.Equal(t, tt.order, got)
			require.Equal(t, tt.now, now)
		})
	}
}

func TestNames(t *testing.T) {
	require.Equal(t, []string{"max-free", "round-robin", "greedy", "capacity-weighted"}, alloc.Names())
	_, err := alloc.New("worst-fit")
	require.ErrorIs(t, err, orca.Invalid)
	_, err = alloc.New("")
	require.NoError(t, err)
}

// TestShares places a hundred blocks into three disks of 100, 200 and 700, and
// a memory directory that is too small for them.
func TestShares(t *testing.T) {
	for name, want := range map[string][]int{
		"max-free":          {0, 0, 100}, // the large one never has less room than the others
		"round-robin":       {34, 33, 33},
		"greedy":            {100, 0, 0},
		"capacity-weighted": {10, 20, 70},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := alloc.New(name)
			require.NoError(t, err)
			places := []alloc.Place{{Index: 0, Tier: orca.SSD, Capacity: 1000}, {Index: 1, Tier: orca.SSD, Capacity: 2000}, {Index: 2, Tier: orca.SSD, Capacity: 7000},
				{Index: 3, Tier: orca.MEM, Capacity: 1}}
			for i := range places {
				places[i].Free = places[i].Capacity
			}
			got := make([]int, 3)
			for n := range 100 {
				order, now := a.Order(places, alloc.Need{Length: 10, Room: 10})
				require.Equal(t, 3, now)
				p := &places[order[0].Index]
				p.Free, p.Placed, p.Last = p.Free-10, p.Placed+10, uint64(n+1)
				got[order[0].Index]++
			}
			require.Equal(t, want, got)
		})
	}
}

// TestEveryAllocator keeps the rules that do not depend on the allocator.
func TestEveryAllocator(t *testing.T) {
	for _, name := range alloc.Names() {
		a, err := alloc.New(name)
		require.NoError(t, err)
		rapid.Check(t, func(t *rapid.T) {
			var places []alloc.Place
			for i := range rapid.IntRange(0, 6).Draw(t, "n") {
				c := int64(rapid.IntRange(0, 100).Draw(t, "capacity"))
				f := int64(rapid.IntRange(0, int(c)).Draw(t, "free"))
				places = append(places, alloc.Place{Index: i, Tier: orca.Tier(rapid.IntRange(0, 2).Draw(t, "tier")), Capacity: c, Free: f,
					Evictable: int64(rapid.IntRange(0, int(c-f)).Draw(t, "evictable")), Durable: rapid.Bool().Draw(t, "durable"),
					Last: rapid.Uint64().Draw(t, "last"), Placed: int64(rapid.IntRange(0, 1000).Draw(t, "placed"))})
			}
			n := alloc.Need{Length: int64(rapid.IntRange(1, 60).Draw(t, "length")), Durable: rapid.Bool().Draw(t, "want")}
			n.Room = int64(rapid.IntRange(1, int(n.Length)).Draw(t, "room"))
			order, now := a.Order(places, n)
			seen := map[int]bool{}
			for i, p := range order {
				switch {
				case seen[p.Index] || p != places[p.Index]:
					t.Fatal("not one of the places, or twice")
				case p.Capacity < 2*n.Length || n.Durable && !p.Durable || p.Free+p.Evictable < n.Room:
					t.Fatalf("%+v cannot take %+v", p, n)
				case i < now && p.Free < n.Room:
					t.Fatalf("%+v has no room now", p)
				case i > 0 && i != now && order[i-1].Tier > p.Tier:
					t.Fatal("a slower tier before a faster one")
				}
				seen[p.Index] = true
			}
		})
	}
}

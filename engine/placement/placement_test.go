// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package placement

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
)

// Workers 1 and 2 are on node a, 3 on b of the same rack r, 4 and 5 on c and d
// of rack s, 6 on e without a rack.
func fleet() []Worker {
	return []Worker{
		{ID: 1, Place: Place{"a", "r"}, Free: 10, Capacity: 100},
		{ID: 2, Place: Place{"a", "r"}, Free: 50, Capacity: 100},
		{ID: 3, Place: Place{"b", "r"}, Free: 90, Capacity: 100},
		{ID: 4, Place: Place{"c", "s"}, Free: 70, Capacity: 100},
		{ID: 5, Place: Place{"d", "s"}, Free: 0, Capacity: 100},
		{ID: 6, Place: Place{"e", ""}, Free: 60, Capacity: 100},
	}
}

func order(t *testing.T, policy string, task Task) []uint64 {
	t.Helper()
	p, err := Parse(policy)
	require.NoError(t, err)
	ws := fleet()
	rand.Shuffle(len(ws), func(i, j int) { ws[i], ws[j] = ws[j], ws[i] })
	p.Order(ws, task)
	ids := make([]uint64, len(ws))
	for i, w := range ws {
		ids[i] = w.ID
	}
	return ids
}

// ranked orders some of the workers as rendezvous hashing does.
func ranked(key uint64, ids ...uint64) []uint64 {
	slices.SortFunc(ids, func(a, b uint64) int {
		if Rank(key, a) > Rank(key, b) {
			return -1
		}
		return 1
	})
	return ids
}

func TestOrder(t *testing.T) {
	at := Place{"a", "r"}
	for key := range uint64(20) {
		r := func(ids ...uint64) []uint64 { return ranked(key, ids...) }
		cases := []struct {
			policy string
			task   Task
			want   []uint64
		}{
			{"", Task{At: at}, slices.Concat(r(1, 2), r(3), r(4, 5, 6))},
			{"local-first", Task{At: at, Turn: 7}, slices.Concat(r(1, 2), r(3), r(4, 5, 6))},
			{"local-first", Task{At: Place{"x", "s"}}, slices.Concat(r(4, 5), r(1, 2, 3, 6))},
			{"local-first", Task{At: Place{"x", ""}}, r(1, 2, 3, 4, 5, 6)},
			{"local-first-avoid-eviction", Task{At: at, Size: 5}, slices.Concat(r(1, 2), r(3), r(4, 6), r(5))},
			{"local-first-avoid-eviction", Task{At: at, Size: 40}, slices.Concat(r(2), r(3), r(4, 6), []uint64{1, 5})},
			{"local-first-avoid-eviction", Task{At: at, Size: 80}, []uint64{3, 4, 6, 2, 1, 5}},
			{"local-first-avoid-eviction", Task{At: at}, slices.Concat(r(1, 2), r(3), r(4, 6), r(5))},
			{"most-available", Task{At: at}, []uint64{3, 4, 6, 2, 1, 5}},
			{"round-robin", Task{At: at, Turn: 0}, []uint64{1, 2, 3, 4, 5, 6}},
			{"round-robin", Task{At: at, Turn: 2}, []uint64{3, 4, 5, 6, 1, 2}},
			{"round-robin", Task{At: at, Turn: 6 * 1000003}, []uint64{1, 2, 3, 4, 5, 6}},
			{"specific:c", Task{At: at}, slices.Concat(r(4), r(1, 2), r(3), r(5, 6))},
			{"specific:nowhere", Task{At: at}, slices.Concat(r(1, 2), r(3), r(4, 5, 6))},
			{"deterministic-hash", Task{At: at, Turn: 3}, r(1, 2, 3, 4, 5, 6)},
		}
		for _, c := range cases {
			c.task.Key = key
			require.Equal(t, c.want, order(t, c.policy, c.task), "%s %+v", c.policy, c.task)
		}
		all := r(1, 2, 3, 4, 5, 6)
		got := order(t, "deterministic-hash:2", Task{Key: key, Turn: 1})
		require.Equal(t, []uint64{all[1], all[0], all[2], all[3], all[4], all[5]}, got, "two workers share a key")
		require.Equal(t, all[1], order(t, "deterministic-hash:99", Task{Key: key, Turn: 1})[0])
	}
}

func TestParse(t *testing.T) {
	for _, s := range []string{"local-first", "local-first-avoid-eviction", "most-available", "round-robin", "specific:n1", "specific:a:b", "deterministic-hash", "deterministic-hash:3"} {
		p, err := Parse(s)
		require.NoError(t, err)
		require.Equal(t, s, p.String())
	}
	p, err := Parse("")
	require.NoError(t, err)
	require.Equal(t, "local-first", p.String())
	for _, s := range []string{"LocalFirst", "specific", "specific:", "deterministic-hash:", "deterministic-hash:0", "deterministic-hash:x", "local-first:a", "round-robin:"} {
		_, err := Parse(s)
		require.ErrorIs(t, err, orca.Invalid, s)
	}
}

// Keys spread evenly, and a worker that leaves takes only its own with it.
func TestRendezvous(t *testing.T) {
	const keys, workers = 60_000, 6
	home := func(key uint64, without uint64) uint64 {
		best := uint64(0)
		for w := uint64(1); w <= workers; w++ {
			if w != without && (best == 0 || Rank(key, w) > Rank(key, best)) {
				best = w
			}
		}
		return best
	}
	count := map[uint64]int{}
	for k := range uint64(keys) {
		h := home(k, 0)
		count[h]++
		if h != 3 {
			require.Equal(t, h, home(k, 3))
		}
	}
	for w, n := range count {
		require.InDelta(t, keys/workers, n, keys/workers/20, "worker %d", w)
	}
}

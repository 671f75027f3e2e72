// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestNameSetIsABag compares the set with a map of counts, over any history, with
// hashes that are close to each other, the same, and at both ends of the table.
func TestNameSetIsABag(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, want := newNameSet(rapid.IntRange(0, 30).Draw(t, "room")), map[uint32]int{}
		hash := rapid.OneOf(rapid.Uint32Range(1, 20), rapid.Uint32Range(1<<31, 1<<31+20), rapid.Uint32Range(1<<32-20, 1<<32-1), rapid.Uint32Range(1, 1<<32-1))
		n := 0
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			h := hash.Draw(t, "hash")
			if rapid.IntRange(0, 2).Draw(t, "add") > 0 {
				s.add(h)
				want[h]++
				n++
			} else {
				if s.remove(h); want[h] > 0 {
					want[h]--
					n--
				}
			}
			if s.len() != n {
				t.Fatalf("%d hashes, want %d", s.len(), n)
			}
			for h, times := range want {
				if s.has(h) != (times > 0) {
					t.Fatalf("%x is there: %v, want %d of it", h, s.has(h), times)
				}
			}
		}
	})
}

// TestNamesOfOneHashStayApart: when one of them is removed, the others are still
// known to be there, and the directory's names stay known.
func TestNamesOfOneHashStayApart(t *testing.T) {
	s := newNameSet(0)
	for range 3 {
		s.add(7)
	}
	for left := 2; left >= 0; left-- {
		s.remove(7)
		require.Equal(t, left, s.len())
		require.Equal(t, left > 0, s.has(7))
	}
	var none *nameSet
	require.False(t, none.has(7))
	require.Zero(t, none.len())
}

// TestNamesAreSmall holds the hashes of names to their bytes: of directories with
// few names, many, and one that grows.
func TestNamesAreSmall(t *testing.T) {
	for _, n := range []int{20, 1000, 4096} {
		s := newNameSet(n)
		grown := newNameSet(1)
		for i := range n {
			h := uint32(i)*2654435761 | 1
			s.add(h)
			grown.add(h)
		}
		require.LessOrEqual(t, 4*len(s.slots)/n, 6, "of %d names", n)
		require.LessOrEqual(t, 4*len(grown.slots)/n, 8, fmt.Sprintf("of %d names that came one by one", n))
	}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockfile

import "math/bits"

// GrainSet is a set of grain numbers of one block.
type GrainSet []uint64

// NewGrainSet returns an empty set for n grains.
func NewGrainSet(n int) GrainSet { return make(GrainSet, (n+63)/64) }

// Has reports whether grain i is in the set.
func (s GrainSet) Has(i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }

// Add adds grain i.
func (s GrainSet) Add(i int) { s[i>>6] |= 1 << (i & 63) }

// Drop removes grain i.
func (s GrainSet) Drop(i int) { s[i>>6] &^= 1 << (i & 63) }

// AddRange adds [i, end).
func (s GrainSet) AddRange(i, end int) {
	for ; i < end; i++ {
		if i&63 == 0 && end-i >= 64 {
			s[i>>6] = ^uint64(0)
			i += 63
			continue
		}
		s.Add(i)
	}
}

// Count returns the size of the set.
func (s GrainSet) Count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// NextSet returns the first member of [i, end), else end.
func (s GrainSet) NextSet(i, end int) int { return s.next(i, end, 0) }

// NextClear returns the first non-member of [i, end), else end.
func (s GrainSet) NextClear(i, end int) int { return s.next(i, end, ^uint64(0)) }

func (s GrainSet) next(i, end int, flip uint64) int {
	for i < end {
		if w := (s[i>>6] ^ flip) >> (i & 63); w != 0 {
			return min(i+bits.TrailingZeros64(w), end)
		}
		i = (i>>6 + 1) << 6
	}
	return end
}

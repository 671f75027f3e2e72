// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict

const (
	sketchRows = 4
	sketchMax  = 15 // of a counter of 4 bits
	sketchMin  = 64 // words
	// sketchAge is how many uses per entry halve all counters.
	sketchAge = 10
)

// sketch estimates how often blocks were used lately, cached or not: a
// count-min sketch of 4-bit counters, halved from time to time, 8 bytes for
// each entry of the policy (TinyLFU).
type sketch struct {
	words []uint64
	uses  int
}

// fit makes the sketch large enough for n entries. A counter moves to both
// places that its blocks may have in a sketch of twice the size.
func (s *sketch) fit(n int) {
	if s.words == nil {
		s.words = make([]uint64, sketchMin)
	}
	for len(s.words) < n {
		s.words = append(s.words, s.words...)
	}
}

// at returns the word and the shift of the counter in a row.
func (s *sketch) at(h uint64, row int) (word, shift int) {
	x := mix(h + uint64(row)*0x9e3779b97f4a7c15)
	return int(x>>8) & (len(s.words) - 1), row*16 + int(x&3)*4
}

func (s *sketch) count(h uint64) int {
	least := sketchMax
	for row := range sketchRows {
		w, sh := s.at(h, row)
		least = min(least, int(s.words[w]>>sh&sketchMax))
	}
	return least
}

// add counts a use; n is the number of entries.
func (s *sketch) add(h uint64, n int) {
	least := s.count(h)
	for row := range sketchRows {
		if w, sh := s.at(h, row); least < sketchMax && int(s.words[w]>>sh&sketchMax) == least {
			s.words[w] += 1 << sh
		}
	}
	if s.uses++; s.uses >= sketchAge*max(n, sketchMin) {
		s.uses /= 2
		for i, w := range s.words {
			s.words[i] = w >> 1 & 0x7777777777777777
		}
	}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict

import (
	"math"

	"orca"
)

const (
	// sampleLen is how many blocks of the directory each trial holds, about.
	sampleLen = 1024
	// sampleSeen is how many sampled blocks are remembered, held or not: a
	// round of so many times the directory is still seen as one.
	sampleSeen = 8 * sampleLen
	// scoreAge is after how many sampled uses the scores are halved.
	scoreAge = 2 * sampleLen
	// scoreMin is how many sampled uses there are before a first verdict.
	scoreMin = 256
	// better is by how much another mode must lead to be taken, and moving by
	// how much recency must: coming back from it costs what it let go.
	better, moving = 1.01, 1.05
	// unseen is as unknown is for Epoch; the records learn longer rounds.
	unseen = 4
)

// sample runs the trials of Adaptive over the blocks whose hash says so. Its
// memory is fixed; a use allocates nothing.
type sample struct {
	shift  uint  // one block of 1<<shift is sampled
	keep   int64 // bytes that each trial holds
	clock  uint64
	uses   int
	score  [modes]float64 // bytes hit lately
	span   span           // in sampled bytes
	trials [modes]segments

	recs  []record
	hand  int     // where the next record is reused
	heads []int32 // hash table over recs: index+1
}

// record is what is known of a sampled block.
type record struct {
	hash  uint64 // 0: not in use
	seen  uint64 // clock of its last use
	chain int32  // next in its bucket: index+1
	again bool   // used since the hand passed
	in    [modes]Entry
}

func (s *sample) init() {
	for m := range s.trials {
		s.trials[m].init()
		s.trials[m].freq.fit(2 * sampleLen)
	}
	s.keep = math.MaxInt64
	s.recs, s.heads = make([]record, sampleSeen), make([]int32, sampleSeen)
}

// wants reports whether a block is sampled.
func (s *sample) wants(h uint64) bool { return h>>40&(1<<s.shift-1) == 0 && h != 0 }

// resize follows the directory: n blocks, keep bytes.
func (s *sample) resize(n int, keep int64) {
	for n > sampleLen<<s.shift {
		s.shift++
		for i := range s.recs {
			if r := &s.recs[i]; r.hash != 0 && !s.wants(r.hash) {
				s.forget(int32(i))
			}
		}
	}
	for s.shift > 0 && n < sampleLen<<s.shift/4 {
		s.shift--
	}
	s.keep = keep >> s.shift
}

// use runs one use of a sampled block through the trials.
func (s *sample) use(id orca.BlockID, h uint64, size int64) {
	s.clock += uint64(size)
	r := s.find(h)
	if r == nil {
		r = s.reuse(h)
	} else {
		s.span.note(s.clock - r.seen)
	}
	r.seen, r.again = s.clock, true
	for m := range modes {
		e, t := &r.in[m], &s.trials[m]
		if e.Listed() {
			s.score[m] += float64(size)
			t.Touch(e, 0)
			continue
		}
		if size > s.keep/2 {
			continue
		}
		e.ID, e.Size, e.home = id, size, none
		t.Add(e, 0)
		for t.Bytes() > s.keep {
			if t.take(t.choose(m, s.keep, s.span.stale(unseen*min(s.keep, math.MaxInt64/unseen)))) == nil {
				break
			}
		}
	}
	if s.uses++; s.uses%scoreAge == 0 {
		for m := range s.score {
			s.score[m] /= 2
		}
	}
}

// best returns the mode to be in, coming from m.
func (s *sample) best(m mode) mode {
	if s.uses < scoreMin {
		return m
	}
	b := m
	for o, lead := range [modes]float64{frequency: better, rounds: better, recency: moving} {
		if s.score[o] > lead*s.score[m] && s.score[o] > s.score[b] {
			b = mode(o)
		}
	}
	return b
}

// stale is after how many bytes of use of the whole directory a pinned block
// is of yesterday.
func (s *sample) stale() uint64 {
	return s.span.stale(unseen*min(s.keep, math.MaxInt64/unseen)) << s.shift
}

func (s *sample) find(h uint64) *record {
	for i := s.heads[h%sampleSeen]; i != 0; i = s.recs[i-1].chain {
		if s.recs[i-1].hash == h {
			return &s.recs[i-1]
		}
	}
	return nil
}

// reuse makes the record of a block that was not seen before, of one that was
// not seen for long and is in no trial.
func (s *sample) reuse(h uint64) *record {
	for tries := 0; ; tries++ {
		i := s.hand
		r := &s.recs[i]
		s.hand = (s.hand + 1) % len(s.recs)
		held := false
		for m := range r.in {
			held = held || r.in[m].Listed()
		}
		if r.hash != 0 && (held || r.again) && tries < 2*sampleSeen {
			r.again = false
			continue
		}
		if r.hash != 0 {
			s.forget(int32(i))
		}
		*r = record{hash: h, chain: s.heads[h%sampleSeen]}
		s.heads[h%sampleSeen] = int32(i) + 1
		return r
	}
}

// forget ends a record.
func (s *sample) forget(i int32) {
	r := &s.recs[i]
	for m := range r.in {
		s.trials[m].Remove(&r.in[m])
	}
	p := &s.heads[r.hash%sampleSeen]
	for *p != i+1 {
		p = &s.recs[*p-1].chain
	}
	*p = r.chain
	*r = record{}
}

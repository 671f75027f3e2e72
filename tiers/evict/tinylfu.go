// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict

const (
	windowShare    = 0.01
	protectedShare = 0.8 // of the main segment
)

// segments is a window of newcomers before a main segment of two LRU lists,
// probation and protected, and what decides between them.
//
//	Add ─► window ─(admitted)─► probation ◄─► protected
//	         │ refused              │ gave way
//	         └──────► leaves ◄──────┘
type segments struct {
	window, probation, protected list

	freq  sketch
	clock uint64 // bytes used so far
}

func (s *segments) init() {
	s.window.init(small)
	s.probation.init(large)
	s.protected.init(protected)
	s.freq.fit(1)
}

func (s *segments) list(q queue) *list {
	switch q {
	case large:
		return &s.probation
	case protected:
		return &s.protected
	}
	return &s.window
}

// use counts a use of an entry.
func (s *segments) use(e *Entry) {
	s.clock += uint64(e.Size)
	e.seen = s.clock
	s.freq.add(hash(e.ID), s.Len())
}

// Add implements Policy.
func (s *segments) Add(e *Entry, _ uint64) {
	s.freq.fit(s.Len() + 1)
	switch e.home {
	case old:
		s.window.pushOldest(e)
		return
	case none:
		s.use(e)
	case moved:
		s.use(e)
		s.raise(e)
		e.home = large
	}
	s.list(e.home).push(e)
}

// raise makes an entry that comes from another directory, whose uses were
// counted there, one that is used more often than the first to leave.
func (s *segments) raise(e *Entry) {
	v, h := s.victim(), hash(e.ID)
	if v == nil {
		return
	}
	for n := s.freq.count(hash(v.ID)) + apart + 1 - s.freq.count(h); n > 0; n-- {
		s.freq.add(h, s.Len())
	}
}

// Touch implements Policy.
func (s *segments) Touch(e *Entry, _ uint64) {
	s.use(e)
	switch e.in {
	case small:
		s.window.front(e)
	case protected:
		s.protected.front(e)
	case large:
		s.probation.drop(e)
		s.protected.push(e)
		for limit := int64(protectedShare * float64(s.main())); s.protected.bytes > limit && s.protected.n > 1; {
			o := s.protected.oldest()
			s.protected.drop(o)
			s.probation.push(o)
		}
	}
}

// Remove implements Policy.
func (s *segments) Remove(e *Entry) {
	if e.in != none {
		s.list(e.in).drop(e)
	}
}

// Len implements Policy.
func (s *segments) Len() int { return s.window.n + s.probation.n + s.protected.n }

// Bytes implements Policy.
func (s *segments) Bytes() int64 { return s.window.bytes + s.main() }

func (s *segments) main() int64 { return s.probation.bytes + s.protected.bytes }

// victim is the first of the main segment to leave; nil when it is empty.
func (s *segments) victim() *Entry {
	if e := s.probation.oldest(); e != nil {
		return e
	}
	return s.protected.oldest()
}

// admit moves an entry from the window into the main segment.
func (s *segments) admit(e *Entry) {
	s.window.drop(e)
	s.probation.push(e)
}

// fill lets newcomers into the main segment as long as it has room, and
// returns the bytes that it may have.
func (s *segments) fill(keep int64, share float64) int64 {
	limit := keep - int64(share*float64(keep))
	for e := s.window.oldest(); e != nil && s.window.bytes > keep-limit && s.main()+e.Size <= limit; e = s.window.oldest() {
		s.admit(e)
	}
	return limit
}

// choice is what should leave, and the newcomer that takes its place in the
// main segment, if any.
type choice struct{ leaves, enters *Entry }

// take carries a choice out.
func (s *segments) take(c choice) *Entry {
	if c.enters != nil {
		s.admit(c.enters)
	}
	if c.leaves == nil {
		return nil
	}
	s.list(c.leaves.in).drop(c.leaves)
	return leave(c.leaves)
}

// frequent chooses by frequency: a newcomer enters the main segment when it
// was used more often lately than the block that would have to go.
func (s *segments) frequent(keep int64, share float64) choice {
	keep = max(keep, 0)
	limit := s.fill(keep, share)
	c, v := s.window.oldest(), s.victim()
	switch {
	case v == nil:
		return choice{leaves: c}
	case c == nil || s.window.bytes <= keep-limit || s.main() > limit:
		return choice{leaves: v}
	case s.freq.count(hash(c.ID)) > s.freq.count(hash(v.ID)):
		return choice{leaves: v, enters: c}
	}
	return choice{leaves: c}
}

// TinyLFU is W-TinyLFU: a window of one part in a hundred, and admission to
// the rest by frequency. Gil Einziger, Roy Friedman and Ben Manes, "TinyLFU: A
// Highly Efficient Cache Admission Policy", ACM Transactions on Storage
// 13(4), 2017.
type TinyLFU struct{ segments }

var _ Policy = (*TinyLFU)(nil)

// NewTinyLFU returns an empty TinyLFU.
func NewTinyLFU() *TinyLFU {
	p := &TinyLFU{}
	p.init()
	return p
}

// Next implements Policy.
func (p *TinyLFU) Next(_ uint64, keep int64) *Entry { return p.take(p.frequent(keep, windowShare)) }

// First implements Policy.
func (p *TinyLFU) First(_ uint64, keep int64) *Entry { return p.frequent(keep, windowShare).leaves }

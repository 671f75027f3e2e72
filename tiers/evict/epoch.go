// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict

// span is how far apart two uses of a block are at most, lately, in bytes of
// use of all blocks.
type span float64

const (
	// spanAge is how many nearer uses bring a span nearer by most of the way.
	spanAge = 4096
	// beyond is how many times the span a block is waited for.
	beyond = 1.25
)

func (s *span) note(d uint64) {
	if n := span(d); n > *s {
		*s = n
	} else {
		*s -= (*s - n) / spanAge
	}
}

// stale is after how many bytes of use a pinned block that nobody came back to
// gives way, at least least.
func (s span) stale(least int64) uint64 { return max(uint64(max(least, 0)), uint64(beyond*s)) }

// apart is how many uses more than a pinned block a newcomer must have had to
// take its place: within a round, what was read already has one more than what
// was not yet, and halving the counts in between may make that two.
const apart = 2

// unknown is how many times the directory is read before a block is stale,
// when no longer round is known.
const unknown = 8

// Epoch pins what it has: newcomers leave again, the oldest first, and what is
// in the main segment stays. It is for data sets that are read again and again
// as a whole, in any order (training in shuffled epochs, loops): each block is
// read once per round, so of a directory that holds the part c of the data no
// policy can find more than c again, and this one does, where LRU finds
// c+(1-c)ln(1-c) of shuffled epochs and nothing of a loop. The argument is in
// Jayashree Mohan et al., "Analyzing and Mitigating Data Stalls in DNN
// Training", VLDB 2021.
//
// A pinned block that has not been used for longer than the longest round, and
// while the directory was read several times over, belongs to a data set of
// yesterday and gives way to newcomers.
type Epoch struct {
	segments
	span span
}

var _ Policy = (*Epoch)(nil)

// NewEpoch returns an empty Epoch.
func NewEpoch() *Epoch {
	p := &Epoch{}
	p.init()
	return p
}

// Touch implements Policy.
func (p *Epoch) Touch(e *Entry, now uint64) {
	if e.home != none {
		p.span.note(p.clock - e.seen)
	}
	p.segments.Touch(e, now)
}

// Next implements Policy.
func (p *Epoch) Next(_ uint64, keep int64) *Entry {
	return p.take(p.pinned(keep, p.span.stale(unknown*keep)))
}

// First implements Policy.
func (p *Epoch) First(_ uint64, keep int64) *Entry {
	return p.pinned(keep, p.span.stale(unknown*keep)).leaves
}

// pinned chooses for rounds; a block of the main segment that has not been
// used for stale bytes gives way.
func (s *segments) pinned(keep int64, stale uint64) choice {
	keep = max(keep, 0)
	limit := s.fill(keep, windowShare)
	c, v := s.window.oldest(), s.victim()
	switch {
	case v == nil:
		return choice{leaves: c}
	case c == nil || s.main() > limit && s.window.bytes <= keep-limit:
		return choice{leaves: s.farthest(v)}
	case s.clock-v.seen > stale:
		if s.main()-v.Size+c.Size <= limit {
			return choice{leaves: v, enters: c}
		}
		return choice{leaves: v}
	case s.freq.count(hash(c.ID)) > s.freq.count(hash(v.ID))+apart:
		if s.main()-v.Size+c.Size > limit {
			return choice{leaves: v} // c stays where it is until there is room
		}
		return choice{leaves: v, enters: c}
	}
	return choice{leaves: c}
}

// inTurn is how many of the blocks used last are looked at for one that is
// used once a round.
const inTurn = 8

// farthest chooses when there is less room than before. Of what is read in
// rounds, the block that was used last is the one whose next use is farthest
// away. One that is used much more often than v, the first to leave otherwise,
// is not read in rounds: it may well be next.
func (s *segments) farthest(v *Entry) *Entry {
	often := s.freq.count(hash(v.ID)) + apart
	l := &s.protected
	if l.n == 0 {
		l = &s.probation
	}
	for e, n := l.root.next, 0; e != &l.root && n < inTurn; e, n = e.next, n+1 {
		if s.freq.count(hash(e.ID)) <= often {
			return e
		}
	}
	return v
}

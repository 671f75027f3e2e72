// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

// nameSet has the hashes of all names in a directory, each as often as there are
// names with it: so one that goes takes no other's away. A table of hashes with
// open addressing, at most 3/4 full: six to nine bytes for a name, a map has 35. nil
// has none.
type nameSet struct {
	slots []uint32 // 0: free
	n     int
}

const nameSetMin = 8

// newNameSet makes room for n names.
func newNameSet(n int) *nameSet {
	return &nameSet{slots: make([]uint32, max(n+n/3+1, nameSetMin))}
}

func (s *nameSet) len() int {
	if s == nil {
		return 0
	}
	return s.n
}

// home is where the search for a hash begins.
func (s *nameSet) home(h uint32) int { return int(uint64(h) * uint64(len(s.slots)) >> 32) }

func (s *nameSet) next(at int) int {
	if at++; at == len(s.slots) {
		return 0
	}
	return at
}

// find returns the slot of a hash, -1 if it is not there.
func (s *nameSet) find(h uint32) int {
	for at := s.home(h); s.slots[at] != 0; at = s.next(at) {
		if s.slots[at] == h {
			return at
		}
	}
	return -1
}

func (s *nameSet) has(h uint32) bool { return s != nil && s.find(h) >= 0 }

func (s *nameSet) add(h uint32) {
	if (s.n+1)*4 > len(s.slots)*3 {
		old := s.slots
		*s = *newNameSet(s.n + s.n/2 + 1)
		for _, h := range old {
			if h != 0 {
				s.enter(h)
			}
		}
	}
	s.enter(h)
}

func (s *nameSet) enter(h uint32) {
	at := s.home(h)
	for s.slots[at] != 0 {
		at = s.next(at)
	}
	s.slots[at] = h
	s.n++
}

// remove takes a hash away once, if it is there. What stands behind it and could
// not be found past a free slot moves up.
func (s *nameSet) remove(h uint32) {
	hole := s.find(h)
	if hole < 0 {
		return
	}
	s.n--
	size := len(s.slots)
	for at := s.next(hole); s.slots[at] != 0; at = s.next(at) {
		fromHome := (at - s.home(s.slots[at]) + size) % size
		if fromHome >= (at-hole+size)%size {
			s.slots[hole] = s.slots[at]
			hole = at
		}
	}
	s.slots[hole] = 0
}

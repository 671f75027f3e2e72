// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"orca"
	"orca/tiers/evict"
)

// Want says that the copies of a file here are among those that its bounds ask
// for, or not any more. Such a copy leaves for no watermark and for nothing that
// is merely cached, but a write that finds nothing else takes its room: it is
// somewhere else, too, or in the store below, and is made again. A restart
// forgets what is wanted.
func (s *Store) Want(file orca.Ino, wanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wanted {
		s.wanted[file] = true
	} else {
		delete(s.wanted, file)
	}
	for b := s.fileLocked(file); b != nil; b = b.fnext {
		if b.wanted != wanted {
			if b.Listed() {
				b.orderLocked().Remove(&b.Entry)
			}
			b.wanted = wanted
			s.rankLocked(b)
		}
	}
}

// orderLocked is the order in which a block of its kind leaves.
func (b *block) orderLocked() evict.Policy {
	if b.wanted {
		return b.at.wanted
	}
	return b.at.policy
}

// ask notes that somebody waits for n bytes, for a write or for something that
// is merely cached; Store.mu is held.
func (p *place) ask(n int64, write bool) {
	p.want, p.force = max(p.want, n), p.force || write
}

// askedLocked forgets who asked.
func (p *place) askedLocked() { p.want, p.force, p.shelter = 0, false, false }

// evictable is how many bytes can leave for a write, or for something that is
// merely cached; Store.mu is held.
func (p *place) evictable(write bool) int64 {
	n := p.listed + p.leaving
	if !write {
		n -= p.wanted.Bytes()
	}
	return n
}

// giveUpWantedLocked lets the wanted block leave that was not used for the
// longest time. It reports whether there was one.
func (s *Store) giveUpWantedLocked(p *place) bool {
	e := p.wanted.Next(s.now, 0)
	if e == nil {
		return false
	}
	b := s.blocks[e.ID]
	if b == nil || &b.Entry != e {
		return false // cannot be: a listed entry is in the map
	}
	s.evictLocked(b, Wanted)
	return true
}

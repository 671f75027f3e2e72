// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import "time"

// evictBatch is how many blocks leave per hold of the lock.
const evictBatch = 64

// run is the background: reap, evict, compact.
func (s *Store) run() {
	defer s.wg.Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-s.kick:
		case <-tick.C:
			s.compact()
			for _, p := range s.dirs() {
				p.Regain()
				if p.Healthy() {
					s.fault(p, p.Probe())
				}
			}
		}
		for again := true; again; {
			s.reapAll()
			again = false
			for _, p := range s.dirs() {
				again = s.relieve(p) || again
			}
			select {
			case <-s.done:
				return
			default:
			}
		}
	}
}

// excessLocked returns how many bytes a directory should lose, not counting
// what is leaving already.
func (s *Store) excessLocked(p *place) int64 {
	return s.cfg.Marks.Excess(p.Used()-p.leaving, p.Usable(), p.want)
}

// relieve lets blocks leave one directory, or the mover take them to a slower
// one when nobody waits; it reports whether any left.
func (s *Store) relieve(p *place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	urgent, why := p.want > 0, Watermark
	if urgent {
		why = Need
	}
	excess := s.excessLocked(p)
	if p.want > 0 && p.Free() >= p.want {
		p.askedLocked()
	}
	if excess <= 0 {
		return false
	}
	// The directory has become smaller than what is wanted.
	over := p.Used()-p.leaving > p.Usable() && !p.choosable()
	if !urgent && !over && s.lowerLocked(p) != nil {
		s.wakeMover()
		return false
	}
	var victims []*block
	for got := int64(0); got < excess && len(victims) < evictBatch && (urgent || got < 64<<20); {
		s.stirLocked(p)
		e := p.policy.Next(s.now, p.weighed()-(excess-got))
		if e == nil {
			break
		}
		b := s.blocks[e.ID]
		if b == nil || &b.Entry != e {
			continue // cannot be: a listed entry is in the map
		}
		b.chosen = true
		victims = append(victims, b)
		got += b.charged
	}
	for _, b := range victims {
		s.evictLocked(b, why)
	}
	got := len(victims) > 0
	if over && !got {
		got = s.giveUpWantedLocked(p)
	}
	if urgent && !got {
		got = s.hurryLocked(p)
	}
	return got
}

// hurryLocked is for who waits for room in a directory where nothing is left to
// choose: what is being copied elsewhere leaves now. It reports whether it did.
func (s *Store) hurryLocked(p *place) bool {
	b := p.moving
	if b != nil && (!b.mayLeave() || b.wanted && !p.force) {
		return false // its room returns with the next step of its copy
	}
	if b != nil {
		s.evictLocked(b, Need)
		return true
	}
	// Who has got his room meanwhile has not taken back that he asked.
	waits := p.shelter || p.waiting > 0
	if p.force && waits && p.Free()+p.leaving < p.want && s.giveUpWantedLocked(p) {
		return true
	}
	p.askedLocked() // nothing can leave: those who wait find out
	s.freedLocked()
	return false
}

// evictLocked lets a block leave unless it became wanted meanwhile.
func (s *Store) evictLocked(b *block, why Reason) {
	b.chosen = false
	if !b.mayLeave() {
		s.rankLocked(b)
		return
	}
	s.Metrics.Evicted.Add(1)
	s.Metrics.Evictions[b.at.Tier][why].Add(1)
	s.Metrics.EvictedBytes.Add(b.charged)
	s.leaveLocked(b, true)
}

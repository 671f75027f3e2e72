// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"hash/crc32"
	"os"
	"time"

	"orca"
	"orca/tiers/blockfile"
)

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
			for _, p := range s.places {
				p.Regain()
				if p.Healthy() {
					s.fault(p, p.Probe())
				}
			}
		}
		for again := true; again; {
			s.reapAll()
			again = false
			for _, p := range s.places {
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

// relieve lets blocks leave one directory; it reports whether any did.
func (s *Store) relieve(p *place) bool {
	s.mu.Lock()
	urgent, why := p.want > 0, Watermark
	if urgent {
		why = Need
	}
	excess := s.excessLocked(p)
	if p.want > 0 && p.Free() >= p.want {
		p.want = 0
	}
	if excess <= 0 {
		s.mu.Unlock()
		return false
	}
	var victims []*block
	for got := int64(0); got < excess && len(victims) < evictBatch && (urgent || got < 64<<20); {
		e := p.policy.Next(s.now, p.policy.Bytes()-(excess-got))
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
	lower := s.lowerLocked(p)
	if urgent || lower == nil {
		for _, b := range victims {
			s.evictLocked(b, why)
		}
		if len(victims) == 0 {
			p.want = 0 // nothing can leave: those who wait find out
			s.freedLocked()
		}
		s.mu.Unlock()
		return len(victims) > 0
	}
	s.mu.Unlock()
	for _, b := range victims {
		if !s.demote(b) {
			s.mu.Lock()
			s.evictLocked(b, why)
			s.mu.Unlock()
		}
	}
	return len(victims) > 0
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

// lowerLocked returns the slower directory that evicted blocks move to.
func (s *Store) lowerLocked(p *place) *place {
	if s.cfg.MoveRate < 0 {
		return nil
	}
	var best *place
	for _, o := range s.places {
		if o.Tier > p.Tier && o.Healthy() && (best == nil || o.Tier < best.Tier || o.Tier == best.Tier && o.Free() > best.Free()) {
			best = o
		}
	}
	return best
}

// demote copies a complete clean block to a slower directory, verifying it on
// the way, and lets the original leave. It reports false when the block has to
// be dropped instead: partial, no room below, somebody waits, or damaged.
func (s *Store) demote(b *block) bool {
	s.mu.Lock()
	to := s.lowerLocked(b.at)
	fits := int64(0)
	if to != nil {
		fits = int64(s.cfg.Marks.High * float64(to.Usable()))
		if s.lowerLocked(to) != nil {
			fits = to.Usable() // what is too much moves on
		}
	}
	if to == nil || b.have != nil || !b.mayLeave() || b.length > to.Capacity/2 || b.at.want > 0 ||
		to.Used()+b.length > fits || s.arriving[b.ID] > 0 || !s.takeForLocked(b, to) {
		s.mu.Unlock()
		if to != nil {
			s.makeRoomBelow(to, b.length)
		}
		return false
	}
	b.pins++
	s.arriving[b.ID]++ // the name is this copy's, until it is in the map or withdrawn
	s.mu.Unlock()
	moved := s.copyBlock(b, to)
	if moved {
		// The compaction of an index runs in this goroutine too: it cannot come
		// between the record and the block that it is of.
		to.Index.Append(blockfile.Record{Kind: blockfile.KindState, Flags: blockfile.FlagComplete, ID: b.ID, Length: b.length, Sums: b.sums})
		if err := to.Index.Flush(); err != nil {
			s.noteFlush(to, err)
			moved = false
			s.withdraw(b, to)
		}
	}
	s.mu.Lock()
	if moved && !b.mayLeave() {
		moved = false
		s.mu.Unlock()
		s.withdraw(b, to)
		s.mu.Lock()
	}
	s.arrivedLocked(b.ID)
	if moved {
		n := &block{length: b.length, at: to, sums: b.sums, n: b.n, cached: b.cached, charged: b.length, trusted: true, made: true, served: b.length}
		n.ID = b.ID
		s.leaveLocked(b, false)
		s.insertLocked(n)
		s.feed.add(n.ID)
		s.Metrics.Demoted.Add(1)
		s.Metrics.DemotedBytes.Add(n.length)
	} else {
		to.Return(b.length)
	}
	gone := b.gone
	s.mu.Unlock()
	s.unpin(b)
	return moved || gone
}

// withdraw takes back a copy that was made.
func (s *Store) withdraw(b *block, to *place) {
	s.forget(to, b)
	_ = to.Unlink(b.ID) // the sweep of the next start finds what stays
}

// takeForLocked takes the quota and the name for a block that moves.
func (s *Store) takeForLocked(b *block, to *place) bool {
	if !to.Take(b.length) {
		return false
	}
	if !s.takeNameLocked(b.ID, to) {
		to.Return(b.length)
		return false
	}
	return true
}

// makeRoomBelow asks for room in the slower directory, so that later blocks
// can move there.
func (s *Store) makeRoomBelow(to *place, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if float64(to.Used()+n) > s.cfg.Marks.High*float64(to.Capacity) && to.policy.Len() > 0 {
		to.want = max(to.want, to.Capacity-int64(s.cfg.Marks.Low*float64(to.Capacity)))
	}
}

// copyBlock copies a pinned block into another directory, and gives up as soon
// as somebody waits for room in its own.
func (s *Store) copyBlock(b *block, to *place) bool {
	src, _, err := s.prepare(b, 0, 0)
	if err != nil {
		return false
	}
	dst, err := to.Create(b.ID, b.length)
	if err != nil {
		s.fault(to, err)
		return false
	}
	defer dst.Close()
	buf := make([]byte, orca.GrainSize)
	begin := time.Now()
	for g := range b.sums {
		p := buf[:blockfile.GrainLen(b.length, g)]
		off := int64(g) * orca.GrainSize
		if _, err = s.cfg.Ops.ReadAt(src, p, off); err != nil {
			s.fault(b.at, err)
			break
		}
		if crc32.Checksum(p, blockfile.Castagnoli) != b.sums[g] {
			err = s.quarantine(b, g)
			break
		}
		if err = to.Write(dst, p, off); err != nil {
			s.fault(to, err)
			break
		}
		if g%paceGrains == paceGrains-1 && (s.unwanted(b) || !s.pace(begin, off, b)) {
			err = os.ErrDeadlineExceeded
			break
		}
	}
	if err != nil {
		_ = to.Unlink(b.ID)
		return false
	}
	return true
}

// paceGrains is how many grains are copied between two looks at the pace.
const paceGrains = 16

// pace waits until n bytes may have been moved since begin, in short steps, and
// reports false when the copy of the block is unwanted meanwhile.
func (s *Store) pace(begin time.Time, n int64, b *block) bool {
	due := begin.Add(time.Duration(float64(n) / float64(s.cfg.MoveRate) * float64(time.Second)))
	for {
		left := time.Until(due)
		if left <= 0 {
			return true
		}
		t := time.NewTimer(min(left, 20*time.Millisecond))
		select {
		case <-s.done:
			t.Stop()
			return false
		case <-t.C:
		}
		if s.unwanted(b) {
			return false
		}
	}
}

// unwanted reports that a copy of a block need not be finished: somebody waits
// for room where it is, or it has left, and perhaps is wanted anew.
func (s *Store) unwanted(b *block) bool {
	select {
	case <-s.done:
		return true
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return b.gone || b.at.want > 0
}

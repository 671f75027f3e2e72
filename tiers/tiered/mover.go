// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"os"
	"time"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/evict"
)

const (
	// hotMax is how many blocks wait for a verdict on their promotion; who finds
	// no place is looked at after its next use.
	hotMax = 64
	// hotUses is how many uses a block must be worth to move up, also where
	// there is room; coming is one, and coming back once is no reason.
	hotUses = 2.5
	// hotter is how many times the uses of what would leave a block must be
	// worth to take its place, and how many times those of its own time of
	// leaving to come back: what is about as hot stays where it is.
	hotter = 2
	// lookAgain is how many times the uses of its last verdict a block must be
	// worth for another one: who is read all the time, and stays, costs little.
	lookAgain = 1.25
	// reapWait bounds how long a promotion waits for the room of what has left
	// for it: readers may hold that.
	reapWait = time.Second
)

// wakeMover makes the mover look for work.
func (s *Store) wakeMover() {
	select {
	case s.moves <- struct{}{}:
	default:
	}
}

// moveLoop is the one goroutine that copies blocks between tiers: down what
// leaves a directory over its high mark, and, when there is none of these, up
// what is hot.
func (s *Store) moveLoop() {
	defer s.wg.Done()
	m := &mover{s: s, buf: make([]byte, orca.GrainSize)}
	for {
		select {
		case <-s.done:
			return
		case <-s.moves:
		}
		for m.one() {
			select {
			case <-s.done:
				return
			default:
			}
		}
	}
}

// mover is the state of moveLoop.
type mover struct {
	s   *Store
	buf []byte
	due time.Time // when the next bytes may be copied
	// force makes a copy one of a block that has to go: also of one that may
	// not leave, and whoever waits.
	force bool
}

// one makes one move; false: there is nothing to do.
func (m *mover) one() bool {
	for _, p := range m.s.dirs() {
		if m.unload(p) || m.drainOne(p) {
			return true
		}
	}
	return m.promoteOne()
}

// unload lets one block leave a directory that is over its high mark.
func (m *mover) unload(p *place) bool {
	s := m.s
	s.mu.Lock()
	excess := s.excessLocked(p)
	if excess <= 0 || p.want > 0 || s.lowerLocked(p) == nil {
		s.mu.Unlock()
		return false
	}
	b := s.chooseLocked(p, excess)
	s.mu.Unlock()
	if b == nil {
		return false
	}
	if !m.demote(b, false) {
		s.mu.Lock()
		s.evictLocked(b, Watermark)
		s.mu.Unlock()
	}
	return true
}

// chooseLocked takes out of the policy what leaves a directory first.
func (s *Store) chooseLocked(p *place, excess int64) *block {
	s.stirLocked(p)
	e := p.policy.Next(s.now, p.weighed()-excess)
	if e == nil {
		return nil
	}
	b := s.blocks[e.ID]
	if b == nil || &b.Entry != e {
		return nil // cannot be: a listed entry is in the map
	}
	b.chosen = true
	return b
}

// lowerLocked returns the slower directory that evicted blocks move to.
func (s *Store) lowerLocked(p *place) *place {
	if s.cfg.MoveRate < 0 {
		return nil
	}
	var best *place
	for _, o := range s.places {
		if o.Tier > p.Tier && o.Healthy() && !o.closing && (best == nil || o.Tier < best.Tier || o.Tier == best.Tier && o.Free() > best.Free()) {
			best = o
		}
	}
	return best
}

// demote moves a block that was chosen to a slower directory. It reports false
// when the block has to be dropped instead: partial, no room below, somebody
// waits, or damaged. swap says that it makes room for one that comes from
// below: then the lower directory may be filled to the brim meanwhile.
func (m *mover) demote(b *block, swap bool) bool {
	s := m.s
	s.mu.Lock()
	to := s.lowerLocked(b.at)
	if to == nil {
		s.mu.Unlock()
		return false
	}
	fits := s.mark(to, s.cfg.Marks.High)
	if swap || s.lowerLocked(to) != nil {
		fits = to.Usable() // what is too much moves on
	}
	if to.Used()+b.length > fits || b.at.want > 0 || !s.startMoveLocked(b, to, false) {
		s.mu.Unlock()
		s.makeRoomBelow(to, b.length)
		return false
	}
	s.mu.Unlock()
	moved, gone := m.move(b, to)
	if moved {
		s.Metrics.Demoted.Add(1)
		s.Metrics.DemotedBytes.Add(b.length)
	}
	return moved || gone
}

// makeRoomBelow asks for room in the slower directory, so that later blocks
// can move there.
func (s *Store) makeRoomBelow(to *place, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if to.Used()+n > s.mark(to, s.cfg.Marks.High) && to.choosable() {
		to.want = max(to.want, to.Usable()-s.mark(to, s.cfg.Marks.Low))
		s.wake()
	}
}

// startMoveLocked takes the quota and the name for a block that moves, and pins
// it, until move.
func (s *Store) startMoveLocked(b *block, to *place, force bool) bool {
	if b.have != nil || !b.mayLeave() && !force || b.length > to.Quota()/2 || s.arriving[b.ID] > 0 || !to.Take(b.length) {
		return false
	}
	if !s.takeNameLocked(b.ID, to) {
		to.Return(b.length)
		return false
	}
	b.pinLocked()
	b.at.moving = b
	s.arriving[b.ID]++ // the name is this copy's, until it is in the map or withdrawn
	return true
}

// move copies a block to a directory, verifying it on the way, and lets the
// original leave; gone says that it has left anyway. What startMoveLocked took
// is given back, or is the new block's.
func (m *mover) move(b *block, to *place) (moved, gone bool) {
	s := m.s
	begin := time.Now()
	s.mu.Lock()
	flags := b.flagsLocked()
	s.mu.Unlock()
	durable := flags&blockfile.FlagDirty != 0
	moved = m.copyBlock(b, to, durable)
	to.adopting.RLock() // a compaction would find it neither in the index nor in the table
	if moved {
		to.Index.Append(blockfile.Record{Kind: blockfile.KindState, Flags: flags, ID: b.ID, Length: b.length, Sums: b.sums})
		write := to.Index.Flush
		if durable {
			write = to.Index.Sync
		}
		if err := write(); err != nil {
			s.noteFlush(to, err)
			moved = false
			s.withdraw(b, to)
		}
	}
	s.mu.Lock()
	if may := b.mayLeave() || m.force && !b.gone && b.fillers == 0 && b.have == nil; moved && (!may || !to.Healthy()) {
		moved = false
		s.mu.Unlock()
		s.withdraw(b, to)
		s.mu.Lock()
	}
	s.arrivedLocked(b.ID)
	b.at.moving = nil
	gone = b.gone
	if moved {
		n := &block{length: b.length, at: to, sums: b.sums, n: b.n, cached: b.cached, charged: b.length,
			trusted: true, made: true, served: b.length, heat: b.heat, dirty: b.dirty}
		n.ID = b.ID
		if to.Tier < b.at.Tier {
			n.Moved(&b.Entry)
		} else {
			n.floor = b.heat.Times(hotter)
		}
		s.leaveLocked(b, false)
		s.insertLocked(n)
		if n.flagsLocked() != flags {
			s.flagLocked(n) // cleaned or pinned meanwhile
		}
		s.feed.add(n.ID)
		s.Metrics.MoveTime.Observe(time.Since(begin))
	} else {
		to.Return(b.length)
		s.freedLocked()
	}
	s.mu.Unlock()
	to.adopting.RUnlock()
	s.unpin(b)
	return moved, gone
}

// withdraw takes back a copy that was made.
func (s *Store) withdraw(b *block, to *place) {
	s.forget(to, b)
	_ = to.Unlink(b.ID) // the sweep of the next start finds what stays
}

// nominateLocked has a block looked at that was used again where there may be a
// faster tier for it. It allocates nothing: a hit calls it.
func (s *Store) nominateLocked(b *block) {
	if s.fastest >= b.at.Tier || b.hotly || len(s.hot) == hotMax || !s.deservesLocked(b) {
		return
	}
	b.hotly = true
	s.hot = append(s.hot, b)
	s.wakeMover()
}

// deservesLocked reports whether a block may move up, if there is a place.
func (s *Store) deservesLocked(b *block) bool {
	return b.have == nil && b.mayLeave() && !b.chosen && b.heat >= b.floor && b.heat.Uses(s.now) >= hotUses
}

// hottestLocked takes the hottest block out of those that wait for a verdict.
func (s *Store) hottestLocked() *block {
	best := -1
	for i, b := range s.hot {
		if best < 0 || b.heat > s.hot[best].heat {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	b, last := s.hot[best], len(s.hot)-1
	s.hot[best], s.hot[last] = s.hot[last], nil
	s.hot = s.hot[:last]
	b.hotly = false
	return b
}

// promoteOne looks at one block that was used again, and moves it up if it is
// worth that; false: there was none.
func (m *mover) promoteOne() bool {
	s := m.s
	s.mu.Lock()
	b := s.hottestLocked()
	s.mu.Unlock()
	if b == nil {
		return false
	}
	for tier := orca.MEM; tier < b.at.Tier; tier++ {
		for _, to := range s.dirs() {
			if to.Tier == tier && m.promote(b, to) {
				return true
			}
		}
	}
	s.mu.Lock()
	b.floor = max(b.floor, b.heat.Times(lookAgain))
	s.mu.Unlock()
	return true
}

// promote moves a block to a faster directory, where it has room, or where what
// would leave is much colder: that moves down first.
func (m *mover) promote(b *block, to *place) bool {
	s := m.s
	for deadline := time.Now().Add(reapWait); ; {
		s.mu.Lock()
		then := to.Used() - to.leaving + b.length
		need, full := then-s.mark(to, s.cfg.Marks.High), then > s.mark(to, s.cfg.Marks.Low)
		if !s.deservesLocked(b) || !to.Healthy() || to.closing || b.length > to.Quota()/2 || to.want > 0 || b.at.want > 0 {
			s.mu.Unlock()
			return false
		}
		if full && !s.outranksLocked(b.heat, to, need) {
			s.mu.Unlock()
			return false
		}
		if need <= 0 {
			if s.startMoveLocked(b, to, false) {
				s.mu.Unlock()
				moved, _ := m.move(b, to)
				if moved {
					s.Metrics.Promoted.Add(1)
					s.Metrics.PromotedBytes.Add(b.length)
				}
				return moved
			}
			freed := s.freed // of what has left, or its name
			s.mu.Unlock()
			s.wake()
			if !m.await(freed, time.Until(deadline)) {
				return false
			}
			continue
		}
		v := s.chooseLocked(to, need)
		s.mu.Unlock()
		if v == nil {
			return false
		}
		if !m.demote(v, true) {
			s.mu.Lock()
			v.chosen = false
			if !v.gone {
				v.Moved(&v.Entry) // stays
			}
			s.rankLocked(v)
			s.mu.Unlock()
			return false
		}
		deadline = time.Now().Add(reapWait)
	}
}

// outranksLocked reports whether something of this heat is worth much more than
// what would leave a directory first, when it needs room.
func (s *Store) outranksLocked(heat evict.Heat, p *place, need int64) bool {
	s.stirLocked(p)
	e := p.policy.First(s.now, p.weighed()-max(need, 0))
	if e == nil {
		return need <= 0 // nothing there may leave
	}
	v := s.blocks[e.ID]
	return v != nil && heat >= v.heat.Times(hotter)
}

// mark is a part of what fits a directory.
func (s *Store) mark(p *place, part float64) int64 { return int64(part * float64(p.Usable())) }

// await waits until ch is closed; false when that took longer than d.
func (m *mover) await(ch <-chan struct{}, d time.Duration) bool {
	if d <= 0 {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ch:
		return true
	case <-t.C:
	case <-m.s.done:
	}
	return false
}

// sleep waits in the mover; false when the store is closed.
func (m *mover) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.s.done:
		return false
	}
}

// errUnwanted ends a copy that nobody wants any more.
var errUnwanted = os.ErrDeadlineExceeded

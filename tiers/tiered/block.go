// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"sync"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/evict"
)

// block is one block of the store. All but the locks is GUARDED_BY(Store.mu);
// sums of grains that are present never change.
type block struct {
	evict.Entry
	length int64
	at     *place
	sums   []uint32
	have   blockfile.GrainSet // nil: every grain is present
	n      int                // grains present
	cached int64              // bytes present
	gen    uint64

	// checked are the grains verified since recovery, when not trusted.
	checked blockfile.GrainSet
	trusted bool

	dirty, pinned bool
	wanted        bool // leaves only for a write (wanted.go)
	made          bool // the file exists
	gone          bool // left the map
	unlinked      bool // its name is gone or belongs to another block now
	unlinking     bool
	hot           bool // used since the clock's hand passed
	listed        bool // in Store.open
	fillers       int32
	pins          int32
	charged       int64 // quota held

	counted int64 // bytes of it in place.listed
	chosen  bool  // the policy has given it up, and it is on its way out

	heat  evict.Heat
	floor evict.Heat // it must be so hot to be looked at for a faster tier
	hotly bool       // in Store.hot

	served int64 // bytes served since the last use that counted
	pos    int64 // where the last range that was served began

	file    *dir.File // read only, cached; nil: not open
	release func()    // unpin, made with file

	fnext, fprev *block // of the same file

	open sync.Mutex // held while file is opened or grains are verified
	fill sync.Mutex // held while grains are written

	windows []*window // disjoint; GUARDED_BY(fill)
}

// fileName names one block file of this worker.
type fileName struct {
	id orca.BlockID
	at *place
}

func (b *block) metaLocked() tiers.Meta {
	return tiers.Meta{ID: b.ID, Tier: b.at.Tier, Length: b.length, Cached: b.cached,
		Complete: b.have == nil, Dirty: b.dirty, Pinned: b.pinned}
}

func (b *block) flagsLocked() (f blockfile.Flags) {
	if b.have == nil {
		f |= blockfile.FlagComplete
	}
	if b.dirty {
		f |= blockfile.FlagDirty
	}
	if b.pinned {
		f |= blockfile.FlagPinned
	}
	return f
}

// runLocked returns the end of the present run of grains from g, in [g, end].
func (b *block) runLocked(g, end int) int {
	if b.have == nil {
		return end
	}
	return b.have.NextClear(g, end)
}

// insertLocked puts a block into the map, its file's list and its place.
func (s *Store) insertLocked(b *block) {
	s.addLocked(b)
	s.enterLocked(b)
}

// addLocked puts a block into the map and its file's list.
func (s *Store) addLocked(b *block) {
	s.blocks[b.ID] = b
	delete(s.spoilt, b.ID)
	linkTo(s.files, b)
}

// enterLocked gives a block its generation and its place.
func (s *Store) enterLocked(b *block) {
	s.gen++
	b.gen = s.gen
	b.pinned, b.wanted = s.pinned[b.ID.File], s.wanted[b.ID.File]
	if b.heat == 0 {
		b.heat = evict.Warm(s.now)
	}
	b.at.blocks++
	b.at.grains += int64(b.n)
	s.rankLocked(b)
}

// mayLeave reports whether the block may be evicted.
func (b *block) mayLeave() bool { return !b.gone && !b.dirty && !b.pinned && b.fillers == 0 }

// rankLocked makes the policy hold the block iff it may be evicted and has not
// been chosen already.
func (s *Store) rankLocked(b *block) {
	counted := int64(0)
	if b.mayLeave() {
		counted = b.charged
	}
	b.at.listed += counted - b.counted
	b.counted = counted
	switch may := b.mayLeave() && !b.chosen; {
	case may && !b.Listed():
		s.now++
		b.Size = b.charged
		b.orderLocked().Add(&b.Entry, s.now)
	case !may && b.Listed():
		b.orderLocked().Remove(&b.Entry)
	}
}

// useLocked notes that n bytes from off on are served. A reader takes a block
// in many ranges: what counts as a use is a pass over it, that is, a range that
// begins before the last one did, after half of what is there was served.
// Without this one slow scan would look like a hot block.
func (s *Store) useLocked(b *block, off, n int64) {
	b.hot = true
	if off <= b.pos && b.served >= b.cached/2 {
		b.served = 0
		s.now++
		b.orderLocked().Touch(&b.Entry, s.now)
		b.heat = b.heat.Used(s.now)
		s.nominateLocked(b)
	}
	b.pos = off
	b.served += n
}

// leaveLocked takes a block out of the map; its file is unlinked when no pin
// holds it. note puts it into the change feed and the index.
func (s *Store) leaveLocked(b *block, note bool) {
	if b.gone {
		return
	}
	b.gone = true
	s.rankLocked(b)
	if s.blocks[b.ID] == b {
		delete(s.blocks, b.ID)
	}
	unlink(s.files, b)
	b.at.blocks--
	b.at.grains -= int64(b.n)
	b.at.leaving += b.charged
	if b.n > 0 {
		b.at.Index.Append(blockfile.Record{Kind: blockfile.KindRemove, ID: b.ID, Length: b.length})
	}
	if note {
		s.feed.add(b.ID)
	}
	if !b.unlinked {
		s.leaving[fileName{b.ID, b.at}] = b
	}
	if b.pins == 0 {
		s.reap = append(s.reap, b)
		s.wake()
	}
}

// pinLocked keeps the file of a block from being unlinked, until unpin.
func (b *block) pinLocked() {
	b.pins++
	b.at.pins++
}

func (s *Store) unpin(b *block) {
	s.mu.Lock()
	b.pins--
	b.at.pins--
	if b.pins == 0 && b.gone {
		s.reap = append(s.reap, b)
		s.wake()
	}
	s.mu.Unlock()
}

// takeNameLocked makes the name of a block free for a new file: one that is
// still waiting for its pins loses it now (its readers keep the open file).
// It reports false while that file is just being made or unlinked, by name and
// without the lock: try again.
func (s *Store) takeNameLocked(id orca.BlockID, p *place) bool {
	old := s.leaving[fileName{id, p}]
	if old == nil {
		return true
	}
	if old.unlinking || !old.made {
		return false
	}
	old.unlinked = true
	delete(s.leaving, fileName{id, p})
	return true
}

// reapAll unlinks what has left and is not pinned, and returns its quota.
func (s *Store) reapAll() {
	for {
		s.mu.Lock()
		if len(s.reap) == 0 {
			s.reap = nil
			s.mu.Unlock()
			return
		}
		b := s.reap[0]
		s.reap = s.reap[1:]
		unlink := !b.unlinked
		b.unlinking = unlink
		f := b.file
		b.file = nil
		s.mu.Unlock()
		if f != nil {
			f.Close()
		}
		if unlink && b.at.Healthy() {
			if err := b.at.Unlink(b.ID); err != nil {
				s.fault(b.at, err)
			}
		}
		s.mu.Lock()
		if unlink {
			delete(s.leaving, fileName{b.ID, b.at})
		}
		b.at.leaving -= b.charged
		b.at.Return(b.charged)
		b.charged = 0
		s.freedLocked()
		s.mu.Unlock()
	}
}

// freedLocked wakes those who wait for room.
func (s *Store) freedLocked() {
	close(s.freed)
	s.freed = make(chan struct{})
}

// fault looks at an error of a directory, and takes the directory out when its
// medium has failed: clean blocks in it are gone, dirty ones stay listed, for
// they may still be readable.
func (s *Store) fault(p *place, err error) {
	if !p.Check(err) {
		return
	}
	s.Metrics.DirFailures.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.blocks {
		if b.at == p && !b.dirty {
			s.leaveLocked(b, true)
		}
	}
	s.dropDormantLocked(p)
	s.freedLocked()
}

// cacheLocked notes that a descriptor is open, and returns others to close.
func (s *Store) cacheLocked(b *block) (idle []*dir.File) {
	if !b.listed {
		b.listed = true
		s.open = append(s.open, b)
	}
	for tries := 0; len(s.open) > s.cfg.MaxOpen && tries < 2*s.cfg.MaxOpen+2; tries++ {
		s.hand %= len(s.open)
		o := s.open[s.hand]
		if o == b || o.pins > 0 || o.hot {
			o.hot = o.pins > 0
			s.hand++
			continue
		}
		if o.file != nil {
			idle = append(idle, o.file)
			o.file = nil
		}
		o.listed = false
		last := len(s.open) - 1
		s.open[s.hand] = s.open[last]
		s.open = s.open[:last]
	}
	s.Metrics.DescriptorsOpen.Store(int64(len(s.open)))
	return idle
}

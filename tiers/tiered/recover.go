// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"slices"
	"time"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/evict"
)

// openPlace opens one directory and takes over the blocks in its index. It
// runs before anything is concurrent.
func (s *Store) openPlace(c dir.Config) error {
	policy, err := evict.New(s.cfg.Policy)
	if err != nil {
		return err
	}
	p := &place{policy: policy, wanted: evict.NewLRU(), swept: make(chan struct{})}
	defer holdGC(expected(c.Path))()
	l, d, err := load(c, func(fn func(*blockfile.Record)) (*dir.Dir, error) { return dir.Open(c, s.cfg.Ops, s.log, fn) })
	if err != nil {
		return err
	}
	p.Dir = d
	if d.Found.Damaged > 0 || d.Found.Torn > 0 {
		s.Metrics.IndexDamage.Add(int64(d.Found.Damaged))
		s.log.Warn("block index repaired", "tier", c.Tier.String(), "dir", c.Path, "damaged", d.Found.Damaged, "torn", d.Found.Torn)
	}
	s.places = append(s.places, p)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range l.live {
		if s.recoverable(p, b) {
			s.mergeLocked(p, b)
		}
	}
	s.settleLocked(p, newDormant(l))
	return nil
}

// mergeLocked takes over a block of a further directory: of two copies the
// dirty one, else the larger one stays, unless its file is gone: it had moved.
func (s *Store) mergeLocked(p *place, b *block) {
	twin := s.blockLocked(b.ID)
	if twin != nil && (twin.dirty || twin.cached >= b.cached && !b.dirty && twin.at.Has(b.ID, twin.length)) {
		s.forget(p, b)
		return
	}
	if twin != nil {
		s.leaveLocked(twin, false)
	}
	s.addLocked(b)
	s.recoverLocked(p, b)
}

// recoverable completes what replay left open, and refuses a block that is
// gone: its file is removed by the sweep.
func (s *Store) recoverable(p *place, b *block) bool {
	b.at, b.made = p, true
	grains := len(b.sums)
	b.n, b.cached = grains, b.length
	if b.have != nil {
		b.n = b.have.Count()
		b.cached = int64(b.n) * orca.GrainSize
		if b.have.Has(grains - 1) {
			b.cached -= orca.GrainSize - blockfile.GrainLen(b.length, grains-1)
		}
		if b.n == grains {
			b.have = nil
		}
	}
	if b.dirty && !p.Has(b.ID, b.length) {
		s.log.Error("dirty block is missing", "block", b.ID.String(), "dir", p.Path)
		s.forget(p, b)
		return false
	}
	return true
}

// forget ends a block in its index alone.
func (s *Store) forget(p *place, b *block) {
	p.Index.Append(blockfile.Record{Kind: blockfile.KindRemove, ID: b.ID, Length: b.length})
}

// recoverLocked takes over one block that is in the maps; nothing in it is
// trusted yet.
func (s *Store) recoverLocked(p *place, b *block) {
	b.charged, b.served = b.cached, b.cached
	b.Old()
	p.Recovered(b.charged)
	if b.pinned {
		s.pinned[b.ID.File] = true
	}
	s.enterLocked(b)
}

// sweep removes block files that no index knows.
func (s *Store) sweep(p *place) {
	defer s.wg.Done()
	n := p.Sweep(s.done, func(id orca.BlockID) (release func(), ok bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.hasLocked(id, p) || s.leaving[fileName{id, p}] != nil || s.arriving[id] > 0 {
			return nil, false
		}
		s.arriving[id]++ // who brings the block waits until its old file is gone
		return func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.arrivedLocked(id)
		}, true
	})
	if n > 0 {
		s.Metrics.OrphansRemoved.Add(int64(n))
		s.log.Info("orphaned block files removed", "tier", p.Tier.String(), "dir", p.Path, "files", n)
	}
}

// flushLoop writes buffered index records.
func (s *Store) flushLoop() {
	defer s.wg.Done()
	tick := time.NewTicker(s.cfg.FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		_ = s.Flush() // noted
	}
}

// Flush implements tiers.Store.
func (s *Store) Flush() error {
	var first error
	for _, p := range s.dirs() {
		if !p.Healthy() {
			continue
		}
		err := p.Index.Flush()
		s.noteFlush(p, err)
		if first == nil {
			first = err
		}
	}
	return first
}

// noteFlush looks at the result of writing an index: a full disk is tried
// again, anything else takes the directory out.
func (s *Store) noteFlush(p *place, err error) {
	if err == nil {
		return
	}
	s.fault(p, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.lastFail == nil {
		p.lastFail = err
		s.log.Error("block index cannot be written", "dir", p.Path, "err", err)
	}
}

// compact rewrites indexes that consist of history for the most part.
func (s *Store) compact() {
	for _, p := range s.dirs() {
		s.mu.Lock()
		p.dormant.trim()
		live := blockfile.StateLen(0)*p.blocks + 4*p.grains
		s.mu.Unlock()
		if !p.Healthy() || !p.Index.Wasteful(live) {
			continue
		}
		p.compacting.Lock()
		err := p.Index.Compact(func(emit func(blockfile.Record)) { s.snapshot(p, emit) })
		p.compacting.Unlock()
		if err != nil {
			s.noteFlush(p, err)
			continue
		}
		s.Metrics.IndexCompacted.Add(1)
	}
}

// snapshot emits the state of every block of a directory, a few at a time.
func (s *Store) snapshot(p *place, emit func(blockfile.Record)) {
	// What is recorded since Compact was called is kept beside the snapshot;
	// what was recorded before must be in the table by now.
	p.adopting.Lock()
	s.mu.Lock()
	ids := make([]orca.BlockID, 0, p.blocks)
	for id, b := range s.blocks {
		if b.at == p {
			ids = append(ids, id)
		}
	}
	p.dormant.each(func(e *entry) { ids = append(ids, e.id()) })
	s.mu.Unlock()
	p.adopting.Unlock()
	slices.SortFunc(ids, compareIDs) // as the next start wants them
	for len(ids) > 0 {
		part := ids[:min(256, len(ids))]
		ids = ids[len(part):]
		s.mu.Lock()
		for _, id := range part {
			if b := s.blocks[id]; b != nil && b.at == p {
				emitRuns(b, emit)
			} else if i := p.dormant.find(id); i >= 0 {
				emit(p.dormant.record(&p.dormant.entries[i]))
			}
		}
		s.mu.Unlock()
	}
}

// emitRuns emits one record per present run of grains.
func emitRuns(b *block, emit func(blockfile.Record)) {
	n := len(b.sums)
	for g := 0; g < n; {
		if b.have != nil {
			if g = b.have.NextSet(g, n); g == n {
				return
			}
		}
		end := b.runLocked(g, n)
		emit(blockfile.Record{Kind: blockfile.KindState, Flags: b.flagsLocked(), ID: b.ID, Length: b.length, First: uint32(g), Sums: b.sums[g:end]})
		g = end
	}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"os"
	"path/filepath"
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
	p := &place{n: len(s.places), policy: policy}
	found := make(map[orca.BlockID]*block, expected(c.Path))
	d, err := dir.Open(c, s.cfg.Ops, s.log, func(r *blockfile.Record) { replay(found, r) })
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
	if len(s.blocks) == 0 {
		// The usual case: one large directory. Its map becomes the store's.
		s.blocks = found
		s.files = make(map[orca.Ino]*block, len(found))
		for id, b := range found {
			if !s.recoverable(p, b) {
				delete(found, id)
				continue
			}
			s.recoverLocked(p, b)
		}
		return nil
	}
	for id, b := range found {
		twin := s.blocks[id]
		if !s.recoverable(p, b) {
			continue
		}
		// Of two the first stays, unless its file is gone already: it had moved.
		if twin != nil && (twin.dirty || twin.cached >= b.cached && !b.dirty && twin.at.Has(id, twin.length)) {
			s.forget(p, b)
			continue
		}
		if twin != nil {
			s.leaveLocked(twin, false)
		}
		s.recoverLocked(p, b)
	}
	return nil
}

// expected estimates the number of blocks in an index from its length.
func expected(path string) int64 {
	st, err := os.Stat(filepath.Join(path, blockfile.IndexName))
	if err != nil {
		return 0
	}
	return min(st.Size()/blockfile.StateLen(2), 1<<25)
}

// replay applies one record to the blocks of one directory.
func replay(found map[orca.BlockID]*block, r *blockfile.Record) {
	if r.Kind == blockfile.KindRemove {
		delete(found, r.ID)
		return
	}
	b := found[r.ID]
	if b == nil {
		if len(r.Sums) == 0 {
			return // flags of a block whose grains were lost with damage
		}
		n := blockfile.Grains(r.Length)
		b = &block{length: r.Length, sums: make([]uint32, n)}
		if len(r.Sums) < n {
			b.have = blockfile.NewGrainSet(n)
		}
		b.ID = r.ID
		found[r.ID] = b
	}
	if b.length != r.Length {
		return
	}
	b.dirty = r.Flags&blockfile.FlagDirty != 0
	b.pinned = r.Flags&blockfile.FlagPinned != 0
	copy(b.sums[r.First:], r.Sums)
	if b.have != nil {
		b.have.AddRange(int(r.First), int(r.First)+len(r.Sums))
	}
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

// recoverLocked takes over one block; nothing in it is trusted yet.
func (s *Store) recoverLocked(p *place, b *block) {
	b.charged, b.served = b.cached, b.cached
	p.Recovered(b.charged)
	if b.pinned {
		s.pinned[b.ID.File] = true
	}
	s.insertLocked(b)
}

// sweep removes block files that no index knows.
func (s *Store) sweep(p *place) {
	defer s.wg.Done()
	n := p.Sweep(s.done, func(id orca.BlockID) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		b, l := s.blocks[id], s.leaving[fileName{id, p}]
		return b != nil && b.at == p || l != nil || s.arriving[id] > 0
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
		for _, p := range s.places {
			if p.Healthy() {
				s.noteFlush(p, p.Index.Flush())
			}
		}
	}
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
	for _, p := range s.places {
		s.mu.Lock()
		live := blockfile.StateLen(0)*p.blocks + 4*p.grains
		s.mu.Unlock()
		if !p.Healthy() || !p.Index.Wasteful(live) {
			continue
		}
		err := p.Index.Compact(func(emit func(blockfile.Record)) { s.snapshot(p, emit) })
		if err != nil {
			s.noteFlush(p, err)
			continue
		}
		s.Metrics.IndexCompacted.Add(1)
	}
}

// snapshot emits the state of every block of a directory, a few at a time.
func (s *Store) snapshot(p *place, emit func(blockfile.Record)) {
	s.mu.Lock()
	ids := make([]orca.BlockID, 0, p.blocks)
	for id, b := range s.blocks {
		if b.at == p {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	for len(ids) > 0 {
		part := ids[:min(256, len(ids))]
		ids = ids[len(part):]
		s.mu.Lock()
		for _, id := range part {
			if b := s.blocks[id]; b != nil && b.at == p {
				emitRuns(b, emit)
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

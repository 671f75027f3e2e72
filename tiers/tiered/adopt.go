// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"time"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
)

// Adopt implements tiers.Store.
func (s *Store) Adopt(ctx context.Context, r tiers.Room, a tiers.Adoption) error {
	const op = "tiered.Adopt"
	rm, ok := r.(*room)
	if !ok || rm.s != s {
		return orca.E(op, orca.Invalid, "room of another store")
	}
	p := rm.p
	if a.Length <= 0 || a.Length > blockfile.MaxLength || len(a.Sums) != blockfile.Grains(a.Length) {
		return &orca.Error{Op: op, Path: a.ID.String(), Kind: orca.Invalid, Msg: "length and sums do not belong together"}
	}
	if a.Length > p.Quota()/2 {
		s.Metrics.NoSpace.Add(1)
		return &orca.Error{Op: op, Path: a.ID.String(), Kind: orca.NoSpace, Msg: "block is larger than half of the tier directory"}
	}
	if err := rm.take(ctx, a.Length); err != nil {
		return err
	}
	if err := s.claimName(op, a.ID, p); err != nil {
		rm.put(a.Length)
		return err
	}
	b := &block{length: a.Length, at: p, sums: a.Sums, n: len(a.Sums), cached: a.Length, charged: a.Length,
		trusted: true, made: true, dirty: a.Dirty, served: a.Length}
	b.ID = a.ID
	err := s.withSpace(ctx, op, p, orca.GrainSize, true, func() error { return p.Adopt(a.ID, a.Path, a.Length, a.Dirty) })
	p.adopting.RLock()
	if err == nil {
		flags := blockfile.FlagComplete
		if a.Dirty {
			flags |= blockfile.FlagDirty
		}
		p.Index.Append(blockfile.Record{Kind: blockfile.KindState, Flags: flags, ID: a.ID, Length: a.Length, Sums: a.Sums})
		if a.Dirty {
			err = p.Index.Sync()
		}
	}
	if err != nil {
		_ = p.Unlink(a.ID) // before the name is given back
	}
	s.mu.Lock()
	s.arrivedLocked(a.ID)
	if err == nil {
		s.insertLocked(b)
		if b.pinned {
			s.flagLocked(b)
		}
		s.feed.add(b.ID)
		s.excessWakeLocked(p)
		s.Metrics.Adopted.Add(1)
		s.Metrics.FilledBytes.Add(a.Length)
	}
	s.mu.Unlock()
	p.adopting.RUnlock()
	if err != nil {
		rm.put(a.Length)
		s.fault(p, err)
		return err
	}
	return nil
}

// claimName makes sure that no block of this id is there, and that none comes
// and the sweep leaves a file of this name alone, until arrivedLocked. A partial
// block gives way to the complete one. Exists when a complete one is there.
func (s *Store) claimName(op string, id orca.BlockID, p *place) error {
	for {
		s.mu.Lock()
		if s.arriving[id] == 0 {
			old := s.blockLocked(id)
			if old != nil && (old.have == nil || old.dirty) {
				s.mu.Unlock()
				return &orca.Error{Op: op, Path: id.String(), Kind: orca.Exists, Msg: "block is cached already"}
			}
			if old != nil {
				s.leaveLocked(old, false)
			}
			if s.takeNameLocked(id, p) {
				s.arriving[id]++
				s.mu.Unlock()
				return nil
			}
		}
		s.mu.Unlock()
		time.Sleep(time.Millisecond) // its file is being made or unlinked, or another one arrives
	}
}

// arrivedLocked ends what claimName began, when the block is in the map or will
// not come.
func (s *Store) arrivedLocked(id orca.BlockID) {
	if s.arriving[id]--; s.arriving[id] == 0 {
		delete(s.arriving, id)
	}
}

// flagLocked writes the flags of a block to its index.
func (s *Store) flagLocked(b *block) {
	if b.n > 0 && !b.gone {
		b.at.Index.Append(blockfile.Record{Kind: blockfile.KindState, Flags: b.flagsLocked(), ID: b.ID, Length: b.length})
	}
}

// Clean implements tiers.Store.
func (s *Store) Clean(id orca.BlockID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blockLocked(id)
	if b == nil {
		return notFound("tiered.Clean", id)
	}
	if !b.dirty {
		return nil
	}
	b.dirty = false
	if b.have != nil {
		s.leaveLocked(b, true) // damaged, and now there is a source to read it from
		return nil
	}
	s.flagLocked(b)
	s.rankLocked(b)
	s.feed.add(id)
	return nil
}

// Pin implements tiers.Store.
func (s *Store) Pin(file orca.Ino, pinned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pinned {
		s.pinned[file] = true
	} else {
		delete(s.pinned, file)
	}
	for b := s.fileLocked(file); b != nil; b = b.fnext {
		if b.pinned != pinned {
			b.pinned = pinned
			s.flagLocked(b)
			s.rankLocked(b)
		}
	}
}

// Remove implements tiers.Store.
func (s *Store) Remove(id orca.BlockID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blockLocked(id)
	if b == nil {
		return notFound("tiered.Remove", id)
	}
	s.leaveLocked(b, true)
	s.Metrics.Removed.Add(1)
	return nil
}

// RemoveFile implements tiers.Store.
func (s *Store) RemoveFile(file orca.Ino, keep uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for b := s.fileLocked(file); b != nil; {
		next := b.fnext
		if keep == 0 || b.ID.Version < keep {
			s.leaveLocked(b, true)
			s.Metrics.Removed.Add(1)
		}
		b = next
	}
	if keep == 0 {
		delete(s.pinned, file)
		delete(s.wanted, file)
	}
}

// DropClean implements tiers.Store.
func (s *Store) DropClean(file orca.Ino) { s.dropClean(file, 0) }

// DropFile removes the blocks of one version of a file, but for dirty ones.
func (s *Store) DropFile(file orca.Ino, version uint32) { s.dropClean(file, version) }

// dropClean removes the clean blocks of one version of a file, or of all (0).
func (s *Store) dropClean(file orca.Ino, version uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for b := s.fileLocked(file); b != nil; {
		next := b.fnext
		if !b.dirty && (version == 0 || b.ID.Version == version) {
			s.leaveLocked(b, true)
			s.Metrics.Removed.Add(1)
		}
		b = next
	}
}

// CleanFile marks the blocks of one version of a file as persisted.
func (s *Store) CleanFile(file orca.Ino, version uint32) {
	s.mu.Lock()
	var ids []orca.BlockID
	for b := s.fileLocked(file); b != nil; b = b.fnext {
		if b.dirty && b.ID.Version == version {
			ids = append(ids, b.ID)
		}
	}
	s.mu.Unlock()
	for _, id := range ids {
		_ = s.Clean(id) // gone meanwhile is as good
	}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"time"

	"orca"
	"orca/dataplane"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
)

// verifyChunk is how many grains one Get verifies at most (4 MiB).
const verifyChunk = 64

// Get implements tiers.Store. A hit on an open, trusted block allocates
// nothing and makes no system call.
func (s *Store) Get(id orca.BlockID, off, n int64) (dataplane.Extent, error) {
	const op = "tiered.Get"
	s.mu.Lock()
	b := s.blockLocked(id)
	if b == nil {
		s.mu.Unlock()
		s.Metrics.Misses.Add(1)
		return dataplane.Extent{}, errAbsent
	}
	if off < 0 || n <= 0 || off >= b.length {
		s.mu.Unlock()
		return dataplane.Extent{}, &orca.Error{Op: op, Path: id.String(), Kind: orca.Invalid, Msg: "range outside of the block"}
	}
	first := int(off / orca.GrainSize)
	end := b.runLocked(first, blockfile.Grains(min(off+n, b.length)))
	if end == first {
		dirty := b.dirty
		s.mu.Unlock()
		s.Metrics.Misses.Add(1)
		if dirty {
			return dataplane.Extent{}, &orca.Error{Op: op, Path: id.String(), Kind: orca.Corrupt, Msg: "a grain of the only copy is damaged"}
		}
		return dataplane.Extent{}, errAbsent
	}
	b.pinLocked()
	s.useLocked(b, off, min(n, min(int64(end)*orca.GrainSize, b.length)-off))
	ready := b.trusted && b.file != nil
	f, release, gen := b.file, b.release, b.gen
	s.mu.Unlock()
	if !ready {
		if end > first+verifyChunk {
			end = first + verifyChunk
		}
		var err error
		if f, release, err = s.prepare(b, first, end); err != nil {
			s.unpin(b)
			return dataplane.Extent{}, err
		}
	}
	if b.at.Encrypted() {
		return s.decrypt(b, f, off, n, end)
	}
	got := min(n, min(int64(end)*orca.GrainSize, b.length)-off)
	s.Metrics.Hits[b.at.Tier][Extents].Add(1)
	s.Metrics.HitBytes[b.at.Tier].Add(got)
	last := blockfile.Grains(off + got)
	return dataplane.Extent{File: f.File, Off: off, N: got, Sums: b.sums[first:last:last],
		SumOff: int64(first) * orca.GrainSize, Generation: gen, Release: release}, nil
}

// Held implements tiers.Store.
func (s *Store) Held(id orca.BlockID, off, n int64) (dataplane.Extent, bool) {
	s.mu.Lock()
	b := s.blocks[id]
	if b == nil || off < 0 || n <= 0 || off >= b.length || !b.trusted || b.file == nil || b.at.Encrypted() {
		s.mu.Unlock()
		return dataplane.Extent{}, false
	}
	first := int(off / orca.GrainSize)
	end := b.runLocked(first, blockfile.Grains(min(off+n, b.length)))
	if end == first {
		s.mu.Unlock()
		return dataplane.Extent{}, false
	}
	got := min(n, min(int64(end)*orca.GrainSize, b.length)-off)
	b.pins++
	s.useLocked(b, off, got)
	f, release, gen := b.file, b.release, b.gen
	s.mu.Unlock()
	s.Metrics.Hits[b.at.Tier][Extents].Add(1)
	s.Metrics.HitBytes[b.at.Tier].Add(got)
	return dataplane.Extent{File: f.File, Off: off, N: got, Sums: b.sums[first:end:end],
		SumOff: int64(first) * orca.GrainSize, Generation: gen, Release: release}, true
}

// InMemory reports whether a block is here and its extents are decrypted ones.
func (s *Store) InMemory(id orca.BlockID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blocks[id]
	return b != nil && b.at.Encrypted()
}

// errAbsent is made once: a miss is no exception.
var errAbsent error = &orca.Error{Op: "tiered.Get", Kind: orca.NotFound, Msg: "not cached here"}

// errEncrypted is made once: the reader asks for ranges instead.
var errEncrypted error = &orca.Error{Op: "tiered.Descriptor", Kind: orca.Unsupported, Msg: "the block is encrypted in its directory"}

// decrypt is the rest of Get for a pinned block of an encrypted directory, of
// which grains up to end are present and verified: at most dir.MaxUnit bytes of
// them, in memory. The block need not stay for them.
func (s *Store) decrypt(b *block, f *dir.File, off, n int64, end int) (dataplane.Extent, error) {
	defer s.unpin(b)
	first := int(off / orca.GrainSize)
	start := int64(first) * orca.GrainSize
	end = min(end, first+dir.MaxUnit/orca.GrainSize)
	size := min(int64(end)*orca.GrainSize, b.length) - start
	if err := s.enterClear(); err != nil {
		return dataplane.Extent{}, err
	}
	c, bad, err := b.at.Decrypt(f, start, int(size))
	if err != nil {
		<-s.clear
	}
	if bad >= 0 {
		return dataplane.Extent{}, s.quarantine(b, bad)
	}
	if err != nil {
		return dataplane.Extent{}, s.lost(b, err)
	}
	got := min(n, start+size-off)
	s.Metrics.Hits[b.at.Tier][Decrypted].Add(1)
	s.Metrics.HitBytes[b.at.Tier].Add(got)
	last := blockfile.Grains(off + got)
	return dataplane.Extent{Data: c.Bytes[off-start : off-start+got], Off: off, N: got, Sums: b.sums[first:last:last],
		SumOff: start, Release: func() { c.Release(); <-s.clear }}, nil
}

// enterClear waits for the right to have one more extent in memory: readers that
// are slow must not fill it.
func (s *Store) enterClear() error {
	select {
	case s.clear <- struct{}{}:
		return nil
	default:
	}
	late := time.NewTimer(s.cfg.RoomWait)
	defer late.Stop()
	select {
	case s.clear <- struct{}{}:
		return nil
	case <-late.C:
		return orca.E("tiered.Get", orca.Busy, "too much of encrypted blocks is in memory, waiting for its readers")
	}
}

// prepare opens the file of a pinned block and verifies grains [first, end)
// as far as that has not been done. On failure the block is quarantined.
func (s *Store) prepare(b *block, first, end int) (*dir.File, func(), error) {
	b.open.Lock()
	defer b.open.Unlock()
	f, release, err := s.openLocked(b)
	if err != nil {
		return nil, nil, s.lost(b, err)
	}
	var todo []int
	s.mu.Lock()
	if !b.trusted {
		if b.checked == nil {
			b.checked = blockfile.NewGrainSet(blockfile.Grains(b.length))
		}
		for g := b.checked.NextClear(first, end); g < end; g = b.checked.NextClear(g+1, end) {
			todo = append(todo, g)
		}
	}
	s.mu.Unlock()
	buf := make([]byte, 0)
	for _, g := range todo {
		size := int(blockfile.GrainLen(b.length, g))
		if cap(buf) < size {
			buf = make([]byte, size)
		}
		got, spoilt, err := b.at.Read(f, buf[:size], int64(g)*orca.GrainSize)
		if err != nil && err != io.EOF {
			return nil, nil, s.lost(b, blockfile.Fail("tiered.Get", f.Name(), err))
		}
		if got < size || len(spoilt) > 0 || crc32.Checksum(buf[:size], blockfile.Castagnoli) != b.sums[g] {
			return nil, nil, s.quarantine(b, g)
		}
	}
	s.Metrics.VerifiedGrains.Add(int64(len(todo)))
	s.mu.Lock()
	defer s.mu.Unlock()
	if !b.trusted && b.checked != nil { // nil: to be rechecked since
		for _, g := range todo {
			b.checked.Add(g)
		}
		if len(todo) > 0 && b.checked.Count() == b.n {
			b.trusted, b.checked = true, nil
		}
	}
	return f, release, nil
}

// openLocked returns the cached descriptor or opens it; b.open is held.
func (s *Store) openLocked(b *block) (*dir.File, func(), error) {
	s.mu.Lock()
	f, release := b.file, b.release
	s.mu.Unlock()
	if f != nil {
		return f, release, nil
	}
	f, err := b.at.OpenBlock(b.ID, b.length, false)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	if b.unlinked {
		// The block has left and its name went to a new one, whose file this
		// may be: what is not written there yet would be served as ours.
		s.mu.Unlock()
		f.Close()
		return nil, nil, errAbsent
	}
	if b.release == nil {
		b.release = func() { s.unpin(b) }
	}
	b.file = f
	idle := s.cacheLocked(b)
	release = b.release
	s.mu.Unlock()
	for _, i := range idle {
		i.Close()
	}
	return f, release, nil
}

// lost handles a block whose file cannot be opened or read.
func (s *Store) lost(b *block, err error) error {
	if k := orca.KindOf(err); k == orca.Busy {
		return err
	}
	s.fault(b.at, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.gone {
		return errAbsent // evicted meanwhile
	}
	missing := orca.KindOf(err) == orca.NotFound
	if b.dirty && !missing {
		return err
	}
	if !missing {
		s.Metrics.Quarantined.Add(1)
	}
	s.log.Error("block lost", "block", b.ID.String(), "tier", b.at.Tier.String(), "dir", b.at.Path, "err", err)
	s.leaveLocked(b, true)
	return errAbsent
}

// quarantine handles a grain whose sum does not hold.
func (s *Store) quarantine(b *block, g int) error {
	s.Metrics.CorruptGrains.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.gone {
		return errAbsent
	}
	s.log.Error("corrupt grain", "block", b.ID.String(), "grain", g, "tier", b.at.Tier.String(), "dir", b.at.Path, "dirty", b.dirty)
	if !b.dirty {
		s.Metrics.Quarantined.Add(1)
		s.leaveLocked(b, true)
		s.spoilLocked(b.ID)
		return errAbsent
	}
	if b.have == nil {
		b.have = blockfile.NewGrainSet(blockfile.Grains(b.length))
		b.have.AddRange(0, blockfile.Grains(b.length))
	}
	if b.have.Has(g) {
		b.have.Drop(g)
		b.n--
		b.at.grains--
		b.cached -= blockfile.GrainLen(b.length, g)
		s.feed.add(b.ID)
	}
	return &orca.Error{Op: "tiered.Get", Path: b.ID.String(), Kind: orca.Corrupt, Msg: "a grain of the only copy is damaged"}
}

// spoiltMax bounds how many quarantined blocks are remembered.
const spoiltMax = 4096

// spoilLocked remembers that the file that readers may hold descriptors of is
// bad, until the block is here again.
func (s *Store) spoilLocked(id orca.BlockID) {
	if len(s.spoilt) >= spoiltMax {
		clear(s.spoilt) // who asks then learns that the block is absent
	}
	s.spoilt[id] = true
}

// Recheck implements tiers.Store.
func (s *Store) Recheck(id orca.BlockID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blockLocked(id)
	if b == nil {
		return notFound("tiered.Recheck", id)
	}
	b.trusted, b.checked = false, nil
	return nil
}

// Share re-opens the file of a block that may be partial, read only. What may
// be read of it is what extents of the same generation cover: a block file is
// unlinked when its block leaves, never changed. NotFound.
func (s *Store) Share(id orca.BlockID) (*os.File, int64, uint64, error) {
	const op = "tiered.Share"
	s.mu.Lock()
	b := s.blockLocked(id)
	if b == nil || !b.made {
		s.mu.Unlock()
		return nil, 0, 0, notFound(op, id)
	}
	if b.at.Encrypted() {
		s.mu.Unlock()
		return nil, 0, 0, errEncrypted
	}
	b.pinLocked()
	s.mu.Unlock()
	defer s.unpin(b)
	f, _, err := s.prepare(b, 0, 0)
	if err != nil {
		return nil, 0, 0, err
	}
	r, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDONLY, 0)
	if err != nil {
		return nil, 0, 0, blockfile.Fail(op, f.Name(), err)
	}
	return r, b.length, b.gen, nil
}

// Descriptor implements tiers.Store: every grain has been verified once in
// the life of this process before a descriptor leaves it.
func (s *Store) Descriptor(ctx context.Context, id orca.BlockID) (*os.File, int64, uint64, error) {
	const op = "tiered.Descriptor"
	s.mu.Lock()
	b := s.blockLocked(id)
	if b == nil {
		spoilt := s.spoilt[id]
		s.mu.Unlock()
		if spoilt {
			return nil, 0, 0, &orca.Error{Op: op, Path: id.String(), Kind: orca.Corrupt, Msg: "a grain was damaged: read it through the worker"}
		}
		return nil, 0, 0, notFound(op, id)
	}
	if b.have != nil {
		s.mu.Unlock()
		return nil, 0, 0, &orca.Error{Op: op, Path: id.String(), Kind: orca.Unsupported, Msg: "block is partial"}
	}
	if b.at.Encrypted() {
		s.mu.Unlock()
		return nil, 0, 0, errEncrypted
	}
	b.pinLocked()
	s.useLocked(b, 0, b.length)
	trusted, f, gen := b.trusted, b.file, b.gen
	s.mu.Unlock()
	defer s.unpin(b)
	grains := blockfile.Grains(b.length)
	for first := 0; first < grains && (!trusted || f == nil); first += verifyChunk {
		if err := ctx.Err(); err != nil {
			return nil, 0, 0, orca.PathE(op, id.String(), orca.Canceled, err)
		}
		var err error
		if f, _, err = s.prepare(b, first, min(first+verifyChunk, grains)); err != nil {
			return nil, 0, 0, err
		}
		s.mu.Lock()
		trusted = b.trusted
		s.mu.Unlock()
	}
	r, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDONLY, 0)
	if err != nil {
		return nil, 0, 0, blockfile.Fail(op, f.Name(), err)
	}
	s.Metrics.Hits[b.at.Tier][Descriptors].Add(1)
	return r, b.length, gen, nil
}

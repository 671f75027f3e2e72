// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"hash/crc32"
	"io"
	"slices"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
)

// BlocksIn returns the blocks whose files are in the nth of blockfile.Folders,
// over all directories.
func (s *Store) BlocksIn(folder int) (ids []orca.BlockID) {
	for _, p := range s.dirs() {
		if !p.Healthy() {
			continue
		}
		found := p.Blocks(folder)
		s.mu.Lock()
		for _, id := range found {
			if s.hasLocked(id, p) {
				ids = append(ids, id)
			}
		}
		s.mu.Unlock()
	}
	return ids
}

// Traffic counts the bytes that the store has served and taken in: who reads
// in the background gives way while it grows.
func (s *Store) Traffic() int64 {
	n := s.Metrics.FilledBytes.Load()
	for t := range s.Metrics.HitBytes {
		n += s.Metrics.HitBytes[t].Load()
	}
	return n
}

// check implements tiers.Check.
type check struct {
	s    *Store
	b    *block
	f    *dir.File
	next int // grain
}

// Check begins to verify a block. NotFound when it is not here.
func (s *Store) Check(id orca.BlockID) (tiers.Check, error) {
	const op = "tiered.Check"
	s.mu.Lock()
	b := s.blockLocked(id)
	made := b != nil && b.made
	s.mu.Unlock()
	if !made {
		return nil, notFound(op, id)
	}
	f, err := b.at.OpenDirect(id, b.length)
	s.mu.Lock()
	still := s.blocks[id] == b // then the file opened by name is its file
	s.mu.Unlock()
	if err != nil {
		if still {
			err = s.lost(b, err)
		}
		return nil, err
	}
	if !still {
		f.Close()
		return nil, notFound(op, id)
	}
	return &check{s: s, b: b, f: f}, nil
}

// Dirty implements tiers.Check.
func (c *check) Dirty() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.b.dirty
}

// Close implements tiers.Check.
func (c *check) Close() { c.f.Close() }

// Next implements tiers.Check.
func (c *check) Next(buf []byte) (int64, int, error) {
	first, end := c.run(len(buf) / orca.GrainSize)
	if first == end {
		return 0, 0, io.EOF
	}
	c.next = end
	off := int64(first) * orca.GrainSize
	want := min(int64(end)*orca.GrainSize, c.b.length) - off
	// The length asked for is whole grains: past the page cache only whole
	// sectors can be read, and the file ends where it ends.
	got, spoilt, err := c.b.at.Read(c.f, buf[:(end-first)*orca.GrainSize], off)
	if err != nil && err != io.EOF && int64(got) < want {
		return 0, 0, c.s.lost(c.b, blockfile.Fail("tiered.Check", c.f.Name(), err))
	}
	bad := 0
	for g := first; g < end; g++ {
		at := int64(g-first) * orca.GrainSize
		size := blockfile.GrainLen(c.b.length, g)
		if at+size <= int64(got) && !slices.Contains(spoilt, g) && crc32.Checksum(buf[at:at+size], blockfile.Castagnoli) == c.b.sums[g] {
			continue
		}
		if c.gone() {
			break
		}
		bad++
		_ = c.s.quarantine(c.b, g) // a clean block leaves with its first bad grain
	}
	c.s.Metrics.ScrubbedBytes.Add(want)
	return want, bad, nil
}

// run returns the next present grains, at most n; none when the block has left
// or ends.
func (c *check) run(n int) (first, end int) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	all := blockfile.Grains(c.b.length)
	if c.b.gone || c.next >= all {
		return all, all
	}
	first = c.next
	if c.b.have != nil {
		first = c.b.have.NextSet(first, all)
	}
	return first, c.b.runLocked(first, min(all, first+n))
}

func (c *check) gone() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.b.gone
}

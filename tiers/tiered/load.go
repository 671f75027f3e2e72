// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"cmp"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
)

// manyBlocks is from how many on the collector is held back while loading.
const manyBlocks = 100_000

// loader takes the blocks of one directory out of its index. There may be
// millions: what costs is the memory that is touched for each of them, so there
// is no map and no object per block, only a list of small records:
//
//	index ─► one entry per record, in the order of the log ─► sorted by block ─► folded
//
// What is in the end a complete, clean block, as nearly all are, stays an entry
// (dormant); the others become blocks of the store.
type loader struct {
	entries []entry
	sums    sumStore
	ordered int      // entries[:ordered] came in the order of sort
	live    []*block // by fold
}

// entry is one record of an index, or the whole of a dormant block.
type entry struct {
	file    orca.Ino
	version uint32
	index   uint32
	shape   uint64 // length of the block, flags and kind of the record; 0: awake
	sums    uint64 // where the sums are in a sumStore
	count   uint32 // of sums
	first   uint32 // grain that they start at
}

func (e *entry) id() orca.BlockID {
	return orca.BlockID{File: e.file, Version: e.version, Index: e.index}
}
func (e *entry) length() int64          { return int64(e.shape >> 16) }
func (e *entry) flags() blockfile.Flags { return blockfile.Flags(e.shape >> 8) }
func (e *entry) kind() blockfile.Kind   { return blockfile.Kind(e.shape) }

// whole reports whether the record alone is a complete block that may leave.
func (e *entry) whole() bool {
	return e.kind() == blockfile.KindState && e.flags()&(blockfile.FlagDirty|blockfile.FlagPinned) == 0 &&
		int(e.count) == blockfile.Grains(e.length())
}

// compareIDs orders blocks; those of a file, and of a version of it, are together.
func compareIDs(a, b orca.BlockID) int {
	switch {
	case a.File != b.File:
		return cmp.Compare(a.File, b.File)
	case a.Version != b.Version:
		return cmp.Compare(a.Version, b.Version)
	}
	return cmp.Compare(a.Index, b.Index)
}

// compareEntries orders by block, and the records of a block as they came.
func compareEntries(a, b entry) int {
	switch {
	case a.file != b.file:
		return cmp.Compare(a.file, b.file)
	case a.version != b.version:
		return cmp.Compare(a.version, b.version)
	case a.index != b.index:
		return cmp.Compare(a.index, b.index)
	}
	return cmp.Compare(a.sums, b.sums)
}

const (
	// sumBits bounds the sums of one chunk, but for those of one larger block.
	sumBits  = 20
	firstLen = 4096 // of the first chunk; each further one is twice as long
)

// sumStore keeps sums in chunks, where they stay. A place is a number that grows
// with each put.
type sumStore struct{ chunks [][]uint32 }

func (s *sumStore) put(p []uint32) (place uint64) {
	n := max(len(p), 1) // no two puts have the same place
	last := len(s.chunks) - 1
	if last < 0 || cap(s.chunks[last])-len(s.chunks[last]) < n {
		last++
		s.chunks = append(s.chunks, make([]uint32, 0, max(n, min(1<<sumBits, firstLen<<min(last, sumBits)))))
	}
	c := s.chunks[last]
	at := len(c)
	c = c[:at+n]
	copy(c[at:], p)
	s.chunks[last] = c
	return uint64(last)<<sumBits | uint64(at)
}

func (s *sumStore) at(place uint64, n int) []uint32 {
	at := int(place & (1<<sumBits - 1))
	return s.chunks[place>>sumBits][at : at+n : at+n]
}

// holdGC keeps the collector from running while an index of n blocks is
// loaded, until the function that it returns is called: nearly all that is
// allocated meanwhile stays. A memory limit of the process still counts.
func holdGC(n int64) (end func()) {
	if n < manyBlocks {
		return func() {}
	}
	old := debug.SetGCPercent(-1)
	return func() { debug.SetGCPercent(old) }
}

// load opens a directory and replays its index.
func load(c dir.Config, open func(fn func(*blockfile.Record)) (*dir.Dir, error)) (*loader, *dir.Dir, error) {
	l := &loader{entries: make([]entry, 0, expected(c.Path))}
	d, err := open(l.add)
	if err != nil {
		return nil, nil, err
	}
	l.sort()
	l.fold()
	return l, d, nil
}

// expected is the largest number of blocks in an index of this length, within
// reason: what is not used of the memory is never touched.
func expected(path string) int64 {
	st, err := os.Stat(filepath.Join(path, blockfile.IndexName))
	if err != nil {
		return 0
	}
	return min(st.Size()/blockfile.StateLen(1)+1, 1<<25)
}

func (l *loader) add(r *blockfile.Record) {
	e := entry{file: r.ID.File, version: r.ID.Version, index: r.ID.Index, shape: uint64(r.Length)<<16 | uint64(r.Flags)<<8 | uint64(r.Kind),
		sums: l.sums.put(r.Sums), count: uint32(len(r.Sums)), first: r.First}
	if n := len(l.entries); l.ordered == n && (n == 0 || compareEntries(l.entries[n-1], e) < 0) {
		l.ordered++
	}
	l.entries = append(l.entries, e)
}

// sort puts the records of each block together. A compaction writes them in
// order, so only what was recorded since is sorted, and merged.
func (l *loader) sort() {
	if l.ordered == len(l.entries) {
		return
	}
	tail := slices.Clone(l.entries[l.ordered:])
	sortEntries(tail, l.entries[l.ordered:])
	for at, i := len(l.entries)-1, l.ordered-1; len(tail) > 0; at-- {
		last := len(tail) - 1
		if i >= 0 && compareEntries(l.entries[i], tail[last]) > 0 {
			l.entries[at] = l.entries[i]
			i--
			continue
		}
		l.entries[at] = tail[last]
		tail = tail[:last]
	}
	l.ordered = len(l.entries)
}

// fold leaves the entries of the blocks that stay dormant, and makes the others.
func (l *loader) fold() {
	out := l.entries[:0]
	for i := 0; i < len(l.entries); {
		end := i + 1
		for end < len(l.entries) && l.entries[i].id() == l.entries[end].id() {
			end++
		}
		e := l.entries[i]
		if end > i+1 || !e.whole() {
			e = l.replay(l.entries[i:end])
		}
		if e.shape != 0 {
			out = append(out, e)
		}
		i = end
	}
	l.entries = out
	if cap(out) > 2*len(out) {
		l.entries = slices.Clone(out)
	}
}

// replay applies the records of one block in the order of the log. It returns
// the entry of a block that stays dormant, else none.
func (l *loader) replay(run []entry) entry {
	var b *block
	var place uint64 // of the sums of [0, joined), which lie behind one another
	joined := 0
	for i := range run {
		e := &run[i]
		if e.kind() == blockfile.KindRemove || b == nil && e.count == 0 { // flags of grains that were lost with damage
			b = nil
			continue
		}
		sums := l.sums.at(e.sums, int(e.count))
		if b == nil {
			n := blockfile.Grains(e.length())
			b = &block{length: e.length()}
			b.ID = e.id()
			b.have, b.sums = blockfile.NewGrainSet(n), make([]uint32, n)
			place, joined = e.sums, 0
		}
		if b.length != e.length() {
			continue
		}
		b.dirty = e.flags()&blockfile.FlagDirty != 0
		b.pinned = e.flags()&blockfile.FlagPinned != 0
		copy(b.sums[e.first:], sums)
		b.have.AddRange(int(e.first), int(e.first+e.count))
		if int(e.first) == joined && e.sums == place+uint64(joined) {
			joined += int(e.count)
		}
	}
	if b == nil {
		return entry{}
	}
	if b.have.Count() < len(b.sums) || b.dirty || b.pinned {
		l.live = append(l.live, b)
		return entry{}
	}
	if joined < len(b.sums) {
		place = l.sums.put(b.sums)
	}
	return entry{file: b.ID.File, version: b.ID.Version, index: b.ID.Index, sums: place, count: uint32(len(b.sums)),
		shape: uint64(b.length)<<16 | uint64(blockfile.FlagComplete)<<8 | uint64(blockfile.KindState)}
}

// linkTo puts a block at the head of its file's list.
func linkTo(files map[orca.Ino]*block, b *block) {
	if head := files[b.ID.File]; head != nil {
		b.fnext, head.fprev = head, b
	}
	files[b.ID.File] = b
}

// unlink takes a block out of its file's list.
func unlink(files map[orca.Ino]*block, b *block) {
	switch {
	case b.fprev != nil:
		b.fprev.fnext = b.fnext
	case b.fnext != nil:
		files[b.ID.File] = b.fnext
	default:
		delete(files, b.ID.File)
	}
	if b.fnext != nil {
		b.fnext.fprev = b.fprev
	}
	b.fnext, b.fprev = nil, nil
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"slices"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
)

// dormant are the blocks of one directory that were found in its index and that
// nobody has asked for since: complete, clean and not pinned. Each is an entry of
// 40 bytes in a sorted list, and its sums. It wakes up, as a block like any
// other, when it is asked for by name or by file, or when its turn comes to be
// weighed by the eviction policy. Until then it counts in its place (blocks,
// grains, listed, quota) and is in no other table. All of it is
// GUARDED_BY(Store.mu).
type dormant struct {
	entries []entry // by block; one that is awake has no shape
	sums    sumStore
	n       int64 // blocks
	grains  int64
	bytes   int64
	hand    int // all before are awake
}

func newDormant(l *loader) dormant {
	d := dormant{entries: l.entries, sums: l.sums, n: int64(len(l.entries))}
	for i := range d.entries {
		d.grains += int64(d.entries[i].count)
		d.bytes += d.entries[i].length()
	}
	return d
}

// from returns where the entries at and after a block begin.
func (d *dormant) from(id orca.BlockID) int {
	i, _ := slices.BinarySearchFunc(d.entries, id, func(e entry, id orca.BlockID) int { return compareIDs(e.id(), id) })
	return i
}

// find returns where the entry of a block is, -1: nowhere.
func (d *dormant) find(id orca.BlockID) int {
	if d.n == 0 {
		return -1
	}
	if i := d.from(id); i < len(d.entries) && d.entries[i].shape != 0 && d.entries[i].id() == id {
		return i
	}
	return -1
}

// each calls fn for every block, in order.
func (d *dormant) each(fn func(e *entry)) {
	for i := range d.entries {
		if e := &d.entries[i]; e.shape != 0 {
			fn(e)
		}
	}
}

// take makes a block of an entry, which is awake from now on.
func (d *dormant) take(i int, p *place) *block {
	e := &d.entries[i]
	b := &block{length: e.length(), at: p, made: true, sums: d.sums.at(e.sums, int(e.count))}
	b.ID = e.id()
	b.n, b.cached = len(b.sums), b.length
	e.shape = 0
	d.n--
	d.grains -= int64(b.n)
	d.bytes -= b.length
	return b
}

// trim gives back the memory of entries that are awake, when these are the most.
func (d *dormant) trim() {
	if int64(len(d.entries)) <= 2*d.n || len(d.entries) == 0 {
		return
	}
	entries := make([]entry, 0, d.n)
	d.each(func(e *entry) { entries = append(entries, *e) })
	d.entries, d.hand = entries, 0
	if d.n == 0 {
		*d = dormant{}
	}
}

// blockLocked returns a block, nil when it is not here.
func (s *Store) blockLocked(id orca.BlockID) *block {
	if b := s.blocks[id]; b != nil {
		return b
	}
	for _, p := range s.places {
		if i := p.dormant.find(id); i >= 0 {
			return s.wakeLocked(p, i)
		}
	}
	return nil
}

// hasLocked reports whether a block is in a place; it wakes nothing.
func (s *Store) hasLocked(id orca.BlockID, p *place) bool {
	if b := s.blocks[id]; b != nil {
		return b.at == p
	}
	return p.dormant.find(id) >= 0
}

// wakeLocked wakes one block.
func (s *Store) wakeLocked(p *place, i int) *block {
	b := p.dormant.take(i, p)
	p.blocks--
	p.grains -= int64(b.n)
	p.listed -= b.length
	b.charged, b.served = b.cached, b.cached
	b.Old()
	s.addLocked(b)
	s.enterLocked(b)
	return b
}

// fileLocked wakes the blocks of a file and returns the first of its list.
func (s *Store) fileLocked(file orca.Ino) *block {
	for _, p := range s.places {
		if p.dormant.n == 0 {
			continue
		}
		for i := p.dormant.from(orca.BlockID{File: file}); i < len(p.dormant.entries) && p.dormant.entries[i].file == file; i++ {
			if p.dormant.entries[i].shape != 0 {
				s.wakeLocked(p, i)
			}
		}
	}
	return s.files[file]
}

const (
	// stirFirst and stirMore are how many dormant blocks join the policy for its
	// first choice and for each later one.
	stirFirst, stirMore = 64, 2
)

// stirLocked has the policy of a place weigh dormant blocks, too, as its oldest:
// enough of them that one is always there to choose.
func (s *Store) stirLocked(p *place) {
	d := &p.dormant
	n := stirMore
	if d.hand == 0 {
		n = stirFirst
	}
	end := d.hand
	for found := 0; end < len(d.entries) && found < n; end++ {
		if d.entries[end].shape != 0 {
			found++
		}
	}
	for i := end - 1; i >= d.hand; i-- { // what comes last is the oldest
		if d.entries[i].shape != 0 {
			s.wakeLocked(p, i)
		}
	}
	d.hand = end
}

// weighed is how many bytes may be chosen from in a place, dormant ones too.
func (p *place) weighed() int64 { return p.policy.Bytes() + p.dormant.bytes }

// choosable reports whether there is anything to choose.
func (p *place) choosable() bool { return p.policy.Len() > 0 || p.dormant.n > 0 }

// settleLocked takes over what is dormant in a directory that was just opened.
// What another one has, too, wakes up, and the better copy stays.
func (s *Store) settleLocked(p *place, d dormant) {
	var twins []int
	for id, b := range s.blocks {
		if b.at != p {
			if i := d.find(id); i >= 0 {
				twins = append(twins, i)
			}
		}
	}
	for _, o := range s.places {
		at := 0
		o.dormant.each(func(e *entry) {
			for at < len(d.entries) && compareIDs(d.entries[at].id(), e.id()) < 0 {
				at++
			}
			if at < len(d.entries) && d.entries[at].id() == e.id() {
				twins = append(twins, at)
			}
		})
	}
	for _, i := range twins {
		if d.entries[i].shape != 0 {
			s.mergeLocked(p, d.take(i, p))
		}
	}
	p.dormant = d
	p.blocks += d.n
	p.grains += d.grains
	p.listed += d.bytes
	p.Recovered(d.bytes)
	for file := range s.pinned { // by a record of one of its blocks
		s.fileLocked(file)
	}
	for file := range s.wanted {
		s.fileLocked(file)
	}
}

// dropDormantLocked forgets the dormant blocks of a directory that has failed.
func (s *Store) dropDormantLocked(p *place) {
	if p.dormant.n == 0 {
		return
	}
	p.blocks -= p.dormant.n
	p.grains -= p.dormant.grains
	p.listed -= p.dormant.bytes
	p.Return(p.dormant.bytes)
	p.dormant = dormant{}
	s.feed.reset() // what is left is reported in full
}

// reports appends what the metaplane is told of the dormant blocks, a line for
// each version of a file.
func (d *dormant) reports(p *place, files []tiers.FileReport) []tiers.FileReport {
	indexes := make([]uint32, 0, d.n)
	d.each(func(e *entry) {
		indexes = append(indexes, e.index)
		if n := len(files); n == 0 || files[n-1].File != e.file || files[n-1].Version != e.version || len(indexes) == 1 {
			files = append(files, tiers.FileReport{File: e.file, Version: e.version, Tier: p.Tier})
		}
		r := &files[len(files)-1]
		r.Cached += e.length()
		r.Complete = indexes[len(indexes)-1-len(r.Complete) : len(indexes) : len(indexes)]
	})
	return files
}

// record is the index record of a dormant block.
func (d *dormant) record(e *entry) blockfile.Record {
	return blockfile.Record{Kind: blockfile.KindState, Flags: blockfile.FlagComplete, ID: e.id(), Length: e.length(), Sums: d.sums.at(e.sums, int(e.count))}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"orca"
	"orca/tiers"
)

// feedCap is how many changes are remembered; who lags more reports in full.
const feedCap = 1 << 16

type fileVersion struct {
	file    orca.Ino
	version uint32
}

// feed is a ring of the files that changed last. GUARDED_BY(Store.mu).
type feed struct {
	ring []fileVersion
	next uint64 // sequence number of the next change
	low  uint64 // of the oldest one that is remembered
	read uint64 // next when it was last read
}

// reset forgets everything: any cursor of before is too old.
func (f *feed) reset() {
	f.next = rand.Uint64() >> 2 // never a number that an earlier process gave out
	f.low, f.read = f.next, f.next
}

func (f *feed) add(id orca.BlockID) {
	fv := fileVersion{id.File, id.Version}
	if f.ring == nil {
		f.ring = make([]fileVersion, feedCap)
	}
	if f.next > max(f.low, f.read) && f.ring[(f.next-1)%feedCap] == fv {
		return // nobody has read the last change yet, and this is it again
	}
	f.ring[f.next%feedCap] = fv
	f.next++
	if f.next-f.low > feedCap {
		f.low = f.next - feedCap
	}
}

// Changes implements tiers.Store. A cursor of 0 is always too old.
func (s *Store) Changes(cursor uint64) (files []tiers.FileReport, next uint64, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = s.feed.next
	s.feed.read = next
	if cursor < s.feed.low || cursor > next {
		return nil, next, true
	}
	seen := map[fileVersion]bool{}
	for c := cursor; c < next; c++ {
		if fv := s.feed.ring[c%feedCap]; !seen[fv] {
			seen[fv] = true
			files = append(files, s.reportLocked(fv))
		}
	}
	return files, next, false
}

// Reports returns every file version that is held here, for a full report.
// next is the cursor to go on from with Changes.
func (s *Store) Reports() (files []tiers.FileReport, next uint64) {
	files, next = s.lines()
	slices.SortFunc(files, func(a, b tiers.FileReport) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Version, b.Version))
	})
	// Some of a version may be dormant, and some be in another directory.
	out := files[:0]
	for _, f := range files {
		if n := len(out); n > 0 && out[n-1].File == f.File && out[n-1].Version == f.Version {
			r := &out[n-1]
			r.Cached += f.Cached
			r.Dirty = r.Dirty || f.Dirty
			r.Tier = min(r.Tier, f.Tier)
			r.Complete = append(r.Complete, f.Complete...)
			slices.Sort(r.Complete)
			continue
		}
		out = append(out, f)
	}
	return out, next
}

// lines returns the lines of a full report, in no order: more than one for
// a version of which some is dormant.
func (s *Store) lines() (files []tiers.FileReport, next uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for file, head := range s.files {
		var versions []uint32
		for b := head; b != nil; b = b.fnext {
			if b.n > 0 && !slices.Contains(versions, b.ID.Version) {
				versions = append(versions, b.ID.Version)
			}
		}
		for _, v := range versions {
			files = append(files, s.awakeLocked(fileVersion{file, v}))
		}
	}
	for _, p := range s.places {
		files = p.dormant.reports(p, files)
	}
	s.feed.read = s.feed.next
	return files, s.feed.next
}

func (s *Store) reportLocked(fv fileVersion) tiers.FileReport {
	s.fileLocked(fv.file) // it changes: somebody is at it
	return s.awakeLocked(fv)
}

// awakeLocked reports what is not dormant.
func (s *Store) awakeLocked(fv fileVersion) tiers.FileReport {
	r := tiers.FileReport{File: fv.file, Version: fv.version, Tier: orca.HDD}
	for b := s.files[fv.file]; b != nil; b = b.fnext {
		if b.ID.Version != fv.version || b.n == 0 {
			continue
		}
		r.Cached += b.cached
		r.Dirty = r.Dirty || b.dirty
		r.Tier = min(r.Tier, b.at.Tier)
		if b.have == nil {
			r.Complete = append(r.Complete, b.ID.Index)
		}
	}
	slices.Sort(r.Complete)
	return r
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package workers

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"orca"
	"orca/metaplane/metapb"
)

const shardCount = 64

// shard holds the locations of the files whose number hashes to it.
type shard struct {
	mu    sync.RWMutex
	files map[orca.Ino]*fileHoldings
}

// fileHoldings lists who holds what of one file; a handful of elements.
type fileHoldings struct {
	held []holding
}

type holding struct {
	worker   uint64
	gen      uint64 // of the report it came from; 0: announced by a Complete
	noted    int64  // unix ns of the announcement, when gen is 0
	version  uint32
	tier     uint32
	cached   int64
	complete []uint32
	dirty    bool
}

func (r *Registry) shard(f orca.Ino) *shard {
	return &r.shards[(uint64(f)*0x9E3779B97F4A7C15)>>58]
}

// put applies one line of a report; cached 0 removes the holding.
func (r *Registry) put(worker, gen uint64, f *metapb.FileReport) {
	ino := orca.Ino(f.File)
	s := r.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.files[ino]
	gone := f.Cached == 0 && len(f.Complete) == 0 && !f.Dirty
	if h == nil {
		if gone {
			return
		}
		h = &fileHoldings{}
		s.files[ino] = h
		r.Stats.Files.Add(1)
	}
	at := slices.IndexFunc(h.held, func(x holding) bool { return x.worker == worker && x.version == f.Version })
	if gone {
		if at >= 0 {
			h.held = slices.Delete(h.held, at, at+1)
		}
		r.dropEmptyLocked(s, ino, h)
		return
	}
	n := holding{worker: worker, gen: gen, version: f.Version, tier: f.Tier,
		cached: f.Cached, complete: f.Complete, dirty: f.Dirty}
	if at >= 0 {
		h.held[at] = n
	} else {
		h.held = append(h.held, n)
	}
}

func (r *Registry) dropEmptyLocked(s *shard, ino orca.Ino, h *fileHoldings) {
	if len(h.held) == 0 {
		delete(s.files, ino)
		r.Stats.Files.Add(-1)
	}
}

// Announce records that workers hold a version that was just completed, ahead
// of their next heartbeat.
func (r *Registry) Announce(ino orca.Ino, version uint32, length int64, holders []uint64, dirty bool) {
	if len(holders) == 0 {
		return
	}
	now := r.cfg.Now().UnixNano()
	s := r.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.files[ino]
	if h == nil {
		h = &fileHoldings{}
		s.files[ino] = h
		r.Stats.Files.Add(1)
	}
	for _, w := range holders {
		if slices.ContainsFunc(h.held, func(x holding) bool { return x.worker == w && x.version == version }) {
			continue
		}
		h.held = append(h.held, holding{worker: w, noted: now, version: version, cached: length, dirty: dirty})
	}
}

// Forget drops what is known of a file (it was deleted).
func (r *Registry) Forget(ino orca.Ino) {
	s := r.shard(ino)
	s.mu.Lock()
	if _, ok := s.files[ino]; ok {
		delete(s.files, ino)
		r.Stats.Files.Add(-1)
	}
	s.mu.Unlock()
}

// prune drops a worker's holdings of generations before gen, and announced
// ones noted before the time given.
func (r *Registry) prune(worker, gen uint64, notedBefore time.Time) {
	before := notedBefore.UnixNano()
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for ino, h := range s.files {
			h.held = slices.DeleteFunc(h.held, func(x holding) bool {
				if x.worker != worker {
					return false
				}
				if x.gen == 0 {
					return x.noted < before
				}
				return x.gen < gen
			})
			r.dropEmptyLocked(s, ino, h)
		}
		s.mu.Unlock()
	}
}

// Locations returns the live holders of one version, most bytes first; the
// faster tier wins among equals.
func (r *Registry) Locations(ino orca.Ino, version uint32) []*metapb.Location {
	s := r.shard(ino)
	s.mu.RLock()
	h := s.files[ino]
	var held []holding
	if h != nil {
		held = slices.Clone(h.held)
	}
	s.mu.RUnlock()
	if len(held) == 0 {
		return nil
	}
	now := r.cfg.Now()
	out := make([]*metapb.Location, 0, len(held))
	r.mu.RLock()
	for i := range held {
		x := &held[i]
		if x.version != version || x.cached == 0 {
			continue
		}
		if w := r.workers[x.worker]; w != nil && r.liveLocked(w, now) {
			out = append(out, &metapb.Location{Worker: x.worker, Cached: x.cached, Complete: x.complete, Tier: x.tier})
		}
	}
	r.mu.RUnlock()
	slices.SortStableFunc(out, func(a, b *metapb.Location) int {
		return cmp.Or(cmp.Compare(b.Cached, a.Cached), cmp.Compare(a.Tier, b.Tier))
	})
	return out
}

// Holding is what a live worker has of one version.
type Holding struct {
	Worker   uint64
	Cached   int64
	Complete []uint32
	Dirty    bool // kept until it is persisted
}

// Holdings returns what the live workers have of a version, by worker.
func (r *Registry) Holdings(ino orca.Ino, version uint32) []Holding {
	s := r.shard(ino)
	s.mu.RLock()
	var out []Holding
	if h := s.files[ino]; h != nil {
		for i := range h.held {
			if x := &h.held[i]; x.version == version {
				out = append(out, Holding{x.worker, x.cached, x.complete, x.dirty})
			}
		}
	}
	s.mu.RUnlock()
	now := r.cfg.Now()
	r.mu.RLock()
	out = slices.DeleteFunc(out, func(h Holding) bool {
		w := r.workers[h.Worker]
		return w == nil || !r.liveLocked(w, now)
	})
	r.mu.RUnlock()
	slices.SortFunc(out, func(a, b Holding) int { return cmp.Compare(a.Worker, b.Worker) })
	return out
}

// Cached returns how many bytes of the version the best holder has.
func (r *Registry) Cached(ino orca.Ino, version uint32) (n int64) {
	s := r.shard(ino)
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.files[ino]
	if h == nil {
		return 0
	}
	for i := range h.held {
		if h.held[i].version == version {
			n = max(n, h.held[i].cached)
		}
	}
	return n
}

// Availability says whether unpersisted content can be read.
type Availability uint8

// The availabilities.
const (
	// Available: a live worker holds it.
	Available Availability = iota
	// Unavailable: nobody live holds it, but a worker that held it has not
	// reported since: it may come back.
	Unavailable
	// Gone: every worker that held it has reported without it.
	Gone
)

// Availability judges a version that is in no UFS by the workers that are on
// record as its holders.
func (r *Registry) Availability(ino orca.Ino, version uint32, holders []uint64) Availability {
	if len(r.Locations(ino, version)) > 0 {
		return Available
	}
	if len(holders) == 0 {
		return Unavailable
	}
	held := map[uint64]bool{}
	s := r.shard(ino)
	s.mu.RLock()
	if h := s.files[ino]; h != nil {
		for _, x := range h.held {
			if x.version == version {
				held[x.worker] = true
			}
		}
	}
	s.mu.RUnlock()
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, id := range holders {
		if w := r.workers[id]; w == nil || w.gen == 0 || w.epoch != r.epoch || held[id] {
			return Unavailable
		}
	}
	return Gone
}

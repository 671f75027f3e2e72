// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict

import "orca"

const (
	s3Small   = 0.1 // share of the small queue
	s3MaxFreq = 3
)

// S3FIFO keeps newcomers in a small queue, from which only those go on to the
// large one that were used again there; who comes back soon after leaving the
// small queue enters the large one at once. Juncheng Yang et al., "FIFO
// Queues are All You Need for Cache Eviction", SOSP 2023.
type S3FIFO struct {
	small, large list
	ghost        ghosts
}

var _ Policy = (*S3FIFO)(nil)

// NewS3FIFO returns an empty S3FIFO.
func NewS3FIFO() *S3FIFO {
	p := &S3FIFO{}
	p.small.init(small)
	p.large.init(large)
	return p
}

// Add implements Policy.
func (p *S3FIFO) Add(e *Entry, _ uint64) {
	if e.home == old {
		p.small.pushOldest(e)
		return
	}
	if e.home == large || e.home == moved || e.home == none && p.ghost.take(e.ID) {
		p.large.push(e)
		return
	}
	p.small.push(e)
}

// Touch implements Policy.
func (p *S3FIFO) Touch(e *Entry, _ uint64) { e.freq = min(e.freq+1, s3MaxFreq) }

// Remove implements Policy.
func (p *S3FIFO) Remove(e *Entry) {
	switch e.in {
	case small:
		p.small.drop(e)
	case large:
		p.large.drop(e)
	}
}

// Next implements Policy.
func (p *S3FIFO) Next(now uint64, keep int64) *Entry {
	e := p.First(now, keep)
	if e == nil {
		return nil
	}
	if e.in == small {
		p.ghost.put(e.ID, max(p.large.n, p.small.n-1))
	}
	p.Remove(e)
	return leave(e)
}

// First implements Policy.
func (p *S3FIFO) First(_ uint64, keep int64) *Entry {
	for {
		if e := p.small.oldest(); e != nil && (float64(p.small.bytes) > s3Small*float64(keep) || p.large.n == 0) {
			if e.freq > 1 {
				p.small.drop(e)
				e.freq = 0
				p.large.push(e)
				continue
			}
			return e
		}
		e := p.large.oldest()
		if e == nil || e.freq == 0 {
			return e
		}
		e.freq--
		p.large.front(e)
	}
}

// Len implements Policy.
func (p *S3FIFO) Len() int { return p.small.n + p.large.n }

// Bytes implements Policy.
func (p *S3FIFO) Bytes() int64 { return p.small.bytes + p.large.bytes }

// ghosts remembers the last blocks that left, by name alone.
type ghosts struct {
	order []ghost // a FIFO, from first on
	first int
	live  map[orca.BlockID]uint64
	seq   uint64
}

type ghost struct {
	id  orca.BlockID
	seq uint64
}

// put remembers a block and forgets the oldest beyond limit.
func (g *ghosts) put(id orca.BlockID, limit int) {
	if g.live == nil {
		g.live = map[orca.BlockID]uint64{}
	}
	g.seq++
	g.live[id] = g.seq
	g.order = append(g.order, ghost{id, g.seq})
	for len(g.live) > max(limit, 1) || g.first < len(g.order) && g.live[g.order[g.first].id] != g.order[g.first].seq {
		o := g.order[g.first]
		g.first++
		if g.live[o.id] == o.seq {
			delete(g.live, o.id)
		}
	}
	if g.first > len(g.order)/2 {
		g.order = append(g.order[:0], g.order[g.first:]...)
		g.first = 0
	}
}

// take reports whether the block is remembered, and forgets it.
func (g *ghosts) take(id orca.BlockID) bool {
	_, ok := g.live[id]
	delete(g.live, id)
	return ok
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict

import "math"

// DefaultLambda makes a use count half as much after ten thousand further uses.
const DefaultLambda = 1e-4

// LRFU values a block by all its past uses, each weighted with (1/2)^(lambda x
// age): lambda 1 is LRU, lambda near 0 is LFU. Donghee Lee et al., "LRFU: A
// Spectrum of Policies that Subsumes the Least Recently Used and Least
// Frequently Used Policies", IEEE Transactions on Computers 50(12), 2001.
//
// The order of two blocks does not change while neither is used, so a heap
// keeps it; its key is log2 of the value with the common decay taken out.
type LRFU struct {
	lambda float64
	heap   []*Entry
	bytes  int64
}

var _ Policy = (*LRFU)(nil)

// NewLRFU returns an empty LRFU; lambda is in (0, 1].
func NewLRFU(lambda float64) *LRFU { return &LRFU{lambda: lambda} }

// used returns the rank of an entry after a use now.
func (p *LRFU) used(e *Entry, now uint64) float64 {
	at := p.lambda * float64(now)
	if e.home == none {
		return at
	}
	// The value is 1 + 2^(rank-at), the rank log2 of it plus at.
	return at + math.Log2(1+math.Exp2(e.rank-at))
}

// Add implements Policy.
func (p *LRFU) Add(e *Entry, now uint64) {
	switch e.home {
	case none:
		e.rank = p.used(e, now)
	case old:
		e.rank = p.used(&Entry{}, 0) // as if it was used once, long ago
	}
	e.in, e.home, e.slot = large, large, int32(len(p.heap))
	p.heap = append(p.heap, e)
	p.bytes += e.Size
	p.up(len(p.heap) - 1)
}

// Touch implements Policy.
func (p *LRFU) Touch(e *Entry, now uint64) {
	e.rank = p.used(e, now)
	if e.in != none {
		p.down(int(e.slot))
	}
}

// Remove implements Policy.
func (p *LRFU) Remove(e *Entry) {
	if e.in == none {
		return
	}
	i, last := int(e.slot), len(p.heap)-1
	p.swap(i, last)
	p.heap[last] = nil
	p.heap = p.heap[:last]
	if i < last {
		p.down(i)
		p.up(i)
	}
	e.in = none
	p.bytes -= e.Size
}

// Next implements Policy.
func (p *LRFU) Next(uint64, int64) *Entry {
	if len(p.heap) == 0 {
		return nil
	}
	e := p.heap[0]
	p.Remove(e)
	return leave(e)
}

// First implements Policy.
func (p *LRFU) First(uint64, int64) *Entry {
	if len(p.heap) == 0 {
		return nil
	}
	return p.heap[0]
}

// Len implements Policy.
func (p *LRFU) Len() int { return len(p.heap) }

// Bytes implements Policy.
func (p *LRFU) Bytes() int64 { return p.bytes }

func (p *LRFU) swap(i, j int) {
	p.heap[i], p.heap[j] = p.heap[j], p.heap[i]
	p.heap[i].slot, p.heap[j].slot = int32(i), int32(j)
}

func (p *LRFU) up(i int) {
	for i > 0 && p.heap[i].rank < p.heap[(i-1)/2].rank {
		p.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (p *LRFU) down(i int) {
	for {
		c := 2*i + 1
		if c+1 < len(p.heap) && p.heap[c+1].rank < p.heap[c].rank {
			c++
		}
		if c >= len(p.heap) || p.heap[i].rank <= p.heap[c].rank {
			return
		}
		p.swap(i, c)
		i = c
	}
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict

// LRU lets the least recently used block leave first. One scan that is longer
// than the directory empties it, and of a loop that is longer nothing is ever
// found again.
type LRU struct{ l list }

var _ Policy = (*LRU)(nil)

// NewLRU returns an empty LRU.
func NewLRU() *LRU {
	p := &LRU{}
	p.l.init(large)
	return p
}

// Add implements Policy.
func (p *LRU) Add(e *Entry, _ uint64) {
	if e.home == old {
		p.l.pushOldest(e)
		return
	}
	p.l.push(e)
}

// Touch implements Policy.
func (p *LRU) Touch(e *Entry, _ uint64) {
	if e.in != none {
		p.l.front(e)
	}
}

// Remove implements Policy.
func (p *LRU) Remove(e *Entry) {
	if e.in != none {
		p.l.drop(e)
	}
}

// Next implements Policy.
func (p *LRU) Next(uint64, int64) *Entry {
	e := p.l.oldest()
	if e == nil {
		return nil
	}
	p.l.drop(e)
	return leave(e)
}

// First implements Policy.
func (p *LRU) First(uint64, int64) *Entry { return p.l.oldest() }

// Len implements Policy.
func (p *LRU) Len() int { return p.l.n }

// Bytes implements Policy.
func (p *LRU) Bytes() int64 { return p.l.bytes }

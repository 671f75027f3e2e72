// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package evict decides in which order blocks leave a directory, and nothing
// else: it is pure. The store holds its own lock around every call, passes a
// sequence number where others would read a clock, and takes out of the policy
// what must not leave (dirty, pinned or filling blocks), so that a policy
// cannot choose them.
//
// Entries are embedded in the store's own records: a hit costs no lookup and
// no allocation here. No goroutines, no locks.
package evict

import "orca"

// Entry is one block in a policy. Its owner sets ID and Size before Add and
// may change Size at any time; the rest belongs to the policy.
type Entry struct {
	ID   orca.BlockID
	Size int64

	next, prev *Entry
	in         bool
	seen       uint64
}

// Listed reports whether the entry is in a policy.
func (e *Entry) Listed() bool { return e.in }

// Policy orders the entries of one directory. now grows with every call.
type Policy interface {
	// Add puts an entry in, as just used. It must not be Listed.
	Add(e *Entry, now uint64)
	// Touch notes a use; nothing happens when the entry is not Listed.
	Touch(e *Entry, now uint64)
	// Remove takes an entry out if it is Listed.
	Remove(e *Entry)
	// Victims calls yield in order of leaving until it returns false. yield may
	// Remove the entry that it is given, and no other.
	Victims(now uint64, yield func(*Entry) bool)
	// Len returns the number of entries.
	Len() int
}

// LRU lets the least recently used block leave first.
type LRU struct {
	root Entry // root.next is the most recent, root.prev the next victim
	n    int
}

var _ Policy = (*LRU)(nil)

// NewLRU returns an empty LRU.
func NewLRU() *LRU {
	l := &LRU{}
	l.root.next, l.root.prev = &l.root, &l.root
	return l
}

// Add implements Policy.
func (l *LRU) Add(e *Entry, now uint64) {
	e.in = true
	l.n++
	l.front(e, now)
}

// Touch implements Policy.
func (l *LRU) Touch(e *Entry, now uint64) {
	if !e.in || l.root.next == e {
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	l.front(e, now)
}

func (l *LRU) front(e *Entry, now uint64) {
	e.seen = now
	e.prev, e.next = &l.root, l.root.next
	e.next.prev, l.root.next = e, e
}

// Remove implements Policy.
func (l *LRU) Remove(e *Entry) {
	if !e.in {
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	e.next, e.prev, e.in = nil, nil, false
	l.n--
}

// Victims implements Policy.
func (l *LRU) Victims(_ uint64, yield func(*Entry) bool) {
	for e := l.root.prev; e != &l.root; {
		prev := e.prev
		if !yield(e) {
			return
		}
		e = prev
	}
}

// Len implements Policy.
func (l *LRU) Len() int { return l.n }

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package evict decides which block leaves a directory, and nothing else: it
// is pure. The store holds its own lock around every call, passes a sequence
// number where others would read a clock, and takes out of the policy what
// must not leave (dirty, pinned or filling blocks), so that a policy cannot
// choose them.
//
//	cached, evictable   Add ──► listed ──► Next: leaves, and becomes a ghost
//	used                Touch
//	dirty, pinned, …    Remove ──► (the entry keeps what is known of it) ──► Add
//
// A block is always stored when it arrives: a write never waits for a verdict.
// So admission is a decision about leaving: a newcomer that does not deserve
// its room is the next to go. Shares and admission are counted in bytes.
//
// Entries are embedded in the store's own records: a hit costs no lookup and
// no allocation here. Cache drives a policy without files, as package tiered
// does with them. No goroutines, no locks.
package evict

import (
	"strings"

	"orca"
)

// Entry is one block in a policy. Its owner sets ID and Size before Add; Size
// stays while the entry is listed. The rest belongs to the policy.
type Entry struct {
	ID   orca.BlockID
	Size int64

	next, prev *Entry
	rank       float64 // LRFU: its place in the order
	seen       uint64  // clock of the last use
	slot       int32   // LRFU: index in the heap
	in         queue   // where it is listed; none: nowhere
	home       queue   // where it was listed last, until it leaves by Next
	freq       uint8   // S3-FIFO: uses since it was looked at
}

// queue names a list of a policy.
type queue uint8

const (
	none queue = iota
	small
	large
	protected
	moved // only as home: came from another directory, for it deserves it
	old   // only as home: was there before a restart, and nobody has used it since
)

// Listed reports whether the entry is in a policy.
func (e *Entry) Listed() bool { return e.in != none }

// Old makes an entry that is not listed one that was before: a block found
// again after a restart is no newcomer, and its return is no use. It comes to the
// end of a list: whatever is there was used since.
func (e *Entry) Old() { e.home = old }

// Moved makes an entry that is not listed the successor of one that was in a
// policy of the same kind, and moves to where blocks are faster because it was
// found worth it: it is no newcomer.
func (e *Entry) Moved(from *Entry) { e.home, e.rank, e.freq = moved, from.rank, 0 }

// Policy orders the entries of one directory. now grows with every use.
type Policy interface {
	// Add puts an entry in. One that is new counts as just used; one that was
	// taken out by Remove goes on where it was. It must not be Listed.
	Add(e *Entry, now uint64)
	// Touch notes a use, of a listed entry or of one taken out by Remove. It
	// does not allocate.
	Touch(e *Entry, now uint64)
	// Remove takes an entry out if it is Listed, for a reason of the store's.
	Remove(e *Entry)
	// Next chooses the entry that leaves, takes it out and returns it; nil
	// when there is none. keep is how many bytes the store wants to go on
	// holding in this policy: what shares of the room refer to.
	Next(now uint64, keep int64) *Entry
	// First returns the entry that Next would choose, and leaves it in. It may
	// change the order of others as Next would on the way.
	First(now uint64, keep int64) *Entry
	// Len and Bytes are the number of entries and the sum of their sizes.
	Len() int
	Bytes() int64
}

// Default is the name of the policy for who does not choose.
const Default = "adaptive"

// table is the one list of policies.
var table = []struct {
	name string
	make func() Policy
}{
	{Default, func() Policy { return NewAdaptive() }},
	{"lru", func() Policy { return NewLRU() }},
	{"lrfu", func() Policy { return NewLRFU(DefaultLambda) }},
	{"s3fifo", func() Policy { return NewS3FIFO() }},
	{"tinylfu", func() Policy { return NewTinyLFU() }},
	{"epoch", func() Policy { return NewEpoch() }},
}

// Names returns the names of the policies, the default first.
func Names() []string {
	var out []string
	for _, t := range table {
		out = append(out, t.name)
	}
	return out
}

// New returns an empty policy by name; "" is the default. Invalid.
func New(name string) (Policy, error) {
	if name == "" {
		name = Default
	}
	for _, t := range table {
		if t.name == name {
			return t.make(), nil
		}
	}
	return nil, &orca.Error{Op: "evict.New", Path: name, Kind: orca.Invalid,
		Msg: "no such eviction policy; there are " + strings.Join(Names(), ", ")}
}

// hash spreads the id of a block over 64 bits.
func hash(id orca.BlockID) uint64 {
	return mix(uint64(id.File)*0x9e3779b97f4a7c15 ^ mix(uint64(id.Version)<<32|uint64(id.Index)))
}

// mix is the finalizer of SplitMix64.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// list is a queue of entries, the newest in front.
type list struct {
	root  Entry // root.next is the newest, root.prev the oldest
	n     int
	bytes int64
	name  queue
}

func (l *list) init(name queue) {
	l.root.next, l.root.prev, l.name = &l.root, &l.root, name
}

func (l *list) push(e *Entry) {
	e.in, e.home = l.name, l.name
	e.prev, e.next = &l.root, l.root.next
	e.next.prev, l.root.next = e, e
	l.n++
	l.bytes += e.Size
}

// pushOldest puts an entry behind all others.
func (l *list) pushOldest(e *Entry) {
	e.in, e.home = l.name, l.name
	e.next, e.prev = &l.root, l.root.prev
	e.prev.next, l.root.prev = e, e
	l.n++
	l.bytes += e.Size
}

func (l *list) drop(e *Entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.next, e.prev, e.in = nil, nil, none
	l.n--
	l.bytes -= e.Size
}

func (l *list) front(e *Entry) {
	if l.root.next == e {
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = &l.root, l.root.next
	e.next.prev, l.root.next = e, e
}

// oldest returns nil when the list is empty.
func (l *list) oldest() *Entry {
	if l.n == 0 {
		return nil
	}
	return l.root.prev
}

// leave makes an entry that was chosen a stranger.
func leave(e *Entry) *Entry {
	e.home, e.freq = none, 0
	return e
}

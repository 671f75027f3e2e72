// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package alloc decides into which directory a block goes, and nothing else:
// it is pure, without even memory. The store describes its directories, gets
// back an order in which to try them, and does the reserving and waiting
// itself. No goroutines, no locks.
//
// Every allocator prefers room that is free now over room that eviction would
// make, and a faster tier over a slower one; they differ in the order of the
// directories of one tier.
package alloc

import (
	"cmp"
	"slices"
	"strings"

	"orca"
)

// Place is a directory as the allocator sees it.
type Place struct {
	Index     int // the caller's name for it, in the order of the configuration
	Tier      orca.Tier
	Capacity  int64
	Free      int64 // of the quota, now
	Evictable int64 // bytes of clean, unpinned blocks
	Durable   bool
	// Last is the sequence number of the last block that was placed here, and
	// Placed the bytes of all of them.
	Last   uint64
	Placed int64
}

// Need is what is to be placed.
type Need struct {
	// Length is the logical length of the block: only a directory whose
	// capacity is at least twice this qualifies.
	Length int64
	// Room is how many bytes must be free at once (<= Length).
	Room int64
	// Durable excludes tiers that a reboot empties.
	Durable bool
}

// Allocator compares two directories of one tier: negative when a is tried
// before b.
type Allocator func(a, b Place) int

// Default is the name of the allocator for who does not choose.
const Default = "max-free"

// table is the one list of allocators.
var table = []struct {
	name string
	less Allocator
}{
	{Default, MaxFree}, {"round-robin", RoundRobin}, {"greedy", Greedy}, {"capacity-weighted", CapacityWeighted},
}

// MaxFree tries the directory with the most free bytes first: directories fill
// up to the same free room.
func MaxFree(a, b Place) int { return cmp.Or(cmp.Compare(b.Free, a.Free), a.Index-b.Index) }

// RoundRobin tries the directory first that got a block longest ago: each disk
// gets as many blocks.
func RoundRobin(a, b Place) int { return cmp.Or(cmp.Compare(a.Last, b.Last), a.Index-b.Index) }

// Greedy tries them in the order of the configuration: one directory is filled
// before the next is touched.
func Greedy(a, b Place) int { return a.Index - b.Index }

// CapacityWeighted tries the directory first that got the fewest bytes for its
// capacity: each gets traffic by its size, however full it is.
func CapacityWeighted(a, b Place) int {
	return cmp.Or(cmp.Compare(float64(a.Placed)/float64(max(a.Capacity, 1)), float64(b.Placed)/float64(max(b.Capacity, 1))), a.Index-b.Index)
}

// Names returns the names of the allocators, the default first.
func Names() []string {
	var out []string
	for _, t := range table {
		out = append(out, t.name)
	}
	return out
}

// New returns an allocator by name; "" is the default. Invalid.
func New(name string) (Allocator, error) {
	if name == "" {
		name = Default
	}
	for _, t := range table {
		if t.name == name {
			return t.less, nil
		}
	}
	return nil, &orca.Error{Op: "alloc.New", Path: name, Kind: orca.Invalid,
		Msg: "no such allocator; there are " + strings.Join(Names(), ", ")}
}

// Order returns the places that can take a need: first those with room now,
// then those that would have it after eviction. now is the number of the
// first kind.
func (a Allocator) Order(places []Place, n Need) (order []Place, now int) {
	var later []Place
	for _, p := range places {
		switch {
		case p.Capacity/2 < n.Length || n.Durable && !p.Durable:
		case p.Free >= n.Room && p.Free+p.Evictable >= n.Length:
			order = append(order, p)
		case p.Free+p.Evictable >= n.Room:
			later = append(later, p)
		}
	}
	byTier := func(x, y Place) int { return cmp.Or(cmp.Compare(x.Tier, y.Tier), a(x, y)) }
	slices.SortFunc(order, byTier)
	slices.SortFunc(later, byTier)
	return append(order, later...), len(order)
}

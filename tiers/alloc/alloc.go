// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package alloc decides into which directory a block goes, and nothing else:
// it is pure. The store describes its directories, gets back an order in which
// to try them, and does the reserving and waiting itself. No goroutines, no
// locks.
package alloc

import (
	"slices"

	"orca"
)

// Place is a directory as the allocator sees it.
type Place struct {
	Index     int // the caller's name for it
	Tier      orca.Tier
	Capacity  int64
	Free      int64 // of the quota, now
	Evictable int64 // bytes of clean, unpinned blocks
	Durable   bool
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

// MaxFree orders the places for a need: first those with room now, fastest
// tier first and most free first within a tier; then, in the same order, those
// that would have room after eviction. now is the number of the first kind.
func MaxFree(places []Place, n Need) (order []Place, now int) {
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
	byTier := func(a, b Place) int {
		if a.Tier != b.Tier {
			return int(a.Tier) - int(b.Tier)
		}
		if a.Free != b.Free {
			if a.Free > b.Free {
				return -1
			}
			return 1
		}
		return a.Index - b.Index
	}
	slices.SortFunc(order, byTier)
	slices.SortFunc(later, byTier)
	return append(order, later...), len(order)
}

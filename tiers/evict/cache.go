// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict

import "orca"

// Marks are the watermarks of a directory in parts of what fits: when more
// than High is used, blocks leave until Low is.
type Marks struct{ High, Low float64 }

// DefaultMarks leave a little room for who writes, and not more: what is kept
// free is not there for hits.
var DefaultMarks = Marks{High: 0.97, Low: 0.95}

// Valid reports whether the marks can work.
func (m Marks) Valid() bool { return 0 < m.Low && m.Low <= m.High && m.High <= 1 }

// Excess returns how many bytes should leave a directory of which used are
// used; want is room that somebody waits for.
func (m Marks) Excess(used, fits, want int64) int64 {
	n := int64(0)
	if float64(used) > m.High*float64(fits) {
		n = used - int64(m.Low*float64(fits))
	}
	return max(n, want-(fits-used))
}

// Cache is a directory without files: it drives a policy over a sequence of
// uses as package tiered does.
type Cache struct {
	marks    Marks
	capacity int64
	policy   Policy
	now      uint64
	used     int64
	entries  map[orca.BlockID]*Entry
	free     []*Entry
}

// NewCache returns an empty cache of so many bytes.
func NewCache(p Policy, m Marks, capacity int64) *Cache {
	return &Cache{marks: m, capacity: capacity, policy: p, entries: map[orca.BlockID]*Entry{}}
}

// Use reads a whole block, and reports whether it was there.
func (c *Cache) Use(id orca.BlockID, size int64) bool {
	c.now++
	if e := c.entries[id]; e != nil {
		c.policy.Touch(e, c.now)
		return true
	}
	if size > c.capacity/2 {
		return false
	}
	e := &Entry{}
	if n := len(c.free); n > 0 {
		e, c.free = c.free[n-1], c.free[:n-1]
	}
	*e = Entry{ID: id, Size: size}
	c.entries[id] = e
	// Room first, as for a writer who waits for it, then the watermarks.
	c.shrink(size)
	c.used += size
	c.policy.Add(e, c.now)
	c.shrink(0)
	return false
}

func (c *Cache) shrink(want int64) {
	for excess := c.marks.Excess(c.used, c.capacity, want); excess > 0; {
		e := c.policy.Next(c.now, c.policy.Bytes()-excess)
		if e == nil {
			return
		}
		delete(c.entries, e.ID)
		c.free = append(c.free, e)
		c.used -= e.Size
		excess -= e.Size
	}
}

// Used returns the bytes cached.
func (c *Cache) Used() int64 { return c.used }

// Has reports whether a block is cached, without using it.
func (c *Cache) Has(id orca.BlockID) bool { return c.entries[id] != nil }

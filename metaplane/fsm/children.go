// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"hash/maphash"
	"iter"
	"math/bits"
)

// children are the subdirectories of a directory, by name: a table with open
// addressing that has no copy of the names, for the directories have them
// (ADR 0024). A byte of each one's hash is beside the table, so that a name that
// is not in it, a file's, is known not to be without a look at a directory. nil
// has none.
type children struct {
	seed  maphash.Seed
	slots []*node
	tags  []uint8 // of slots: free, dead, or tagUsed and seven bits of the hash
	live  int
	dead  int
}

const (
	tagFree = 0
	tagDead = 1
	tagUsed = 0x80

	// A table is at most childLoad/8 full and has childrenMin places at least.
	childLoad   = 6
	childrenMin = 4
)

// newChildren makes room for n.
func newChildren(seed maphash.Seed, n int) *children {
	c := &children{seed: seed}
	c.resize(n)
	return c
}

func (c *children) resize(n int) {
	places := max(n*8/childLoad+1, childrenMin)
	c.slots, c.tags, c.live, c.dead = make([]*node, places), make([]uint8, places), 0, 0
}

// place returns where the search for a name begins, and its tag.
func (c *children) place(name string) (int, uint8) {
	h := maphash.String(c.seed, name)
	at, _ := bits.Mul64(h, uint64(len(c.slots)))
	return int(at), tagUsed | uint8(h)
}

// find returns the slot of a name, -1 if it is not there.
func (c *children) find(name string) int {
	at, tag := c.place(name)
	for c.tags[at] != tagFree {
		if c.tags[at] == tag && c.slots[at].rec.Name == name {
			return at
		}
		if at++; at == len(c.tags) {
			at = 0
		}
	}
	return -1
}

func (c *children) get(name string) *node {
	if c == nil || c.live == 0 {
		return nil
	}
	if at := c.find(name); at >= 0 {
		return c.slots[at]
	}
	return nil
}

func (c *children) len() int {
	if c == nil {
		return 0
	}
	return c.live
}

// all are the subdirectories, in no order.
func (c *children) all() iter.Seq[*node] {
	return func(yield func(*node) bool) {
		if c == nil {
			return
		}
		for _, d := range c.slots {
			if d != nil && !yield(d) {
				return
			}
		}
	}
}

// add enters a directory under its name; one that has the name already gives
// way.
func (c *children) add(d *node) {
	if at := c.find(d.rec.Name); at >= 0 {
		c.slots[at] = d
		return
	}
	if (c.live+c.dead+1)*8 > len(c.slots)*childLoad {
		old := c.slots
		c.resize(2*c.live + 1)
		for _, d := range old {
			if d != nil {
				c.enter(d)
			}
		}
	}
	c.enter(d)
}

func (c *children) enter(d *node) {
	at, tag := c.place(d.rec.Name)
	for c.tags[at]&tagUsed != 0 {
		if at++; at == len(c.tags) {
			at = 0
		}
	}
	if c.tags[at] == tagDead {
		c.dead--
	}
	c.slots[at], c.tags[at] = d, tag
	c.live++
}

func (c *children) remove(name string) {
	if c.len() == 0 {
		return
	}
	at := c.find(name)
	if at < 0 {
		return
	}
	c.slots[at], c.tags[at] = nil, tagDead
	c.live--
	c.dead++
	if c.live == 0 { // as most directories are left
		c.resize(0)
	}
}

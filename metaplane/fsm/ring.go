// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"orca/metaplane/inode"
)

// ringLen is how many removed names a directory remembers.
const ringLen = 128

// ring remembers which names were removed from a directory when, so that a
// UFS listing begun before cannot bring them back. Of removals at or below
// floor it knows nothing, and takes every name to have been removed then.
type ring struct {
	floor uint64
	items []removal // oldest first
	dirty bool
}

type removal struct{ hash, index uint64 }

const ringFormat = 1

// noteRemoved notes that a name leaves a directory of a mount now.
func (m *Machine) noteRemoved(n *node, name string) {
	if m.mountOf(n) == nil {
		return
	}
	r := m.ringOf(n)
	if len(r.items) == ringLen {
		r.floor = r.items[0].index
		copy(r.items, r.items[1:])
		r.items = r.items[:ringLen-1]
	}
	r.items = append(r.items, removal{xxh3.HashString(name), m.batch.index})
	r.dirty = true
	m.dirtied(n)
}

// removedSince reports whether a name may have been removed after change.
func (m *Machine) removedSince(n *node, name string, change uint64) bool {
	r := m.ringOf(n)
	if change < r.floor {
		return true
	}
	h := xxh3.HashString(name)
	for _, it := range r.items {
		if it.index > change && it.hash == h {
			return true
		}
	}
	return false
}

// ringOf returns the ring of a directory, reading it once.
func (m *Machine) ringOf(n *node) *ring {
	if n.removed != nil {
		return n.removed
	}
	r := &ring{}
	v := m.get(inode.AppendKey8(nil, inode.SpaceRemoved, uint64(n.rec.Ino)))
	if len(v) >= 9 && v[0] == ringFormat {
		r.floor = binary.BigEndian.Uint64(v[1:])
		for v = v[9:]; len(v) >= 16; v = v[16:] {
			r.items = append(r.items, removal{binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:])})
		}
	}
	n.removed = r
	return r
}

// storeRing writes the ring of a directory if it changed.
func (m *Machine) storeRing(n *node) {
	r := n.removed
	if r == nil || !r.dirty {
		return
	}
	r.dirty = false
	m.batch.key = inode.AppendKey8(m.batch.key[:0], inode.SpaceRemoved, uint64(n.rec.Ino))
	v := binary.BigEndian.AppendUint64(append(m.batch.val[:0], ringFormat), r.floor)
	for _, it := range r.items {
		v = binary.BigEndian.AppendUint64(v, it.hash)
		v = binary.BigEndian.AppendUint64(v, it.index)
	}
	m.batch.val = v
	m.tx.Set(m.batch.key, v)
}

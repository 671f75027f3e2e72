// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// sweepLimit is the most inodes that one sweep command frees.
const sweepLimit = 4096

// trashed is a detached tree.
type trashed struct {
	node  *node
	mount uint32 // it was in
}

// detach moves a directory into the trash, to be swept.
func (m *Machine) detach(d *node, mount uint32) {
	m.cutDir(d)
	d.rec.Parent = trashIno
	m.dirtied(d)
	m.trash[d.rec.Ino] = &trashed{d, mount}
	v := binary.BigEndian.AppendUint32([]byte{recordFormat}, mount)
	m.tx.Set(inode.AppendKey8(nil, inode.SpaceTrash, uint64(d.rec.Ino)), v)
	m.effect(Effect{Kind: EffectTrash})
}

func (m *Machine) loadTrash() error {
	return m.scan(inode.SpaceTrash, func(k, v []byte) bool {
		if t := m.trash[orca.Ino(inode.Number(k))]; t != nil && len(v) == 5 {
			t.mount = binary.BigEndian.Uint32(v[1:])
		}
		return true
	})
}

// mountOrTrash is mountOf that also knows what a detached tree was in.
func (m *Machine) mountOrTrash(n *node) *command.Mount {
	for ; n != nil; n = n.parent {
		if n.rec.Mount != 0 {
			return m.mounts[n.rec.Mount]
		}
		if t := m.trash[n.rec.Ino]; t != nil {
			return m.mounts[t.mount]
		}
	}
	return nil
}

// sweepTrash frees up to limit inodes of the trash, deepest first.
func (m *Machine) sweepTrash(c *call, o *metapb.SweepTrashOp) *refusal {
	budget := int(o.Limit)
	if budget <= 0 || budget > sweepLimit {
		budget = sweepLimit
	}
	for _, ino := range slices.Sorted(maps.Keys(m.trash)) {
		if budget <= 0 {
			break
		}
		t := m.trash[ino]
		if m.sweep(t.node, &budget) {
			m.eraseDir(t.node)
			delete(m.trash, ino)
			m.tx.Delete(inode.AppendKey8(nil, inode.SpaceTrash, uint64(ino)))
		}
	}
	c.res.More = len(m.trash) > 0
	return nil
}

// sweeping is one level of a sweep.
type sweeping struct {
	node *node
	subs []*node // still to be swept
}

// sweep frees what is below top and reports whether top is empty now. It uses
// no recursion, for trees may be deep.
func (m *Machine) sweep(top *node, budget *int) bool {
	stack := []sweeping{{top, sortedSubs(top)}}
	for *budget > 0 && m.failed() == nil {
		at := &stack[len(stack)-1]
		if len(at.subs) > 0 {
			child := at.subs[0]
			at.subs = at.subs[1:]
			stack = append(stack, sweeping{child, sortedSubs(child)})
			continue
		}
		n := at.node
		m.sweepFiles(n, budget)
		if n.rec.Entries > 0 {
			return false
		}
		if n == top {
			return true
		}
		m.cutDir(n)
		m.eraseDir(n)
		*budget--
		stack = stack[:len(stack)-1]
	}
	return false
}

// sortedSubs returns the sub-directories of n by inode.
func sortedSubs(n *node) []*node {
	return slices.SortedFunc(n.sub.all(), func(a, b *node) int { return cmp.Compare(a.rec.Ino, b.rec.Ino) })
}

// sweepFiles frees files of a directory that has no sub-directories.
func (m *Machine) sweepFiles(n *node, budget *int) {
	var names []string
	m.eachDirent(n, "", "", func(name string, _ []byte) bool {
		names = append(names, name)
		*budget--
		return *budget > 0
	})
	// Looked up one by one: a file may have several of the names, and its record
	// is another one with each that goes.
	for _, name := range names {
		if f := m.lookup(n, name).file; f != nil {
			m.eraseFile(n, name, f)
		}
	}
}

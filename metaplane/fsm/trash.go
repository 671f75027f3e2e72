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
	// Of what has moved to another group: its root there, and until when who has
	// a file of it open is sent there. 0: it is swept at once.
	to    uint64
	until int64
	// Of what is to be put at a name of this group (stagedtree.go): the
	// transaction that brings it, and whether it is all there. 0: it is on its
	// way out.
	tx     uint64
	sealed bool
}

// detach moves a directory into the trash, to be swept.
func (m *Machine) detach(d *node, mount uint32) {
	m.cutDir(d)
	d.rec.Parent = trashIno
	m.dirtied(d)
	m.trash[d.rec.Ino] = &trashed{node: d, mount: mount}
	v := binary.BigEndian.AppendUint32([]byte{recordFormat}, mount)
	m.tx.Set(inode.AppendKey8(nil, inode.SpaceTrash, uint64(d.rec.Ino)), v)
	m.effect(Effect{Kind: EffectTrash})
}

// detachTo is detach of what lives in another group by now, at root.
func (m *Machine) detachTo(d *node, root uint64) {
	m.detach(d, 0)
	t := m.trash[d.rec.Ino]
	t.to, t.until = root, m.batch.now+forwardFor
	v := binary.BigEndian.AppendUint32([]byte{recordFormat}, 0)
	v = binary.BigEndian.AppendUint64(v, t.to)
	v = binary.BigEndian.AppendUint64(v, uint64(t.until))
	m.tx.Set(inode.AppendKey8(nil, inode.SpaceTrash, uint64(d.rec.Ino)), v)
}

func (m *Machine) loadTrash() error {
	return m.scan(inode.SpaceTrash, func(k, v []byte) bool {
		if t := m.trash[orca.Ino(inode.Number(k))]; t != nil && len(v) >= 5 {
			t.mount = binary.BigEndian.Uint32(v[1:])
			if len(v) >= 21 {
				t.to, t.until = binary.BigEndian.Uint64(v[5:]), int64(binary.BigEndian.Uint64(v[13:]))
			}
			m.loadStaged(t, v)
		}
		return true
	})
}

// Sweepable reports whether a sweep at now (unix ns) would free anything.
func (m *Machine) Sweepable(now int64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.sweepable(now)
}

func (m *Machine) sweepable(now int64) bool {
	for _, t := range m.trash {
		if t.until <= now && t.tx == 0 {
			return true
		}
	}
	return false
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
		if t.until > m.batch.now || t.tx != 0 {
			continue
		}
		if m.sweep(t.node, &budget) {
			m.eraseDir(t.node)
			delete(m.trash, ino)
			m.tx.Delete(inode.AppendKey8(nil, inode.SpaceTrash, uint64(ino)))
		}
	}
	c.res.More = m.sweepable(m.batch.now)
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

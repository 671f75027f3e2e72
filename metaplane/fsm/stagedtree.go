// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"orca"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// What comes from another group to be put at a name of this one is staged as a
// tree that has no place yet: it is known by the number of the transaction that
// brings it, and is among the detached directories, so that nobody finds it by
// path or number, and no sum and no quota above has it.
//
//	self ─► pages ─► sealed ─► placed: a directory like any other
//	   └───────┴────────┴────► given up: swept
//
// A page that comes again changes nothing, and none comes after the seal, or
// after the end of the transaction; who begins again is told of the seal. A tree
// stays until it is placed or given up, whoever leads and however often the group
// starts again.

// stageTree adds to a tree that has no place yet.
func (m *Machine) stageTree(c *call, o *metapb.StageOp) *refusal {
	t := m.staging[o.Tx]
	switch {
	case c.who.UID != 0:
		return refuse(orca.Permission, "", "only groups hand directories to each other")
	case o.Mount != 0:
		return refuse(orca.Invalid, "", "what is staged is a mount or a tree")
	case o.Forget:
		m.forgetTree(o.Tx)
		return nil
	case t == nil:
		return m.beginTree(c, o)
	case !t.sealed:
		return m.addToTree(c, o, t)
	case len(o.Pages) == 0: // sealed before
		c.res.Id, c.res.Existed = uint64(t.node.rec.Ino), true
		return nil
	}
	return refuse(orca.Stale, "", "all of it is here already")
}

// beginTree makes the root of a tree.
func (m *Machine) beginTree(c *call, o *metapb.StageOp) *refusal {
	switch {
	case m.endedStage(o.Tx):
		return refuse(orca.Stale, "", "no such directory is being moved here any more")
	case o.Self == nil:
		return refuse(orca.Stale, "", "nothing of this directory is here")
	}
	if r := m.refusedEarly(o.Ask); r != nil {
		return r
	}
	n := &node{}
	t := &trashed{node: n, tx: o.Tx}
	if _, r := m.checkStage(o, n); r != nil {
		return r
	}
	r := &n.rec
	r.Ino, r.Parent, r.Name, r.Change = m.newIno(), trashIno, strings.Clone(o.Self.Name), m.batch.index
	m.dirs[r.Ino], m.trash[r.Ino], m.staging[o.Tx] = n, t, t
	m.count.dirs++
	m.dirtied(n)
	m.putStaged(t)
	return m.addToTree(c, o, t)
}

// endedStage reports whether a transaction is over: what comes for it is late.
func (m *Machine) endedStage(tx uint64) bool {
	from := orca.Ino(tx).Home()
	return m.outcomes.decided[tx] != nil || tx < m.outcomes.below[from] ||
		from == max(m.cfg.Group, 1) && m.intents[tx] == nil // it is an intent of this group
}

func (m *Machine) addToTree(c *call, o *metapb.StageOp, t *trashed) *refusal {
	c.res.Id = uint64(t.node.rec.Ino)
	if r := m.stageBelow(c, o, t.node); r != nil || o.Seal == nil {
		return r
	}
	if r := t.node.below.short(o.Seal, t.node.rec.Name); r != nil {
		return r
	}
	t.sealed = true
	m.putStaged(t)
	return nil
}

// stagedTree returns the root of a tree that is all here and has no place yet; nil
// if there is none.
func (m *Machine) stagedTree(tx uint64) *node {
	if t := m.staging[tx]; t != nil && t.sealed {
		return t.node
	}
	return nil
}

// placeTree puts a tree at a free name of a directory.
func (m *Machine) placeTree(tx uint64, parent *node, name string) *node {
	n := m.staging[tx].node
	delete(m.staging, tx)
	delete(m.trash, n.rec.Ino)
	m.tx.Delete(inode.AppendKey8(nil, inode.SpaceTrash, uint64(n.rec.Ino)))
	n.rec.Name, n.rec.Ctime, n.rec.Change = strings.Clone(name), m.batch.now, m.batch.index
	m.addDir(parent, n)
	m.markPersisted(parent)
	return n
}

// forgetTree gives a tree up: it is swept like any other that is detached.
func (m *Machine) forgetTree(tx uint64) {
	t := m.staging[tx]
	if t == nil {
		return
	}
	delete(m.staging, tx)
	t.tx, t.sealed = 0, false
	m.putStaged(t)
	m.effect(Effect{Kind: EffectTrash})
}

// forgetTrees gives up what a group brings no more.
func (m *Machine) forgetTrees(from uint16, below uint64) {
	for _, tx := range slices.Sorted(maps.Keys(m.staging)) {
		if orca.Ino(tx).Home() == from && tx < below {
			m.forgetTree(tx)
		}
	}
}

// stagedLen is the length of the record of a staged tree among those of detached
// ones: what they have, the transaction, and whether it is sealed.
const stagedLen = 1 + 4 + 8 + 8 + 8 + 1

func (m *Machine) putStaged(t *trashed) {
	v := binary.BigEndian.AppendUint32([]byte{recordFormat}, t.mount)
	if t.tx != 0 {
		v = append(v, make([]byte, stagedLen-len(v))...)
		binary.BigEndian.PutUint64(v[stagedLen-9:], t.tx)
		if t.sealed {
			v[stagedLen-1] = 1
		}
	}
	m.tx.Set(inode.AppendKey8(nil, inode.SpaceTrash, uint64(t.node.rec.Ino)), v)
}

// loadStaged reads what the record of a detached tree says of its being staged.
func (m *Machine) loadStaged(t *trashed, v []byte) {
	if len(v) >= stagedLen {
		t.tx, t.sealed = binary.BigEndian.Uint64(v[stagedLen-9:]), v[stagedLen-1] != 0
		m.staging[t.tx] = t
	}
}

// Staged are the transactions that trees are here for which have no place yet.
func (m *Machine) Staged() []uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Sorted(maps.Keys(m.staging))
}

// staging checks that what is staged is detached, on record, and expected still.
func (c *checker) staging() {
	m := c.m
	var staged int64
	for ino, t := range m.trash {
		if t.tx == 0 {
			continue
		}
		staged++
		if m.staging[t.tx] != t || t.node.rec.Ino != ino || t.node.parent != nil || t.to != 0 {
			c.wrong("directory %v is staged for %d, and something else as well", ino, t.tx)
		}
		if m.endedStage(t.tx) {
			c.wrong("directory %v is staged for %d, which is over", ino, t.tx)
		}
		var rec trashed
		if v := m.get(inode.AppendKey8(nil, inode.SpaceTrash, uint64(ino))); len(v) == stagedLen {
			rec.tx, rec.sealed = binary.BigEndian.Uint64(v[stagedLen-9:]), v[stagedLen-1] != 0
		}
		if rec.tx != t.tx || rec.sealed != t.sealed {
			c.wrong("the staged directory %v differs between memory and store", ino)
		}
	}
	c.equal("staged trees", int64(len(m.staging)), staged)
}

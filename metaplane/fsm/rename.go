// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// rename moves a file or directory, replacing a file or an empty directory.
func (m *Machine) rename(c *call, o *metapb.RenameOp) *refusal {
	if o.Away != nil {
		return m.sendAway(c, o)
	}
	src, r := m.resolve(&c.who, o.Src, c.decided == nil)
	if r != nil {
		return r
	}
	dst, r := m.resolve(&c.who, o.Dst, c.decided == nil)
	if r != nil && r.kind == orca.Referral {
		return refuse(orca.CrossMount, dst.path, "")
	}
	if r != nil {
		return r
	}
	if r := m.unknownName(c, &src); r != nil {
		return r
	}
	if src.none() {
		return refuse(orca.NotFound, src.path, "")
	}
	if r := m.unknownName(c, &dst); r != nil {
		return r
	}
	if src.dir == dst.dir && src.name == dst.name || src.file != nil && src.ino() == dst.ino() {
		if o.NoReplace {
			return refuse(orca.Exists, dst.path, "")
		}
		return nil
	}
	if o.Exchange {
		return m.exchange(c, o, &src, &dst)
	}
	if c.decided == nil {
		r := firstRefusal(m.checkRename(c, o, &src, &dst), m.checkRenamer(c, &src, &dst))
		if r != nil {
			return r
		}
	}
	d := src.dentry.dir
	from, to := m.locateName(&src), m.locateName(&dst)
	if r := firstRefusal(m.free(c, from, d != nil, src.path), m.free(c, to, true, dst.path)); r != nil {
		return r
	}
	if from.id() != to.id() {
		return refuse(orca.CrossMount, dst.path, "")
	}
	if r := m.rehoming(c, &dst); r != nil {
		return r
	}
	if c.decided == nil {
		mv, r := m.roomToMove(&src, &dst)
		if r != nil {
			return r
		}
		if it := m.renameIntent(&src, &dst, from, to); it != nil && !it.Deferred {
			mv.holdBy(it)
			op := &metapb.RenameOp{Src: here(&src), Dst: here(&dst), NoReplace: o.NoReplace}
			return m.begin(c, it, from, func(cmd *command.Command) { cmd.Rename = op })
		} else if it != nil {
			if r := m.addIntent(c, it, from); r != nil {
				return r
			}
		}
	}
	m.move(c, &src, &dst)
	return nil
}

// renameIntent says what a rename means for the UFS; nil: nothing.
func (m *Machine) renameIntent(src, dst *spot, from, to located) *command.Intent {
	if from.mount == nil {
		return nil
	}
	d := src.dentry.dir
	it := &command.Intent{
		Op: metapb.IntentOp_INTENT_RENAME, Source: from.key, Target: to.key, Ino: uint64(src.ino()),
		Dir: d != nil, Subtree: true, Replaces: !dst.none(),
	}
	switch {
	case d != nil && m.objectAt(src):
	case m.objectAt(src):
		it.Want, it.Version = src.file.Fingerprint, src.file.Version
	case dst.file != nil && m.objectAt(dst):
		// What replaces it is not in the UFS: the old object has to go. The
		// target of the intent only keeps the source's key from changing.
		it.Op, it.Source, it.Target = metapb.IntentOp_INTENT_REMOVE, to.key, from.key
		it.Ino, it.Want, it.Replaces = uint64(dst.file.Ino), dst.file.Fingerprint, false
		return it
	default:
		return nil
	}
	if !from.mount.AtomicRename {
		it.Op, it.Deferred = metapb.IntentOp_INTENT_MOVE, true
	}
	return it
}

// checkRename refuses what cannot be, whoever asks.
func (m *Machine) checkRename(c *call, o *metapb.RenameOp, src, dst *spot) *refusal {
	d, e := src.dentry.dir, dst.dentry.dir
	switch {
	case len(dst.rest) > 1:
		return refuse(orca.NotFound, dst.path, "")
	case src.isRoot() || dst.isRoot():
		return refuse(orca.Invalid, src.path, "the root cannot be renamed")
	case m.part(d) != nil || m.part(e) != nil: // both in the group that the first is in
		return refuse(orca.CrossMount, dst.path, "")
	case d != nil && d.rec.Mount != 0 || e != nil && e.rec.Mount != 0:
		return refuse(orca.Invalid, src.path, "it is a mount point")
	case !dst.none() && o.NoReplace:
		return refuse(orca.Exists, dst.path, "")
	case d == nil && e != nil:
		return refuse(orca.IsDir, dst.path, "")
	case d != nil && dst.file != nil:
		return refuse(orca.NotDir, dst.path, "")
	case d != nil && under(dst.dir, d):
		return refuse(orca.Invalid, dst.path, "a directory cannot be moved below itself")
	case e != nil && e.rec.Entries > 0:
		return m.notEmpty(e, dst.path)
	case d != nil && m.stays(d, src.path) != nil:
		return m.stays(d, src.path)
	}
	if dst.none() {
		if r := checkNew(dst.dir, dst.rest, dst.path); r != nil {
			return r
		}
	}
	if e != nil {
		if r := m.unknownContent(c, e, dst.path); r != nil {
			return r
		}
	}
	return firstRefusal(writable(m.mountOf(src.dir), src.path), writable(m.mountOf(dst.dir), dst.path),
		m.idle(src.dir, src.name, d, src.path), m.idle(dst.dir, dst.name, e, dst.path))
}

// checkRenamer refuses who may not.
func (m *Machine) checkRenamer(c *call, src, dst *spot) *refusal {
	if r := mayCut(&c.who, src); r != nil {
		return r
	}
	if d := src.dentry.dir; d != nil && src.dir != dst.dir && !allowedDir(&c.who, d, mayWrite) {
		return refuse(orca.Permission, src.path, "")
	}
	if dst.none() {
		return mayChange(&c.who, dst.dir, dst.path)
	}
	return mayCut(&c.who, dst)
}

// move is the namespace effect of a rename.
func (m *Machine) move(c *call, src, dst *spot) {
	if !dst.none() {
		c.res.Replaced = uint64(dst.ino())
		m.erase(&spot{dir: dst.dir, name: dst.name, dentry: dst.dentry})
	}
	ino := src.ino()
	if e := m.deleted[ino]; e != nil {
		m.leaveBin(e)
	}
	m.takeOut(c, src)(dst.dir, dst.name)
	c.res.Attr = m.attrOf(&spot{dir: dst.dir, name: dst.name, dentry: m.lookup(dst.dir, dst.name)})
	c.res.Parent = uint64(dst.dir.rec.Ino)
	m.event(metapb.EventKind_EVENT_ENTRY, ino, src.dir.rec.Ino, src.name)
	m.event(metapb.EventKind_EVENT_ENTRY, ino, dst.dir.rec.Ino, dst.name)
}

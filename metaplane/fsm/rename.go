// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// rename moves a file or directory, replacing a file or an empty directory.
func (m *Machine) rename(c *call, o *metapb.RenameOp) *refusal {
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
	if src.dir == dst.dir && src.name == dst.name {
		if o.NoReplace {
			return refuse(orca.Exists, dst.path, "")
		}
		return nil
	}
	if c.decided == nil {
		if r := firstRefusal(m.checkRename(c, o, &src, &dst), m.checkRenamer(c, &src, &dst)); r != nil {
			return r
		}
	}
	d := src.dentry.dir
	from, to := m.locateSpot(&src), m.locateSpot(&dst)
	if r := firstRefusal(m.free(c, from, d != nil, src.path), m.free(c, to, true, dst.path)); r != nil {
		return r
	}
	if from.id() != to.id() {
		return refuse(orca.CrossMount, dst.path, "")
	}
	if c.decided == nil {
		want, above, r := m.roomToMove(&src, &dst)
		if r != nil {
			return r
		}
		if it := m.renameIntent(&src, &dst, from, to); it != nil && !it.Deferred {
			if !want.none() {
				it.HoldDir, it.HoldBelow = uint64(dst.dir.rec.Ino), uint64(above.ino())
				it.HoldBytes, it.HoldInodes = want.bytes, want.inodes
			}
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
	case d != nil && d.rec.Flags.Has(inode.Persisted):
	case src.file != nil && src.file.Fingerprint != "":
		it.Want, it.Version = src.file.Fingerprint, src.file.Version
	case dst.file != nil && dst.file.Fingerprint != "":
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
		return refuse(orca.NotEmpty, dst.path, "")
	case d != nil && m.mountBelow(d):
		return refuse(orca.Invalid, src.path, "there is a mount point below it")
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
	var over inode.Override
	if it := c.res.Intent; it != nil && it.Op == metapb.IntentOp_INTENT_MOVE {
		over = inode.Override{By: it.Id, Key: it.Source}
	}
	ino := src.ino()
	if src.file != nil {
		f := clone(src.file)
		f.Ctime, f.Change, f.Override = c.now, m.batch.index, over
		if fp := c.decide.GetFingerprint(); fp != "" && f.Fingerprint != "" {
			f.Fingerprint = fp
		}
		m.cutFile(src.dir, src.name, src.file)
		m.addFile(dst.dir, dst.name, f)
		if f.Fingerprint != "" {
			m.markPersisted(dst.dir)
		}
		c.res.Attr = m.fileAttr(f, m.locateFile(dst.dir, dst.name, f))
	} else {
		d := src.dentry.dir
		m.cutDir(d)
		d.rec.Name, d.rec.Ctime, d.rec.Change, d.rec.Override = dst.name, c.now, m.batch.index, over
		m.addDir(dst.dir, d)
		if d.rec.Flags.Has(inode.Persisted) {
			m.markPersisted(dst.dir)
		}
		c.res.Attr = m.dirAttr(d, m.locate(d, ""))
	}
	c.res.Parent = uint64(dst.dir.rec.Ino)
	m.event(metapb.EventKind_EVENT_ENTRY, ino, src.dir.rec.Ino, src.name)
	m.event(metapb.EventKind_EVENT_ENTRY, ino, dst.dir.rec.Ino, dst.name)
}

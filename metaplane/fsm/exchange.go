// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// exchange has two names change places, whatever they name.
func (m *Machine) exchange(c *call, o *metapb.RenameOp, src, dst *spot) *refusal {
	if dst.none() {
		return refuse(orca.NotFound, dst.path, "")
	}
	if c.decided == nil {
		if r := m.checkExchange(c, o, src, dst); r != nil {
			return r
		}
	}
	d, e := src.dentry.dir, dst.dentry.dir
	from, to := m.locateName(src), m.locateName(dst)
	if r := firstRefusal(m.free(c, from, d != nil, src.path), m.free(c, to, e != nil, dst.path)); r != nil {
		return r
	}
	if from.id() != to.id() {
		return refuse(orca.CrossMount, dst.path, "")
	}
	var there, back move
	if c.decided == nil {
		var r *refusal
		if there, back, r = m.roomToExchange(src, dst); r != nil {
			return r
		}
	}
	if c.decided == nil && from.mount != nil {
		it, r := m.exchangeIntent(src, dst, from, to)
		switch {
		case r != nil:
			return r
		case it == nil:
		case it.Deferred:
			if r := m.addIntent(c, it, from); r != nil {
				return r
			}
		default:
			there.holdBy(it)
			back.holdBackBy(it)
			op := &metapb.RenameOp{Src: here(src), Dst: here(dst), Exchange: true}
			return m.begin(c, it, from, func(cmd *command.Command) { cmd.Rename = op })
		}
	}
	m.swap(c, src, dst)
	return nil
}

func (m *Machine) checkExchange(c *call, o *metapb.RenameOp, src, dst *spot) *refusal {
	d, e := src.dentry.dir, dst.dentry.dir
	switch {
	case o.NoReplace:
		return refuse(orca.Invalid, dst.path, "to exchange and not to replace exclude each other")
	case src.isRoot() || dst.isRoot():
		return refuse(orca.Invalid, src.path, "the root cannot be renamed")
	case d != nil && m.partBelow(d) != nil, e != nil && m.partBelow(e) != nil:
		return refuse(orca.CrossMount, dst.path, "a directory in one of them lives in another group")
	case d != nil && (under(dst.dir, d) || m.mountBelow(d)), e != nil && (under(src.dir, e) || m.mountBelow(e)):
		return refuse(orca.Invalid, dst.path, "one is below the other, or a mount point is in them")
	}
	for _, at := range []*spot{src, dst} {
		r := firstRefusal(mayCut(&c.who, at), writable(m.mountOf(at.dir), at.path), m.idle(at.dir, at.name, at.dentry.dir, at.path))
		if r != nil {
			return r
		}
		if at.dentry.dir != nil && src.dir != dst.dir && !allowedDir(&c.who, at.dentry.dir, mayWrite) {
			return refuse(orca.Permission, at.path, "")
		}
	}
	return nil
}

// exchangeIntent says what an exchange means for the UFS; nil: nothing.
func (m *Machine) exchangeIntent(src, dst *spot, from, to located) (*command.Intent, *refusal) {
	a, b := m.objectAt(src), m.objectAt(dst)
	it := &command.Intent{Op: metapb.IntentOp_INTENT_RENAME, Subtree: true}
	switch {
	case a && b && !from.mount.Exchange:
		return nil, refuse(orca.Unsupported, dst.path, "the store cannot exchange two names in one call")
	case a && b:
		it.Op, it.Source, it.Target, it.Ino, it.Dir = metapb.IntentOp_INTENT_EXCHANGE, from.key, to.key, uint64(src.ino()), src.dentry.dir != nil
		return it, nil
	case b:
		src, from, to = dst, to, from
	case !a:
		return nil, nil
	}
	it.Source, it.Target, it.Ino, it.Dir = from.key, to.key, uint64(src.ino()), src.dentry.dir != nil
	if src.file != nil {
		it.Want, it.Version = src.file.Fingerprint, src.file.Version
	}
	if !from.mount.AtomicRename {
		it.Op, it.Deferred = metapb.IntentOp_INTENT_MOVE, true
	}
	return it, nil
}

// swap is the namespace effect of an exchange.
func (m *Machine) swap(c *call, src, dst *spot) {
	put1, put2 := m.takeOut(c, src), m.takeOut(c, dst)
	put1(dst.dir, dst.name)
	put2(src.dir, src.name)
	m.event(metapb.EventKind_EVENT_ENTRY, dst.ino(), src.dir.rec.Ino, src.name)
	m.event(metapb.EventKind_EVENT_ENTRY, src.ino(), dst.dir.rec.Ino, dst.name)
	c.res.Parent = uint64(dst.dir.rec.Ino)
	c.res.Attr = m.attrOf(&spot{dir: dst.dir, name: dst.name, dentry: m.lookup(dst.dir, dst.name)})
}

// attrOf is the metapb form of what a spot leads to.
func (m *Machine) attrOf(s *spot) *metapb.Attr {
	if s.file != nil {
		return m.fileAttr(s.file, m.locateFile(s.dir, s.name, s.file))
	}
	return m.dirAttr(s.dentry.dir, m.locate(s.dentry.dir, ""))
}

// takeOut takes a name out of its directory; what it returns enters it
// elsewhere.
func (m *Machine) takeOut(c *call, s *spot) func(n *node, name string) {
	var over inode.Override
	if it := c.res.Intent; it != nil && it.Ino == uint64(s.ino()) {
		over = moveOverride(c)
	}
	if d := s.dentry.dir; d != nil {
		m.cutDir(d)
		return func(n *node, name string) {
			d.rec.Name, d.rec.Ctime, d.rec.Change, d.rec.Override = name, c.now, m.batch.index, over
			m.addDir(n, d)
			if d.rec.Flags.Has(inode.Persisted) {
				m.markPersisted(n)
			}
		}
	}
	alias := m.alias(s.dir, s.name, s.file)
	f := clone(s.file)
	f.Ctime = c.now
	if !alias {
		f.Change, f.Override = m.batch.index, over
		if fp := c.decide.GetFingerprint(); fp != "" && f.Fingerprint != "" && c.decided.Ino == uint64(f.Ino) {
			f.Fingerprint = fp
		}
	}
	if f.Flags.Has(inode.Linked) {
		m.cutName(s.dir, s.name, f.Ino)
	} else {
		m.cutFile(s.dir, s.name, f)
	}
	return func(n *node, name string) {
		m.enterFile(n, name, f, alias)
	}
}

// enterFile enters a name that was taken out elsewhere.
func (m *Machine) enterFile(n *node, name string, f *inode.File, alias bool) {
	if f.Fingerprint != "" && !alias {
		m.markPersisted(n)
	}
	if !f.Flags.Has(inode.Linked) {
		m.addFile(n, name, f)
		return
	}
	m.enterName(n, name, f.Ino)
	if !alias {
		m.moveHome(n, name, f)
	}
	m.putLinked(f)
}

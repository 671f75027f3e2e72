// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"strings"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// mkdir makes a directory, and with parents those above it.
func (m *Machine) mkdir(c *call, o *metapb.MkdirOp) *refusal {
	s, r := m.resolve(&c.who, o.Target, c.decided == nil)
	if r != nil {
		return r
	}
	if !s.none() {
		return m.mkdirExisting(c, o, &s)
	}
	if r := m.unknownName(c, &s); r != nil {
		return r
	}
	if c.decided == nil {
		if len(s.rest) > 1 && !o.Parents {
			return refuse(orca.NotFound, s.path, "")
		}
		r := firstRefusal(writable(m.mountOf(s.dir), s.path), mayChange(&c.who, s.dir, s.path),
			checkNew(s.dir, s.rest, s.path), m.idle(s.dir, s.name, nil, s.path), m.checkPart(c, o, &s))
		if r != nil {
			return r
		}
	}
	top := m.locate(s.dir, s.name)
	if r := m.free(c, top, true, s.path); r != nil {
		return r
	}
	if c.decided == nil {
		if r := m.fits(s.dir, nil, room{inodes: int64(len(s.rest))}, s.path); r != nil {
			return r
		}
	}
	if top.mount != nil && c.decided == nil {
		op := &metapb.MkdirOp{Target: here(&s), Mode: o.Mode, Parents: o.Parents, ExistOk: o.ExistOk, Group: o.Group}
		key := m.locate(s.dir, strings.Join(s.rest, "/"))
		return m.begin(c, &command.Intent{
			Op: metapb.IntentOp_INTENT_MKDIR, Source: top.key, Target: key.key,
			Mkdirs: uint32(len(s.rest)), Subtree: true, Dir: true,
			HoldDir: uint64(s.dir.rec.Ino), HoldInodes: int64(len(s.rest)),
		}, key, func(cmd *command.Command) { cmd.Mkdir = op })
	}
	n := s.dir
	for i, name := range s.rest {
		mode := o.Mode
		if i < len(s.rest)-1 {
			mode |= 0o300
		}
		n = m.newDir(c, n, name, mode, !c.decide.GetExisted())
	}
	if top.mount != nil {
		m.markPersisted(n)
	}
	if o.Group > 1 {
		m.putAway(n, o.Group)
	}
	c.res.Attr = m.dirAttr(n, m.locate(n, ""))
	c.res.Parent = uint64(n.rec.Parent)
	return nil
}

func (m *Machine) mkdirExisting(c *call, o *metapb.MkdirOp, s *spot) *refusal {
	switch {
	case s.dentry.dir == nil || !(o.ExistOk || o.Parents):
		return refuse(orca.Exists, s.path, "")
	case o.Group > 1 && m.first():
		return refuse(orca.Exists, s.path, "it is there already, and stays in its group")
	case o.Group > 1 && (o.Group != uint32(m.cfg.Group) || m.part(s.dentry.dir) == nil):
		return refuse(orca.Exists, s.path, fmt.Sprintf("it is there already, and lives in group %d", m.cfg.Group))
	}
	c.res.Existed = true
	c.res.Attr = m.dirAttr(s.dentry.dir, m.locate(s.dentry.dir, ""))
	c.res.Parent = uint64(s.dir.rec.Ino)
	return nil
}

// newDir makes one directory. known says that nothing can be in the UFS below
// it, so that it need not be listed.
func (m *Machine) newDir(c *call, parent *node, name string, mode uint32, known bool) *node {
	d := &node{rec: inode.Dir{
		Ino: m.newIno(), Name: name, Mode: mode & 0o7777, UID: c.who.UID, GID: c.who.GID,
		Mtime: c.now, Ctime: c.now, Atime: c.now, Change: m.batch.index,
	}}
	if parent.rec.Mode&modeSetgid != 0 {
		d.rec.GID = parent.rec.GID
		d.rec.Mode |= modeSetgid
	}
	if known {
		d.rec.Flags, d.rec.LoadedAt = inode.Loaded, c.now
	}
	m.dirs[d.rec.Ino] = d
	m.count.dirs++
	m.addDir(parent, d)
	m.event(metapb.EventKind_EVENT_ENTRY, d.rec.Ino, parent.rec.Ino, name)
	return d
}

// remove deletes a file or an empty directory, or detaches a whole tree.
func (m *Machine) remove(c *call, o *metapb.DeleteOp) *refusal {
	s, r := m.resolve(&c.who, o.Target, c.decided == nil)
	if r != nil && r.kind == orca.Referral && r.junction && s.dentry.dir != nil {
		if row := m.part(s.dentry.dir); row != nil {
			return m.removePart(c, o, &s, row)
		}
	}
	if r != nil {
		return r
	}
	if r := m.unknownName(c, &s); r != nil {
		return r
	}
	if s.none() {
		return refuse(orca.NotFound, s.path, "")
	}
	if !m.first() && m.part(s.dentry.dir) != nil {
		return sendBack(o.Target) // its directory is the first group's
	}
	if c.decided == nil {
		if r := m.checkRemove(c, o, &s); r != nil {
			return r
		}
	}
	loc := m.locateName(&s)
	d := s.dentry.dir
	if r := m.free(c, loc, d != nil, s.path); r != nil {
		return r
	}
	if r := m.leaveHome(c, o, &s, loc); r != nil {
		return r
	}
	below := loc.mount != nil && !o.CacheOnly
	tree := d != nil && (d.rec.Entries > 0 || o.Recursive && !d.rec.Flags.Has(inode.Loaded))
	switch {
	case o.Linked && (s.file == nil || !s.file.Flags.Has(inode.Linked)):
		return nil
	case m.keeps(c, o, &s, loc, tree) && !(s.file != nil && c.decide.GetVanished()):
		return m.discard(c, o, &s, loc)
	}
	if tree && c.decided == nil {
		return m.removeTree(c, &s, loc, below && d.rec.Flags.Has(inode.Persisted))
	}
	inUFS := below && m.objectAt(&s) && !m.isHome(&s)
	if inUFS && c.decided == nil {
		it := &command.Intent{
			Op: metapb.IntentOp_INTENT_REMOVE, Source: loc.key, Ino: uint64(s.ino()), Dir: d != nil, Subtree: d != nil,
		}
		if s.file != nil {
			it.Want, it.Version = s.file.Fingerprint, s.file.Version
		}
		op := &metapb.DeleteOp{Target: here(&s), Recursive: o.Recursive, Want: o.Want}
		return m.begin(c, it, loc, func(cmd *command.Command) { cmd.Delete = op })
	}
	c.res.Replaced = uint64(s.ino())
	m.erase(&s)
	return nil
}

// erase takes the end of a spot, a file or an empty directory, away.
func (m *Machine) erase(s *spot) {
	ino := s.ino()
	if s.file != nil {
		m.eraseFile(s.dir, s.name, s.file)
	} else {
		m.cutDir(s.dentry.dir)
		m.eraseDir(s.dentry.dir)
	}
	m.event(metapb.EventKind_EVENT_ENTRY, ino, s.dir.rec.Ino, s.name)
}

func (m *Machine) checkRemove(c *call, o *metapb.DeleteOp, s *spot) *refusal {
	d := s.dentry.dir
	switch {
	case d != nil && o.Want == 1:
		return refuse(orca.IsDir, s.path, "")
	case d == nil && o.Want == 2:
		return refuse(orca.NotDir, s.path, "")
	case s.isRoot():
		return refuse(orca.Invalid, s.path, "the root cannot be removed")
	case d != nil && d.rec.Mount != 0:
		return refuse(orca.Invalid, s.path, "it is a mount point: unmount it")
	}
	if r := mayCut(&c.who, s); r != nil {
		return r
	}
	if !o.CacheOnly {
		if r := writable(m.mountOf(s.dir), s.path); r != nil {
			return r
		}
	}
	if r := m.idle(s.dir, s.name, d, s.path); r != nil {
		return r
	}
	if d == nil {
		return nil
	}
	owner := c.who.UID == 0 || c.who.UID == d.rec.UID
	if !o.Recursive || !owner {
		if r := m.unknownContent(c, d, s.path); r != nil {
			return r
		}
	}
	if d.rec.Entries == 0 {
		return nil
	}
	switch {
	case !o.Recursive:
		return m.notEmpty(d, s.path)
	case m.partBelow(d) != nil:
		p := m.partBelow(d).Mount
		return refuse(orca.NotEmpty, s.path, fmt.Sprintf("%s lives in group %d: remove it first", p.Path, p.Group))
	case m.mountBelow(d):
		return refuse(orca.Invalid, s.path, "there is a mount point below it")
	case !owner:
		r := refuse(orca.Permission, s.path, "only its owner may remove a directory with all in it")
		r.walk = true
		return r
	case d.linked > 0:
		// Each of these names may leave others that the content is kept for.
		return &refusal{kind: orca.Busy, path: s.path, walk: true, msg: "names of files with several are removed from it first"}
	}
	return nil
}

// removeTree detaches a directory with all below it: O(1) for the caller. The
// inodes are swept in the background, the UFS is brought in line by an intent.
func (m *Machine) removeTree(c *call, s *spot, loc located, inUFS bool) *refusal {
	d := s.dentry.dir
	if inUFS {
		it := &command.Intent{
			Op: metapb.IntentOp_INTENT_REMOVE_TREE, Deferred: true, Source: loc.key,
			Ino: uint64(d.rec.Ino), Dir: true, Subtree: true,
		}
		if r := m.addIntent(c, it, loc); r != nil {
			return r
		}
	}
	ino, mount := d.rec.Ino, loc.id()
	m.detach(d, mount)
	c.res.Replaced = uint64(ino)
	m.event(metapb.EventKind_EVENT_ENTRY, ino, s.dir.rec.Ino, s.name)
	return nil
}

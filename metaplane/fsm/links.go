// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// A file with several names (Linked) has its record under SpaceLinked and not
// in a dentry, and a key of SpaceName for each name. One name is its home,
// where its place points: the UFS has the content at the key of that one alone,
// the others are aliases, which the UFS does not know (ADR 0011). So everything
// about the content goes by the home, and a sync leaves aliases alone. When the
// home is to go, the content is first rehomed to another name. A file that has
// one name left lives in its dentry again. In the sums of directories the file
// counts once, at its home.

// maxLinks is the most names that one file may have.
const maxLinks = 1 << 20

// linkedKey is where the record of a file with several names is cached.
func linkedKey(ino orca.Ino) nameKey { return nameKey{dir: ino} }

// stub is what is cached of a dentry that leads to such a file.
func stub(ino orca.Ino) *inode.File { return &inode.File{Ino: ino, Flags: inode.Linked} }

func isStub(f *inode.File) bool { return f.Flags.Has(inode.Linked) && f.Links == 0 }

// follow returns the record of what was found at a name; nil: the store has
// failed.
func (m *Machine) follow(f *inode.File) *inode.File {
	if f == nil || !isStub(f) {
		return f
	}
	return m.linked(f.Ino)
}

// linked returns the record of a file with several names.
func (m *Machine) linked(ino orca.Ino) *inode.File {
	if f, ok := m.files.get(linkedKey(ino)); ok {
		return f
	}
	v := m.get(inode.AppendKey8(nil, inode.SpaceLinked, uint64(ino)))
	d, err := inode.DecodeDentry(v)
	if err == nil && d.File == nil {
		err = orca.E("fsm.linked", orca.Corrupt, "file "+ino.String()+" has no record")
	}
	if err != nil {
		m.fail(err)
		return nil
	}
	m.files.put(linkedKey(ino), d.File)
	return d.File
}

// cached returns what memory has of a name.
func (m *Machine) cached(k nameKey) (*inode.File, bool) {
	f, ok := m.files.get(k)
	if !ok || !isStub(f) {
		return f, ok
	}
	if _, ok := m.places.get(f.Ino); !ok {
		return nil, false
	}
	return m.files.get(linkedKey(f.Ino))
}

// alias reports whether a name of a file is not the one that its UFS has it
// under.
func (m *Machine) alias(n *node, name string, f *inode.File) bool {
	if f == nil || !f.Flags.Has(inode.Linked) {
		return false
	}
	at, home, ok := m.place(f.Ino)
	return ok && (at != n || home != name)
}

// isHome reports whether a spot is the home of a file with more names.
func (m *Machine) isHome(s *spot) bool {
	return s.file != nil && s.file.Flags.Has(inode.Linked) && !m.alias(s.dir, s.name, s.file)
}

// toHome makes an alias the home of the same file.
func (m *Machine) toHome(s *spot) {
	if !m.alias(s.dir, s.name, s.file) {
		return
	}
	if n, name, ok := m.place(s.file.Ino); ok {
		s.dir, s.name = n, name
	}
}

// locateName computes the UFS key of a name itself: of an alias, the key where
// nothing is.
func (m *Machine) locateName(s *spot) located {
	if m.alias(s.dir, s.name, s.file) {
		return m.locate(s.dir, s.name)
	}
	return m.locateSpot(s)
}

// objectAt reports whether the UFS has something at the key of a name.
func (m *Machine) objectAt(s *spot) bool {
	switch {
	case s.dentry.dir != nil:
		return s.dentry.dir.rec.Flags.Has(inode.Persisted)
	case s.file != nil:
		return s.file.Fingerprint != "" && !m.alias(s.dir, s.name, s.file)
	}
	return false
}

// namesOf returns up to limit names of a file with several, in order of their
// keys.
func (m *Machine) namesOf(ino orca.Ino, limit int) []nameKey {
	var names []nameKey
	prefix := inode.AppendKey8(nil, inode.SpaceName, uint64(ino))
	m.eachKey(prefix, inode.PrefixEnd(prefix), func(k, _ []byte) bool {
		if _, dir, name, ok := inode.DecodeName(k); ok {
			names = append(names, nameKey{dir, name})
		}
		return len(names) < limit
	})
	return names
}

// heir returns the first name of a file but its home.
func (m *Machine) heir(f *inode.File) (n *node, name string, ok bool) {
	at, home, _ := m.place(f.Ino)
	for _, k := range m.namesOf(f.Ino, 2) {
		if n := m.dirs[k.dir]; n != nil && (n != at || k.name != home) {
			return n, k.name, true
		}
	}
	return nil, "", false
}

// countLinked keeps the count of names at and above a directory.
func countLinked(n *node, by int64) {
	for ; n != nil; n = n.parent {
		n.linked += by
	}
}

// loadNames counts the names of files with several.
func (m *Machine) loadNames() error {
	var bad error
	err := m.scan(inode.SpaceName, func(k, _ []byte) bool {
		_, dir, _, ok := inode.DecodeName(k)
		n := m.dirs[dir]
		if !ok || n == nil {
			bad = orca.E("fsm.Open", orca.Corrupt, "a name of a file is in no directory")
			return false
		}
		countLinked(n, 1)
		return true
	})
	return firstErr(bad, err)
}

// putLinked writes the record of a file with several names.
func (m *Machine) putLinked(f *inode.File) {
	m.batch.key = inode.AppendKey8(m.batch.key[:0], inode.SpaceLinked, uint64(f.Ino))
	m.batch.val = inode.AppendFile(m.batch.val[:0], f)
	m.tx.Set(m.batch.key, m.batch.val)
	m.files.put(linkedKey(f.Ino), f)
}

// putName writes a dentry of a file with several names, and its name.
func (m *Machine) putName(n *node, name string, ino orca.Ino) {
	m.batch.key = inode.AppendDirent(m.batch.key[:0], n.rec.Ino, name)
	m.batch.val = inode.AppendLink(m.batch.val[:0], ino)
	m.tx.Set(m.batch.key, m.batch.val)
	m.files.put(nameKey{n.rec.Ino, name}, stub(ino))
	m.tx.Set(inode.AppendName(nil, ino, n.rec.Ino, name), []byte{recordFormat})
	countLinked(n, 1)
}

// enterName makes a free name one of a file with several. It keeps no sum, nor
// does cutName.
func (m *Machine) enterName(n *node, name string, ino orca.Ino) {
	m.noteName(n, name)
	m.putName(n, name, ino)
	n.rec.Entries++
	m.touch(n)
}

// cutName takes a name of a file with several out of its directory.
func (m *Machine) cutName(n *node, name string, ino orca.Ino) {
	m.cutEntry(n, name)
	m.tx.Delete(inode.AppendName(nil, ino, n.rec.Ino, name))
	countLinked(n, -1)
}

// moveHome makes one of the names of a file its home, where it counts from now
// on.
func (m *Machine) moveHome(n *node, name string, f *inode.File) {
	if at, _, ok := m.place(f.Ino); ok && at != n {
		m.chargeFile(at, f.Length, -1)
		m.chargeFile(n, f.Length, 1)
		m.dirtied(at)
		m.dirtied(n)
	}
	m.putPlace(n, name, f.Ino)
}

// goOn is moveHome for a home that goes away. No quota is asked: to remove a
// name always works.
func (m *Machine) goOn(n *node, name string, f *inode.File) {
	if at, _, _ := m.place(f.Ino); at != n {
		m.stats.rehomed.Add(1)
	}
	m.moveHome(n, name, f)
}

// dropLink ends one of several names of a file. Who ends the home has seen to
// what the UFS has at its key.
func (m *Machine) dropLink(n *node, name string, f *inode.File) {
	g := clone(f)
	g.Links--
	g.Ctime = m.batch.now
	if !m.alias(n, name, f) {
		if to, next, ok := m.heir(f); ok {
			m.goOn(to, next, f)
			g.Change, g.Override = m.batch.index, inode.Override{}
		}
	}
	m.cutName(n, name, f.Ino)
	m.settleLinked(g)
	at, home, _ := m.place(f.Ino)
	m.event(metapb.EventKind_EVENT_ATTR, f.Ino, at.rec.Ino, home)
}

// settleLinked writes the record of a file that had several names: into its
// dentry if it has one now.
func (m *Machine) settleLinked(f *inode.File) {
	if f.Links > 1 {
		m.putLinked(f)
		return
	}
	n, name, ok := m.place(f.Ino)
	if !ok {
		m.fail(orca.E("fsm.settleLinked", orca.Corrupt, "file "+f.Ino.String()+" has no place"))
		return
	}
	m.tx.Delete(inode.AppendKey8(nil, inode.SpaceLinked, uint64(f.Ino)))
	m.tx.Delete(inode.AppendName(nil, f.Ino, n.rec.Ino, name))
	m.files.drop(linkedKey(f.Ino))
	countLinked(n, -1)
	f.Flags, f.Links = f.Flags&^inode.Linked, 0
	m.putFile(n, name, f)
}

// eraseAll removes a file with all its names.
func (m *Machine) eraseAll(f *inode.File) {
	for f.Flags.Has(inode.Linked) {
		to, name, ok := m.heir(f)
		if !ok {
			break
		}
		m.dropLink(to, name, f)
		m.event(metapb.EventKind_EVENT_ENTRY, f.Ino, to.rec.Ino, name)
		_, _, f = m.byIno(f.Ino)
		if f == nil {
			return
		}
	}
	n, name, _ := m.place(f.Ino)
	m.erase(&spot{dir: n, name: name, dentry: dentry{file: f}})
}

// link gives a file or symbolic link one more name.
func (m *Machine) link(c *call, o *metapb.LinkOp) *refusal {
	src, r := m.resolve(&c.who, o.Src, true)
	if r != nil {
		return r
	}
	dst, r := m.resolve(&c.who, o.Dst, true)
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
	if r := m.checkLink(c, &src, &dst); r != nil {
		return r
	}
	from, to := m.locateName(&src), m.locateName(&dst)
	if from.id() != to.id() {
		return refuse(orca.CrossMount, dst.path, "")
	}
	// What is about to become of the file by this name alone must not happen
	// to it when it has another.
	if r := firstRefusal(m.free(c, from, false, src.path), m.free(c, to, true, dst.path)); r != nil {
		return r
	}
	f := clone(src.file)
	if !f.Flags.Has(inode.Linked) {
		f.Flags, f.Links = f.Flags|inode.Linked, 1
		m.putName(src.dir, src.name, f.Ino)
	}
	f.Links++
	f.Ctime = c.now
	m.putLinked(f)
	m.enterName(dst.dir, dst.name, f.Ino)
	m.event(metapb.EventKind_EVENT_ENTRY, f.Ino, dst.dir.rec.Ino, dst.name)
	m.event(metapb.EventKind_EVENT_ATTR, f.Ino, src.dir.rec.Ino, src.name)
	c.res.Attr = m.fileAttr(f, m.locateFile(dst.dir, dst.name, f))
	c.res.Parent = uint64(dst.dir.rec.Ino)
	return nil
}

func (m *Machine) checkLink(c *call, src, dst *spot) *refusal {
	switch {
	case src.dentry.dir != nil:
		return refuse(orca.Permission, src.path, "a directory has one name")
	case !dst.none():
		return refuse(orca.Exists, dst.path, "")
	case len(dst.rest) > 1:
		return refuse(orca.NotFound, dst.path, "")
	case src.file.Links >= maxLinks:
		return refuse(orca.TooLarge, src.path, "the file has as many names as one may have")
	}
	return firstRefusal(writable(m.mountOf(dst.dir), dst.path), mayChange(&c.who, dst.dir, dst.path),
		checkNew(dst.dir, dst.rest, dst.path), m.idle(dst.dir, dst.name, nil, dst.path))
}

// rehoming refuses, for as long as content that goes on under other names lies
// at the key of a name that is to go, with Busy and what is to be done first.
func (m *Machine) rehoming(c *call, s *spot) *refusal {
	if c.decided != nil || !m.isHome(s) || s.file.Fingerprint == "" || m.mountOf(s.dir) == nil {
		return nil
	}
	return &refusal{kind: orca.Busy, path: s.path, msg: "the content is moving to another name of the file",
		rehome: &metapb.RehomeOp{File: uint64(s.file.Ino), Dir: uint64(s.dir.rec.Ino), Name: s.name}}
}

// rehome makes another name the home of a file.
func (m *Machine) rehome(c *call, o *metapb.RehomeOp) *refusal {
	n, name, f := m.byIno(orca.Ino(o.File))
	if f == nil || !m.attached(n) || !f.Flags.Has(inode.Linked) || uint64(n.rec.Ino) != o.Dir || name != o.Name {
		if c.decided != nil {
			return refuse(orca.NotFound, o.Name, "the file has changed its names")
		}
		return nil
	}
	to, next, ok := m.heir(f)
	if c.decided != nil {
		to, next = m.dirs[orca.Ino(o.ToDir)], o.ToName
		ok = to != nil && m.lookup(to, next).ino() == f.Ino
	}
	if !ok {
		return refuse(orca.NotFound, name, "the file has no such other name")
	}
	from, at := m.locateFile(n, name, f), m.locate(to, next)
	r := firstRefusal(m.free(c, from, false, name), m.free(c, at, true, next))
	if r == nil && c.decided == nil {
		r = m.idle(n, name, nil, name)
	}
	if r != nil {
		return r
	}
	if f.Fingerprint != "" && from.mount != nil && c.decided == nil {
		it := contentMove(f, from, at)
		if !it.Deferred {
			op := &metapb.RehomeOp{File: o.File, Dir: o.Dir, Name: o.Name, ToDir: uint64(to.rec.Ino), ToName: next}
			return m.begin(c, it, from, func(cmd *command.Command) { cmd.Rehome = op })
		}
		if r := m.addIntent(c, it, from); r != nil {
			return r
		}
	}
	m.settleAt(c, f, to, next)
	return nil
}

// contentMove is the intent that brings a file's object to another key.
func contentMove(f *inode.File, from, to located) *command.Intent {
	it := &command.Intent{
		Op: metapb.IntentOp_INTENT_RENAME, Source: from.key, Target: to.key, Ino: uint64(f.Ino),
		Subtree: true, Want: f.Fingerprint, Version: f.Version,
	}
	if !from.mount.AtomicRename {
		it.Op, it.Deferred = metapb.IntentOp_INTENT_MOVE, true
	}
	return it
}

// settleAt makes one of the names of a file its home.
func (m *Machine) settleAt(c *call, f *inode.File, n *node, name string) {
	g := clone(f)
	g.Change, g.Override = m.batch.index, moveOverride(c)
	if fp := c.decide.GetFingerprint(); fp != "" && g.Fingerprint != "" {
		g.Fingerprint = fp
	}
	m.goOn(n, name, f)
	m.putLinked(g)
	if g.Fingerprint != "" {
		m.markPersisted(n)
	}
	m.event(metapb.EventKind_EVENT_ATTR, f.Ino, n.rec.Ino, name)
}

// moveOverride is what the deferred move of a call's result asks for.
func moveOverride(c *call) inode.Override {
	if it := c.res.Intent; it != nil && it.Op == metapb.IntentOp_INTENT_MOVE {
		return inode.Override{By: it.Id, Key: it.Source}
	}
	return inode.Override{}
}

// leaveHome goes before the removal of a name of a file with more: where the
// object moves in the background, it starts on its way to another name.
func (m *Machine) leaveHome(c *call, o *metapb.DeleteOp, s *spot, from located) *refusal {
	if c.decided != nil || !m.isHome(s) {
		return nil
	}
	switch {
	case o.CacheOnly:
		return refuse(orca.Unsupported, s.path, "the UFS has the content of other names of the file under this one")
	case s.file.Fingerprint == "" || from.mount == nil:
		return nil
	case from.mount.AtomicRename:
		return m.rehoming(c, s)
	}
	to, next, ok := m.heir(s.file)
	if !ok {
		return refuse(orca.Internal, s.path, "a file with several names has no other")
	}
	at := m.locate(to, next)
	if r := m.free(c, at, true, s.path); r != nil {
		return r
	}
	if r := m.addIntent(c, contentMove(s.file, from, at), from); r != nil {
		return r
	}
	m.settleAt(c, s.file, to, next)
	s.file = m.linked(s.file.Ino)
	return nil
}

// LinkedNames returns up to limit names, at and below a directory, of files with
// several. It looks into directories with such names only.
func (m *Machine) LinkedNames(dir orca.Ino, limit int) []Place {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []Place
	todo := []*node{m.dirs[dir]}
	for len(todo) > 0 && len(out) < limit {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n == nil || n.linked == 0 {
			continue
		}
		below := int64(0)
		for sub := range n.sub.all() {
			todo = append(todo, sub)
			below += sub.linked
		}
		here := int(n.linked - below)
		m.eachDirent(n, "", "", func(name string, v []byte) bool {
			if here <= 0 {
				return false
			}
			if d, err := inode.DecodeDentry(v); err == nil && d.Link != 0 {
				out = append(out, Place{n.rec.Ino, name})
				here--
			}
			return len(out) < limit
		})
	}
	return out
}

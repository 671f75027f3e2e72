// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"strings"

	"orca"
	"orca/metaplane/inode"
)

// dentry is what a name stands for: a file, a directory, or nothing.
type dentry struct {
	file *inode.File
	dir  *node
}

func (d dentry) none() bool { return d.file == nil && d.dir == nil }

func (d dentry) ino() orca.Ino {
	switch {
	case d.file != nil:
		return d.file.Ino
	case d.dir != nil:
		return d.dir.rec.Ino
	}
	return 0
}

// get reads a key: through the overlay in Apply, from the store for readers.
func (m *Machine) get(key []byte) []byte {
	if m.failed() != nil {
		return nil
	}
	m.stats.gets.Add(1)
	var v []byte
	var err error
	if m.applying {
		v, err = m.tx.Get(key)
	} else {
		v, err = m.db.Get(nil, key)
	}
	if err != nil {
		m.fail(err)
	}
	return v
}

// lookup returns what a name in a directory stands for.
func (m *Machine) lookup(n *node, name string) dentry {
	if d := n.sub.get(name); d != nil {
		return dentry{dir: d}
	}
	if n.rec.Entries == n.rec.Subdirs {
		return dentry{}
	}
	k := nameKey{n.rec.Ino, name}
	if f, ok := m.files.get(k); ok {
		m.stats.hits.Add(1)
		return dentry{file: m.follow(f)}
	}
	if !m.present(n, name) {
		return dentry{}
	}
	m.stats.misses.Add(1)
	var kb [64]byte
	v := m.get(inode.AppendDirent(kb[:0], n.rec.Ino, name))
	if v == nil {
		return dentry{}
	}
	d, err := inode.DecodeDentry(v)
	if err != nil {
		m.fail(err)
		return dentry{}
	}
	if d.Link != 0 {
		d.File = stub(d.Link)
	}
	if d.File == nil {
		m.fail(orca.E("fsm.lookup", orca.Corrupt, "directory "+d.Dir.String()+" is not in memory"))
		return dentry{}
	}
	k.name = strings.Clone(name) // else the cache held the whole path
	m.files.put(k, d.File)
	return dentry{file: m.follow(d.File)}
}

// place returns where a file is.
func (m *Machine) place(ino orca.Ino) (*node, string, bool) {
	k, ok := m.places.get(ino)
	if !ok {
		var kb [16]byte
		v := m.get(inode.AppendKey8(kb[:0], inode.SpaceInode, uint64(ino)))
		if v == nil {
			return nil, "", false
		}
		dir, name, err := inode.DecodePlace(v)
		if err != nil {
			m.fail(err)
			return nil, "", false
		}
		k = nameKey{dir, name}
		m.places.put(ino, k)
	}
	n := m.dirs[k.dir]
	return n, k.name, n != nil
}

// byIno returns a file and where it is; nil if there is none.
func (m *Machine) byIno(ino orca.Ino) (*node, string, *inode.File) {
	n, name, ok := m.place(ino)
	if !ok {
		return nil, "", nil
	}
	d := m.lookup(n, name)
	if d.file == nil || d.file.Ino != ino {
		return nil, "", nil
	}
	return n, name, d.file
}

// eachDirent calls fn with the raw dentries of a directory whose names sort
// after after and not after upto ("" is the end), in order.
func (m *Machine) eachDirent(n *node, after, upto string, fn func(name string, v []byte) bool) {
	m.eachDirentKey(n, after, upto, func(name, v []byte) bool { return fn(string(name), v) })
}

// eachDirentKey is eachDirent with names that are valid during the call only.
func (m *Machine) eachDirentKey(n *node, after, upto string, fn func(name, v []byte) bool) {
	lower := inode.AppendDirent(nil, n.rec.Ino, after)
	if after != "" {
		lower = append(lower, 0)
	}
	upper := inode.PrefixEnd(inode.AppendKey8(nil, inode.SpaceDirent, uint64(n.rec.Ino)))
	if upto != "" {
		upper = append(inode.AppendDirent(nil, n.rec.Ino, upto), 0)
	}
	m.eachKey(lower, upper, func(k, v []byte) bool { return len(k) < 9 || fn(k[9:], v) })
}

// eachKey scans the store, in Apply through the overlay.
func (m *Machine) eachKey(lower, upper []byte, fn func(k, v []byte) bool) {
	if m.failed() != nil {
		return
	}
	scan := m.db.Scan
	if m.applying {
		scan = m.tx.Scan
	}
	if err := scan(lower, upper, fn); err != nil {
		m.fail(err)
	}
}

// decoded turns a raw dentry into one with its record.
func (m *Machine) decoded(v []byte) dentry {
	d, err := inode.DecodeDentry(v)
	if err != nil {
		m.fail(err)
		return dentry{}
	}
	switch {
	case d.File != nil:
		return dentry{file: d.File}
	case d.Link != 0:
		return dentry{file: m.linked(d.Link)}
	}
	return dentry{dir: m.decodedDir(d.Dir)}
}

// decodedDir returns the directory that a dentry names.
func (m *Machine) decodedDir(ino orca.Ino) *node {
	n := m.dirs[ino]
	if n == nil {
		m.fail(orca.E("fsm", orca.Corrupt, "directory "+ino.String()+" is not in memory"))
	}
	return n
}

// putFile writes the record of a file at a name, or any of its names. It keeps
// no count and no sum.
func (m *Machine) putFile(n *node, name string, f *inode.File) {
	if f.Flags.Has(inode.Linked) {
		m.putLinked(f)
		return
	}
	m.batch.key = inode.AppendDirent(m.batch.key[:0], n.rec.Ino, name)
	m.batch.val = inode.AppendFile(m.batch.val[:0], f)
	m.tx.Set(m.batch.key, m.batch.val)
	m.files.put(nameKey{n.rec.Ino, name}, f)
}

// putPlace writes where a file is.
func (m *Machine) putPlace(n *node, name string, ino orca.Ino) {
	m.batch.key = inode.AppendKey8(m.batch.key[:0], inode.SpaceInode, uint64(ino))
	m.batch.val = inode.AppendPlace(m.batch.val[:0], n.rec.Ino, name)
	m.tx.Set(m.batch.key, m.batch.val)
	m.places.put(ino, nameKey{n.rec.Ino, name})
}

// addFile enters a file at a free name.
func (m *Machine) addFile(n *node, name string, f *inode.File) {
	m.noteName(n, name)
	m.putFile(n, name, f)
	m.putPlace(n, name, f.Ino)
	n.rec.Entries++
	m.chargeFile(n, f.Length, 1)
	m.touch(n)
}

// cutFile takes a file out of its directory.
func (m *Machine) cutFile(n *node, name string, f *inode.File) {
	m.cutEntry(n, name)
	m.chargeFile(n, f.Length, -1)
}

// cutEntry takes the name of a file out of its directory. It keeps no sum.
func (m *Machine) cutEntry(n *node, name string) {
	m.batch.key = inode.AppendDirent(m.batch.key[:0], n.rec.Ino, name)
	m.tx.Delete(m.batch.key)
	m.files.drop(nameKey{n.rec.Ino, name})
	n.rec.Entries--
	m.dropName(n, name)
	m.noteRemoved(n, name)
	m.touch(n)
}

// eraseFile removes a name of a file, and with the last one the file for good:
// place and attributes.
func (m *Machine) eraseFile(n *node, name string, f *inode.File) {
	if f.Flags.Has(inode.Linked) {
		m.dropLink(n, name, f)
		return
	}
	m.cutFile(n, name, f)
	m.forgetFile(n, f)
}

// forgetFile removes what is kept of a file beside its dentry.
func (m *Machine) forgetFile(n *node, f *inode.File) {
	m.batch.key = inode.AppendKey8(m.batch.key[:0], inode.SpaceInode, uint64(f.Ino))
	m.tx.Delete(m.batch.key)
	m.places.drop(f.Ino)
	m.lost(f.Ino)
	m.dropXattrs(f.Ino, f.Flags)
	if f.Flags.Has(inode.Replicated) {
		m.tx.Delete(inode.AppendKey8(m.batch.key[:0], inode.SpaceReplicas, uint64(f.Ino)))
	}
	m.countUnpersisted(n, f, nil)
	m.count.files--
	m.effect(Effect{Kind: EffectFree, File: f.Ino})
}

// addDir enters a new or moved directory at a free name.
func (m *Machine) addDir(parent *node, d *node) {
	m.noteName(parent, d.rec.Name)
	m.batch.key = inode.AppendDirent(m.batch.key[:0], parent.rec.Ino, d.rec.Name)
	m.tx.Set(m.batch.key, inode.AppendSubdir(m.batch.val[:0], d.rec.Ino))
	d.parent, d.rec.Parent = parent, parent.rec.Ino
	m.adopt(parent, d)
	parent.rec.Entries++
	parent.rec.Subdirs++
	m.charge(parent, m.whole(d))
	countLinked(parent, d.linked)
	m.touch(parent)
	m.dirtied(d)
}

// cutDir takes a directory out of its parent.
func (m *Machine) cutDir(d *node) {
	m.unholdBins()
	p := d.parent
	m.batch.key = inode.AppendDirent(m.batch.key[:0], p.rec.Ino, d.rec.Name)
	m.tx.Delete(m.batch.key)
	p.sub.remove(d.rec.Name)
	p.rec.Entries--
	p.rec.Subdirs--
	m.charge(p, m.whole(d).negated())
	countLinked(p, -d.linked)
	m.dropName(p, d.rec.Name)
	m.noteRemoved(p, d.rec.Name)
	m.touch(p)
	d.parent = nil
}

// eraseDir removes an empty directory that cutDir has taken out (or that is
// in the trash).
func (m *Machine) eraseDir(d *node) {
	m.lost(d.rec.Ino)
	for _, space := range []byte{inode.SpaceDir, inode.SpaceRemoved} {
		m.tx.Delete(inode.AppendKey8(nil, space, uint64(d.rec.Ino)))
	}
	m.dropXattrs(d.rec.Ino, d.rec.Flags)
	m.forgetQuota(d)
	delete(m.dirs, d.rec.Ino)
	m.nNames -= d.names.len()
	d.gone, d.names = true, nil
	m.count.dirs--
}

// touch notes that the entries of a directory changed now.
func (m *Machine) touch(n *node) {
	n.rec.Mtime, n.rec.Ctime = m.batch.now, m.batch.now
	m.dirtied(n)
}

// dirtied has the record written at the end of the batch.
func (m *Machine) dirtied(n *node) {
	if !n.dirty {
		n.dirty = true
		m.batch.dirs = append(m.batch.dirs, n)
	}
}

// markPersisted notes that a directory and all above it exist in the UFS.
func (m *Machine) markPersisted(n *node) {
	for ; n != nil && !n.rec.Flags.Has(inode.Persisted); n = n.parent {
		n.rec.Flags |= inode.Persisted
		m.dirtied(n)
		if n.rec.Mount != 0 {
			return
		}
	}
}

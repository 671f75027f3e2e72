// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"orca"
	"orca/metaplane/inode"
)

// What is below each directory is known at any time. A directory's record has
// the sum of the lengths and the number of its own entries, and is written
// with each of their changes anyway; the sums of whole trees are in memory
// only, kept by adding each change to all directories above it, and made anew
// at start from the records of the directories, which are all read then.

// Usage is the sum of what is below a directory, itself left out.
type Usage struct {
	Bytes int64 // lengths of files and links
	Files int64 // and links
	Dirs  int64
}

// Inodes is the number of files, links and directories.
func (u Usage) Inodes() int64 { return u.Files + u.Dirs }

// sums is what a node knows of all below it.
type sums struct {
	Usage
	// unsure counts the directories of which a store might have to be asked
	// what is in them.
	unsure int64
}

func (s *sums) add(t sums) {
	s.Bytes += t.Bytes
	s.Files += t.Files
	s.Dirs += t.Dirs
	s.unsure += t.unsure
}

func (s sums) negated() sums {
	return sums{Usage{-s.Bytes, -s.Files, -s.Dirs}, -s.unsure}
}

// charge adds to the sums of a directory and of all above it.
func (m *Machine) charge(n *node, s sums) {
	for ; n != nil; n = n.parent {
		n.below.add(s)
	}
}

// chargeFile notes that a directory has a file of that length more (sign 1) or
// less (-1): the one with the name that is its home, if it has several.
func (m *Machine) chargeFile(n *node, length, sign int64) {
	n.rec.Bytes += sign * length
	m.charge(n, sums{Usage: Usage{Bytes: sign * length, Files: sign}})
}

// resize notes that a file of a directory has another length.
func (m *Machine) resize(n *node, from, to int64) {
	if from == to {
		return
	}
	n.rec.Bytes += to - from
	m.charge(n, sums{Usage: Usage{Bytes: to - from}})
	m.dirtied(n)
}

// whole is the share of a directory, with all below it, in the sums of those
// above.
func (m *Machine) whole(d *node) sums {
	s := d.below
	if !d.isBin() {
		s.Dirs++
	}
	s.unsure += m.unsure(d)
	return s
}

// unsure is 1 for a directory whose content a store may have to be asked for.
func (m *Machine) unsure(n *node) int64 {
	r := &n.rec
	if !r.Flags.Has(inode.Loaded) || r.Flags.Has(inode.HasSync) && r.SyncMS >= 0 ||
		r.Mount != 0 && m.mounts[r.Mount].GetMount().GetSyncIntervalMs() >= 0 {
		return 1
	}
	return 0
}

// reassess notes that what unsure says of n may have changed from was.
func (m *Machine) reassess(n *node, was int64) {
	if now := m.unsure(n); now != was && n.parent != nil {
		m.charge(n.parent, sums{unsure: now - was})
	}
}

// loadUsage makes the sums of all trees; each directory has its own already.
func (m *Machine) loadUsage(t *tree) error {
	if err := firstErr(m.sumOldDirs(t.old), m.uncountAliases()); err != nil {
		return err
	}
	for i := len(t.order) - 1; i >= 0; i-- {
		if d := t.order[i]; d.parent != nil {
			d.parent.below.add(m.whole(d))
		}
	}
	return nil
}

// uncountAliases takes the names that are no file's home out of the sums of
// their directories, whose records count all names.
func (m *Machine) uncountAliases() error {
	var bad error
	err := m.scan(inode.SpaceName, func(k, _ []byte) bool {
		ino, dir, name, ok := inode.DecodeName(k)
		n := m.dirs[dir]
		at, home, placed := m.place(ino)
		if !ok || n == nil || !placed {
			bad = orca.E("fsm.Open", orca.Corrupt, "a name of file "+ino.String()+", which has no place")
			return false
		}
		if at != n || home != name {
			n.below.Files--
		}
		return true
	})
	return firstErr(bad, err)
}

// sumOldDirs sums the lengths of what is in directories whose records are of
// the format that had no sum, and writes those records anew: once in the life
// of a store, for that reads all its files.
func (m *Machine) sumOldDirs(old map[orca.Ino]*node) error {
	if len(old) == 0 {
		return nil
	}
	m.log.Info("summing the lengths of all files, once", "directories", len(old))
	var bad error
	var f inode.File
	err := m.scan(inode.SpaceDirent, func(k, v []byte) bool {
		n := old[orca.Ino(inode.Number(k))]
		if n == nil {
			return true
		}
		_, link, file, err := inode.DecodeDentryTo(v, &f)
		switch bad = err; {
		case err != nil || !file:
		case link == 0:
			n.rec.Bytes += f.Length
		default:
			if g := m.linked(link); g != nil && !m.alias(n, string(k[9:]), g) {
				n.rec.Bytes += g.Length
			}
		}
		return err == nil
	})
	if err = firstErr(bad, err); err != nil {
		return err
	}
	for ino, n := range old {
		n.below.Bytes = n.rec.Bytes
		m.tx.Set(inode.AppendKey8(nil, inode.SpaceDir, uint64(ino)), inode.AppendDir(nil, &n.rec))
	}
	return m.tx.Commit(m.db.Applied(), 0)
}

// UsageView is what a reader is told of a directory.
type UsageView struct {
	Dir orca.Ino
	Usage
	// Whole says that no store has to be asked: all directories are listed, and
	// no sync interval wants another look.
	Whole bool
	// Quotas are those of the directory and of all above it, the nearest first.
	Quotas []QuotaView
}

// Usage returns what is below a directory; of a file, complete or just being
// written, that of the directory it is in. NotFound.
func (m *Machine) Usage(ino orca.Ino) (UsageView, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.dirs[ino]
	if s := m.sessions[m.byFile[ino]]; n == nil && s != nil {
		n = m.dirs[orca.Ino(s.Dir)]
	}
	if n == nil {
		n, _, _ = m.byIno(ino)
	}
	if err := m.failed(); err != nil {
		return UsageView{}, err
	}
	if n == nil || !m.attached(n) {
		return UsageView{}, orca.PathE("fsm.Usage", "ino:"+ino.String(), orca.NotFound, nil)
	}
	v := UsageView{
		Dir: n.rec.Ino, Usage: n.below.Usage,
		Whole: n.below.unsure+m.unsure(n) == 0 && m.syncInterval(n) < 0,
	}
	if len(m.quotas) > 0 {
		for at := n; at != nil; at = at.parent {
			if at.quota != nil {
				v.Quotas = append(v.Quotas, viewQuota(at))
			}
		}
	}
	return v, nil
}

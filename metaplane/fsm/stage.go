// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// What a directory holds that moves here from the first group (regroup.go) is
// staged: its mount is here, at its path, and takes nothing but what stage brings.
// A name that is there already stays as it is, so that whoever brings it may
// begin again. Once all is there, which sums prove, the mount is sealed: nothing is
// staged any more. It is a mount like any other as soon as the first group, which
// has switched to it, gives it its options: before that nobody is referred to it,
// but who was to an earlier mount of that path comes here by himself.

// stage adds to a mount that is being moved here.
func (m *Machine) stage(c *call, o *metapb.StageOp) *refusal {
	if o.Tx != 0 {
		return m.stageTree(c, o)
	}
	row := m.mounts[o.Mount]
	if m.first() || row == nil {
		return refuse(orca.Stale, "", "no such directory is being moved here any more")
	}
	if row.Mount.Junction != metapb.JunctionState_JUNCTION_STAGED {
		if o.Seal != nil && o.Self == nil && len(o.Pages) == 0 {
			return nil // sealed before
		}
		return refuse(orca.Stale, row.Mount.Path, "all of it is here already")
	}
	root := m.dirs[orca.Ino(row.Root)]
	if r := m.stageBelow(c, o, root); r != nil || o.Seal == nil {
		return r
	}
	return m.seal(c, o.Seal, row, root)
}

// stageBelow adds to what is staged at and below a directory.
func (m *Machine) stageBelow(c *call, o *metapb.StageOp, root *node) *refusal {
	recs, r := m.checkStage(o, root)
	if r != nil {
		return r
	}
	if o.Self != nil {
		m.stageSelf(root, recs[0].dir, o.Self)
		recs = recs[1:]
	}
	for _, p := range o.Pages {
		n := m.stagedDir(p, root)
		mtime, ctime := n.rec.Mtime, n.rec.Ctime
		for _, e := range p.Entries {
			c.res.Ids = append(c.res.Ids, uint64(m.stageEntry(n, e, recs[0])))
			recs = recs[1:]
		}
		n.rec.Mtime, n.rec.Ctime = mtime, ctime
		m.dirtied(n)
	}
	return nil
}

// staged is the record of an entry; both are nil of one more name.
type staged struct {
	dir  *inode.Dir
	file *inode.File
}

func (m *Machine) stagedDir(p *metapb.StagedPage, root *node) *node {
	if p.Dir == 0 {
		return root
	}
	return m.dirs[orca.Ino(p.Dir)]
}

// checkStage decodes what is to be staged, and refuses what cannot be.
func (m *Machine) checkStage(o *metapb.StageOp, root *node) (recs []staged, _ *refusal) {
	decode := func(e *metapb.StagedEntry, self bool) *refusal {
		var s staged
		switch {
		case e.Dir != nil:
			d, err := inode.DecodeDir(e.Dir)
			if err != nil || d.Bytes < 0 {
				return refuse(orca.Invalid, e.Name, "an undecodable directory")
			}
			s.dir = &d
		case self:
			return refuse(orca.Invalid, e.Name, "no directory")
		case e.File != nil:
			d, err := inode.DecodeDentry(e.File)
			if err != nil || d.File == nil {
				return refuse(orca.Invalid, e.Name, "an undecodable file")
			}
			s.file = d.File
		default:
			n, _, f := m.byIno(orca.Ino(e.Link))
			if f == nil || !under(n, root) {
				return refuse(orca.Invalid, e.Name, "a name of no file")
			}
		}
		recs = append(recs, s)
		return nil
	}
	if o.Self != nil {
		if r := decode(o.Self, true); r != nil {
			return nil, r
		}
	}
	for _, p := range o.Pages {
		n := m.stagedDir(p, root)
		if n == nil || !under(n, root) {
			return nil, refuse(orca.Invalid, "", "names of no directory of the mount")
		}
		for _, e := range p.Entries {
			r := decode(e, false)
			if r == nil {
				r = checkNew(n, []string{e.Name}, e.Name)
			}
			if r != nil {
				return nil, r
			}
		}
	}
	return recs, nil
}

// stageSelf gives the root of the mount what the directory had.
func (m *Machine) stageSelf(root *node, rec *inode.Dir, e *metapb.StagedEntry) {
	was := m.unsure(root)
	r := &root.rec
	r.Mode, r.UID, r.GID = rec.Mode, rec.UID, rec.GID
	r.Mtime, r.Ctime, r.Atime = rec.Mtime, rec.Ctime, rec.Atime
	r.Flags, r.LoadedAt, r.SyncMS = rec.Flags, rec.LoadedAt, rec.SyncMS
	m.reassess(root, was)
	m.stageExtras(r.Ino, e)
	m.stageQuota(root, e)
	m.dirtied(root)
}

// stageEntry enters a name, and returns the inode that it stands for.
func (m *Machine) stageEntry(n *node, e *metapb.StagedEntry, rec staged) orca.Ino {
	if d := m.lookup(n, e.Name); !d.none() {
		return d.ino()
	}
	switch {
	case rec.dir != nil:
		d := &node{rec: *rec.dir}
		r := &d.rec
		r.Ino, r.Name, r.Change, r.Override = m.newIno(), e.Name, m.batch.index, inode.Override{}
		r.Entries, r.Subdirs, r.Bytes, r.Mount = 0, 0, 0, 0
		m.dirs[r.Ino] = d
		m.count.dirs++
		m.addDir(n, d)
		m.stageQuota(d, e)
		m.stageExtras(r.Ino, e)
		return r.Ino
	case rec.file != nil:
		f := rec.file
		f.Ino, f.Change, f.Override, f.Workers = m.newIno(), m.batch.index, inode.Override{}, nil
		f.Flags, f.Links = f.Flags&^(inode.Linked|inode.Replicated), 0
		if c := (inode.Copies{Min: e.ReplicaMin, Max: e.ReplicaLimit}); !c.Any() {
			m.setCopies(f, c)
		}
		m.count.files++
		m.addFile(n, e.Name, f)
		m.stageExtras(f.Ino, e)
		if f.Flags.Has(inode.Pinned) {
			m.effect(Effect{Kind: EffectPin, File: f.Ino, Version: f.Version})
		}
		return f.Ino
	}
	return m.stageLink(n, e)
}

// stageLink gives a file one more name.
func (m *Machine) stageLink(n *node, e *metapb.StagedEntry) orca.Ino {
	at, name, old := m.byIno(orca.Ino(e.Link))
	f := clone(old)
	if !f.Flags.Has(inode.Linked) {
		f.Flags, f.Links = f.Flags|inode.Linked, 1
		m.putName(at, name, f.Ino)
	}
	f.Links++
	m.putLinked(f)
	m.enterName(n, e.Name, f.Ino)
	if e.Home {
		m.moveHome(n, e.Name, f)
	}
	return f.Ino
}

func (m *Machine) stageExtras(ino orca.Ino, e *metapb.StagedEntry) {
	for _, x := range e.Xattrs {
		m.tx.Set(inode.AppendXattr(nil, ino, x.Name), x.Value)
	}
}

func (m *Machine) stageQuota(n *node, e *metapb.StagedEntry) {
	q := inode.Quota{Bytes: e.QuotaBytes, Inodes: e.QuotaInodes}
	if q == (inode.Quota{}) {
		return
	}
	m.tx.Set(inode.AppendKey8(nil, inode.SpaceQuota, uint64(n.rec.Ino)), inode.AppendQuota(nil, q))
	m.enterQuota(n, q)
}

// seal ends the staging of a mount that has all that it is to have.
func (m *Machine) seal(c *call, o *metapb.StagedSums, row *command.Mount, root *node) *refusal {
	if r := root.below.short(o, row.Mount.Path); r != nil {
		return r
	}
	next := proto.Clone(row).(*command.Mount)
	next.Mount.Junction = metapb.JunctionState_JUNCTION_JOINING
	m.putMount(next)
	m.mountChanged(root)
	c.res.Mount = bare(next)
	return nil
}

// short refuses to seal what is not all there.
func (s sums) short(o *metapb.StagedSums, label string) *refusal {
	if have, want := s.Usage, (Usage{Bytes: o.Bytes, Files: o.Files, Dirs: o.Dirs}); have != want {
		return refuse(orca.Internal, label, fmt.Sprintf("%+v has come here of %+v", have, want))
	}
	return nil
}

// notHere refuses, in a group that has mounts only, what is in none, or in one
// that is still being brought here.
func (m *Machine) notHere(s *spot, t *metapb.Target) *refusal {
	n := s.dir
	if s.dentry.dir != nil {
		n = s.dentry.dir
	}
	switch row := m.mountOf(n); {
	case row == nil:
		return sendBack(t)
	case row.Mount.Junction != metapb.JunctionState_JUNCTION_NONE:
		return refuse(orca.Busy, s.path, "it is just being moved here")
	default:
		return m.closed(row, s.path)
	}
}

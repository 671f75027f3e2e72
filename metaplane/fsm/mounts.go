// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// putMount stores a new or changed row of the mount table. Readers hold rows,
// so a row is changed in a copy.
func (m *Machine) putMount(mt *command.Mount) {
	m.mounts[mt.Mount.Id] = mt
	// The options are a map: their order must be the same in every replica.
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(mt)
	if err != nil {
		m.fail(orca.PathE("fsm.putMount", "", orca.Internal, err))
		return
	}
	m.tx.Set(inode.AppendMount(nil, mt.Mount.Id), append([]byte{recordFormat}, b...))
}

// bare is a row without its options, for results: those are remembered, and
// options hold secrets.
func bare(mt *command.Mount) *command.Mount {
	c := proto.Clone(mt).(*command.Mount)
	c.Mount.Options = nil
	return c
}

// mount adds a row to the mount table, or updates one.
func (m *Machine) mount(c *call, o *metapb.MountOp) *refusal {
	if o.GetMount().GetPath() == "" || o.Mount.Uri == "" {
		return refuse(orca.Invalid, o.GetMount().GetPath(), "a mount has a path and a URI")
	}
	if !m.first() {
		return m.mountHere(c, o)
	}
	if o.Mount.Junction != 0 || o.Mount.Id != 0 {
		return refuse(orca.Invalid, o.Mount.Path, "a new mount has no number")
	}
	s, r := m.resolve(&c.who, &metapb.Target{Path: o.Mount.Path}, true)
	if r != nil && !r.junction {
		return r
	}
	if r := m.unknownName(c, &s); r != nil {
		return r
	}
	d := s.dentry.dir
	if d != nil && d.rec.Mount != 0 {
		return m.remount(c, o, m.mounts[d.rec.Mount], &s)
	}
	if o.Update {
		return refuse(orca.NotFound, s.path, "not a mount point")
	}
	if r := m.checkMount(c, o, &s); r != nil {
		return r
	}
	switch {
	case s.none():
		if len(s.rest) > 1 {
			s = m.makeParents(c, &s, 0o755)
		}
		d = m.newDir(c, s.dir, s.name, 0o755, false)
	default:
		was := m.unsure(d)
		d.rec.Flags &^= inode.Loaded
		m.reassess(d, was)
	}
	m.count.mount++
	row := &command.Mount{
		Mount: proto.Clone(o.Mount).(*metapb.Mount), Root: uint64(d.rec.Ino),
		AtomicRename: o.AtomicRename, Directories: o.Directories, Owners: o.Owners, Exchange: o.Exchange,
		Uid: c.who.UID, Gid: c.who.GID, Created: c.now,
	}
	row.Mount.Id = m.count.mount
	row.Mount.TrashRetentionMs = max(0, row.Mount.TrashRetentionMs)
	row.Mount.Path = d.path()
	m.joining(row)
	d.rec.Mount = row.Mount.Id
	d.rec.Flags |= inode.Persisted
	m.touch(d)
	m.putMount(row)
	m.mountChanged(d)
	c.res.Mount = bare(row)
	return nil
}

func (m *Machine) mountChanged(d *node) {
	m.event(metapb.EventKind_EVENT_MOUNT, d.rec.Ino, d.rec.Parent, d.rec.Name)
	m.effect(Effect{Kind: EffectMounts})
}

// remount handles a mount on a mount point: an update of its options, a
// repetition, or a refusal.
func (m *Machine) remount(c *call, o *metapb.MountOp, row *command.Mount, s *spot) *refusal {
	if !o.Update || row.Mount.Uri != o.Mount.Uri {
		return refuse(orca.Exists, s.path, "already a mount point, of "+row.Mount.Uri)
	}
	if p := row.Mount.Part; p != nil {
		return refuse(orca.Exists, s.path, "it is a directory of the mount at "+m.mounts[p.Mount].GetMount().GetPath()+", and has its options")
	}
	if c.who.UID != 0 && c.who.UID != row.Uid {
		return refuse(orca.Permission, s.path, "")
	}
	if o.Mount.Group > 1 && o.Mount.Group != row.Mount.Group || row.Mount.Junction == metapb.JunctionState_JUNCTION_LEAVING {
		return refuse(orca.Exists, s.path, "already a mount point, and it stays in its group")
	}
	next := proto.Clone(row).(*command.Mount)
	id, path := row.Mount.Id, row.Mount.Path
	next.Mount = proto.Clone(o.Mount).(*metapb.Mount)
	next.Mount.Id, next.Mount.Path, next.Mount.Group, next.Mount.Root = id, path, row.Mount.Group, row.Mount.Root
	if next.Mount.TrashRetentionMs = max(0, o.Mount.TrashRetentionMs); o.Mount.TrashRetentionMs == 0 {
		next.Mount.TrashRetentionMs = row.Mount.TrashRetentionMs
	}
	if r := m.mayKeep(next, s.path); r != nil {
		return r
	}
	m.joining(next)
	next.AtomicRename, next.Directories, next.Owners, next.Exchange = o.AtomicRename, o.Directories, o.Owners, o.Exchange
	was := m.unsure(s.dentry.dir)
	m.putMount(next)
	m.reassess(s.dentry.dir, was)
	m.mountChanged(s.dentry.dir)
	m.remountParts(next)
	c.res.Mount = bare(next)
	return nil
}

// checkMount makes the conflict checks of a new mount.
func (m *Machine) checkMount(c *call, o *metapb.MountOp, s *spot) *refusal {
	if id, ok := m.uriConflict(o.Mount.Uri); ok {
		return refuse(orca.Invalid, s.path, "its URI overlaps the one mounted at "+m.mounts[id].Mount.Path)
	}
	d := s.dentry.dir
	switch {
	case s.file != nil:
		return refuse(orca.Exists, s.path, "it would shadow a file")
	case d != nil && o.Mount.Group > 1:
		return refuse(orca.Exists, s.path, "a mount in a group of its own makes its directory itself: remove this one first")
	case d != nil && d.rec.Entries > 0:
		return refuse(orca.NotEmpty, s.path, "it would shadow what the directory holds")
	case d != nil && d != m.root && d.rec.Flags.Has(inode.Persisted):
		return refuse(orca.Exists, s.path, "it would shadow a directory of the store that is mounted above")
	case d != nil:
		if c.who.UID != 0 && c.who.UID != d.rec.UID {
			return refuse(orca.Permission, s.path, "")
		}
		return firstRefusal(m.idle(s.dir, s.name, d, s.path), m.frozen(s))
	case len(s.rest) > 1 && !o.Parents:
		return refuse(orca.NotFound, s.path, "")
	}
	loc := m.locate(s.dir, strings.Join(s.rest, "/"))
	return firstRefusal(mayChange(&c.who, s.dir, s.path), checkNew(s.dir, s.rest, s.path),
		m.idle(s.dir, s.name, nil, s.path), m.free(c, loc, true, s.path),
		m.fits(s.dir, nil, room{inodes: int64(len(s.rest))}, s.path))
}

// uriConflict finds a mount whose URI equals, contains or lies below another.
func (m *Machine) uriConflict(u string) (uint32, bool) {
	u = strings.TrimRight(u, "/")
	for _, id := range slices.Sorted(maps.Keys(m.mounts)) {
		v := strings.TrimRight(m.mounts[id].Mount.Uri, "/")
		if u == v || strings.HasPrefix(u, v+"/") || strings.HasPrefix(v, u+"/") {
			return id, true
		}
	}
	return 0, false
}

// unmount takes a mount and all names below it out of the namespace; the UFS
// keeps what it has.
func (m *Machine) unmount(c *call, o *metapb.UnmountOp) *refusal {
	if !m.first() {
		return m.unmountHere(c, o)
	}
	s, r := m.resolve(&c.who, &metapb.Target{Path: o.Path}, true)
	if r != nil && !r.junction {
		return r
	}
	d := s.dentry.dir
	if d == nil || d.rec.Mount == 0 {
		return refuse(orca.Invalid, s.path, "not a mount point")
	}
	row := m.mounts[d.rec.Mount]
	switch {
	case d == m.root:
		return refuse(orca.Invalid, s.path, "the root mount stays")
	case c.who.UID != 0 && c.who.UID != row.Uid:
		return refuse(orca.Permission, s.path, "")
	case m.leadsAway(d):
		return m.leave(c, row)
	}
	return m.unmountAt(c, &s, row)
}

// unmountAt unmounts what a spot is the root of.
func (m *Machine) unmountAt(c *call, s *spot, row *command.Mount) *refusal {
	d := s.dentry.dir
	switch b := m.binOf(row.Mount.Id); {
	case b != nil && len(b.entries) > 0:
		return refuse(orca.Busy, s.path, "there is trash: empty it, or restore what is in it")
	case row.Unpersisted > 0:
		return refuse(orca.Busy, s.path, "files below it wait to be persisted")
	case m.masks[row.Mount.Id].overlap("", true, 0) != 0:
		return &refusal{kind: orca.Busy, path: s.path, busy: m.masks[row.Mount.Id].overlap("", true, 0), msg: "changes are on their way to its UFS"}
	}
	if p := m.partBelow(d); p != nil && p != row {
		return refuse(orca.Busy, s.path, fmt.Sprintf("%s lives in group %d: unmount that first, which leaves what the store has", p.Mount.Path, p.Mount.Group))
	}
	for _, other := range m.mounts {
		if other != row && under(m.dirs[orca.Ino(other.Root)], d) {
			return refuse(orca.Invalid, s.path, "there is a mount point below it")
		}
	}
	if r := m.idle(s.dir, s.name, d, s.path); r != nil {
		return r
	}
	for _, w := range m.sessions { // one that was stolen has no name
		if w.MountId == row.Mount.Id {
			return refuse(orca.Busy, s.path, "what a writer has left in its UFS is still to be removed")
		}
	}
	m.dropMount(row, d)
	m.detach(d, 0)
	m.event(metapb.EventKind_EVENT_ENTRY, d.rec.Ino, s.dir.rec.Ino, s.name)
	m.mountChanged(d)
	c.res.Mount = bare(row)
	return nil
}

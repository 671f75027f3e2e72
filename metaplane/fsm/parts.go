// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// A part is a directory of a mount of the first group whose content lives in
// another group. It has a row of its own in the mount table, with the options
// of the mount that it is a part of and the URI of the directory, and its
// directory in the first group is the junction of that row. So it goes through
// the states of junctions.go, and what is below it is the other group's alone:
// its names, their sync and their UFS keys.
//
//	mkdir    (first) directory made, joining ─► other: has the mount ─► (first) active
//	unmount  (first) leaving ─► other: has it no more ─► (first) a directory that is not listed yet
//	rmdir    (first) leaving, removing ─► other: was empty, has it no more ─► (first) the same, then removed
//	                                   └► other: refuses (not empty) ─► (first) active
//
// The directory itself stays where it is meanwhile: nothing above it is renamed
// or removed, no other is put in its place, and no quota is above it, for none
// could count what is in it.

// part returns the row of a junction that is a part; nil if it is none.
func (m *Machine) part(d *node) *command.Mount {
	if d == nil || d.rec.Mount == 0 {
		return nil
	}
	if row := m.mounts[d.rec.Mount]; row.GetMount().GetPart() != nil {
		return row
	}
	return nil
}

// partBelow returns the row with the least path among the parts at or below a
// directory; nil if there is none.
func (m *Machine) partBelow(d *node) *command.Mount {
	var least *command.Mount
	for _, mt := range m.mounts {
		if mt.Mount.Part != nil && under(m.dirs[orca.Ino(mt.Root)], d) && (least == nil || mt.Mount.Path < least.Mount.Path) {
			least = mt
		}
	}
	return least
}

// stays refuses to take a directory from where it is while mounts lie at or
// below it; nil if there are none. Of parts the caller can do name by name what
// cannot be done here.
func (m *Machine) stays(d *node, label string) *refusal {
	if p := m.partBelow(d); p != nil {
		return refuse(orca.CrossMount, label, fmt.Sprintf("%s lives in group %d", p.Mount.Path, p.Mount.Group))
	}
	if m.mountBelow(d) {
		return refuse(orca.Invalid, label, "there is a mount point below it")
	}
	return nil
}

// checkPart refuses a new directory whose content is to live in a group.
func (m *Machine) checkPart(c *call, o *metapb.MkdirOp, s *spot) *refusal {
	mt := m.mountOf(s.dir)
	switch {
	case o.Group <= 1:
		return nil
	case !m.first():
		return refuse(orca.Unsupported, s.path, "what lives in a group of its own is not divided further: only directories of mounts of the first group are")
	case c.who.UID != 0:
		return refuse(orca.Permission, s.path, "only root puts directories into groups")
	case mt == nil:
		return refuse(orca.Unsupported, s.path, "only a directory of a mount is put into a group of its own")
	case retention(mt) > 0:
		return refuse(orca.Unsupported, s.path, "what is deleted in another group could not be kept in the trash of "+mt.Mount.Path+
			": mount that with --trash-retention 0, or leave the directory in its group")
	case len(m.mounts)+len(m.regroups) >= maxMounts:
		return refuse(orca.Busy, s.path, fmt.Sprintf("there are %d mounts and directories in groups of their own already", maxMounts))
	}
	for n := s.dir; n != nil; n = n.parent {
		if n.quota != nil {
			return refuse(orca.Unsupported, s.path, "the quota of "+n.path()+" could not count what is in another group: take it away, or leave the directory in its group")
		}
	}
	return nil
}

// maxMounts bounds the rows of the mount table that directories may take: it is
// read whole by everybody.
const maxMounts = 4096

// putAway makes a new directory the junction of a part.
func (m *Machine) putAway(d *node, group uint32) {
	m.count.mount++
	row := m.partRow(m.mountOf(d), d, m.count.mount, group)
	m.joining(row)
	was := m.unsure(d)
	d.rec.Mount = row.Mount.Id
	d.rec.Flags &^= inode.Loaded // nobody knows here what is in it
	m.reassess(d, was)
	m.dirtied(d)
	m.putMount(row)
	m.mountChanged(d)
}

// takeBack makes a part that its group has no more a directory like any other,
// of which the UFS knows what is in it.
func (m *Machine) takeBack(row *command.Mount, d *node) {
	m.dropMount(row, d)
	d.rec.Change = m.batch.index
	m.dirtied(d)
	m.event(metapb.EventKind_EVENT_ENTRY, orca.Ino(row.Mount.Root), d.parent.rec.Ino, d.rec.Name)
	m.mountChanged(d)
}

// remountParts gives the parts of a mount its new options.
func (m *Machine) remountParts(of *command.Mount) {
	for _, id := range slices.Sorted(maps.Keys(m.mounts)) {
		row := m.mounts[id]
		if row.Mount.GetPart().GetMount() != of.Mount.Id || row.Mount.Junction == metapb.JunctionState_JUNCTION_LEAVING {
			continue
		}
		next := proto.Clone(of).(*command.Mount)
		next.Root, next.Created, next.Unpersisted = row.Root, row.Created, row.Unpersisted
		mt := next.Mount
		mt.Id, mt.Path, mt.Uri, mt.Group, mt.Root = id, row.Mount.Path, row.Mount.Uri, row.Mount.Group, row.Mount.Root
		mt.Part, mt.TrashRetentionMs = proto.Clone(row.Mount.Part).(*metapb.Part), 0
		m.joining(next)
		d := m.dirs[orca.Ino(row.Root)]
		was := m.unsure(d)
		m.putMount(next)
		m.reassess(d, was)
		m.mountChanged(d)
	}
}

// mayKeep refuses that a mount keeps what is deleted while a directory of it
// lives in another group, or is being made for one: the trash of a mount is in its
// own group and at one place of its store, and a directory of another group, with
// trash of its own, could be removed by nobody.
func (m *Machine) mayKeep(mt *command.Mount, label string) *refusal {
	if retention(mt) <= 0 {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(m.mounts)) {
		if p := m.mounts[id].Mount; p.GetPart().GetMount() == mt.Mount.Id {
			return refuse(orca.Unsupported, label, fmt.Sprintf("%s lives in group %d, and what is deleted there could not be kept: unmount it first, which gives it back", p.Path, p.Group))
		}
	}
	for _, it := range m.intents {
		if it.Command.GetMkdir().GetGroup() > 1 && it.MountId == mt.Mount.Id {
			return refuse(orca.Busy, label, "a directory is just being made in a group of its own")
		}
	}
	for _, it := range m.regroups {
		if it.MountId == mt.Mount.Id {
			return refuse(orca.Busy, label, "a directory of it is on its way to another group")
		}
	}
	return nil
}

// removePart begins to remove a directory that lives in another group. Whether
// it is empty that group knows; it says so while nobody can add to it.
func (m *Machine) removePart(c *call, o *metapb.DeleteOp, s *spot, row *command.Mount) *refusal {
	switch {
	case o.Want == 1:
		return refuse(orca.IsDir, s.path, "")
	case o.CacheOnly:
		return refuse(orca.Unsupported, s.path, fmt.Sprintf("it lives in group %d: unmount it, which leaves what the store has", row.Mount.Group))
	}
	if r := firstRefusal(mayCut(&c.who, s), writable(row, s.path)); r != nil {
		return r
	}
	next := proto.Clone(row).(*command.Mount)
	next.Mount.Part.Removing = true
	ino := uint64(s.dentry.dir.rec.Ino)
	if r := m.leave(c, next); r != nil {
		return r
	}
	c.res.Replaced = ino
	return nil
}

// PartsBelow returns the directories in groups of their own at or below a path
// that the caller may remove, by path; what is wrong with it otherwise is said
// by who removes it.
func (m *Machine) PartsBelow(c orca.Caller, from orca.Ino, path string) (out []*metapb.Mount, at bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.first() || m.failed() != nil {
		return nil, false
	}
	s, r := m.resolve(&c, &metapb.Target{Ino: uint64(from), Path: path}, true)
	d := s.dentry.dir
	if d == nil || r != nil && !r.junction || s.isRoot() || mayCut(&c, &s) != nil || c.UID != 0 && c.UID != d.rec.UID {
		return nil, false
	}
	for _, row := range m.mounts {
		if row.Mount.Part != nil && under(m.dirs[orca.Ino(row.Root)], d) {
			out = append(out, row.Mount)
		}
	}
	slices.SortFunc(out, func(a, b *metapb.Mount) int { return cmp.Compare(a.Path, b.Path) })
	return out, m.part(d) != nil
}

// partUnderWay refuses a quota above a directory that is being made for another
// group, or is there already.
func (m *Machine) partUnderWay(n *node, label string) *refusal {
	if p := m.partBelow(n); p != nil {
		return refuse(orca.Unsupported, label, fmt.Sprintf("%s lives in group %d, and no quota of the first can count what is in it: set one there", p.Mount.Path, p.Mount.Group))
	}
	for _, it := range m.intents {
		if o := it.Command.GetMkdir(); o.GetGroup() > 1 && under(m.dirs[orca.Ino(o.Target.GetIno())], n) {
			return refuse(orca.Busy, label, "a directory is just being made in a group of its own below it")
		}
	}
	if it := m.regroupBelow(n); it != nil {
		return refuse(orca.Busy, label, fmt.Sprintf("a directory at or below it is on its way to group %d", it.Group))
	}
	return nil
}

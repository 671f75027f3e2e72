// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"strconv"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// A junction is a mount point in the first group whose mount lives in another
// one. Both have a row in their mount table, with the same number and at the
// same path: that of the first group is the truth, and the intent to bring the
// other in line with it.
//
//	mount    (first) joining ─► other: has the mount ─► (first) active
//	update   (first) joining ─► other: has the options ─► (first) active
//	unmount  (first) leaving ─► other: has it no more, for ever ─► (first) gone
//	                          └► other: refuses (busy) ─► other: has the options ─► (first) active
//
// Each arrow may be taken again by whoever leads the first group; what comes
// late is refused by the serial of the row, or because the number was forgotten
// for ever. A row that begins to leave has a new serial, and a group that was given
// that serial by its options forgets no mount for it any more: so the first group goes
// back only when no late message can empty the other one. Who finds the serial
// given, but the row still leaving, takes a new one: from then on what the earlier
// attempt would have come to is refused. The other group knows nothing of the first: it has directories that
// lead to its mounts, which nobody sees, and sends back whoever asks for
// anything but what is in a mount.

// first reports whether this is the machine of the first group.
func (m *Machine) first() bool { return m.cfg.Group <= 1 }

// leadsAway reports whether a mount point is a junction.
func (m *Machine) leadsAway(d *node) bool {
	return m.first() && m.mounts[d.rec.Mount].GetMount().GetGroup() > 1
}

// refer refuses what passes or ends at a junction; nil when d is none.
func (m *Machine) refer(d *node, label, rest string) *refusal {
	if !m.leadsAway(d) {
		return nil
	}
	row := m.mounts[d.rec.Mount].Mount
	r := &refusal{kind: orca.Referral, path: orca.ReferralPath(orca.Ino(row.Root), rest), junction: rest == "",
		msg: "the subtree lives in group " + strconv.Itoa(int(row.Group))}
	switch {
	case row.Junction == metapb.JunctionState_JUNCTION_LEAVING:
		r.kind, r.path, r.msg = orca.Busy, label, "it is just being unmounted"
	case row.Root == 0:
		r.kind, r.path, r.msg = orca.Busy, label, "it is just being mounted"
	}
	return r
}

// inside reports whether a directory is one that this group has for others, now.
func (m *Machine) inside(n *node) bool {
	if m.first() {
		return true
	}
	row := m.mountOf(n)
	return row != nil && row.Mount.Junction == metapb.JunctionState_JUNCTION_NONE && m.closed(row, "") == nil
}

// sendBack refers to where paths begin.
func sendBack(t *metapb.Target) *refusal {
	rest := t.GetPath()
	if rest != "" && rest[0] == '/' {
		rest = rest[1:]
	}
	return refuse(orca.Referral, orca.ReferralPath(orca.RootIno, rest), "no mount of this group has this path")
}

// joining begins to bring the group of a row in line with it.
func (m *Machine) joining(row *command.Mount) {
	mt := row.Mount
	if mt.Group <= 1 {
		mt.Group = 0
		return
	}
	mt.Junction, mt.Serial = metapb.JunctionState_JUNCTION_JOINING, m.batch.index
}

// leave begins to unmount what a junction leads to.
func (m *Machine) leave(c *call, row *command.Mount) *refusal {
	if it := m.regroups[orca.Ino(row.Root)]; it != nil {
		return moves(it, row.Mount.Path)
	}
	if row.Mount.Junction != metapb.JunctionState_JUNCTION_LEAVING { // else this one waits for the same attempt
		next := proto.Clone(row).(*command.Mount)
		next.Mount.Junction, next.Mount.Serial = metapb.JunctionState_JUNCTION_LEAVING, m.batch.index
		next.AskedClient, next.AskedSeq = c.cmd.Client, c.cmd.Seq
		if o := c.cmd.Junction; o != nil {
			next.AskedClient, next.AskedSeq = o.Client, o.Seq
		}
		m.putMount(next)
		m.effect(Effect{Kind: EffectMounts})
		row = next
	}
	c.res.Mount = bare(row)
	return nil
}

// leaveAgain makes the leaving of a row another attempt of the same request.
func (m *Machine) leaveAgain(c *call, row *command.Mount) {
	next := proto.Clone(row).(*command.Mount)
	next.Mount.Serial = m.batch.index
	m.putMount(next)
	m.effect(Effect{Kind: EffectMounts})
	c.res.Mount = bare(next)
}

// junction moves a junction on.
func (m *Machine) junction(c *call, o *metapb.JunctionOp) *refusal {
	row := m.mounts[o.Mount]
	switch {
	case !m.first() || row == nil || row.Mount.Group <= 1:
		return refuse(orca.NotFound, strconv.Itoa(int(o.Mount)), "no such junction")
	case row.Mount.Junction != o.From || row.Mount.Serial != o.Serial:
		return refuse(orca.Stale, row.Mount.Path, "the junction is another one by now")
	}
	d := m.dirs[orca.Ino(row.Root)]
	switch o.To {
	case metapb.JunctionState_JUNCTION_ACTIVE:
		next := proto.Clone(row).(*command.Mount)
		next.Mount.Junction = o.To
		if next.Mount.Part != nil {
			next.Mount.Part.Removing = false
		}
		if o.Root != 0 {
			next.Mount.Root = o.Root
		}
		m.answerRefused(next, o)
		m.putMount(next)
		m.mountChanged(d)
		m.event(metapb.EventKind_EVENT_ENTRY, orca.Ino(next.Mount.Root), d.rec.Parent, d.rec.Name)
		c.res.Mount = bare(next)
	case metapb.JunctionState_JUNCTION_LEAVING:
		if o.From == o.To {
			m.leaveAgain(c, row)
			return nil
		}
		if o.Removing && row.Mount.Part != nil {
			row = proto.Clone(row).(*command.Mount)
			row.Mount.Part.Removing = true
		}
		return m.leave(c, row)
	case metapb.JunctionState_JUNCTION_NONE:
		c.res.Mount = bare(row)
		if row.Mount.Part != nil {
			m.takeBack(row, d)
			return nil
		}
		m.dropMount(row, d)
		m.event(metapb.EventKind_EVENT_ENTRY, orca.Ino(row.Mount.Root), d.parent.rec.Ino, d.rec.Name)
		m.detach(d, 0)
		m.mountChanged(d)
	default:
		return refuse(orca.Invalid, row.Mount.Path, "no such step of a junction")
	}
	return nil
}

// answerRefused remembers what a junction was refused to leave with as the answer
// of the request for it: all that was remembered of that is that it began, and who
// repeats it late would begin again.
func (m *Machine) answerRefused(row *command.Mount, o *metapb.JunctionOp) {
	if row.AskedClient != 0 && o.Refused != 0 {
		m.batch.enc = m.encode(m.batch.enc[:0], &command.Result{
			Index: m.batch.index, Kind: o.Refused, Path: o.RefusedPath, Msg: o.RefusedMsg})
		m.rememberFor(row.AskedClient, row.AskedSeq, m.batch.enc)
	}
	row.AskedClient, row.AskedSeq = 0, 0
}

// dropMount takes a row out of the table.
func (m *Machine) dropMount(row *command.Mount, d *node) {
	was := m.unsure(d)
	d.rec.Mount = 0
	m.reassess(d, was)
	delete(m.mounts, row.Mount.Id)
	m.dropBin(d, row.Mount.Id)
	delete(m.masks, row.Mount.Id)
	m.tx.Delete(inode.AppendMount(nil, row.Mount.Id))
}

// forgottenKey is the fact that a mount was here once and never will be again.
func forgottenKey(id uint32) []byte {
	return inode.AppendFact(nil, "unmounted."+strconv.FormatUint(uint64(id), 10))
}

// mountHere adds the mount of a junction to the group behind it, or brings its
// options up to date.
func (m *Machine) mountHere(c *call, o *metapb.MountOp) *refusal {
	mt := o.Mount
	switch {
	case mt.Id == 0 || mt.Group != uint32(m.cfg.Group) || c.who.UID != 0:
		return refuse(orca.Invalid, mt.Path, "mounts of this group are made through their junction")
	case m.get(forgottenKey(mt.Id)) != nil:
		return refuse(orca.Stale, mt.Path, "the mount was unmounted meanwhile")
	}
	if row := m.mounts[mt.Id]; row != nil {
		if mt.Serial > row.Mount.Serial {
			next := proto.Clone(row).(*command.Mount)
			next.Mount = proto.Clone(mt).(*metapb.Mount)
			next.Mount.Path, next.Mount.Root, next.Mount.Junction = row.Mount.Path, row.Root, metapb.JunctionState_JUNCTION_NONE
			next.AtomicRename, next.Directories, next.Owners, next.Exchange = o.AtomicRename, o.Directories, o.Owners, o.Exchange
			d := m.dirs[orca.Ino(row.Root)]
			was := m.unsure(d)
			m.putMount(next)
			m.reassess(d, was)
			m.mountChanged(d)
			row = next
		}
		c.res.Mount = bare(row)
		return nil
	}
	s, r := m.resolveAny(&c.who, &metapb.Target{Path: mt.Path}, false)
	switch {
	case r != nil:
		return r
	case !s.none():
		return refuse(orca.Exists, s.path, "another mount is here, or on the way")
	}
	if r := firstRefusal(m.mountOfRefusal(&s), checkNew(s.dir, s.rest, s.path)); r != nil {
		return r
	}
	if len(s.rest) > 1 {
		s = m.makeParents(c, &s, 0o755)
	}
	d := m.newDir(c, s.dir, s.name, 0o755, false)
	row := &command.Mount{
		Mount: proto.Clone(mt).(*metapb.Mount), Root: uint64(d.rec.Ino), AtomicRename: o.AtomicRename,
		Directories: o.Directories, Owners: o.Owners, Exchange: o.Exchange, Created: c.now,
	}
	if row.Mount.Root = row.Root; mt.Junction != metapb.JunctionState_JUNCTION_STAGED {
		row.Mount.Junction = metapb.JunctionState_JUNCTION_NONE
	}
	if p := mt.Part; p != nil {
		d.rec.Mode, d.rec.UID, d.rec.GID = p.Mode, p.Uid, p.Gid
	}
	d.rec.Mount = row.Mount.Id
	d.rec.Flags |= inode.Persisted
	m.touch(d)
	m.putMount(row)
	m.mountChanged(d)
	c.res.Mount = bare(row)
	return nil
}

// mountOfRefusal refuses a mount within a mount.
func (m *Machine) mountOfRefusal(s *spot) *refusal {
	if m.mountOf(s.dir) != nil {
		return refuse(orca.Unsupported, s.path, "a mount in a group of its own holds no other mounts")
	}
	return nil
}

// unmountHere takes the mount of a junction out of the group behind it, and
// forgets its number for ever.
func (m *Machine) unmountHere(c *call, o *metapb.UnmountOp) *refusal {
	if o.Id == 0 || c.who.UID != 0 {
		return refuse(orca.Invalid, o.Path, "mounts of this group are unmounted through their junction")
	}
	if row := m.mounts[o.Id]; row != nil {
		if o.Serial != 0 && o.Serial <= row.Mount.Serial {
			return refuse(orca.Stale, row.Mount.Path, "that attempt to unmount it is over")
		}
		s, r := m.resolveIno(spot{path: row.Mount.Path}, orca.Ino(row.Root))
		if r != nil {
			return r
		}
		if o.Empty {
			if r := m.unknownContent(c, s.dentry.dir, s.path); r != nil {
				return r
			}
			if s.dentry.dir.rec.Entries > 0 {
				return m.notEmpty(s.dentry.dir, s.path)
			}
		}
		if r := m.unmountAt(c, &s, row); r != nil {
			return r
		}
		m.forgetMount(o.Id, s.dir)
		return nil
	}
	m.forgetMount(o.Id, nil)
	return nil
}

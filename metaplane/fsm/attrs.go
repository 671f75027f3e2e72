// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"slices"
	"strings"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// Bits of SetAttrOp.mask, shortened.
const (
	setMode   = uint32(metapb.SetAttrMask_SET_MODE)
	setUID    = uint32(metapb.SetAttrMask_SET_UID)
	setGID    = uint32(metapb.SetAttrMask_SET_GID)
	setAtime  = uint32(metapb.SetAttrMask_SET_ATIME)
	setMtime  = uint32(metapb.SetAttrMask_SET_MTIME)
	setPinned = uint32(metapb.SetAttrMask_SET_PINNED)
	setSync   = uint32(metapb.SetAttrMask_SET_SYNC)
	setCopies = uint32(metapb.SetAttrMask_SET_REPLICAS)
	// setBelow are those that a store with owners keeps, too.
	setBelow = setMode | setUID | setGID | setAtime | setMtime
)

// Limits of extended attributes.
const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
)

// setAttr changes attributes of one inode.
func (m *Machine) setAttr(c *call, o *metapb.SetAttrOp) *refusal {
	s, r := m.resolve(&c.who, o.Target, c.decided == nil)
	if r != nil {
		return r
	}
	if r := m.unknownName(c, &s); r != nil {
		return r
	}
	if s.none() {
		return refuse(orca.NotFound, s.path, "")
	}
	loc := m.locateSpot(&s)
	if r := m.notLeaving(s.dir, s.name, s.path); r != nil {
		return r
	}
	if c.decided == nil {
		if r := firstRefusal(m.checkSetAttr(c, o, &s, loc), m.frozen(&s)); r != nil {
			return r
		}
	}
	d := s.dentry.dir
	inUFS := s.file != nil && s.file.Fingerprint != "" || d != nil && d.rec.Flags.Has(inode.Persisted)
	if loc.mount != nil && loc.mount.Owners && inUFS && o.Mask&setBelow != 0 {
		if r := m.free(c, loc, false, s.path); r != nil {
			return r
		}
		if c.decided == nil {
			op := &metapb.SetAttrOp{
				Target: &metapb.Target{Ino: uint64(s.ino())}, Mask: o.Mask, Mode: o.Mode, Uid: o.Uid, Gid: o.Gid,
				Atime: o.Atime, Mtime: o.Mtime, Pinned: o.Pinned, SyncIntervalMs: o.SyncIntervalMs,
				ReplicaMin: o.ReplicaMin, ReplicaLimit: o.ReplicaLimit, OnlyFile: o.OnlyFile,
			}
			it := &command.Intent{Op: metapb.IntentOp_INTENT_SETATTR, Source: loc.key, Ino: uint64(s.ino()), Dir: d != nil}
			if s.file != nil {
				it.Version = s.file.Version
			}
			return m.begin(c, it, loc, func(cmd *command.Command) { cmd.SetAttr = op })
		}
	}
	if d != nil {
		m.setDirAttr(c, o, d)
	} else {
		m.setFileAttr(c, o, &s)
	}
	m.event(metapb.EventKind_EVENT_ATTR, s.ino(), s.dir.rec.Ino, s.name)
	c.res.Parent = uint64(s.dir.rec.Ino)
	return nil
}

func (m *Machine) checkSetAttr(c *call, o *metapb.SetAttrOp, s *spot, loc located) *refusal {
	if o.Mask&setBelow != 0 {
		if r := writable(loc.mount, s.path); r != nil {
			return r
		}
	}
	if o.Mask&setSync != 0 && s.file != nil {
		return refuse(orca.NotDir, s.path, "a sync interval is set on a directory")
	}
	if o.OnlyFile && s.file == nil {
		return refuse(orca.IsDir, s.path, "only files have copies: ask for all files below it")
	}
	if o.Mask&setCopies != 0 {
		if r := checkCopies(o, s); r != nil {
			return r
		}
	}
	if c.who.UID == 0 {
		return nil
	}
	mode, uid, gid := s.modeOwner()
	denied := refuse(orca.Permission, s.path, "")
	owner := c.who.UID == uid
	switch {
	case o.Mask&setUID != 0 && o.Uid != uid:
		return denied
	case o.Mask&setGID != 0 && o.Gid != gid && !(owner && inGroup(&c.who, o.Gid)):
		return denied
	case o.Mask&(setMode|setPinned|setSync|setCopies|setUID|setGID) != 0 && !owner:
		return denied
	case o.Mask&(setAtime|setMtime) == 0 || owner:
		return nil
	case o.TimesNow && allowed(&c.who, mode, uid, gid, mayWrite, s.file == nil):
		return nil
	}
	return denied
}

func (s *spot) modeOwner() (mode, uid, gid uint32) {
	if s.file != nil {
		return s.file.Mode, s.file.UID, s.file.GID
	}
	r := &s.dentry.dir.rec
	return r.Mode, r.UID, r.GID
}

// newMode applies what a change of mode or owner does to the mode bits.
func newMode(c *call, o *metapb.SetAttrOp, mode, gid uint32, file bool) uint32 {
	if o.Mask&setMode != 0 {
		mode = o.Mode & 0o7777
		if c.who.UID != 0 && !inGroup(&c.who, gid) {
			mode &^= modeSetgid
		}
	} else if file && c.who.UID != 0 && o.Mask&(setUID|setGID) != 0 {
		mode &^= modeSetuid
		if mode&0o010 != 0 {
			mode &^= modeSetgid
		}
	}
	return mode
}

func (m *Machine) setDirAttr(c *call, o *metapb.SetAttrOp, n *node) {
	r, was := &n.rec, m.unsure(n)
	r.Mode = newMode(c, o, r.Mode, r.GID, false)
	if o.Mask&setUID != 0 {
		r.UID = o.Uid
	}
	if o.Mask&setGID != 0 {
		r.GID = o.Gid
	}
	if o.Mask&setAtime != 0 {
		r.Atime = o.Atime
	}
	if o.Mask&setMtime != 0 {
		r.Mtime = o.Mtime
	}
	if o.Mask&setPinned != 0 {
		r.Flags = r.Flags.With(inode.Pinned, o.Pinned)
	}
	if o.Mask&setSync != 0 {
		r.Flags |= inode.HasSync
		r.SyncMS = o.SyncIntervalMs
		m.reassess(n, was)
	}
	r.Ctime = c.now
	if o.Mask&setBelow != 0 {
		r.Change = m.batch.index // a listing that began before knows nothing of it
	}
	m.dirtied(n)
	c.res.Attr = m.dirAttr(n, m.locate(n, ""))
}

func (m *Machine) setFileAttr(c *call, o *metapb.SetAttrOp, s *spot) {
	f := clone(s.file)
	f.Mode = newMode(c, o, f.Mode, f.GID, true)
	if o.Mask&setUID != 0 {
		f.UID = o.Uid
	}
	if o.Mask&setGID != 0 {
		f.GID = o.Gid
	}
	if o.Mask&setAtime != 0 {
		f.Atime = o.Atime
	}
	if o.Mask&setMtime != 0 {
		f.Mtime = o.Mtime
	}
	if o.Mask&setPinned != 0 && f.Flags.Has(inode.Pinned) != o.Pinned {
		f.Flags = f.Flags.With(inode.Pinned, o.Pinned)
		kind := EffectUnpin
		if o.Pinned {
			kind = EffectPin
		}
		m.effect(Effect{Kind: kind, File: f.Ino, Version: f.Version})
	}
	if o.Mask&setCopies != 0 && f.Type == orca.TypeFile {
		m.setCopies(f, inode.Copies{Min: o.ReplicaMin, Max: o.ReplicaLimit})
	}
	// A writer may have put another object in the place of the one that the
	// store has changed.
	replaced := c.decided != nil && c.decided.Version != 0 && c.decided.Version != f.Version
	if fp := c.decide.GetFingerprint(); fp != "" && f.Fingerprint != "" && !replaced {
		f.Fingerprint = fp
	}
	if o.Mask&setBelow != 0 {
		f.Change = m.batch.index // a listing that began before knows nothing of it
	}
	if o.Mask&setMtime != 0 && f.Persist != orca.Persisted {
		f.Flags |= inode.OwnMtime
	}
	f.Ctime = c.now
	m.putFile(s.dir, s.name, f)
	if replaced && f.Persist == orca.Persisted {
		m.mendMask(c, s.dir, s.name, f, o.Mask&setBelow)
	}
	c.res.Attr = m.fileAttr(f, m.locateFile(s.dir, s.name, f))
}

// xattr sets or removes one extended attribute.
func (m *Machine) xattr(c *call, o *metapb.XattrOp) *refusal {
	s, r := m.resolve(&c.who, o.Target, true)
	if r != nil {
		return r
	}
	if r := m.unknownName(c, &s); r != nil {
		return r
	}
	if s.none() {
		return refuse(orca.NotFound, s.path, "")
	}
	if r := firstRefusal(m.notLeaving(s.dir, s.name, s.path), checkXattr(c, o, &s), m.frozen(&s)); r != nil {
		return r
	}
	key := inode.AppendXattr(nil, s.ino(), o.Name)
	have := s.flags().Has(inode.HasXattr) && m.get(key) != nil
	switch {
	case have && o.Create:
		return refuse(orca.Exists, s.path, "the attribute exists")
	case !have && (o.Replace || o.Remove):
		return refuse(orca.NoData, s.path, "")
	}
	if o.Remove {
		m.tx.Delete(key)
	} else {
		m.tx.Set(key, o.Value)
	}
	if d := s.dentry.dir; d != nil {
		d.rec.Flags |= inode.HasXattr
		d.rec.Ctime = c.now
		m.dirtied(d)
	} else {
		f := clone(s.file)
		f.Flags |= inode.HasXattr
		f.Ctime = c.now
		m.putFile(s.dir, s.name, f)
	}
	m.event(metapb.EventKind_EVENT_ATTR, s.ino(), s.dir.rec.Ino, s.name)
	return nil
}

func (s *spot) flags() inode.Flags {
	if s.file != nil {
		return s.file.Flags
	}
	return s.dentry.dir.rec.Flags
}

func checkXattr(c *call, o *metapb.XattrOp, s *spot) *refusal {
	switch {
	case o.Name == "" || strings.ContainsRune(o.Name, 0):
		return refuse(orca.Invalid, s.path, "bad attribute name")
	case len(o.Name) > maxXattrName:
		return refuse(orca.NameTooLong, s.path, "attribute name too long")
	case len(o.Value) > maxXattrValue:
		return refuse(orca.TooLarge, s.path, "attribute value too long")
	}
	return mayXattr(&c.who, s, o.Name, mayWrite)
}

// mayXattr checks the right to read or write an attribute by its namespace.
func mayXattr(c *orca.Caller, s *spot, name string, bits uint32) *refusal {
	if c.UID == 0 {
		return nil
	}
	mode, uid, gid := s.modeOwner()
	switch {
	case strings.HasPrefix(name, "trusted.") || bits == mayWrite && strings.HasPrefix(name, "security."):
		return refuse(orca.Permission, s.path, "")
	case strings.HasPrefix(name, "system.") && bits == mayWrite:
		if c.UID != uid {
			return refuse(orca.Permission, s.path, "")
		}
	case strings.HasPrefix(name, "user."):
		if !allowed(c, mode, uid, gid, bits, s.file == nil) {
			return refuse(orca.Permission, s.path, "")
		}
	}
	return nil
}

// dropXattrs removes all extended attributes of an inode.
func (m *Machine) dropXattrs(ino orca.Ino, flags inode.Flags) {
	if flags.Has(inode.HasXattr) {
		lower := inode.AppendXattr(nil, ino, "")
		m.deleteRange(lower, inode.PrefixEnd(lower))
	}
}

// xattrNames lists the names of an inode's attributes, sorted.
func (m *Machine) xattrNames(ino orca.Ino) []string {
	lower := inode.AppendXattr(nil, ino, "")
	var names []string
	m.eachKey(lower, inode.PrefixEnd(lower), func(k, _ []byte) bool {
		names = append(names, inode.NameOf(k))
		return true
	})
	return slices.Clip(names)
}

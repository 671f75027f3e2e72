// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// create opens a write session, or makes an empty file or a link at once.
func (m *Machine) create(c *call, o *metapb.CreateOp) *refusal {
	s, r := m.resolve(&c.who, o.Target, c.decided == nil)
	if r != nil {
		return r
	}
	if r := m.unknownName(c, &s); r != nil {
		return r
	}
	m.toHome(&s)
	if c.decided == nil {
		if r := m.checkCreate(c, o, &s); r != nil {
			return r
		}
	}
	loc := m.locateSpot(&s)
	if r := m.free(c, loc, false, s.path); r != nil {
		return r
	}
	if s.none() && len(s.rest) > 1 {
		// The first of the parents that are made must not be just being made
		// as something else.
		if r := m.free(c, m.locate(s.dir, s.rest[0]), false, s.path); r != nil {
			return r
		}
	}
	if c.decided == nil {
		if r := m.roomToCreate(o, &s); r != nil {
			return r
		}
	}
	inUFS := loc.mount != nil && o.Symlink == "" &&
		(orca.WriteType(o.WriteType) == orca.CacheThrough || orca.WriteType(o.WriteType) == orca.Through)
	if o.Complete && inUFS && c.decided == nil {
		op := *shallowCreate(o)
		if s.file != nil {
			op.Mode = s.file.Mode
		}
		return m.begin(c, &command.Intent{
			Op: metapb.IntentOp_INTENT_PUT_EMPTY, Target: loc.key, Ino: uint64(s.ino()), Replaces: !s.none(),
			HoldDir: uint64(s.dir.rec.Ino), HoldInodes: int64(len(s.rest)),
		}, loc, func(cmd *command.Command) {
			op.Target = here(&s)
			cmd.Create = &op
		})
	}
	if s.none() && len(s.rest) > 1 {
		s = m.makeParents(c, &s, o.ParentMode)
	}
	if o.Complete {
		return m.createEmpty(c, o, &s, loc, inUFS)
	}
	return m.openSession(c, o, &s, loc)
}

// shallowCreate copies the fields of o but its target.
func shallowCreate(o *metapb.CreateOp) *metapb.CreateOp {
	return &metapb.CreateOp{
		Mode: o.Mode, Parents: o.Parents, Exclusive: o.Exclusive, Overwrite: o.Overwrite,
		WriteType: o.WriteType, BlockSize: o.BlockSize, WholeMax: o.WholeMax, Replicas: o.Replicas,
		Complete: o.Complete, Symlink: o.Symlink, Ttl: o.Ttl, ParentMode: o.ParentMode,
	}
}

func (m *Machine) checkCreate(c *call, o *metapb.CreateOp, s *spot) *refusal {
	if s.dentry.dir != nil {
		if o.Exclusive || o.Symlink != "" {
			return refuse(orca.Exists, s.path, "")
		}
		return refuse(orca.IsDir, s.path, "")
	}
	if r := writable(m.mountOf(s.dir), s.path); r != nil {
		return r
	}
	if s.file != nil {
		if o.Exclusive || !o.Overwrite || s.file.Type != orca.TypeFile || o.Symlink != "" {
			return refuse(orca.Exists, s.path, "")
		}
		if !allowedFile(&c.who, s.file, mayWrite) {
			return refuse(orca.Permission, s.path, "")
		}
	} else {
		if len(s.rest) > 1 && !o.Parents {
			return refuse(orca.NotFound, s.path, "")
		}
		if r := firstRefusal(mayChange(&c.who, s.dir, s.path), checkNew(s.dir, s.rest, s.path)); r != nil {
			return r
		}
	}
	if len(o.Symlink) > orca.MaxPath {
		return refuse(orca.NameTooLong, s.path, "link target too long")
	}
	if id := m.byName[nameKey{s.dir.rec.Ino, s.name}]; id != 0 {
		if len(s.rest) > 1 || !o.Steal || o.Complete {
			return refuse(orca.Busy, s.path, "the file is open for writing")
		}
		if h := m.sessions[id]; h.State == stateOpen && h.Committing > c.now {
			return refuse(orca.Busy, s.path, "the file is just being published by another writer")
		}
	}
	return nil
}

func firstRefusal(rs ...*refusal) *refusal {
	for _, r := range rs {
		if r != nil {
			return r
		}
	}
	return nil
}

// here is a target by directory inode and name, safe against renames above.
func here(s *spot) *metapb.Target {
	t := &metapb.Target{Ino: uint64(s.dir.rec.Ino), Path: strings.Clone(s.name)}
	for _, name := range s.rest[min(1, len(s.rest)):] {
		t.Path += "/" + name
	}
	return t
}

// makeParents makes the missing directories above the end of a spot, which
// the UFS learns of when a file below them is persisted.
func (m *Machine) makeParents(c *call, s *spot, mode uint32) spot {
	if mode == 0 {
		mode = 0o755
	}
	n := s.dir
	for _, name := range s.rest[:len(s.rest)-1] {
		n = m.newDir(c, n, name, mode, m.mountOf(n) != nil)
	}
	last := s.rest[len(s.rest)-1]
	return spot{path: s.path, dir: n, name: last, rest: []string{last}}
}

// newFile returns the record of a file made by the caller.
func (m *Machine) newFile(c *call, n *node, mode uint32) *inode.File {
	one := &struct {
		file inode.File
		run  [1]orca.Run
	}{}
	f := &one.file
	*f = inode.File{
		Ino: m.newIno(), Type: orca.TypeFile, Mode: mode & 0o7777, UID: c.who.UID, GID: c.who.GID,
		Version: 1, LastVersion: 1, Mtime: c.now, Ctime: c.now, Atime: c.now, Change: m.batch.index, Runs: one.run[:0:1],
	}
	if n.rec.Mode&modeSetgid != 0 {
		f.GID = n.rec.GID
	}
	return f
}

// blockSizeOf applies the rule of one whole block per file.
func blockSizeOf(length, blockSize, wholeMax int64) int64 {
	if wholeMax <= 0 {
		wholeMax = orca.MaxWholeBlock
	}
	if length <= wholeMax {
		return wholeMax
	}
	if blockSize <= 0 {
		return orca.DefaultBlockSize
	}
	return blockSize
}

// wholeRuns are the runs of a file that is all of one version.
func wholeRuns(version uint32) []orca.Run { return []orca.Run{{Version: version}} }

// createEmpty makes a complete, empty file, a link, or a new empty version.
func (m *Machine) createEmpty(c *call, o *metapb.CreateOp, s *spot, loc located, inUFS bool) *refusal {
	fresh := s.file == nil
	var f *inode.File
	if fresh {
		f = m.newFile(c, s.dir, o.Mode)
		f.Runs = append(f.Runs, orca.Run{Version: f.Version})
		m.count.files++
	} else {
		f = clone(s.file)
		f.Version = m.nextVersion(f.LastVersion)
		f.LastVersion = f.Version
		f.Mtime, f.Ctime, f.Change, f.Length = c.now, c.now, m.batch.index, 0
		f.Runs = wholeRuns(f.Version)
		c.res.Replaced = uint64(f.Ino)
	}
	f.CRC, f.Workers = 0, nil
	f.BlockSize = blockSizeOf(0, o.BlockSize, o.WholeMax)
	f.WriteType, f.Replicas = orca.WriteType(o.WriteType), o.Replicas
	if o.Symlink == "" {
		m.written(f, o.Replicas)
	}
	f.Persist = orca.NotPersisted
	switch {
	case o.Symlink != "":
		f.Type, f.Target, f.Length = orca.TypeSymlink, o.Symlink, int64(len(o.Symlink))
	case inUFS:
		f.Persist, f.Fingerprint = orca.Persisted, c.decide.GetFingerprint()
		if t := c.decide.GetMtime(); t != 0 {
			f.Mtime = t
		}
		m.markPersisted(s.dir)
	case f.WriteType == orca.AsyncThrough && loc.mount != nil:
		f.Persist = orca.ToBePersisted
	}
	name := s.name
	if fresh {
		name = m.batch.kept(name)
	}
	m.publish(c, s.dir, name, s.file, f, loc)
	if inUFS && !fresh {
		m.mend(c, s.dir, name, f, owned{o.Mode, c.who.UID, c.who.GID}, false)
	}
	return nil
}

// publish makes f, which is at loc, what the name stands for, in place of old
// (nil: nothing).
func (m *Machine) publish(c *call, n *node, name string, old, f *inode.File, loc located) {
	if old == nil {
		m.addFile(n, name, f)
		m.event(metapb.EventKind_EVENT_ENTRY, f.Ino, n.rec.Ino, name)
	} else {
		m.putFile(n, name, f)
		m.resize(n, old.Length, f.Length)
		m.event(metapb.EventKind_EVENT_CONTENT, f.Ino, n.rec.Ino, name)
		m.effect(Effect{Kind: EffectFreeOld, File: f.Ino, Version: f.Version})
	}
	m.countUnpersisted(n, old, f)
	if f.Persist == orca.ToBePersisted {
		m.askPersist(n, name, f)
	}
	c.res.Attr = m.batch.attr()
	m.fileAttrTo(c.res.Attr, f, loc)
	c.res.Parent = uint64(n.rec.Ino)
}

// clone copies a record, for they are never changed in place.
func clone(f *inode.File) *inode.File {
	g := *f
	return &g
}

// countUnpersisted keeps the mount's count of files that wait to be
// persisted, when old becomes f (either may be nil).
func (m *Machine) countUnpersisted(n *node, old, f *inode.File) {
	var delta int64
	if old != nil && old.Persist == orca.ToBePersisted {
		delta--
	}
	if f != nil && f.Persist == orca.ToBePersisted {
		delta++
	}
	if delta == 0 {
		return
	}
	if mt := m.mountOrTrash(n); mt != nil {
		next := proto.Clone(mt).(*command.Mount)
		next.Unpersisted += delta
		m.putMount(next)
	}
}

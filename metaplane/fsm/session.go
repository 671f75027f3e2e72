// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// defaultTTL is how long a session lives without a renewal.
const defaultTTL = 15_000_000_000

// Session states, shortened.
const (
	stateOpen    = metapb.SessionState_SESSION_OPEN
	stateExpired = metapb.SessionState_SESSION_EXPIRED
	stateStolen  = metapb.SessionState_SESSION_STOLEN
)

// indexSession enters a session into the maps.
func (m *Machine) indexSession(s *command.Session) {
	m.sessions[s.Id] = s
	if s.State == stateStolen {
		return
	}
	m.byName[nameKey{orca.Ino(s.Dir), s.Name}] = s.Id
	m.byFile[orca.Ino(s.File)] = s.Id
}

// unindexSession gives back the name and the file that a session holds.
func (m *Machine) unindexSession(s *command.Session) {
	if k := (nameKey{orca.Ino(s.Dir), s.Name}); m.byName[k] == s.Id {
		delete(m.byName, k)
	}
	if k := orca.Ino(s.File); m.byFile[k] == s.Id {
		delete(m.byFile, k)
	}
}

func (m *Machine) putSession(s *command.Session) {
	m.putRecord(inode.AppendKey8(nil, inode.SpaceSession, s.Id), s)
}

func (m *Machine) forgetSession(s *command.Session) {
	m.holdSession(m.sessions[s.Id], -1)
	m.unindexSession(s)
	delete(m.sessions, s.Id)
	m.tx.Delete(inode.AppendKey8(nil, inode.SpaceSession, s.Id))
}

// fenceOff ends the right of a session to publish; the server sweeps what it
// left in the UFS and then drops it. Records are replaced, never changed, for
// readers hold them.
func (m *Machine) fenceOff(s *command.Session, state metapb.SessionState) {
	if state == stateStolen {
		m.unindexSession(s)
	}
	m.holdSession(s, -1)
	t := cloneSession(s)
	t.State = state
	m.sessions[t.Id] = t
	m.putSession(t)
	m.effect(Effect{Kind: EffectSession, ID: t.Id, File: orca.Ino(t.File)})
}

// openSession starts a write session on a spot that is free or a file.
func (m *Machine) openSession(c *call, o *metapb.CreateOp, s *spot, loc located) *refusal {
	if len(m.sessions) >= m.cfg.MaxSessions {
		return refuse(orca.Busy, s.path, "too many open write sessions")
	}
	if id := m.byName[nameKey{s.dir.rec.Ino, s.name}]; id != 0 {
		m.fenceOff(m.sessions[id], stateStolen)
	}
	m.count.session++
	se := &command.Session{
		Id: m.count.session, Fence: m.count.session, State: stateOpen,
		Dir: uint64(s.dir.rec.Ino), Name: s.name, Caller: c.cmd.Caller, Client: c.cmd.Client,
		WriteType: o.WriteType, MountId: loc.id(), UfsKey: loc.key, BlockSize: o.BlockSize,
		WholeMax: o.WholeMax, Replicas: o.Replicas, Asked: o.Replicas, Opened: c.now, Ttl: o.Ttl,
	}
	if se.Ttl <= 0 {
		se.Ttl = defaultTTL
	}
	se.Expires = c.now + se.Ttl
	var f *inode.File
	if s.file == nil {
		f = m.newFile(c, s.dir, o.Mode)
		se.Fresh = true
	} else {
		f = clone(s.file)
		f.LastVersion = m.nextVersion(f.LastVersion)
		m.putFile(s.dir, s.name, f)
		f = clone(f)
		f.Version, f.Length = f.LastVersion, 0
		c.res.Replaced = uint64(f.Ino)
		se.Replicas = max(se.Replicas, m.copies(f).Min)
	}
	if o.ExpectLength > 0 {
		se.HoldBytes = o.ExpectLength
		if s.file != nil {
			se.HoldBytes = max(0, se.HoldBytes-s.file.Length)
		}
	}
	se.File, se.Version = uint64(f.Ino), f.Version
	se.Mode, se.Uid, se.Gid = f.Mode, f.UID, f.GID
	f.BlockSize = blockSizeOf(0, o.BlockSize, o.WholeMax)
	f.Runs, f.Persist, f.Fingerprint = wholeRuns(f.Version), orca.NotPersisted, ""
	m.indexSession(se)
	m.holdSession(se, 1)
	m.putSession(se)
	c.res.Session = se
	c.res.Attr = m.fileAttr(f, loc)
	c.res.Parent = uint64(s.dir.rec.Ino)
	return nil
}

// holding finds the open session that a writer claims to have.
func (m *Machine) holding(id, fence uint64) (*command.Session, *refusal) {
	s := m.sessions[id]
	if s == nil || s.State != stateOpen || s.Fence != fence {
		return nil, refuse(orca.Stale, "", "the write session is over")
	}
	return s, nil
}

// complete publishes what a session wrote.
func (m *Machine) complete(c *call, o *metapb.CompleteOp) *refusal {
	s, r := m.holding(o.Session, o.Fence)
	if r != nil {
		return r
	}
	n := m.dirs[orca.Ino(s.Dir)]
	if n == nil || !m.attached(n) || o.Length < 0 {
		return refuse(orca.Stale, s.Name, "the directory of the session is gone")
	}
	old := m.lookup(n, s.Name)
	var f *inode.File
	switch {
	case s.Fresh && old.none():
		f = &inode.File{
			Ino: orca.Ino(s.File), Type: orca.TypeFile, Mode: s.Mode, UID: s.Uid, GID: s.Gid, Atime: c.now,
			LastVersion: s.Version,
		}
	case !s.Fresh && old.file != nil && uint64(old.file.Ino) == s.File:
		f = clone(old.file)
	default:
		return refuse(orca.Stale, s.Name, "the name has changed under the session")
	}
	if r := m.roomToComplete(n, s, o, old.file); r != nil {
		return r
	}
	if s.Fresh {
		m.count.files++
	}
	m.fillVersion(c, f, s, o, n)
	m.publish(c, n, s.Name, old.file, f, m.locateFile(n, s.Name, f))
	if o.Fingerprint != "" {
		m.mend(c, n, s.Name, f, owned{s.Mode, s.Uid, s.Gid}, false)
	}
	m.forgetSession(s)
	if o.Keep {
		m.reopen(c, s, f, o)
	}
	return nil
}

// fillVersion writes what a session produced into the record of its file.
func (m *Machine) fillVersion(c *call, f *inode.File, s *command.Session, o *metapb.CompleteOp, n *node) {
	f.Version, f.Runs, f.Length, f.CRC = s.Version, wholeRuns(s.Version), o.Length, o.Crc32C
	if f.BlockSize = o.BlockSize; f.BlockSize <= 0 {
		f.BlockSize = blockSizeOf(o.Length, s.BlockSize, s.WholeMax)
	}
	f.Mtime, f.Ctime, f.Change = c.now, c.now, m.batch.index
	if o.Mtime != 0 {
		f.Mtime = o.Mtime
	}
	f.WriteType, f.Replicas = orca.WriteType(s.WriteType), s.Replicas
	m.written(f, s.Asked)
	f.Flags = f.Flags.With(inode.Durable, o.Durable).With(inode.OwnMtime, false)
	f.Workers = slices.Clone(o.Workers)
	f.Persist = orca.NotPersisted
	switch {
	case o.Fingerprint != "":
		f.Persist, f.Fingerprint, f.Workers = orca.Persisted, o.Fingerprint, nil
		m.markPersisted(n)
	case f.WriteType == orca.AsyncThrough && s.MountId != 0:
		f.Persist = orca.ToBePersisted
	}
}

// reopen starts the next session of a handle that stays open.
func (m *Machine) reopen(c *call, s *command.Session, f *inode.File, o *metapb.CompleteOp) {
	m.count.session++
	next := cloneSession(s)
	next.Id, next.Fence, next.Fresh, next.Committing = m.count.session, m.count.session, false, 0
	next.HoldBytes = 0
	next.Mode, next.Uid, next.Gid = f.Mode, f.UID, f.GID
	if o.Ttl > 0 {
		next.Ttl = o.Ttl
	}
	next.Expires, next.Opened = c.now+next.Ttl, c.now
	g := clone(f)
	g.LastVersion = m.nextVersion(g.LastVersion)
	next.Version = g.LastVersion
	m.putFile(m.dirs[orca.Ino(s.Dir)], s.Name, g)
	m.indexSession(next)
	m.putSession(next)
	c.res.Session = next
}

// abandon gives up a session.
func (m *Machine) abandon(_ *call, o *metapb.AbandonOp) *refusal {
	s, r := m.holding(o.Session, o.Fence)
	if r != nil {
		return r
	}
	if o.Swept {
		m.forgetSession(s)
	} else {
		m.fenceOff(s, stateExpired)
	}
	return nil
}

// renew prolongs sessions.
func (m *Machine) renew(c *call, o *metapb.RenewOp) *refusal {
	if o.Fence != 0 {
		return m.commitUpload(c, o)
	}
	for _, id := range o.Sessions {
		s := m.sessions[id]
		if s == nil || s.State != stateOpen {
			c.res.Ids = append(c.res.Ids, id)
			continue
		}
		t := cloneSession(s)
		if o.Ttl > 0 {
			t.Ttl = o.Ttl
		}
		t.Expires = max(t.Expires, c.now+t.Ttl)
		m.sessions[id] = t
		m.putSession(t)
	}
	return nil
}

// commitUpload lets the worker of a session commit its upload: within the time
// given the session is not stolen.
func (m *Machine) commitUpload(c *call, o *metapb.RenewOp) *refusal {
	if len(o.Sessions) != 1 {
		return refuse(orca.Invalid, "", "one session commits at a time")
	}
	s, r := m.holding(o.Sessions[0], o.Fence)
	if r != nil {
		return r
	}
	hold, r := m.announce(s, o.Length)
	if r != nil {
		return r
	}
	t := cloneSession(s)
	m.holdSession(s, -1)
	t.HoldBytes = hold
	m.holdSession(t, 1)
	t.Expires, t.Committing = max(t.Expires, c.now+t.Ttl), max(t.Committing, c.now+o.Ttl)
	m.sessions[t.Id] = t
	m.putSession(t)
	return nil
}

// expire fences off sessions whose time is over.
func (m *Machine) expire(c *call, o *metapb.ExpireOp) *refusal {
	ids := o.Sessions
	if len(ids) == 0 {
		ids = slices.Sorted(maps.Keys(m.sessions))
	}
	for _, id := range ids {
		if s := m.sessions[id]; s != nil && s.State == stateOpen && s.Expires <= c.now {
			m.fenceOff(s, stateExpired)
			c.res.Ids = append(c.res.Ids, id)
		}
	}
	return nil
}

// dropSession forgets a session whose remains are swept.
func (m *Machine) dropSession(o *metapb.DropSessionOp) *refusal {
	s := m.sessions[o.Session]
	if s == nil {
		return nil
	}
	if s.State == stateOpen {
		return refuse(orca.Busy, s.Name, "the write session is still open")
	}
	m.forgetSession(s)
	return nil
}

func cloneSession(s *command.Session) *command.Session {
	return proto.Clone(s).(*command.Session)
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// syncing is one SyncApply in progress.
type syncing struct {
	*metapb.SyncApplyOp
	n   *node
	mt  *command.Mount
	res *metapb.SyncResult
}

// syncApply brings names of a directory in line with its UFS. It leaves alone
// whatever the UFS listing may not know of: names changed or removed since
// the listing began, masked by an intent, being written, or not persisted.
func (m *Machine) syncApply(c *call, o *metapb.SyncApplyOp) *refusal {
	n := m.dirs[orca.Ino(o.Dir)]
	if n == nil || !m.attached(n) {
		return refuse(orca.NotFound, "", "the directory is gone")
	}
	s := &syncing{SyncApplyOp: o, n: n, mt: m.mountOf(n), res: &metapb.SyncResult{}}
	if s.mt == nil {
		return refuse(orca.Invalid, n.path(), "the directory is under no mount")
	}
	if o.Strict && m.movedSince(n, o.Change) {
		return refuse(orca.Stale, n.path(), "the directory has moved since its UFS was asked")
	}
	c.res.Sync = s.res
	mtime := n.rec.Mtime
	for _, e := range o.Entries {
		m.syncEntry(c, s, e)
	}
	for _, name := range o.Missing {
		m.syncGone(s, name, m.lookup(n, name))
	}
	if o.Range {
		m.syncRange(s)
	}
	m.syncSelf(s, mtime)
	if o.Loaded && m.masks[s.mt.Mount.Id].overlap(m.locate(n, "").key, true, o.Intent) == 0 {
		was := m.unsure(n)
		n.rec.Flags |= inode.Loaded
		m.reassess(n, was)
		n.rec.LoadedAt = c.now
		m.dirtied(n)
	}
	return nil
}

// movedSince reports whether a directory, or one above it in its mount, has got
// its place after change.
func (m *Machine) movedSince(n *node, change uint64) bool {
	for ; n != nil && n.rec.Mount == 0; n = n.parent {
		if n.rec.Change > change {
			return true
		}
	}
	return false
}

// Moved reports whether a directory may have been at another key of its UFS
// since change: it or one above has moved, or an intent but except is about to
// do so.
func (m *Machine) Moved(dir orca.Ino, change, except uint64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.dirs[dir]
	return n == nil || !m.attached(n) || m.movedSince(n, change) || m.overlap(m.locate(n, ""), false, except) != 0
}

// syncSelf takes over what the UFS says of the directory itself; what sync
// does to its entries is not a change of the directory by its users.
func (m *Machine) syncSelf(s *syncing, mtime int64) {
	s.n.rec.Mtime = mtime
	e := s.Self
	if e == nil {
		return
	}
	r := &s.n.rec
	r.Flags |= inode.Persisted
	if e.Mtime != 0 {
		r.Mtime = e.Mtime
	}
	if e.Owners && s.mt.Owners && r.Change <= s.Change && m.overlap(m.locate(s.n, ""), false, s.Intent) == 0 {
		r.Mode, r.UID, r.GID = e.Mode&0o7777, e.Uid, e.Gid
	}
	m.dirtied(s.n)
}

// fenced reports whether a name must not be touched by this sync.
func (m *Machine) fenced(s *syncing, name string, d dentry) bool {
	id := m.byName[nameKey{s.n.rec.Ino, name}]
	if h := m.sessions[id]; h != nil && h.State != stateOpen && id == s.Session {
		id = 0 // what it left behind is being looked at
	}
	switch {
	case m.hidesName(s.n, name):
		return true
	case d.file != nil && d.file.Change > s.Change, d.dir != nil && d.dir.rec.Change > s.Change:
		return true
	case d.none() && m.removedSince(s.n, name, s.Change):
		return true
	case id != 0:
		return true
	case m.alias(s.n, name, d.file):
		return true // whatever the UFS has there is not it
	case d.dir != nil && d.dir.rec.Mount != 0:
		return true
	}
	l := m.locate(s.n, name)
	if d.file != nil && l.moved && m.live(d.file.Override) && d.file.Override.Key != l.key {
		return true // cut over: what lies at the old key is not it any more
	}
	if d.file != nil {
		l = m.locateFile(s.n, name, d.file)
	}
	return m.overlap(l, d.dir == nil, s.Intent) != 0
}

// syncEntry handles a name that the UFS has.
func (m *Machine) syncEntry(c *call, s *syncing, e *metapb.SyncEntry) {
	if orca.CheckName(e.Name) != nil || checkNew(s.n, []string{e.Name}, "") != nil {
		s.res.Skipped++
		return
	}
	d := m.lookup(s.n, e.Name)
	if m.fenced(s, e.Name, d) {
		s.res.Skipped++
		return
	}
	if d.dir != nil && !e.Dir || d.file != nil && e.Dir {
		if !m.syncGone(s, e.Name, d) {
			return
		}
		s.res.Removed--
		s.res.Changed++
		d = dentry{}
	} else if d.none() {
		s.res.Created++
	}
	switch {
	case e.Dir:
		m.syncDir(c, s, e, d.dir)
	case d.file == nil:
		m.syncNewFile(c, s, e)
	default:
		m.syncFile(c, s, e, d.file)
	}
}

func (m *Machine) syncDir(c *call, s *syncing, e *metapb.SyncEntry, d *node) {
	if d == nil {
		d = m.newDir(&call{who: orca.Caller{UID: s.mt.Uid, GID: s.mt.Gid}, now: c.now}, s.n, e.Name, 0o755, false)
		if e.Mtime != 0 {
			d.rec.Mtime = e.Mtime
		}
		if e.Owners {
			d.rec.Mode, d.rec.UID, d.rec.GID = e.Mode&0o7777, e.Uid, e.Gid
		}
		d.rec.Flags |= inode.Persisted
		return
	}
	r := d.rec
	r.Flags |= inode.Persisted
	if e.Owners {
		r.Mode, r.UID, r.GID = e.Mode&0o7777, e.Uid, e.Gid
	}
	if r != d.rec {
		d.rec = r
		m.dirtied(d)
		m.event(metapb.EventKind_EVENT_ATTR, r.Ino, s.n.rec.Ino, e.Name)
		s.res.Changed++
	}
}

func (m *Machine) syncNewFile(c *call, s *syncing, e *metapb.SyncEntry) {
	f := &inode.File{
		Ino: m.newIno(), Type: orca.TypeFile, Mode: 0o644, UID: s.mt.Uid, GID: s.mt.Gid,
		Version: 1, LastVersion: 1, Atime: e.Mtime, Ctime: c.now,
	}
	m.fillFromUFS(f, s, e)
	m.count.files++
	m.addFile(s.n, e.Name, f)
	m.event(metapb.EventKind_EVENT_ENTRY, f.Ino, s.n.rec.Ino, e.Name)
}

// fillFromUFS makes f the version that the UFS has.
func (m *Machine) fillFromUFS(f *inode.File, s *syncing, e *metapb.SyncEntry) {
	f.Length, f.Mtime, f.Fingerprint = e.Length, e.Mtime, e.Fingerprint
	f.BlockSize = blockSizeOf(e.Length, s.BlockSize, s.WholeMax)
	f.Runs, f.Persist, f.Workers, f.CRC = wholeRuns(f.Version), orca.Persisted, nil, 0
	if e.Owners {
		f.Mode, f.UID, f.GID = e.Mode&0o7777, e.Uid, e.Gid
	}
	f.Change = m.batch.index
}

// syncFile handles a file that both have.
func (m *Machine) syncFile(c *call, s *syncing, e *metapb.SyncEntry, old *inode.File) {
	f := clone(old)
	if old.Persist != orca.Persisted {
		it := m.intents[s.Intent]
		persisting := it != nil && it.Op == metapb.IntentOp_INTENT_PERSIST && it.Ino == uint64(old.Ino)
		switch {
		case s.Session == 0 && !persisting:
			s.res.Skipped++
		case e.Fingerprint != old.Fingerprint:
			// The upload of a dead session, or of a worker that does not know
			// what became of its commit, lies below a version that is ours
			// alone. That one stays, but who removes it must remove both.
			f.Fingerprint = e.Fingerprint
			m.putFile(s.n, e.Name, f)
			m.markPersisted(s.n)
		}
		return
	}
	if e.Fingerprint == old.Fingerprint {
		if !e.Owners || f.Mode == e.Mode&0o7777 && f.UID == e.Uid && f.GID == e.Gid {
			return
		}
		f.Mode, f.UID, f.GID, f.Ctime = e.Mode&0o7777, e.Uid, e.Gid, c.now
		m.putFile(s.n, e.Name, f)
		m.event(metapb.EventKind_EVENT_ATTR, f.Ino, s.n.rec.Ino, e.Name)
		s.res.Changed++
		return
	}
	f.LastVersion = m.nextVersion(f.LastVersion)
	f.Version, f.Ctime = f.LastVersion, c.now
	m.fillFromUFS(f, s, e)
	m.keepOwned(s, e, old, f)
	m.putFile(s.n, e.Name, f)
	if e.Owners {
		m.mend(c, s.n, e.Name, f, owned{e.Mode & 0o7777, e.Uid, e.Gid}, false)
	}
	m.resize(s.n, old.Length, f.Length)
	m.event(metapb.EventKind_EVENT_CONTENT, f.Ino, s.n.rec.Ino, e.Name)
	m.effect(Effect{Kind: EffectFreeOld, File: f.Ino, Version: f.Version})
	s.res.Changed++
}

// keepOwned keeps the mode and owner that a file has got since a session of it
// was opened: what the session uploaded and did not live to complete has those
// of then.
func (m *Machine) keepOwned(s *syncing, e *metapb.SyncEntry, old, f *inode.File) {
	h := m.sessions[s.Session]
	if h == nil || h.File != uint64(f.Ino) || !e.Owners {
		return
	}
	if f.Mode == h.Mode {
		f.Mode = old.Mode
	}
	if f.UID == h.Uid && f.GID == h.Gid {
		f.UID, f.GID = old.UID, old.GID
	}
}

// syncRange removes existing names of the range that were not listed.
func (m *Machine) syncRange(s *syncing) {
	listed := make(map[string]bool, len(s.Entries))
	for _, e := range s.Entries {
		listed[e.Name] = true
	}
	var gone []string
	m.eachDirent(s.n, s.After, s.Upto, func(name string, _ []byte) bool {
		if !listed[name] {
			gone = append(gone, name)
		}
		return m.failed() == nil
	})
	for _, name := range gone { // the home of a file takes its other names along
		m.syncGone(s, name, m.lookup(s.n, name))
	}
}

// syncGone handles a name that the UFS no longer has, and reports whether it
// was removed.
func (m *Machine) syncGone(s *syncing, name string, d dentry) bool {
	switch {
	case d.none():
		return false
	case m.fenced(s, name, d),
		d.file != nil && d.file.Persist != orca.Persisted,
		d.dir != nil && !d.dir.rec.Flags.Has(inode.Persisted):
		s.res.Skipped++
		return false
	case d.dir != nil && d.dir.rec.Entries > 0:
		s.res.NotEmpty = append(s.res.NotEmpty, name)
		return false
	}
	if d.dir != nil && m.sessionAt(s.n, name, d.dir) != 0 {
		s.res.Skipped++
		return false
	}
	if d.file != nil {
		m.eraseAll(d.file)
	} else {
		m.erase(&spot{dir: s.n, name: name, dentry: d})
	}
	s.res.Removed++
	return true
}

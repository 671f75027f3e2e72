// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// askPersist hands a file to the hosted machines.
func (m *Machine) askPersist(n *node, name string, f *inode.File) {
	p := PersistFile{
		File: f.Ino, Version: f.Version, Length: f.Length, Path: orca.JoinPath(n.path(), name), Workers: f.Workers,
	}
	if mt := m.mountOf(n); mt != nil {
		p.Mount = mt.Mount.Id
	}
	for _, h := range m.hnames {
		m.hosted[h].OnPersistNeeded(&hostedTx{m: m, name: h}, p, m.batch.now)
		m.effect(Effect{Kind: EffectHosted, Name: h})
	}
}

// persist asks for a file to be persisted that is not.
func (m *Machine) persist(c *call, o *metapb.PersistOp) *refusal {
	s, r := m.resolve(&c.who, o.Target, true)
	if r != nil {
		return r
	}
	switch {
	case s.none():
		return refuse(orca.NotFound, s.path, "")
	case s.file == nil || s.file.Type != orca.TypeFile:
		return refuse(orca.IsDir, s.path, "only files are persisted")
	case !allowedFile(&c.who, s.file, mayWrite):
		return refuse(orca.Permission, s.path, "")
	case s.file.Persist == orca.Lost:
		return refuse(orca.LostData, s.path, "")
	}
	mt := m.mountOf(s.dir)
	if mt == nil {
		return refuse(orca.Unsupported, s.path, "it is under no mount")
	}
	if r := writable(mt, s.path); r != nil {
		return r
	}
	f := s.file
	if f.Persist == orca.NotPersisted {
		f = clone(f)
		f.Persist = orca.ToBePersisted
		m.putFile(s.dir, s.name, f)
		m.countUnpersisted(s.dir, s.file, f)
		m.event(metapb.EventKind_EVENT_ATTR, f.Ino, s.dir.rec.Ino, s.name)
	}
	if f.Persist == orca.ToBePersisted {
		m.askPersist(s.dir, s.name, f)
	}
	c.res.Attr = m.fileAttr(f, m.locateFile(s.dir, s.name, f))
	return nil
}

// persistPrepare locks the key that a worker is about to commit its upload
// to. Asked again for the same version it returns the same intent, with a new
// term.
func (m *Machine) persistPrepare(c *call, o *metapb.PersistPrepareOp) *refusal {
	n, name, f := m.byIno(orca.Ino(o.File))
	if f == nil || !m.attached(n) {
		return refuse(orca.NotFound, "", "the file is gone")
	}
	if f.Version != o.Version || f.Persist != orca.ToBePersisted {
		return refuse(orca.Stale, name, "the file has changed or is persisted")
	}
	loc := m.locateFile(n, name, f)
	if loc.mount == nil {
		return refuse(orca.Invalid, name, "it is under no mount")
	}
	c.res.Attr = m.fileAttr(f, loc)
	if it := m.intents[m.overlap(loc, false, 0)]; it != nil {
		if it.Op == metapb.IntentOp_INTENT_PERSIST && it.Ino == o.File && it.Version == o.Version && !it.Unsure {
			c.res.Intent = m.changeIntent(it, func(next *command.Intent) { next.Created = c.now })
			return nil
		}
		return &refusal{kind: orca.Busy, path: name, busy: it.Id, msg: "an earlier change is still on its way to the UFS"}
	}
	if r := m.idle(n, name, nil, name); r != nil {
		return r
	}
	return m.addIntent(c, &command.Intent{
		Op: metapb.IntentOp_INTENT_PERSIST, Target: loc.key, Ino: o.File, Version: o.Version,
		Replaces: f.Fingerprint != "", Want: f.Fingerprint,
	}, loc)
}

// persistCommit takes note of what the worker committed, or lets the key go.
// When nobody knows whether something was committed, the key stays locked until
// the executor has looked at it: else a removal of the file, which is not in
// its UFS as far as the namespace knows, would leave an object behind.
func (m *Machine) persistCommit(c *call, o *metapb.PersistCommitOp) *refusal {
	it := m.intents[o.Intent]
	if it == nil || it.Op != metapb.IntentOp_INTENT_PERSIST {
		return refuse(orca.Stale, "", "the persist intent is over")
	}
	if o.Fingerprint == "" && o.Unsure {
		m.changeIntent(it, func(next *command.Intent) { next.Unsure = true })
		m.effect(Effect{Kind: EffectIntent, ID: it.Id})
		return nil
	}
	m.dropIntent(it)
	n, name, old := m.byIno(orca.Ino(it.Ino))
	if o.Fingerprint == "" {
		return nil
	}
	if old == nil || !m.attached(n) || old.Version != it.Version {
		return refuse(orca.Stale, name, "the file has changed")
	}
	f := clone(old)
	f.Persist, f.Fingerprint, f.Workers = orca.Persisted, o.Fingerprint, nil
	f.Change = m.batch.index
	f.Flags &^= inode.OwnMtime
	m.putFile(n, name, f)
	m.countUnpersisted(n, old, f)
	m.markPersisted(n)
	if o.Owned {
		m.mend(c, n, name, f, owned{o.Mode, o.Uid, o.Gid}, old.Flags.Has(inode.OwnMtime))
	}
	m.effect(Effect{Kind: EffectClean, File: f.Ino, Version: f.Version})
	m.event(metapb.EventKind_EVENT_ATTR, f.Ino, n.rec.Ino, name)
	c.res.Attr = m.fileAttr(f, m.locateFile(n, name, f))
	return nil
}

// markLost notes that the only copies of files are gone.
func (m *Machine) markLost(c *call, o *metapb.MarkLostOp) *refusal {
	for _, ino := range o.Files {
		n, name, old := m.byIno(orca.Ino(ino))
		if old == nil || !m.attached(n) || old.Persist != orca.NotPersisted && old.Persist != orca.ToBePersisted ||
			old.Length == 0 || old.Type != orca.TypeFile {
			continue
		}
		f := clone(old)
		f.Persist = orca.Lost
		m.putFile(n, name, f)
		m.countUnpersisted(n, old, f)
		m.event(metapb.EventKind_EVENT_ATTR, f.Ino, n.rec.Ino, name)
		c.res.Ids = append(c.res.Ids, ino)
	}
	return nil
}

// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unsafe"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/inodekv"
	"orca/metaplane/metapb"
)

// fileAttr is the metapb form of a file's record.
func (m *Machine) fileAttr(f *inode.File, l located) *metapb.Attr {
	a := &metapb.Attr{}
	m.fileAttrTo(a, f, l)
	return a
}

// fileAttrTo is fileAttr into a, which is empty but for memory of runs.
func (m *Machine) fileAttrTo(a *metapb.Attr, f *inode.File, l located) {
	setFile(a, f)
	setRuns(a, f.Runs)
	m.boundCopies(a, f)
	m.locateAttr(a, l)
}

// setRuns fills in the runs of a file, in memory that a has had for it.
func setRuns(a *metapb.Attr, of []orca.Run) {
	runs := a.Runs[:cap(a.Runs)]
	for len(runs) < len(of) {
		runs = append(runs, nil)
	}
	for i, r := range of {
		if runs[i] == nil {
			runs[i] = &metapb.Run{}
		}
		runs[i].First, runs[i].Version = r.First, r.Version
	}
	a.Runs = runs[:len(of)]
}

// setFile fills in what the record of a file says, but for its runs.
func setFile(a *metapb.Attr, f *inode.File) {
	a.Ino, a.Type, a.Mode, a.Uid, a.Gid, a.Nlink = uint64(f.Ino), uint32(f.Type), f.Mode, f.UID, f.GID, max(f.Links, 1)
	a.Length, a.BlockSize, a.Version = f.Length, f.BlockSize, f.Version
	a.Mtime, a.Ctime, a.Atime, a.Persist = f.Mtime, f.Ctime, f.Atime, uint32(f.Persist)
	a.Pinned, a.Target, a.Fingerprint = f.Flags.Has(inode.Pinned), f.Target, ""
	if f.Persist == orca.Persisted {
		a.Fingerprint = f.Fingerprint
	}
}

// dirAttr is the metapb form of a directory's record.
func (m *Machine) dirAttr(n *node, l located) *metapb.Attr {
	r := &n.rec
	a := &metapb.Attr{
		Ino: uint64(r.Ino), Type: uint32(orca.TypeDir), Mode: r.Mode, Uid: r.UID, Gid: r.GID,
		Nlink: uint32(2 + r.Subdirs), Length: r.Entries, Mtime: r.Mtime, Ctime: r.Ctime, Atime: r.Atime,
		Pinned: r.Flags.Has(inode.Pinned), MountPoint: r.Mount != 0,
	}
	if r.Flags.Has(inode.Persisted) {
		a.Persist = uint32(orca.Persisted)
	}
	if r.Mount != 0 && m.leadsAway(n) { // what it leads to is what it is
		if root := m.mounts[r.Mount].Mount.Root; root != 0 {
			a.Ino = root
		}
	}
	m.binAttr(n, a)
	m.locateAttr(a, l)
	return a
}

// locateAttr fills in where the UFS has it.
func (m *Machine) locateAttr(a *metapb.Attr, l located) {
	if l.mount == nil {
		return
	}
	a.MountId = l.id()
	if a.UfsPath = l.uri; a.UfsPath == "" {
		a.UfsPath = uri(l.mount, l.key)
	}
	a.UfsPending = m.overlap(l, false, 0) != 0
}

func (m *Machine) fileView(n *node, name string, f *inode.File) View {
	return m.fileViewTo(&metapb.Attr{}, n, name, f)
}

// fileViewTo is fileView with the attributes in a, which is empty but for memory
// of runs.
func (m *Machine) fileViewTo(a *metapb.Attr, n *node, name string, f *inode.File) View {
	l := m.locateFile(n, name, f)
	m.fileAttrTo(a, f, l)
	return View{
		Attr: a, Parent: n.rec.Ino, Name: name, Change: f.Change,
		Key: l.key, Moved: l.moved, Pending: m.overlap(l, false, 0),
		Session: m.byFile[f.Ino], InUFS: f.Fingerprint != "", SyncInterval: m.syncInterval(n),
		Holders: f.Workers, Alias: m.alias(n, name, f),
	}
}

func (m *Machine) dirView(n *node) View {
	l := m.locate(n, "")
	v := View{
		Attr: m.dirAttr(n, l), Name: n.rec.Name, Parent: n.rec.Ino, Change: n.rec.Change,
		Key: l.key, Moved: l.moved, Pending: m.overlap(l, false, 0), InUFS: n.rec.Flags.Has(inode.Persisted),
		Loaded: n.rec.Flags.Has(inode.Loaded), LoadedAt: n.rec.LoadedAt, SyncInterval: m.syncInterval(n),
	}
	if n.parent != nil {
		v.Parent = n.parent.rec.Ino
	}
	v.Foreign = n.rec.Mount != 0 && m.leadsAway(n)
	return v
}

// syncInterval is that of the nearest directory that sets one, else the
// mount's, else -1.
func (m *Machine) syncInterval(n *node) int64 {
	for ; n != nil; n = n.parent {
		if n.rec.Flags.Has(inode.HasSync) {
			return n.rec.SyncMS
		}
		if mt := m.mounts[n.rec.Mount]; n.rec.Mount != 0 && mt != nil {
			return mt.Mount.SyncIntervalMs
		}
	}
	return -1
}

func (m *Machine) view(s *spot) View {
	if s.file != nil {
		return m.fileView(s.dir, s.name, s.file)
	}
	return m.dirView(s.dentry.dir)
}

// Cursor starts a walk over the records of the store as they are now.
func (m *Machine) Cursor() (*inodekv.Cursor, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.failed(); err != nil {
		return nil, err
	}
	return m.db.Cursor()
}

// Base is what is added to the index of a journal's entry to get the index that
// it is applied under.
func (m *Machine) Base() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.db.Base()
}

// Applied returns the index of the last applied entry: the change index that
// a SyncApply must carry, taken before its UFS listing starts.
func (m *Machine) Applied() uint64 { return m.applied.Load() }

// Walk resolves path from inode from (0: the root), checking search permission
// on each directory. A missing name is not an error: see Walked. NotFound (no
// such from), NotDir, Permission, NameTooLong, Invalid.
func (m *Machine) Walk(c orca.Caller, from orca.Ino, path string) (*Walked, error) {
	const op = "fsm.Walk"
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, r := m.resolve(&c, &metapb.Target{Ino: uint64(from), Path: path}, true)
	if err := m.failed(); err != nil {
		return nil, err
	}
	if r != nil {
		return nil, r.err(op)
	}
	w := &Walked{Found: !s.none(), Dir: m.dirView(s.dir), Rest: s.rest, Mount: m.mountOf(s.dir)}
	if w.Found {
		w.View = m.view(&s)
		if d := s.dentry.dir; d != nil {
			w.Mount = m.mountOf(d)
		}
		w.TargetKey, w.TargetPending = w.Key, w.Pending
		return w, nil
	}
	w.Held = m.byName[nameKey{s.dir.rec.Ino, s.name}]
	except := uint64(0)
	if w.Dir.Moved {
		except = w.Dir.Pending
	}
	l := m.locate(s.dir, s.rest[0])
	w.Masked = m.overlap(l, false, except)
	if len(s.rest) > 1 {
		l = m.locate(s.dir, strings.Join(s.rest, "/"))
	}
	w.TargetKey, w.TargetPending = l.key, m.overlap(l, true, 0)
	return w, nil
}

// Lookup returns an inode by number, whatever its path's permissions. A file
// that is not complete yet is returned with Fresh set. NotFound (also of what
// is in the trash).
func (m *Machine) Lookup(ino orca.Ino) (*View, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if s := m.sessions[m.byFile[ino]]; s != nil && s.Fresh {
		return m.freshView(s)
	}
	s, r := m.resolveIno(spot{path: "ino:" + ino.String()}, ino)
	if err := m.failed(); err != nil {
		return nil, err
	}
	if r != nil {
		return nil, r.err("fsm.Lookup")
	}
	v := m.view(&s)
	return &v, nil
}

// freshView is a file that only its session has.
func (m *Machine) freshView(s *command.Session) (*View, error) {
	n := m.dirs[orca.Ino(s.Dir)]
	if n == nil {
		return nil, orca.PathE("fsm.Lookup", s.Name, orca.NotFound, nil)
	}
	f := &inode.File{
		Ino: orca.Ino(s.File), Type: orca.TypeFile, Mode: s.Mode, UID: s.Uid, GID: s.Gid, Version: s.Version,
		BlockSize: blockSizeOf(0, s.BlockSize, s.WholeMax), Runs: wholeRuns(s.Version),
		Mtime: s.Opened, Ctime: s.Opened, Atime: s.Opened,
	}
	v := m.fileView(n, s.Name, f)
	v.Fresh = true
	return &v, nil
}

// Path returns the path of an inode. NotFound.
func (m *Machine) Path(ino orca.Ino) (string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if n := m.dirs[ino]; n != nil && m.attached(n) {
		return n.path(), nil
	}
	n, name, f := m.byIno(ino)
	if err := m.failed(); err != nil {
		return "", err
	}
	if f == nil || !m.attached(n) {
		return "", orca.PathE("fsm.Path", ino.String(), orca.NotFound, nil)
	}
	return orca.JoinPath(n.path(), name), nil
}

// Children returns up to limit entries of a directory whose names sort after
// after, and whether there are more. It checks read permission on the
// directory. NotFound, NotDir, Permission.
func (m *Machine) Children(c orca.Caller, dir orca.Ino, after string, limit int) (children []Child, more bool, err error) {
	const op = "fsm.Children"
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.dirs[dir]
	if n == nil || !m.attached(n) {
		if _, _, f := m.byIno(dir); f != nil {
			return nil, false, orca.PathE(op, dir.String(), orca.NotDir, nil)
		}
		return nil, false, orca.PathE(op, dir.String(), orca.NotFound, nil)
	}
	if !allowedDir(&c, n, mayRead) {
		return nil, false, orca.PathE(op, n.path(), orca.Permission, nil)
	}
	children = make([]Child, 0, max(0, min(int64(limit), n.rec.Entries)))
	m.eachDirent(n, after, "", func(name string, v []byte) bool {
		if m.hidesName(n, name) {
			return true
		}
		if len(children) >= limit {
			more = true
			return false
		}
		d := m.decoded(v)
		if d.none() {
			return false
		}
		s := spot{dir: n, name: name, dentry: d}
		children = append(children, Child{Name: name, View: m.view(&s)})
		return true
	})
	return children, more, m.failed()
}

// EachChild calls fn for the entries of a directory whose names sort after
// after, in order, until it returns false, with the checks of Children. name
// and a are valid during the call only.
func (m *Machine) EachChild(c orca.Caller, dir orca.Ino, after string, fn func(name []byte, a *metapb.Attr) bool) error {
	const op = "fsm.EachChild"
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.dirs[dir]
	if n == nil || !m.attached(n) {
		return orca.PathE(op, dir.String(), orca.NotFound, nil)
	}
	if !allowedDir(&c, n, mayRead) {
		return orca.PathE(op, n.path(), orca.Permission, nil)
	}
	m.eachDirentKey(n, after, "", m.lister(n, fn))
	return m.failed()
}

// lister returns what turns raw dentries of n into calls of fn. All files of
// one directory have the same place in the UFS but for their names.
func (m *Machine) lister(n *node, fn func(name []byte, a *metapb.Attr) bool) func(name, v []byte) bool {
	var f inode.File
	var a metapb.Attr
	var path []byte // memory of a.UfsPath
	at := m.locate(n, "")
	prefix := ""
	if at.mount != nil {
		prefix = strings.TrimSuffix(uri(at.mount, at.key), "/") + "/"
		a.MountId = at.id()
	}
	hides := m.hidesName(n, BinName)
	masked := m.masks[at.id()] != nil && len(m.masks[at.id()].list) > 0
	return func(name, v []byte) bool {
		if hides && string(name) == BinName {
			return true
		}
		sub, link, file, err := inode.DecodeDentryTo(v, &f)
		switch {
		case err != nil:
			m.fail(err)
			return false
		case link != 0:
			g := m.linked(link)
			return g != nil && fn(name, m.fileAttr(g, m.locateFile(n, string(name), g)))
		case !file:
			d := m.decodedDir(sub)
			return d != nil && fn(name, m.dirAttr(d, m.locate(d, "")))
		}
		setFile(&a, &f)
		setRuns(&a, f.Runs)
		m.boundCopies(&a, &f)
		switch {
		case at.mount == nil:
		case masked || f.Override.By != 0:
			m.locateAttr(&a, m.locateFile(n, string(name), &f))
		default:
			path = append(append(path[:0], prefix...), name...)
			a.UfsPath, a.UfsPending = unsafe.String(unsafe.SliceData(path), len(path)), false
		}
		return fn(name, &a)
	}
}

// Access checks the permission bits (4 read, 2 write, 1 execute) of an inode
// for a caller. NotFound, Permission.
func (m *Machine) Access(c orca.Caller, ino orca.Ino, bits uint32) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, r := m.resolveIno(spot{path: "ino:" + ino.String()}, ino)
	if r != nil {
		return r.err("fsm.Access")
	}
	mode, uid, gid := s.modeOwner()
	if !allowed(&c, mode, uid, gid, bits, s.file == nil) {
		return orca.PathE("fsm.Access", s.path, orca.Permission, nil)
	}
	return nil
}

// Session returns a write session. NotFound. Like all records that the
// machine returns it must not be changed.
func (m *Machine) Session(id uint64) (*command.Session, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if s := m.sessions[id]; s != nil {
		return s, nil
	}
	return nil, orca.E("fsm.Session", orca.NotFound, "no such write session")
}

// Sessions returns all write sessions by id.
func (m *Machine) Sessions() []*command.Session { return byID(m, &m.sessions) }

// byID returns the values of a map of m in order of their keys.
func byID[K cmp.Ordered, V any](m *Machine, of *map[K]V) []V {
	m.mu.RLock()
	defer m.mu.RUnlock()
	vs := make([]V, 0, len(*of))
	for _, k := range slices.Sorted(maps.Keys(*of)) {
		vs = append(vs, (*of)[k])
	}
	return vs
}

// Intent returns an undecided or undrained intent. NotFound.
func (m *Machine) Intent(id uint64) (*command.Intent, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if it := m.intents[id]; it != nil {
		return it, nil
	}
	return nil, orca.E("fsm.Intent", orca.NotFound, "no such intent")
}

// Intents returns all undecided and undrained intents by id.
func (m *Machine) Intents() []*command.Intent { return byID(m, &m.intents) }

// Mounts returns the mount table by id, secrets included.
func (m *Machine) Mounts() []*command.Mount { return byID(m, &m.mounts) }

// Mount returns one mount. NotFound.
func (m *Machine) Mount(id uint32) (*command.Mount, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if mt := m.mounts[id]; mt != nil {
		return mt, nil
	}
	return nil, orca.E("fsm.Mount", orca.NotFound, "no such mount")
}

// xattrSpot finds an inode whose attributes are asked for.
func (m *Machine) xattrSpot(op string, ino orca.Ino) (*spot, error) {
	s, r := m.resolveIno(spot{path: "ino:" + ino.String()}, ino)
	if err := m.failed(); err != nil {
		return nil, err
	}
	return &s, r.err(op)
}

// Xattr returns one extended attribute. NoData, NotFound, Permission.
func (m *Machine) Xattr(c orca.Caller, ino orca.Ino, name string) ([]byte, error) {
	const op = "fsm.Xattr"
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, err := m.xattrSpot(op, ino)
	if err != nil {
		return nil, err
	}
	if r := mayXattr(&c, s, name, mayRead); r != nil {
		return nil, r.err(op)
	}
	if s.flags().Has(inode.HasXattr) {
		if v := m.get(inode.AppendXattr(nil, ino, name)); v != nil {
			return v, nil
		}
	}
	return nil, orca.PathE(op, name, orca.NoData, m.failed())
}

// Xattrs returns the sorted names of the extended attributes of an inode that
// the caller may know of.
func (m *Machine) Xattrs(c orca.Caller, ino orca.Ino) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, err := m.xattrSpot("fsm.Xattrs", ino)
	if err != nil || !s.flags().Has(inode.HasXattr) {
		return nil, err
	}
	names := m.xattrNames(ino)
	if c.UID != 0 {
		names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "trusted.") })
	}
	return names, m.failed()
}

// Fact returns a cluster fact, nil if not set.
func (m *Machine) Fact(key string) []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.get(inode.AppendFact(nil, key))
}

// Workers returns the ids and nodes ever registered.
func (m *Machine) Workers() []*command.Worker { return byID(m, &m.workers) }

// Counts returns the gauges.
func (m *Machine) Counts() Counts {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return Counts{
		Files: m.count.files, Dirs: m.count.dirs, Sessions: int64(len(m.sessions)), Intents: int64(len(m.intents)),
		Clients: int64(len(m.clients)), Mounts: int64(len(m.mounts)), Trash: int64(len(m.trash)), Kept: int64(len(m.deleted)),
		Quotas: int64(len(m.quotas)), OverQuota: m.stats.overQuota.Load(), Rehomed: m.stats.rehomed.Load(),
		Transfers: int64(len(m.outcomes.decided)),
		CacheHits: m.stats.hits.Load(), CacheMiss: m.stats.misses.Load(), Commands: m.stats.commands.Load(),
		Remembered: m.stats.remembered.Load(), PresenceHit: m.stats.presence.Load(), StoreGet: m.stats.gets.Load(),
	}
}

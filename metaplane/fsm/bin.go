// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"slices"
	"strconv"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// What users call the trash is a directory in the root of each mount that keeps
// what is deleted, the bin here (trash are detached trees on their way out). To
// delete is to rename into it, in the store as well, so that what is kept is
// really there; restoring is a rename back (ADR 0017).
//
// Nobody can walk there: its name is not found, and mutations by number refuse
// what is in it. A file in it can still be read by who has its number, as one
// that was deleted while open. It counts where it is, in the mount's root; to
// quotas further down it is charged by a hold, so that to delete makes no room.

// BinName is the name of a mount's bin. No sync takes up a name like it, and no
// user can make one.
const BinName = ".~orca.trash"

// bin is that of one mount.
type bin struct {
	dir *node
	// entries by the time of deletion.
	entries []*command.Trashed
}

func compareTrashed(a, b *command.Trashed) int {
	return cmp.Or(cmp.Compare(a.Deleted, b.Deleted), cmp.Compare(a.Ino, b.Ino))
}

// hidesName reports whether a name of a directory is that of a bin.
func (m *Machine) hidesName(n *node, name string) bool {
	return n.rec.Mount != 0 && name == BinName && len(m.bins) > 0
}

// binned reports whether a directory is a bin or in one.
func (m *Machine) binned(n *node) bool {
	if len(m.bins) == 0 {
		return false
	}
	for ; n != nil && n.rec.Mount == 0; n = n.parent {
		if n.isBin() {
			return true
		}
	}
	return false
}

// isBin reports whether a directory is the bin of the mount that it is in. It does
// not count itself: it is nobody's.
func (n *node) isBin() bool {
	return n.rec.Name == BinName && n.parent != nil && n.parent.rec.Mount != 0
}

// binOf returns the bin of a mount; nil if nothing was ever put there.
func (m *Machine) binOf(mount uint32) *bin { return m.bins[mount] }

// makeBin returns the bin of a mount, making it.
func (m *Machine) makeBin(mt *command.Mount) *bin {
	id := mt.Mount.Id
	if b := m.bins[id]; b != nil {
		return b
	}
	root := m.dirs[orca.Ino(mt.Root)]
	d := root.sub.get(BinName)
	if d == nil {
		mtime, ctime := root.rec.Mtime, root.rec.Ctime
		d = m.newDir(&call{now: m.batch.now}, root, BinName, 0o700, true)
		root.rec.Mtime, root.rec.Ctime = mtime, ctime
	}
	m.bins[id] = &bin{dir: d}
	return m.bins[id]
}

// loadBins reads what bins hold.
func (m *Machine) loadBins() error {
	for id, mt := range m.mounts {
		if root := m.dirs[orca.Ino(mt.Root)]; root != nil && root.sub.get(BinName) != nil {
			m.bins[id] = &bin{dir: root.sub.get(BinName)}
		}
	}
	var bad error
	err := loadProto(m, inode.SpaceBin, func(e *command.Trashed) {
		if m.bins[e.Mount] == nil {
			bad = orca.E("fsm.Open", orca.Corrupt, "something is in the trash of a mount that has none")
			return
		}
		m.indexTrashed(e)
	})
	return firstErr(bad, err)
}

func (m *Machine) indexTrashed(e *command.Trashed) {
	b := m.bins[e.Mount]
	i, _ := slices.BinarySearchFunc(b.entries, e, compareTrashed)
	b.entries = slices.Insert(b.entries, i, e)
	m.deleted[orca.Ino(e.Ino)] = e
	if e.Charged != 0 {
		r := m.charged[orca.Ino(e.Charged)]
		m.charged[orca.Ino(e.Charged)] = room{r.bytes + e.Bytes, r.inodes + e.Inodes}
	}
}

// enterBin takes note of what was put into a bin.
func (m *Machine) enterBin(e *command.Trashed) {
	m.putRecord(inode.AppendKey8(nil, inode.SpaceBin, e.Ino), e)
	m.indexTrashed(e)
	m.holdCharged(orca.Ino(e.Charged), room{e.Bytes, e.Inodes}, 1)
}

// leaveBin forgets what a bin had.
func (m *Machine) leaveBin(e *command.Trashed) {
	if m.dirs[orca.Ino(e.Ino)] != nil {
		m.unholdBins()
	}
	m.tx.Delete(inode.AppendKey8(nil, inode.SpaceBin, e.Ino))
	delete(m.deleted, orca.Ino(e.Ino))
	b := m.bins[e.Mount]
	switch i, ok := slices.BinarySearchFunc(b.entries, e, compareTrashed); {
	case ok && i == 0:
		b.entries[0] = nil
		b.entries = b.entries[1:]
	case ok:
		b.entries = slices.Delete(b.entries, i, i+1)
	}
	if e.Charged == 0 {
		return
	}
	m.holdCharged(orca.Ino(e.Charged), room{e.Bytes, e.Inodes}, -1)
	r := m.charged[orca.Ino(e.Charged)]
	if r = (room{r.bytes - e.Bytes, r.inodes - e.Inodes}); r == (room{}) {
		delete(m.charged, orca.Ino(e.Charged))
	} else {
		m.charged[orca.Ino(e.Charged)] = r
	}
}

// chargedFrom returns the directory that what is deleted from n is charged to:
// the nearest with a quota below the mount's root, for those above have it below
// them anyway.
func (m *Machine) chargedFrom(n *node) uint64 {
	if len(m.quotas) == 0 {
		return 0
	}
	for ; n != nil && n.rec.Mount == 0; n = n.parent {
		if n.quota != nil {
			return uint64(n.rec.Ino)
		}
	}
	return 0
}

// holdCharged holds room for what bins have of a directory (sign 1), or gives it
// back (-1): from there up to below the mount's root, and for one that is in a
// bin itself from where that is charged to.
func (m *Machine) holdCharged(dir orca.Ino, r room, sign int64) {
	if dir == 0 || m.unheld {
		return
	}
	m.eachCharged(dir, func(n *node) {
		if q := n.quota; q != nil {
			q.held.bytes += sign * r.bytes
			q.held.inodes += sign * r.inodes
		}
	})
}

// eachCharged calls fn for the directories that are charged for what bins have
// of one.
func (m *Machine) eachCharged(dir orca.Ino, fn func(*node)) {
	for n := m.dirs[dir]; n != nil && n.rec.Mount == 0; {
		fn(n)
		if e := m.deleted[n.rec.Ino]; e != nil {
			n = m.dirs[orca.Ino(e.Charged)]
		} else {
			n = n.parent
		}
	}
}

// holdBins holds all room that bins take, or gives it back.
func (m *Machine) holdBins(sign int64) {
	for dir, r := range m.charged {
		m.holdCharged(dir, r, sign)
	}
}

// unholdBins goes before a directory leaves its place, and with it those above
// it that are charged. The end of the command holds all again.
func (m *Machine) unholdBins() {
	if !m.unheld && len(m.charged) > 0 && len(m.quotas) > 0 {
		m.holdBins(-1)
		m.unheld = true
	}
}

func (m *Machine) reholdBins() {
	if m.unheld {
		m.unheld = false
		m.holdBins(1)
	}
}

// keeps reports whether what a delete is about goes to a bin: a file by its last
// name, or a directory with what is in it.
func (m *Machine) keeps(c *call, o *metapb.DeleteOp, s *spot, loc located, tree bool) bool {
	switch {
	case c.decided != nil:
		return o.Kept != ""
	case loc.mount == nil || o.CacheOnly || o.SkipTrash || loc.mount.Mount.TrashRetentionMs <= 0:
		return false
	case s.file != nil:
		return !s.file.Flags.Has(inode.Linked)
	}
	return tree
}

// discard moves the end of a spot into the bin of its mount.
func (m *Machine) discard(c *call, o *metapb.DeleteOp, s *spot, loc located) *refusal {
	kept := o.Kept
	if c.decided == nil {
		// The number is never given again here, and the time tells it from what
		// another namespace over the same store has left.
		kept = s.ino().String() + "." + strconv.FormatUint(uint64(c.now), 36)
		to := m.locate(m.dirs[orca.Ino(loc.mount.Root)], BinName+"/"+kept)
		it := m.renameIntent(s, &spot{}, loc, to)
		if it != nil && !it.Deferred {
			op := &metapb.DeleteOp{Target: here(s), Recursive: o.Recursive, Want: o.Want, Kept: kept}
			return m.begin(c, it, loc, func(cmd *command.Command) { cmd.Delete = op })
		} else if it != nil {
			if r := m.addIntent(c, it, loc); r != nil {
				return r
			}
		}
	}
	ino, takes := s.ino(), m.takes(s)
	e := &command.Trashed{
		Ino: uint64(ino), Mount: loc.id(), Name: kept, Path: orca.JoinPath(s.dir.path(), s.name), Dir: uint64(s.dir.rec.Ino),
		Deleted: c.now, Uid: c.who.UID, Gid: c.who.GID, Owner: s.owner(),
		Bytes: takes.bytes, Inodes: takes.inodes, Charged: m.chargedFrom(s.dir),
	}
	if d := s.dentry.dir; d != nil && c.decide.GetVanished() {
		d.rec.Flags &^= inode.Persisted // what is in it may be in Orca alone
	}
	b := m.makeBin(loc.mount)
	m.takeOut(c, s)(b.dir, kept)
	m.enterBin(e)
	c.res.Replaced = uint64(ino)
	m.event(metapb.EventKind_EVENT_ENTRY, ino, s.dir.rec.Ino, s.name)
	return nil
}

// lost forgets what has gone from its bin because its store has it no more.
func (m *Machine) lost(ino orca.Ino) {
	if e := m.deleted[ino]; e != nil {
		m.leaveBin(e)
	}
}

// mayUse reports whether a caller may restore or purge an entry: root, who
// deleted it, and whose it was.
func mayUse(c *orca.Caller, e *command.Trashed) bool {
	return c.UID == 0 || c.UID == e.Uid || c.UID == e.Owner
}

// kept returns where an entry is; none: the store has failed.
func (m *Machine) kept(e *command.Trashed) spot {
	b := m.bins[e.Mount]
	return spot{path: e.Path, dir: b.dir, name: e.Name, dentry: m.lookup(b.dir, e.Name)}
}

// restoreTrash renames something from its bin to a free name.
func (m *Machine) restoreTrash(c *call, o *metapb.RestoreTrashOp) *refusal {
	e := m.deleted[orca.Ino(o.Ino)]
	if e == nil || !mayUse(&c.who, e) {
		return refuse(orca.NotFound, label(o.Dst), "it is not in the trash")
	}
	dst, r := m.resolve(&c.who, o.Dst, true)
	if r != nil && r.kind == orca.Referral {
		return refuse(orca.CrossMount, dst.path, "")
	}
	if r != nil {
		return r
	}
	if r := m.unknownName(c, &dst); r != nil {
		return r
	}
	src := m.kept(e)
	mt := m.mounts[e.Mount]
	switch {
	case src.none():
		return refuse(orca.Internal, dst.path, "the trash has lost it")
	case !dst.none():
		return refuse(orca.Exists, dst.path, "")
	case len(dst.rest) > 1:
		return refuse(orca.NotFound, dst.path, "")
	case m.mountOf(dst.dir) != mt:
		return refuse(orca.CrossMount, dst.path, "what was deleted stays in its mount")
	}
	r = firstRefusal(mayChange(&c.who, dst.dir, dst.path), checkNew(dst.dir, dst.rest, dst.path), writable(mt, dst.path),
		m.idle(dst.dir, dst.name, nil, dst.path))
	if r != nil {
		return r
	}
	from, to := m.locateSpot(&src), m.locate(dst.dir, dst.name)
	if r := firstRefusal(m.free(c, from, true, dst.path), m.free(c, to, true, dst.path)); r != nil {
		return r
	}
	mv, r := m.roomToRestore(e, &src, &dst)
	if r != nil {
		return r
	}
	if it := m.renameIntent(&src, &dst, from, to); it != nil && !it.Deferred {
		mv.holdBy(it)
		op := &metapb.RenameOp{Src: here(&src), Dst: here(&dst), NoReplace: true}
		return m.begin(c, it, from, func(cmd *command.Command) { cmd.Rename = op })
	} else if it != nil {
		if r := m.addIntent(c, it, from); r != nil {
			return r
		}
	}
	m.move(c, &src, &dst)
	return nil
}

// roomToRestore is roomToMove out of a bin: what is held for it there is its own
// room.
func (m *Machine) roomToRestore(e *command.Trashed, src, dst *spot) (move, *refusal) {
	own := room{e.Bytes, e.Inodes}
	m.holdCharged(orca.Ino(e.Charged), own, -1)
	defer m.holdCharged(orca.Ino(e.Charged), own, 1)
	return m.roomToMove(src, dst)
}

// purgeTrash removes entries for good.
func (m *Machine) purgeTrash(c *call, o *metapb.PurgeTrashOp) *refusal {
	for _, ino := range o.Inos {
		e := m.deleted[orca.Ino(ino)]
		if e == nil || !mayUse(&c.who, e) || o.Expired && !m.expired(e, c.now) {
			continue
		}
		if m.purge(c, e) {
			c.res.Ids = append(c.res.Ids, ino)
		}
	}
	c.res.Intent = nil // they are nobody's
	return nil
}

// purge removes one entry, unless an intent is about it.
func (m *Machine) purge(c *call, e *command.Trashed) bool {
	s := m.kept(e)
	if s.none() || len(m.intents) >= m.cfg.MaxIntents/2 {
		return false
	}
	loc := m.locateSpot(&s)
	if m.overlap(loc, true, 0) != 0 || writable(loc.mount, "") != nil || m.sessionAt(s.dir, s.name, s.dentry.dir) != 0 {
		return false
	}
	if m.objectAt(&s) {
		it := &command.Intent{
			Op: metapb.IntentOp_INTENT_REMOVE_TREE, Deferred: true, Source: loc.key,
			Ino: e.Ino, Dir: s.dentry.dir != nil, Subtree: true,
		}
		if m.addIntent(c, it, loc) != nil {
			return false
		}
	}
	m.leaveBin(e)
	if d := s.dentry.dir; d != nil {
		m.detach(d, loc.id())
	} else {
		m.eraseFile(s.dir, s.name, s.file)
	}
	return true
}

// expired reports whether an entry has been kept for long enough.
func (m *Machine) expired(e *command.Trashed, now int64) bool {
	return now-e.Deleted >= retention(m.mounts[e.Mount])
}

// retention is how long a mount keeps what is deleted, in ns.
func retention(mt *command.Mount) int64 { return mt.GetMount().GetTrashRetentionMs() * 1e6 }

// Expired returns up to limit entries of bins that have been kept for long
// enough.
func (m *Machine) Expired(now int64, limit int) []uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var inos []uint64
	for _, b := range m.bins {
		for _, e := range b.entries {
			if len(inos) >= limit || !m.expired(e, now) {
				break
			}
			inos = append(inos, e.Ino)
		}
	}
	return inos
}

// TrashView is something deleted as a reader sees it.
type TrashView struct {
	*command.Trashed
	Expires int64
	Dir     bool
}

// Trash returns up to limit of what was deleted at or below a path ("":
// anywhere) and is kept, of all that the caller may restore, by the time of
// deletion and number: those after after (nil: from the first on).
func (m *Machine) Trash(c orca.Caller, path string, after *command.Trashed, limit int) []TrashView {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var vs []TrashView
	for _, b := range m.bins {
		from := 0
		if after != nil {
			i, there := slices.BinarySearchFunc(b.entries, after, compareTrashed)
			if from = i; there {
				from++
			}
		}
		n := 0
		for _, e := range b.entries[from:] {
			_, in := orca.Under(path, e.Path)
			if !mayUse(&c, e) || path != "" && !in {
				continue
			}
			if vs = append(vs, m.viewTrashed(e)); n+1 >= limit {
				break
			}
			n++
		}
	}
	slices.SortFunc(vs, func(a, b TrashView) int { return compareTrashed(a.Trashed, b.Trashed) })
	return vs[:min(limit, len(vs))]
}

func (m *Machine) viewTrashed(e *command.Trashed) TrashView {
	return TrashView{Trashed: e, Expires: e.Deleted + retention(m.mounts[e.Mount]), Dir: m.dirs[orca.Ino(e.Ino)] != nil}
}

// Trashed returns one entry. NotFound, also when the caller may not restore it.
func (m *Machine) Trashed(c orca.Caller, ino orca.Ino) (TrashView, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e := m.deleted[ino]
	if e == nil || !mayUse(&c, e) {
		return TrashView{}, orca.PathE("fsm.Trashed", ino.String(), orca.NotFound, nil)
	}
	return m.viewTrashed(e), nil
}

// InTrash reports whether a directory is in a bin.
func (m *Machine) InTrash(dir orca.Ino) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.dirs[dir]
	return n != nil && m.binned(n)
}

// binAttr takes the bin out of the attributes of a mount's root.
func (m *Machine) binAttr(n *node, a *metapb.Attr) {
	if n.rec.Mount != 0 && n.sub.get(BinName) != nil {
		a.Length--
		a.Nlink--
	}
}

// dropBin forgets the bin of a mount that is no more: now it is a directory like
// any other.
func (m *Machine) dropBin(root *node, mount uint32) {
	delete(m.bins, mount)
	if root.sub.get(BinName) != nil {
		m.charge(root, sums{Usage: Usage{Dirs: 1}})
	}
}

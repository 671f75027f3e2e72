// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"encoding/binary"
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

// A directory of a mount of the first group may move to another group with all
// that is below it. The intent of that move is an undecided one that no store is
// asked about: it masks the keys of the whole tree, so that whatever would change
// one waits, a sync included, while reads go on. It ends in one of two applies:
//
//	begin ─► (what is under way below ends; the tree is brought to the other group, stage.go)
//	      └► switch: a part, and what was in the directory is swept
//	      └► give up: as it was; the other group has something to forget
//
// Sessions and intents that were there before the move go on: the tree rests when
// they have ended, for no new ones begin. From then on nothing below changes, and
// whoever leads may bring it over, from the beginning and more than once. The number of the mount
// that the part will be is the intent's, so that what comes late for a move that
// was given up is refused in the other group.

// regroup begins a move to another group, or moves one on.
func (m *Machine) regroup(c *call, o *metapb.RegroupOp) *refusal {
	if !m.first() {
		return refuse(orca.Unsupported, label(o.Target), "only directories of mounts of the first group are moved to others")
	}
	if o.Cleared != 0 {
		m.tx.Delete(abandonedKey(o.Cleared))
		return nil
	}
	if o.Settled != 0 {
		m.tx.Delete(departedKey(o.Settled))
		return nil
	}
	if o.Intent == 0 {
		return m.beginRegroup(c, o)
	}
	it := m.intents[o.Intent]
	if it == nil || it.Op != metapb.IntentOp_INTENT_REGROUP {
		return refuse(orca.NotFound, "", "no such move: it was given up, or has ended")
	}
	if o.Root == 0 {
		m.giveUpRegroup(it)
		return nil
	}
	switch {
	case it.Group <= 1:
		return m.switchHome(c, it)
	case it.From != 0:
		return m.switchPart(c, it, o.Root)
	}
	return m.switchGroup(c, it, o.Root)
}

// beginRegroup has whoever would begin to change something below a directory
// wait; of a part its group sees to that (depart.go). A move that is on its way,
// or over, is no refusal.
func (m *Machine) beginRegroup(c *call, o *metapb.RegroupOp) *refusal {
	s, r := m.resolve(&c.who, o.Target, true)
	if row := m.part(s.dentry.dir); r != nil && r.junction && row != nil {
		return m.beginRegroupPart(c, o, &s, row, r)
	}
	if r != nil {
		return r
	}
	if r := m.unknownName(c, &s); r != nil {
		return r
	}
	d := s.dentry.dir
	switch {
	case s.none():
		return refuse(orca.NotFound, s.path, "")
	case d == nil:
		return refuse(orca.NotDir, s.path, "")
	case c.who.UID != 0:
		return refuse(orca.Permission, s.path, "only root puts directories into groups")
	case m.regroups[d.rec.Ino] != nil:
		return m.sameRegroup(c, o, &s, m.regroups[d.rec.Ino])
	case o.Group <= 1:
		c.res.Existed = true // here it is
		return nil
	}
	if r := m.checkRegroup(c, o, &s); r != nil {
		return r
	}
	if it := m.regroupBelow(d); it != nil {
		return &refusal{kind: orca.Busy, path: s.path, busy: it.Id, msg: fmt.Sprintf("a directory below it is on its way to group %d", it.Group)}
	}
	if id := m.goingBelow(d); id != 0 {
		return onItsWay(id, s.path)
	}
	return m.enterRegroup(c, o, &s, m.locate(d, ""), 0)
}

// beginRegroupPart begins to move a part from the group that it is in to another
// one; r is what its junction says to whoever walks there.
func (m *Machine) beginRegroupPart(c *call, o *metapb.RegroupOp, s *spot, row *command.Mount, r *refusal) *refusal {
	d := s.dentry.dir
	it := m.regroups[d.rec.Ino]
	switch {
	case c.who.UID != 0:
		return refuse(orca.Permission, s.path, "only root puts directories into groups")
	case it != nil:
		return m.sameRegroup(c, o, s, it)
	case row.Mount.Group == o.Group:
		c.res.Existed, c.res.Mount = true, bare(row)
		return nil
	case r.kind != orca.Referral:
		return r
	case o.Group > 1 && len(m.mounts)+len(m.regroups) >= maxMounts:
		return refuse(orca.Busy, s.path, fmt.Sprintf("there are %d mounts and directories in groups of their own already", maxMounts))
	}
	return m.enterRegroup(c, o, s, m.locate(d.parent, d.rec.Name), row.Mount.Id)
}

// sameRegroup answers who begins a move while one is under way.
func (m *Machine) sameRegroup(c *call, o *metapb.RegroupOp, s *spot, it *command.Intent) *refusal {
	if it.Group != max(o.Group, 1) {
		return refuse(orca.Exists, s.path, fmt.Sprintf("it is on its way to group %d", it.Group))
	}
	c.res.Intent = it
	return nil
}

// enterRegroup puts on record that what is at a spot moves.
func (m *Machine) enterRegroup(c *call, o *metapb.RegroupOp, s *spot, loc located, from uint32) *refusal {
	if r := m.free(c, loc, false, s.path); r != nil {
		return r
	}
	if len(m.intents) >= m.cfg.MaxIntents {
		return refuse(orca.Busy, s.path, "too many changes are on their way to the UFS")
	}
	m.count.mount++
	it := &command.Intent{
		Op: metapb.IntentOp_INTENT_REGROUP, Source: loc.key, Ino: uint64(s.dentry.dir.rec.Ino), Dir: true, Subtree: true,
		Group: max(o.Group, 1), Part: m.count.mount, From: from,
	}
	m.enterIntent(c, it, loc)
	c.res.Intent = it
	return nil
}

// checkRegroup refuses what cannot be a part, as checkPart does for a new
// directory.
func (m *Machine) checkRegroup(c *call, o *metapb.RegroupOp, s *spot) *refusal {
	d := s.dentry.dir
	switch {
	case s.isRoot() || d.rec.Mount != 0:
		return refuse(orca.Unsupported, s.path, "a mount stays in its group: only a directory of one is moved")
	}
	if r := m.checkPart(c, &metapb.MkdirOp{Group: o.Group}, s); r != nil {
		return r
	}
	if b := m.binOf(m.mountOf(d).Mount.Id); b != nil && len(b.entries) > 0 {
		return refuse(orca.Unsupported, s.path, "what was deleted there could not be restored: empty the trash of its mount first")
	}
	if p := m.partBelow(d); p != nil {
		return refuse(orca.Unsupported, s.path, fmt.Sprintf("%s lives in group %d, and what lives in a group of its own is not divided further", p.Mount.Path, p.Mount.Group))
	}
	if m.mountBelow(d) {
		return refuse(orca.Unsupported, s.path, "there is a mount point below it")
	}
	if !d.rec.Flags.Has(inode.Persisted) {
		return refuse(orca.Unsupported, s.path, "the store does not have it yet: only what it has is moved")
	}
	return nil
}

// switchGroup makes a directory the junction of the part that its content has
// been brought to. What it held here is swept.
func (m *Machine) switchGroup(c *call, it *command.Intent, root uint64) *refusal {
	d, of := m.dirs[orca.Ino(it.Ino)], m.mounts[it.MountId]
	if d == nil || of == nil || !m.attached(d) || d.parent == nil {
		return refuse(orca.Internal, "", "BUG: a directory has gone while it was on its way to another group")
	}
	if r := m.restless(it, d); r != nil {
		return r
	}
	row := m.partRow(of, d, it.Part, it.Group)
	m.dropIntent(it)
	n := &node{rec: d.rec}
	r := &n.rec
	r.Ino, r.Change, r.Override = m.newIno(), m.batch.index, inode.Override{}
	r.Entries, r.Subdirs, r.Bytes = 0, 0, 0
	r.Flags &= inode.Persisted
	r.LoadedAt, r.SyncMS, r.Mount = 0, 0, it.Part
	row.Root, row.Mount.Root = uint64(r.Ino), root
	m.joining(row) // the options may have changed meanwhile
	p := d.parent
	mtime, ctime := p.rec.Mtime, p.rec.Ctime
	m.detachTo(d, root)
	m.putMount(row)
	m.dirs[r.Ino] = n
	m.count.dirs++
	m.addDir(p, n)
	p.rec.Mtime, p.rec.Ctime = mtime, ctime
	m.event(metapb.EventKind_EVENT_ENTRY, d.rec.Ino, p.rec.Ino, r.Name)
	m.event(metapb.EventKind_EVENT_ENTRY, orca.Ino(root), p.rec.Ino, r.Name)
	m.mountChanged(n)
	c.res.Mount = bare(row)
	return nil
}

// giveUpRegroup leaves a directory where it is. Whoever has something of it, or has
// it rest, is told.
func (m *Machine) giveUpRegroup(it *command.Intent) {
	m.dropIntent(it)
	m.tellSource(it, 0)
	if it.Group <= 1 {
		m.forgetTree(it.Id)
		return
	}
	m.tx.Set(abandonedKey(it.Part), binary.BigEndian.AppendUint32(nil, it.Group))
}

// switchHome puts what has been brought here of a part in the place of its
// junction: it is a directory like any other.
func (m *Machine) switchHome(c *call, it *command.Intent) *refusal {
	d, old, n := m.dirs[orca.Ino(it.Ino)], m.mounts[it.From], m.stagedTree(it.Id)
	switch {
	case d == nil || old == nil || d.rec.Mount != it.From || !m.attached(d) || d.parent == nil:
		return refuse(orca.Internal, "", "BUG: a directory has gone while it was on its way to this group")
	case n == nil:
		return refuse(orca.Stale, old.Mount.Path, "it is not all here")
	}
	p, name := d.parent, d.rec.Name
	mtime, ctime, own := p.rec.Mtime, p.rec.Ctime, n.rec.Ctime
	m.tellSource(it, uint64(n.rec.Ino))
	m.dropIntent(it)
	m.dropMount(old, d)
	m.cutDir(d)
	m.eraseDir(d)
	m.placeTree(it.Id, p, name)
	n.rec.Ctime, p.rec.Mtime, p.rec.Ctime = own, mtime, ctime
	m.event(metapb.EventKind_EVENT_ENTRY, orca.Ino(old.Mount.Root), p.rec.Ino, name)
	m.event(metapb.EventKind_EVENT_ENTRY, n.rec.Ino, p.rec.Ino, name)
	m.mountChanged(n)
	c.res.Mount = bare(old)
	return nil
}

// AllHere reports whether all of a part that moves to this group has been brought
// here.
func (m *Machine) AllHere(intent uint64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.stagedTree(intent) != nil
}

// switchPart makes the junction of a part that of where its content has been
// brought to. The group that had it shows it to nobody by now, and is told to
// forget it.
func (m *Machine) switchPart(c *call, it *command.Intent, root uint64) *refusal {
	d, of, old := m.dirs[orca.Ino(it.Ino)], m.mounts[it.MountId], m.mounts[it.From]
	if d == nil || of == nil || old == nil || d.rec.Mount != it.From || !m.attached(d) {
		return refuse(orca.Internal, "", "BUG: a directory has gone while it was on its way to another group")
	}
	row := m.partRow(of, d, it.Part, it.Group)
	m.tellSource(it, root)
	m.dropIntent(it)
	m.dropMount(old, d)
	row.Root, row.Mount.Root = uint64(d.rec.Ino), root
	m.joining(row) // the options may have changed meanwhile
	m.putMount(row)
	was := m.unsure(d)
	d.rec.Mount, d.rec.Change = it.Part, m.batch.index
	m.reassess(d, was)
	m.dirtied(d)
	m.event(metapb.EventKind_EVENT_ENTRY, orca.Ino(old.Mount.Root), d.rec.Parent, d.rec.Name)
	m.event(metapb.EventKind_EVENT_ENTRY, orca.Ino(root), d.rec.Parent, d.rec.Name)
	m.mountChanged(d)
	c.res.Mount = bare(row)
	return nil
}

// tellSource puts on record what the group that a part leaves is to be told of
// the end of its move: where it is now; 0: that it stays.
func (m *Machine) tellSource(it *command.Intent, root uint64) {
	if it.From == 0 {
		return
	}
	v := binary.BigEndian.AppendUint32(nil, m.mounts[it.From].GetMount().GetGroup())
	v = binary.BigEndian.AppendUint32(v, it.From)
	v = binary.BigEndian.AppendUint64(v, root)
	m.tx.Set(departedKey(it.Part), v)
}

// restless refuses with Busy while something that began before a move is under
// way in what is to move.
func (m *Machine) restless(it *command.Intent, d *node) *refusal {
	if s := m.sessions[m.sessionAt(d.parent, d.rec.Name, d)]; s != nil {
		return refuse(orca.Busy, orca.JoinPath(m.dirs[orca.Ino(s.Dir)].path(), s.Name), "a file is open for writing there")
	}
	if o := m.intents[m.masks[it.MountId].overlap(it.Source, true, it.Id)]; o != nil {
		return refuse(orca.Busy, uri(m.mounts[it.MountId], cmp.Or(o.Target, o.Source)), "an earlier change is still on its way to the UFS")
	}
	return nil
}

// Restless returns Busy while something that began before a move is under way in
// what is to move. NotFound: the move is over.
func (m *Machine) Restless(intent uint64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	it, err := m.underWay(intent)
	if err != nil {
		return err
	}
	return m.restless(it, m.dirs[orca.Ino(it.Ino)]).err("fsm.Restless")
}

// forwardFor is for how long after a move who has a file open goes on, in ns;
// what the directory held takes memory until then.
const forwardFor = 10 * 60 * 1_000_000_000

// Forward returns where a file is now that was in a directory which has moved to
// another group lately: what a referral says of it (orca.ReferralPath); of what is
// at rest below a directory that was in it, too. "": it was in none.
func (m *Machine) Forward(ino orca.Ino, rest string) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if len(m.trash) == 0 {
		return ""
	}
	n, path := m.dirs[ino], strings.Trim(rest, "/")
	if n == nil {
		var f *inode.File
		if n, path, f = m.byIno(ino); f == nil || rest != "" {
			return ""
		}
	} else if path == "" {
		return "" // the directory itself
	}
	for ; n.parent != nil; n = n.parent {
		path = n.rec.Name + "/" + path
	}
	if t := m.trash[n.rec.Ino]; t != nil && t.to != 0 {
		return orca.ReferralPath(orca.Ino(t.to), path)
	}
	return ""
}

// movedAway reports whether a directory has moved to another group lately, with one
// that it was in or by itself.
func (m *Machine) movedAway(ino orca.Ino) bool {
	n := m.dirs[ino]
	if n == nil {
		return false
	}
	for n.parent != nil {
		n = n.parent
	}
	t := m.trash[n.rec.Ino]
	return t != nil && t.to != 0
}

// moves refuses with Busy what waits for the move of a directory.
func moves(it *command.Intent, label string) *refusal {
	return &refusal{kind: orca.Busy, path: label, busy: it.Id, msg: fmt.Sprintf("it is on its way to group %d", it.Group)}
}

// frozen refuses to change what is on its way to another group.
func (m *Machine) frozen(s *spot) *refusal {
	if len(m.regroups) == 0 && len(m.outcomes.dirs) == 0 {
		return nil
	}
	n := s.dentry.dir
	if n == nil {
		n = s.dir
	}
	for ; n != nil; n = n.parent {
		if it := m.regroups[n.rec.Ino]; it != nil {
			return moves(it, s.path)
		}
		if id := m.outcomes.dirs[n.rec.Ino]; id != 0 {
			return onItsWay(id, s.path)
		}
	}
	return nil
}

// abandonedKey is the fact that a group has to be emptied of a mount whose move
// there was given up.
func abandonedKey(mount uint32) []byte {
	return binary.BigEndian.AppendUint32(inode.AppendFact(nil, abandonedFact), mount)
}

// departedKey is the fact that a group does not know yet what has become of the
// move of a part away from it.
func departedKey(move uint32) []byte {
	return binary.BigEndian.AppendUint32(inode.AppendFact(nil, departedFact), move)
}

const (
	abandonedFact = "regroup.abandoned."
	departedFact  = "regroup.departed."
)

// Departed is what a group is to be told of the move of a part away from it.
type Departed struct {
	Move  uint32 // the mount that it was to become
	Group uint32 // to be told
	Mount uint32 // of the part there
	Root  uint64 // where the part is now; 0: it stays
}

// Departed returns what groups do not know yet of moves away from them, by move.
func (m *Machine) Departed() (out []Departed) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	prefix := inode.AppendFact(nil, departedFact)
	m.eachKey(prefix, inode.PrefixEnd(prefix), func(k, v []byte) bool {
		if k = k[len(prefix):]; len(k) == 4 && len(v) == 16 {
			out = append(out, Departed{binary.BigEndian.Uint32(k), binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[4:]), binary.BigEndian.Uint64(v[8:])})
		}
		return true
	})
	return out
}

// Regroups returns the moves to other groups that are under way, by intent.
func (m *Machine) Regroups() []*command.Intent {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if len(m.regroups) == 0 {
		return nil
	}
	return slices.SortedFunc(maps.Values(m.regroups), func(a, b *command.Intent) int { return int(a.Id) - int(b.Id) })
}

// Abandoned returns the mounts that groups are to be emptied of, because their
// moves were given up: mount to group.
func (m *Machine) Abandoned() map[uint32]uint32 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := map[uint32]uint32{}
	prefix := inode.AppendFact(nil, abandonedFact)
	m.eachKey(prefix, inode.PrefixEnd(prefix), func(k, v []byte) bool {
		if k = k[len(prefix):]; len(k) == 4 && len(v) == 4 {
			out[binary.BigEndian.Uint32(k)] = binary.BigEndian.Uint32(v)
		}
		return true
	})
	return out
}

// RegroupMount returns the mount that the group of a move is to have, options
// included. NotFound: the move is over.
func (m *Machine) RegroupMount(intent uint64) (*metapb.Mount, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	it, err := m.underWay(intent)
	if err != nil {
		return nil, err
	}
	d, of := m.dirs[orca.Ino(it.Ino)], m.mounts[it.MountId]
	if d == nil || of == nil {
		return nil, orca.E("fsm.Regroup", orca.Internal, "BUG: the move of no directory")
	}
	mt := m.partRow(of, d, it.Part, it.Group).Mount
	mt.Junction, mt.Serial = metapb.JunctionState_JUNCTION_STAGED, 1 // before that of any row
	return mt, nil
}

// underWay returns the intent of a move. NotFound: it is over.
func (m *Machine) underWay(intent uint64) (*command.Intent, error) {
	if it := m.intents[intent]; it != nil && (it.Op == metapb.IntentOp_INTENT_REGROUP || it.Copying) {
		return it, m.failed()
	}
	return nil, orca.E("fsm.Regroup", orca.NotFound, "no such move: it was given up, or has ended")
}

// regroupBelow returns the first of the moves of directories at or below one;
// nil if there is none.
func (m *Machine) regroupBelow(n *node) *command.Intent {
	var first *command.Intent
	for ino, it := range m.regroups {
		if (first == nil || it.Id < first.Id) && under(m.dirs[ino], n) {
			first = it
		}
	}
	return first
}

// Leaving is a name of a directory as another group is to get it, and what only
// this one knows of it.
type Leaving struct {
	*metapb.StagedEntry
	Ino   orca.Ino // here
	Dir   bool
	Links uint32 // names of the file, if it has several
	Home  bool   // this is the one that the UFS has it under
	size  int
}

// LeavingDir returns a directory itself as another group is to get it. NotFound.
func (m *Machine) LeavingDir(dir orca.Ino) (Leaving, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.dirs[dir]
	if n == nil || !m.attached(n) {
		return Leaving{}, orca.PathE("fsm.LeavingDir", dir.String(), orca.NotFound, nil)
	}
	return m.leavingDir(n), m.failed()
}

// LeavingPage returns names of a directory after after, at most limit and not
// many more bytes than size; more says that there are others. It refuses, with
// the path, what cannot move to another group: Busy and Unsupported. With an
// intent that is over it is NotFound: what is there may have changed since.
func (m *Machine) LeavingPage(intent uint64, dir orca.Ino, after string, limit, size int) (out []Leaving, more bool, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if intent != 0 {
		if _, err := m.underWay(intent); err != nil {
			return nil, false, err
		}
	}
	n := m.dirs[dir]
	if n == nil || !m.attached(n) {
		return nil, false, orca.PathE("fsm.LeavingPage", dir.String(), orca.NotFound, nil)
	}
	return m.leavingPage(n, after, limit, size)
}

func (m *Machine) leavingPage(n *node, after string, limit, size int) (out []Leaving, more bool, err error) {
	m.eachDirent(n, after, "", func(name string, v []byte) bool {
		if more = len(out) == limit || size <= 0; more {
			return false
		}
		d := m.decoded(v)
		var l Leaving
		switch {
		case d.dir != nil && d.dir.rec.Mount != 0: // made by an intent from before
			err = &orca.Error{Op: "fsm.Leaving", Path: d.dir.path(), Kind: orca.Unsupported, Msg: "it is a mount, or lives in a group of its own"}
			return false
		case d.dir != nil:
			l = m.leavingDir(d.dir)
		case d.file != nil:
			if err = m.stuck(n, name, d.file); err != nil {
				return false
			}
			l = m.leavingFile(n, name, d.file)
		default:
			return false
		}
		out, size = append(out, l), size-l.size
		return true
	})
	return out, more, firstErr(err, m.failed())
}

// stuck says why a file cannot move to another group; nil: it can.
func (m *Machine) stuck(n *node, name string, f *inode.File) error {
	const op = "fsm.Leaving"
	path := orca.JoinPath(n.path(), name)
	switch {
	case f.Type != orca.TypeFile || f.Persist == orca.Persisted:
		return nil
	case f.Persist == orca.ToBePersisted:
		return &orca.Error{Op: op, Path: path, Kind: orca.Busy, Msg: "it waits to be persisted: only what is in the store is moved"}
	}
	return &orca.Error{Op: op, Path: path, Kind: orca.Unsupported, Msg: "it is not in the store: persist it first (orca fs persist), or remove it"}
}

func (m *Machine) leavingDir(n *node) Leaving {
	l := Leaving{StagedEntry: &metapb.StagedEntry{Name: n.rec.Name, Dir: inode.AppendDir(nil, &n.rec)}, Ino: n.rec.Ino, Dir: true}
	if n.quota != nil {
		l.QuotaBytes, l.QuotaInodes = n.quota.limit.Bytes, n.quota.limit.Inodes
	}
	m.leavingXattrs(&l, n.rec.Flags)
	return l
}

func (m *Machine) leavingFile(n *node, name string, f *inode.File) Leaving {
	l := Leaving{StagedEntry: &metapb.StagedEntry{Name: name, File: inode.AppendFile(nil, f)}, Ino: f.Ino}
	if f.Flags.Has(inode.Linked) {
		l.Links, l.Home = f.Links, !m.alias(n, name, f)
	}
	c := m.copies(f)
	l.ReplicaMin, l.ReplicaLimit = c.Min, c.Max
	m.leavingXattrs(&l, f.Flags)
	return l
}

func (m *Machine) leavingXattrs(l *Leaving, flags inode.Flags) {
	l.size = 32 + len(l.Name) + len(l.File) + len(l.StagedEntry.Dir)
	if !flags.Has(inode.HasXattr) {
		return
	}
	lower := inode.AppendXattr(nil, l.Ino, "")
	m.eachKey(lower, inode.PrefixEnd(lower), func(k, v []byte) bool {
		l.Xattrs = append(l.Xattrs, &metapb.StagedXattr{Name: inode.NameOf(k), Value: slices.Clone(v)})
		l.size += len(k) + len(v)
		return true
	})
}

// partRow is the row of a directory of a mount as a part in a group.
func (m *Machine) partRow(of *command.Mount, d *node, id, group uint32) *command.Mount {
	row := proto.Clone(of).(*command.Mount)
	row.Root, row.Created, row.Unpersisted = uint64(d.rec.Ino), m.batch.now, 0
	mt, loc := row.Mount, m.locate(d, "")
	if d.rec.Mount != 0 { // a part already
		loc = m.locate(d.parent, d.rec.Name)
	}
	mt.Id, mt.Path, mt.Uri, mt.Group = id, d.path(), uri(of, loc.key), group
	mt.Root, mt.Junction, mt.TrashRetentionMs = 0, metapb.JunctionState_JUNCTION_NONE, 0
	mt.Part = &metapb.Part{Mount: of.Mount.Id, Mode: d.rec.Mode, Uid: d.rec.UID, Gid: d.rec.GID}
	return row
}
